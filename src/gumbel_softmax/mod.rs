//! Gumbel-softmax, relaxed and straight-through.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod decoupled;

pub use decoupled::decoupled_st;

use crate::backward::{Family, softmax_gradient};
use crate::check;
#[cfg(feature = "cuda")]
use crate::launch::{self, Tau};
use crate::op::{TauArg, drawn_one_hot};
use crate::rng::KeySource;
use crate::temperature::Temperature;
use crate::tempered::{
    Gradients, TauTensor, Tempered, TemperedPair, apply, apply_pair, apply_untracked, gradients,
};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// A relaxed sample of a one-hot: `softmax((logits + g) / tau)` over `dim`, with `g` standard Gumbel noise; the
/// Gumbel-softmax or Concrete distribution.
///
/// * **Formula**: `y = tempered_softmax(logits + gumbel(logits.shape(), key), tau, dim)`, for every dim, dtype, layout and
///   device; drawn and normalised in one pass, without a noise tensor.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: `[0, 1]`; within 2e-6 (f32) or 1e-14 (f64) of the row's largest value, given `logits + g` rounded to
///   the dtype it is computed in: logits with a large common offset leave fewer digits to the noise. The
///   arg-max is distributed as `softmax(logits)`; small `tau` is near one-hot and high in gradient variance, large `tau`
///   near uniform and biased. A logit of -inf is a mask: 0, gradient 0. A row that is all -inf, or holds NaN or +inf, is
///   NaN, and no other row is.
/// * **Gradient**: at fixed noise: with `c = y (g - <y, g>)`, `c / tau` to the logits and `-(1 / tau) sum_i c_i ln y_i` to
///   a `tau` tensor. Only the result is kept for it.
/// * **Errors**: `tau` not finite or not above 0, or of a shape, dtype or device that does not fit; a dtype that is not
///   listed; `dim` out of range or empty; a key whose stream is not below 2^63.
/// * **Source**: Jang, Gu, Poole, arXiv 1611.01144; Maddison, Mnih, Teh, arXiv 1611.00712.
/// * **PyTorch**: `torch.nn.functional.gumbel_softmax(logits, tau, hard=False, dim=dim)`.
///
/// ```
/// use candle_reparam::{Rng, gumbel_softmax};
/// use candle_core::{D, DType, Device, Var};
/// let rng = Rng::new(42);
/// let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
/// let y = gumbel_softmax(&logits, 0.5, D::Minus1, rng.next_key())?;
/// let grads = y.sqr()?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&logits).unwrap().dims(), [64, 10]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_softmax(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    run("gumbel_softmax", false, logits, tau.into(), dim, key.into())
}

/// A one-hot sample with the gradient of its relaxation: straight-through Gumbel-softmax.
///
/// * **Formula**: forward, the one-hot of `gumbel_max(logits, dim, key)`, an exact draw from `softmax(logits)`; backward,
///   the gradient of `gumbel_softmax(logits, tau, dim, key)`: the same noise, drawn again from the key.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64, f16 and bf16.
/// * **Range and precision**: exactly 0 and 1, one 1 a row, at the arg-max of the scores before any rounding to a half
///   type, the lowest index where scores tie. A logit of -inf is never drawn. A row that is all -inf, or holds NaN or
///   +inf, is NaN, and no other row is.
/// * **Gradient**: that of the relaxed sample at the same noise, bit for bit; biased with respect to the one-hot's own
///   expectation, the less so the smaller `tau`. Nothing is kept for it.
/// * **Errors**: as for [`gumbel_softmax`].
/// * **Source**: Bengio, Léonard, Courville, arXiv 1308.3432; Jang, Gu, Poole, arXiv 1611.01144.
/// * **PyTorch**: `torch.nn.functional.gumbel_softmax(logits, tau, hard=True, dim=dim)`.
///
/// ```
/// use candle_reparam::{Key, gumbel_softmax_st};
/// use candle_core::{D, DType, Device, Var};
/// let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
/// let one_hot = gumbel_softmax_st(&logits, 1.0, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(one_hot.sum(D::Minus1)?.to_vec1::<f32>()?, [1.0; 64]);
/// assert!(one_hot.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_softmax_st(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    run(
        "gumbel_softmax_st",
        true,
        logits,
        tau.into(),
        dim,
        key.into(),
    )
}

fn run(
    name: &'static str,
    hard: bool,
    logits: &Tensor,
    tau: Temperature,
    dim: impl Dim,
    key: KeySource,
) -> Result<Tensor> {
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    let (_, dim) = if hard {
        check::indexed_rows(name, logits, dim)?
    } else {
        check::rows(name, logits, dim)?
    };
    let tau = tau.check(name, logits, dim)?;
    let op = GumbelSoftmax {
        name,
        hard,
        dim,
        key,
    };
    apply(logits, &tau, op)
}

#[derive(Clone)]
struct GumbelSoftmax {
    name: &'static str,
    /// Whether the forward result is the one-hot.
    hard: bool,
    dim: usize,
    key: KeySource,
}

impl Tempered for GumbelSoftmax {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu(
        &self,
        (storage, layout): (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        let key = self.key.now()?;
        if self.hard {
            drawn_one_hot(self.name, self.dim, key, storage, layout)
        } else {
            cpu::relaxed(self.name, self.dim, key, storage, layout, tau)
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: (&CudaStorage, &Layout), tau: Tau) -> Result<(CudaStorage, Shape)> {
        if self.hard {
            launch::drawn_one_hot(self.name, self.dim, &self.key, input)
        } else {
            cuda::relaxed(self.name, self.dim, &self.key, input, tau)
        }
    }

    fn backward(
        &self,
        logits: &Tensor,
        tau: TauTensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        if self.hard && !tau.is_tracked() {
            let op = StraightThrough(self.clone());
            return Ok((Some(apply_pair(logits, grad, tau, op)?), None));
        }
        // Both gradients need the relaxed sample: draw it once.
        let drawn;
        let relaxed = if self.hard {
            let op = Self {
                hard: false,
                ..self.clone()
            };
            drawn = apply_untracked(logits, tau, op)?;
            &drawn
        } else {
            res
        };
        let (name, family, dim) = (self.name, Family::Softmax, self.dim);
        gradients(logits, tau, |target| {
            softmax_gradient(name, family, dim, (relaxed, grad), tau, target)
        })
    }
}

/// The backward pass of the one-hot: from the logits, their noise and the gradient, in one buffer.
struct StraightThrough(GumbelSoftmax);

impl TemperedPair for StraightThrough {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu(
        &self,
        logits: (&CpuStorage, &Layout),
        grad: (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        let GumbelSoftmax { name, dim, key, .. } = &self.0;
        cpu::straight_through(name, *dim, key.now()?, logits, grad, tau)
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        logits: (&CudaStorage, &Layout),
        grad: (&CudaStorage, &Layout),
        tau: Tau,
    ) -> Result<(CudaStorage, Shape)> {
        let GumbelSoftmax { name, dim, key, .. } = &self.0;
        cuda::straight_through(name, *dim, key, logits, grad, tau)
    }
}
