//! Modules: PTX text and the names in it.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fs;
use std::sync::atomic::{AtomicI32, AtomicU32};
use std::sync::{Arc, Mutex};

use crate::call::{driver, trace};
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostIn, Out, Text};
use crate::handles::{Handle, lock};
use crate::model::Model;
use crate::report;
use crate::sim;
use crate::state::{self, Kernel, LoadedModule, current};

/// How a file for a device begins that is no text: an ELF object, and two kinds of fat binary.
const BINARIES: [u32; 3] = [u32::from_le_bytes(*b"\x7fELF"), 0xba55_ed50, 0x4662_43b1];

fn load(place: Out<Handle>, text: &std::ffi::CStr) -> Result {
    let context = current()?;
    let module = sim::load(text)?;
    place.set(state::get().modules.insert(LoadedModule {
        context: context.number,
        module,
        kernels: Mutex::default(),
    }))
}

fn load_image(place: Out<Handle>, image: HostIn) -> Result {
    current()?;
    if place.is_null() || image.is_null() {
        return Err(Error::InvalidValue);
    }
    // A text of fewer than four bytes ends before they do; byte by byte, so as not to read past its end.
    let mut start = [0; 4];
    for (index, byte) in start.iter_mut().enumerate() {
        *byte = image.offset(index).read()?;
        if *byte == 0 {
            break;
        }
    }
    if BINARIES.contains(&u32::from_le_bytes(start)) {
        report::problem(format_args!(
            "the module is a binary for a device; this one runs PTX text (compile with -ptx)"
        ));
        return Err(Error::NoBinaryForGpu);
    }
    load(place, image.text()?)
}

/// Loads a module from a file of PTX text.
///
/// # Safety
/// `module` is null or valid for a write; `path` is null or a zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: Out<Handle>, path: Text) -> CUresult {
    driver("cuModuleLoad", || {
        current()?;
        if module.is_null() {
            return Err(Error::InvalidValue);
        }
        let path = path.as_str()?;
        let mut bytes = fs::read(path).map_err(|error| {
            report::note(format_args!("{path}: {error}"));
            Error::FileNotFound
        })?;
        // PTX files may end in zero bytes, as images in memory do.
        bytes.truncate(
            bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1),
        );
        let text = CString::new(bytes).map_err(|_| Error::NoBinaryForGpu)?;
        load(module, &text)
    })
}

/// Loads a module from PTX text.
///
/// # Safety
/// `module` is null or valid for a write; `image` is null or a zero-terminated text, or begins as a device binary does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: Out<Handle>, image: HostIn) -> CUresult {
    driver("cuModuleLoadData", || load_image(module, image))
}

/// Loads a module from PTX text. The options are for a compiler, and nothing is compiled.
///
/// # Safety
/// `module` is null or valid for a write; `image` is null or a zero-terminated text, or begins as a device binary does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: Out<Handle>,
    image: HostIn,
    _count: u32,
    _options: *mut u32,
    _values: *mut *mut c_void,
) -> CUresult {
    driver("cuModuleLoadDataEx", || load_image(module, image))
}

/// Ends a module and its functions.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: Handle) -> CUresult {
    driver("cuModuleUnload", || {
        current()?;
        let state = state::get();
        let gone = state.modules.remove(module).ok_or(Error::InvalidHandle)?;
        for kernel in lock(&gone.kernels).values() {
            state.kernels.remove(*kernel);
        }
        Ok(())
    })
}

fn known(module: Handle) -> Result<Arc<LoadedModule>> {
    current()?;
    state::get().modules.get(module).ok_or(Error::InvalidHandle)
}

/// A function of a module; the same handle for the same name.
fn function(handle: Handle, name: &str) -> Result<Handle> {
    let module = known(handle)?;
    let mut kernels: std::sync::MutexGuard<'_, HashMap<String, Handle>> = lock(&module.kernels);
    if let Some(kernel) = kernels.get(name) {
        return Ok(*kernel);
    }
    let function = module
        .module
        .function(name)
        .map_err(|fault| match sim::result_of(&fault) {
            // A program may ask for a function to see whether it is there.
            Error::NotFound => {
                trace("cuModuleGetFunction", || fault.to_string());
                Error::NotFound
            }
            _ => report::fault("function", &fault),
        })?;
    let limit = Model::SHARED_PER_BLOCK.saturating_sub(sim::static_shared(&function));
    let kernel = state::get().kernels.insert(Kernel {
        context: module.context,
        function,
        module: handle,
        c_name: CString::new(name).map_err(|_| Error::InvalidValue)?,
        dynamic_shared_limit: AtomicU32::new(limit),
        carveout: AtomicI32::new(-1),
    });
    kernels.insert(name.to_owned(), kernel);
    Ok(kernel)
}

/// A function of a module by its name.
///
/// # Safety
/// `kernel` is null or valid for a write; `name` is null or a zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    kernel: Out<Handle>,
    module: Handle,
    name: Text,
) -> CUresult {
    driver("cuModuleGetFunction", || {
        if kernel.is_null() {
            return Err(Error::InvalidValue);
        }
        kernel.set(function(module, name.as_str()?)?)
    })
}

/// The number of functions of a module.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunctionCount(count: Out<u32>, module: Handle) -> CUresult {
    driver("cuModuleGetFunctionCount", || {
        count.set(known(module)?.module.function_names().len() as u32)
    })
}

/// The functions of a module, at most as many as asked for.
///
/// # Safety
/// `kernels` is null or valid for writes of `count` handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleEnumerateFunctions(
    kernels: Out<Handle>,
    count: u32,
    module: Handle,
) -> CUresult {
    driver("cuModuleEnumerateFunctions", || {
        let names = known(module)?.module.function_names();
        let handles: Result<Vec<Handle>> = names
            .iter()
            .take(count as usize)
            .map(|name| function(module, name))
            .collect();
        kernels.set_all(handles?)
    })
}

/// Address and size of a variable of a module.
///
/// # Safety
/// `address` and `bytes` are null or valid for a write; `name` is null or a zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: Out<u64>,
    bytes: Out<usize>,
    module: Handle,
    name: Text,
) -> CUresult {
    driver("cuModuleGetGlobal_v2", || {
        let (start, size) = known(module)?
            .module
            .global(name.as_str()?)
            .ok_or(Error::NotFound)?;
        address.set_if_wanted(start)?;
        bytes.set_if_wanted(size)
    })
}

/// Whether functions are prepared when they are first asked for. They are.
///
/// # Safety
/// `mode` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetLoadingMode(mode: Out<u32>) -> CUresult {
    const LAZY: u32 = 2;
    driver("cuModuleGetLoadingMode", || mode.set(LAZY))
}
