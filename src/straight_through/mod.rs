//! Steps, with the gradient that passes straight through them.
//!
//! Rounding, thresholds and arg-maxima are flat wherever they have a derivative, so that nothing before them would learn. The
//! straight-through estimator takes the step forward and pretends, backward, that it had been the identity ([`Surrogate`]):
//! biased, but cheap, without variance of its own, and what quantised and binary networks are trained with. candle's own
//! `round`, `floor`, `ceil` and `sign` give no gradient at all, silently.
//!
//! f16 and bf16 are computed in f32 and rounded once. A NaN stays one.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::elementwise::Elementwise;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use cpu::{Binarize, Ceil, Floor, Quantize, Round, Sign, Step};

/// The gradient of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Surrogate {
    /// That of the identity: the result's gradient, wherever the argument lies. Nothing is computed for it.
    #[default]
    Identity,
    /// That of the identity where the argument lies in the closed interval, 0 outside: it keeps arguments from drifting on
    /// where the step no longer changes (NaN where the argument is NaN).
    Clipped {
        /// The lower end, which may be -inf.
        low: f64,
        /// The upper end, which may be inf.
        high: f64,
    },
}

/// The nearest integer.
///
/// * **Formula**: the integer nearest to `x`, the even one of two that are equally near; a zero keeps `x`'s sign.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact; infinities stay.
/// * **Gradient**: the [`Surrogate`]'s.
/// * **Errors**: a surrogate whose bounds are NaN or not in order; a dtype that is not listed.
/// * **Source**: Bengio, Léonard, Courville, arXiv 1308.3432.
/// * **PyTorch**: `x + (torch.round(x) - x).detach()`; candle's `round` takes halves away from zero.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Var};
/// let x = Var::new(&[0.5f32, 1.5, -0.7], &Device::Cpu)?;
/// let y = straight_through::round(&x, Surrogate::Identity)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 2., -1.]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [1., 1., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn round(x: &Tensor, surrogate: Surrogate) -> Result<Tensor> {
    apply("round", x, Round, surrogate)
}

/// The largest integer that is not above.
///
/// As [`round`], of `floor(x)`.
///
/// * **PyTorch**: `x + (torch.floor(x) - x).detach()`.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0.5f32, -0.5, 2.], &Device::Cpu)?;
/// let y = straight_through::floor(&x, Surrogate::Identity)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., -1., 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn floor(x: &Tensor, surrogate: Surrogate) -> Result<Tensor> {
    apply("floor", x, Floor, surrogate)
}

/// The smallest integer that is not below.
///
/// As [`round`], of `ceil(x)`.
///
/// * **PyTorch**: `x + (torch.ceil(x) - x).detach()`.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0.5f32, -1.5, 2.], &Device::Cpu)?;
/// let y = straight_through::ceil(&x, Surrogate::Identity)?;
/// assert_eq!(y.to_vec1::<f32>()?, [1., -1., 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn ceil(x: &Tensor, surrogate: Surrogate) -> Result<Tensor> {
    apply("ceil", x, Ceil, surrogate)
}

/// The sign: -1, 0 or 1.
///
/// * **Formula**: 1 above 0, -1 below, 0 at both zeros.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact.
/// * **Gradient**: the [`Surrogate`]'s. For binary networks it is `Clipped` to [-1, 1], the gradient of a hard tanh.
/// * **Errors**: a surrogate whose bounds are NaN or not in order; a dtype that is not listed.
/// * **Source**: Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, arXiv 1602.02830.
/// * **PyTorch**: `y = torch.nn.functional.hardtanh(x); y + (torch.sign(x) - y).detach()`, but for the gradient at -1 and 1, which
///   is in the interval here; `torch.sign` of NaN is 0.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Var};
/// let x = Var::new(&[-3f32, -0.5, 1.], &Device::Cpu)?;
/// let y = straight_through::sign(&x, Surrogate::Clipped { low: -1.0, high: 1.0 })?;
/// assert_eq!(y.to_vec1::<f32>()?, [-1., -1., 1.]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0., 1., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sign(x: &Tensor, surrogate: Surrogate) -> Result<Tensor> {
    apply("sign", x, Sign, surrogate)
}

/// Whether each element is above a threshold: 1 or 0.
///
/// * **Formula**: 1 where `x > threshold`, 0 where not, the threshold itself included.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16; the threshold is rounded to the dtype that is computed in.
/// * **Range and precision**: exact.
/// * **Gradient**: the [`Surrogate`]'s.
/// * **Errors**: a threshold that is not finite; a surrogate whose bounds are NaN or not in order; a dtype that is not listed.
/// * **Source**: Bengio, Léonard, Courville, arXiv 1308.3432.
/// * **PyTorch**: `x + ((x > threshold).to(x.dtype) - x).detach()`.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[0.2f32, 0.5, 0.9], &Device::Cpu)?;
/// let y = straight_through::binarize(&p, 0.5, Surrogate::Identity)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 0., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binarize(x: &Tensor, threshold: f64, surrogate: Surrogate) -> Result<Tensor> {
    let name = "binarize";
    check::finite(name, "threshold", threshold)?;
    apply(name, x, Binarize(threshold), surrogate)
}

