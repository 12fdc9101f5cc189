//! What the samples of a case come to.

use super::duel::Sample;

/// Median and quartiles.
#[derive(Clone, Copy)]
pub struct Spread {
    pub q25: f64,
    pub median: f64,
    pub q75: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
        Self {
            q25: at(0.25),
            median: at(0.5),
            q75: at(0.75),
        }
    }
}

/// Seconds per run of both sides.
#[derive(Clone, Copy)]
pub struct Timing {
    pub samples: usize,
    pub fused: Spread,
    pub against: Option<Against>,
}

#[derive(Clone, Copy)]
pub struct Against {
    pub baseline: Spread,
    /// The samples' own ratios of baseline to fused: how far the machine's noise reaches.
    pub ratios: Spread,
}

/// Fewer samples than this are no measurement: criterion's `--test` runs a case once.
const FEWEST_SAMPLES: usize = 5;

impl Timing {
    /// None where the case was verified and run but not measured.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        // Criterion's warm-up comes first, with run counts that double; its samples come last, all with one count.
        let last = samples.last().map(|s| s.iters);
        let measured: Vec<Sample> = samples
            .iter()
            .rev()
            .copied()
            .take_while(|s| Some(s.iters) == last)
            .collect();
        if measured.len() < FEWEST_SAMPLES {
            return None;
        }
        let pairs = || measured.iter().filter_map(|s| Some((s.fused, s.baseline?)));
        Some(Self {
            samples: measured.len(),
            fused: Spread::of(measured.iter().map(|s| s.fused)),
            against: pairs().next().map(|_| Against {
                baseline: Spread::of(pairs().map(|(_, baseline)| baseline)),
                ratios: Spread::of(pairs().map(|(fused, baseline)| baseline / fused)),
            }),
        })
    }
}

impl Against {
    /// The ratio of the medians.
    pub fn ratio(&self, timing: &Timing) -> f64 {
        self.baseline.median / timing.fused.median
    }
}

pub fn duration(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.1} us", seconds * 1e6)
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}
