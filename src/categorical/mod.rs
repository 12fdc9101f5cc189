//! Exact categorical draws at the speed of one pass over the logits.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::op::{by_dtype, dtype, rows_of, winners_tensor};
use crate::rng::{KeySource, Stream};
use crate::rowwise::Source;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The index of a class drawn from `softmax(logits)` over `dim`, exactly, from two uniforms a row.
///
/// * **Formula**: inversion in two levels. The row is cut into tiles of 1,024 elements; one uniform chooses a tile in
///   proportion to its sum of `exp(logits - max)`, a second one an element within it. Its stream is its own: the same key
///   gives another index than [`gumbel_max`](crate::gumbel_max), with the same distribution. Row `r`, counted row-major
///   over the remaining dims, takes words `2 r` and `2 r + 1` of the key's stream and their second words.
/// * **Shapes**: any rank from 1, any layout; the result is u32, without `dim`.
/// * **Dtypes**: f32, f64; f16 and bf16 are weighed in f32.
/// * **Range and precision**: probabilities are exact to about 1e-6 of their value (f32), plus up to 2^-50 of that of the
///   tile's likeliest class (a class below 2^-50 of it in its tile of 1,024 is not drawn); both uniforms have 64 bits. A logit of -inf is never drawn. Tile sums and choices have a fixed
///   order, so the index does not depend on threads or instruction set.
/// * **Gradient**: none, as an index has none; nothing is kept.
/// * **Errors**: a row that is all -inf, or holds NaN or +inf (on the CPU), with its index; a dtype that is not listed;
///   `dim` out of range, empty, or of more than 2^32 elements; a key whose stream is not below 2^63.
/// * **PyTorch**: `torch.multinomial(torch.softmax(logits, dim), 1)`.
///
/// ```
/// use candle_reparam::{Rng, categorical};
/// use candle_core::{D, DType, Device, Tensor};
/// let rng = Rng::new(42);
/// let logits = Tensor::zeros((8, 50_000), DType::F32, &Device::Cpu)?;
/// let token = categorical(&logits, D::Minus1, rng.next_key())?;
/// assert_eq!((token.dims(), token.dtype()), (&[8][..], DType::U32));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn categorical(logits: &Tensor, dim: impl Dim, key: impl Into<KeySource>) -> Result<Tensor> {
    let (name, key) = ("categorical", key.into());
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    let (_, dim) = check::indexed_rows(name, logits, dim)?;
    logits.apply_op1_no_bwd(&Categorical { name, dim, key })
}

struct Categorical {
    name: &'static str,
    dim: usize,
    key: KeySource,
}

impl CustomOp1 for Categorical {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name, dtype(storage), E => {
            let logits = Source::<E>::new(storage, layout)?;
            let stream = Stream::new(self.key.now()?);
            let drawn = cpu::draw(&logits, stream, rows_of(layout, self.dim));
            winners_tensor(self.name, &drawn, layout, self.dim)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self.name, self.dim, &self.key, storage, layout)
    }
}
