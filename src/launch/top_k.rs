//! The kernels of kernels/gumbel_top_k.cu: the indices of the k largest logits plus Gumbel noise in each row.

use super::plan::{self, Grid, Path, WARP};
use super::{Context, KeyStorage};
use crate::rowwise::Rows;
use candle_core::{CudaStorage, DType, Layout, Result};

// As in the kernels.
const THREADS: usize = 256;
const MOST: usize = 1024;
const SORT_TILE: usize = 2048;
/// Groups of 4 elements that a lane of a warp holds, in f32.
const LANE_GROUPS: usize = 4;

/// The most that lanes of a warp draw: each draw is a reduction.
const LANES_DRAW: usize = 64;
/// Groups from which on a stretch of a row is worth a block of its own.
const STRETCH: usize = 2048;
/// The most groups whose elements 31 bits can count.
const COUNTED: usize = 1 << 27;

/// The indices, of shape (outer, k, inner).
pub(crate) fn top_k(
    context: &Context,
    k: usize,
    input: (&CudaStorage, &Layout),
    dim: usize,
    key: &KeyStorage,
) -> Result<CudaStorage> {
    let context = &context.with_module("gumbel_top_k");
    let rows = Rows::new(input.1.shape(), dim);
    let mut out = context.output(DType::U32, rows.count() * k)?;
    if rows.elements() == 0 {
        return Ok(out);
    }
    if k > MOST {
        sorted(context, k, input, dim, key, &mut out)?;
        return Ok(out);
    }
    let group = context.group();
    let across = rows.inner > 1;
    let groups = if across {
        rows.len.div_ceil(group)
    } else {
        plan::groups(rows.len, group)
    };
    let suffix = if across { "_across" } else { "" };
    let held = LANE_GROUPS * 16 / (group * context.wide().size_in_bytes());
    if groups <= held * WARP && k <= LANES_DRAW {
        let lanes = groups.next_power_of_two().min(WARP);
        let mut args = context.args();
        args.input(input, Some(dim))?;
        args.output(&mut out)?;
        args.rows(rows);
        args.key(key)?;
        args.number(k)?;
        args.number(lanes)?;
        let grid = Path::Lanes { lanes }.grid(rows, group);
        args.launch(&format!("gumbel_top_k_lanes{suffix}"), grid)?;
        return Ok(out);
    }
    let stretch = STRETCH.max(4 * k / group);
    let wanted = (2 * context.processors()?).div_ceil(rows.outer.max(1));
    let pieces = wanted.min(groups / stretch).max(groups.div_ceil(COUNTED));
    if across || pieces < 2 {
        let mut args = context.args();
        args.input(input, Some(dim))?;
        args.output(&mut out)?;
        args.rows(rows);
        args.key(key)?;
        args.number(k)?;
        let grid = Grid {
            blocks: rows.count(),
            x: THREADS,
            y: 1,
        };
        args.launch(&format!("gumbel_top_k_block{suffix}"), grid)?;
        return Ok(out);
    }
    let per_piece = groups.div_ceil(pieces);
    let pieces = groups.div_ceil(per_piece);
    let mut drawn = context.scratch(rows.count() * pieces * k * words(context))?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut drawn)?;
    args.rows(rows);
    args.key(key)?;
    args.number(k)?;
    args.number(pieces)?;
    args.number(per_piece)?;
    let mut grid = Grid {
        blocks: rows.count() * pieces,
        x: THREADS,
        y: 1,
    };
    args.launch("gumbel_top_k_pieces", grid)?;
    let mut args = context.args();
    args.scratch(&drawn)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.number(k)?;
    args.number(pieces)?;
    grid.blocks = rows.count();
    args.launch("gumbel_top_k_join", grid)?;
    Ok(out)
}

/// Values of 8 bytes of a candidate: its score and its index.
fn words(context: &Context) -> usize {
    context.wide().size_in_bytes() / 4
}

/// Of so many that a block cannot hold them: all scores of every row are sorted.
fn sorted(
    context: &Context,
    k: usize,
    input: (&CudaStorage, &Layout),
    dim: usize,
    key: &KeyStorage,
    out: &mut CudaStorage,
) -> Result<()> {
    let rows = Rows::new(input.1.shape(), dim);
    let padded = rows.len.next_power_of_two().max(SORT_TILE);
    let all = rows.count() * padded;
    let grid = |threads: usize| Grid {
        blocks: threads.div_ceil(THREADS),
        x: THREADS,
        y: 1,
    };
    let mut ranks = context.scratch(all * words(context))?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut ranks)?;
    args.rows(rows);
    args.key(key)?;
    args.number(padded)?;
    args.launch("gumbel_top_k_keys", grid(all))?;
    let sort = |ranks: &mut CudaStorage, from: usize, to: usize| {
        let mut args = context.args();
        args.output(ranks)?;
        args.number(padded)?;
        args.number(from)?;
        args.number(to)?;
        let tiles = Grid {
            blocks: all / SORT_TILE,
            x: THREADS,
            y: 1,
        };
        args.launch("gumbel_top_k_sort", tiles)
    };
    sort(&mut ranks, 2, SORT_TILE)?;
    let mut size = 2 * SORT_TILE;
    while size <= padded {
        let mut stride = size / 2;
        while stride >= SORT_TILE {
            let mut args = context.args();
            args.output(&mut ranks)?;
            args.number(padded)?;
            args.number(size)?;
            args.number(stride)?;
            args.launch("gumbel_top_k_merge", grid(all / 2))?;
            stride /= 2;
        }
        sort(&mut ranks, size, size)?;
        size *= 2;
    }
    let mut args = context.args();
    args.scratch(&ranks)?;
    args.output(out)?;
    args.rows(rows);
    args.number(k)?;
    args.number(padded)?;
    args.launch("gumbel_top_k_write", grid(rows.count() * k))
}
