//! The methods that are compared: the exact gradient, and the estimators that see a draw.

use std::fmt;

use crate::estimators::Estimator;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Exact,
    Sampled(Estimator),
}

impl Method {
    pub(crate) const ALL: [Self; 5] = [
        Self::Exact,
        Self::Sampled(Estimator::StraightThrough),
        Self::Sampled(Estimator::StGumbel),
        Self::Sampled(Estimator::GumbelRao),
        Self::Sampled(Estimator::ReinMax),
    ];

    /// The figure of the published experiment, where it has one for the exponent.
    pub(crate) fn published(self, power: f64) -> Option<f64> {
        let at = [1.5, 2.0, 3.0].iter().position(|p| *p == power)?;
        let figures = match self {
            Self::Exact => [0.30207, 0.20269, 0.09127],
            Self::Sampled(Estimator::StraightThrough) => [0.35224, 0.24751, 0.12131],
            Self::Sampled(Estimator::StGumbel) => [0.35135, 0.24584, 0.11887],
            Self::Sampled(Estimator::ReinMax) => [0.30540, 0.20376, 0.09155],
            Self::Sampled(_) => return None,
        };
        Some(figures[at])
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.pad("exact"),
            Self::Sampled(estimator) => estimator.fmt(f),
        }
    }
}
