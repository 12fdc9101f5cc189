//! Runs cases under criterion and collects the samples that the closing tables are made from.

#[cfg(feature = "cuda")]
use std::rc::Rc;
use std::{
    cell::RefCell,
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, measurement::WallTime,
};

#[cfg(feature = "cuda")]
use super::cuda::{Card, CardCase, CardReport, Prepared};
use super::{
    duel::{Duel, Sample},
    report::{Report, Row},
    shapes::Shape,
};

/// Which legs run, `cpu` or `cuda`: both where it is not set, as far as the build and the machine have them.
const DEVICE: &str = "REPARAM_BENCH_DEVICE";
/// No case begins after so many seconds.
const SECONDS: &str = "REPARAM_BENCH_SECONDS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    /// candle's `backward()` of a result that is there already.
    #[cfg(feature = "cuda")]
    Backward,
    ForwardBackward,
    /// A kernel alone, without candle's share of the backward pass.
    BackwardKernel,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            #[cfg(feature = "cuda")]
            Self::Backward => "backward",
            Self::ForwardBackward => "forward+backward",
            Self::BackwardKernel => "backward kernel",
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
    cpu: bool,
    #[cfg(feature = "cuda")]
    card: Option<Rc<Card>>,
    #[cfg(feature = "cuda")]
    card_report: CardReport,
    deadline: Option<Instant>,
    /// Cases that the deadline left out.
    late: usize,
}

impl Suite {
    pub fn new() -> Result<Self> {
        let (cpu, cuda) = match env::var(DEVICE).as_deref() {
            Err(env::VarError::NotPresent) => (true, true),
            Ok("cpu") => (true, false),
            Ok("cuda") => (false, true),
            other => bail!("{DEVICE} is {other:?}, not `cpu` or `cuda`"),
        };
        let deadline = match env::var(SECONDS) {
            Err(env::VarError::NotPresent) => None,
            seconds => {
                let seconds = seconds?.parse().with_context(|| SECONDS)?;
                Some(Instant::now() + Duration::from_secs(seconds))
            }
        };
        #[cfg(feature = "cuda")]
        let card = if cuda { Card::find()? } else { None };
        #[cfg(not(feature = "cuda"))]
        if cuda && !cpu {
            println!("CUDA: built without the feature `cuda`");
        }
        Ok(Self {
            criterion: Criterion::default()
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_secs(1))
                .sample_size(15)
                .nresamples(10_000)
                .configure_from_args(),
            report: Report::default(),
            cpu,
            #[cfg(feature = "cuda")]
            card: card.map(Rc::new),
            #[cfg(feature = "cuda")]
            card_report: CardReport::default(),
            deadline,
            late: 0,
        })
    }

    /// Times one case on the CPU. `prepare` makes the inputs, verifies the op on them and hands over both sides; it runs
    /// only where criterion's filter picks the case.
    ///
    /// Criterion times the fused op. Each of its samples is followed at once by a sample of the baseline, so that the
    /// ratio compares two neighbouring moments of the same run.
    ///
    /// # Panics
    /// Where a verification or either side fails.
    pub fn run(&mut self, case: Case, prepare: impl FnOnce() -> Result<Duel>) {
        if !self.cpu || self.is_late() {
            return;
        }
        let name = format!("{}/{}/{}", case.op, case.direction.name(), case.shape);
        let id = BenchmarkId::new(case.direction.name(), case.shape);
        let mut group = self.group(&case);
        if case.shape.elements() > 4_000_000 {
            // The composed baseline takes up to a second a run here: criterion's smallest sample count, and the time
            // that it needs for it.
            group.sample_size(10);
            group.measurement_time(match case.direction {
                Direction::Forward => Duration::from_secs(3),
                _ => Duration::from_secs(9),
            });
        }
        if let Some(samples) = sample(group, id, &name, prepare) {
            self.report.push(Row::new(case, &samples));
        }
    }

    /// The device that the CUDA leg runs on.
    #[cfg(feature = "cuda")]
    pub fn card(&self) -> Option<Rc<Card>> {
        self.card.clone()
    }

    /// As [`Suite::run`], on the card: a case that fails is reported and counted, and the next one runs.
    #[cfg(feature = "cuda")]
    pub fn run_on_card(
        &mut self,
        card: &Card,
        case: CardCase,
        prepare: impl FnOnce() -> Result<Prepared>,
    ) {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        if self.is_late() {
            return;
        }
        let id = BenchmarkId::from_parameter(case.place());
        let name = format!("{}/{}", case.case.op, case.place());
        let mut group = self.group(&case.case);
        // A card's samples agree to a percent, and there are several hundred cases.
        group.sample_size(10);
        group.nresamples(1000);
        group.warm_up_time(Duration::from_millis(10));
        group.measurement_time(Duration::from_millis(60));
        let mut sides = None;
        let prepare = || {
            let Prepared { duel, sides: both } = prepare()?;
            sides = Some(both);
            Ok(duel)
        };
        let samples = catch_unwind(AssertUnwindSafe(|| sample(group, id, &name, prepare)));
        match (samples, sides) {
            (Ok(Some(samples)), Some(sides)) => {
                self.card_report.push(card, case, &sides, &samples);
            }
            (Ok(_), _) => {}
            (Err(_), _) => self.card_report.failed(name),
        }
    }

    fn group(&mut self, case: &Case) -> BenchmarkGroup<'_, WallTime> {
        let mut group = self.criterion.benchmark_group(case.op);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::ElementsAndBytes {
            elements: case.shape.elements(),
            bytes: case.bytes,
        });
        group
    }

    fn is_late(&mut self) -> bool {
        let late = self.deadline.is_some_and(|d| Instant::now() > d);
        self.late += usize::from(late);
        late
    }

    pub fn finish(self) -> Result<()> {
        if self.late > 0 {
            println!(
                "\n{} cases left out: the time set by {SECONDS} is over",
                self.late
            );
        }
        if self.cpu {
            self.report.finish()?;
        }
        #[cfg(feature = "cuda")]
        if let Some(card) = &self.card {
            self.card_report.finish(card)?;
        }
        Ok(())
    }
}

/// The samples of one case, None where the filter leaves it out.
fn sample(
    mut group: BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    name: &str,
    prepare: impl FnOnce() -> Result<Duel>,
) -> Option<Vec<Sample>> {
    let mut prepare = Some(prepare);
    let mut duel = None;
    let samples: RefCell<Vec<Sample>> = RefCell::default();
    group.bench_function(id, |bencher| {
        if let Some(prepare) = prepare.take() {
            duel = Some(prepare().unwrap_or_else(|e| panic!("{name}: wrong before timing: {e:#}")));
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
    prepare.is_none().then(|| samples.into_inner())
}
