//! cuBLAS: matrix products, and what a handle for them needs.

mod gemm;
mod handle;
mod matrix;
mod product;

use std::ffi::{CStr, c_char};

use crate::call::{guarded, trace};
use crate::error::Error;

/// What a call of cuBLAS returns in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    NotInitialized = 1,
    InvalidValue = 7,
    ExecutionFailed = 13,
    InternalError = 14,
    NotSupported = 15,
}

type Result<T = ()> = std::result::Result<T, Status>;

/// Errors of the driver under a cuBLAS call; what they were was said where they arose.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidValue | Error::InvalidHandle => Self::InvalidValue,
            Error::InvalidContext | Error::NotInitialized => Self::NotInitialized,
            _ => Self::ExecutionFailed,
        }
    }
}

/// A call: traced, and no panic leaves it.
fn call(name: &str, body: impl FnOnce() -> Result) -> u32 {
    let result = guarded(name, body).unwrap_or(Err(Status::InternalError));
    trace(name, || format!("{result:?}"));
    result.map_or_else(|status| status as u32, |()| 0)
}

fn status_text(status: u32) -> (&'static CStr, &'static CStr) {
    match status {
        0 => (c"CUBLAS_STATUS_SUCCESS", c"success"),
        1 => (
            c"CUBLAS_STATUS_NOT_INITIALIZED",
            c"the library was not initialized",
        ),
        3 => (
            c"CUBLAS_STATUS_ALLOC_FAILED",
            c"the resource allocation failed",
        ),
        7 => (
            c"CUBLAS_STATUS_INVALID_VALUE",
            c"an unsupported value or parameter was passed to the function",
        ),
        8 => (
            c"CUBLAS_STATUS_ARCH_MISMATCH",
            c"the device lacks a feature that the function needs",
        ),
        11 => (
            c"CUBLAS_STATUS_MAPPING_ERROR",
            c"an access to GPU memory space failed",
        ),
        13 => (
            c"CUBLAS_STATUS_EXECUTION_FAILED",
            c"the function failed to launch on the GPU",
        ),
        14 => (
            c"CUBLAS_STATUS_INTERNAL_ERROR",
            c"an internal operation failed",
        ),
        15 => (
            c"CUBLAS_STATUS_NOT_SUPPORTED",
            c"the functionality requested is not supported",
        ),
        16 => (c"CUBLAS_STATUS_LICENSE_ERROR", c"the license is missing"),
        _ => (c"unknown", c"unknown"),
    }
}

/// The name of a status.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetStatusName(status: u32) -> *const c_char {
    status_text(status).0.as_ptr()
}

/// The description of a status.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetStatusString(status: u32) -> *const c_char {
    status_text(status).1.as_ptr()
}

/// The name of a status.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtGetStatusName(status: u32) -> *const c_char {
    status_text(status).0.as_ptr()
}

/// The description of a status.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtGetStatusString(status: u32) -> *const c_char {
    status_text(status).1.as_ptr()
}
