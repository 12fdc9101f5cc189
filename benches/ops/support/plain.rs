//! What a user writes in plain candle: the baselines, and (given the noise) the references that results are checked by.

use candle_core::{D, Result, Tensor};
use candle_nn::ops;

/// candle draws no 16-bit noise on CUDA: a user draws it in f32 there, and converts it.
fn draws_in_f32(like: &Tensor) -> bool {
    like.device().is_cuda() && like.dtype().size_in_bytes() == 2
}

fn wide_uniform_like(like: &Tensor) -> Result<Tensor> {
    if draws_in_f32(like) {
        return Tensor::rand(0f32, 1f32, like.shape(), like.device());
    }
    like.rand_like(0., 1.)
}

pub fn uniform_like(like: &Tensor) -> Result<Tensor> {
    wide_uniform_like(like)?.to_dtype(like.dtype())
}

pub fn normal_like(like: &Tensor) -> Result<Tensor> {
    if draws_in_f32(like) {
        return Tensor::randn(0f32, 1f32, like.shape(), like.device())?.to_dtype(like.dtype());
    }
    like.randn_like(0., 1.)
}

/// Standard Gumbel noise of the shape and dtype of `like`, negated.
fn minus_gumbel_like(like: &Tensor) -> Result<Tensor> {
    let noise = wide_uniform_like(like)?.log()?.neg()?.log()?;
    noise.to_dtype(like.dtype())
}

/// Standard exponential noise.
pub fn exponential_like(like: &Tensor) -> Result<Tensor> {
    let noise = wide_uniform_like(like)?.log()?.neg()?;
    noise.to_dtype(like.dtype())
}

/// Standard logistic noise.
pub fn logistic_like(like: &Tensor) -> Result<Tensor> {
    let v = wide_uniform_like(like)?;
    let noise = (v.log()? - v.affine(-1., 1.)?.log()?)?;
    noise.to_dtype(like.dtype())
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

/// The gradient of a softmax's logits, from its result and the gradient of that.
pub fn softmax_gradient(y: &Tensor, g: &Tensor, tau: f64) -> Result<Tensor> {
    let g = g.broadcast_sub(&(y * g)?.sum_keepdim(D::Minus1)?)?;
    (y * g)? / tau
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
    gaussian_with(mean, log_var, &normal_like(log_var)?)
}

pub fn gaussian_with(mean: &Tensor, log_var: &Tensor, noise: &Tensor) -> Result<Tensor> {
    mean + ((log_var / 2.)?.exp()? * noise)?
}

pub fn gaussian_kl(mean: &Tensor, log_var: &Tensor) -> Result<Tensor> {
    let per_element = ((mean.sqr()? + log_var.exp()?)? - log_var)?;
    ((per_element - 1.)? * 0.5)?.sum(D::Minus1)
}

/// Without a mask or with one, a row's largest entry is finite where the row is proper.
pub fn improper_rows(logits: &Tensor) -> Result<Tensor> {
    logits.max(D::Minus1)?.abs()?.ge(f32::INFINITY)
}
