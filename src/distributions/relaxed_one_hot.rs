//! The Concrete distribution on the simplex, and on its logarithm.

use super::formula::{ln_gamma_of_count, with_gradient};
use super::frame::{FINITE, Frame, Rule, UNIT, over, wide};
use super::{Distribution, Reparameterized, framed};
use crate::temperature::Checked;
use crate::{KeySource, Temperature, gumbel, gumbel_softmax, tempered_log_softmax};
use candle_core::{D, DType, Result, Shape, Tensor};

/// The temperature of a distribution: a number, or one for each row of the parameters.
#[derive(Clone, Debug)]
pub(super) enum Tau {
    Fixed(f64),
    Rows(Tensor),
}

impl Tau {
    /// Checked against `logits`, as the ops check it; `dim` is the one that it has no extent in.
    pub(super) fn new(name: &str, tau: Temperature, logits: &Tensor, dim: usize) -> Result<Self> {
        Ok(match tau.check(name, logits, dim)? {
            Checked::Fixed(tau) => Tau::Fixed(tau),
            Checked::Rows(tau) => Tau::Rows(wide(&tau)?),
        })
    }

    pub(super) fn map(&self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(match self {
            Tau::Fixed(tau) => Tau::Fixed(*tau),
            Tau::Rows(tau) => Tau::Rows(f(tau)?),
        })
    }

    pub(super) fn temperature(&self) -> Temperature {
        match self {
            Tau::Fixed(tau) => (*tau).into(),
            Tau::Rows(tau) => tau.into(),
        }
    }

    /// `t tau`.
    pub(super) fn times(&self, t: &Tensor) -> Result<Tensor> {
        match self {
            Tau::Fixed(tau) => t.affine(*tau, 0.0),
            Tau::Rows(tau) => t.broadcast_mul(tau),
        }
    }

    /// `t / tau`.
    pub(super) fn divide(&self, t: &Tensor) -> Result<Tensor> {
        match self {
            Tau::Fixed(tau) => t / *tau,
            Tau::Rows(tau) => t.broadcast_div(tau),
        }
    }

    /// `t + factor ln tau`, whose gradient to tau is `factor / tau`.
    pub(super) fn add_log(&self, t: &Tensor, factor: f64) -> Result<Tensor> {
        match self {
            Tau::Fixed(tau) => t.affine(1.0, factor * tau.ln()),
            Tau::Rows(tau) => t.broadcast_add(&tau.log()?.affine(factor, 0.0)?),
        }
    }
}

/// What the two Concrete distributions share.
#[derive(Clone, Debug)]
struct Concrete {
    frame: Frame,
    logits: Tensor,
    tau: Tau,
}

impl Concrete {
    fn new(name: &'static str, logits: &Tensor, tau: Temperature) -> Result<Self> {
        let (frame, [wide]) = Frame::new(name, [("logits", logits)], 1)?;
        let concrete = Self {
            tau: Tau::new(name, tau, logits, logits.rank() - 1)?,
            frame,
            logits: wide,
        };
        concrete.check()?;
        Ok(concrete)
    }

    fn check(&self) -> Result<()> {
        // No masks: the density would be one on another simplex.
        self.frame.require("logits", &self.logits, FINITE)
    }

    /// Logits and temperature before a sample shape.
    fn over(&self, dims: &[usize]) -> Result<(Tensor, Tau)> {
        let mut rows = dims.to_vec();
        rows[dims.len() - 1] = 1;
        Ok((
            over(&self.logits, dims)?,
            self.tau.map(|tau| over(tau, &rows))?,
        ))
    }

    fn detached(&self) -> Result<Self> {
        Ok(Self {
            frame: self.frame.clone(),
            logits: self.logits.detach(),
            tau: self.tau.map(|tau| Ok(tau.detach()))?,
        })
    }

    fn on_simplex(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let (logits, tau) = self.over(&self.frame.sample_dims(sample_shape)?)?;
        let y = gumbel_softmax(&logits, tau.temperature(), D::Minus1, key)?;
        self.frame.rounded(&y)
    }

    fn in_logs(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let (logits, tau) = self.over(&self.frame.sample_dims(sample_shape)?)?;
        let noise = gumbel(logits.dims(), logits.dtype(), &self.frame.device, key)?;
        let x = tempered_log_softmax(&logits.add(&noise)?, tau.temperature(), D::Minus1)?;
        self.frame.rounded(&x)
    }

