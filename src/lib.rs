//! Differentiable sampling for [candle](candle_core): the operations of deep learning that have no derivative, each with
//! the gradient that lets a model train through it, fused, and repeatable from a key.
//!
//! | operation | function | gradient |
//! |---|---|---|
//! | a sample of a Gaussian | [`gaussian`] | reparameterization trick, to mean and log-variance |
//! | its divergence from the prior | [`gaussian_kl`] | exact, to mean and log-variance |
//! | a relaxed sample of a class | [`gumbel_softmax`] | to logits and temperature |
//! | a one-hot sample of a class | [`gumbel_softmax_st`] | straight-through, that of the relaxed sample |
//! | the same, with less bias | [`reinmax`] | of the second order |
//! | the same, with less variance | [`gumbel_rao`] | averaged over the noise, given the class |
//! | the same, with a temperature for each direction | [`decoupled_st`] | straight-through |
//! | the indices of `k` classes drawn without replacement | [`gumbel_top_k`] | none |
//! | a relaxed k-hot of such a sample | [`relaxed_top_k`] | to logits and temperature |
//! | the k-hot itself | [`gumbel_top_k_st`] | straight-through, that of the relaxed k-hot |
//! | the index of a sampled class | [`gumbel_max`], [`categorical`] | none |
//! | a relaxed 0 or 1 | [`binary_concrete`] | to logits and temperature |
//! | a sampled 0 or 1 | [`binary_concrete_st`] | straight-through, that of the relaxed sample |
//! | a gate that can be shut, and how often it is open | [`hard_concrete`], [`hard_concrete_l0`] | to logits and temperature |
//! | a softmax with a temperature | [`tempered_softmax`], [`tempered_log_softmax`] | to logits and temperature |
//! | a relaxed sample of a permutation | [`gumbel_sinkhorn`], [`sinkhorn`] without noise | to scores and temperature |
//! | a sampled permutation | [`gumbel_sinkhorn_st`], [`sinkhorn_st`] without noise | straight-through, that of the relaxed sample |
//! | rows with nothing to draw | [`improper_rows`] | none |
//! | functions with kinks | [`subgradient`]: `relu`, `abs`, `clamp`, `max` and more | the subgradient of your choice at each kink |
//! | rounding, thresholds, arg-maxima | [`straight_through`]: `round`, `sign`, `quantize`, `one_hot` and more | straight-through |
//! | noise | [`uniform`], [`gumbel`], [`exponential`], [`logistic`], [`normal`] | none |
//!
//! Composed of these: [`distributions`] in the manner of `torch.distributions`, [`schedules`] for temperatures, and
//! [`modules`], layers that sample.
//!
//! ```
//! use candle_core::{D, DType, Device, Var};
//! use candle_reparam::{Rng, gumbel_softmax};
//!
//! let rng = Rng::new(42); // every draw is a function of the seed, on the CPU too
//! let logits = Var::zeros((64, 10), DType::F32, &Device::Cpu)?;
//! let y = gumbel_softmax(&logits, 0.5, D::Minus1, rng.next_key())?;
//! let grads = y.sqr()?.sum_all()?.backward()?;
//! assert!(grads.get(&logits).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Keys
//!
//! Every stochastic function takes a [`Key`] by value and holds no state: the same key, shape and input give the same
//! result, whatever the number of threads, the instruction set or the memory layout. An [`Rng`] hands keys out. A released
//! stream does not change within a minor version of the crate; the tests hold literal samples of every op to it.
//!
//! A [`DeviceKey`] lies in the memory of a device instead, and is read there when a kernel runs: for CUDA graphs, which
//! would otherwise draw the same noise at every replay. Everything else is better served by a plain key.
//!
//! # Temperature
//!
//! `tau` is a number, or a tensor that then receives its gradient: see [`Temperature`].
//!
//! # Numbers
//!
//! f32 and f64 are computed as such; f16 and bf16 in f32, rounded once. A logit of -inf is a mask. A row without a proper
//! class (all -inf, or with NaN or +inf) is NaN in the relaxed ops, in that row alone. In the ops that return an index it is
//! an error on the CPU; on a CUDA device its index is 0, and [`improper_rows`] finds it. Arguments are checked before anything is allocated, and an error names the op and the value.
//!
//! Gradients are of the first order: a backward pass is not itself recorded for differentiation, as in candle by default.
//! For f16 and bf16 they are computed from the rounded result that candle keeps, so they are as good as that result.
//!
//! # Cost
//!
//! An op allocates its output, a few scratch values a row where it returns indices, some bytes for every 1,024 elements of
//! a long row, and buffers of a fixed size for each task; with a learned temperature, the backward pass of a one-hot draws
//! the relaxed sample once more. Backward passes keep nothing beyond candle's own arguments and
//! results: noise is drawn again from the key. Kernels are compiled for AVX-512, AVX2 with FMA, and portably, chosen at
//! run time ([`simd_level`]), and run on candle's own pool of threads, or, where a thread of a rayon pool calls an op, on
//! that pool. On x86-64 without FMA the portable kernels are correct
//! but slow.
//!
//! # Devices
//!
//! The ops run on the CPU and, with feature `cuda`, on CUDA devices: one or two launches each, on candle's stream, without
//! waiting for the device unless the temperature is a tensor (whose values are checked). Noise and indices are the CPU's to
//! the bit; relaxed samples and gradients agree with it to about 2e-6 of the row's largest value. A tensor on another device,
//! or on a CUDA device without the feature, is refused with an error.

