//! Device memory. An address that was freed is gone at once: use after free is found, whatever the stream.

use std::sync::atomic::Ordering;

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostOut, Out};
use crate::handles::{Handle, lock};
use crate::model;
use crate::state::{self, current};

/// Allocates device memory, which nothing has written.
///
/// # Safety
/// `address` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) -> CUresult {
    driver("cuMemAlloc_v2", || {
        let context = current()?;
        if bytes == 0 || address.is_null() {
            return Err(Error::InvalidValue);
        }
        address.set(state::get().allocate(&context, bytes)?)
    })
}

/// Allocates rows of device memory, each aligned.
///
/// # Safety
/// `address` and `pitch` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocPitch_v2(
    address: Out<u64>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    element: u32,
) -> CUresult {
    driver("cuMemAllocPitch_v2", || {
        let context = current()?;
        if width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) || address.is_null() {
            return Err(Error::InvalidValue);
        }
        let row = width
            .checked_next_multiple_of(512)
            .ok_or(Error::InvalidValue)?;
        let bytes = row.checked_mul(height).ok_or(Error::InvalidValue)?;
        pitch.set(row)?;
        address.set(state::get().allocate(&context, bytes)?)
    })
}

/// Gives device memory back.
///
/// # Safety
/// None beyond the C calling convention: an address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> CUresult {
    driver("cuMemFree_v2", || {
        current()?;
        state::get().release(address)
    })
}

pub(super) fn allocate_in_stream(address: Out<u64>, bytes: usize, stream: Handle) -> Result {
    let state = state::get();
    let context = state.submit(stream)?;
    if address.is_null() {
        return Err(Error::InvalidValue);
    }
    // No bytes, no memory: null, which cuMemFreeAsync takes back.
    address.set(if bytes == 0 {
        0
    } else {
        state.allocate(&context, bytes)?
    })
}

/// Allocates device memory in a stream's order.
///
/// # Safety
/// `address` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(
    address: Out<u64>,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemAllocAsync", || {
        allocate_in_stream(address, bytes, stream)
    })
}

/// Gives device memory back in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: an address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: Handle) -> CUresult {
    driver("cuMemFreeAsync", || {
        let state = state::get();
        state.submit(stream)?;
        if address == 0 {
            Ok(())
        } else {
            state.release(address)
        }
    })
}

/// Free and total device memory.
///
/// # Safety
/// `free` and `total` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> CUresult {
    driver("cuMemGetInfo_v2", || {
        current()?;
        let all = model::get().memory;
        free.set(all.saturating_sub(state::get().used_bytes.load(Ordering::Relaxed)))?;
        total.set(all)
    })
}

/// Start and size of the allocation that holds an address.
///
/// # Safety
/// `start` and `bytes` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    start: Out<u64>,
    bytes: Out<usize>,
    address: u64,
) -> CUresult {
    driver("cuMemGetAddressRange_v2", || {
        current()?;
        let (first, piece) = state::get().allocation(address).ok_or(Error::NotFound)?;
        start.set_if_wanted(first)?;
        bytes.set_if_wanted(piece.bytes)
    })
}

/// What the driver knows about an address: context, type, device and host address, ordinal, start and size.
///
/// # Safety
/// `value` is null or valid for a write of the attribute's type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(
    value: HostOut,
    attribute: u32,
    address: u64,
) -> CUresult {
    const HOST: u32 = 1;
    const DEVICE: u32 = 2;
    driver("cuPointerGetAttribute", || {
        let state = state::get();
        let Some((start, piece)) = state.allocation(address) else {
            let host = lock(&state.host);
            let block = host.range(..=address as usize).next_back();
            return match (attribute, block) {
                (2, Some((&start, block))) if address as usize - start < block.bytes => {
                    value.write(HOST)
                }
                _ => Err(Error::InvalidValue),
            };
        };
        match attribute {
            1 => value.write(
                state
                    .contexts
                    .find(|context| context.number == piece.context)
                    .ok_or(Error::ContextIsDestroyed)?,
            ),
            2 => value.write(DEVICE),
            3 => value.write(address),
            7 => value.write(piece.number),
            8 => value.write(0_u8), // managed
            9 => value.write(0_u32),
            11 => value.write(start),
            12 => value.write(piece.bytes as u64),
            13 => value.write(1_u8), // mapped
            _ => Err(Error::NotSupported),
        }
    })
}
