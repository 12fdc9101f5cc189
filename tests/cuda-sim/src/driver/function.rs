//! Functions of modules and their attributes.

use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::Handle;
use crate::model::{self, Model};
use crate::sim;
use crate::state::{self, Kernel};

pub(super) fn known(function: Handle) -> Result<Arc<Kernel>> {
    state::get()
        .kernels
        .get(function)
        .ok_or(Error::InvalidHandle)
}

/// The greatest number of threads with which a function may be launched.
pub(super) fn max_threads(kernel: &Kernel) -> u32 {
    kernel.function.max_threads().min(Model::THREADS_PER_BLOCK)
}

const MAX_THREADS: u32 = 0;
const SHARED_BYTES: u32 = 1;
const CONSTANT_BYTES: u32 = 2;
const LOCAL_BYTES: u32 = 3;
const REGISTERS: u32 = 4;
const PTX_VERSION: u32 = 5;
const BINARY_VERSION: u32 = 6;
const CACHE_MODE: u32 = 7;
const MAX_DYNAMIC_SHARED: u32 = 8;
const CARVEOUT: u32 = 9;
/// Clusters, which this device does not have, and whatever came later.
const LAST: u32 = 16;

/// An attribute of a function.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: Out<i32>,
    attribute: u32,
    function: Handle,
) -> CUresult {
    driver("cuFuncGetAttribute", || {
        let kernel = known(function)?;
        let (major, minor) = model::get().capability;
        let number = match attribute {
            MAX_THREADS => max_threads(&kernel),
            SHARED_BYTES => sim::static_shared(&kernel.function),
            LOCAL_BYTES => kernel.function.local_bytes() as u32,
            CONSTANT_BYTES | CACHE_MODE => 0,
            REGISTERS => Model::REGISTERS_PER_THREAD,
            PTX_VERSION | BINARY_VERSION => major * 10 + minor,
            MAX_DYNAMIC_SHARED => kernel.dynamic_shared_limit.load(Ordering::Relaxed),
            CARVEOUT => return value.set(kernel.carveout.load(Ordering::Relaxed)),
            10..=LAST => 0,
            _ => return Err(Error::InvalidValue),
        };
        value.set(number as i32)
    })
}

/// Sets an attribute of a function: how much dynamic shared memory a launch may have, and a hint.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(
    function: Handle,
    attribute: u32,
    value: i32,
) -> CUresult {
    driver("cuFuncSetAttribute", || {
        let kernel = known(function)?;
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let most = model::get()
                    .shared_per_block_opt_in
                    .saturating_sub(sim::static_shared(&kernel.function));
                let bytes = u32::try_from(value).ok().filter(|bytes| *bytes <= most);
                kernel
                    .dynamic_shared_limit
                    .store(bytes.ok_or(Error::InvalidValue)?, Ordering::Relaxed);
                Ok(())
            }
            CARVEOUT if (-1..=100).contains(&value) => {
                kernel.carveout.store(value, Ordering::Relaxed);
                Ok(())
            }
            10.. => Err(Error::NotSupported),
            _ => Err(Error::InvalidValue),
        }
    })
}

/// Sets the preferred split between cache and shared memory, which is a hint.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetCacheConfig(function: Handle, preference: u32) -> CUresult {
    driver("cuFuncSetCacheConfig", || {
        known(function)?;
        if preference > 3 {
            Err(Error::InvalidValue)
        } else {
            Ok(())
        }
    })
}

/// The module of a function.
///
/// # Safety
/// `module` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetModule(module: Out<Handle>, function: Handle) -> CUresult {
    driver("cuFuncGetModule", || module.set(known(function)?.module))
}

/// The name of a function, which lasts as long as its module.
///
/// # Safety
/// `name` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetName(name: Out<*const c_char>, function: Handle) -> CUresult {
    driver("cuFuncGetName", || {
        name.set(known(function)?.c_name.as_ptr())
    })
}

/// Place and size of a parameter of a function.
///
/// # Safety
/// `offset` and `size` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetParamInfo(
    function: Handle,
    index: usize,
    offset: Out<usize>,
    size: Out<usize>,
) -> CUresult {
    driver("cuFuncGetParamInfo", || {
        let (start, bytes) = sim::parameters(&known(function)?.function)
            .nth(index)
            .ok_or(Error::InvalidValue)?;
        offset.set(start)?;
        size.set_if_wanted(bytes)
    })
}

/// Whether a function is loaded. It is.
///
/// # Safety
/// `loaded` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncIsLoaded(loaded: Out<u32>, function: Handle) -> CUresult {
    driver("cuFuncIsLoaded", || {
        known(function)?;
        loaded.set(1)
    })
}

/// Loads a function, which is done.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncLoad(function: Handle) -> CUresult {
    driver("cuFuncLoad", || known(function).map(drop))
}
