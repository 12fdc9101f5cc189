//! Devices and what one may ask about them.

use crate::call::driver;
use crate::config;
use crate::error::{CUresult, Error};
use crate::ffi::{HostOut, Out, set_text};
use crate::model::{self, ordinal};

/// The device with an ordinal.
///
/// # Safety
/// `device` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: Out<i32>, number: i32) -> CUresult {
    driver("cuDeviceGet", || device.set(ordinal(number)?))
}

/// The number of devices.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: Out<i32>) -> CUresult {
    driver("cuDeviceGetCount", || count.set(config::get().devices))
}

/// The device's name.
///
/// # Safety
/// `name` is null or valid for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: HostOut, capacity: i32, device: i32) -> CUresult {
    driver("cuDeviceGetName", || {
        ordinal(device)?;
        set_text(name, capacity, &model::get().name())
    })
}

/// An attribute of the device.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: Out<i32>,
    attribute: u32,
    device: i32,
) -> CUresult {
    driver("cuDeviceGetAttribute", || {
        value.set(model::get().attribute(ordinal(device)?, attribute)?)
    })
}

/// The compute capability.
///
/// # Safety
/// `major` and `minor` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceComputeCapability(
    major: Out<i32>,
    minor: Out<i32>,
    device: i32,
) -> CUresult {
    driver("cuDeviceComputeCapability", || {
        ordinal(device)?;
        let (first, second) = model::get().capability;
        major.set(first as i32)?;
        minor.set(second as i32)
    })
}

/// The size of the device's memory.
///
/// # Safety
/// `bytes` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) -> CUresult {
    driver("cuDeviceTotalMem_v2", || {
        ordinal(device)?;
        bytes.set(model::get().memory)
    })
}

/// Sixteen bytes that tell devices apart.
fn uuid(device: i32) -> [u8; 16] {
    let mut bytes = *b"simulated GPU  0";
    bytes[15] = device as u8;
    bytes
}

/// The device's identity.
///
/// # Safety
/// `id` is null or valid for a write of 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(id: Out<[u8; 16]>, device: i32) -> CUresult {
    driver("cuDeviceGetUuid", || id.set(uuid(ordinal(device)?)))
}

/// The device's identity.
///
/// # Safety
/// `id` is null or valid for a write of 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(id: Out<[u8; 16]>, device: i32) -> CUresult {
    driver("cuDeviceGetUuid_v2", || id.set(uuid(ordinal(device)?)))
}

/// The device's place on the bus.
///
/// # Safety
/// `text` is null or valid for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(
    text: HostOut,
    capacity: i32,
    device: i32,
) -> CUresult {
    driver("cuDeviceGetPCIBusId", || {
        let bus = ordinal(device)? + 1;
        set_text(text, capacity, &format!("0000:{bus:02X}:00.0"))
    })
}

/// Whether a device may use another's memory: there is one address space, but no peer access to grant.
///
/// # Safety
/// `answer` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceCanAccessPeer(
    answer: Out<i32>,
    device: i32,
    peer: i32,
) -> CUresult {
    driver("cuDeviceCanAccessPeer", || {
        if ordinal(device)? == ordinal(peer)? {
            return Err(Error::InvalidDevice);
        }
        answer.set(0)
    })
}
