//! Gumbel-Rao: straight-through Gumbel-softmax, averaged over what the noise may have been.

mod beside;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
#[cfg(feature = "cuda")]
use crate::launch;
use crate::op::drawn_one_hot;
use crate::rng::{Key, KeySource};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

const NAME: &str = "gumbel_rao";

/// What is folded into the op's key for the noise of its backward pass: "GumbelRa" in ASCII.
pub(crate) const SAMPLES: u64 = 0x4775_6D62_656C_5261;

/// A one-hot sample with the Gumbel-Rao gradient: that of straight-through Gumbel-softmax, averaged over `samples` draws of
/// the noise given the class that was drawn.
///
/// * **Formula**: forward, the one-hot `D` of `gumbel_max(logits, dim, key)`, an exact draw from `softmax(logits)`, and bit
///   for bit that of [`gumbel_softmax_st`](crate::gumbel_softmax_st) under the same key. Backward, the mean over `k` of
///   `J(y_k) g / tau` with `J(p) = diag(p) - p p^T`, `y_k = softmax(v_k / tau)`, and `v_k` the scores `logits + G` given
///   that `D` is their arg-max: with `E` standard exponential, `-ln E_D + ln Z` for the class drawn and
///   `-ln(E_j / exp(logits_j) + E_D / Z)` for any other, `Z = sum exp(logits)`.
/// * **Noise**: the exponentials of sample `k` are `-ln(1 - uniform(logits.shape(), key_k))`, those behind
///   `gumbel(logits.shape(), key_k)`, where `key_k` is `key.fold_in(0x4775_6D62_656C_5261)` with `k` added to its stream
///   (modulo 2^63): independent of the forward draw, and the same on every device, for a key by value as for a
///   [`DeviceKey`](crate::DeviceKey). They are drawn in the backward pass and never leave its kernel.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; the gradient of f16 and bf16 is computed in f32, noise included, and rounded once.
/// * **Range and precision**: exactly 0 and 1, one 1 a row. A logit of -inf is never drawn and has gradient 0. A row that
///   is all -inf, or holds NaN or +inf, is NaN, as is its gradient, and no other row is. The gradient is within 2e-6 (f32) or
///   1e-14 (f64) of the row's largest of what exact arithmetic makes of the uniforms: nothing overflows, whatever the logits
///   and however improbable a class.
/// * **Gradient**: the expectation of straight-through Gumbel's, and so the same bias, less the smaller `tau`; of the
///   variance, what the noise adds to that of the class falls as `1 / samples`. The noise is a constant in it. The
///   sample does not depend on `tau`, so that `tau` is a number: a tensor would have nothing to learn.
/// * **Cost**: the backward pass draws `samples` times as much noise as the forward pass; memory does not grow.
/// * **Errors**: `tau` not finite or not above 0; `samples` of 0 or beyond 2^32 - 1; a dtype that is not listed; `dim` out of
///   range, empty, or of more than 2^32 elements; a key whose stream is not below 2^63.
/// * **Source**: Paulus, Maddison, Krause, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator",
///   arXiv 2010.04838; the conditional noise after Maddison, Tarlow, Minka, arXiv 1411.0030.
/// * **PyTorch**: none in the library; `torch.nn.functional.gumbel_softmax(logits, tau, hard=True)` has the same
///   expectation.
///
/// ```
/// use candle_reparam::{Key, gumbel_rao};
/// use candle_core::{D, DType, Device, Var};
/// let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
/// let one_hot = gumbel_rao(&logits, 0.5, 10, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(one_hot.sum(D::Minus1)?.to_vec1::<f32>()?, [1.0; 64]);
/// let grads = one_hot.narrow(1, 0, 1)?.sum_all()?.backward()?;
/// assert!(grads.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_rao(
    logits: &Tensor,
    tau: f64,
    samples: usize,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let key = key.into();
    check::tensor(NAME, "logits", logits)?;
    check::key_source(NAME, &key, logits.device())?;
    let (_, dim) = check::indexed_rows(NAME, logits, dim)?;
    check::tau(NAME, tau)?;
    let Some(samples) = u32::try_from(samples).ok().filter(|&n| n > 0) else {
        bail!("{NAME}: samples is {samples}, expected a number from 1 to 2^32 - 1")
    };
    let average = Average {
        dim,
        tau,
        samples,
        key,
    };
    logits.apply_op1(GumbelRao(average))
}

/// The backward pass, which the op holds for its own.
#[derive(Clone)]
struct Average {
    dim: usize,
    tau: f64,
    samples: u32,
    /// The op's key, from which that of the noise is folded.
    key: KeySource,
}

struct GumbelRao(Average);

impl CustomOp1 for GumbelRao {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        drawn_one_hot(NAME, self.0.dim, self.0.key.now()?, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        launch::drawn_one_hot(NAME, self.0.dim, &self.0.key, (storage, layout))
    }

    fn bwd(&self, logits: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        logits.apply_op3_no_bwd(res, grad, &self.0).map(Some)
    }
}

/// The gradient of the logits, given the one-hot that was drawn from them and its gradient.
pub(crate) fn gradient(
    logits: &Tensor,
    drawn: &Tensor,
    grad: &Tensor,
    (tau, samples): (f64, u32),
    dim: usize,
    key: KeySource,
) -> Result<Tensor> {
    let average = Average {
        dim,
        tau,
        samples,
        key,
    };
    logits.apply_op3_no_bwd(drawn, grad, &average)
}

/// The key of sample `k`'s noise.
fn sample_key(noise: Key, k: u32) -> Key {
    let stream = noise.stream.wrapping_add(u64::from(k)) & (u64::MAX >> 1);
    Key::new(noise.seed, stream)
}

impl CustomOp3 for Average {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        cpu::gradient(self, (s1, l1), (s2, l2), (s3, l3))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::gradient(self, (s1, l1), (s2, l2), (s3, l3))
    }
}