/// The nearest of evenly spaced levels.
///
/// * **Formula**: `low + step round((clamp(x, low, high) - low) / step)` with `step = (high - low) / (levels - 1)`; halfway between
///   two levels, the one with the even number, counted from 0 at `low`.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: `low` and `high` themselves at the ends, and exactly 0 in the middle of a symmetric range; elsewhere
///   within 1e-7 (f32) or 2e-16 (f64) of the width. Within a few units in the last place of halfway between two levels it may be
///   either.
/// * **Gradient**: the [`Surrogate`]'s; `Clipped` to the same bounds is the usual one, since outside them nothing changes.
/// * **Errors**: bounds that are not finite with `low` below `high`, or that the dtype computed in cannot hold, with their distance
///   and the inverse of a step; fewer than 2 levels, or more than 2^24; a surrogate whose bounds are NaN or not in order; a dtype that is not listed.
/// * **Source**: Jacob et al., "Quantization and training of neural networks", arXiv 1712.05877.
/// * **PyTorch**: `torch.fake_quantize_per_tensor_affine(x, step, zero_point, 0, levels - 1)`, whose zero point is an integer.
///
/// ```
/// use candle_reparam::straight_through::{self, Surrogate};
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-2f32, 0.1, 0.4, 7.], &Device::Cpu)?;
/// let bounds = Surrogate::Clipped { low: -1.0, high: 1.0 };
/// let y = straight_through::quantize(&x, -1.0, 1.0, 5, bounds)?;
/// assert_eq!(y.to_vec1::<f32>()?, [-1., 0., 0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn quantize(
    x: &Tensor,
    low: f64,
    high: f64,
    levels: usize,
    surrogate: Surrogate,
) -> Result<Tensor> {
    /// Beyond them f32 does not count.
    const MOST: u32 = 1 << 24;
    let name = "quantize";
    check::tensor(name, "x", x)?;
    check::finite(name, "low", low)?;
    check::finite(name, "high", high)?;
    if low >= high || !(high - low).is_finite() {
        bail!(
            "{name}: low is {low} and high is {high}, expected low < high, a finite distance apart"
        )
    }
    let levels = match u32::try_from(levels) {
        Ok(levels @ 2..=MOST) => levels,
        _ => bail!("{name}: levels is {levels}, expected from 2 to {MOST}"),
    };
    // Of these numbers the kernel makes the levels.
    let density = f64::from(levels - 1) / (high - low);
    let all = [low, high, high - low, density];
    if x.dtype() != DType::F64 && !all.iter().all(|&v| (v as f32).is_finite()) {
        bail!(
            "{name}: low is {low} and high is {high}, expected bounds of which f32, in which {:?} is computed, can hold \
             the distance and {levels} levels",
            x.dtype()
        )
    }
    apply(name, x, Quantize { low, high, levels }, surrogate)
}

/// The one-hot of each row's largest element.
///
/// * **Formula**: 1 at `argmax_i x_i`, the lowest index where several are largest, 0 elsewhere. A row of infinities is no
///   exception; a row that holds NaN is NaN, and that row alone.
/// * **Shapes**: any rank from 1, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact.
/// * **Gradient**: that of the identity. For the gradient of a softmax, and for draws, see
///   [`gumbel_softmax_st`](crate::gumbel_softmax_st).
/// * **Errors**: `dim` out of range, empty, or of more than 2^32 elements; a dtype that is not listed.
/// * **Source**: Bengio, Léonard, Courville, arXiv 1308.3432; van den Oord et al., arXiv 1711.00937, for codebooks.
/// * **PyTorch**: `x + (torch.nn.functional.one_hot(x.argmax(dim), n) - x).detach()` along the last dim.
///
/// ```
/// use candle_reparam::straight_through;
/// use candle_core::{D, Device, Var};
/// let x = Var::new(&[[1f32, 3., 3.], [0., -1., -2.]], &Device::Cpu)?;
/// let y = straight_through::one_hot(&x, D::Minus1)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0., 1., 0.], [1., 0., 0.]]);
/// assert!(y.sum_all()?.backward()?.get(&x).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn one_hot(x: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let name = "one_hot";
    check::tensor(name, "x", x)?;
    let (_, dim) = check::indexed_rows(name, x, dim)?;
    x.apply_op1(OneHot { name, dim })
}

/// A step with the gradient that stands for its own.
#[derive(Clone, Copy)]
struct Through<T> {
    step: T,
    surrogate: Surrogate,
}

fn apply<T: Step<P>, const P: usize>(
    name: &'static str,
    x: &Tensor,
    step: T,
    surrogate: Surrogate,
) -> Result<Tensor> {
    check::tensor(name, "x", x)?;
    if let Surrogate::Clipped { low, high } = surrogate {
        check::interval(name, low, high)?;
    }
    Elementwise::new(name, Through { step, surrogate }).apply([x])
}

struct OneHot {
    name: &'static str,
    dim: usize,
}

impl CustomOp1 for OneHot {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu::one_hot(self.name, self.dim, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::one_hot(self.name, self.dim, storage, layout)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}
