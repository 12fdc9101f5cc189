//! What every distribution has beside its parameters: shapes, dtype, device, and how far its arguments are checked.

use crate::check;
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

/// Whether the *values* of parameters and of arguments of `log_prob` are checked. Shapes, dtypes and devices always are.
///
/// To see a value in a CUDA device's memory the program has to wait for the device, so by default that is not done:
/// there, a value outside of the support gives what the formula gives, and a parameter that is no parameter NaN. On the
/// CPU a check costs one pass over the argument. As `validate_args` of `torch.distributions`, which waits by default.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::distributions::{Distribution, Normal, Validation};
/// let (loc, scale) = (Tensor::new(0f32, &Device::Cpu)?, Tensor::new(1f32, &Device::Cpu)?);
/// let checked = Normal::new(&loc, &scale)?.with_validation(Validation::Always)?;
/// assert!(checked.log_prob(&Tensor::new(f32::NAN, &Device::Cpu)?).is_err());
/// let unchecked = checked.with_validation(Validation::Never)?;
/// assert!(unchecked.log_prob(&Tensor::new(f32::NAN, &Device::Cpu)?).is_ok());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// On the CPU, where it costs a pass; not on CUDA, where it would wait for the device.
    #[default]
    Auto,
    /// On every device.
    Always,
    /// On none.
    Never,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) name: &'static str,
    pub(super) batch: Vec<usize>,
    pub(super) event: Vec<usize>,
    pub(super) dtype: DType,
    pub(super) device: Device,
    pub(super) validation: Validation,
}

