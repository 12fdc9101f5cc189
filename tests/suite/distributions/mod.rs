//! The distributions against literals, quadrature, central differences, and what their samples show.

mod cuda;
mod edges;
mod gradients;
mod integrals;
mod literals;
mod samples;
mod shapes;

use candle_core::{DType, Device, Tensor};

use crate::support::data;

/// A tensor in f64 on the CPU.
fn t(values: &[f64], shape: &[usize]) -> Tensor {
    data::tensor(values, shape, DType::F64, &Device::Cpu)
}

/// A scalar in f64 on the CPU.
fn s(value: f64) -> Tensor {
    t(&[value], &[])
}

/// A scalar in f32 on the CPU.
fn s32(value: f64) -> Tensor {
    data::tensor(&[value], (), DType::F32, &Device::Cpu)
}

fn value(t: candle_core::Result<Tensor>) -> f64 {
    let values = data::values(&t.unwrap());
    assert_eq!(values.len(), 1);
    values[0]
}

#[track_caller]
fn near(got: f64, want: f64, relative: f64) {
    assert!(
        (got - want).abs() <= relative * want.abs() || got == want,
        "{got:e}, not {want:e}"
    );
}
