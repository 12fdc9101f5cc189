//! Schedules for temperatures, learning rates and the weight of a divergence: a value for every step of a training run.
//!
//! A [`Schedule`] is a pure function of the step, so a run that is resumed at a step has the value that it would have
//! had. A [`Scheduler`] counts the steps, and is saved beside the weights.
//!
//! ```
//! use candle_reparam::schedules::{Exponential, Schedule, Scheduler};
//! // Jang et al.: tau = max(0.5, exp(-r t)), changed every 500 steps.
//! let tau = Exponential::with_rate(1.0, 1e-4, 0.5)?.every(500)?;
//! let mut tau = Scheduler::new(tau);
//! for _ in 0..1000 {
//!     let _now = tau.value();
//!     tau.step();
//! }
//! assert!((tau.value() - (-0.1f64).exp()).abs() < 1e-12);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{DType, Device, Result, Tensor, bail};
use std::collections::HashMap;
use std::path::Path;

/// A value for every step, counted from 0. A plain number is the schedule that never changes.
pub trait Schedule {
    /// The value at a step.
    fn value(&self, step: u64) -> f64;

    /// The same schedule, looked at every `steps` steps only, and held in between.
    ///
    /// ```
    /// use candle_reparam::schedules::{Linear, Schedule};
    /// let held = Linear::new(1.0, 0.0, 100)?.every(10)?;
    /// assert_eq!((held.value(9), held.value(10), held.value(19)), (1.0, 0.9, 0.9));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    fn every(self, steps: u64) -> Result<Every<Self>>
    where
        Self: Sized,
    {
        if steps == 0 {
            bail!("Schedule::every: steps is 0, expected at least 1")
        }
        Ok(Every {
            schedule: self,
            steps,
        })
    }
}

impl Schedule for f64 {
    fn value(&self, _: u64) -> f64 {
        *self
    }
}

impl<S: Schedule + ?Sized> Schedule for Box<S> {
    fn value(&self, step: u64) -> f64 {
        (**self).value(step)
    }
}

fn finite(name: &str, what: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        bail!("{name}: {what} is {value}, expected a finite number")
    }
}

fn some_steps(name: &str, steps: u64) -> Result<()> {
    if steps == 0 {
        bail!("{name}: steps is 0, expected at least 1")
    }
    Ok(())
}

/// `max(start decay^step, floor)`: the temperature of wav2vec 2.0 (2, 0.999995, 0.5) and of Jang et al.
///
/// ```
/// use candle_reparam::schedules::{Exponential, Schedule};
/// let tau = Exponential::new(2.0, 0.5, 0.3)?;
/// assert_eq!([0, 1, 2, 3].map(|step| tau.value(step)), [2.0, 1.0, 0.5, 0.3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    start: f64,
    decay: f64,
    floor: f64,
}

impl Exponential {
    /// From the first value, the factor of a step and the least value.
    ///
    /// Errors: a start that is not finite and above 0, a decay that is not above 0 and at most 1, a floor below 0 or
    /// above the start.
    ///
    /// ```
    /// use candle_reparam::schedules::Exponential;
    /// assert!(Exponential::new(2.0, 0.999_995, 0.5).is_ok());
    /// assert!(Exponential::new(2.0, 1.1, 0.5).is_err());
    /// ```
    pub fn new(start: f64, decay: f64, floor: f64) -> Result<Self> {
        let name = "Exponential";
        finite(name, "start", start)?;
        if start <= 0.0 {
            bail!("{name}: start is {start}, expected a number above 0")
        }
        if !(decay > 0.0 && decay <= 1.0) {
            bail!("{name}: decay is {decay}, expected a number above 0, and at most 1")
        }
        if !(0.0..=start).contains(&floor) {
            bail!("{name}: floor is {floor}, expected a number from 0 to start, which is {start}")
        }
        Ok(Self {
            start,
            decay,
            floor,
        })
    }

    /// `max(start exp(-rate step), floor)`.
    ///
    /// ```
    /// use candle_reparam::schedules::{Exponential, Schedule};
    /// assert_eq!(Exponential::with_rate(1.0, 1e-3, 0.1)?.value(1), (-1e-3f64).exp());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn with_rate(start: f64, rate: f64, floor: f64) -> Result<Self> {
        if !(rate.is_finite() && rate >= 0.0) {
            bail!("Exponential: rate is {rate}, expected a finite number, 0 or above")
        }
        Self::new(start, (-rate).exp(), floor)
    }
}

impl Schedule for Exponential {
    fn value(&self, step: u64) -> f64 {
        (self.start * self.decay.powf(step as f64)).max(self.floor)
    }
}

/// From `start` to `end` in equal differences over `steps` steps, then `end`.
///
/// ```
/// use candle_reparam::schedules::{Linear, Schedule};
/// let weight = Linear::new(0.0, 1.0, 4)?; // the warm-up of a divergence's weight
/// assert_eq!([0, 1, 4, 9].map(|step| weight.value(step)), [0.0, 0.25, 1.0, 1.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    start: f64,
    end: f64,
    steps: u64,
}

