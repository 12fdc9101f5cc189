//! A layer that ends in a diagonal Gaussian.

use super::as_rows;
use crate::distributions::Normal;
use crate::{KeySource, Rng, gaussian, gaussian_kl};
use candle_core::{D, Result, Tensor, bail};
use candle_nn::{Linear, Module, ModuleT, VarBuilder};

/// Two linear layers, to mean and log-variance of a diagonal Gaussian: the end of a VAE's encoder, or a stochastic
/// policy.
///
/// * **Weights**: `mean.weight`, `mean.bias`, `log_var.weight`, `log_var.bias`, with `candle_nn::linear`'s initial
///   values.
/// * **Shapes**: input `(.., input_dim)`, mean, log-variance and sample `(.., output_dim)`.
/// * **Training** (`forward_t` with `train`): a sample under the next key of its [`Rng`], through [`gaussian`].
/// * **Evaluation** (`forward_t` without): the mean.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{ModuleT, VarBuilder, VarMap};
/// use candle_reparam::Rng;
/// use candle_reparam::modules::GaussianHead;
/// let (vars, rng) = (VarMap::new(), Rng::new(42));
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let head = GaussianHead::new(32, 8, vb, rng.clone())?;
/// let hidden = Tensor::zeros((64, 32), DType::F32, &Device::Cpu)?;
/// let parameters = head.parameters(&hidden)?;
/// let z = parameters.sample(rng.next_key())?; // (64, 8)
/// let loss = (z.sqr()?.sum_all()? + parameters.kl()?.sum_all()?)?;
/// loss.backward()?;
/// let mean = head.forward_t(&hidden, false)?;
/// assert_eq!(mean.to_vec2::<f32>()?, parameters.mean().to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GaussianHead {
    mean: Linear,
    log_var: Linear,
    input_dim: usize,
    rng: Rng,
}

impl GaussianHead {
    /// From the sizes of input and output, the weights, and the source of keys for `forward_t`.
    ///
    /// Errors: a size of 0; weights that are missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use candle_reparam::{Rng, modules::GaussianHead};
    /// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// assert!(GaussianHead::new(32, 8, vb.clone(), Rng::new(42)).is_ok());
    /// assert!(GaussianHead::new(0, 8, vb, Rng::new(42)).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(input_dim: usize, output_dim: usize, vb: VarBuilder, rng: Rng) -> Result<Self> {
        for (what, size) in [("input_dim", input_dim), ("output_dim", output_dim)] {
            if size == 0 {
                bail!("GaussianHead: {what} is 0, expected at least 1")
            }
        }
        Ok(Self {
            mean: candle_nn::linear(input_dim, output_dim, vb.pp("mean"))?,
            log_var: candle_nn::linear(input_dim, output_dim, vb.pp("log_var"))?,
            input_dim,
            rng,
        })
    }

    /// Mean and log-variance of an input.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::VarBuilder;
    /// use candle_reparam::{Rng, modules::GaussianHead};
    /// let head = GaussianHead::new(32, 8, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((2, 5, 32), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.mean().dims(), [2, 5, 8]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn parameters(&self, xs: &Tensor) -> Result<GaussianParameters> {
        let (rows, mut dims) = as_rows("GaussianHead", xs, self.input_dim)?;
        dims.push(self.mean.weight().dim(0)?);
        Ok(GaussianParameters {
            mean: self.mean.forward(&rows)?.reshape(&dims[..])?,
            log_var: self.log_var.forward(&rows)?.reshape(&dims[..])?,
        })
    }
}

impl ModuleT for GaussianHead {
    /// In training a sample under the next key, else the mean.
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            self.parameters(xs)?.sample(self.rng.next_key())
        } else {
            Ok(self.parameters(xs)?.mean)
        }
    }
}

/// Mean and log-variance, as [`GaussianHead`] gives them.
#[derive(Clone, Debug)]
pub struct GaussianParameters {
    mean: Tensor,
    log_var: Tensor,
}

impl GaussianParameters {
    /// The mean of each dimension.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::GaussianHead};
    /// # let head = GaussianHead::new(2, 3, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((1, 2), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.mean().to_vec2::<f32>()?, [[0.0; 3]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// The log-variance.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::GaussianHead};
    /// # let head = GaussianHead::new(2, 3, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((1, 2), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.log_var().to_vec2::<f32>()?, [[0.0; 3]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn log_var(&self) -> &Tensor {
        &self.log_var
    }

    /// A sample, differentiable in both: [`gaussian`].
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Key, Rng, modules::GaussianHead};
    /// # let head = GaussianHead::new(2, 3, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((1, 2), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.sample(Key::new(42, 0))?.dims(), [1, 3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn sample(&self, key: impl Into<KeySource>) -> Result<Tensor> {
        gaussian(&self.mean, &self.log_var, key)
    }

    /// The divergence from `N(0, 1)`, summed over the last dim: [`gaussian_kl`].
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::GaussianHead};
    /// # let head = GaussianHead::new(2, 3, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((5, 2), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.kl()?.to_vec1::<f32>()?, [0.0; 5]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn kl(&self) -> Result<Tensor> {
        gaussian_kl(&self.mean, &self.log_var, D::Minus1)
    }

    /// The distribution, for log-densities, entropy, and divergences from other priors.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, distributions::Distribution, modules::GaussianHead};
    /// # let head = GaussianHead::new(2, 3, VarBuilder::zeros(DType::F32, &Device::Cpu), Rng::new(42))?;
    /// let parameters = head.parameters(&Tensor::ones((5, 2), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(parameters.distribution()?.batch_shape(), [5, 3]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn distribution(&self) -> Result<Normal> {
        Normal::from_log_var(&self.mean, &self.log_var)
    }
}