mod backward;
mod binary_concrete;
#[doc(hidden)]
pub mod bits;
mod categorical;
mod check;
pub mod distributions;
mod element;
mod elementwise;
mod gaussian;
mod gumbel_max;
mod gumbel_rao;
mod gumbel_sinkhorn;
mod gumbel_softmax;
mod gumbel_top_k;
mod improper_rows;
#[cfg(feature = "cuda")]
mod launch;
mod math;
pub mod modules;
mod noise;
mod op;
mod output;
mod piecewise;
mod reinmax;
mod relaxed_top_k;
mod rng;
mod rowwise;
pub mod schedules;
mod simd;
pub mod straight_through;
pub mod subgradient;
mod temperature;
mod tempered;
mod tempered_softmax;

pub use binary_concrete::{
    Stretch, binary_concrete, binary_concrete_st, hard_concrete, hard_concrete_l0,
};
pub use candle_core;
pub use categorical::categorical;
pub use gaussian::{gaussian, gaussian_kl};
pub use gumbel_max::gumbel_max;
pub use gumbel_rao::gumbel_rao;
pub use gumbel_sinkhorn::{gumbel_sinkhorn, gumbel_sinkhorn_st, sinkhorn, sinkhorn_st};
pub use gumbel_softmax::{decoupled_st, gumbel_softmax, gumbel_softmax_st};
pub use gumbel_top_k::gumbel_top_k;
pub use improper_rows::improper_rows;
pub use noise::{exponential, gumbel, logistic, normal, uniform};
pub use reinmax::reinmax;
pub use relaxed_top_k::{gumbel_top_k_st, relaxed_top_k};
pub use rng::{DeviceKey, DeviceRng, Key, KeySource, Philox4x32, Rng};
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

/// The README's snippets, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The guide's snippets, likewise.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/guide/binary.md")]
    struct Binary;
    #[doc = include_str!("../docs/guide/classes.md")]
    struct Classes;
    #[doc = include_str!("../docs/guide/distributions.md")]
    struct Distributions;
    #[doc = include_str!("../docs/guide/estimators.md")]
    struct Estimators;
    #[doc = include_str!("../docs/guide/gaussian.md")]
    struct Gaussian;
    #[doc = include_str!("../docs/guide/permutations.md")]
    struct Permutations;
    #[doc = include_str!("../docs/guide/schedules_and_modules.md")]
    struct SchedulesAndModules;
    #[doc = include_str!("../docs/guide/subgradients_and_straight_through.md")]
    struct SubgradientsAndStraightThrough;
    #[doc = include_str!("../docs/guide/top_k.md")]
    struct TopK;
}