/// A rule for values: what is expected, in words, and whether a value is that.
pub(super) type Rule = (&'static str, fn(f64) -> bool);

pub(super) const FINITE: Rule = ("a finite number", f64::is_finite);
pub(super) const POSITIVE: Rule = ("a finite number above 0", |x| x.is_finite() && x > 0.0);
pub(super) const NUMBER: Rule = ("a number", |x| !x.is_nan());
pub(super) const UNIT: Rule = ("a number from 0 to 1", |x| (0.0..=1.0).contains(&x));
pub(super) const LOGIT: Rule = ("a number below +inf, of which -inf is a mask", |x| {
    x < f64::INFINITY
});
pub(super) const WEIGHT: Rule = ("a finite number, 0 or above", |x| x.is_finite() && x >= 0.0);

impl Frame {
    /// The frame of parameters that broadcast to one batch shape, and those parameters: wide, and of that shape. The last
    /// `event` dims are the event's.
    pub(super) fn new<const N: usize>(
        name: &'static str,
        parameters: [(&str, &Tensor); N],
        event: usize,
    ) -> Result<(Self, [Tensor; N])> {
        let (first_name, first) = parameters[0];
        check::tensor(name, first_name, first)?;
        let mut dims = first.dims().to_vec();
        for (what, parameter) in &parameters[1..] {
            check::placed_alike(name, (first_name, first), (what, parameter))?;
            dims = match broadcast(&dims, parameter.dims()) {
                Some(dims) => dims,
                None => bail!(
                    "{name}: {first_name} has shape {:?}, {what} has {:?}; expected shapes that broadcast together",
                    first.dims(),
                    parameter.dims()
                ),
            };
        }
        if dims.len() < event {
            bail!(
                "{name}: {first_name} has shape {dims:?}, expected at least {event} dim, the last one over the classes"
            )
        }
        let event = dims.split_off(dims.len() - event);
        if event.contains(&0) {
            bail!(
                "{name}: {first_name} has shape {:?}; the last dim is empty, there is nothing to choose from",
                first.dims()
            )
        }
        let frame = Self {
            name,
            batch: dims,
            event,
            dtype: first.dtype(),
            device: first.device().clone(),
            validation: Validation::default(),
        };
        let full = frame.dims(&[]);
        check::size(name, "the distribution", &full, frame.dtype)?;
        let mut wide_parameters = parameters.map(|(_, parameter)| parameter.clone());
        for parameter in &mut wide_parameters {
            *parameter = over(&wide(parameter)?, &full)?;
        }
        Ok((frame, wide_parameters))
    }

    /// Sample, batch and event dims.
    pub(super) fn dims(&self, sample: &[usize]) -> Vec<usize> {
        [sample, &self.batch, &self.event].concat()
    }

    /// The dims of a sample, where there is memory for so many.
    pub(super) fn sample_dims(&self, sample: &[usize]) -> Result<Vec<usize>> {
        let size: Option<usize> = sample
            .iter()
            .chain(&self.batch)
            .chain(&self.event)
            .try_fold(1_usize, |n, &d| n.checked_mul(d));
        if size.is_none() {
            bail!(
                "{}: the sample shape {sample:?} before {:?} has more elements than can be addressed",
                self.name,
                self.dims(&[])
            )
        }
        let dims = self.dims(sample);
        check::size(self.name, "the sample", &dims, self.dtype)?;
        Ok(dims)
    }

    /// In the dtype of the parameters again.
    pub(super) fn rounded(&self, t: &Tensor) -> Result<Tensor> {
        t.to_dtype(self.dtype)
    }

    /// The dtype that the distribution computes in.
    pub(super) fn wide_dtype(&self) -> DType {
        wide_dtype(self.dtype)
    }

    fn checks(&self, device: &Device) -> bool {
        match self.validation {
            Validation::Auto => device.is_cpu(),
            Validation::Always => true,
            Validation::Never => false,
        }
    }

    /// Checks values, where the mode says so.
    pub(super) fn require(
        &self,
        what: &str,
        t: &Tensor,
        (expected, ok): (&str, impl Fn(f64) -> bool),
    ) -> Result<()> {
        if !self.checks(t.device()) {
            return Ok(());
        }
        if let Some((at, value)) = first_bad(t, ok)? {
            bail!(
                "{}: {what} has the value {value} at {at:?}, expected {expected}",
                self.name
            )
        }
        Ok(())
    }

    /// Checks rows over the last dim by what `ok` says of the row's sum, where the mode says so.
    pub(super) fn require_rows(
        &self,
        what: &str,
        sums: impl FnOnce() -> Result<Tensor>,
        (expected, ok): (&str, impl Fn(f64) -> bool),
    ) -> Result<()> {
        if !self.checks(&self.device) {
            return Ok(());
        }
        if let Some((at, sum)) = first_bad(&sums()?, ok)? {
            bail!(
                "{}: the row of {what} at {at:?} sums to {sum}, expected {expected}",
                self.name
            )
        }
        Ok(())
    }

    /// A value to take the density of: checked, wide, and broadcast with the batch; its dims are the second.
    pub(super) fn value(&self, value: &Tensor, rule: Rule) -> Result<(Tensor, Vec<usize>)> {
        let name = self.name;
        if value.dtype() != self.dtype {
            bail!(
                "{name}: the value has dtype {:?}, the parameters have {:?}; expected the same",
                value.dtype(),
                self.dtype
            )
        }
        let dims = self.value_dims(value)?;
        self.require("the value", value, rule)?;
        Ok((over(&wide(value)?, &dims)?, dims))
    }

    /// The dims of a value's density, event dims included.
    pub(super) fn value_dims(&self, value: &Tensor) -> Result<Vec<usize>> {
        let name = self.name;
        if !value.device().same_device(&self.device) {
            bail!(
                "{name}: the value is on {:?}, the parameters on {:?}; expected the same device",
                value.device().location(),
                self.device.location()
            )
        }
        let full = self.dims(&[]);
        let split = value.rank().checked_sub(self.event.len());
        let fits = split.is_some_and(|split| value.dims()[split..] == self.event[..]);
        match broadcast(value.dims(), &full).filter(|_| fits) {
            Some(dims) => Ok(dims),
            None => bail!(
                "{name}: the value has shape {:?}, expected one that ends in the event shape {:?} and broadcasts with the \
                 batch shape {:?}",
                value.dims(),
                self.event,
                self.batch
            ),
        }
    }

    /// The frame of a larger batch.
    pub(super) fn expanded(&self, batch: &[usize]) -> Result<Self> {
        if broadcast(batch, &self.batch).as_deref() != Some(batch) {
            bail!(
                "{}: the batch shape {:?} does not broadcast to {batch:?}",
                self.name,
                self.batch
            )
        }
        let frame = Self {
            batch: batch.to_vec(),
            ..self.clone()
        };
        frame.sample_dims(&[])?;
        Ok(frame)
    }

    /// The dims that two distributions of one kind broadcast to.
    pub(super) fn common(&self, other: &Self) -> Result<Vec<usize>> {
        let name = self.name;
        if self.dtype != other.dtype {
            bail!(
                "{name}: kl_divergence between distributions of dtype {:?} and {:?}; expected the same",
                self.dtype,
                other.dtype
            )
        }
        if !self.device.same_device(&other.device) {
            bail!(
                "{name}: kl_divergence between distributions on {:?} and {:?}; expected the same device",
                self.device.location(),
                other.device.location()
            )
        }
        match broadcast(&self.batch, &other.batch).filter(|_| self.event == other.event) {
            Some(batch) => Ok([&batch[..], &self.event].concat()),
            None => bail!(
                "{name}: kl_divergence between distributions of shapes {:?} and {:?}; expected batches that broadcast \
                 together and one event shape",
                self.dims(&[]),
                other.dims(&[])
            ),
        }
    }
}

/// Halves in f32: one rounding at the end, and gradients summed before it.
pub(super) fn wide_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

pub(super) fn wide(t: &Tensor) -> Result<Tensor> {
    t.to_dtype(wide_dtype(t.dtype()))
}

/// `t` broadcast to `dims`.
pub(super) fn over(t: &Tensor, dims: &[usize]) -> Result<Tensor> {
    if t.dims() == dims {
        Ok(t.clone())
    } else {
        t.broadcast_as(dims)
    }
}

/// The dims that two shapes broadcast to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// The first element in row-major order that is not as it should be, and where it stands.
fn first_bad(t: &Tensor, ok: impl Fn(f64) -> bool) -> Result<Option<(Vec<usize>, f64)>> {
    let there = t.detach().to_device(&Device::Cpu)?;
    let (storage, _) = there.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("a tensor on the CPU has its storage elsewhere")
    };
    macro_rules! scan {
        ($data:expr, $wide:expr) => {
            there
                .strided_index()
                .enumerate()
                .find_map(|(i, at)| Some((i, $wide($data[at]))).filter(|(_, x)| !ok(*x)))
        };
    }
    let found = match storage {
        CpuStorage::F32(data) => scan!(data, f64::from),
        CpuStorage::F64(data) => scan!(data, f64::from),
        CpuStorage::F16(data) => scan!(data, f64::from),
        CpuStorage::BF16(data) => scan!(data, f64::from),
        CpuStorage::U8(data) => scan!(data, f64::from),
        CpuStorage::U32(data) => scan!(data, f64::from),
        CpuStorage::I64(data) => scan!(data, |x| x as f64),
        _ => bail!("dtype {:?} is not supported", t.dtype()),
    };
    Ok(found.map(|(mut flat, value)| {
        let mut at = vec![0; t.rank()];
        for (place, &dim) in at.iter_mut().zip(t.dims()).rev() {
            (*place, flat) = (flat % dim, flat / dim);
        }
        (at, value)
    }))
}
