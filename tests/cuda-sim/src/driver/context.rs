//! Contexts: the primary one of each device, those that a program makes, and which is current in a thread.

use std::sync::atomic::Ordering;

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::{Handle, lock};
use crate::model::ordinal;
use crate::state::{self, Context, current, current_in_any_state};

/// Takes a share in a device's primary context, which the first share makes.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: i32) -> CUresult {
    driver("cuDevicePrimaryCtxRetain", || {
        let device = ordinal(device)?;
        if context.is_null() {
            return Err(Error::InvalidValue);
        }
        context.set(state::get().retain_primary(device))
    })
}

/// Gives a share in a primary context back; the last one ends it.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> CUresult {
    driver("cuDevicePrimaryCtxRelease_v2", || {
        let device = ordinal(device)?;
        let state = state::get();
        let mut primary = lock(&state.primary);
        let (handle, shares) = primary.get_mut(&device).ok_or(Error::InvalidContext)?;
        *shares -= 1;
        if *shares > 0 {
            return Ok(());
        }
        let handle = *handle;
        primary.remove(&device);
        state.destroy_context(handle)
    })
}

/// Ends a primary context, whoever shares in it.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: i32) -> CUresult {
    driver("cuDevicePrimaryCtxReset_v2", || {
        let device = ordinal(device)?;
        let state = state::get();
        let mut primary = lock(&state.primary);
        match primary.remove(&device) {
            Some((handle, _)) => state.destroy_context(handle),
            None => Ok(()),
        }
    })
}

/// Whether a primary context exists, and its flags.
///
/// # Safety
/// `flags` and `active` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: i32,
    flags: Out<u32>,
    active: Out<i32>,
) -> CUresult {
    driver("cuDevicePrimaryCtxGetState", || {
        let device = ordinal(device)?;
        let state = state::get();
        let primary = lock(&state.primary);
        let context = primary
            .get(&device)
            .and_then(|(handle, _)| state.contexts.get(*handle));
        flags.set(
            context
                .as_ref()
                .map_or(0, |context| context.flags.load(Ordering::Relaxed)),
        )?;
        active.set(i32::from(context.is_some()))
    })
}

/// Sets the flags of a primary context. They concern waiting, and here nothing waits.
///
/// # Safety
/// None beyond the C calling convention: the arguments are numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) -> CUresult {
    driver("cuDevicePrimaryCtxSetFlags_v2", || {
        let device = ordinal(device)?;
        let state = state::get();
        if let Some((handle, _)) = lock(&state.primary).get(&device)
            && let Some(context) = state.contexts.get(*handle)
        {
            context.flags.store(flags, Ordering::Relaxed);
        }
        Ok(())
    })
}

fn create(place: Out<Handle>, flags: u32, device: i32) -> Result {
    let device = ordinal(device)?;
    if place.is_null() {
        return Err(Error::InvalidValue);
    }
    let handle = state::get()
        .contexts
        .insert(Context::new(device, false, flags));
    state::push_current(handle)?;
    place.set(handle)
}

/// Makes a context and makes it current.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: Out<Handle>, flags: u32, device: i32) -> CUresult {
    driver("cuCtxCreate_v2", || create(context, flags, device))
}

/// Makes a context without execution affinity and makes it current.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v3(
    context: Out<Handle>,
    _affinity: Handle,
    affinities: i32,
    flags: u32,
    device: i32,
) -> CUresult {
    driver("cuCtxCreate_v3", || {
        if affinities != 0 {
            return Err(Error::NotSupported);
        }
        create(context, flags, device)
    })
}

/// Makes a context without further parameters and makes it current.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v4(
    context: Out<Handle>,
    parameters: Handle,
    flags: u32,
    device: i32,
) -> CUresult {
    driver("cuCtxCreate_v4", || {
        if parameters != 0 {
            return Err(Error::NotSupported);
        }
        create(context, flags, device)
    })
}

/// Ends a context that a program made.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxDestroy_v2(context: Handle) -> CUresult {
    driver("cuCtxDestroy_v2", || {
        let state = state::get();
        let known = state.contexts.get(context).ok_or(Error::InvalidContext)?;
        if known.primary {
            return Err(Error::InvalidContext);
        }
        if state::current_handle() == context {
            state::pop_current();
        }
        state.destroy_context(context)
    })
}

/// The context that is current in this thread, or null.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: Out<Handle>) -> CUresult {
    driver("cuCtxGetCurrent", || context.set(state::current_handle()))
}

