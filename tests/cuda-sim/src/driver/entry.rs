//! Initialisation, the version, and entry points by name.

use std::ffi::c_void;
use std::ptr;

use crate::call::{anytime, driver, initialise};
use crate::config;
use crate::error::{CUresult, Error, Result};
use crate::exports::TABLE;
use crate::ffi::{Out, Text};
use crate::model;

/// Makes the driver ready.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: u32) -> CUresult {
    anytime("cuInit", || {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        if config::get().devices == 0 {
            return Err(Error::NoDevice);
        }
        initialise();
        Ok(())
    })
}

/// The CUDA version of the driver.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: Out<i32>) -> CUresult {
    anytime("cuDriverGetVersion", || version.set(model::DRIVER_VERSION))
}

/// The newest variant of an entry point: `cuMemAlloc` stands for `cuMemAlloc_v2`, as the headers' macros have it.
fn entry_point(name: &str) -> Option<*mut c_void> {
    let (_, function) = TABLE
        .iter()
        .filter(|(known, _)| {
            known.strip_prefix(name).is_some_and(|rest| {
                rest.is_empty()
                    || rest.strip_prefix("_v").is_some_and(|version| {
                        !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())
                    })
            })
        })
        .max_by_key(|(known, _)| {
            known.len() * 256 + usize::from(*known.as_bytes().last().unwrap_or(&0))
        })?;
    Some(*function as *mut c_void)
}

fn look_up(name: Text, place: Out<*mut c_void>) -> Result {
    let found = entry_point(name.as_str()?);
    place.set(found.unwrap_or(ptr::null_mut()))?;
    found.map(drop).ok_or(Error::NotFound)
}

/// The address of an entry point.
///
/// # Safety
/// `name` is null or a zero-terminated text; `place` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress(
    name: Text,
    place: Out<*mut c_void>,
    _version: i32,
    _flags: u64,
) -> CUresult {
    anytime("cuGetProcAddress", || look_up(name, place))
}

/// The address of an entry point, and whether there is one.
///
/// # Safety
/// `name` is null or a zero-terminated text; `place` and `status` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    name: Text,
    place: Out<*mut c_void>,
    _version: i32,
    _flags: u64,
    status: Out<u32>,
) -> CUresult {
    const FOUND: u32 = 0;
    const NO_SUCH_SYMBOL: u32 = 1;
    anytime("cuGetProcAddress_v2", || match look_up(name, place) {
        Ok(()) => status.set_if_wanted(FOUND),
        Err(error) => status.set_if_wanted(NO_SUCH_SYMBOL).and(Err(error)),
    })
}

/// Profilers are not simulated; to start and stop one is allowed, as it is without a profiler.
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStart() -> CUresult {
    driver("cuProfilerStart", || Ok(()))
}

/// See [`cuProfilerStart`].
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStop() -> CUresult {
    driver("cuProfilerStop", || Ok(()))
}
