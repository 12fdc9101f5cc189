//! Maximises the ELBO with Adam, and measures it on digits that the training never saw.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use candle_reparam::{Key, Philox4x32, Rng};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use rand::seq::SliceRandom;

use crate::data::{binarize, spread};
use crate::model::{Latent, Vae, bernoulli_nll};

pub(crate) struct Schedule {
    pub(crate) epochs: usize,
    pub(crate) batch_size: usize,
    pub(crate) learning_rate: f64,
    pub(crate) tau_min: f64,
    pub(crate) anneal_rate: f64,
}

impl Schedule {
    pub(crate) fn tau(&self, step: usize) -> f64 {
        (-self.anneal_rate * step as f64).exp().max(self.tau_min)
    }
}

/// Negative ELBO in nats per digit after each epoch, measured alike on both sets: see [`evaluate`].
#[derive(Default)]
pub(crate) struct Curves {
    pub(crate) train: Vec<f64>,
    pub(crate) held_out: Vec<f64>,
}

/// Trains on grey `digits`, and follows the binary `held_out` ones.
pub(crate) fn train(
    vae: &Vae,
    digits: &Tensor,
    held_out: &Tensor,
    schedule: &Schedule,
    rng: &Rng,
) -> Result<Curves> {
    let params = ParamsAdamW {
        lr: schedule.learning_rate,
        weight_decay: 0.0,
        ..Default::default()
    };
    let mut adam = AdamW::new(vae.vars(), params)?;

    // Both curves keep their images and their noise from epoch to epoch, so that they move with the model alone.
    let probe = binarize(&spread(digits, held_out.dim(0)?)?, rng.next_key())?;
    let probe_key = rng.next_key();

    let mut order: Vec<u32> = (0..digits.dim(0)? as u32).collect();
    let bar = progress_bar(schedule.epochs * order.len());
    let mut curves = Curves::default();
    let mut step = 0;
    for epoch in 1..=schedule.epochs {
        order.shuffle(&mut Philox4x32::new(rng.next_key()));
        let (mut count, mut total) = (0, 0.0);
        for batch in order.chunks(schedule.batch_size) {
            let grey = digits.index_select(&Tensor::new(batch, digits.device())?, 0)?;
            // A fresh binarization each time a digit comes up: 4,500 digits last longer.
            let images = binarize(&grey, rng.next_key())?;
            let tau = schedule.tau(step);
            let loss = training_loss(vae, &images, tau, rng.next_key())?;
            adam.backward_step(&loss)?;

            step += 1;
            count += batch.len();
            total += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64;
            let running = finite(total / count as f64, epoch)?;
            bar.inc(batch.len() as u64);
            let tau = match vae.latent {
                Latent::Categorical(_) => format!(", tau {tau:.2}"),
                Latent::Gaussian => String::new(),
            };
            bar.set_message(format!(
                "epoch {epoch}/{}{tau}, ELBO {:.1} nats",
                schedule.epochs, -running
            ));
        }
        let seen = finite(evaluate(vae, &probe, 1, probe_key)?, epoch)?;
        let unseen = finite(evaluate(vae, held_out, 1, probe_key)?, epoch)?;
        if epoch % schedule.epochs.div_ceil(10) == 0 || epoch == schedule.epochs {
            let line = format!(
                "epoch {epoch:>4}: negative ELBO {seen:.1} on training digits, {unseen:.1} held out"
            );
            bar.suspend(|| println!("{line}"));
        }
        curves.train.push(seen);
        curves.held_out.push(unseen);
    }
    bar.finish_and_clear();
    Ok(curves)
}

fn finite(elbo: f64, epoch: usize) -> Result<f64> {
    ensure!(
        elbo.is_finite(),
        "the ELBO is {elbo} in epoch {epoch}: training diverged, try a smaller --learning-rate"
    );
    Ok(elbo)
}

/// What Adam minimises: the mean negative ELBO of a batch, its code relaxed at temperature `tau`.
fn training_loss(vae: &Vae, images: &Tensor, tau: f64, key: Key) -> Result<Tensor> {
    let posterior = vae.encode(images)?;
    let code = vae.latent.sample(&posterior, tau, key)?;
    Ok((bernoulli_nll(&vae.decode(&code)?, images)? + vae.latent.kl(&posterior)?)?.mean_all()?)
}

/// Mean negative ELBO of binary `images` in nats per digit, a bound on the model's own negative log-likelihood: codes
/// drawn from the posterior itself (one-hot where it is categorical), `draws` of them for each image, and the KL exact.
pub(crate) fn evaluate(vae: &Vae, images: &Tensor, draws: u64, key: Key) -> Result<f64> {
    let posterior = vae.encode(images)?.detach();
    let mut total = f64::from(vae.latent.kl(&posterior)?.mean_all()?.to_scalar::<f32>()?);
    for draw in 0..draws {
        let code = vae.latent.sample_exact(&posterior, key.fold_in(draw))?;
        let nll = bernoulli_nll(&vae.decode(&code)?, images)?
            .mean_all()?
            .to_scalar::<f32>()?;
        total += f64::from(nll) / draws as f64;
    }
    Ok(total)
}

fn progress_bar(digits: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:24} {percent:>3}% {msg}, {rate} digits/s, {eta} left")
            .expect("the template is a literal")
            .with_key(
                "rate",
                |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    // Nothing can be done, and nothing is lost, where a bar's text cannot be written.
                    let _ = write!(out, "{:.0}", state.per_sec());
                },
            );
    ProgressBar::new(digits as u64).with_style(style)
}
