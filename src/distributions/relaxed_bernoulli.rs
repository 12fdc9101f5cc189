//! The binary Concrete distribution on the unit interval, and on its logit.

use super::bernoulli::logits_of;
use super::formula::{full, log_logistic_density, sigmoid_of, with_gradient};
use super::frame::{FINITE, Frame, Rule, UNIT, over};
use super::relaxed_one_hot::{Tau, smallest};
use super::{Distribution, Reparameterized, framed};
use crate::{KeySource, Temperature, logistic};
use candle_core::{DType, Result, Shape, Tensor};

const OPEN_UNIT: Rule = ("a number above 0 and below 1", |x| 0.0 < x && x < 1.0);

/// What the two binary Concrete distributions share.
#[derive(Clone, Debug)]
struct Binary {
    frame: Frame,
    logits: Tensor,
    /// Of the shape of the logits where it is a tensor.
    tau: Tau,
}

impl Binary {
    fn new(
        name: &'static str,
        frame: Frame,
        logits: Tensor,
        given: &Tensor,
        tau: Temperature,
    ) -> Result<Self> {
        // The rule for temperatures asks for a dim that they have no extent in: it gets one of its own.
        let column = |t: &Tensor| match t.elem_count() {
            1 => t.reshape(()),
            _ => t.unsqueeze(t.rank()),
        };
        let (tau, rank) = (tau.reshaped(column)?, given.rank());
        let tau = Tau::new(name, tau, &given.unsqueeze(rank)?, rank)?;
        let tau = tau.map(|tau| tau.squeeze(rank))?;
        let made = Self { frame, logits, tau };
        made.check()?;
        Ok(made)
    }

    fn from_logits(name: &'static str, logits: &Tensor, tau: Temperature) -> Result<Self> {
        let (frame, [wide]) = Frame::new(name, [("logits", logits)], 0)?;
        Self::new(name, frame, wide, logits, tau)
    }

    fn from_probs(name: &'static str, probs: &Tensor, tau: Temperature) -> Result<Self> {
        let (frame, [wide]) = Frame::new(name, [("probs", probs)], 0)?;
        frame.require("probs", &wide, OPEN_UNIT)?;
        Self::new(name, frame, logits_of(name, &wide)?, probs, tau)
    }

    fn check(&self) -> Result<()> {
        // A certainty has no density.
        self.frame.require("logits", &self.logits, FINITE)
    }

    fn over(&self, dims: &[usize]) -> Result<(Tensor, Tau)> {
        Ok((
            over(&self.logits, dims)?,
            self.tau.map(|tau| over(tau, dims))?,
        ))
    }

    fn detached(&self) -> Result<Self> {
        Ok(Self {
            frame: self.frame.clone(),
            logits: self.logits.detach(),
            tau: self.tau.map(|tau| Ok(tau.detach()))?,
        })
    }

    /// A sample's logit, wide.
    fn logit(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        let (logits, tau) = self.over(&dims)?;
        let noise = logistic(&dims[..], logits.dtype(), &self.frame.device, key)?;
        tau.divide(&logits.add(&noise)?)
    }

    fn on_interval(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let y = sigmoid_of(self.frame.name, &self.logit(sample_shape, key)?)?;
        self.frame.rounded(&y)
    }

    /// The log-density at a logit, wide and of these dims.
    fn log_density(&self, v: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let (logits, tau) = self.over(dims)?;
        let d = logits.sub(&tau.times(v)?)?;
        tau.add_log(&log_logistic_density(self.frame.name, &d)?, 1.0)
    }

    fn expand(&self, batch: &[usize]) -> Result<Self> {
        let frame = self.frame.expanded(batch)?;
        let (logits, tau) = self.over(&frame.batch)?;
        Ok(Self { frame, logits, tau })
    }
}

