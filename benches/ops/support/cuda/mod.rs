//! The CUDA leg: the card, how time is taken on it, and the cases that every op has there.

mod card;
mod leg;
mod report;

pub use card::Card;
pub use leg::{Prepared, bench, bench_as};
pub use report::{CardCase, CardReport};
