//! Events: points in a stream's work, with the time at which they were reached.

use std::sync::Mutex;
use std::time::Instant;

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::{Handle, lock};
use crate::state::{self, Event, current};

/// The event keeps no time.
const DISABLE_TIMING: u32 = 2;
/// All flags: blocking wait, no timing, for other processes.
const FLAGS: u32 = 7;

/// Makes an event.
///
/// # Safety
/// `event` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: Out<Handle>, flags: u32) -> CUresult {
    driver("cuEventCreate", || {
        let context = current()?;
        if flags & !FLAGS != 0 || event.is_null() {
            return Err(Error::InvalidValue);
        }
        event.set(state::get().events.insert(Event {
            context: context.number,
            timed: flags & DISABLE_TIMING == 0,
            recorded: Mutex::new(None),
        }))
    })
}

/// Ends an event.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: Handle) -> CUresult {
    driver("cuEventDestroy_v2", || {
        current()?;
        state::get()
            .events
            .remove(event)
            .map(drop)
            .ok_or(Error::InvalidHandle)
    })
}

fn record(event: Handle, stream: Handle) -> Result {
    let state = state::get();
    state.submit(stream)?;
    let event = state.events.get(event).ok_or(Error::InvalidHandle)?;
    // As on a device: an event belongs to the context of the streams that it is recorded in.
    if event.context != state.stream(stream)?.context {
        return Err(Error::InvalidHandle);
    }
    *lock(&event.recorded) = Some(Instant::now());
    Ok(())
}

/// Marks the point that a stream's work has come to.
///
/// # Safety
/// None beyond the C calling convention: handles are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> CUresult {
    driver("cuEventRecord", || record(event, stream))
}

/// Marks the point that a stream's work has come to; the flags concern graphs.
///
/// # Safety
/// None beyond the C calling convention: handles are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecordWithFlags(
    event: Handle,
    stream: Handle,
    _flags: u32,
) -> CUresult {
    driver("cuEventRecordWithFlags", || record(event, stream))
}

fn known(event: Handle) -> Result {
    current()?;
    state::get()
        .events
        .get(event)
        .map(drop)
        .ok_or(Error::InvalidHandle)
}

/// Waits for an event.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: Handle) -> CUresult {
    driver("cuEventSynchronize", || known(event))
}

/// Whether an event was reached. It was, or was never recorded, which counts as the same.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: Handle) -> CUresult {
    driver("cuEventQuery", || known(event))
}

fn elapsed(milliseconds: Out<f32>, start: Handle, end: Handle) -> Result {
    current()?;
    let time = |event: Handle| {
        let event = state::get().events.get(event).ok_or(Error::InvalidHandle)?;
        let recorded = *lock(&event.recorded);
        recorded.filter(|_| event.timed).ok_or(Error::InvalidHandle)
    };
    let (start, end) = (time(start)?, time(end)?);
    let seconds = match end.checked_duration_since(start) {
        Some(later) => later.as_secs_f64(),
        None => -start.duration_since(end).as_secs_f64(),
    };
    milliseconds.set((seconds * 1e3) as f32)
}

/// The time between two events: that of the simulation, which says nothing about a device.
///
/// # Safety
/// `milliseconds` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: Out<f32>,
    start: Handle,
    end: Handle,
) -> CUresult {
    driver("cuEventElapsedTime", || elapsed(milliseconds, start, end))
}

/// See [`cuEventElapsedTime`].
///
/// # Safety
/// `milliseconds` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: Out<f32>,
    start: Handle,
    end: Handle,
) -> CUresult {
    driver("cuEventElapsedTime_v2", || {
        elapsed(milliseconds, start, end)
    })
}