/// A relaxed coin on the unit interval: the binary Concrete distribution, with its density.
///
/// * **rsample**: `sigmoid((logits + logistic(shape, key)) / tau)`: on the same side of 1/2, whatever `tau`, as
///   [`Bernoulli`](super::Bernoulli) of the same logits and key, unless it rounds to 1/2.
/// * **log_prob**: with `v = ln y - ln(1 - y)` and `d = logits - tau v`: `ln tau + d - 2 softplus(d) - ln y - ln(1 - y)`,
///   written so that it is finite for every `d` (`torch` has `2 log1p(exp(d))`, which makes it -inf for `d` above 88),
///   with gradients to logits, value and `tau`. A value of 0 or 1, which at a low temperature is a number that was
///   rounded away, counts as the nearest number inside of the interval (gradient 0); for the density of own samples at
///   low temperatures use [`LogitRelaxedBernoulli`].
/// * `tau` is a number, or a tensor with one element or of a shape that broadcasts to that of the logits.
/// * **Mean, variance, entropy, mode**: none in closed form: errors.
/// * **Source**: Maddison, Mnih, Teh, arXiv 1611.00712, appendix B.
/// * **PyTorch**: `torch.distributions.RelaxedBernoulli`.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Distribution, RelaxedBernoulli, Reparameterized};
/// let logits = Var::zeros(3, DType::F32, &Device::Cpu)?;
/// let gate = RelaxedBernoulli::from_logits(&logits, 0.5)?;
/// let y = gate.rsample_n(5, Key::new(42, 0))?; // (5, 3)
/// assert!(gate.log_prob(&y)?.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RelaxedBernoulli {
    frame: Frame,
    binary: Binary,
}

impl RelaxedBernoulli {
    /// From logits and a temperature.
    ///
    /// Errors: a dtype that is not supported; a logit that is not finite; a temperature that is not finite and above 0,
    /// or of a shape that does not fit.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, RelaxedBernoulli};
    /// let logits = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
    /// let tau = Tensor::new(&[0.5f32, 1., 2.], &Device::Cpu)?;
    /// assert_eq!(RelaxedBernoulli::from_logits(&logits, &tau)?.batch_shape(), [4, 3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_logits(logits: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let binary = Binary::from_logits("RelaxedBernoulli", logits, tau.into())?;
        let frame = binary.frame.clone();
        Ok(Self { frame, binary })
    }

    /// From probabilities, above 0 and below 1, and a temperature.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::RelaxedBernoulli;
    /// let probs = Tensor::new(&[0.1f32, 0.9], &Device::Cpu)?;
    /// assert!(RelaxedBernoulli::from_probs(&probs, 0.5).is_ok());
    /// assert!(RelaxedBernoulli::from_probs(&probs.round()?, 0.5).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_probs(probs: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let binary = Binary::from_probs("RelaxedBernoulli", probs, tau.into())?;
        let frame = binary.frame.clone();
        Ok(Self { frame, binary })
    }

    fn check(&self) -> Result<()> {
        self.binary.check()
    }
}

impl Distribution for RelaxedBernoulli {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.binary.detached()?.on_interval(sample_shape, key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (y, dims) = self.frame.value(value, UNIT)?;
        let y_ = y.detach();
        // The numbers next to the ends, in the dtype of the value.
        let below_one = match self.frame.dtype {
            DType::F64 => 1.0 - f64::EPSILON / 2.0,
            DType::F16 => 1.0 - half::f16::EPSILON.to_f64() / 2.0,
            DType::BF16 => 1.0 - half::bf16::EPSILON.to_f64() / 2.0,
            _ => 1.0 - f64::from(f32::EPSILON) / 2.0,
        };
        let (low, high) = (
            full(&y_, smallest(self.frame.dtype))?,
            full(&y_, below_one)?,
        );
        let inside = y_.ge(&low)?.mul(&y_.le(&high)?)?;
        let y_ = y_.maximum(&low)?.minimum(&high)?;
        let (ln_y, ln_rest) = (y_.log()?, super::formula::log1p(&y_.neg()?)?);
        // dv/dy = 1 / (y (1 - y)), and that of -ln y - ln(1 - y) is (2 y - 1) times it.
        let weight = y_.mul(&y_.affine(-1.0, 1.0)?)?.recip()?;
        let weight = inside.where_cond(&weight, &weight.zeros_like()?)?;
        let slope = weight.mul(&y_.affine(2.0, -1.0)?)?;
        let name = "RelaxedBernoulli::log_prob";
        let v = with_gradient(name, &[&y], ln_y.sub(&ln_rest)?, move |_, grad| {
            grad.mul(&weight)
        })?;
        let volume = ln_y.add(&ln_rest)?.neg()?;
        let volume = with_gradient(name, &[&y], volume, move |_, grad| grad.mul(&slope))?;
        let density = self.binary.log_density(&v, &dims)?.add(&volume)?;
        self.frame.rounded(&density)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let binary = self.binary.expand(batch_shape.into().dims())?;
        // Its own, which knows how far it checks.
        let frame = self.frame.expanded(&binary.frame.batch)?;
        Ok(Self { frame, binary })
    }
}

