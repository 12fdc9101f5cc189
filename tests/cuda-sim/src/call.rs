//! What every exported call has in common: tracing, the initialisation rule, and that no panic reaches C.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config;
use crate::error::{CUresult, Error, Result};
use crate::report;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// After this, calls other than the few that need no cuInit succeed.
pub fn initialise() {
    INITIALISED.store(true, Ordering::Relaxed);
}

/// A driver call that works only after cuInit, as most do.
pub fn driver(name: &str, body: impl FnOnce() -> Result) -> CUresult {
    anytime(name, || {
        if !INITIALISED.load(Ordering::Relaxed) {
            return Err(Error::NotInitialized);
        }
        body()
    })
}

/// A driver call that works before cuInit too.
pub fn anytime(name: &str, body: impl FnOnce() -> Result) -> CUresult {
    let result = guarded(name, body).unwrap_or(Err(Error::Unknown));
    trace(name, || match result {
        Ok(()) => "ok".into(),
        Err(error) => error.name().into(),
    });
    result.map_or_else(Error::code, |()| 0)
}

/// Runs a body; None if it panicked, which was reported then.
pub fn guarded<T>(name: &str, body: impl FnOnce() -> T) -> Option<T> {
    // Tables are changed in single steps under locks that recover from poisoning, so that no state is left half done.
    catch_unwind(AssertUnwindSafe(body))
        .inspect_err(|_| {
            report::problem(format_args!("internal error in {name}: please report it"));
        })
        .ok()
}

/// Prints a line if CUDA_SIM_TRACE asks for it.
pub fn trace(name: &str, detail: impl FnOnce() -> String) {
    if config::get().trace {
        eprintln!("cuda-sim: {name}: {}", detail());
    }
}
