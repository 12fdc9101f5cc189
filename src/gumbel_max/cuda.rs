use crate::launch::{Context, KeyStorage, Winner, race};
use crate::op::without;
use crate::rng::KeySource;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &'static str,
    dim: usize,
    key: &KeySource,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let (dtype, device) = (storage.dtype(), storage.device());
    let context = Context::new(name, "gumbel_max", dtype, layout.shape(), device);
    let key = KeyStorage::new(name, key)?;
    let input = (storage, layout);
    let out = race(&context, "gumbel_max", Winner::Index, input, dim, &key)?;
    Ok((out, without(layout, dim)))
}
