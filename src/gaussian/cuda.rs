use super::Map;
use crate::launch::{Context, KeyArg, KeyStorage, Path, columns, elementwise, looped};
use crate::op::{rows_of, without};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

fn context(name: &'static str, (storage, layout): (&CudaStorage, &Layout)) -> Context {
    let (dtype, device) = (storage.dtype(), storage.device());
    Context::new(name, "gaussian", dtype, layout.shape(), device)
}

/// An elementwise kernel of two tensors of one shape.
pub(super) fn apply(
    name: &'static str,
    map: &Map,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (kernel, key) = match map {
        Map::Sample(key) => ("gaussian_sample", Some(key)),
        Map::SampleGradient(key) => ("gaussian_sample_gradient", Some(key)),
        Map::MeanGradient => ("gaussian_kl_mean_gradient", None),
        Map::LogVarGradient => ("gaussian_kl_log_var_gradient", None),
    };
    let key = match key {
        Some(key) => KeyStorage::new(name, key)?,
        None => KeyStorage::Value(KeyArg::default()),
    };
    let context = context(name, a);
    let shape = a.1.shape().clone();
    let n = shape.elem_count();
    let mut out = context.output(a.0.dtype(), n)?;
    if n > 0 {
        let mut args = context.args();
        // Both are looked at, since both are handed to the kernel.
        let vectors = [args.input(a, None)?, args.input(b, None)?];
        args.output(&mut out)?;
        args.count(n);
        args.key(&key)?;
        let suffix = if vectors == [true; 2] { "" } else { "_strided" };
        let grid = elementwise(n, context.group(), context.processors()?);
        args.launch(&format!("{kernel}{suffix}"), grid)?;
    }
    Ok((out, shape))
}

pub(super) fn divergence(
    name: &'static str,
    dim: usize,
    mean: (&CudaStorage, &Layout),
    log_var: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let context = context(name, mean);
    let (rows, shape) = (rows_of(mean.1, dim), without(mean.1, dim));
    let mut out = context.output(mean.0.dtype(), rows.count())?;
    if rows.count() == 0 {
        return Ok((out, shape));
    }
    let group = context.group();
    let mut args = context.args();
    let vectors = [
        args.input(mean, Some(dim))?,
        args.input(log_var, Some(dim))?,
    ];
    args.output(&mut out)?;
    args.rows(rows);
    let path = if rows.inner > 1 {
        columns(rows, group, vectors == [true; 2])
    } else {
        looped(rows)
    };
    if let Path::Lanes { lanes } = path {
        args.number(lanes)?;
    }
    let name = format!("gaussian_kl{}", path.suffix());
    args.launch(&name, path.grid(rows, group))?;
    Ok((out, shape))
}