impl Linear {
    /// From both ends and the number of steps between them.
    ///
    /// Errors: an end that is not finite; no steps.
    ///
    /// ```
    /// use candle_reparam::schedules::Linear;
    /// assert!(Linear::new(0.0, 1.0, 0).is_err());
    /// ```
    pub fn new(start: f64, end: f64, steps: u64) -> Result<Self> {
        let name = "Linear";
        finite(name, "start", start)?;
        finite(name, "end", end)?;
        some_steps(name, steps)?;
        Ok(Self { start, end, steps })
    }
}

/// `start` at 0 and `end` at 1, exactly, and between them in between.
fn between(start: f64, end: f64, part: f64) -> f64 {
    if part >= 1.0 {
        return end;
    }
    let value = start * (1.0 - part) + end * part;
    value.clamp(start.min(end), start.max(end))
}

impl Schedule for Linear {
    fn value(&self, step: u64) -> f64 {
        let part = step.min(self.steps) as f64 / self.steps as f64;
        between(self.start, self.end, part)
    }
}

/// From `start` to `end` along half a cosine over `steps` steps, then `end`: level at both ends.
///
/// `end + (start - end) (1 + cos(pi step / steps)) / 2`, as `torch.optim.lr_scheduler.CosineAnnealingLR` in its first
/// `T_max` steps, after which that one rises again.
///
/// ```
/// use candle_reparam::schedules::{Cosine, Schedule};
/// let tau = Cosine::new(2.0, 1.0, 4)?;
/// assert_eq!([0, 2, 4, 9].map(|step| tau.value(step)), [2.0, 1.5, 1.0, 1.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    start: f64,
    end: f64,
    steps: u64,
}

impl Cosine {
    /// From both ends and the number of steps between them.
    ///
    /// Errors: an end that is not finite; no steps.
    ///
    /// ```
    /// use candle_reparam::schedules::Cosine;
    /// assert!(Cosine::new(f64::NAN, 1.0, 10).is_err());
    /// ```
    pub fn new(start: f64, end: f64, steps: u64) -> Result<Self> {
        let name = "Cosine";
        finite(name, "start", start)?;
        finite(name, "end", end)?;
        some_steps(name, steps)?;
        Ok(Self { start, end, steps })
    }
}

impl Schedule for Cosine {
    fn value(&self, step: u64) -> f64 {
        let part = step.min(self.steps) as f64 / self.steps as f64;
        // sin^2 of half the angle is exact at both ends; in the middle it would be a bit off.
        let fallen = match part {
            0.5 => 0.5,
            _ => (std::f64::consts::FRAC_PI_2 * part).sin().powi(2),
        };
        between(self.start, self.end, fallen)
    }
}

/// A value up to each of a list of steps: piecewise constant.
///
/// ```
/// use candle_reparam::schedules::{PiecewiseConstant, Schedule};
/// let rate = PiecewiseConstant::new(1e-3, &[(1000, 1e-4), (2000, 1e-5)])?;
/// assert_eq!([0, 999, 1000, 1999, 2000].map(|step| rate.value(step)), [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PiecewiseConstant {
    start: f64,
    changes: Vec<(u64, f64)>,
}

impl PiecewiseConstant {
    /// From the first value, and the steps at which it changes, each with the value from there on.
    ///
    /// Errors: a value that is not finite; steps that do not ascend from 1.
    ///
    /// ```
    /// use candle_reparam::schedules::PiecewiseConstant;
    /// assert!(PiecewiseConstant::new(1.0, &[(20, 0.5), (10, 0.1)]).is_err());
    /// ```
    pub fn new(start: f64, changes: &[(u64, f64)]) -> Result<Self> {
        let name = "PiecewiseConstant";
        finite(name, "start", start)?;
        let mut last = 0;
        for &(step, value) in changes {
            finite(name, &format!("the value from step {step} on"), value)?;
            if step <= last {
                bail!(
                    "{name}: a change at step {step} follows one at {last}, expected a later step"
                )
            }
            last = step;
        }
        Ok(Self {
            start,
            changes: changes.to_vec(),
        })
    }
}

impl Schedule for PiecewiseConstant {
    fn value(&self, step: u64) -> f64 {
        let passed = self.changes.partition_point(|(at, _)| *at <= step);
        match passed.checked_sub(1) {
            Some(last) => self.changes[last].1,
            None => self.start,
        }
    }
}

/// A schedule that is looked at every so many steps, and held in between: see [`Schedule::every`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Every<S> {
    schedule: S,
    steps: u64,
}

impl<S: Schedule> Schedule for Every<S> {
    fn value(&self, step: u64) -> f64 {
        self.schedule.value(step - step % self.steps)
    }
}

