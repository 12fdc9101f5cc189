//! Host memory that the driver allocates or registers. No kernel can reach it: the device has an address space of its own.

use std::alloc::{self, Layout};
use std::ffi::c_void;

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostIn, Out};
use crate::handles::lock;
use crate::report;
use crate::state::{self, HostBlock, current};

/// Kernels are to reach the memory, which this device cannot do.
const DEVICE_MAP: u32 = 2;
/// All flags of an allocation: portable, mapped, write-combined. The first and the last change nothing here.
const ALLOCATION_FLAGS: u32 = 7;
/// All flags of a registration: portable, mapped, of a device, read-only.
const REGISTRATION_FLAGS: u32 = 15;
const PAGE: usize = 4096;

fn allocate(place: Out<*mut c_void>, bytes: usize, flags: u32) -> Result {
    current()?;
    if bytes == 0 || flags & !ALLOCATION_FLAGS != 0 || place.is_null() {
        return Err(Error::InvalidValue);
    }
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Error::OutOfMemory)?;
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(Error::OutOfMemory);
    }
    let block = HostBlock {
        bytes,
        flags,
        owned: Some(layout),
    };
    lock(&state::get().host).insert(memory as usize, block);
    place.set(memory.cast())
}

/// Allocates host memory.
///
/// # Safety
/// `place` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    place: Out<*mut c_void>,
    bytes: usize,
    flags: u32,
) -> CUresult {
    driver("cuMemHostAlloc", || allocate(place, bytes, flags))
}

/// Allocates host memory.
///
/// # Safety
/// `place` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(place: Out<*mut c_void>, bytes: usize) -> CUresult {
    driver("cuMemAllocHost_v2", || allocate(place, bytes, 0))
}

/// Gives host memory back.
///
/// # Safety
/// Nothing uses the memory any more, if it is one that this driver allocated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(memory: HostIn) -> CUresult {
    driver("cuMemFreeHost", || {
        current()?;
        let address = memory.address() as usize;
        let layout = {
            let mut host = lock(&state::get().host);
            let layout = host.get(&address).and_then(|block| block.owned);
            if layout.is_some() {
                host.remove(&address);
            }
            layout
        };
        let Some(layout) = layout else {
            report::problem(format_args!(
                "free of host memory at {address:#x}, which this driver did not allocate or freed already"
            ));
            return Err(Error::InvalidValue);
        };
        // SAFETY: allocated with this layout, and taken out of the table before, so that it is freed once.
        unsafe { alloc::dealloc(address as *mut u8, layout) };
        Ok(())
    })
}

/// Takes note of host memory of the program's, which on a device makes copies faster.
///
/// # Safety
/// None beyond the C calling convention: the address is noted, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(
    memory: HostIn,
    bytes: usize,
    flags: u32,
) -> CUresult {
    driver("cuMemHostRegister_v2", || {
        current()?;
        let start = memory.address() as usize;
        let end = start.checked_add(bytes).ok_or(Error::InvalidValue)?;
        if memory.is_null() || bytes == 0 || flags & !REGISTRATION_FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        if flags & DEVICE_MAP != 0 {
            report::problem(format_args!(
                "cuMemHostRegister: mapped host memory is not simulated"
            ));
            return Err(Error::NotSupported);
        }
        let mut host = lock(&state::get().host);
        let before = host.range(..end).next_back();
        if before.is_some_and(|(&other, block)| other + block.bytes > start) {
            return Err(Error::HostMemoryAlreadyRegistered);
        }
        host.insert(
            start,
            HostBlock {
                bytes,
                flags,
                owned: None,
            },
        );
        Ok(())
    })
}

/// Forgets about host memory that was registered.
///
/// # Safety
/// None beyond the C calling convention: the address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(memory: HostIn) -> CUresult {
    driver("cuMemHostUnregister", || {
        current()?;
        let address = memory.address() as usize;
        let mut host = lock(&state::get().host);
        if host.get(&address).is_none_or(|block| block.owned.is_some()) {
            return Err(Error::HostMemoryNotRegistered);
        }
        host.remove(&address);
        Ok(())
    })
}

/// The flags with which host memory was allocated or registered.
///
/// # Safety
/// `flags` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetFlags(flags: Out<u32>, memory: HostIn) -> CUresult {
    driver("cuMemHostGetFlags", || {
        current()?;
        let address = memory.address() as usize;
        let host = lock(&state::get().host);
        match host.range(..=address).next_back() {
            Some((start, block)) if address - start < block.bytes => flags.set(block.flags),
            _ => Err(Error::InvalidValue),
        }
    })
}
