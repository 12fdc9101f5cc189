//! Gumbel's extreme-value distribution.

use super::formula::{full, ln_gamma_1p, with_gradient};
use super::frame::{FINITE, Frame, NUMBER, POSITIVE, over};
use super::{Distribution, KlDivergence, Reparameterized, framed};
use crate::{KeySource, gumbel};
use candle_core::{DType, Result, Shape, Tensor};
use std::f64::consts::PI;

/// Euler's constant, the mean of the standard Gumbel distribution.
const EULER: f64 = 0.577_215_664_901_532_9;

/// Gumbel's distribution of location and scale for each element of the batch: that of the largest of many.
///
/// The maximum over `logits + gumbel` noise is `Gumbel(logsumexp(logits), 1)`.
///
/// * **log_prob**: `-(z + exp(-z)) - ln scale`, `z = (x - loc) / scale`, with gradients to value, location and scale.
///   Finite while `exp(-z)` does not overflow: beyond, at `z` below -88 in f32, the number itself does.
/// * **rsample**: `loc + scale gumbel(shape, key)`.
/// * **mean**: `loc + 0.5772 scale`; **mode**: `loc`; **variance**: `pi^2 scale^2 / 6`; **entropy**: `ln scale + 1.5772`.
/// * **kl_divergence**: evaluated in f64 whatever the dtype, with `lgamma` and `digamma` for its gradient.
/// * **PyTorch**: `torch.distributions.Gumbel`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Distribution, Gumbel};
/// let (loc, scale) = (Tensor::new(0f64, &Device::Cpu)?, Tensor::new(1f64, &Device::Cpu)?);
/// let standard = Gumbel::new(&loc, &scale)?;
/// assert_eq!(standard.log_prob(&loc)?.to_scalar::<f64>()?, -1.0);
/// assert!(standard.kl_divergence(&standard)?.to_scalar::<f64>()?.abs() < 1e-14);
/// # use candle_reparam::distributions::KlDivergence;
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gumbel {
    frame: Frame,
    loc: Tensor,
    scale: Tensor,
}

impl Gumbel {
    /// From location and scale, of shapes that broadcast together.
    ///
    /// Errors: shapes that do not broadcast; dtypes or devices that differ; a location that is not finite, a scale that
    /// is not finite and above 0.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, Gumbel};
    /// let loc = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    /// assert_eq!(Gumbel::new(&loc, &loc.exp()?)?.batch_shape(), [3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(loc: &Tensor, scale: &Tensor) -> Result<Self> {
        let (frame, [loc, scale]) = Frame::new("Gumbel", [("loc", loc), ("scale", scale)], 0)?;
        let made = Self { frame, loc, scale };
        made.check()?;
        Ok(made)
    }

    fn check(&self) -> Result<()> {
        self.frame.require("loc", &self.loc, FINITE)?;
        self.frame.require("scale", &self.scale, POSITIVE)
    }

    fn of(&self, dims: &[usize], loc: &Tensor, scale: &Tensor, key: KeySource) -> Result<Tensor> {
        let noise = gumbel(dims, self.frame.wide_dtype(), &self.frame.device, key)?;
        let x = over(scale, dims)?.mul(&noise)?.add(&over(loc, dims)?)?;
        self.frame.rounded(&x)
    }
}

impl Distribution for Gumbel {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        self.of(&dims, &self.loc.detach(), &self.scale.detach(), key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, NUMBER)?;
        let (loc, scale) = (over(&self.loc, &dims)?, over(&self.scale, &dims)?);
        let s = scale.detach();
        let z = x.detach().sub(&loc.detach())?.div(&s)?;
        let value = z.add(&z.neg()?.exp()?)?.add(&s.log()?)?.neg()?;
        // At -inf it is the sum of two infinities, of which the exponential is the larger.
        let end = z.eq(&full(&z, f64::NEG_INFINITY)?)?;
        let value = end.where_cond(&z, &value)?;
        let density = with_gradient(
            "Gumbel::log_prob",
            &[&x, &loc, &scale],
            value,
            move |argument, grad| {
                // d log p / dz
                let slope = z.neg()?.exp()?.affine(1.0, -1.0)?;
                let slope = match argument {
                    0 => slope,
                    1 => slope.neg()?,
                    _ => slope.mul(&z)?.affine(-1.0, -1.0)?,
                };
                slope.div(&s)?.mul(grad)
            },
        )?;
        self.frame.rounded(&density)
    }

    fn entropy(&self) -> Result<Tensor> {
        let entropy = self.scale.log()?.affine(1.0, 1.0 + EULER)?;
        self.frame.rounded(&entropy)
    }

    fn mean(&self) -> Result<Tensor> {
        let mean = self.loc.add(&self.scale.affine(EULER, 0.0)?)?;
        self.frame.rounded(&mean)
    }

    fn variance(&self) -> Result<Tensor> {
        let variance = self.scale.sqr()?.affine(PI * PI / 6.0, 0.0)?;
        self.frame.rounded(&variance)
    }

    fn mode(&self) -> Result<Tensor> {
        self.frame.rounded(&self.loc)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let frame = self.frame.expanded(batch_shape.into().dims())?;
        Ok(Self {
            loc: over(&self.loc, &frame.batch)?,
            scale: over(&self.scale, &frame.batch)?,
            frame,
        })
    }
}

impl Reparameterized for Gumbel {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        self.of(&dims, &self.loc, &self.scale, key)
    }
}

impl KlDivergence for Gumbel {
    fn kl_divergence(&self, other: &Self) -> Result<Tensor> {
        let dims = self.frame.common(&other.frame)?;
        // Five terms that cancel where the two are close: in f64 an f32 divergence keeps its digits.
        let f64_over = |t: &Tensor| over(&t.to_dtype(DType::F64)?, &dims);
        let scale = f64_over(&other.scale)?;
        let ratio = f64_over(&self.scale)?.div(&scale)?;
        let shift = f64_over(&self.loc)?
            .sub(&f64_over(&other.loc)?)?
            .div(&scale)?;
        let moment = ln_gamma_1p("Gumbel::kl_divergence", &ratio)?
            .sub(&shift)?
            .exp()?;
        let linear = ratio.affine(EULER, -1.0 - EULER)?.sub(&ratio.log()?)?;
        let divergence = linear.add(&shift)?.add(&moment)?;
        self.frame.rounded(&divergence)
    }
}
