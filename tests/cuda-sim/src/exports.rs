//! Every other name that programs bind: functions that fail, saying which they are. Written by the build script from
//! the lists in `symbols/`.

use core::ffi::c_int;

use crate::blas;
use crate::call::guarded;
use crate::error::Error;
use crate::report;
use crate::{curand, nvrtc, runtime};

/// The functions.
mod stubs {
    use super::{c_int, cublas, cudart, curand, driver, nvrtc};

    include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
}

/// The driver's table of entry points. It takes the address of each function and calls none, so that it need not know
/// their arguments.
mod table {
    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

pub use table::TABLE;

/// Says that a function is not simulated, and passes a result on.
fn unsupported(name: &str, result: u32) -> c_int {
    guarded(name, || {
        report::problem(format_args!("{name} is not simulated"));
    });
    result as c_int
}

fn driver(name: &str) -> c_int {
    unsupported(name, Error::NotSupported.code())
}

fn cublas(name: &str) -> c_int {
    unsupported(name, blas::Status::NotSupported as u32)
}

fn curand(name: &str) -> c_int {
    unsupported(name, curand::Status::InternalError as u32)
}

fn cudart(name: &str) -> c_int {
    unsupported(name, runtime::NOT_SUPPORTED)
}

fn nvrtc(name: &str) -> c_int {
    unsupported(name, nvrtc::INTERNAL_ERROR)
}