    /// The log-density in logarithmic space at `x`, wide and of these dims: `lgamma(K) + (K - 1) ln tau + sum_i log
    /// softmax(logits - tau x)_i`, a sum of numbers at most 0, in which nothing cancels.
    fn log_density(&self, x: &Tensor, dims: &[usize]) -> Result<Tensor> {
        let last = dims.len() - 1;
        let classes = dims[last];
        let (logits, tau) = self.over(dims)?;
        let scores = logits.sub(&tau.times(x)?)?;
        let sum = tempered_log_softmax(&scores, 1.0, last)?.sum_keepdim(last)?;
        let sum = tau.add_log(&sum, classes as f64 - 1.0)?.squeeze(last)?;
        sum.affine(1.0, ln_gamma_of_count(classes))
    }

    fn expand(&self, batch: &[usize]) -> Result<Self> {
        let frame = self.frame.expanded(batch)?;
        let (logits, tau) = self.over(&frame.dims(&[]))?;
        Ok(Self { frame, logits, tau })
    }
}

/// Relaxed one-hots on the simplex: the Concrete or Gumbel-softmax distribution, with its density.
///
/// * **Shapes**: logits `(batch.., K)`; the event shape is `(K)`. `tau` is a number or a tensor that broadcasts over the
///   rows, and receives gradients from samples and from `log_prob`: see [`Temperature`].
/// * **rsample**: [`gumbel_softmax`] of the same key.
/// * **log_prob**: `ln (K-1)! + (K - 1) ln tau + sum_i log softmax(logits - tau ln y)_i - sum_i ln y_i`, with gradients
///   to logits, value and `tau`. An entry of 0, which at a low temperature is a number that was rounded away, counts as
///   the smallest number of the dtype (gradient 0 there), so that the density is finite where `torch`'s is NaN; what was
///   rounded away is not known to it, though: for the density of own samples at low temperatures use
///   [`ExpRelaxedOneHotCategorical`].
/// * **Masks** are refused: with a logit of -inf the distribution has no density on this simplex.
/// * **Mean, variance, entropy, mode**: none in closed form: errors.
/// * **Source**: Maddison, Mnih, Teh, arXiv 1611.00712; Jang, Gu, Poole, arXiv 1611.01144.
/// * **PyTorch**: `torch.distributions.RelaxedOneHotCategorical`.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Distribution, RelaxedOneHotCategorical, Reparameterized};
/// let logits = Var::zeros((2, 3), DType::F32, &Device::Cpu)?;
/// let tau = Var::new(0.5f32, &Device::Cpu)?;
/// let concrete = RelaxedOneHotCategorical::new(&logits, &tau)?;
/// let y = concrete.rsample_n(5, Key::new(42, 0))?; // (5, 2, 3)
/// let density = concrete.log_prob(&y)?; // (5, 2)
/// assert!(density.sum_all()?.backward()?.get(&tau).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RelaxedOneHotCategorical {
    frame: Frame,
    concrete: Concrete,
}

const SUM_TOLERANCE: f64 = 1e-4;

impl RelaxedOneHotCategorical {
    /// From logits over the last dim, and a temperature.
    ///
    /// Errors: no dim, or an empty last one; a dtype that is not supported; a logit that is not finite; a temperature
    /// that is not finite and above 0, or of a shape that does not fit.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, RelaxedOneHotCategorical};
    /// let logits = Tensor::zeros((64, 10), DType::F32, &Device::Cpu)?;
    /// let concrete = RelaxedOneHotCategorical::new(&logits, 0.5)?;
    /// assert_eq!((concrete.batch_shape(), concrete.event_shape()), (&[64][..], &[10][..]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(logits: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let concrete = Concrete::new("RelaxedOneHotCategorical", logits, tau.into())?;
        let frame = concrete.frame.clone();
        Ok(Self { frame, concrete })
    }

    fn check(&self) -> Result<()> {
        self.frame.require("logits", &self.concrete.logits, FINITE)
    }
}

/// `ln y`, with an entry of 0 raised to the smallest number of `dtype`, where its gradient is 0.
fn log_raised(y: &Tensor, dtype: DType) -> Result<Tensor> {
    let floor = smallest(dtype);
    let y_ = y.detach();
    let raised = y_.maximum(&super::formula::full(&y_, floor)?)?;
    let kept = y_.ge(&super::formula::full(&y_, floor)?)?;
    let value = raised.log()?;
    with_gradient(
        "RelaxedOneHotCategorical::log_prob",
        &[y],
        value,
        move |_, grad| kept.where_cond(&grad.div(&raised)?, &grad.zeros_like()?),
    )
}

/// The smallest number above 0 of a dtype, apart from the subnormal ones of those whose exponents reach far.
pub(super) fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN_POSITIVE,
        DType::F16 => half::f16::MIN_POSITIVE_SUBNORMAL.to_f64(),
        // bf16 has the exponents of f32.
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

