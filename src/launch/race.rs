//! The race of kernels/include/race.cuh on CUDA: the winner of each row, as an index or as a one-hot.

use super::plan::{self, Grid, Path, WARP};
use super::{Context, KeyStorage};
use crate::rng::KeySource;
use crate::rowwise::Rows;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

/// What is written of a race.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Winner {
    Index,
    OneHot,
}

/// The one-hots of the winners, by the kernels of one_hot.cu: what the estimators of a one-hot share.
pub(crate) fn drawn_one_hot(
    op: &'static str,
    dim: usize,
    key: &KeySource,
    input: (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = input;
    let (dtype, device) = (storage.dtype(), storage.device());
    let context = Context::new(op, "one_hot", dtype, layout.shape(), device);
    let key = KeyStorage::new(op, key)?;
    let out = race(&context, "one_hot", Winner::OneHot, input, dim, &key)?;
    Ok((out, layout.shape().clone()))
}

/// The winners of the rows of `input`, by the kernels whose names begin with `name`.
pub(crate) fn race(
    context: &Context,
    name: &str,
    winner: Winner,
    input: (&CudaStorage, &Layout),
    dim: usize,
    key: &KeyStorage,
) -> Result<CudaStorage> {
    let rows = Rows::new(input.1.shape(), dim);
    let (dtype, count) = match winner {
        Winner::Index => (DType::U32, rows.count()),
        Winner::OneHot => (context.dtype, rows.elements()),
    };
    let mut out = context.output(dtype, count)?;
    if rows.elements() == 0 {
        return Ok(out);
    }
    let group = context.group();
    let vector = context.args().input(input, Some(dim))?;
    let path = plan::streamed(rows, group, context.processors()?, vector);
    let grid = path.grid(rows, group);
    let Path::Pieces { pieces, groups, .. } = path else {
        let mut args = context.args();
        args.input(input, Some(dim))?;
        args.output(&mut out)?;
        args.rows(rows);
        args.key(key)?;
        if let Path::Lanes { lanes } = path {
            args.number(lanes)?;
        }
        args.launch(&format!("{name}{}", path.suffix()), grid)?;
        return Ok(out);
    };
    // 16 bytes of a piece at most: a score, an index and a flag.
    let mut races = context.scratch(2 * grid.blocks)?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut races)?;
    args.rows(rows);
    args.key(key)?;
    args.number(pieces)?;
    args.number(groups)?;
    args.launch(&format!("{name}_pieces"), grid)?;
    let mut args = context.args();
    args.scratch(&races)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.number(pieces)?;
    let grid = match winner {
        // A warp a row.
        Winner::Index => Grid {
            blocks: rows.count().div_ceil(4),
            x: 4 * WARP,
            y: 1,
        },
        Winner::OneHot => {
            args.number(groups)?;
            grid
        }
    };
    args.launch(&format!("{name}_join"), grid)?;
    Ok(out)
}
