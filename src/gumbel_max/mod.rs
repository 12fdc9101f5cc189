//! Gumbel-max: an exact draw of a class as an arg-max.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::rng::KeySource;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The index of a class drawn from `softmax(logits)` over `dim`: `argmax(logits + g)` with `g` standard Gumbel noise.
///
/// * **Formula**: `argmax_i (logits + gumbel(logits.shape(), key))_i`, the lowest index where scores tie.
/// * **Shapes**: any rank from 1, any layout; the result is u32, without `dim`.
/// * **Dtypes**: f32, f64; f16 and bf16 are scored in f32.
/// * **Range and precision**: exact up to the rounding of `logits + g`: the noise keeps its distribution down to classes of
///   probability 2^-64, so that rare classes are drawn as often as they should be, but a common offset of millions leaves
///   no digits to it. The same index on every device. It is the hot entry of
///   [`gumbel_softmax_st`](crate::gumbel_softmax_st) under the same key. A logit of -inf is never drawn.
/// * **Gradient**: none, as an index has none; nothing is kept.
/// * **Errors**: a row that is all -inf, or holds NaN or +inf (on the CPU), with its index; a dtype that is not listed;
///   `dim` out of range, empty, or of more than 2^32 elements; a key whose stream is not below 2^63.
/// * **Source**: Maddison, Tarlow, Minka, "A* sampling", arXiv 1411.0030.
/// * **PyTorch**: `torch.distributions.Categorical(logits=logits).sample()` in distribution.
///
/// For large rows where only the distribution matters, [`categorical`](crate::categorical) is several times faster.
///
/// ```
/// use candle_reparam::{Key, gumbel_max};
/// use candle_core::{D, Device, Tensor};
/// let logits = Tensor::new(&[[0f32, f32::NEG_INFINITY], [f32::NEG_INFINITY, 0.]], &Device::Cpu)?;
/// let index = gumbel_max(&logits, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(index.to_vec1::<u32>()?, [0, 1]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_max(logits: &Tensor, dim: impl Dim, key: impl Into<KeySource>) -> Result<Tensor> {
    let (name, key) = ("gumbel_max", key.into());
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    let (_, dim) = check::indexed_rows(name, logits, dim)?;
    logits.apply_op1_no_bwd(&GumbelMax { name, dim, key })
}

struct GumbelMax {
    name: &'static str,
    dim: usize,
    key: KeySource,
}

impl CustomOp1 for GumbelMax {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu::forward(self.name, self.dim, self.key.now()?, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self.name, self.dim, &self.key, storage, layout)
    }
}
