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
mod categorical;
mod cuda;
mod decoupled;
mod gaussian;
mod gumbel_max;
mod gumbel_rao;
mod gumbel_softmax;
mod improper_rows;
#[cfg(feature = "cuda")]
mod kernels;
mod layout_rules;
mod noise;
mod precision;
mod properties;
mod reinmax;
mod rng;
mod support;
mod tempered_softmax;
mod threads;
#[cfg(feature = "cuda")]
mod traffic;
mod value_stability;
