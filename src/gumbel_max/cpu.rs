use crate::op::{by_dtype, dtype, rows_of, winners_tensor};
use crate::rng::{Key, Stream};
use crate::rowwise::{Perturbed, Source, argmax};
use candle_core::{CpuStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &str,
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
        winners_tensor(name, &argmax(&scores, rows_of(layout, dim)), layout, dim)
    })
}
