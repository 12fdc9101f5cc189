//! The Gaussian, diagonal: one for each element of the batch.

use super::formula::{full, log1p, with_gradient};
use super::frame::{FINITE, Frame, NUMBER, POSITIVE, over};
use super::{Distribution, KlDivergence, Reparameterized, framed};
use crate::{KeySource, gaussian, gaussian_kl, normal};
use candle_core::{DType, Device, Result, Shape, Tensor};
use std::f64::consts::TAU;

/// `N(loc, scale^2)` for each element of the batch: a diagonal Gaussian.
///
/// * **log_prob**: `-z^2 / 2 - ln scale - ln(2 pi) / 2`, `z = (x - loc) / scale`. Built from a log-variance it is never
///   divided by a scale that has underflowed: finite for every log-variance while `z^2` is.
/// * **rsample**: `loc + scale normal(shape, key)`; from a log-variance, [`gaussian`] of the same
///   key.
/// * **kl_divergence**: exact to second order where the two are close, through [`gaussian_kl`].
/// * **PyTorch**: `torch.distributions.Normal`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Distribution, Normal};
/// let (loc, scale) = (Tensor::new(&[0f64, 1.], &Device::Cpu)?, Tensor::new(&[1f64, 2.], &Device::Cpu)?);
/// let density = Normal::new(&loc, &scale)?.log_prob(&Tensor::new(&[0f64, 3.], &Device::Cpu)?)?;
/// let c = -0.5 * std::f64::consts::TAU.ln();
/// let want = [c, c - 0.5 - 2f64.ln()];
/// assert!(density.to_vec1::<f64>()?.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-14));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Normal {
    frame: Frame,
    loc: Tensor,
    spread: Spread,
}

#[derive(Clone, Debug)]
enum Spread {
    Scale(Tensor),
    LogVar(Tensor),
}

const KL: &str = "Normal::kl_divergence";

impl Normal {
    /// From location and scale, the standard deviation, of shapes that broadcast together.
    ///
    /// Errors: shapes that do not broadcast; dtypes or devices that differ; a location that is not finite, a scale that
    /// is not finite and above 0.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, Normal};
    /// let (loc, scale) = (Tensor::zeros((5, 3), candle_core::DType::F32, &Device::Cpu)?, Tensor::new(0.5f32, &Device::Cpu)?);
    /// assert_eq!(Normal::new(&loc, &scale)?.batch_shape(), [5, 3]);
    /// assert!(Normal::new(&loc, &loc).is_err()); // a scale of 0
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(loc: &Tensor, scale: &Tensor) -> Result<Self> {
        let (frame, [loc, scale]) = Frame::new("Normal", [("loc", loc), ("scale", scale)], 0)?;
        Self {
            frame,
            loc,
            spread: Spread::Scale(scale),
        }
        .checked()
    }