impl Reparameterized for RelaxedBernoulli {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.binary.on_interval(sample_shape, key)
    }
}

/// The logit of a relaxed coin: the binary Concrete distribution before its sigmoid, whose density stays exact where the
/// coin has been rounded to 0 or 1. It is the logistic distribution of location `logits / tau` and scale `1 / tau`.
///
/// * **rsample**: `(logits + logistic(shape, key)) / tau`; the logit of what [`RelaxedBernoulli`] draws under the same
///   key.
/// * **log_prob**: with `d = logits - tau v`: `ln tau + d - 2 softplus(d)`, finite for every finite `d`; with gradients
///   to logits, value and `tau`.
/// * **mean**, **mode**: `logits / tau`; **variance**: `pi^2 / (3 tau^2)`; **entropy**: `2 - ln tau`.
/// * **PyTorch**: `torch.distributions.relaxed_bernoulli.LogitRelaxedBernoulli`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Distribution, LogitRelaxedBernoulli};
/// let gate = LogitRelaxedBernoulli::from_logits(&Tensor::new(100f32, &Device::Cpu)?, 1.0)?;
/// let density = gate.log_prob(&Tensor::new(0f32, &Device::Cpu)?)?;
/// assert_eq!(density.to_scalar::<f32>()?, -100.0); // torch: -inf
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogitRelaxedBernoulli {
    frame: Frame,
    binary: Binary,
}

impl LogitRelaxedBernoulli {
    /// From logits and a temperature: as [`RelaxedBernoulli::from_logits`].
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, LogitRelaxedBernoulli};
    /// let logits = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
    /// assert_eq!(LogitRelaxedBernoulli::from_logits(&logits, 0.5)?.batch_shape(), [4, 3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_logits(logits: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let binary = Binary::from_logits("LogitRelaxedBernoulli", logits, tau.into())?;
        let frame = binary.frame.clone();
        Ok(Self { frame, binary })
    }

    /// From probabilities and a temperature: as [`RelaxedBernoulli::from_probs`].
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::LogitRelaxedBernoulli;
    /// let probs = Tensor::new(&[0.1f32, 0.9], &Device::Cpu)?;
    /// assert!(LogitRelaxedBernoulli::from_probs(&probs, 0.5).is_ok());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_probs(probs: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let binary = Binary::from_probs("LogitRelaxedBernoulli", probs, tau.into())?;
        let frame = binary.frame.clone();
        Ok(Self { frame, binary })
    }

    fn check(&self) -> Result<()> {
        self.binary.check()
    }
}

impl Distribution for LogitRelaxedBernoulli {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let v = self.binary.detached()?.logit(sample_shape, key)?;
        self.frame.rounded(&v)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (v, dims) = self.frame.value(value, FINITE)?;
        self.frame.rounded(&self.binary.log_density(&v, &dims)?)
    }

    fn entropy(&self) -> Result<Tensor> {
        let two = full(&self.binary.logits, 2.0)?;
        self.frame.rounded(&self.binary.tau.add_log(&two, -1.0)?)
    }

    fn mean(&self) -> Result<Tensor> {
        let mean = self.binary.tau.divide(&self.binary.logits)?;
        self.frame.rounded(&mean)
    }

    fn variance(&self) -> Result<Tensor> {
        let tau = &self.binary.tau;
        let scale = full(&self.binary.logits, std::f64::consts::PI / 3f64.sqrt())?;
        self.frame.rounded(&tau.divide(&scale)?.sqr()?)
    }

    fn mode(&self) -> Result<Tensor> {
        self.mean()
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let binary = self.binary.expand(batch_shape.into().dims())?;
        // Its own, which knows how far it checks.
        let frame = self.frame.expanded(&binary.frame.batch)?;
        Ok(Self { frame, binary })
    }
}

impl Reparameterized for LogitRelaxedBernoulli {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let v = self.binary.logit(sample_shape, key)?;
        self.frame.rounded(&v)
    }
}
