//! Two ways to compute the same thing, timed in turn.

use std::time::{Duration, Instant};

use anyhow::Result;

type Routine = Box<dyn FnMut() -> Result<()>>;

/// A fused op and what it is measured against, both ready to run.
pub struct Duel {
    fused: Routine,
    baseline: Routine,
    /// Seconds per run of the baseline in the previous sample.
    baseline_estimate: Option<f64>,
}

/// One sample: mean seconds per run of each side, taken back to back.
#[derive(Clone, Copy)]
pub struct Sample {
    pub iters: u64,
    pub fused: f64,
    pub baseline: f64,
}

impl Duel {
    pub fn new(
        fused: impl FnMut() -> Result<()> + 'static,
        baseline: impl FnMut() -> Result<()> + 'static,
    ) -> Self {
        Self {
            fused: Box::new(fused),
            baseline: Box::new(baseline),
            baseline_estimate: None,
        }
    }

    /// Runs the fused side `iters` times, then the baseline for about as long, so that a machine that slows down slows
    /// both. Each side runs in a block of its own, in the state of caches and allocator that it leaves for itself.
    pub fn sample(&mut self, iters: u64) -> Result<(Duration, Sample)> {
        let fused = time(iters, &mut self.fused)?;
        let baseline_iters = match self.baseline_estimate {
            Some(seconds) => ((fused.as_secs_f64() / seconds) as u64).clamp(1, iters),
            None => 1,
        };
        let baseline = time(baseline_iters, &mut self.baseline)?.as_secs_f64();
        let baseline = baseline / baseline_iters as f64;
        self.baseline_estimate = Some(baseline);
        let sample = Sample {
            iters,
            fused: fused.as_secs_f64() / iters as f64,
            baseline,
        };
        Ok((fused, sample))
    }
}

fn time(iters: u64, routine: &mut Routine) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..iters {
        routine()?;
    }
    Ok(start.elapsed())
}
