//! Memory pools: accepted, and without effect, for nothing is kept back from reuse or handed to it.

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostIn, HostOut, Out};
use crate::handles::{Handle, lock};
use crate::model::ordinal;
use crate::state::{self, Pool};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::memory::allocate_in_stream;

fn default_pool(device: i32) -> Result<Handle> {
    // One lock for the search and the making of it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = lock(&MAKING);
    let device = ordinal(device)?;
    let pools = &state::get().pools;
    Ok(pools
        .find(|pool| pool.default && pool.device == device)
        .unwrap_or_else(|| pools.insert(Pool::new(device, true))))
}

/// The default pool of a device.
///
/// # Safety
/// `pool` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: i32) -> CUresult {
    driver("cuDeviceGetDefaultMemPool", || {
        pool.set(default_pool(device)?)
    })
}

/// The current pool of a device, which stays the default one.
///
/// # Safety
/// `pool` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: Out<Handle>, device: i32) -> CUresult {
    driver("cuDeviceGetMemPool", || pool.set(default_pool(device)?))
}

/// Makes a pool the current one of a device, which makes no difference.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceSetMemPool(device: i32, pool: Handle) -> CUresult {
    driver("cuDeviceSetMemPool", || {
        ordinal(device)?;
        known(pool).map(drop)
    })
}

fn known(pool: Handle) -> Result<std::sync::Arc<Pool>> {
    state::get().pools.get(pool).ok_or(Error::InvalidValue)
}

/// Makes a pool.
///
/// # Safety
/// `pool` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(pool: Out<Handle>, properties: HostIn) -> CUresult {
    driver("cuMemPoolCreate", || {
        if properties.is_null() || pool.is_null() {
            return Err(Error::InvalidValue);
        }
        pool.set(state::get().pools.insert(Pool::new(0, false)))
    })
}

/// Ends a pool.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: Handle) -> CUresult {
    driver("cuMemPoolDestroy", || {
        if known(pool)?.default {
            return Err(Error::InvalidValue);
        }
        state::get().pools.remove(pool);
        Ok(())
    })
}

/// Gives memory that a pool keeps back to the system. It keeps none.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolTrimTo(pool: Handle, _keep: usize) -> CUresult {
    driver("cuMemPoolTrimTo", || known(pool).map(drop))
}

/// Attributes 1 to 3 are flags of four bytes, the others counts of eight.
const LAST_FLAG: u32 = 3;
const LAST: u32 = 8;

/// An attribute of a pool.
///
/// # Safety
/// `value` is null or valid for a write of the attribute's type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(
    pool: Handle,
    attribute: u32,
    value: HostOut,
) -> CUresult {
    driver("cuMemPoolGetAttribute", || {
        let pool = known(pool)?;
        let kept = lock(&pool.attributes).get(&attribute).copied();
        match attribute {
            1..=LAST_FLAG => value.write(kept.unwrap_or(1) as u32),
            4 => value.write(kept.unwrap_or(0)),
            5..=LAST => value.write(state::get().used_bytes.load(Ordering::Relaxed) as u64),
            _ => Err(Error::InvalidValue),
        }
    })
}

/// Sets an attribute of a pool. It is kept and told, and changes nothing.
///
/// # Safety
/// `value` is null or valid for a read of the attribute's type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(
    pool: Handle,
    attribute: u32,
    value: HostIn,
) -> CUresult {
    driver("cuMemPoolSetAttribute", || {
        let pool = known(pool)?;
        let value = match attribute {
            1..=LAST_FLAG => u64::from(value.read::<u32>()?),
            4..=LAST => value.read()?,
            _ => return Err(Error::InvalidValue),
        };
        lock(&pool.attributes).insert(attribute, value);
        Ok(())
    })
}

/// Allocates device memory from a pool in a stream's order.
///
/// # Safety
/// `address` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: Out<u64>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> CUresult {
    driver("cuMemAllocFromPoolAsync", || {
        known(pool)?;
        allocate_in_stream(address, bytes, stream)
    })
}