    /// From mean and log-variance, as the encoder of a VAE gives them.
    ///
    /// Errors: shapes that do not broadcast; dtypes or devices that differ; a value that is not finite.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, Normal};
    /// let zero = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    /// assert_eq!(Normal::from_log_var(&zero, &zero)?.variance()?.to_vec1::<f32>()?, [1.0; 3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_log_var(mean: &Tensor, log_var: &Tensor) -> Result<Self> {
        let parameters = [("mean", mean), ("log_var", log_var)];
        let (frame, [loc, log_var]) = Frame::new("Normal", parameters, 0)?;
        Self {
            frame,
            loc,
            spread: Spread::LogVar(log_var),
        }
        .checked()
    }

    /// `N(0, 1)` for each element of a shape.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_reparam::distributions::{Distribution, Normal};
    /// let prior = Normal::standard((64, 20), DType::BF16, &Device::Cpu)?;
    /// assert_eq!(prior.batch_shape(), [64, 20]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn standard(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        crate::check::dtype("Normal", "the distribution", dtype)?;
        let zero = Tensor::zeros((), dtype, device)?;
        Self::from_log_var(&zero, &zero)?.expand(shape)
    }

    /// The standard deviation, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Normal;
    /// let log_var = Tensor::new(&[0f64, 4f64.ln()], &Device::Cpu)?;
    /// let scale = Normal::from_log_var(&log_var, &log_var)?.stddev()?.to_vec1::<f64>()?;
    /// assert!((scale[1] - 2.0).abs() < 1e-14);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn stddev(&self) -> Result<Tensor> {
        self.frame.rounded(&self.scale()?)
    }

    fn checked(self) -> Result<Self> {
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        match &self.spread {
            Spread::Scale(scale) => {
                self.frame.require("loc", &self.loc, FINITE)?;
                self.frame.require("scale", scale, POSITIVE)
            }
            Spread::LogVar(log_var) => {
                self.frame.require("mean", &self.loc, FINITE)?;
                self.frame.require("log_var", log_var, FINITE)
            }
        }
    }

    fn scale(&self) -> Result<Tensor> {
        match &self.spread {
            Spread::Scale(scale) => Ok(scale.clone()),
            Spread::LogVar(log_var) => log_var.affine(0.5, 0.0)?.exp(),
        }
    }

    fn log_scale(&self) -> Result<Tensor> {
        match &self.spread {
            Spread::Scale(scale) => scale.log(),
            Spread::LogVar(log_var) => log_var.affine(0.5, 0.0),
        }
    }

    fn of(&self, dims: &[usize], loc: &Tensor, spread: &Spread, key: KeySource) -> Result<Tensor> {
        let loc = over(loc, dims)?;
        let z = match spread {
            Spread::LogVar(log_var) => gaussian(&loc, &over(log_var, dims)?, key)?,
            Spread::Scale(scale) => {
                let noise = normal(dims, self.frame.wide_dtype(), &self.frame.device, key)?;
                over(scale, dims)?.mul(&noise)?.add(&loc)?
            }
        };
        self.frame.rounded(&z)
    }
}

impl Spread {
    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(match self {
            Spread::Scale(scale) => Spread::Scale(f(scale)?),
            Spread::LogVar(log_var) => Spread::LogVar(f(log_var)?),
        })
    }

    fn log_var(&self) -> Result<Tensor> {
        match self {
            Spread::Scale(scale) => scale.log()?.affine(2.0, 0.0),
            Spread::LogVar(log_var) => Ok(log_var.clone()),
        }
    }

    /// `x / scale` as a function of both: [`divide`](Self::divide), whose choice candle would differentiate wrongly.
    fn units(&self, x: &Tensor) -> Result<Tensor> {
        let (Spread::Scale(parameter) | Spread::LogVar(parameter)) = self;
        let fixed = self.map(|t| Ok(t.detach()))?;
        let value = fixed.divide(&x.detach())?;
        let quotient = value.clone();
        with_gradient(KL, &[x, parameter], value, move |argument, grad| {
            match (argument, &fixed) {
                (0, _) => fixed.divide(grad),
                (_, Spread::Scale(scale)) => quotient.div(scale)?.neg()?.mul(grad),
                (_, Spread::LogVar(_)) => quotient.affine(-0.5, 0.0)?.mul(grad),
            }
        })
    }

    /// `x / scale`.
    fn divide(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Spread::Scale(scale) => x.div(scale),
            Spread::LogVar(log_var) => {
                // In two steps, of which neither overflows where the quotient does not; 0 stays 0 even so.
                let root = log_var.affine(-0.25, 0.0)?.exp()?;
                let quotient = x.mul(&root)?.mul(&root)?;
                let zero = x.zeros_like()?;
                x.eq(&zero)?.where_cond(&zero, &quotient)
            }
        }
    }
}

