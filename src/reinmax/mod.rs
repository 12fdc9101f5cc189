//! ReinMax: a one-hot sample with a gradient of the second order.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
#[cfg(feature = "cuda")]
use crate::launch;
use crate::op::drawn_one_hot;
use crate::rng::KeySource;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

const NAME: &str = "reinmax";

/// A one-hot sample with the ReinMax gradient: straight-through, corrected to the second order by Heun's method.
///
/// * **Formula**: forward, the one-hot `D` of `gumbel_max(logits, dim, key)`, an exact draw from `pi = softmax(logits)`, and
///   bit for bit that of [`gumbel_softmax_st`](crate::gumbel_softmax_st) under the same key; backward, with
///   `J(p) = diag(p) - p p^T` and `s = (softmax(logits / tau) + D) / 2`, `2 J(s) g - J(pi) g / 2`.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; the gradient of f16 and bf16 is computed in f32 and rounded once.
/// * **Range and precision**: exactly 0 and 1, one 1 a row. A logit of -inf is never drawn and has gradient 0. A row that
///   is all -inf, or holds NaN or +inf, is NaN, as is its gradient, and no other row is. The gradient is within 2e-6 (f32) or
///   1e-14 (f64) of the row's largest, however peaked the row: each of its two parts is counted from the gradient at its own
///   largest entry.
/// * **Gradient**: in one kernel, from the logits, the result and its gradient, with no noise in it. At `tau = 1` its
///   expectation is exact for a loss that is quadratic in the one-hot, where straight-through is exact for a linear one
///   alone; larger `tau` trades that for less variance. There is no factor `1 / tau`. The sample does not depend on
///   `tau`, so that `tau` is a number: a tensor would have nothing to learn.
/// * **Errors**: `tau` not finite or below 1; a dtype that is not listed; `dim` out of range, empty, or of more than
///   2^32 elements; a key whose stream is not below 2^63.
/// * **Source**: Liu, Dong, Liu, Yu, Gao, "Bridging Discrete and Backpropagation: Straight-Through and Beyond", arXiv
///   2304.08612.
/// * **PyTorch**: `reinmax.reinmax(logits, tau)[0]` of the package `reinmax`.
///
/// ```
/// use candle_reparam::{Key, reinmax};
/// use candle_core::{D, DType, Device, Var};
/// let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
/// let one_hot = reinmax(&logits, 1.0, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(one_hot.sum(D::Minus1)?.to_vec1::<f32>()?, [1.0; 64]);
/// let grads = one_hot.narrow(1, 0, 1)?.sum_all()?.backward()?;
/// assert!(grads.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn reinmax(
    logits: &Tensor,
    tau: f64,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let key = key.into();
    check::tensor(NAME, "logits", logits)?;
    check::key_source(NAME, &key, logits.device())?;
    let (_, dim) = check::indexed_rows(NAME, logits, dim)?;
    // Written so that a NaN fails it.
    if !(tau.is_finite() && tau >= 1.0) {
        bail!("{NAME}: tau is {tau}, expected a finite number from 1 on")
    }
    logits.apply_op1(ReinMax { dim, tau, key })
}

struct ReinMax {
    dim: usize,
    tau: f64,
    key: KeySource,
}

impl CustomOp1 for ReinMax {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        drawn_one_hot(NAME, self.dim, self.key.now()?, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        launch::drawn_one_hot(NAME, self.dim, &self.key, (storage, layout))
    }

    fn bwd(&self, logits: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        gradient(logits, res, grad, self.tau, self.dim).map(Some)
    }
}

/// The gradient of the logits, given the one-hot that was drawn from them and its gradient.
pub(crate) fn gradient(
    logits: &Tensor,
    drawn: &Tensor,
    grad: &Tensor,
    tau: f64,
    dim: usize,
) -> Result<Tensor> {
    logits.apply_op3_no_bwd(drawn, grad, &Backward { dim, tau })
}

struct Backward {
    dim: usize,
    tau: f64,
}

impl CustomOp3 for Backward {
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
        cpu::gradient(NAME, self.dim, self.tau, (s1, l1), (s2, l2), (s3, l3))
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
        cuda::gradient(NAME, self.dim, self.tau, (s1, l1), (s2, l2), (s3, l3))
    }
}
