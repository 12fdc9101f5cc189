//! The devices that this build can run the suite on.

use candle_core::Device;

/// The CPU, and with feature `cuda` the first CUDA device, if there is one.
///
/// With `REPARAM_REQUIRE_CUDA` set it is an error if there is none: a run that is meant for a device must not pass on the CPU
/// alone.
pub fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    devices.extend(cuda());
    devices
}

#[cfg(not(feature = "cuda"))]
pub fn cuda() -> Option<Device> {
    None
}

#[cfg(feature = "cuda")]
pub fn cuda() -> Option<Device> {
    use std::cell::RefCell;
    thread_local! {
        // A device belongs to the thread that made it: its stream is that thread's own.
        static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
    }
    DEVICE.with_borrow_mut(|device| {
        if device.is_none() {
            match Device::new_cuda(0) {
                Ok(made) => *device = Some(made),
                Err(error) => {
                    let error = error.to_string();
                    let absent = error.contains("CUDA_ERROR_NO_DEVICE");
                    assert!(
                        absent && std::env::var_os("REPARAM_REQUIRE_CUDA").is_none(),
                        "no CUDA device: {error}"
                    );
                }
            }
        }
        device.clone()
    })
}
