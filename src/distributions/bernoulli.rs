//! A coin for each element of the batch.

use super::formula::{divergence_terms, full, log1p, or, sigmoid, softplus, with_gradient};
use super::frame::{Frame, NUMBER, UNIT, over};
use super::{Distribution, KlDivergence, framed};
use crate::{KeySource, logistic};
use candle_core::{Result, Shape, Tensor};

/// 1 with probability `sigmoid(logit)`, else 0, for each element of the batch.
///
/// * **log_prob**: `-(x softplus(-l) + (1 - x) softplus(l))`, without cancellation: exact for a logit of 1e4, whose
///   softplus does not overflow, and of -30, whose probability of 1 keeps its digits. A value between 0 and 1 gives
///   minus the binary cross-entropy, the reconstruction loss of images. Gradients to logits and value.
/// * **sample**: 1 where `logits + logistic(shape, key)` is above 0, whose tails are exact at both ends; in the dtype of
///   the parameters. Not differentiable: see [`RelaxedBernoulli`](super::RelaxedBernoulli), which relaxes the same draw.
/// * **mode**: 1 where the probability is above 1/2.
/// * **Infinite logits** are certainties: the other value has log-probability -inf, entropy and gradients are 0.
/// * **PyTorch**: `torch.distributions.Bernoulli`, which clamps probabilities to `[eps, 1 - eps]`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Bernoulli, Distribution};
/// let coin = Bernoulli::from_logits(&Tensor::new(&[-30f32, 1e4], &Device::Cpu)?)?;
/// let heads = coin.log_prob(&Tensor::ones(2, candle_core::DType::F32, &Device::Cpu)?)?;
/// assert_eq!(heads.to_vec1::<f32>()?, [-30.0, 0.0]);
/// let tails = coin.log_prob(&Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu)?)?.to_vec1::<f32>()?;
/// assert!((tails[0] / -9.357_623e-14 - 1.0).abs() < 1e-6 && tails[1] == -1e4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bernoulli {
    frame: Frame,
    logits: Tensor,
}

/// `ln(p / (1 - p))` as a function of `p`. Both ends are certainties: an infinite logit, and gradient 0 where none
/// arrives.
pub(super) fn logits_of(name: &'static str, probs: &Tensor) -> Result<Tensor> {
    let p = probs.detach();
    let value = p.log()?.sub(&log1p(&p.neg()?)?)?;
    with_gradient(name, &[probs], value, move |_, grad| {
        let zero = grad.zeros_like()?;
        let slope = p.mul(&p.affine(-1.0, 1.0)?)?;
        grad.eq(&zero)?.where_cond(&zero, &grad.div(&slope)?)
    })
}

impl Bernoulli {
    /// From logits: `ln(p / (1 - p))`, infinite ones included.
    ///
    /// Errors: a dtype that is not supported; a logit that is NaN.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::{Bernoulli, Distribution};
    /// let coin = Bernoulli::from_logits(&Tensor::new(&[0f32, 3f32.ln()], &Device::Cpu)?)?;
    /// let mean = coin.mean()?.to_vec1::<f32>()?;
    /// assert!(mean[0] == 0.5 && (mean[1] - 0.75).abs() < 1e-6);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_logits(logits: &Tensor) -> Result<Self> {
        let (frame, [logits]) = Frame::new("Bernoulli", [("logits", logits)], 0)?;
        let made = Self { frame, logits };
        made.check()?;
        Ok(made)
    }

    /// From probabilities of 1. One of exactly 0 or 1 is a certainty, with gradient 0.
    ///
    /// Errors: a dtype that is not supported; a probability outside of 0 to 1.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::{Bernoulli, Distribution};
    /// let coin = Bernoulli::from_probs(&Tensor::new(&[0f64, 0.25, 1.], &Device::Cpu)?)?;
    /// let one = Tensor::new(1f64, &Device::Cpu)?;
    /// let log_prob = coin.log_prob(&one)?.to_vec1::<f64>()?;
    /// assert!(log_prob[0] == f64::NEG_INFINITY && log_prob[2] == 0.0);
    /// assert!((log_prob[1] - 0.25f64.ln()).abs() < 1e-15);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_probs(probs: &Tensor) -> Result<Self> {
        let (frame, [probs]) = Frame::new("Bernoulli", [("probs", probs)], 0)?;
        frame.require("probs", &probs, UNIT)?;
        let logits = logits_of("Bernoulli::from_probs", &probs)?;
        Ok(Self { frame, logits })
    }

    /// The logits, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Bernoulli;
    /// let coin = Bernoulli::from_probs(&Tensor::new(0.5f64, &Device::Cpu)?)?;
    /// assert_eq!(coin.logits()?.to_scalar::<f64>()?, 0.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn logits(&self) -> Result<Tensor> {
        self.frame.rounded(&self.logits)
    }

    /// The probabilities of 1, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Bernoulli;
    /// let coin = Bernoulli::from_logits(&Tensor::new(0f64, &Device::Cpu)?)?;
    /// assert_eq!(coin.probs()?.to_scalar::<f64>()?, 0.5);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn probs(&self) -> Result<Tensor> {
        let probs = super::formula::sigmoid_of("Bernoulli::probs", &self.logits)?;
        self.frame.rounded(&probs)
    }

    fn check(&self) -> Result<()> {
        self.frame.require("logits", &self.logits, NUMBER)
    }
}

