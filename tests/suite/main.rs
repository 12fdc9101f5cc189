//! Every room against its contract: one file per room, and the shared tools in `support`.

mod bad_input;
mod categorical;
mod gaussian;
mod gumbel_max;
mod gumbel_softmax;
mod layout_rules;
mod noise;
mod properties;
mod rng;
mod support;
mod tempered_softmax;
mod threads;
mod value_stability;
