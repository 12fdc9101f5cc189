//! The tempered softmax and its logarithm.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::backward::{Family, softmax_gradient};
use crate::check;
#[cfg(feature = "cuda")]
use crate::launch::Tau;
use crate::op::TauArg;
use crate::temperature::Temperature;
use crate::tempered::{Gradients, TauTensor, Tempered, apply, gradients};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// `softmax(logits / tau)` over `dim`, fused, with its gradient.
///
/// * **Formula**: `y_i = exp((x_i - max x) / tau) / sum_j exp((x_j - max x) / tau)`. The maximum is subtracted before the
///   division, so that no temperature overflows: as `tau` falls to 0, `y` becomes the one-hot of the arg-max (ties share).
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32 and rounded once.
/// * **Range and precision**: `[0, 1]`; within 2e-6 (f32) or 1e-14 (f64) of the row's largest value. A logit of -inf is
///   a mask: probability 0 and gradient 0. A row that is all -inf, or holds NaN or +inf, is NaN, and no other row is.
///   Exponentials below the smallest
///   normal number, relative to the row's largest, are 0. A `tau` beyond the range of the dtype acts as the end of it.
/// * **Gradient**: with `c = y (g - <y, g>)`, `c / tau` to the logits and `-(1 / tau) sum_i c_i ln y_i` to a `tau` tensor.
///   Only the result is kept for it.
/// * **Errors**: `tau` not finite or not above 0, or of a shape, dtype or device that does not fit; a dtype that is not
///   listed; `dim` out of range or empty.
/// * **PyTorch**: `torch.softmax(logits / tau, dim)`.
///
/// ```
/// use candle_reparam::tempered_softmax;
/// use candle_core::{D, Device, Tensor};
/// let logits = Tensor::new(&[[0f32, 1., 2.]], &Device::Cpu)?;
/// let y = tempered_softmax(&logits, 0.5, D::Minus1)?.to_vec2::<f32>()?;
/// assert!((y[0][2] - 0.866_814).abs() < 1e-5);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn tempered_softmax(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    dim: impl Dim,
) -> Result<Tensor> {
    run("tempered_softmax", Family::Softmax, logits, tau.into(), dim)
}

/// `log softmax(logits / tau)` over `dim`, fused, with its gradient.
///
/// * **Formula**: `l_i = (x_i - max x) / tau - ln sum_j exp((x_j - max x) / tau)`.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32 and rounded once.
/// * **Range and precision**: at most 0; finite for finite logits unless `(x_i - max x) / tau` itself overflows. Absolute
///   error below `2e-6 (1 + |l|)` in f32. A logit of -inf is a mask: the result there is -inf, its gradient 0. A row that
///   is all -inf, or holds NaN or +inf, is NaN, and no other row is.
/// * **Gradient**: with `d = g - exp(l) sum g`, `d / tau` to the logits and `-(1 / tau) sum_i d_i l_i` to a `tau` tensor. At
///   a mask it is 0; a gradient `g` that arrives there still counts in the sum, as it does for a very negative logit. A
///   result that overflows to -inf in a half type counts as a mask.
/// * **Errors**: as for [`tempered_softmax`].
/// * **PyTorch**: `torch.log_softmax(logits / tau, dim)`.
///
/// ```
/// use candle_reparam::tempered_log_softmax;
/// use candle_core::{D, Device, Tensor};
/// let logits = Tensor::new(&[[0f32, 0., 0., 0.]], &Device::Cpu)?;
/// let l = tempered_log_softmax(&logits, 3.0, D::Minus1)?.to_vec2::<f32>()?;
/// assert!((l[0][0] + 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn tempered_log_softmax(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    dim: impl Dim,
) -> Result<Tensor> {
    run(
        "tempered_log_softmax",
        Family::LogSoftmax,
        logits,
        tau.into(),
        dim,
    )
}

fn run(
    name: &'static str,
    family: Family,
    logits: &Tensor,
    tau: Temperature,
    dim: impl Dim,
) -> Result<Tensor> {
    check::tensor(name, "logits", logits)?;
    let (_, dim) = check::rows(name, logits, dim)?;
    let tau = tau.check(name, logits, dim)?;
    apply(logits, &tau, TemperedSoftmax { name, family, dim })
}

struct TemperedSoftmax {
    name: &'static str,
    family: Family,
    dim: usize,
}

impl Tempered for TemperedSoftmax {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu(
        &self,
        (storage, layout): (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        cpu::forward(self.name, self.family, self.dim, storage, layout, tau)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: (&CudaStorage, &Layout), tau: Tau) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self.name, self.family, self.dim, input, tau)
    }

    fn backward(
        &self,
        logits: &Tensor,
        tau: TauTensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        let Self { name, family, dim } = *self;
        gradients(logits, tau, |target| {
            softmax_gradient(name, family, dim, (res, grad), tau, target)
        })
    }
}
