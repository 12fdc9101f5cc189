//! How often does a sampler draw a rare token? Ours beside candle_nn's, on a vocabulary as long-tailed as language.
//!
//! ```text
//! cargo run --release --example tail_mass
//! ```
//!
//! Of 32,000 tokens, that of rank r has a probability proportional to 1/r (Zipf's law with exponent 1). The tokens past
//! rank 1,024 are rare one by one and hold 31 % of the mass together. `candle_nn::sampling::gumbel_softmax` draws the
//! uniforms behind its Gumbel noise from [1e-7, 0.999], and so cuts the noise off at 6.91: none of those tokens can
//! score more than 6.91 - ln 1,025 = -0.02, and the head's best stays below that once in 650 draws. Together they win
//! 2 draws in 100,000. The noise of `candle_reparam::gumbel_max` reaches 44, and
//! `candle_reparam::categorical` draws without any.
//!
//! Ends with a failure where one of ours is more than five standard errors from the truth.

use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use candle_reparam::{Rng, categorical, gumbel_max};

const VOCABULARY: u32 = 32_000;
/// The tail starts behind this rank.
const HEAD: u32 = 1_024;
/// Rows of logits a call: each call draws one token for every row.
const BATCH: usize = 50;

fn main() -> Result<()> {
    let truth = mass(HEAD + 1) / mass(1);
    println!("Zipf(1) over {VOCABULARY} tokens, draws that land past rank {HEAD}\n");
    println!(
        "{:36} {:>7} {:>10} {:>10} {:>10} {:>8}",
        "sampler", "draws", "tail mass", "std error", "off by", "seconds"
    );
    println!("{:36} {:>7} {truth:>10.4}", "the true distribution", "");

    let log_probs = Tensor::arange(1, VOCABULARY + 1, &Device::Cpu)?
        .to_dtype(DType::F64)?
        .log()?
        .neg()?;
    let logits = log_probs
        .to_dtype(DType::F32)?
        .broadcast_as((BATCH, VOCABULARY as usize))?
        .contiguous()?;
    let rng = Rng::new(7);

    // candle_nn's gets a tenth of the draws: it is many times slower.
    measure("candle_nn::sampling::gumbel_softmax", 10_000, truth, || {
        candle_nn::sampling::gumbel_softmax(&logits, 1.0, D::Minus1)
    })?;
    let ours = [
        measure("candle_reparam::gumbel_max", 100_000, truth, || {
            gumbel_max(&logits, D::Minus1, rng.next_key())
        })?,
        measure("candle_reparam::categorical", 100_000, truth, || {
            categorical(&logits, D::Minus1, rng.next_key())
        })?,
    ];
    ensure!(
        ours.iter().all(|deviation| deviation.abs() <= 5.0),
        "candle_reparam is {ours:.1?} standard errors from the true tail mass"
    );
    Ok(())
}

/// The mass from rank `first` on, not normalised. From the smallest term up, so that none is lost in the sum.
fn mass(first: u32) -> f64 {
    (first..=VOCABULARY)
        .rev()
        .map(|rank| f64::from(rank).recip())
        .sum()
}

/// Prints the fraction of draws in the tail beside its standard error, sqrt(p (1 - p) / draws) for the true mass p,
/// and returns how many of them it is from the truth. `sample` returns a token for each of the batch's rows, from 0.
fn measure(
    name: &str,
    draws: usize,
    truth: f64,
    sample: impl Fn() -> candle_core::Result<Tensor>,
) -> Result<f64> {
    let start = Instant::now();
    let mut tail = 0;
    for _ in 0..draws / BATCH {
        tail += sample()?
            .to_vec1::<u32>()?
            .iter()
            .filter(|token| **token >= HEAD)
            .count();
    }
    let observed = tail as f64 / draws as f64;
    let std_error = (truth * (1.0 - truth) / draws as f64).sqrt();
    let deviation = (observed - truth) / std_error;
    println!(
        "{name:36} {draws:>7} {observed:>10.4} {std_error:>10.4} {deviation:>+7.1} se {:>8.1}",
        start.elapsed().as_secs_f64()
    );
    Ok(deviation)
}
