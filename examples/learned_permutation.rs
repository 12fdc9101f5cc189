//! Learns to sort, from pairs of sequences and their sorted copies alone, through samples of permutations.
//!
//! ```text
//! cargo run --release --example learned_permutation
//! cargo run --release --example learned_permutation -- --lengths 5,20 --steps 3000 --estimator straight-through
//! ```
//!
//! The experiment of "Learning latent permutations with Gumbel-Sinkhorn networks" (Mena et al., arXiv 1802.08665, section 5.1): a small
//! network maps each number of a sequence by itself to a row of scores, one for each position. The matrix of scores is that of a
//! distribution over permutations; `candle_reparam::gumbel_sinkhorn` draws a relaxed one, P, and the loss is the squared error
//! between P^T x and the sorted sequence. What the order of numbers is, the network is never told.
//!
//! **What is measured.** On sequences that the training never saw, the permutation with the largest sum of scores
//! (`candle_reparam::sinkhorn_st`, no noise): the proportion of positions that hold the right number, of sequences sorted without a
//! single error, and the mean absolute error. The columns for chance are those of a random permutation.
//!
//! **What is repeatable.** Weights, sequences and permutations come from the keys of one `candle_reparam::Rng`: the same
//! seed on the same machine prints the same table.
//!
//! On a machine that is busy with other work `RAYON_NUM_THREADS=1` is the faster choice, since candle's threads spin
//! while they wait for one another. It prints the same table.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use candle_reparam::{Key, Rng, gumbel_sinkhorn, gumbel_sinkhorn_st, normal, sinkhorn_st, uniform};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

const HIDDEN: usize = 64;
/// Sequences that the result is measured on.
const HELD_OUT: usize = 2000;

