//! NVRTC, the compiler that a program carries with it: not simulated, except that its errors have a text.

use std::ffi::c_char;

use crate::ffi::Out;

/// NVRTC_ERROR_INTERNAL_ERROR.
pub const INTERNAL_ERROR: u32 = 11;

/// The description of a result.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcGetErrorString(result: u32) -> *const c_char {
    match result {
        0 => c"NVRTC_SUCCESS",
        INTERNAL_ERROR => c"NVRTC_ERROR_INTERNAL_ERROR",
        _ => c"NVRTC_ERROR",
    }
    .as_ptr()
}

/// The version that is not there.
///
/// # Safety
/// `major` and `minor` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcVersion(major: Out<i32>, minor: Out<i32>) -> u32 {
    const INVALID_INPUT: u32 = 3;
    match major.set(13).and_then(|()| minor.set(0)) {
        Ok(()) => 0,
        Err(_) => INVALID_INPUT,
    }
}
