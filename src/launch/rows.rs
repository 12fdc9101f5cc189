//! The softmax family on CUDA: the forward engine of kernels/include/softmax.cuh and the backward engine of gradient.cuh,
//! which several rooms share.

use super::plan::{self, Grid, Path};
use super::{Args, Context, KeyStorage, Tau};
use crate::backward::Family;
use crate::rowwise::Rows;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

/// The kernels of a forward op.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    /// What the kernels' names begin with, and that of the kernel that sums up pieces.
    pub(crate) name: &'a str,
    pub(crate) pieces: &'a str,
    /// The most threads of a block.
    pub(crate) threads: usize,
}

/// Threads of a block for kernels that hold `f64` take twice the registers.
fn at_most(threads: usize, dtype: DType) -> usize {
    if dtype == DType::F64 {
        threads.min(512)
    } else {
        threads
    }
}

/// The path of an op whose rows a team holds in registers, and those rows; none where there is no such team, or no row.
pub(crate) fn held_path(
    context: &Context,
    kernels: Forward,
    shape: &Shape,
    dim: usize,
) -> Option<(Path, Rows)> {
    let rows = Rows::new(shape, dim);
    let threads = at_most(kernels.threads, context.dtype);
    let path = plan::held(rows, context.group(), context.share(), threads, false);
    let held = matches!(path, Path::Lanes { .. } | Path::Block { .. });
    (held && rows.elements() > 0).then_some((path, rows))
}

/// The path over rows of `input`, which has to be looked at first for whether it is a vector.
fn is_vector(context: &Context, input: (&CudaStorage, &Layout), dim: usize) -> Result<bool> {
    context.args().input(input, Some(dim))
}

impl Args<'_> {
    /// Launches the kernel that writes the result on a path: with the number of its lanes, or of the pieces that it joins.
    pub(crate) fn finish(mut self, name: &str, path: Path, grid: Grid) -> Result<()> {
        match path {
            Path::Lanes { lanes } => self.number(lanes)?,
            Path::Pieces { pieces, .. } => self.number(pieces)?,
            Path::Block { .. } | Path::Columns { .. } => {}
        }
        let suffix = match path {
            Path::Pieces { .. } => "_join",
            path => path.suffix(),
        };
        self.launch(&format!("{name}{suffix}"), grid)
    }
}

/// The softmax of logits, with the noise of a key where one is given.
pub(crate) fn softmax(
    context: &Context,
    kernels: Forward,
    input: (&CudaStorage, &Layout),
    dim: usize,
    tau: Tau,
    key: Option<&KeyStorage>,
) -> Result<CudaStorage> {
    let rows = Rows::new(input.1.shape(), dim);
    let mut out = context.output(context.dtype, rows.elements())?;
    if rows.elements() == 0 {
        return Ok(out);
    }
    let group = context.group();
    let vector = is_vector(context, input, dim)?;
    let threads = at_most(kernels.threads, context.dtype);
    let path = plan::held(rows, group, context.share(), threads, vector);
    let grid = path.grid(rows, group);
    let mut stats = None;
    if let Path::Pieces { pieces, .. } = path {
        let mut scratch = context.scratch(2 * grid.blocks)?;
        let mut args = context.args();
        args.input(input, Some(dim))?;
        args.output(&mut scratch)?;
        args.rows(rows);
        args.tau(tau, dim)?;
        if let Some(key) = key {
            args.key(key)?;
        }
        args.number(pieces)?;
        args.launch(kernels.pieces, grid)?;
        stats = Some(scratch);
    }
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.scratch_if(stats.as_ref())?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(tau, dim)?;
    if let Some(key) = key {
        args.key(key)?;
    }
    args.finish(kernels.name, path, grid)?;
    Ok(out)
}

/// The forward result of a backward pass: an operand, or in the output, which replaces it.
pub(crate) enum Operand<'a> {
    Tensor(&'a CudaStorage, &'a Layout),
    InOutput(CudaStorage, &'a Layout),
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Softmax => "softmax_gradient",
        Family::LogSoftmax => "log_softmax_gradient",
    }
}

/// The gradient of the logits from the forward result and its gradient.
pub(crate) fn gradient(
    context: &Context,
    family: Family,
    result: Operand,
    grad: (&CudaStorage, &Layout),
    dim: usize,
    tau: Tau,
) -> Result<CudaStorage> {
    /// Threads of a block, as in kernels/softmax_gradient.cu.
    const THREADS: usize = 512;
    let context = &context.with_module("softmax_gradient");
    let (layout, operand, mut out) = match result {
        Operand::Tensor(storage, layout) => {
            let out = context.output(context.dtype, layout.shape().elem_count())?;
            (layout, Some(storage), out)
        }
        Operand::InOutput(out, layout) => (layout, None, out),
    };
    let rows = Rows::new(layout.shape(), dim);
    if rows.elements() == 0 {
        return Ok(out);
    }
    let group = context.group();
    let contiguous = Layout::contiguous(layout.shape());
    let vector = is_vector(context, grad, dim)?
        && match operand {
            Some(storage) => is_vector(context, (storage, layout), dim)?,
            None => is_vector(context, (&out, &contiguous), dim)?,
        };
    let path = plan::held(rows, group, context.share(), THREADS, vector);
    let grid = path.grid(rows, group);
    let name = family_name(family);
    let mut parts = None;
    if let Path::Pieces { pieces, .. } = path {
        let mut scratch = context.scratch(4 * grid.blocks)?;
        let mut args = context.args();
        match operand {
            Some(storage) => args.input((storage, layout), Some(dim))?,
            None => args.input((&out, &contiguous), Some(dim))?,
        };
        args.input(grad, Some(dim))?;
        args.output(&mut scratch)?;
        args.rows(rows);
        args.number(pieces)?;
        args.launch(&format!("{name}_pieces"), grid)?;
        parts = Some(scratch);
    }
    let mut args = context.args();
    match operand {
        Some(storage) => {
            args.input((storage, layout), Some(dim))?;
            args.input(grad, Some(dim))?;
            args.scratch_if(parts.as_ref())?;
            args.output(&mut out)?;
        }
        None => {
            let place = args.in_place(&mut out, &contiguous, dim)?;
            args.input(grad, Some(dim))?;
            args.scratch_if(parts.as_ref())?;
            args.again(&place);
        }
    }
    args.rows(rows);
    args.tau(tau, dim)?;
    args.finish(name, path, grid)?;
    Ok(out)
}

/// The gradient of the temperature of each row, not rounded to a half type: it may yet be summed over rows.
pub(crate) fn tau_gradient(
    context: &Context,
    family: Family,
    result: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
    dim: usize,
    tau: Tau,
) -> Result<CudaStorage> {
    let context = &context.with_module("softmax_gradient");
    let rows = Rows::new(result.1.shape(), dim);
    let mut out = context.output(context.wide(), rows.count())?;
    if rows.elements() == 0 {
        return Ok(out);
    }
    let path = plan::looped(rows);
    let mut args = context.args();
    args.input(result, Some(dim))?;
    args.input(grad, Some(dim))?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(tau, dim)?;
    if let Path::Lanes { lanes } = path {
        args.number(lanes)?;
    }
    let name = format!("{}_tau{}", family_name(family), path.suffix());
    args.launch(&name, path.grid(rows, context.group()))?;
    Ok(out)
}
