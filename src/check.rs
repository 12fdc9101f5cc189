//! Argument checks: each error names the op and the value, and comes before anything is allocated.

use crate::rng::{Key, KeySource};
use crate::rowwise::Rows;
use candle_core::shape::Dim;
use candle_core::{DType, Device, Result, Tensor, bail};

/// A dtype that the ops compute in.
pub(crate) fn dtype(op: &str, what: &str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(()),
        other => {
            bail!("{op}: {what} has dtype {other:?}, expected one of f32, f64, f16 and bf16")
        }
    }
}

/// A device that the ops run on.
pub(crate) fn device(op: &str, what: &str, device: &Device) -> Result<()> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(_) if cfg!(feature = "cuda") => Ok(()),
        Device::Cuda(_) => bail!(
            "{op}: {what} is on {:?}, but candle-reparam was built without its CUDA kernels; enable its feature `cuda`",
            device.location()
        ),
        Device::Metal(_) => bail!(
            "{op}: {what} is on {:?}, for which there are no kernels; move it to the CPU with to_device(&Device::Cpu)",
            device.location()
        ),
    }
}

/// A key whose stream leaves the top bit free.
pub(crate) fn key(op: &str, key: Key) -> Result<()> {
    if key.stream >> 63 == 0 {
        Ok(())
    } else {
        bail!(
            "{op}: the key's stream is {}, expected one below 2^63",
            key.stream
        )
    }
}

/// [`key`] for an op on `device`: a key in device memory was checked when it was put there.
pub(crate) fn key_source(op: &str, source: &KeySource, device: &Device) -> Result<()> {
    match source {
        KeySource::Value(value) => key(op, *value),
        KeySource::Device(there) if there.tensor().device().same_device(device) => Ok(()),
        KeySource::Device(there) => bail!(
            "{op}: the key is on {:?}, the tensor on {:?}; expected the same device",
            there.tensor().device().location(),
            device.location()
        ),
    }
}

/// A floating-point tensor on a device with kernels.
pub(crate) fn tensor(op: &str, what: &str, tensor: &Tensor) -> Result<()> {
    dtype(op, what, tensor.dtype())?;
    size(op, what, tensor.dims(), tensor.dtype())?;
    device(op, what, tensor.device())
}

/// Two tensors of one shape, dtype and device.
pub(crate) fn alike(
    op: &str,
    (a_name, a): (&str, &Tensor),
    (b_name, b): (&str, &Tensor),
) -> Result<()> {
    tensor(op, a_name, a)?;
    if a.shape() != b.shape() {
        bail!(
            "{op}: {a_name} has shape {:?}, {b_name} has {:?}; expected the same",
            a.dims(),
            b.dims()
        )
    }
    placed_alike(op, (a_name, a), (b_name, b))
}

/// Two tensors of one dtype and device.
pub(crate) fn placed_alike(
    op: &str,
    (a_name, a): (&str, &Tensor),
    (b_name, b): (&str, &Tensor),
) -> Result<()> {
    if a.dtype() != b.dtype() {
        bail!(
            "{op}: {a_name} has dtype {:?}, {b_name} has {:?}; expected the same",
            a.dtype(),
            b.dtype()
        )
    }
    if !a.device().same_device(b.device()) {
        bail!(
            "{op}: {a_name} is on {:?}, {b_name} on {:?}; expected the same device",
            a.device().location(),
            b.device().location()
        )
    }
    Ok(())
}

/// The rows of a tensor over a dim that exists and is not empty, and that dim's index.
pub(crate) fn rows(op: &'static str, tensor: &Tensor, dim: impl Dim) -> Result<(Rows, usize)> {
    let dim = dim.to_index(tensor.shape(), op)?;
    let rows = Rows::new(tensor.shape(), dim);
    if rows.len == 0 {
        bail!(
            "{op}: dim {dim} of shape {:?} is empty; there is nothing to choose from",
            tensor.dims()
        )
    }
    Ok((rows, dim))
}

/// [`rows`] for an op that returns indices as `u32`.
pub(crate) fn indexed_rows(
    op: &'static str,
    tensor: &Tensor,
    dim: impl Dim,
) -> Result<(Rows, usize)> {
    let (rows, dim) = rows(op, tensor, dim)?;
    if u32::try_from(rows.len - 1).is_err() {
        bail!(
            "{op}: dim {dim} has {} elements, more than an index of dtype u32 can name",
            rows.len
        )
    }
    Ok((rows, dim))
}

/// [`indexed_rows`] for an op that draws `k` elements of each row.
pub(crate) fn drawn_rows(
    op: &'static str,
    tensor: &Tensor,
    k: usize,
    dim: impl Dim,
) -> Result<(Rows, usize)> {
    let (rows, dim) = indexed_rows(op, tensor, dim)?;
    if k == 0 || k > rows.len {
        bail!(
            "{op}: k is {k}, expected 1 to {}, the size of dim {dim} of shape {:?}",
            rows.len,
            tensor.dims()
        )
    }
    Ok((rows, dim))
}

/// The temperature rule, for one value.
pub(crate) fn tau(op: &str, tau: f64) -> Result<()> {
    temperature(op, "tau", tau)
}

/// The same for an argument of another name.
pub(crate) fn temperature(op: &str, what: &str, tau: f64) -> Result<()> {
    if tau.is_finite() && tau > 0.0 {
        Ok(())
    } else {
        bail!("{op}: {what} is {tau}, expected a finite number above 0")
    }
}

/// A shape whose elements can be counted and addressed.
pub(crate) fn size(op: &str, what: &str, dims: &[usize], dtype: DType) -> Result<()> {
    let bytes = dims
        .iter()
        .try_fold(dtype.size_in_bytes(), |bytes, &n| bytes.checked_mul(n));
    match bytes {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ if dims.contains(&0) => Ok(()),
        _ => bail!("{op}: {what} has shape {dims:?}, more elements than can be addressed"),
    }
}

/// A finite number.
pub(crate) fn finite(op: &str, what: &str, x: f64) -> Result<()> {
    if x.is_finite() {
        Ok(())
    } else {
        bail!("{op}: {what} is {x}, expected a finite number")
    }
}

/// An interval; its ends may be infinite.
pub(crate) fn interval(op: &str, low: f64, high: f64) -> Result<()> {
    if low <= high && low < f64::INFINITY && high > f64::NEG_INFINITY {
        Ok(())
    } else {
        bail!("{op}: low is {low} and high is {high}, expected numbers with low <= high")
    }
}

/// Two tensors of one dtype and device, as views of the shape that they broadcast to.
pub(crate) fn broadcast(
    op: &'static str,
    (a_name, a): (&str, &Tensor),
    (b_name, b): (&str, &Tensor),
) -> Result<[Tensor; 2]> {
    tensor(op, a_name, a)?;
    tensor(op, b_name, b)?;
    placed_alike(op, (a_name, a), (b_name, b))?;
    let Ok(shape) = a.shape().broadcast_shape_binary_op(b.shape(), op) else {
        bail!(
            "{op}: {a_name} has shape {:?}, {b_name} has {:?}; expected shapes that broadcast to one",
            a.dims(),
            b.dims()
        )
    };
    size(op, "the result", shape.dims(), a.dtype())?;
    let view = |x: &Tensor| {
        if x.shape() == &shape {
            Ok(x.clone())
        } else {
            x.broadcast_as(&shape)
        }
    };
    Ok([view(a)?, view(b)?])
}
