use crate::launch::{Context, Grid, Operands, Path, Tau};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

pub(super) fn gradient(
    name: &'static str,
    dim: usize,
    tau: f64,
    logits: (&CudaStorage, &Layout),
    drawn: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = logits;
    let (dtype, shape) = (storage.dtype(), layout.shape().clone());
    let context = Context::new(name, "reinmax", dtype, &shape, storage.device());
    let mut out = context.output(dtype, shape.elem_count())?;
    if shape.elem_count() == 0 {
        return Ok((out, shape));
    }
    // As in kernels/reinmax.cu: f64 takes twice the registers.
    let threads = if dtype == DType::F64 { 256 } else { 384 };
    let operands = Operands([logits, drawn, grad]);
    let (path, rows) = operands.path(&context, dim, 1, threads)?;
    let grid = path.grid(rows, context.group());
    let mut finishes = None;
    if let Path::Pieces { .. } = path {
        // Seven numbers a row.
        let mut scratch = context.scratch(7 * rows.count())?;
        let mut args = context.args();
        args.operands(operands, dim)?;
        args.output(&mut scratch)?;
        args.rows(rows);
        args.tau(Tau::Fixed(tau), dim)?;
        let grid = Grid {
            blocks: rows.count(),
            x: threads,
            y: 1,
        };
        args.launch("reinmax_gradient_sums", grid)?;
        finishes = Some(scratch);
    }
    let mut args = context.args();
    args.operands(operands, dim)?;
    args.scratch_if(finishes.as_ref())?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(Tau::Fixed(tau), dim)?;
    args.finish("reinmax_gradient", path, grid)?;
    Ok((out, shape))
}
