//! Runs cases under criterion and collects the samples that the closing table is made from.

use std::{cell::RefCell, time::Duration};

use anyhow::Result;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use super::{
    duel::{Duel, Sample},
    report::{Report, Row},
    shapes::Shape,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    ForwardBackward,
    /// A kernel alone, without candle's share of the backward pass.
    Backward,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::ForwardBackward => "forward+backward",
            Self::Backward => "backward kernel",
        }
    }
}

/// What is timed, and against what.
#[derive(Clone, Copy)]
pub struct Case {
    pub op: &'static str,
    pub direction: Direction,
    pub shape: Shape,
    pub bytes: u64,
    pub baseline: &'static str,
}

pub struct Suite {
    criterion: Criterion,
    report: Report,
}

impl Suite {
    pub fn new() -> Self {
        Self {
            criterion: Criterion::default()
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_secs(1))
                .sample_size(15)
                .nresamples(10_000)
                .configure_from_args(),
            report: Report::default(),
        }
    }

    /// Times one case. `prepare` makes the inputs, verifies the op on them and hands over both sides; it runs only
    /// where criterion's filter picks the case.
    ///
    /// Criterion times the fused op. Each of its samples is followed at once by a sample of the baseline, so that the
    /// ratio compares two neighbouring moments of the same run.
    ///
    /// # Panics
    /// Where a verification or either side fails.
    pub fn run(&mut self, case: Case, prepare: impl FnOnce() -> Result<Duel>) {
        let name = format!("{}/{}/{}", case.op, case.direction.name(), case.shape);
        let mut group = self.criterion.benchmark_group(case.op);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::ElementsAndBytes {
            elements: case.shape.elements(),
            bytes: case.bytes,
        });
        if case.shape.elements() > 4_000_000 {
            // The composed baseline takes up to a second a run here: criterion's smallest sample count, and the time
            // that it needs for it.
            group.sample_size(10);
            group.measurement_time(match case.direction {
                Direction::Forward => Duration::from_secs(3),
                Direction::ForwardBackward | Direction::Backward => Duration::from_secs(9),
            });
        }
        let mut prepare = Some(prepare);
        let mut duel = None;
        let samples: RefCell<Vec<Sample>> = RefCell::default();
        let id = BenchmarkId::new(case.direction.name(), case.shape);
        group.bench_function(id, |bencher| {
            if let Some(prepare) = prepare.take() {
                duel = Some(
                    prepare().unwrap_or_else(|e| panic!("{name}: wrong before timing: {e:#}")),
                );
            }
            let duel = duel.as_mut().expect("prepared above on the first call");
            bencher.iter_custom(|iters| {
                let (elapsed, sample) = duel
                    .sample(iters)
                    .unwrap_or_else(|e| panic!("{name}: failed while timed: {e:#}"));
                samples.borrow_mut().push(sample);
                elapsed
            });
        });
        group.finish();
        if prepare.is_none() {
            self.report.push(Row::new(case, &samples.into_inner()));
        }
    }

    pub fn finish(self) -> Result<()> {
        self.report.finish()
    }
}
