//! Names and descriptions of results.

use std::ffi::c_char;
use std::ptr;

use crate::call::anytime;
use crate::error::{self, CUresult, Error};
use crate::ffi::Out;

/// The name of a result.
///
/// # Safety
/// `text` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: CUresult, text: Out<*const c_char>) -> CUresult {
    anytime("cuGetErrorName", || match error::lookup(code) {
        Some((name, _)) => text.set(name.as_ptr()),
        None => text.set(ptr::null()).and(Err(Error::InvalidValue)),
    })
}

/// The description of a result.
///
/// # Safety
/// `text` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: CUresult, text: Out<*const c_char>) -> CUresult {
    anytime("cuGetErrorString", || match error::lookup(code) {
        Some((_, description)) => text.set(description.as_ptr()),
        None => text.set(ptr::null()).and(Err(Error::InvalidValue)),
    })
}
