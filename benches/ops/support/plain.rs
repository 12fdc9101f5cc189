//! What a user writes in plain candle: the baselines, and (given the noise) the references that results are checked by.

use candle_core::{D, Result, Tensor};
use candle_nn::ops;

/// Standard Gumbel noise of the shape and dtype of `like`, negated.
fn minus_gumbel_like(like: &Tensor) -> Result<Tensor> {
    like.rand_like(0., 1.)?.log()?.neg()?.log()
}

pub fn gumbel_like(like: &Tensor) -> Result<Tensor> {
    minus_gumbel_like(like)?.neg()
}

pub fn tempered_softmax(logits: &Tensor, tau: f64) -> Result<Tensor> {
    ops::softmax(&(logits / tau)?, D::Minus1)
}

pub fn tempered_log_softmax(logits: &Tensor, tau: f64) -> Result<Tensor> {
    ops::log_softmax(&(logits / tau)?, D::Minus1)
}

pub fn gumbel_softmax(logits: &Tensor, tau: f64) -> Result<Tensor> {
    tempered_softmax(&(logits - minus_gumbel_like(logits)?)?, tau)
}

/// The straight-through trick: one-hot forward, the relaxed sample's gradient.
pub fn gumbel_softmax_st(logits: &Tensor, tau: f64) -> Result<Tensor> {
    let soft = gumbel_softmax(logits, tau)?;
    let index = soft.argmax_keepdim(D::Minus1)?;
    let ones = index.ones_like()?.to_dtype(soft.dtype())?;
    let hard = soft.zeros_like()?.scatter_add(&index, &ones, D::Minus1)?;
    (hard - soft.detach())? + soft
}

/// candle's own sampler, an arg-max without a gradient.
pub fn sampler(logits: &Tensor) -> Result<Tensor> {
    candle_nn::sampling::gumbel_softmax(logits, 1., D::Minus1)
}

pub fn gaussian(mean: &Tensor, log_var: &Tensor) -> Result<Tensor> {
    gaussian_with(mean, log_var, &log_var.randn_like(0., 1.)?)
}

pub fn gaussian_with(mean: &Tensor, log_var: &Tensor, noise: &Tensor) -> Result<Tensor> {
    mean + ((log_var / 2.)?.exp()? * noise)?
}

pub fn gaussian_kl(mean: &Tensor, log_var: &Tensor) -> Result<Tensor> {
    let per_element = ((mean.sqr()? + log_var.exp()?)? - log_var)?;
    ((per_element - 1.)? * 0.5)?.sum(D::Minus1)
}