/// A schedule and the step that it is at. Its state is one number, the step, which is saved and loaded as a tensor,
/// alone or beside an optimizer's.
///
/// ```
/// use candle_reparam::schedules::{Cosine, Scheduler};
/// let cosine = Cosine::new(1.0, 0.1, 1000)?;
/// let mut tau = Scheduler::new(cosine);
/// for _ in 0..300 {
///     tau.step();
/// }
/// let saved = tau.state("tau")?;
/// let mut resumed = Scheduler::new(cosine);
/// resumed.restore(&saved, "tau")?;
/// assert_eq!((resumed.current_step(), resumed.value()), (300, tau.value()));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheduler<S> {
    schedule: S,
    step: u64,
}

impl<S: Schedule> Scheduler<S> {
    /// The schedule at step 0.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// assert_eq!(Scheduler::new(0.5).value(), 0.5);
    /// ```
    pub fn new(schedule: S) -> Self {
        Self { schedule, step: 0 }
    }

    /// The value at the current step.
    ///
    /// ```
    /// use candle_reparam::schedules::{Linear, Scheduler};
    /// assert_eq!(Scheduler::new(Linear::new(2.0, 1.0, 10)?).value(), 2.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn value(&self) -> f64 {
        self.schedule.value(self.step)
    }

    /// Goes to the next step, and returns the value there.
    ///
    /// ```
    /// use candle_reparam::schedules::{Linear, Scheduler};
    /// let next = Scheduler::new(Linear::new(2.0, 1.0, 10)?).step();
    /// assert!((next - 1.9).abs() < 1e-12);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn step(&mut self) -> f64 {
        self.step = self.step.saturating_add(1);
        self.value()
    }

    /// The current step.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// assert_eq!(Scheduler::new(1.0).current_step(), 0);
    /// ```
    pub fn current_step(&self) -> u64 {
        self.step
    }

    /// Goes to any step.
    ///
    /// ```
    /// use candle_reparam::schedules::{Linear, Scheduler};
    /// let mut weight = Scheduler::new(Linear::new(0.0, 1.0, 10)?);
    /// weight.set_step(5);
    /// assert_eq!(weight.value(), 0.5);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// The state as a map of tensors, to be saved with others: one entry, `{name}.step`.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// let state = Scheduler::new(1.0).state("tau")?;
    /// assert_eq!(state["tau.step"].to_vec1::<u8>()?, [0; 8]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn state(&self, name: &str) -> Result<HashMap<String, Tensor>> {
        // Bytes: there is no unsigned dtype of 64 bits, and no cast may round a count.
        let bytes = Tensor::new(&self.step.to_le_bytes(), &Device::Cpu)?;
        Ok(HashMap::from([(entry(name), bytes)]))
    }

    /// Takes the state up from a map that [`state`](Self::state) gave, among whatever else it holds.
    ///
    /// Errors: no entry `{name}.step`, or one that is none.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// let mut tau = Scheduler::new(1.0);
    /// assert!(tau.restore(&tau.state("beta")?, "tau").is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn restore(&mut self, state: &HashMap<String, Tensor>, name: &str) -> Result<()> {
        let entry = entry(name);
        let Some(bytes) = state.get(&entry) else {
            bail!("Scheduler::restore: there is no entry {entry:?}")
        };
        if (bytes.dims(), bytes.dtype()) != (&[8], DType::U8) {
            bail!(
                "Scheduler::restore: {entry:?} has shape {:?} and dtype {:?}, expected [8] and u8",
                bytes.dims(),
                bytes.dtype()
            )
        }
        let bytes = bytes.to_device(&Device::Cpu)?.to_vec1::<u8>()?;
        let mut step = [0; 8];
        step.copy_from_slice(&bytes);
        self.step = u64::from_le_bytes(step);
        Ok(())
    }

    /// Saves the state to a safetensors file, as candle's `VarMap::save` does weights.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// let path = std::env::temp_dir().join(format!("scheduler-save-{}.safetensors", std::process::id()));
    /// Scheduler::new(1.0).save(&path, "tau")?;
    /// assert!(candle_core::safetensors::load(&path, &candle_core::Device::Cpu)?.contains_key("tau.step"));
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>, name: &str) -> Result<()> {
        candle_core::safetensors::save(&self.state(name)?, path)
    }

    /// Takes the state up from a safetensors file.
    ///
    /// ```
    /// use candle_reparam::schedules::Scheduler;
    /// let path = std::env::temp_dir().join(format!("scheduler-load-{}.safetensors", std::process::id()));
    /// let mut tau = Scheduler::new(1.0);
    /// tau.set_step(7);
    /// tau.save(&path, "tau")?;
    /// let mut resumed = Scheduler::new(1.0);
    /// resumed.load(&path, "tau")?;
    /// assert_eq!(resumed.current_step(), 7);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn load(&mut self, path: impl AsRef<Path>, name: &str) -> Result<()> {
        let state = candle_core::safetensors::load(path, &Device::Cpu)?;
        self.restore(&state, name)
    }
}

fn entry(name: &str) -> String {
    format!("{name}.step")
}
