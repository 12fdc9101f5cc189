//! The binary Concrete distribution: gates that are relaxed, straight-through or hard.

mod cpu;

use crate::check;
use crate::elementwise::Elementwise;
use crate::rng::KeySource;
use crate::temperature::{Checked, Temperature};
use candle_core::{Result, Tensor, bail};

/// A relaxed sample of `Bernoulli(sigmoid(logits))`: the binary Concrete distribution, differentiable in logits and
/// temperature.
///
/// * **Formula**: `y = sigmoid(v)`, `v = (logits + l) / tau`, `l = logistic(logits.shape(), key)`, in one pass. It rounds to a
///   1 with probability `sigmoid(logits)` at every temperature, and is a 0 or a 1 as `tau` goes to 0: `P(y < t) = sigmoid(tau
///   logit(t) - logits)`.
/// * **Shapes**: `logits` of any shape and layout; the result has its shape. `tau` is a number, or a tensor of one element or of
///   any shape that broadcasts to that of the logits.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: from 0 to 1; relative error below `2e-7 (3 + |v|)` (f32) or `4e-16 (3 + |v|)` (f64). A logit
///   of -inf gives 0, one of +inf gives 1, and NaN gives NaN, in that element alone.
/// * **Gradient**: `g y (1 - y) / tau` to the logits, `-g y (1 - y) v / tau` to `tau`, summed to its shape. That of the logits is
///   computed from `y` in f32 and f64, off by at most `1e-7 |g| / tau` (f32) or `2e-16 |g| / tau` (f64) where `y` is near 1; in
///   f16 and bf16, where a rounded `y` would leave no digits there, and for `tau`, from `v`, with the noise drawn again from the
///   key. Nothing is kept for it, and nothing computed for an argument that tracks no gradient. An infinite logit has a
///   gradient of 0.
/// * **Errors**: a dtype that is not listed; a `tau` that is not finite and above 0, or does not broadcast, or has another
///   dtype or device; a key whose stream is not below 2^63.
/// * **Source**: Maddison, Mnih, Teh, arXiv 1611.00712, appendix B.
/// * **PyTorch**: `torch.distributions.RelaxedBernoulli(tau, logits=logits).rsample()`.
///
/// ```
/// use candle_reparam::{Key, binary_concrete};
/// use candle_core::{DType, Device, Var};
/// let logits = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let y = binary_concrete(&logits, 0.5, Key::new(42, 0))?;
/// let grads = y.sqr()?.sum_all()?.backward()?;
/// assert!(grads.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binary_concrete(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    gate("binary_concrete", logits, tau, key, cpu::Concrete)
}

/// A sample of `Bernoulli(sigmoid(logits))`, 0 or 1, with the gradient of [`binary_concrete`] at the same noise:
/// straight-through.
///
/// * **Formula**: 1 where `logits + l > 0`, else 0, `l = logistic(logits.shape(), key)`: where the relaxed sample of the same key
///   is above 1/2. An exact draw, since `P(l > -a) = sigmoid(a)`, for probabilities down to 1e-19 on both sides.
/// * **Shapes and dtypes**: those of [`binary_concrete`].
/// * **Range and precision**: 0 or 1. A logit of -inf is never 1, one of +inf always, and NaN gives NaN, in that element alone.
/// * **Gradient**: that of [`binary_concrete`] at the same noise, to logits and `tau`, from `v`: it keeps its digits where the
///   relaxed sample rounds to 1. It is biased; its variance falls as `tau` rises.
/// * **Errors**: those of [`binary_concrete`].
/// * **Source**: Bengio, Léonard, Courville, arXiv 1308.3432; Jang, Gu, Poole, arXiv 1611.01144.
/// * **PyTorch**: `y = RelaxedBernoulli(tau, logits=logits).rsample(); (y > 0.5).to(y.dtype) - y.detach() + y`.
///
/// ```
/// use candle_reparam::{Key, binary_concrete_st};
/// use candle_core::{DType, Device, Var};
/// let logits = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let b = binary_concrete_st(&logits, 1.0, Key::new(42, 0))?;
/// assert!(b.flatten_all()?.to_vec1::<f32>()?.iter().all(|&b| b == 0.0 || b == 1.0));
/// assert!(b.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn binary_concrete_st(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    gate("binary_concrete_st", logits, tau, key, cpu::StraightThrough)
}

/// The interval that [`hard_concrete`] stretches a relaxed gate to before it clamps it to 0 and 1: from below 0 to above 1. The
/// further out, the more often a gate is 0, or 1, exactly. By default from -0.1 to 1.1, as in arXiv 1712.01312.
///
/// ```
/// use candle_reparam::Stretch;
/// assert_eq!(Stretch::default(), Stretch::from((-0.1, 1.1)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Below 0.
    pub low: f64,
    /// Above 1.
    pub high: f64,
}

impl Default for Stretch {
    fn default() -> Self {
        let (low, high) = (-0.1, 1.1);
        Self { low, high }
    }
}

impl From<(f64, f64)> for Stretch {
    fn from((low, high): (f64, f64)) -> Self {
        Self { low, high }
    }
}

impl Stretch {
    fn check(self, op: &str) -> Result<Self> {
        let Self { low, high } = self;
        // In f32, in which all dtypes but one are computed: a gate as wide as that is open or shut whatever the dtype.
        let proper = low < 0.0 && high > 1.0 && ((high - low) as f32).is_finite();
        if !proper {
            bail!(
                "{op}: stretch is from {low} to {high}, expected finite limits below 0 and above 1"
            )
        }
        Ok(self)
    }

