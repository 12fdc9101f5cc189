//! The devices that this build can run the suite on.

use candle_core::Device;

pub fn devices() -> Vec<Device> {
    vec![Device::Cpu]
}
