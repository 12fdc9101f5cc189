//! Keys, the Philox generator, and the maps from its words to noise.

mod device;
mod key;
mod maps;
mod philox;
mod race;

pub use device::{DeviceKey, DeviceRng, KeySource};
pub use key::{Key, Rng};
pub(crate) use maps::{Exponential, Gumbel, Logistic, Noise, Normal, Uniform, fill};
pub use philox::Philox4x32;
pub(crate) use philox::Stream;
pub(crate) use race::{Race, RaceReal, RaceScratch};

/// The most elements that [`fill`] draws at a time.
pub(crate) const GROUP: usize = 64;
/// Elements by which [`fill`] may overshoot the range asked for: the three before it in its first block, and the rest of
/// its last group.
pub(crate) const FILL_SLACK: usize = 2 * GROUP;
