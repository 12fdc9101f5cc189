use super::{Average, NAME, SAMPLES};
use crate::launch::{Context, Grid, KeyStorage, Operands, Path, Tau};
use crate::rng::KeySource;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

pub(super) fn gradient(
    op: &Average,
    logits: (&CudaStorage, &Layout),
    drawn: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = logits;
    let (dtype, shape) = (storage.dtype(), layout.shape().clone());
    let context = Context::new(NAME, NAME, dtype, &shape, storage.device());
    let mut out = context.output(dtype, shape.elem_count())?;
    if shape.elem_count() == 0 {
        return Ok((out, shape));
    }
    // A key in device memory is folded there.
    let key = match &op.key {
        KeySource::Value(key) => KeySource::Value(key.fold_in(SAMPLES)),
        there => there.clone(),
    };
    let key = KeyStorage::new(NAME, &key)?;
    // As in kernels/gumbel_rao.cu: f64 takes more registers.
    let threads = if dtype == DType::F64 { 384 } else { 512 };
    let operands = Operands([logits, drawn, grad]);
    let (path, rows) = operands.path(&context, op.dim, 2, threads)?;
    let (grid, samples) = (path.grid(rows, context.group()), op.samples as usize);
    // Six numbers for each sample of a row that no team holds.
    let size = if dtype == DType::F64 { 6 } else { 3 };
    let mut sums = match path {
        Path::Lanes { .. } | Path::Block { .. } => None,
        _ => Some(context.scratch(size * rows.count() * samples)?),
    };
    if let (Path::Pieces { .. }, Some(sums)) = (path, &mut sums) {
        let mut args = context.args();
        args.operands(operands, op.dim)?;
        args.output(sums)?;
        args.rows(rows);
        args.tau(Tau::Fixed(op.tau), op.dim)?;
        args.key(&key)?;
        args.number(samples)?;
        let grid = Grid {
            blocks: rows.count() * samples,
            x: threads,
            y: 1,
        };
        args.launch("gumbel_rao_gradient_sums", grid)?;
    }
    let mut args = context.args();
    args.operands(operands, op.dim)?;
    match (path, &mut sums) {
        (Path::Columns { .. }, Some(sums)) => {
            args.output(sums)?;
        }
        (_, sums) => args.scratch_if(sums.as_ref())?,
    }
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(Tau::Fixed(op.tau), op.dim)?;
    args.key(&key)?;
    args.number(samples)?;
    args.finish("gumbel_rao_gradient", path, grid)?;
    Ok((out, shape))
}
