//! The logistic distribution.

use super::formula::log_logistic_density;
use super::frame::{FINITE, Frame, NUMBER, POSITIVE, over};
use super::{Distribution, Reparameterized, framed};
use crate::{KeySource, logistic};
use candle_core::{Result, Shape, Tensor};
use std::f64::consts::PI;

/// The logistic distribution of location and scale for each element of the batch: the noise behind a binary choice, as
/// Gumbel's is behind one of many.
///
/// * **log_prob**: `-|z| - 2 ln(1 + exp(-|z|)) - ln scale`, `z = (x - loc) / scale`: finite for every finite `z`, with
///   gradients to value, location and scale.
/// * **rsample**: `loc + scale logistic(shape, key)`.
/// * **mean**, **mode**: `loc`; **variance**: `pi^2 scale^2 / 3`; **entropy**: `ln scale + 2`.
/// * **PyTorch**: a `TransformedDistribution` of `Uniform(0, 1)`; TFP's `Logistic`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Distribution, Logistic};
/// let one = Tensor::new(1f32, &Device::Cpu)?;
/// let density = Logistic::new(&one, &one)?.log_prob(&Tensor::new(&[1f32, 1001.], &Device::Cpu)?)?;
/// assert_eq!(density.to_vec1::<f32>()?, [-4f32.ln(), -1000.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Logistic {
    frame: Frame,
    loc: Tensor,
    scale: Tensor,
}

impl Logistic {
    /// From location and scale, of shapes that broadcast together.
    ///
    /// Errors: shapes that do not broadcast; dtypes or devices that differ; a location that is not finite, a scale that
    /// is not finite and above 0.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, Logistic};
    /// let loc = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    /// assert_eq!(Logistic::new(&loc, &loc.exp()?)?.batch_shape(), [3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(loc: &Tensor, scale: &Tensor) -> Result<Self> {
        let (frame, [loc, scale]) = Frame::new("Logistic", [("loc", loc), ("scale", scale)], 0)?;
        let made = Self { frame, loc, scale };
        made.check()?;
        Ok(made)
    }

    fn check(&self) -> Result<()> {
        self.frame.require("loc", &self.loc, FINITE)?;
        self.frame.require("scale", &self.scale, POSITIVE)
    }

    fn of(&self, dims: &[usize], loc: &Tensor, scale: &Tensor, key: KeySource) -> Result<Tensor> {
        let noise = logistic(dims, self.frame.wide_dtype(), &self.frame.device, key)?;
        let x = over(scale, dims)?.mul(&noise)?.add(&over(loc, dims)?)?;
        self.frame.rounded(&x)
    }
}

impl Distribution for Logistic {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        self.of(&dims, &self.loc.detach(), &self.scale.detach(), key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, NUMBER)?;
        let scale = over(&self.scale, &dims)?;
        let z = x.sub(&over(&self.loc, &dims)?)?.div(&scale)?;
        let density = log_logistic_density("Logistic::log_prob", &z)?;
        self.frame.rounded(&density.sub(&scale.log()?)?)
    }

    fn entropy(&self) -> Result<Tensor> {
        self.frame.rounded(&self.scale.log()?.affine(1.0, 2.0)?)
    }

    fn mean(&self) -> Result<Tensor> {
        self.frame.rounded(&self.loc)
    }

    fn variance(&self) -> Result<Tensor> {
        let variance = self.scale.sqr()?.affine(PI * PI / 3.0, 0.0)?;
        self.frame.rounded(&variance)
    }

    fn mode(&self) -> Result<Tensor> {
        self.mean()
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

impl Reparameterized for Logistic {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        self.of(&dims, &self.loc, &self.scale, key)
    }
}