    /// `ln(-low / high)`: the logit, in units of tau, that a relaxed gate must pass not to be 0.
    fn threshold(self) -> f64 {
        (-self.low / self.high).ln()
    }
}

/// A sample of the hard Concrete distribution: a gate that is exactly 0 or exactly 1 with some probability, and otherwise
/// between, differentiable in logits and temperature. For L0 regularisation, with [`hard_concrete_l0`].
///
/// * **Formula**: `z = clamp(low + (high - low) y, 0, 1)`, `y` the [`binary_concrete`] sample of the same key, in one pass.
///   With [`Stretch::default`], `clamp(1.2 y - 0.1, 0, 1)`.
/// * **Shapes and dtypes**: those of [`binary_concrete`].
/// * **Range and precision**: from 0 to 1, both included; absolute error below 1e-6 (f32) or 2e-15 (f64). A logit of -inf gives
///   0, one of +inf gives 1, and NaN gives NaN, in that element alone.
/// * **Gradient**: `(high - low)` times that of [`binary_concrete`] where `z` is between 0 and 1, and 0 where it is clamped; to
///   logits and `tau`.
/// * **Errors**: those of [`binary_concrete`]; limits that are not finite in f32, or not below 0 and above 1.
/// * **Source**: Louizos, Welling, Kingma, arXiv 1712.01312, equations 10 and 11.
/// * **PyTorch**: `y = RelaxedBernoulli(tau, logits=logits).rsample(); (low + (high - low) * y).clamp(0, 1)`.
///
/// ```
/// use candle_reparam::{Key, Stretch, hard_concrete};
/// use candle_core::{DType, Device, Var};
/// let logits = Var::zeros(1000, DType::F32, &Device::Cpu)?;
/// let z = hard_concrete(&logits, 2.0 / 3.0, Stretch::default(), Key::new(42, 0))?;
/// let shut = z.eq(0f32)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
/// assert!((shut - 0.168).abs() < 0.04);
/// assert!(z.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_concrete(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    stretch: impl Into<Stretch>,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let name = "hard_concrete";
    let stretch = stretch.into().check(name)?;
    gate(name, logits, tau, key, cpu::Hard(stretch))
}

/// The probability that a [`hard_concrete`] gate is not 0: summed, the expected number of open gates, the L0 penalty.
///
/// * **Formula**: `P(z > 0) = sigmoid(logits - tau ln(-low / high))`, in one pass; with [`Stretch::default`], `sigmoid(logits +
///   2.398 tau)`.
/// * **Shapes and dtypes**: those of [`binary_concrete`], the result elementwise, so that gates may be weighed before they are
///   summed.
/// * **Range and precision**: from 0 to 1; relative error below `2e-7 (3 + |v|)` (f32) or `4e-16 (3 + |v|)` (f64), `v` the argument
///   of the sigmoid. A logit of -inf gives 0, one of +inf gives 1, and NaN gives NaN, in that element alone.
/// * **Gradient**: `g p (1 - p)` to the logits, `-g p (1 - p) ln(-low / high)` to `tau`, summed to its shape.
/// * **Errors**: those of [`hard_concrete`].
/// * **Source**: Louizos, Welling, Kingma, arXiv 1712.01312, equation 12.
/// * **PyTorch**: `torch.sigmoid(logits - tau * math.log(-low / high))`.
///
/// ```
/// use candle_reparam::{Stretch, hard_concrete_l0};
/// use candle_core::{DType, Device, Tensor};
/// let logits = Tensor::zeros(10, DType::F32, &Device::Cpu)?;
/// let open = hard_concrete_l0(&logits, 2.0 / 3.0, Stretch::default())?.sum_all()?;
/// assert!((open.to_scalar::<f32>()? - 8.318).abs() < 1e-3);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_concrete_l0(
    logits: &Tensor,
    tau: impl Into<Temperature>,
    stretch: impl Into<Stretch>,
) -> Result<Tensor> {
    let name = "hard_concrete_l0";
    let threshold = stretch.into().check(name)?.threshold();
    check::tensor(name, "logits", logits)?;
    match tau.into().check_elements(name, logits)? {
        Checked::Fixed(tau) => Elementwise::new(name, cpu::Open(-tau * threshold)).apply([logits]),
        Checked::Rows(tau) => {
            let op = Elementwise::new(name, cpu::OpenLearned(threshold));
            op.apply_broadcast([logits, &tau], logits.shape())
        }
    }
}

/// Applies a gate to noisy logits.
fn gate<G: cpu::Gate>(
    name: &'static str,
    logits: &Tensor,
    tau: impl Into<Temperature>,
    key: impl Into<KeySource>,
    gate: G,
) -> Result<Tensor> {
    let key = key.into();
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    match tau.into().check_elements(name, logits)? {
        Checked::Fixed(tau) => Elementwise::keyed(name, cpu::Fixed(gate, tau), key).apply([logits]),
        Checked::Rows(tau) => {
            let op = Elementwise::keyed(name, cpu::Learned(gate), key);
            op.apply_broadcast([logits, &tau], logits.shape())
        }
    }
}

/// The gradient of the logits of a relaxed gate, or of a hard one, from the gate and its gradient.
pub(crate) fn gradient(
    result: &Tensor,
    grad: &Tensor,
    tau: f64,
    stretch: Option<Stretch>,
) -> Result<Tensor> {
    let name = "gate_gradient";
    match stretch {
        None => {
            let formula = cpu::FixedGradientAt(cpu::Concrete, tau);
            Elementwise::new(name, formula).gradient([result, grad])
        }
        Some(stretch) => {
            let formula = cpu::FixedGradientAt(cpu::Hard(stretch), tau);
            Elementwise::new(name, formula).gradient([result, grad])
        }
    }
}
