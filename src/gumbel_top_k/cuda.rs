use crate::launch::{Context, KeyStorage, top_k};
use crate::op::with_size;
use crate::rng::KeySource;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &'static str,
    k: usize,
    dim: usize,
    key: &KeySource,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let (dtype, device) = (storage.dtype(), storage.device());
    let context = Context::new(name, "gumbel_top_k", dtype, layout.shape(), device);
    let key = KeyStorage::new(name, key)?;
    let out = top_k(&context, k, (storage, layout), dim, &key)?;
    Ok((out, with_size(layout, dim, k)))
}
