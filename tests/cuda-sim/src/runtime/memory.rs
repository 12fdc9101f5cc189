//! Plain device memory, by way of the driver's calls.

use crate::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::Handle;

use super::{call, context};

/// A driver call's result, for the runtime.
fn forward(code: CUresult) -> Result {
    match code {
        0 => Ok(()),
        1 => Err(Error::InvalidValue),
        2 => Err(Error::OutOfMemory),
        400 => Err(Error::InvalidHandle),
        _ => Err(Error::Unknown),
    }
}

/// Allocates device memory.
///
/// # Safety
/// `address` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMalloc(address: Out<u64>, bytes: usize) -> u32 {
    call("cudaMalloc", || {
        context()?;
        // SAFETY: the caller's promise on the pointer is the one that the driver asks for.
        forward(unsafe { driver::cuMemAlloc_v2(address, bytes) })
    })
}

/// Allocates device memory in a stream's order.
///
/// # Safety
/// `address` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMallocAsync(address: Out<u64>, bytes: usize, stream: Handle) -> u32 {
    call("cudaMallocAsync", || {
        context()?;
        // SAFETY: the caller's promise on the pointer is the one that the driver asks for.
        forward(unsafe { driver::cuMemAllocAsync(address, bytes, stream) })
    })
}

/// Gives device memory back; null is none.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaFree(address: u64) -> u32 {
    call("cudaFree", || {
        context()?;
        if address == 0 {
            return Ok(());
        }
        // SAFETY: nothing is asked of the argument.
        forward(unsafe { driver::cuMemFree_v2(address) })
    })
}

/// Gives device memory back in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaFreeAsync(address: u64, stream: Handle) -> u32 {
    call("cudaFreeAsync", || {
        context()?;
        // SAFETY: nothing is asked of the arguments.
        forward(unsafe { driver::cuMemFreeAsync(address, stream) })
    })
}

/// Fills device memory with a byte.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMemset(address: u64, value: i32, count: usize) -> u32 {
    call("cudaMemset", || {
        context()?;
        // SAFETY: nothing is asked of the arguments.
        forward(unsafe { driver::cuMemsetD8_v2(address, value as u8, count) })
    })
}

/// Fills device memory with a byte in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMemsetAsync(
    address: u64,
    value: i32,
    count: usize,
    stream: Handle,
) -> u32 {
    call("cudaMemsetAsync", || {
        context()?;
        // SAFETY: nothing is asked of the arguments.
        forward(unsafe { driver::cuMemsetD8Async(address, value as u8, count, stream) })
    })
}

/// Copies between addresses of either kind; what is which, unified addressing tells.
///
/// # Safety
/// An address that is not one of device memory is valid on the host for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMemcpy(to: u64, from: u64, bytes: usize, _kind: u32) -> u32 {
    call("cudaMemcpy", || {
        context()?;
        // SAFETY: the caller's promise is the one that the driver asks for.
        forward(unsafe { driver::cuMemcpy(to, from, bytes) })
    })
}

/// Copies between addresses of either kind in a stream's order.
///
/// # Safety
/// An address that is not one of device memory is valid on the host for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMemcpyAsync(
    to: u64,
    from: u64,
    bytes: usize,
    _kind: u32,
    stream: Handle,
) -> u32 {
    call("cudaMemcpyAsync", || {
        context()?;
        // SAFETY: the caller's promise is the one that the driver asks for.
        forward(unsafe { driver::cuMemcpyAsync(to, from, bytes, stream) })
    })
}