/// Learn to sort sequences of numbers through relaxed permutations
#[derive(Parser)]
struct Args {
    /// Lengths of the sequences, a model for each
    #[arg(long, value_delimiter = ',', default_values_t = [5, 10, 15], value_parser = clap::value_parser!(u16).range(2..=256))]
    lengths: Vec<u16>,
    /// Steps of Adam for each length
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Sequences in a step
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Whether the training sees relaxed permutations or exact ones
    #[arg(long, value_enum, default_value_t = Estimator::Relaxed)]
    estimator: Estimator,
    /// Temperature of the relaxed permutations
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    tau: f64,
    /// Row and column normalisations
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    iterations: u32,
    /// Adam's step size
    #[arg(long, default_value_t = 5e-3, value_parser = positive)]
    learning_rate: f64,
    /// Fixes everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the tensors live
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum Estimator {
    /// Points inside the polytope of doubly stochastic matrices: Gumbel-Sinkhorn
    Relaxed,
    /// Exact permutations with the relaxed ones' gradient: straight-through Gumbel-Sinkhorn
    StraightThrough,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceArg {
    Cpu,
    Cuda,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let device = open_device(args.device)?;
    let rng = Rng::new(args.seed);
    println!(
        "{} steps of {} sequences, tau {}, {} iterations, seed {}; measured on {HELD_OUT} new sequences",
        args.steps, args.batch_size, args.tau, args.iterations, args.seed
    );
    println!("length  positions right   (chance)  sequences right       (chance)  mean error");
    for &length in &args.lengths {
        let n = usize::from(length);
        let model = Model::new(n, &device, &rng)?;
        train(&model, args, &device, &rng)?;
        let found = evaluate(&model, &device, rng.next_key())?;
        let orders: f64 = (1..=n).map(|i| i as f64).product();
        println!(
            "{n:>6}  {:>13.2} %  {:>9}  {:>13.2} %  {:>13}  {:>10.5}",
            100.0 * found.positions,
            format!("(1 in {n})"),
            100.0 * found.sequences,
            if n < 8 {
                format!("(1 in {orders})")
            } else {
                format!("(1 in {orders:.0e})")
            },
            found.error,
        );
    }
    Ok(())
}

/// From each number of a sequence, by itself, to a row of scores: 1 - 64 - n.
struct Model {
    n: usize,
    weights: [Var; 2],
    biases: [Var; 2],
}

impl Model {
    fn new(n: usize, device: &Device, rng: &Rng) -> Result<Self> {
        let layer = |from: usize, to: usize| -> Result<Var> {
            let scale = (2.0 / from as f64).sqrt();
            let weights = (normal((from, to), DType::F32, device, rng.next_key())? * scale)?;
            Ok(Var::from_tensor(&weights)?)
        };
        // Kinks spread over the numbers' range, so that scores can bend anywhere in it.
        let kinks = (uniform(HIDDEN, DType::F32, device, rng.next_key())? * 2.0)? - 1.0;
        Ok(Self {
            n,
            weights: [layer(1, HIDDEN)?, layer(HIDDEN, n)?],
            biases: [
                Var::from_tensor(&kinks?)?,
                Var::zeros(n, DType::F32, device)?,
            ],
        })
    }

    fn vars(&self) -> Vec<Var> {
        let all = self.weights.iter().chain(&self.biases);
        all.cloned().collect()
    }

    /// (sequences, n) numbers -> (sequences, n, n) scores: of each number, for each position.
    fn scores(&self, x: &Tensor) -> Result<Tensor> {
        // From the unit interval to one around 0.
        let mut h = ((x * 2.0)? - 1.0)?.flatten_all()?.unsqueeze(1)?;
        h = h
            .matmul(self.weights[0].as_tensor())?
            .broadcast_add(self.biases[0].as_tensor())?
            .relu()?;
        h = h
            .matmul(self.weights[1].as_tensor())?
            .broadcast_add(self.biases[1].as_tensor())?;
        Ok(h.reshape((x.dim(0)?, self.n, self.n))?)
    }
}

/// Sequences of numbers from the unit interval, and their sorted copies.
fn sequences(count: usize, n: usize, device: &Device, key: Key) -> Result<(Tensor, Tensor)> {
    let x = uniform((count, n), DType::F32, device, key)?;
    let mut sorted = x.to_vec2::<f32>()?;
    for row in &mut sorted {
        row.sort_by(f32::total_cmp);
    }
    let sorted = Tensor::from_vec(sorted.concat(), (count, n), device)?;
    Ok((x, sorted))
}

/// P^T x: at each position the number that the permutation sends there, or the mean of those that a relaxed one does.
fn permuted(p: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(x.unsqueeze(1)?.matmul(p)?.squeeze(1)?)
}

fn train(model: &Model, args: &Args, device: &Device, rng: &Rng) -> Result<()> {
    let params = ParamsAdamW {
        lr: args.learning_rate,
        weight_decay: 0.0,
        ..Default::default()
    };
    let mut adam = AdamW::new(model.vars(), params)?;
    let iterations = args.iterations as usize;
    let bar = progress_bar(u64::from(args.steps));
    for step in 1..=args.steps {
        let (x, sorted) = sequences(args.batch_size as usize, model.n, device, rng.next_key())?;
        let (scores, key) = (model.scores(&x)?, rng.next_key());
        let p = match args.estimator {
            Estimator::Relaxed => gumbel_sinkhorn(&scores, args.tau, iterations, key)?,
            Estimator::StraightThrough => gumbel_sinkhorn_st(&scores, args.tau, iterations, key)?,
        };
        let loss = (permuted(&p, &x)? - sorted)?.sqr()?.sum(1)?.mean_all()?;
        adam.backward_step(&loss)?;
        bar.inc(1);
        if step % 50 == 0 {
            let loss = loss.to_scalar::<f32>()?;
            ensure!(
                loss.is_finite(),
                "the loss is {loss} in step {step}: training diverged, try a smaller --learning-rate"
            );
            bar.set_message(format!("length {}, squared error {loss:.4}", model.n));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// What the best permutation makes of new sequences.
struct Found {
    /// Of all positions, those that hold the right number.
    positions: f64,
    /// Of all sequences, those without an error.
    sequences: f64,
    error: f64,
}

fn evaluate(model: &Model, device: &Device, key: Key) -> Result<Found> {
    let (x, sorted) = sequences(HELD_OUT, model.n, device, key)?;
    // The permutation needs neither temperature nor iterations: its gradient would.
    let p = sinkhorn_st(&model.scores(&x)?.detach(), 1.0, 1)?;
    let off = (permuted(&p, &x)? - sorted)?.abs()?.to_vec2::<f32>()?;
    // A permutation's products and sums are exact.
    let wrong = |row: &Vec<f32>| row.iter().filter(|e| **e != 0.0).count();
    let all = (HELD_OUT * model.n) as f64;
    Ok(Found {
        positions: 1.0 - off.iter().map(wrong).sum::<usize>() as f64 / all,
        sequences: off.iter().filter(|row| wrong(row) == 0).count() as f64 / HELD_OUT as f64,
        error: off.iter().flatten().map(|e| f64::from(*e)).sum::<f64>() / all,
    })
}

fn open_device(device: DeviceArg) -> Result<Device> {
    match device {
        DeviceArg::Cpu => Ok(Device::Cpu),
        DeviceArg::Cuda if !candle_core::utils::cuda_is_available() => {
            bail!("--device cuda: this program was built without CUDA support")
        }
        DeviceArg::Cuda => {
            Device::new_cuda(0).context("--device cuda: no CUDA device can be opened")
        }
    }
}

fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {percent:>3}% {msg}, {per_sec}, {eta} left")
        .expect("the template is a literal");
    ProgressBar::new(steps).with_style(style)
}

fn positive(argument: &str) -> Result<f64, String> {
    match argument.parse() {
        Ok(number) if f64::is_finite(number) && number > 0.0 => Ok(number),
        _ => Err("not a positive, finite number".into()),
    }
}
