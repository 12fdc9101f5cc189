//! What every room's bench shares. Knows no op.

pub mod copy;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod duel;
pub mod op;
pub mod plain;
pub mod report;
pub mod shapes;
pub mod suite;
pub mod timing;
pub mod verify;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_reparam::{Key, normal};
use shapes::Shape;

/// The dimension every bench reduces over: the rows are the last dimension.
pub const DIM: usize = 1;

/// Bytes of an index.
pub const INDEX: u64 = size_of::<u32>() as u64;

/// Standard normal inputs, repeatable, one stream per argument of an op.
pub fn input(shape: Shape, stream: u64) -> Result<Tensor> {
    Ok(normal(
        shape.dims(),
        DType::F32,
        &Device::Cpu,
        Key::new(0x0bec, stream),
    )?)
}

/// Logits wide enough (standard deviation 2) that rows are neither flat nor one-hot.
pub fn logits(shape: Shape) -> Result<Tensor> {
    Ok((input(shape, 0)? * 2.)?)
}
