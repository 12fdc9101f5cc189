use crate::launch::{Context, Grid, KeyStorage, Path, Tau, looped, top_k};
use crate::op::with_size;
use crate::rng::KeySource;
use crate::rowwise::Rows;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

/// The most scratch memory that rows at work take together, where one block of them does not need more.
const SCRATCH: usize = 1 << 28;
/// The longest row: its elements are counted in 32 bits, past which no step of a team may lead.
const LONGEST: usize = 1 << 31;

fn context(name: &'static str, (storage, layout): (&CudaStorage, &Layout)) -> Context {
    let (dtype, device) = (storage.dtype(), storage.device());
    Context::new(name, "relaxed_top_k", dtype, layout.shape(), device)
}

/// How rows that take their turns are cut into teams: the path, its grid, and the bytes of scratch memory of each team.
fn teams(
    name: &'static str,
    context: &Context,
    rows: Rows,
    k: usize,
    arrays: usize,
) -> Result<(Path, Grid, usize)> {
    let path = looped(rows);
    let mut grid = path.grid(rows, context.group());
    let per_block = match path {
        Path::Lanes { lanes } => grid.x / lanes,
        _ => 1,
    };
    let real = context.wide().size_in_bytes();
    let bytes = team_bytes(rows.len, k, arrays, real);
    let Some(bytes) = bytes.filter(|_| rows.len <= LONGEST) else {
        bail!(
            "{name}: rows of {} elements, of which {k} are drawn, are too large: the CUDA kernels take rows of up to {LONGEST} \
             elements and scratch memory that can be addressed",
            rows.len
        )
    };
    let fit = (SCRATCH / (bytes * per_block)).max(1);
    grid.blocks = grid.blocks.min(fit).min(8 * context.processors()?);
    Ok((path, grid, bytes))
}

/// The scratch memory of a team: what is known of each iteration, four numbers and an index, and so many arrays of a row's
/// length.
fn team_bytes(len: usize, k: usize, arrays: usize, real: usize) -> Option<usize> {
    let steps = k.checked_mul(4 * real + 8)?;
    let arrays = arrays.checked_mul(len)?.checked_mul(real)?;
    let bytes = steps.checked_add(arrays)?.checked_next_multiple_of(16)?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

/// The scratch memory of all teams.
fn scratch(context: &Context, path: Path, grid: Grid, bytes: usize) -> Result<CudaStorage> {
    let per_block = match path {
        Path::Lanes { lanes } => grid.x / lanes,
        _ => 1,
    };
    context.scratch(grid.blocks * per_block * bytes / 8)
}

pub(super) fn relaxed(
    name: &'static str,
    (k, dim): (usize, usize),
    key: &KeySource,
    input: (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let context = context(name, input);
    let (rows, shape) = (Rows::new(input.1.shape(), dim), input.1.shape().clone());
    let mut out = context.output(input.0.dtype(), rows.elements())?;
    if rows.elements() == 0 {
        return Ok((out, shape));
    }
    let key = KeyStorage::new(name, key)?;
    let (path, grid, bytes) = teams(name, &context, rows, k, 4)?;
    let mut room = scratch(&context, path, grid, bytes)?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut room)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(tau, dim)?;
    args.key(&key)?;
    args.number(k)?;
    args.count(bytes);
    args.finish("relaxed_top_k", path, grid)?;
    Ok((out, shape))
}

/// The k-hots of the rows; NaN in a row without `k` classes.
pub(super) fn k_hot(
    name: &'static str,
    (k, dim): (usize, usize),
    key: &KeySource,
    input: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let context = context(name, input);
    let (rows, shape) = (Rows::new(input.1.shape(), dim), input.1.shape().clone());
    let mut out = context.output(input.0.dtype(), rows.elements())?;
    if rows.elements() == 0 {
        return Ok((out, shape));
    }
    let drawn = top_k(&context, k, input, dim, &KeyStorage::new(name, key)?)?;
    let path = looped(rows);
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.scratch(&drawn)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.number(k)?;
    args.finish("gumbel_top_k_st", path, path.grid(rows, context.group()))?;
    Ok((out, shape))
}

/// The gradient of the logits, or with `to_tau` that of each row's temperature, not rounded to a half type.
pub(super) fn gradient(
    name: &'static str,
    (k, dim): (usize, usize),
    key: &KeySource,
    input: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
    tau: Tau,
    to_tau: bool,
) -> Result<(CudaStorage, Shape)> {
    let context = context(name, input);
    let rows = Rows::new(input.1.shape(), dim);
    let (dtype, count, shape): (DType, usize, Shape) = if to_tau {
        (context.wide(), rows.count(), with_size(input.1, dim, 1))
    } else {
        let shape = input.1.shape().clone();
        (input.0.dtype(), rows.elements(), shape)
    };
    let mut out = context.output(dtype, count)?;
    if rows.elements() == 0 {
        return Ok((out, shape));
    }
    let key = KeyStorage::new(name, key)?;
    let (path, grid, bytes) = teams(name, &context, rows, k, 3 + k)?;
    let mut room = scratch(&context, path, grid, bytes)?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.input(grad, Some(dim))?;
    args.output(&mut room)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(tau, dim)?;
    args.key(&key)?;
    args.number(k)?;
    args.count(bytes);
    let kernel = if to_tau {
        "relaxed_top_k_gradient_tau"
    } else {
        "relaxed_top_k_gradient"
    };
    args.finish(kernel, path, grid)?;
    Ok((out, shape))
}

#[cfg(test)]
mod tests {
    use super::team_bytes;

    #[test]
    fn scratch_that_cannot_be_addressed_is_no_small_number() {
        assert_eq!(team_bytes(10, 2, 5, 4), Some(2 * 24 + 200 + 8));
        assert_eq!(team_bytes(10, 2, 5, 8), Some(2 * 40 + 400));
        // 3 + k arrays of 2^31 f32 in which k numbers are drawn: 2^64 bytes and a few, which would wrap.
        assert_eq!(team_bytes(1 << 31, 1 << 31, 3 + (1 << 31), 4), None);
        assert_eq!(team_bytes(1 << 31, 1 << 30, 3 + (1 << 30), 4), None);
    }
}
