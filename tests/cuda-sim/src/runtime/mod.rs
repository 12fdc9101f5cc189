//! The CUDA runtime, as far as a program that links candle meets it: devices, errors, plain memory, and the registration
//! of kernels that were compiled into the program. Those are machine code for a device and cannot run here: their launch
//! fails and names them.

mod device;
mod memory;
mod per_thread;
mod registration;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::call::{guarded, initialise, trace};
use crate::error::{Error, Result};
use crate::handles::{Handle, lock};
use crate::model;
use crate::state::{self, Context, current};

/// cudaErrorNotSupported.
pub const NOT_SUPPORTED: u32 = Error::NotSupported as u32;

thread_local! {
    /// The result of the last call that failed, until it is asked for.
    static LAST_ERROR: Cell<u32> = const { Cell::new(0) };
}

/// A call: traced, remembered if it fails, and no panic leaves it. The runtime numbers its errors as the driver does,
/// where both have them.
fn call(name: &str, body: impl FnOnce() -> Result) -> u32 {
    let result = guarded(name, body).unwrap_or(Err(Error::Unknown));
    trace(name, || format!("{result:?}"));
    match result {
        Ok(()) => 0,
        Err(error) => {
            LAST_ERROR.set(error.code());
            error.code()
        }
    }
}

/// The current context; without one, the first device's primary context becomes it, as the runtime has it.
fn context() -> Result<Arc<Context>> {
    initialise();
    if state::current_handle() == 0 {
        use_device(0)?;
    }
    current()
}

/// Makes a device's primary context current. The runtime keeps one share in it, as long as it lasts.
fn use_device(device: i32) -> Result {
    static SHARES: Mutex<BTreeMap<i32, Handle>> = Mutex::new(BTreeMap::new());

    initialise();
    let device = model::ordinal(device)?;
    let state = state::get();
    let mut shares = lock(&SHARES);
    let kept = shares.get(&device).copied();
    let handle = match kept.filter(|handle| state.contexts.get(*handle).is_some()) {
        Some(handle) => handle,
        None => state.retain_primary(device),
    };
    shares.insert(device, handle);
    state::set_current(handle)
}
