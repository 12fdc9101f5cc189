//! Devices, versions and errors.

use std::ffi::c_char;

use crate::config;
use crate::error::{Error, lookup};
use crate::ffi::Out;
use crate::handles::Handle;
use crate::model;
use crate::state;

use super::{LAST_ERROR, call, context, use_device};

/// The current device.
///
/// # Safety
/// `device` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetDevice(device: Out<i32>) -> u32 {
    call("cudaGetDevice", || device.set(context()?.device))
}

/// Makes a device the current one.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaSetDevice(device: i32) -> u32 {
    call("cudaSetDevice", || use_device(device))
}

/// The number of devices.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetDeviceCount(count: Out<i32>) -> u32 {
    call("cudaGetDeviceCount", || count.set(config::get().devices))
}

/// An attribute of a device, numbered as the driver's.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaDeviceGetAttribute(
    value: Out<i32>,
    attribute: u32,
    device: i32,
) -> u32 {
    call("cudaDeviceGetAttribute", || {
        value.set(model::get().attribute(model::ordinal(device)?, attribute)?)
    })
}

/// Waits for the device.
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaDeviceSynchronize() -> u32 {
    call("cudaDeviceSynchronize", || context().map(drop))
}

/// Waits for a stream.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaStreamSynchronize(stream: Handle) -> u32 {
    call("cudaStreamSynchronize", || {
        context()?;
        state::get().submit(stream).map(drop)
    })
}

/// The version of the driver.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaDriverGetVersion(version: Out<i32>) -> u32 {
    call("cudaDriverGetVersion", || {
        version.set(model::DRIVER_VERSION)
    })
}

/// The version of the runtime.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaRuntimeGetVersion(version: Out<i32>) -> u32 {
    call("cudaRuntimeGetVersion", || {
        version.set(model::DRIVER_VERSION)
    })
}

/// The result of the last call that failed, which is forgotten then.
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetLastError() -> u32 {
    LAST_ERROR.replace(0)
}

/// The result of the last call that failed.
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaPeekAtLastError() -> u32 {
    LAST_ERROR.get()
}

fn text(code: u32) -> (*const c_char, *const c_char) {
    let (name, text) = lookup(code)
        .or_else(|| lookup(Error::Unknown.code()))
        .unwrap_or((c"unknown", c"unknown"));
    (name.as_ptr(), text.as_ptr())
}

/// The name of a result, the driver's.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetErrorName(code: u32) -> *const c_char {
    text(code).0
}

/// The description of a result.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetErrorString(code: u32) -> *const c_char {
    text(code).1
}
