//! The glue between candle's custom ops and the typed CPU functions.

use crate::element::Element;
use crate::rng::{Key, Stream};
use crate::rowwise::{Perturbed, Rows, Source, Tau, argmax, one_hots};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor};

/// Runs `$body` with `$E` standing for the element type of `$dtype`.
macro_rules! by_dtype {
    ($op:expr, $dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $E = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $E = f64;
                $body
            }
            candle_core::DType::F16 => {
                type $E = half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $E = half::bf16;
                $body
            }
            other => candle_core::bail!("{}: dtype {other:?} is not supported", $op),
        }
    };
}
pub(crate) use by_dtype;

/// A temperature's values as a custom op is handed them: a number it carries, or a second argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TauArg<'a> {
    Fixed(f64),
    Rows(&'a CpuStorage, &'a Layout),
}

impl<'a> TauArg<'a> {
    pub(crate) fn typed<E: Element>(self) -> Result<Tau<'a, E>> {
        Ok(match self {
            TauArg::Fixed(tau) => Tau::Fixed(tau),
            TauArg::Rows(storage, layout) => Tau::Rows(Source::new(storage, layout)?),
        })
    }
}

/// The dtype of a storage.
pub(crate) fn dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// The rows of a layout.
pub(crate) fn rows_of(layout: &Layout, dim: usize) -> Rows {
    Rows::new(layout.shape(), dim)
}

/// The shape of a layout without `dim`.
pub(crate) fn without(layout: &Layout, dim: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    dims.remove(dim);
    dims.into()
}

/// The shape of a layout with `dim` of another size.
pub(crate) fn with_size(layout: &Layout, dim: usize, size: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    dims[dim] = size;
    dims.into()
}

/// A new tensor, with no gradient, on the CPU.
pub(crate) fn tensor<E: Element>(data: Vec<E>, shape: Shape) -> Tensor {
    let storage = Storage::Cpu(E::storage(data));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}

/// The indices of the rows as storage; an error where a row had none to give.
pub(crate) fn winners_tensor(
    name: &str,
    winners: &[Option<u32>],
    layout: &Layout,
    dim: usize,
) -> Result<(CpuStorage, Shape)> {
    let shape = without(layout, dim);
    if let Some(row) = winners.iter().position(Option::is_none) {
        candle_core::bail!(
            "{name}: row {row} of the logits, counted over shape {:?}, is all -inf or holds NaN or +inf; there is \
             nothing to draw",
            shape.dims()
        )
    }
    // Not collected through `flatten`, whose length is not known beforehand: the vector would grow past what it needs.
    let indices = winners.iter().map(|winner| winner.unwrap_or(0)).collect();
    Ok((CpuStorage::U32(indices), shape))
}

/// The one-hots of the largest logit plus the Gumbel noise of a key: exact draws from the rows' softmax.
pub(crate) fn drawn_one_hot(
    name: &str,
    dim: usize,
    key: Key,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let rows = rows_of(layout, dim);
        let scores = Perturbed {
            logits: Source::<E>::new(storage, layout)?,
            stream: Stream::new(key),
        };
        let drawn = one_hots::<E>(&argmax(&scores, rows), rows);
        Ok((E::storage(drawn), layout.shape().clone()))
    })
}
