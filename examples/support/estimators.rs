//! The estimators of the gradient of a draw that the examples compare.

use std::fmt;

use candle_core::shape::Dim;
use candle_core::{Result, Tensor};
use candle_reparam::{
    Key, decoupled_st, gumbel_max, gumbel_rao, gumbel_softmax, gumbel_softmax_st, reinmax,
    tempered_softmax,
};

/// Conditional samples of Gumbel-Rao.
const SAMPLES: usize = 10;

/// How the gradient passes a categorical draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Estimator {
    /// The network sees a point inside the simplex: Gumbel-softmax (Jang et al., Maddison et al. 2017)
    Relaxed,
    /// A one-hot draw, the gradient is that of the probabilities (Bengio et al. 2013)
    StraightThrough,
    /// A one-hot draw, the gradient is that of the relaxed sample at its noise (Jang et al. 2017)
    StGumbel,
    /// The same averaged over 10 noises that would have drawn the same class (Paulus et al. 2021)
    GumbelRao,
    /// A one-hot draw, the gradient is relaxed at a temperature of its own, here 2 throughout (Shah et al. 2024)
    Decoupled,
    /// A one-hot draw with a second-order gradient, whose temperature is at least 1 (Liu et al. 2023)
    #[value(name = "reinmax")]
    ReinMax,
}

impl Estimator {
    pub(crate) const ALL: [Self; 6] = [
        Self::Relaxed,
        Self::StraightThrough,
        Self::StGumbel,
        Self::GumbelRao,
        Self::Decoupled,
        Self::ReinMax,
    ];

    /// A sample over `dim` with the estimator's gradient: one-hot but for the relaxed one.
    pub(crate) fn draw(self, logits: &Tensor, tau: f64, dim: impl Dim, key: Key) -> Result<Tensor> {
        let dim = dim.to_index(logits.shape(), "draw")?;
        match self {
            Self::Relaxed => gumbel_softmax(logits, tau, dim, key),
            Self::StraightThrough => {
                let probs = tempered_softmax(logits, 1.0, dim)?;
                let one_hot = one_hot(&gumbel_max(logits, dim, key)?, logits, dim)?;
                &probs + (one_hot - &probs)?.detach()
            }
            Self::StGumbel => gumbel_softmax_st(logits, tau, dim, key),
            Self::GumbelRao => gumbel_rao(logits, tau, SAMPLES, dim, key),
            Self::Decoupled => decoupled_st(logits, 1.0, 2.0, dim, key),
            Self::ReinMax => reinmax(logits, tau.max(1.0), dim, key),
        }
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the width that the caller asks for.
        f.pad(match self {
            Self::Relaxed => "Gumbel-softmax",
            Self::StraightThrough => "straight-through",
            Self::StGumbel => "ST Gumbel",
            Self::GumbelRao => "Gumbel-Rao",
            Self::Decoupled => "decoupled ST",
            Self::ReinMax => "ReinMax",
        })
    }
}

/// Classes as one-hots over `dim`, of the shape and dtype of `like`.
pub(crate) fn one_hot(classes: &Tensor, like: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let dim = dim.to_index(like.shape(), "one_hot")?;
    let mut shape = vec![1; like.rank()];
    shape[dim] = like.dim(dim)?;
    let all = Tensor::arange(0, shape[dim] as u32, like.device())?.reshape(shape)?;
    classes
        .unsqueeze(dim)?
        .broadcast_eq(&all)?
        .to_dtype(like.dtype())
}
