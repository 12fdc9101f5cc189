//! The variational autoencoder: an encoder, a latent code drawn with a gradient, a mirrored decoder.

use std::f64::consts::LN_10;
use std::fmt;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{Linear, Module};
use candle_reparam::{Key, Rng, categorical, gaussian, gaussian_kl, normal, tempered_log_softmax};

use crate::data::PIXELS;
use crate::estimators::{Estimator, one_hot};

const HIDDEN: [usize; 2] = [512, 256];
/// Categorical code: 20 variables of 10 classes each.
const VARIABLES: usize = 20;
const CLASSES: usize = 10;
/// Gaussian code: 20 dimensions.
const DIMENSIONS: usize = 20;

/// What stands between encoder and decoder, and all that differs between the two kinds of autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latent {
    Categorical(Estimator),
    Gaussian,
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Categorical(estimator) => write!(f, "categorical latent, {estimator}"),
            Self::Gaussian => f.write_str("Gaussian latent"),
        }
    }
}

impl Latent {
    /// Numbers that the encoder puts out for an image: logits, or means and log-variances.
    fn posterior_width(self) -> usize {
        match self {
            Self::Categorical(_) => VARIABLES * CLASSES,
            Self::Gaussian => 2 * DIMENSIONS,
        }
    }

    /// Numbers that the decoder takes for an image.
    fn code_width(self) -> usize {
        match self {
            Self::Categorical(_) => VARIABLES * CLASSES,
            Self::Gaussian => DIMENSIONS,
        }
    }

    /// A code to train on: (images, code width), with a gradient to the posterior's parameters.
    pub(crate) fn sample(self, posterior: &Tensor, tau: f64, key: Key) -> Result<Tensor> {
        match self {
            Self::Categorical(estimator) => estimator
                .draw(&logits(posterior)?, tau, D::Minus1, key)?
                .flatten_from(1),
            Self::Gaussian => {
                let (mean, log_var) = moments(posterior)?;
                gaussian(&mean, &log_var, key)
            }
        }
    }

    /// A code from the posterior itself, to evaluate on: a categorical one is one-hot, however it was trained.
    pub(crate) fn sample_exact(self, posterior: &Tensor, key: Key) -> Result<Tensor> {
        match self {
            Self::Categorical(_) => one_hot_draw(&logits(posterior)?, key),
            Self::Gaussian => {
                let (mean, log_var) = moments(posterior)?;
                gaussian(&mean, &log_var, key)
            }
        }
    }

    /// `n` codes from the prior: uniform classes, or standard normals.
    pub(crate) fn sample_prior(self, n: usize, device: &Device, key: Key) -> Result<Tensor> {
        match self {
            Self::Categorical(_) => {
                let uniform = Tensor::zeros((n, VARIABLES, CLASSES), DType::F32, device)?;
                one_hot_draw(&uniform, key)
            }
            Self::Gaussian => normal((n, DIMENSIONS), DType::F32, device, key),
        }
    }

    /// KL(posterior || prior) of each image in closed form, in nats: (images,).
    pub(crate) fn kl(self, posterior: &Tensor) -> Result<Tensor> {
        match self {
            Self::Categorical(_) => {
                let log_q = tempered_log_softmax(&logits(posterior)?, 1.0, D::Minus1)?;
                (log_q.exp()? * (log_q + LN_10)?)?.flatten_from(1)?.sum(1)
            }
            Self::Gaussian => {
                let (mean, log_var) = moments(posterior)?;
                gaussian_kl(&mean, &log_var, 1)
            }
        }
    }
}

/// (images, 200) -> (images, 20, 10)
fn logits(posterior: &Tensor) -> Result<Tensor> {
    posterior.reshape(((), VARIABLES, CLASSES))
}

/// (images, 40) -> mean and log-variance, each (images, 20)
fn moments(posterior: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok((
        posterior.narrow(1, 0, DIMENSIONS)?,
        posterior.narrow(1, DIMENSIONS, DIMENSIONS)?,
    ))
}

/// Logits (images, 20, 10) -> code (images, 200)
fn one_hot_draw(logits: &Tensor, key: Key) -> Result<Tensor> {
    one_hot(&categorical(logits, D::Minus1, key)?, logits, D::Minus1)?.flatten_from(1)
}

/// Three linear layers with ReLU between them.
struct Mlp([Linear; 3]);

impl Mlp {
    fn new(widths: [usize; 4], device: &Device, rng: &Rng, vars: &mut Vec<Var>) -> Result<Self> {
        let mut layer = |inputs: usize, outputs: usize, gain: f64| {
            // He et al.: the variance of a ReLU layer's output stays that of its input.
            let weight = normal((outputs, inputs), DType::F32, device, rng.next_key())?;
            let weight = Var::from_tensor(&(weight * (gain / inputs as f64).sqrt())?)?;
            let bias = Var::zeros(outputs, DType::F32, device)?;
            vars.extend([weight.clone(), bias.clone()]);
            Result::Ok(Linear::new(weight.into_inner(), Some(bias.into_inner())))
        };
        let [a, b, c, d] = widths;
        Ok(Self([
            layer(a, b, 2.0)?,
            layer(b, c, 2.0)?,
            layer(c, d, 1.0)?,
        ]))
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second, last] = &self.0;
        last.forward(&second.forward(&first.forward(x)?.relu()?)?.relu()?)
    }
}

pub(crate) struct Vae {
    pub(crate) latent: Latent,
    encoder: Mlp,
    decoder: Mlp,
    vars: Vec<Var>,
}

impl Vae {
    /// Initial weights come from the keys of `rng`, so that a seed fixes them on any device.
    pub(crate) fn new(latent: Latent, device: &Device, rng: &Rng) -> Result<Self> {
        let [wide, narrow] = HIDDEN;
        let mut vars = Vec::new();
        let encoder = Mlp::new(
            [PIXELS, wide, narrow, latent.posterior_width()],
            device,
            rng,
            &mut vars,
        )?;
        let decoder = Mlp::new(
            [latent.code_width(), narrow, wide, PIXELS],
            device,
            rng,
            &mut vars,
        )?;
        Ok(Self {
            latent,
            encoder,
            decoder,
            vars,
        })
    }

    pub(crate) fn vars(&self) -> Vec<Var> {
        self.vars.clone()
    }

    /// Binary images (images, 784) -> the parameters of their posteriors.
    pub(crate) fn encode(&self, images: &Tensor) -> Result<Tensor> {
        self.encoder.forward(images)
    }

    /// Codes -> a Bernoulli logit for each pixel: (images, 784).
    pub(crate) fn decode(&self, code: &Tensor) -> Result<Tensor> {
        self.decoder.forward(code)
    }
}

/// -log p(image | logits) of each binary image under independent Bernoulli pixels, in nats: (images,).
///
/// softplus(l) - x l, with softplus split at 0, so that neither a large nor a small logit overflows.
pub(crate) fn bernoulli_nll(logits: &Tensor, images: &Tensor) -> Result<Tensor> {
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    (softplus - (logits * images)?)?.sum(1)
}
