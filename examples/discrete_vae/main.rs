//! A discrete variational autoencoder on real digits, trained through its samples.
//!
//! ```text
//! cargo run --release --example discrete_vae
//! cargo run --release --example discrete_vae -- --estimator reinmax --seed 7
//! cargo run --release --example discrete_vae -- --compare
//! cargo run --release --example discrete_vae -- --latent gaussian
//! ```
//!
//! An encoder (784-512-256) describes each digit by 20 categorical variables of 10 classes, a mirrored decoder draws
//! it again from one class of each. Drawing a class has no derivative: the gradient is that of
//! `candle_reparam::gumbel_softmax` (Jang et al. 2017, Maddison et al. 2017) or of another estimator, at a
//! temperature annealed from 1 to `--tau-min`. `--compare` trains with each of them from the same weights on the same
//! digits, and ends with a table, the best first, and a picture of their curves. With `--latent gaussian` the same networks train a classic
//! VAE of 20 dimensions (Kingma & Welling 2014).
//!
//! **What is measured.** Digits are binarized at random, each pixel 1 with its grey value as the probability: those of
//! the training anew each time, the held-out ones once. The last line is the negative ELBO of 500 held-out digits in
//! nats per digit: -log p(x | z) of Bernoulli pixels at codes z from the posterior itself (one-hot where it is
//! categorical, never the relaxed codes of the training), the mean of 100 draws, plus the exact KL to the prior. It
//! bounds the model's negative log-likelihood. Published figures train on 50,000 digits or more, and there are 4,500
//! here: expect their order, not their values.
//!
//! **What is repeatable.** Weights, shuffling, binarization and codes come from the keys of one
//! `candle_reparam::Rng`: the same seed on the same machine prints the same digits of the same numbers.
//!
//! On a machine that is busy with other work `RAYON_NUM_THREADS=1` is the faster choice, since candle's threads spin
//! while they wait for one another. It prints the same numbers.

#[path = "../support/charts.rs"]
mod charts;
mod data;
#[path = "../support/estimators.rs"]
mod estimators;
mod model;
mod pictures;
mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use candle_reparam::Rng;
use clap::{Parser, ValueEnum};

use crate::data::{Digits, binarize, spread};
use crate::estimators::Estimator;
use crate::model::{Latent, Vae};
use crate::train::{Curves, Schedule, evaluate, train};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/mnist_5k.csv.gz");
/// Codes drawn for each held-out digit at the end.
const FINAL_DRAWS: u64 = 100;

/// Train a discrete variational autoencoder on 4,500 MNIST digits, and draw what it learned
#[derive(Parser)]
struct Args {
    /// What the code of a digit is: 20 classes out of 10 each, or 20 normal variables
    #[arg(long, value_enum, default_value_t = LatentArg::Categorical)]
    latent: LatentArg,
    /// How the gradient passes a categorical draw [default: relaxed]
    #[arg(long, value_enum)]
    estimator: Option<Estimator>,
    /// Train with every estimator in turn, from the same seed, and compare them
    #[arg(long, conflicts_with_all = ["estimator", "latent"])]
    compare: bool,
    /// Passes over the training digits
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Fixes everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Digits in a step of Adam
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Adam's step size
    #[arg(long, default_value_t = 1e-3, value_parser = positive)]
    learning_rate: f64,
    /// Temperature at which annealing stops
    #[arg(long, default_value_t = 0.5, value_parser = positive)]
    tau_min: f64,
    /// The temperature of step n is max(tau-min, exp(-rate * n))
    #[arg(long, default_value_t = 5e-4, value_parser = positive)]
    anneal_rate: f64,
    /// Where the tensors live
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
    /// Folder for the PNGs, made where it is missing
    #[arg(long, value_name = "DIR", default_value = "target/discrete_vae")]
    out: PathBuf,
    /// Digits as gzip-compressed CSV: 784 grey values and a label a line
    #[arg(long, value_name = "FILE", default_value = DATA)]
    data: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum LatentArg {
    Categorical,
    Gaussian,
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
    // What can fail fails here, not after minutes of training.
    let latent = latent(args)?;
    let device = open_device(args.device)?;
    prepare_folder(&args.out)?;
    let digits = Digits::load(&args.data, &device)?;

    if args.compare {
        return compare(args, &device, &digits);
    }
    let run = Run::new(latent, args, &device, &digits)?;

    let picture = |name: &str| {
        let path = args.out.join(name);
        println!("writing {}", path.display());
        path
    };
    let Run { vae, rng, .. } = &run;
    let shown = 4 * pictures::COLUMNS;
    let posterior = vae.encode(&spread(&run.held_out, shown)?)?;
    let code = latent.sample_exact(&posterior, rng.next_key())?;
    let (originals, decoded) = (
        spread(&digits.held_out, shown)?,
        sigmoid(&vae.decode(&code)?)?,
    );
    pictures::reconstructions(&picture("reconstructions.png"), &originals, &decoded)?;
    let code = latent.sample_prior(8 * pictures::COLUMNS, &device, rng.next_key())?;
    pictures::grid(&picture("prior.png"), &sigmoid(&vae.decode(&code)?)?)?;
    let lines: [(&str, &[f64]); 2] = [
        ("training digits", &run.curves.train),
        ("held-out digits", &run.curves.held_out),
    ];
    pictures::curves(&picture("curves.png"), &latent.to_string(), &lines)?;

    let negative_elbo = run.negative_elbo()?;
    let codes = match latent {
        Latent::Categorical(_) => "one-hot",
        Latent::Gaussian => "Gaussian",
    };
    println!(
        "held-out negative ELBO: {negative_elbo:.3} nats per digit \
         ({} binarized digits, {FINAL_DRAWS} {codes} codes each, exact KL)",
        run.held_out.dim(0)?
    );
    Ok(())
}

/// A trained model, and what it was trained with.
struct Run {
    vae: Vae,
    /// Binary digits that it has not seen.
    held_out: Tensor,
    curves: Curves,
    rng: Rng,
    seconds: f64,
}

impl Run {
    /// Weights, order and pixels are the same for every latent variable of the same size, since their keys are.
    fn new(latent: Latent, args: &Args, device: &Device, digits: &Digits) -> Result<Self> {
        let rng = Rng::new(args.seed);
        let held_out = binarize(&digits.held_out, rng.next_key())?;
        let vae = Vae::new(latent, device, &rng)?;
        let schedule = Schedule {
            epochs: args.epochs as usize,
            batch_size: args.batch_size as usize,
            learning_rate: args.learning_rate,
            tau_min: args.tau_min,
            anneal_rate: args.anneal_rate,
        };
        let (to_train, to_hold_out) = (digits.train.dim(0)?, held_out.dim(0)?);
        println!(
            "{latent}, seed {}: {to_train} digits to train, {to_hold_out} held out",
            args.seed
        );
        let start = Instant::now();
        let curves = train(&vae, &digits.train, &held_out, &schedule, &rng)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "trained {} epochs in {seconds:.1} s, {:.0} digits/s",
            schedule.epochs,
            (schedule.epochs * to_train) as f64 / seconds
        );
        Ok(Self {
            vae,
            held_out,
            curves,
            rng,
            seconds,
        })
    }

