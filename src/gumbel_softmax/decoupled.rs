//! Decoupled straight-through: a temperature for the draw and another for its gradient.

use super::{GumbelSoftmax, StraightThrough};
use crate::check;
#[cfg(feature = "cuda")]
use crate::launch;
use crate::op::drawn_one_hot;
use crate::rng::KeySource;
use crate::tempered::{TauTensor, apply_pair};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

const NAME: &str = "decoupled_st";

/// A one-hot drawn at one temperature, with the straight-through gradient of another: decoupled straight-through
/// Gumbel-softmax.
///
/// * **Formula**: with `G` the noise `gumbel(logits.shape(), key)`; forward, the one-hot of `argmax(logits / tau_forward + G)`,
///   an exact draw from `softmax(logits / tau_forward)`; backward, with `y = softmax(logits / tau_backward + G)` at the same
///   noise and `J(p) = diag(p) - p p^T`, `J(y) g / tau_backward`. As in the paper, a temperature divides the logits and not
///   the noise, unlike in [`gumbel_softmax`](crate::gumbel_softmax()): `tau_forward` says how much is explored, and
///   `tau_backward` over how many classes the gradient is spread. With both at 1 it is
///   [`gumbel_softmax_st`](crate::gumbel_softmax_st) at a temperature of 1, bit for bit.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: exactly 0 and 1, one 1 a row, the lowest index where scores tie; the gradient is within 2e-6 (f32)
///   or 1e-14 (f64) of the row's largest, given `logits / tau_backward + G` rounded to the dtype it is computed in. Logits divided by either
///   temperature must not overflow; a quotient of the temperatures that the dtype cannot hold is taken as the nearest that it can. A logit of
///   -inf is never drawn and has gradient 0. A row that is all -inf, or holds NaN or +inf, is NaN, as is its gradient, and no
///   other row is.
/// * **Gradient**: biased, for the one-hot's own expectation too unless `tau_forward` is 1. Temperatures are numbers.
/// * **Cost**: that of [`gumbel_softmax_st`](crate::gumbel_softmax_st), and one pass over the logits for each temperature that
///   is not 1: the scaled logits of the forward pass are kept for the backward pass.
/// * **Errors**: a temperature not finite or not above 0; a dtype that is not listed; `dim` out of range, empty, or of more
///   than 2^32 elements; a key whose stream is not below 2^63.
/// * **Source**: Shah, Yan, Mozer, Liu, "Improving Discrete Optimisation Via Decoupled Straight-Through Gumbel-Softmax", arXiv
///   2410.13331.
/// * **PyTorch**: none; with both temperatures at 1, `torch.nn.functional.gumbel_softmax(logits, 1.0, hard=True, dim=dim)`.
///
/// ```
/// use candle_reparam::{Key, decoupled_st};
/// use candle_core::{D, DType, Device, Var};
/// let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
/// let one_hot = decoupled_st(&logits, 0.5, 2.0, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(one_hot.sum(D::Minus1)?.to_vec1::<f32>()?, [1.0; 64]);
/// assert!(one_hot.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn decoupled_st(
    logits: &Tensor,
    tau_forward: f64,
    tau_backward: f64,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let key = key.into();
    check::tensor(NAME, "logits", logits)?;
    check::key_source(NAME, &key, logits.device())?;
    let (_, dim) = check::indexed_rows(NAME, logits, dim)?;
    check::temperature(NAME, "tau_forward", tau_forward)?;
    check::temperature(NAME, "tau_backward", tau_backward)?;
    let dtype = logits.dtype();
    // candle's own conversions and products launch kernels of no blocks where there is nothing to convert, which is an error.
    let empty = logits.elem_count() == 0;
    let (forward, ratio) = if empty {
        (1.0, 1.0)
    } else {
        let largest = largest(dtype);
        let least = 1.0 / largest;
        // Finite and above 0, so that 0 and -inf keep their values at any temperature.
        let finite = |factor: f64| factor.clamp(least, largest);
        (finite(1.0 / tau_forward), tau_forward / tau_backward)
    };
    // Scaled logits are not rounded to a half type.
    let wide = match dtype {
        DType::F16 | DType::BF16 if !empty => logits.to_dtype(DType::F32)?,
        _ => logits.clone(),
    };
    let op = Decoupled {
        // The temperature is in the logits.
        relaxed: GumbelSoftmax {
            name: NAME,
            hard: true,
            dim,
            key,
        },
        ratio,
    };
    scaled(&wide, forward)?.apply_op1(op)?.to_dtype(dtype)
}

/// The tensor times a number, itself where that is 1.
fn scaled(tensor: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 {
        Ok(tensor.clone())
    } else {
        tensor * factor
    }
}

/// The largest number of the scalar that `dtype` is computed in.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        _ => f32::MAX.into(),
    }
}

/// Of logits that are scaled for the forward pass.
struct Decoupled {
    relaxed: GumbelSoftmax,
    /// What leads from the forward pass's logits to those of the backward pass.
    ratio: f64,
}

impl CustomOp1 for Decoupled {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let GumbelSoftmax { dim, ref key, .. } = self.relaxed;
        drawn_one_hot(NAME, dim, key.now()?, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let GumbelSoftmax { dim, ref key, .. } = self.relaxed;
        launch::drawn_one_hot(NAME, dim, key, (storage, layout))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let largest = largest(logits.dtype());
        let ratio = self.ratio.clamp(1.0 / largest, largest);
        let logits = scaled(&logits.detach(), ratio)?;
        let op = StraightThrough(self.relaxed.clone());
        let gradient = apply_pair(&logits, grad, TauTensor::Fixed(1.0), op)?;
        // A ratio too small for the scalar leaves no gradient.
        scaled(&gradient, self.ratio.min(largest)).map(Some)
    }
}
