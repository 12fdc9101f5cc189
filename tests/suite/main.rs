//! Every room against its contract: one file per room, and the shared tools in `support`.

#![allow(
    unreachable_pub,
    reason = "a test binary exports nothing; `pub` is for its own modules"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "a row's number indexes several arrays, and names the row in messages"
)]

mod bad_input;
mod binary_concrete;
mod categorical;
mod cuda;
mod decoupled;
mod distributions;
mod extreme;
mod gaussian;
mod gumbel_max;
mod gumbel_rao;
mod gumbel_sinkhorn;
mod gumbel_softmax;
mod gumbel_top_k;
mod improper_rows;
#[cfg(feature = "cuda")]
mod kernels;
mod layout_rules;
mod modules;
mod noise;
mod noise_tails;
mod pairs;
#[cfg(feature = "cuda")]
mod paths;
mod precision;
mod properties;
mod reinmax;
mod relaxed_top_k;
mod rng;
mod schedules;
mod straight_through;
mod subgradient;
mod support;
mod tempered_softmax;
mod threads;
#[cfg(feature = "cuda")]
mod traffic;
#[cfg(feature = "cuda")]
mod turns;
mod value_stability;
