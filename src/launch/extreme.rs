//! The kernels of kernels/include/extreme.cuh: of each row's largest element.

use super::plan::{self, Path};
use super::{Args, Context};
use crate::rowwise::Rows;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result};

/// Runs the kernels whose names, in their file, begin with `kernel`, over the rows of `x` along `dim`; `per_row` says whether a
/// row's result is a value or as long as the row. Behind the rows come a sign, where there is one, and the path's own.
pub(crate) fn extreme(
    op: &'static str,
    (module, kernel): (&'static str, &str),
    x: (&CudaStorage, &Layout),
    grad: Option<(&CudaStorage, &Layout)>,
    dim: usize,
    sign: Option<f64>,
    per_row: bool,
) -> Result<CudaStorage> {
    let (dtype, device) = (x.0.dtype(), x.0.device());
    let context = Context::new(op, module, dtype, x.1.shape(), device);
    let rows = Rows::new(x.1.shape(), dim);
    let count = if per_row {
        rows.count()
    } else {
        rows.elements()
    };
    let mut out = context.output(dtype, count)?;
    if count == 0 {
        return Ok(out);
    }
    let group = context.group();
    let mut args: Args = context.args();
    let vector = args.input(x, Some(dim))?;
    if let Some(grad) = grad {
        args.input(grad, None)?;
    }
    args.output(&mut out)?;
    args.rows(rows);
    if let Some(sign) = sign {
        args.parameters(&[sign]);
    }
    let path = if rows.inner > 1 {
        plan::columns(rows, group, vector)
    } else {
        plan::looped(rows)
    };
    if let Path::Lanes { lanes } = path {
        args.number(lanes)?;
    }
    args.launch(
        &format!("{kernel}{}", path.suffix()),
        path.grid(rows, group),
    )?;
    Ok(out)
}