impl Distribution for RelaxedOneHotCategorical {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.concrete.detached()?.on_simplex(sample_shape, key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (y, dims) = self.frame.value(value, UNIT)?;
        // Rounding each entry to a half type moves the sum by this much: by a part of it, and in f16, whose smallest numbers
        // are coarse, by half a step for each entry.
        let classes = dims[dims.len() - 1] as f64;
        let slack = match self.frame.dtype {
            DType::F16 => 1e-2 + 0.5 * classes * smallest(DType::F16),
            DType::BF16 => 1e-2,
            _ => SUM_TOLERANCE,
        };
        self.frame.require_rows(
            "the value",
            || y.detach().sum(D::Minus1),
            ("1", |sum| (sum - 1.0).abs() <= slack),
        )?;
        let x = log_raised(&y, self.frame.dtype)?;
        let density = self.concrete.log_density(&x, &dims)?;
        self.frame.rounded(&density.sub(&x.sum(D::Minus1)?)?)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let concrete = self.concrete.expand(batch_shape.into().dims())?;
        // Its own, which knows how far it checks.
        let frame = self.frame.expanded(&concrete.frame.batch)?;
        Ok(Self { frame, concrete })
    }
}

impl Reparameterized for RelaxedOneHotCategorical {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.concrete.on_simplex(sample_shape, key)
    }
}

/// The logarithm of a relaxed one-hot: the Concrete distribution in logarithmic space, whose density stays finite where
/// that on the simplex has rounded its values away.
///
/// * **Shapes**: as for [`RelaxedOneHotCategorical`].
/// * **rsample**: `x = tempered_log_softmax(logits + gumbel(shape, key), tau)`, the logarithm of what the relaxed one-hot
///   draws under the same key.
/// * **log_prob**: `ln (K-1)! + (K - 1) ln tau + sum_i log softmax(logits - tau x)_i`; with `w` that softmax its
///   gradients are `1 - K w` to the logits, `-tau (1 - K w)` to the value and `(K - 1) / tau - sum_i x_i (1 - K w_i)` to
///   `tau`. It is the density over the `K - 1` log-ratios `x_i - x_K`; as in `torch` a value for which `exp(x)` does not
///   sum to 1 is not refused.
/// * **Masks** are refused: with a logit of -inf the distribution has no density.
/// * **Mean, variance, entropy, mode**: none in closed form: errors.
/// * **Source**: Maddison, Mnih, Teh, arXiv 1611.00712, appendix C.
/// * **PyTorch**: `torch.distributions.relaxed_categorical.ExpRelaxedCategorical`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Distribution, ExpRelaxedOneHotCategorical};
/// let concrete = ExpRelaxedOneHotCategorical::new(&Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?, 0.01)?;
/// let x = concrete.sample_n(100, Key::new(42, 0))?;
/// assert!(x.min_all()?.to_scalar::<f32>()? < -200.0); // exp(x) is 0
/// assert!(concrete.log_prob(&x)?.flatten_all()?.to_vec1::<f32>()?.iter().all(|d| d.is_finite()));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ExpRelaxedOneHotCategorical {
    frame: Frame,
    concrete: Concrete,
}

const LOGARITHM: Rule = FINITE;

impl ExpRelaxedOneHotCategorical {
    /// From logits over the last dim, and a temperature: as [`RelaxedOneHotCategorical::new`].
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::ExpRelaxedOneHotCategorical;
    /// let logits = Tensor::zeros((64, 10), DType::F32, &Device::Cpu)?;
    /// assert!(ExpRelaxedOneHotCategorical::new(&logits, 0.0).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(logits: &Tensor, tau: impl Into<Temperature>) -> Result<Self> {
        let concrete = Concrete::new("ExpRelaxedOneHotCategorical", logits, tau.into())?;
        let frame = concrete.frame.clone();
        Ok(Self { frame, concrete })
    }

    fn check(&self) -> Result<()> {
        self.frame.require("logits", &self.concrete.logits, FINITE)
    }
}

impl Distribution for ExpRelaxedOneHotCategorical {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.concrete.detached()?.in_logs(sample_shape, key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, LOGARITHM)?;
        self.frame.rounded(&self.concrete.log_density(&x, &dims)?)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let concrete = self.concrete.expand(batch_shape.into().dims())?;
        // Its own, which knows how far it checks.
        let frame = self.frame.expanded(&concrete.frame.batch)?;
        Ok(Self { frame, concrete })
    }
}

impl Reparameterized for ExpRelaxedOneHotCategorical {
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        self.concrete.in_logs(sample_shape, key)
    }
}
