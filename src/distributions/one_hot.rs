//! A class for each element of the batch, as a one-hot.

use super::categorical::{Classes, likeliest_one_hot};
use super::formula::with_gradient;
use super::frame::{Frame, Rule, over};
use super::{Distribution, KlDivergence, framed};
use crate::{KeySource, Temperature, gumbel_softmax_st};
use candle_core::{D, Result, Shape, Tensor};

const ONE_OR_ZERO: Rule = ("0 or 1", |x| x == 0.0 || x == 1.0);

/// A class from `softmax(logits)`, as a one-hot over the last dim.
///
/// * **Shapes**: logits `(batch.., K)`; the event shape is `(K)`.
/// * **log_prob**: `log_softmax(logits)` at the hot entry, with gradients to the logits and to the value (each class's
///   log-probability, that of a mask 0).
/// * **sample**: the forward value of [`gumbel_softmax_st`]; [`straight_through`](Self::straight_through) has its
///   gradient as well.
/// * **Masks**: as in [`Categorical`](super::Categorical).
/// * **PyTorch**: `torch.distributions.OneHotCategorical`; `straight_through` is to
///   `OneHotCategoricalStraightThrough` what straight-through Gumbel-softmax is to the plain straight-through estimator.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Distribution, OneHotCategorical};
/// let logits = Var::zeros((2, 4), DType::F32, &Device::Cpu)?;
/// let classes = OneHotCategorical::from_logits(&logits)?;
/// let x = classes.sample_n(3, Key::new(42, 0))?; // (3, 2, 4)
/// assert_eq!(classes.log_prob(&x)?.to_vec2::<f32>()?, [[-4f32.ln(); 2]; 3]);
/// let y = classes.straight_through(3, 0.5, Key::new(42, 0))?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, x.flatten_all()?.to_vec1::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OneHotCategorical {
    frame: Frame,
    classes: Classes,
}

impl OneHotCategorical {
    /// From logits, as [`Categorical::from_logits`](super::Categorical::from_logits).
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, OneHotCategorical};
    /// let classes = OneHotCategorical::from_logits(&Tensor::zeros((64, 10), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!((classes.batch_shape(), classes.event_shape()), (&[64][..], &[10][..]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_logits(logits: &Tensor) -> Result<Self> {
        let (frame, classes) = Classes::from_logits("OneHotCategorical", logits)?;
        Ok(Self { frame, classes })
    }

    /// From probabilities, as [`Categorical::from_probs`](super::Categorical::from_probs).
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::{Distribution, OneHotCategorical};
    /// let classes = OneHotCategorical::from_probs(&Tensor::new(&[1f64, 0., 3.], &Device::Cpu)?)?;
    /// assert_eq!(classes.mean()?.to_vec1::<f64>()?, [0.25, 0.0, 0.75]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_probs(probs: &Tensor) -> Result<Self> {
        let (frame, classes) = Classes::from_probs("OneHotCategorical", probs)?;
        Ok(Self { frame, classes })
    }

    /// The probabilities, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::OneHotCategorical;
    /// let classes = OneHotCategorical::from_logits(&Tensor::new(&[0f32, 3f32.ln()], &Device::Cpu)?)?;
    /// assert_eq!(classes.probs()?.to_vec1::<f32>()?, [0.25, 0.75]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn probs(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.probs()?)
    }

    /// The log-probabilities, normalised, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::OneHotCategorical;
    /// let classes = OneHotCategorical::from_logits(&Tensor::new(&[7f32, 7.], &Device::Cpu)?)?;
    /// assert_eq!(classes.log_probs()?.to_vec1::<f32>()?, [-2f32.ln(); 2]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn log_probs(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.log_probs()?)
    }

    /// The sample of [`sample_n`](Distribution::sample_n) under the same key, with the gradient of the relaxed sample at
    /// temperature `tau`: [`gumbel_softmax_st`]. A biased gradient, and so not an `rsample`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Var};
    /// use candle_reparam::Key;
    /// use candle_reparam::distributions::OneHotCategorical;
    /// let logits = Var::zeros((2, 4), DType::F32, &Device::Cpu)?;
    /// let y = OneHotCategorical::from_logits(&logits)?.straight_through((), 0.5, Key::new(42, 0))?;
    /// assert!(y.sqr()?.sum_all()?.backward()?.get(&logits).is_some());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn straight_through(
        &self,
        sample_shape: impl Into<Shape>,
        tau: impl Into<Temperature>,
        key: impl Into<KeySource>,
    ) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape.into().dims())?;
        let logits = over(&self.classes.logits, &dims)?;
        let one_hot = gumbel_softmax_st(&logits, tau.into(), D::Minus1, key)?;
        self.frame.rounded(&one_hot)
    }

    fn check(&self) -> Result<()> {
        self.classes.check(&self.frame)
    }
}

impl Distribution for OneHotCategorical {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let dims = self.frame.sample_dims(sample_shape)?;
        let logits = over(&self.classes.logits.detach(), &dims)?;
        self.frame
            .rounded(&gumbel_softmax_st(&logits, 1.0, D::Minus1, key)?)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (x, dims) = self.frame.value(value, ONE_OR_ZERO)?;
        let sums = || x.detach().sum(D::Minus1);
        let one = ("1, the one hot entry", |sum| sum == 1.0);
        self.frame.require_rows("the value", sums, one)?;
        let last = dims.len() - 1;
        let log_probs = over(&self.classes.log_probs()?, &dims)?;
        let (x_, l) = (x.detach(), log_probs.detach());
        let zero = x_.zeros_like()?;
        // An entry that is not hot adds nothing, be its class impossible.
        let cold = x_.eq(&zero)?;
        let value = cold.where_cond(&zero, &x_.mul(&l)?)?.sum(last)?;
        let density = with_gradient(
            "OneHotCategorical::log_prob",
            &[&x, &log_probs],
            value,
            move |argument, grad| {
                let grad = grad.unsqueeze(last)?;
                match argument {
                    0 => {
                        let masked = l.eq(&super::formula::full(&l, f64::NEG_INFINITY)?)?;
                        masked.where_cond(&zero, &l)?.broadcast_mul(&grad)
                    }
                    _ => x_.broadcast_mul(&grad),
                }
            },
        )?;
        self.frame.rounded(&density)
    }

    fn entropy(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.entropy()?)
    }

    fn mean(&self) -> Result<Tensor> {
        self.probs()
    }

    fn variance(&self) -> Result<Tensor> {
        let p = self.classes.probs()?;
        self.frame.rounded(&p.mul(&p.affine(-1.0, 1.0)?)?)
    }

    /// The one-hot of the likeliest class; where several tie, of one of them.
    fn mode(&self) -> Result<Tensor> {
        likeliest_one_hot(&self.classes.logits)?.to_dtype(self.frame.dtype)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let frame = self.frame.expanded(batch_shape.into().dims())?;
        let classes = self.classes.expanded(&frame.batch)?;
        Ok(Self { frame, classes })
    }
}

impl KlDivergence for OneHotCategorical {
    fn kl_divergence(&self, other: &Self) -> Result<Tensor> {
        self.frame.common(&other.frame)?;
        let divergence = self
            .classes
            .divergence("OneHotCategorical", &other.classes)?;
        self.frame.rounded(&divergence)
    }
}
