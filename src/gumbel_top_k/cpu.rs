use crate::op::{by_dtype, dtype, rows_of, with_size};
use crate::rng::{Key, Stream};
use crate::rowwise::{Perturbed, Source, top_k};
use candle_core::{CpuStorage, Layout, Result, Shape, bail};

pub(super) fn forward(
    name: &str,
    k: usize,
    dim: usize,
    key: Key,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let scores = Perturbed {
            logits: Source::<E>::new(storage, layout)?,
            stream: Stream::new(key),
        };
        let drawn = top_k(&scores, rows_of(layout, dim), k);
        if let Some((row, fault)) = drawn.faults.first() {
            bail!(
                "{name}: row {row} of the logits, counted over shape {:?}, {fault}, with k = {k}",
                crate::op::without(layout, dim).dims()
            )
        }
        Ok((CpuStorage::U32(drawn.indices), with_size(layout, dim, k)))
    })
}