/// `ln(p / q)` of two scales, as a function of both.
fn log_ratio(p: &Tensor, q: &Tensor) -> Result<Tensor> {
    let (p_, q_) = (p.detach(), q.detach());
    // Of two that are close the difference is exact, which their ratio is not; of two that are far apart the difference
    // has little left of the smaller one.
    let part = p_.sub(&q_)?.div(&q_)?;
    let close = part.abs()?.le(&full(&part, 0.5)?)?;
    let value = close.where_cond(&log1p(&part)?, &p_.div(&q_)?.log()?)?;
    with_gradient(KL, &[p, q], value, move |argument, grad| match argument {
        0 => grad.div(&p_),
        _ => grad.div(&q_)?.neg(),
    })
}

impl Distribution for Normal {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        let spread = self.spread.map(|t| Ok(t.detach()))?;
        self.of(&dims, &self.loc.detach(), &spread, key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, NUMBER)?;
        let loc = over(&self.loc, &dims)?;
        let spread = self.spread.map(|t| over(t, &dims))?;
        let (Spread::Scale(parameter) | Spread::LogVar(parameter)) = &spread;
        let fixed = spread.map(|t| Ok(t.detach()))?;
        let difference = x.detach().sub(&loc.detach())?;
        let log_scale = match &fixed {
            Spread::Scale(scale) => scale.log()?,
            Spread::LogVar(log_var) => log_var.affine(0.5, 0.0)?,
        };
        let density = fixed
            .divide(&difference)?
            .sqr()?
            .affine(-0.5, -0.5 * TAU.ln())?
            .sub(&log_scale)?;
        let density = with_gradient(
            "Normal::log_prob",
            &[&x, &loc, parameter],
            density,
            move |argument, grad| {
                let z = fixed.divide(&difference)?;
                match (argument, &fixed) {
                    (0, _) => fixed.divide(&z)?.neg()?.mul(grad),
                    (1, _) => fixed.divide(&z)?.mul(grad),
                    (_, Spread::Scale(scale)) => z.sqr()?.affine(1.0, -1.0)?.div(scale)?.mul(grad),
                    (_, Spread::LogVar(_)) => z.sqr()?.affine(0.5, -0.5)?.mul(grad),
                }
            },
        )?;
        self.frame.rounded(&density)
    }

    fn entropy(&self) -> Result<Tensor> {
        let entropy = self.log_scale()?.affine(1.0, 0.5 + 0.5 * TAU.ln())?;
        self.frame.rounded(&entropy)
    }

    fn mean(&self) -> Result<Tensor> {
        self.frame.rounded(&self.loc)
    }

    fn variance(&self) -> Result<Tensor> {
        let variance = match &self.spread {
            Spread::Scale(scale) => scale.sqr()?,
            Spread::LogVar(log_var) => log_var.exp()?,
        };
        self.frame.rounded(&variance)
    }

    fn mode(&self) -> Result<Tensor> {
        self.mean()
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let frame = self.frame.expanded(batch_shape.into().dims())?;
        Ok(Self {
            loc: over(&self.loc, &frame.batch)?,
            spread: self.spread.map(|t| over(t, &frame.batch))?,
            frame,
        })
    }
}

impl Reparameterized for Normal {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        self.of(&dims, &self.loc, &self.spread, key)
    }
}

impl KlDivergence for Normal {
    fn kl_divergence(&self, other: &Self) -> Result<Tensor> {
        let dims = self.frame.common(&other.frame)?;
        // In the units of `other` it is the divergence from N(0, 1).
        let difference = over(&self.loc, &dims)?.sub(&over(&other.loc, &dims)?)?;
        let (p, q) = (
            self.spread.map(|t| over(t, &dims))?,
            other.spread.map(|t| over(t, &dims))?,
        );
        let mean = q.units(&difference)?;
        let log_var = match (&p, &q) {
            (Spread::Scale(p), Spread::Scale(q)) => log_ratio(p, q)?.affine(2.0, 0.0)?,
            _ => p.log_var()?.sub(&q.log_var()?)?,
        };
        let last = dims.len();
        let divergence = gaussian_kl(&mean.unsqueeze(last)?, &log_var.unsqueeze(last)?, last)?;
        self.frame.rounded(&divergence)
    }
}
