//! Differentiable sampling for candle.
#![deny(missing_docs)]

mod backward;
#[doc(hidden)]
pub mod bits;
mod categorical;
mod check;
mod element;
mod gaussian;
mod gumbel_max;
mod gumbel_softmax;
mod math;
mod noise;
mod op;
mod output;
mod rng;
mod rowwise;
mod simd;
mod temperature;
mod tempered_softmax;

pub use candle_core;
pub use categorical::categorical;
pub use gaussian::{gaussian, gaussian_kl};
pub use gumbel_max::gumbel_max;
pub use gumbel_softmax::{gumbel_softmax, gumbel_softmax_st};
pub use noise::{gumbel, normal, uniform};
pub use rng::{Key, Philox4x32, Rng};
pub use temperature::Temperature;
pub use tempered_softmax::{tempered_log_softmax, tempered_softmax};

/// The instruction set that the CPU kernels run on: `"avx512"`, `"avx2+fma"` or `"portable"`, the best that this machine
/// has. Results do not depend on it.
///
/// ```
/// assert!(["avx512", "avx2+fma", "portable"].contains(&candle_reparam::simd_level()));
/// ```
#[must_use]
pub fn simd_level() -> &'static str {
    simd::level().name()
}
