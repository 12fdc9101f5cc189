//! Kernels that a compiler put into the program: machine code, announced to the runtime when the program starts.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use crate::call::guarded;
use crate::error::Error;
use crate::ffi::Text;
use crate::report;

use super::{NOT_SUPPORTED, call};

/// Names of kernels by the address of the function that stands for each on the host.
static KERNELS: Mutex<Option<HashMap<usize, String>>> = Mutex::new(None);

/// What stands for every fat binary: its address is all that is asked for.
static BINARY: [usize; 1] = [0];

fn name_of(function: usize) -> String {
    let kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    kernels
        .as_ref()
        .and_then(|kernels| kernels.get(&function).cloned())
        .unwrap_or_else(|| format!("a kernel at {function:#x}"))
}

/// Takes note of a fat binary.
///
/// # Safety
/// None beyond the C calling convention: the argument is not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFatBinary(_binary: *const c_void) -> *const c_void {
    BINARY.as_ptr().cast()
}

/// The end of a fat binary's announcement.
///
/// # Safety
/// None beyond the C calling convention: the argument is not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFatBinaryEnd(_binary: *const c_void) {}

/// Forgets a fat binary.
///
/// # Safety
/// None beyond the C calling convention: the argument is not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaUnregisterFatBinary(_binary: *const c_void) {}

/// Takes note of a kernel, to name it if it is launched.
///
/// # Safety
/// `name` is null or a zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFunction(
    _binary: *const c_void,
    function: *const c_void,
    _device_function: *const c_void,
    name: Text,
    _thread_limit: i32,
    _thread: *const c_void,
    _block: *const c_void,
    _block_size: *const c_void,
    _grid_size: *const c_void,
    _warp_size: *const c_void,
) {
    guarded("__cudaRegisterFunction", || {
        let name = name
            .as_str()
            .unwrap_or("a kernel without a name")
            .to_owned();
        let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        kernels
            .get_or_insert_with(HashMap::new)
            .insert(function as usize, name);
    });
}

/// Takes note of a variable, which nothing can use.
///
/// # Safety
/// None beyond the C calling convention: the arguments are not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterVar(
    _binary: *const c_void,
    _variable: *const c_void,
    _device_address: *const c_void,
    _name: *const c_void,
    _external: i32,
    _bytes: usize,
    _constant: i32,
    _global: i32,
) {
}

/// The first half of a launch as compilers write it. It succeeds, so that the second half can name the kernel.
///
/// # Safety
/// None beyond the C calling convention: the arguments are not looked at. (They are more than declared here, which the
/// convention leaves to the caller to clear away.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaPushCallConfiguration() -> u32 {
    0
}

/// The second half of a launch takes back what the first left. There is nothing, and what it is to fill is not used.
///
/// # Safety
/// As for [`__cudaPushCallConfiguration`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaPopCallConfiguration() -> u32 {
    0
}

/// Sets an attribute of a kernel that cannot run; that is said when it is launched.
///
/// # Safety
/// None beyond the C calling convention: the arguments are not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaFuncSetAttribute(
    _function: *const c_void,
    _attribute: u32,
    _value: i32,
) -> u32 {
    call("cudaFuncSetAttribute", || Ok(()))
}

fn refuse(name: &str, function: *const c_void) -> u32 {
    call(name, || {
        report::problem(format_args!(
            "{} is machine code in the program, launched through the CUDA runtime; this device runs PTX that is loaded \
             through the driver",
            name_of(function as usize)
        ));
        Err(Error::NotSupported)
    })
}

/// Refuses to launch a kernel, by name.
///
/// # Safety
/// None beyond the C calling convention: the first argument is looked up, the others are not declared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaLaunchKernel(function: *const c_void) -> u32 {
    refuse("cudaLaunchKernel", function)
}

/// The runtime's own handle of a kernel, in newer compilers: the host function's address again.
///
/// # Safety
/// `kernel` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaGetKernel(
    kernel: crate::ffi::Out<*const c_void>,
    function: *const c_void,
) -> u32 {
    match kernel.set(function) {
        Ok(()) => 0,
        Err(_) => NOT_SUPPORTED,
    }
}

/// Refuses to launch a kernel, by name.
///
/// # Safety
/// As for [`cudaLaunchKernel`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaLaunchKernel(function: *const c_void) -> u32 {
    refuse("cudaLaunchKernel", function)
}
