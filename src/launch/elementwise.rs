//! The kernels of kernels/include/elementwise.cuh.

use super::view::KeyArg;
use super::{Context, KeyStorage, plan};
use crate::rng::KeySource;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

/// Applies an elementwise kernel, named by its file and its name there, to tensors of one shape.
pub(crate) fn elementwise(
    op: &'static str,
    (module, kernel): (&'static str, &'static str),
    operands: &[(&CudaStorage, &Layout)],
    key: Option<&KeySource>,
    parameters: &[f64],
) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = operands[0];
    let (dtype, shape) = (storage.dtype(), layout.shape().clone());
    let context = Context::new(op, module, dtype, &shape, storage.device());
    let key = match key {
        Some(key) => KeyStorage::new(op, key)?,
        None => KeyStorage::Value(KeyArg::default()),
    };
    let n = shape.elem_count();
    let mut out = context.output(dtype, n)?;
    if n > 0 {
        let mut args = context.args();
        let mut vectors = true;
        for &operand in operands {
            vectors &= args.input(operand, None)?;
        }
        args.output(&mut out)?;
        args.count(n);
        args.key(&key)?;
        args.parameters(parameters);
        let suffix = if vectors { "" } else { "_strided" };
        let grid = plan::over_groups(n, context.group(), context.processors()?);
        args.launch(&format!("{kernel}{suffix}"), grid)?;
    }
    Ok((out, shape))
}
