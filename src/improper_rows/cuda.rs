use crate::launch::{Context, Path, looped};
use crate::op::{rows_of, without};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

pub(super) fn forward(
    name: &'static str,
    dim: usize,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let context = Context::new(
        name,
        "improper_rows",
        storage.dtype(),
        layout.shape(),
        storage.device(),
    );
    let (rows, shape) = (rows_of(layout, dim), without(layout, dim));
    let mut out = context.output(DType::U8, rows.count())?;
    if rows.elements() == 0 {
        return Ok((out, shape));
    }
    let path = looped(rows);
    let mut args = context.args();
    args.input((storage, layout), Some(dim))?;
    args.output(&mut out)?;
    args.rows(rows);
    if let Path::Lanes { lanes } = path {
        args.number(lanes)?;
    }
    let name = format!("improper_rows{}", path.suffix());
    args.launch(&name, path.grid(rows, context.group()))?;
    Ok((out, shape))
}
