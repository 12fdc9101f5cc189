//! Two ways to compute the same thing, timed in turn.

use std::time::{Duration, Instant};

use anyhow::Result;

pub type Routine = Box<dyn FnMut() -> Result<()>>;

/// How a block of runs is timed.
pub type Clock = Box<dyn Fn(u64, &mut Routine) -> Result<Duration>>;

/// A fused op and what it is measured against, both ready to run.
pub struct Duel {
    fused: Routine,
    baseline: Option<Routine>,
    /// Seconds per run of the baseline in the previous sample.
    baseline_estimate: Option<f64>,
    clock: Clock,
}

/// One sample: mean seconds per run of each side, taken back to back.
#[derive(Clone, Copy)]
pub struct Sample {
    pub iters: u64,
    pub fused: f64,
    pub baseline: Option<f64>,
}

impl Duel {
    /// By the clock on the wall, for work that is done when the call returns.
    pub fn new(
        fused: impl FnMut() -> Result<()> + 'static,
        baseline: impl FnMut() -> Result<()> + 'static,
    ) -> Self {
        Self::timed_by(Box::new(time), Box::new(fused), Some(Box::new(baseline)))
    }

    pub fn timed_by(clock: Clock, fused: Routine, baseline: Option<Routine>) -> Self {
        Self {
            fused,
            baseline,
            baseline_estimate: None,
            clock,
        }
    }

    /// Runs the fused side `iters` times, then the baseline for about as long, so that a machine that slows down slows
    /// both. Each side runs in a block of its own, in the state of caches and allocator that it leaves for itself.
    pub fn sample(&mut self, iters: u64) -> Result<(Duration, Sample)> {
        let fused = (self.clock)(iters, &mut self.fused)?;
        let mut sample = Sample {
            iters,
            fused: fused.as_secs_f64() / iters as f64,
            baseline: None,
        };
        if let Some(baseline) = &mut self.baseline {
            let baseline_iters = match self.baseline_estimate {
                Some(seconds) => ((fused.as_secs_f64() / seconds) as u64).clamp(1, iters),
                None => 1,
            };
            let seconds = (self.clock)(baseline_iters, baseline)?.as_secs_f64();
            sample.baseline = Some(seconds / baseline_iters as f64);
            self.baseline_estimate = sample.baseline;
        }
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
