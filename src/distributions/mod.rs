//! Probability distributions over tensors, in the manner of `torch.distributions`: batches of parameters, samples from
//! keys, log-densities that stay finite, and gradients in closed form.
//!
//! | distribution | of | samples | [`rsample`](Reparameterized::rsample) |
//! |---|---|---|---|
//! | [`Normal`] | numbers | [`normal`](crate::normal) noise | to location and scale, or log-variance |
//! | [`Gumbel`], [`Logistic`] | numbers | Gumbel or logistic noise | to location and scale |
//! | [`Bernoulli`] | 0 or 1 | [`logistic`](crate::logistic) noise | - |
//! | [`Categorical`] | a class's index | [`categorical`](crate::categorical) | - |
//! | [`OneHotCategorical`] | a class's one-hot | [`gumbel_softmax_st`](crate::gumbel_softmax_st) | [straight-through](OneHotCategorical::straight_through) |
//! | [`RelaxedOneHotCategorical`] | the simplex | [`gumbel_softmax`](crate::gumbel_softmax) | to logits and temperature |
//! | [`ExpRelaxedOneHotCategorical`] | its logarithm | `tempered_log_softmax` | to logits and temperature |
//! | [`RelaxedBernoulli`] | (0, 1) | logistic noise | to logits and temperature |
//! | [`LogitRelaxedBernoulli`] | its logit | logistic noise | to logits and temperature |
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use candle_reparam::Rng;
//! use candle_reparam::distributions::{Distribution, KlDivergence, Normal, Reparameterized};
//!
//! let rng = Rng::new(42);
//! let (mean, log_var) = (Var::zeros(20, DType::F32, &Device::Cpu)?, Var::zeros(20, DType::F32, &Device::Cpu)?);
//! let posterior = Normal::from_log_var(&mean, &log_var)?;
//! let z = posterior.rsample_n(64, rng.next_key())?; // (64, 20)
//! let prior = Normal::standard(20, DType::F32, &Device::Cpu)?;
//! let single_sample = (posterior.log_prob(&z)? - prior.log_prob(&z)?)?.sum(1)?.mean(0)?;
//! let exact = posterior.kl_divergence(&prior)?.sum_all()?;
//! let loss = (single_sample + exact)?;
//! assert!(loss.backward()?.get(&log_var).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Shapes
//!
//! As in `torch.distributions`: parameters broadcast to the *batch shape*; a single draw has the batch shape and then the
//! *event shape*, which is empty for distributions of numbers and the classes' dim for those of one-hots. A sample of
//! shape `S` has the shape `S + batch + event`. `log_prob` takes any value that ends in the event shape and whose other
//! dims broadcast with the batch; it returns those, without the event's.
//!
//! # Dtypes
//!
//! Parameters of f32, f64, f16 and bf16; samples and densities in the same dtype, computed in f32 for the halves, and
//! rounded once. Indices are u32.
//!
//! # Gradients
//!
//! Of `log_prob` to the value and to every parameter, of `entropy` and of `kl_divergence` to the parameters, all in
//! closed form: a class of probability 0 has gradient 0, where differentiating the composed expression would give NaN.
//! [`Distribution::sample`] tracks none; [`Reparameterized::rsample`] is the sample through which a gradient passes.
//!
//! # Checks
//!
//! Shapes, dtypes and devices always; values as [`Validation`] says.

mod bernoulli;
mod categorical;
mod formula;
mod frame;
mod gumbel;
mod logistic;
mod normal;
mod one_hot;
mod relaxed_bernoulli;
mod relaxed_one_hot;

pub use bernoulli::Bernoulli;
pub use categorical::Categorical;
pub(crate) use categorical::{likeliest, likeliest_one_hot};
pub use frame::Validation;
pub use gumbel::Gumbel;
pub use logistic::Logistic;
pub use normal::Normal;
pub use one_hot::OneHotCategorical;
pub use relaxed_bernoulli::{LogitRelaxedBernoulli, RelaxedBernoulli};
pub use relaxed_one_hot::{ExpRelaxedOneHotCategorical, RelaxedOneHotCategorical};

use crate::KeySource;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// A distribution over tensors: what `torch.distributions.Distribution` is.
///
/// The trait can be made into an object, which has [`draw`](Self::draw) for a sample:
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Bernoulli, Distribution, Normal};
/// let zero = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu)?;
/// let heads: [Box<dyn Distribution>; 2] =
///     [Box::new(Normal::new(&zero, &zero.exp()?)?), Box::new(Bernoulli::from_logits(&zero)?)];
/// for head in &heads {
///     let x = head.draw(&[5], Key::new(42, 0).into())?;
///     assert_eq!(head.log_prob(&x)?.dims(), [5, 3]);
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
pub trait Distribution {
    /// The distribution's name, as errors give it.
    fn name(&self) -> &'static str;