impl Distribution for Bernoulli {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        let logits = over(&self.logits.detach(), &dims)?;
        let noise = logistic(&dims[..], logits.dtype(), &self.frame.device, key)?;
        let sum = logits.add(&noise)?;
        let drawn = sum.gt(&sum.zeros_like()?)?.to_dtype(logits.dtype())?;
        // NaN where the logit is.
        let drawn = logits.eq(&logits)?.where_cond(&drawn, &logits)?;
        self.frame.rounded(&drawn)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, UNIT)?;
        let logits = over(&self.logits, &dims)?;
        let (x_, l) = (x.detach(), logits.detach());
        // A value that has no share costs nothing, be it impossible.
        let share = |share: &Tensor, l: &Tensor| {
            let none = share.eq(&share.zeros_like()?)?;
            none.where_cond(&share.zeros_like()?, &share.mul(&softplus(l)?)?)
        };
        let rest = x_.affine(-1.0, 1.0)?;
        let cost = share(&x_, &l.neg()?)?.add(&share(&rest, &l)?)?;
        let density = with_gradient(
            "Bernoulli::log_prob",
            &[&x, &logits],
            cost.neg()?,
            move |argument, grad| match argument {
                0 => grad.mul(&l),
                _ => {
                    let up = x_.mul(&sigmoid(&l.neg()?)?)?;
                    let down = x_.affine(-1.0, 1.0)?.mul(&sigmoid(&l)?)?;
                    grad.mul(&up.sub(&down)?)
                }
            },
        )?;
        self.frame.rounded(&density)
    }

    fn entropy(&self) -> Result<Tensor> {
        let l = self.logits.detach();
        let a = l.abs()?;
        let certain = a.eq(&full(&a, f64::INFINITY)?)?;
        let zero = l.zeros_like()?;
        let value = softplus(&a.neg()?)?.add(&sigmoid(&a.neg()?)?.mul(&a)?)?;
        let value = certain.where_cond(&zero, &value)?;
        let entropy = with_gradient(
            "Bernoulli::entropy",
            &[&self.logits],
            value,
            move |_, grad| {
                let slope = sigmoid(&l)?.mul(&sigmoid(&l.neg()?)?)?.mul(&l)?.neg()?;
                grad.mul(&certain.where_cond(&zero, &slope)?)
            },
        )?;
        self.frame.rounded(&entropy)
    }

    fn mean(&self) -> Result<Tensor> {
        self.probs()
    }

    fn variance(&self) -> Result<Tensor> {
        let l = self.logits.detach();
        let (p, q) = (sigmoid(&l)?, sigmoid(&l.neg()?)?);
        let value = p.mul(&q)?;
        let variance = with_gradient(
            "Bernoulli::variance",
            &[&self.logits],
            value.clone(),
            move |_, grad| grad.mul(&value.mul(&q.sub(&p)?)?),
        )?;
        self.frame.rounded(&variance)
    }

    fn mode(&self) -> Result<Tensor> {
        let l = self.logits.detach();
        let above = l.gt(&l.zeros_like()?)?;
        self.frame.rounded(&or(&above, &full(&l, 1.0)?, 0.0)?)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let frame = self.frame.expanded(batch_shape.into().dims())?;
        Ok(Self {
            logits: over(&self.logits, &frame.batch)?,
            frame,
        })
    }
}

impl KlDivergence for Bernoulli {
    fn kl_divergence(&self, other: &Self) -> Result<Tensor> {
        let dims = self.frame.common(&other.frame)?;
        let (a, b) = (over(&self.logits, &dims)?, over(&other.logits, &dims)?);
        let (p, q) = (a.detach(), b.detach());
        // Of one of the two values: its probability is sigmoid(sign logit), the logarithm of that -softplus(-sign logit).
        let term = |p: &Tensor, q: &Tensor| {
            let d = softplus(&p.neg()?)?.sub(&softplus(&q.neg()?)?)?;
            divergence_terms(&sigmoid(p)?, &sigmoid(q)?, &d)
        };
        let value = term(&p, &q)?.add(&term(&p.neg()?, &q.neg()?)?)?;
        let infinite = value.eq(&full(&value, f64::INFINITY)?)?;
        let divergence = with_gradient(
            "Bernoulli::kl_divergence",
            &[&a, &b],
            value,
            move |argument, grad| {
                let slope = match argument {
                    0 => {
                        let spread = sigmoid(&p)?.mul(&sigmoid(&p.neg()?)?)?;
                        let none = spread.eq(&spread.zeros_like()?)?;
                        none.where_cond(&spread, &p.sub(&q)?.mul(&spread)?)?
                    }
                    _ => {
                        // Of the two values the one that is rarer, whose probabilities have more digits.
                        let ones = sigmoid(&q)?.sub(&sigmoid(&p)?)?;
                        let zeros = sigmoid(&p.neg()?)?.sub(&sigmoid(&q.neg()?)?)?;
                        p.gt(&q.neg()?)?.where_cond(&zeros, &ones)?
                    }
                };
                // A certainty of the other stays one: it is +inf all around.
                grad.mul(&infinite.where_cond(&slope.zeros_like()?, &slope)?)
            },
        )?;
        self.frame.rounded(&divergence)
    }
}
