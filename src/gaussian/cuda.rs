use crate::launch::{Context, Path, columns, looped};
use crate::op::{rows_of, without};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

pub(super) fn divergence(
    name: &'static str,
    dim: usize,
    mean: (&CudaStorage, &Layout),
    log_var: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (dtype, device) = (mean.0.dtype(), mean.0.device());
    let context = Context::new(name, "gaussian", dtype, mean.1.shape(), device);
    let (rows, shape) = (rows_of(mean.1, dim), without(mean.1, dim));
    let mut out = context.output(dtype, rows.count())?;
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