    /// The shape that the parameters broadcast to: one distribution for each of its elements.
    fn batch_shape(&self) -> &[usize];

    /// The shape of a single draw from one of them.
    fn event_shape(&self) -> &[usize];

    /// The dtype of the parameters.
    fn dtype(&self) -> DType;

    /// The device of the parameters.
    fn device(&self) -> &Device;

    /// A sample of the given shape, batch and event shape behind it, without gradient: [`sample_n`](Self::sample_n) for
    /// objects.
    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor>;

    /// The log-density at `value`, or for a discrete distribution the log-probability, with gradients to the parameters
    /// and, where it is a number, to the value.
    fn log_prob(&self, value: &Tensor) -> Result<Tensor>;

    /// The differential entropy, or for a discrete distribution the entropy, in nats; an error where there is no closed
    /// form.
    fn entropy(&self) -> Result<Tensor> {
        bail!("{}: entropy has no closed form", self.name())
    }

    /// The mean; an error where there is none, or no closed form.
    fn mean(&self) -> Result<Tensor> {
        bail!("{}: mean has no closed form", self.name())
    }

    /// The variance; an error where there is none, or no closed form.
    fn variance(&self) -> Result<Tensor> {
        bail!("{}: variance has no closed form", self.name())
    }

    /// The likeliest value, without gradient for a discrete distribution; an error where there is no closed form.
    fn mode(&self) -> Result<Tensor> {
        bail!("{}: mode has no closed form", self.name())
    }

    /// The same distribution with its batch broadcast to another shape; no memory is copied.
    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self>
    where
        Self: Sized;

    /// The same distribution with other checks; [`Validation::Always`] checks the parameters at once.
    fn with_validation(self, validation: Validation) -> Result<Self>
    where
        Self: Sized;

    /// One draw from each distribution of the batch, without gradient.
    fn sample(&self, key: impl Into<KeySource>) -> Result<Tensor>
    where
        Self: Sized,
    {
        self.draw(&[], key.into())
    }

    /// Draws of the given shape from each distribution of the batch, without gradient: the shape
    /// `sample_shape + batch + event`. The noise is that of the whole shape under the key.
    fn sample_n(&self, sample_shape: impl Into<Shape>, key: impl Into<KeySource>) -> Result<Tensor>
    where
        Self: Sized,
    {
        self.draw(sample_shape.into().dims(), key.into())
    }
}

/// A distribution whose samples are differentiable functions of its parameters.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Logistic, Reparameterized};
/// let loc = Var::zeros(3, DType::F32, &Device::Cpu)?;
/// let x = Logistic::new(&loc, &loc.ones_like()?)?.rsample(Key::new(42, 0))?;
/// assert_eq!(x.sum_all()?.backward()?.get(&loc).unwrap().to_vec1::<f32>()?, [1.0; 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub trait Reparameterized: Distribution {
    /// [`Distribution::draw`] with gradients to the parameters: the same numbers under the same key.
    fn reparameterize(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor>;

    /// [`Distribution::sample`] with gradients to the parameters.
    fn rsample(&self, key: impl Into<KeySource>) -> Result<Tensor>
    where
        Self: Sized,
    {
        self.reparameterize(&[], key.into())
    }

    /// [`Distribution::sample_n`] with gradients to the parameters.
    fn rsample_n(&self, sample_shape: impl Into<Shape>, key: impl Into<KeySource>) -> Result<Tensor>
    where
        Self: Sized,
    {
        self.reparameterize(sample_shape.into().dims(), key.into())
    }
}

/// Distributions between which the Kullback-Leibler divergence has a closed form.
pub trait KlDivergence<Other = Self>: Distribution {
    /// `KL(self || other)` in nats, over the batch that the two broadcast to, with gradients to the parameters of both.
    /// At least 0 (up to rounding, for [`Gumbel`]); +inf, with gradient 0, where `self` puts mass on what is impossible under
    /// `other`.
    fn kl_divergence(&self, other: &Other) -> Result<Tensor>;
}

/// The accessors of a distribution with a frame.
macro_rules! framed {
    () => {
        fn name(&self) -> &'static str {
            self.frame.name
        }

        fn batch_shape(&self) -> &[usize] {
            &self.frame.batch
        }

        fn event_shape(&self) -> &[usize] {
            &self.frame.event
        }

        fn dtype(&self) -> candle_core::DType {
            self.frame.dtype
        }

        fn device(&self) -> &candle_core::Device {
            &self.frame.device
        }

        fn with_validation(mut self, validation: crate::distributions::Validation) -> Result<Self> {
            self.frame.validation = validation;
            if validation == crate::distributions::Validation::Always {
                self.check()?;
            }
            Ok(self)
        }
    };
}
use framed;
