//! Gumbel-top-k: an exact sample without replacement, in order.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::rng::KeySource;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The indices of `k` classes drawn from `softmax(logits)` over `dim` without replacement, in the order of the draws: the `k`
/// largest of `logits + g`, with `g` standard Gumbel noise.
///
/// * **Formula**: the first `k` indices of `logits + gumbel(logits.shape(), key)` in descending order, the lower index first
///   where scores tie. It is a sample of the Plackett-Luce distribution: the first is drawn from `softmax(logits)`, each
///   further one from the same without those drawn before.
/// * **Shapes**: any rank from 1, any layout; the result is u32 and has `k` in place of the size of `dim`.
/// * **Dtypes**: f32, f64; f16 and bf16 are scored in f32.
/// * **Range and precision**: exact up to the rounding of `logits + g`, with the tails of [`gumbel_max`](crate::gumbel_max),
///   whose index under the same key is the first here; the first `j` of `k` are the `j` of a draw of `j`. The same indices on
///   every device. A logit of -inf is never drawn.
/// * **Gradient**: none, as an index has none; nothing is kept.
///   [`gumbel_top_k_st`](crate::gumbel_top_k_st) has the same classes as a k-hot with a gradient.
/// * **Errors**: `k` of 0 or above the size of `dim`; on the CPU, a row with fewer than `k` logits above -inf, or with NaN or
///   +inf, with its index; a dtype that is not listed; `dim` out of range, empty, or of more than 2^32 elements; a key whose
///   stream is not below 2^63. On a CUDA device, where an error would make every call wait: in a row with fewer than `k`
///   logits above -inf those come first, in their order, then the lowest of the other indices; a row with NaN or +inf gives
///   0, 1, ..., k - 1. In either case the indices differ from each other. [`improper_rows`](crate::improper_rows) finds the
///   latter rows.
/// * **Source**: Kool, van Hoof, Welling, "Stochastic beams and where to find them", arXiv 1903.06059.
/// * **PyTorch**: `torch.multinomial(logits.softmax(-1), k, replacement=False)` in distribution, or
///   `torch.topk(logits + gumbel, k).indices`.
///
/// ```
/// use candle_reparam::{Key, gumbel_max, gumbel_top_k};
/// use candle_core::{D, DType, Device, Tensor};
/// let logits = Tensor::zeros((64, 1000), DType::F32, &Device::Cpu)?;
/// let drawn = gumbel_top_k(&logits, 5, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(drawn.dims(), [64, 5]);
/// let first = gumbel_max(&logits, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(drawn.narrow(1, 0, 1)?.flatten_all()?.to_vec1::<u32>()?, first.to_vec1::<u32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_top_k(
    logits: &Tensor,
    k: usize,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let (name, key) = ("gumbel_top_k", key.into());
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    let (_, dim) = check::drawn_rows(name, logits, k, dim)?;
    logits.apply_op1_no_bwd(&GumbelTopK { name, k, dim, key })
}

struct GumbelTopK {
    name: &'static str,
    k: usize,
    dim: usize,
    key: KeySource,
}

impl CustomOp1 for GumbelTopK {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let key = self.key.now()?;
        cpu::forward(self.name, self.k, self.dim, key, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self.name, self.k, self.dim, &self.key, storage, layout)
    }
}
