use crate::launch::extreme;
use crate::op::without;
use candle_core::{CudaStorage, Layout, Result, Shape};

fn sign(negated: bool) -> Option<f64> {
    Some(if negated { -1.0 } else { 1.0 })
}

pub(super) fn largest(
    name: &'static str,
    dim: usize,
    negated: bool,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let kernel = ("subgradient", "subgradient_extreme");
    let x = (storage, layout);
    let out = extreme(name, kernel, x, None, dim, sign(negated), true)?;
    Ok((out, without(layout, dim)))
}

pub(super) fn shares(
    name: &'static str,
    dim: usize,
    negated: bool,
    x: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let kernel = ("subgradient", "subgradient_shares");
    let out = extreme(name, kernel, x, Some(grad), dim, sign(negated), false)?;
    Ok((out, x.1.shape().clone()))
}
