//! What the library asks of the process that it is loaded into.

use core::ffi::c_int;

use crate::call::guarded;

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> c_int;
    #[cfg(target_env = "gnu")]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// Arranges for the closing report.
pub fn at_exit() {
    extern "C" fn closing() {
        guarded("the closing report", crate::report::closing);
    }
    // SAFETY: the callback is a function of this library, which stays loaded until it has run, and lets no panic out.
    unsafe { atexit(closing) };
}

/// Keeps freed memory in the process. Each launch needs some megabytes for the registers of its warps; to get them from
/// the system anew, page by page, took ten times as long as a small kernel's work.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        // SAFETY: mallopt may be called at any time; a value that it does not take changes nothing.
        unsafe {
            mallopt(TRIM_THRESHOLD, 1 << 30);
            mallopt(MMAP_THRESHOLD, 32 << 20);
        }
    }
}