/// Makes a context, or none, current in this thread.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: Handle) -> CUresult {
    driver("cuCtxSetCurrent", || {
        if context != 0 && state::get().contexts.get(context).is_none() {
            return Err(Error::InvalidContext);
        }
        state::set_current(context)
    })
}

/// Makes a context current on top of the one that is.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> CUresult {
    driver("cuCtxPushCurrent_v2", || {
        state::get()
            .contexts
            .get(context)
            .ok_or(Error::InvalidContext)?;
        state::push_current(context)
    })
}

/// Takes the current context off.
///
/// # Safety
/// `context` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: Out<Handle>) -> CUresult {
    driver("cuCtxPopCurrent_v2", || {
        let popped = state::pop_current().ok_or(Error::InvalidContext)?;
        context.set_if_wanted(popped)
    })
}

/// The device of the current context.
///
/// # Safety
/// `device` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: Out<i32>) -> CUresult {
    driver("cuCtxGetDevice", || {
        device.set(current_in_any_state()?.device)
    })
}

/// Waits for all work of the current context, which is done: what remains is to say how it went.
///
/// # Safety
/// None beyond the C calling convention.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> CUresult {
    driver("cuCtxSynchronize", || current().map(drop))
}

/// The flags of the current context.
///
/// # Safety
/// `flags` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetFlags(flags: Out<u32>) -> CUresult {
    driver("cuCtxGetFlags", || {
        flags.set(current()?.flags.load(Ordering::Relaxed))
    })
}

/// Sets the flags of the current context. They concern waiting, and here nothing waits.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetFlags(flags: u32) -> CUresult {
    driver("cuCtxSetFlags", || {
        current()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    })
}

/// The number of a context, unlike that of any other.
///
/// # Safety
/// `id` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetId(context: Handle, id: Out<u64>) -> CUresult {
    driver("cuCtxGetId", || {
        let known = match context {
            0 => current()?,
            _ => state::get()
                .contexts
                .get(context)
                .ok_or(Error::ContextIsDestroyed)?,
        };
        id.set(known.number)
    })
}

/// The version of the context interface.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetApiVersion(_context: Handle, version: Out<u32>) -> CUresult {
    driver("cuCtxGetApiVersion", || version.set(3020))
}

/// The least and the greatest priority of a stream, as real devices have them.
///
/// # Safety
/// `least` and `greatest` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(
    least: Out<i32>,
    greatest: Out<i32>,
) -> CUresult {
    driver("cuCtxGetStreamPriorityRange", || {
        current()?;
        least.set_if_wanted(0)?;
        greatest.set_if_wanted(-5)
    })
}

/// The limits that are kept: stack, printf buffer and heap of a kernel, launch depth and count, L2 granularity.
fn limit_default(limit: u32) -> Result<usize> {
    match limit {
        0 => Ok(1024),
        1 => Ok(1 << 20),
        2 => Ok(8 << 20),
        3 => Ok(2),
        4 => Ok(2048),
        5 => Ok(64),
        6 => Ok(0),
        _ => Err(Error::UnsupportedLimit),
    }
}

/// A limit of the current context.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetLimit(value: Out<usize>, limit: u32) -> CUresult {
    driver("cuCtxGetLimit", || {
        let default = limit_default(limit)?;
        value.set(
            lock(&current()?.limits)
                .get(&limit)
                .copied()
                .unwrap_or(default),
        )
    })
}

/// Sets a limit of the current context. It is kept and told, and binds nothing.
///
/// # Safety
/// None beyond the C calling convention: the arguments are numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetLimit(limit: u32, value: usize) -> CUresult {
    driver("cuCtxSetLimit", || {
        limit_default(limit)?;
        lock(&current()?.limits).insert(limit, value);
        Ok(())
    })
}

/// The preferred split between cache and shared memory.
///
/// # Safety
/// `preference` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCacheConfig(preference: Out<u32>) -> CUresult {
    driver("cuCtxGetCacheConfig", || {
        preference.set(current()?.cache_config.load(Ordering::Relaxed))
    })
}

/// Sets the preferred split between cache and shared memory, which is a hint.
///
/// # Safety
/// None beyond the C calling convention: the argument is a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCacheConfig(preference: u32) -> CUresult {
    driver("cuCtxSetCacheConfig", || {
        if preference > 3 {
            return Err(Error::InvalidValue);
        }
        current()?.cache_config.store(preference, Ordering::Relaxed);
        Ok(())
    })
}