    /// Of the held-out digits, in nats for each.
    fn negative_elbo(&self) -> Result<f64> {
        evaluate(&self.vae, &self.held_out, FINAL_DRAWS, self.rng.next_key())
    }
}

/// Trains with every estimator, and puts them in order.
fn compare(args: &Args, device: &Device, digits: &Digits) -> Result<()> {
    let mut runs = Vec::new();
    for estimator in Estimator::ALL {
        let run = Run::new(Latent::Categorical(estimator), args, device, digits)?;
        let negative_elbo = run.negative_elbo()?;
        println!("{estimator}: {negative_elbo:.3} nats per digit\n");
        runs.push((estimator, negative_elbo, run.seconds, run.curves));
    }
    let names: Vec<String> = runs.iter().map(|run| run.0.to_string()).collect();
    let lines: Vec<(&str, &[f64])> = names
        .iter()
        .zip(&runs)
        .map(|(name, run)| (name.as_str(), run.3.held_out.as_slice()))
        .collect();
    let title = format!("held-out digits, seed {}", args.seed);
    let path = args.out.join("compare.png");
    pictures::curves(&path, &title, &lines)?;
    println!("writing {}\n", path.display());

    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    println!(
        "{:18} {:>24} {:>18} {:>10}",
        "estimator", "held-out, nats per digit", "training digits", "seconds"
    );
    for (estimator, negative_elbo, seconds, curves) in &runs {
        let train = curves.train.last().copied().unwrap_or(f64::NAN);
        println!("{estimator:18} {negative_elbo:>24.3} {train:>18.1} {seconds:>10.1}");
    }
    Ok(())
}

fn latent(args: &Args) -> Result<Latent> {
    Ok(match args.latent {
        LatentArg::Categorical => Latent::Categorical(args.estimator.unwrap_or(Estimator::Relaxed)),
        LatentArg::Gaussian => {
            ensure!(
                args.estimator.is_none(),
                "--estimator is for the categorical latent: a Gaussian needs none"
            );
            Latent::Gaussian
        }
    })
}

/// Of plain tensor ops, which every device has; candle_nn's own has CUDA kernels with a feature of that crate alone.
fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
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

/// Makes the folder and proves that a file can be written there.
fn prepare_folder(folder: &Path) -> Result<()> {
    let probe = folder.join(".discrete_vae");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, []))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("--out: cannot write into {}", folder.display()))
}

fn positive(argument: &str) -> Result<f64, String> {
    match argument.parse() {
        Ok(number) if f64::is_finite(number) && number > 0.0 => Ok(number),
        _ => Err("not a positive, finite number".into()),
    }
}
