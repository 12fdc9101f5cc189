//! Copies and fills. All are done when the call returns, the asynchronous ones too.

use crate::call::{driver, trace};
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostIn, HostOut};
use crate::handles::Handle;
use crate::report;
use crate::state;

/// The result of a copy that faulted. The driver knows the memory that it handed out and refuses a copy that leaves it,
/// which does the context no harm.
fn refused(error: Error) -> Error {
    match error {
        Error::IllegalAddress | Error::MisalignedAddress => Error::InvalidValue,
        other => other,
    }
}

fn upload(device: u64, host: HostIn, bytes: usize, stream: Handle) -> Result {
    let state = state::get();
    state.submit(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    state
        .memory
        .write(device, host.bytes(bytes)?)
        .map_err(|fault| refused(report::fault("copy from host to device", &fault)))
}

fn download(host: HostOut, device: u64, bytes: usize, stream: Handle) -> Result {
    let state = state::get();
    state.submit(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    state
        .memory
        .read(device, host.bytes(bytes)?)
        .map_err(|fault| refused(report::fault("copy from device to host", &fault)))
}

fn copy(to: u64, from: u64, bytes: usize, stream: Handle) -> Result {
    let state = state::get();
    state.submit(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    state
        .memory
        .copy(to, from, bytes)
        .map_err(|fault| refused(report::fault("copy from device to device", &fault)))
}

/// A copy between addresses of either kind: unified addressing tells which is which.
fn copy_any(to: u64, from: u64, bytes: usize, stream: Handle) -> Result {
    let state = state::get();
    match (
        state.allocation(to).is_some(),
        state.allocation(from).is_some(),
    ) {
        (true, true) => copy(to, from, bytes, stream),
        (true, false) => upload(to, HostIn::from_address(from), bytes, stream),
        (false, true) => download(HostOut::from_address(to), from, bytes, stream),
        (false, false) => {
            state.submit(stream)?;
            // The two may overlap, as far as the interface says.
            let held = HostIn::from_address(from).bytes(bytes)?.to_vec();
            HostOut::from_address(to)
                .bytes(bytes)?
                .copy_from_slice(&held);
            Ok(())
        }
    }
}

/// Copies from host to device.
///
/// # Safety
/// `host` is null or readable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(device: u64, host: HostIn, bytes: usize) -> CUresult {
    driver("cuMemcpyHtoD_v2", || upload(device, host, bytes, 0))
}

/// Copies from host to device in a stream's order.
///
/// # Safety
/// `host` is null or readable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    device: u64,
    host: HostIn,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemcpyHtoDAsync_v2", || {
        upload(device, host, bytes, stream)
    })
}

/// Copies from device to host.
///
/// # Safety
/// `host` is null or writable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(host: HostOut, device: u64, bytes: usize) -> CUresult {
    driver("cuMemcpyDtoH_v2", || download(host, device, bytes, 0))
}

/// Copies from device to host in a stream's order.
///
/// # Safety
/// `host` is null or writable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    host: HostOut,
    device: u64,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemcpyDtoHAsync_v2", || {
        download(host, device, bytes, stream)
    })
}

/// Copies from device to device.
///
/// # Safety
/// None beyond the C calling convention: device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> CUresult {
    driver("cuMemcpyDtoD_v2", || copy(to, from, bytes, 0))
}

/// Copies from device to device in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: u64,
    from: u64,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemcpyDtoDAsync_v2", || copy(to, from, bytes, stream))
}

/// Copies between addresses of either kind.
///
/// # Safety
/// An address that is not one of device memory is valid on the host for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy(to: u64, from: u64, bytes: usize) -> CUresult {
    driver("cuMemcpy", || copy_any(to, from, bytes, 0))
}

/// Copies between addresses of either kind in a stream's order.
///
/// # Safety
/// An address that is not one of device memory is valid on the host for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyAsync(
    to: u64,
    from: u64,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemcpyAsync", || copy_any(to, from, bytes, stream))
}

fn copy_peer(to: (u64, Handle), from: (u64, Handle), bytes: usize, stream: Handle) -> Result {
    let contexts = &state::get().contexts;
    for context in [to.1, from.1] {
        contexts.get(context).ok_or(Error::InvalidContext)?;
    }
    copy(to.0, from.0, bytes, stream)
}

/// Copies between the memories of two contexts.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeer(
    to: u64,
    to_context: Handle,
    from: u64,
    from_context: Handle,
    bytes: usize,
) -> CUresult {
    driver("cuMemcpyPeer", || {
        copy_peer((to, to_context), (from, from_context), bytes, 0)
    })
}

/// Copies between the memories of two contexts in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: Handle,
    from: u64,
    from_context: Handle,
    bytes: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemcpyPeerAsync", || {
        copy_peer((to, to_context), (from, from_context), bytes, stream)
    })
}

/// Fills device memory with copies of a value of one, two or four bytes.
fn fill(device: u64, value: &[u8], count: usize, stream: Handle) -> Result {
    /// How much is filled at once.
    const PIECE: usize = 1 << 16;

    let state = state::get();
    state.submit(stream)?;
    if !device.is_multiple_of(value.len() as u64) {
        return Err(Error::InvalidValue);
    }
    let bytes = count.checked_mul(value.len()).ok_or(Error::InvalidValue)?;
    trace("fill", || format!("{bytes} bytes at {device:#x}"));
    if bytes == 0 {
        return Ok(());
    }
    let fault = |fault| refused(report::fault("fill", &fault));
    if value.iter().all(|byte| *byte == value[0]) {
        return state.memory.fill(device, value[0], bytes).map_err(fault);
    }
    let piece = value.repeat(PIECE.min(bytes) / value.len());
    let mut done = 0;
    while done < bytes {
        let next = piece.len().min(bytes - done);
        state
            .memory
            .write(device + done as u64, &piece[..next])
            .map_err(fault)?;
        done += next;
    }
    Ok(())
}

/// Fills device memory with a byte.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(device: u64, value: u8, count: usize) -> CUresult {
    driver("cuMemsetD8_v2", || fill(device, &[value], count, 0))
}

/// Fills device memory with a byte in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(
    device: u64,
    value: u8,
    count: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemsetD8Async", || fill(device, &[value], count, stream))
}

/// Fills device memory with a value of two bytes.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16_v2(device: u64, value: u16, count: usize) -> CUresult {
    driver("cuMemsetD16_v2", || {
        fill(device, &value.to_ne_bytes(), count, 0)
    })
}

/// Fills device memory with a value of two bytes in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16Async(
    device: u64,
    value: u16,
    count: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemsetD16Async", || {
        fill(device, &value.to_ne_bytes(), count, stream)
    })
}

/// Fills device memory with a value of four bytes.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32_v2(device: u64, value: u32, count: usize) -> CUresult {
    driver("cuMemsetD32_v2", || {
        fill(device, &value.to_ne_bytes(), count, 0)
    })
}

/// Fills device memory with a value of four bytes in a stream's order.
///
/// # Safety
/// None beyond the C calling convention: a device address is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32Async(
    device: u64,
    value: u32,
    count: usize,
    stream: Handle,
) -> CUresult {
    driver("cuMemsetD32Async", || {
        fill(device, &value.to_ne_bytes(), count, stream)
    })
}
