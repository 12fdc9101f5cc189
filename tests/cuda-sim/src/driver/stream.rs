//! Streams. Work is done when it is submitted, so that there is nothing to wait for; errors show as they would.

use std::ffi::c_void;

use crate::call::{driver, guarded};
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::Handle;
use crate::state::{self, Stream, current};

/// No wait for work on the legacy default stream.
const NON_BLOCKING: u32 = 1;

fn create(place: Out<Handle>, flags: u32, priority: i32) -> Result {
    let context = current()?;
    if flags & !NON_BLOCKING != 0 || place.is_null() {
        return Err(Error::InvalidValue);
    }
    let stream = Stream::new(context.number, flags, priority.clamp(-5, 0));
    place.set(state::get().streams.insert(stream))
}

/// Makes a stream.
///
/// # Safety
/// `stream` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: Out<Handle>, flags: u32) -> CUresult {
    driver("cuStreamCreate", || create(stream, flags, 0))
}

/// Makes a stream with a priority.
///
/// # Safety
/// `stream` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: Out<Handle>,
    flags: u32,
    priority: i32,
) -> CUresult {
    driver("cuStreamCreateWithPriority", || {
        create(stream, flags, priority)
    })
}

/// Ends a stream.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: Handle) -> CUresult {
    driver("cuStreamDestroy_v2", || {
        current()?;
        state::get()
            .streams
            .remove(stream)
            .map(drop)
            .ok_or(Error::InvalidHandle)
    })
}

/// Waits for a stream.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: Handle) -> CUresult {
    driver("cuStreamSynchronize", || {
        state::get().submit(stream).map(drop)
    })
}

/// Whether a stream has finished its work. It has.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: Handle) -> CUresult {
    driver("cuStreamQuery", || state::get().submit(stream).map(drop))
}

/// Lets a stream wait for an event.
///
/// # Safety
/// None beyond the C calling convention: handles are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) -> CUresult {
    driver("cuStreamWaitEvent", || {
        let state = state::get();
        state.submit(stream)?;
        state
            .events
            .get(event)
            .map(drop)
            .ok_or(Error::InvalidHandle)
    })
}

/// Whether a stream records a graph. None does.
///
/// # Safety
/// `status` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: Handle, status: Out<u32>) -> CUresult {
    const NONE: u32 = 0;
    driver("cuStreamIsCapturing", || {
        state::get().submit(stream)?;
        status.set(NONE)
    })
}

/// The flags of a stream.
///
/// # Safety
/// `flags` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: Handle, flags: Out<u32>) -> CUresult {
    driver("cuStreamGetFlags", || {
        flags.set(state::get().stream(stream)?.flags)
    })
}

/// The priority of a stream.
///
/// # Safety
/// `priority` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: Handle, priority: Out<i32>) -> CUresult {
    driver("cuStreamGetPriority", || {
        priority.set(state::get().stream(stream)?.priority)
    })
}

/// The number of a stream, unlike that of any other.
///
/// # Safety
/// `id` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetId(stream: Handle, id: Out<u64>) -> CUresult {
    driver("cuStreamGetId", || {
        id.set(state::get().stream(stream)?.number)
    })
}

/// The context of a stream, which must be the current one or the primary one.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetCtx(stream: Handle, context: Out<Handle>) -> CUresult {
    driver("cuStreamGetCtx", || {
        let state = state::get();
        let number = state.stream(stream)?.context;
        let handle = state
            .contexts
            .find(|known| known.number == number)
            .ok_or(Error::ContextIsDestroyed)?;
        context.set(handle)
    })
}

/// A function of the program's that a stream calls.
type HostFunction = unsafe extern "C" fn(*mut c_void);

/// Calls a function of the program's, after all work before it.
///
/// # Safety
/// `function` is null or may be called with `data`, from this thread, until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<HostFunction>,
    data: *mut c_void,
) -> CUresult {
    driver("cuLaunchHostFunc", || {
        state::get().submit(stream)?;
        let function = function.ok_or(Error::InvalidValue)?;
        // SAFETY: the caller's promise.
        guarded("a host function", || unsafe { function(data) }).ok_or(Error::Unknown)
    })
}

/// A function of the program's that a stream calls with its result.
type Callback = unsafe extern "C" fn(Handle, CUresult, *mut c_void);

/// Calls a function of the program's, after all work before it.
///
/// # Safety
/// `callback` is null or may be called with `data`, from this thread, until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamAddCallback(
    stream: Handle,
    callback: Option<Callback>,
    data: *mut c_void,
    flags: u32,
) -> CUresult {
    driver("cuStreamAddCallback", || {
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        state::get().submit(stream)?;
        let callback = callback.ok_or(Error::InvalidValue)?;
        // SAFETY: the caller's promise.
        guarded("a stream callback", || unsafe { callback(stream, 0, data) }).ok_or(Error::Unknown)
    })
}
