use crate::launch::{Context, Grid, KeyStorage, Path, WARP, columns};
use crate::op::{rows_of, without};
use crate::rng::KeySource;
use crate::rowwise::Rows;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

/// Elements of a tile, and threads of the block that chooses one, as in kernels/categorical.cu.
const TILE: usize = 1024;
const CHOOSE_THREADS: usize = 256;

pub(super) fn forward(
    name: &'static str,
    dim: usize,
    key: &KeySource,
    storage: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let (dtype, device) = (storage.dtype(), storage.device());
    let context = Context::new(name, "categorical", dtype, layout.shape(), device);
    let (rows, shape) = (rows_of(layout, dim), without(layout, dim));
    let key = KeyStorage::new(name, key)?;
    let input = (storage, layout);
    let mut out = context.output(DType::U32, rows.count())?;
    if rows.elements() == 0 {
        return Ok((out, shape));
    }
    if rows.len <= TILE {
        let lanes = rows.len.next_power_of_two().min(WARP);
        let mut args = context.args();
        args.input(input, Some(dim))?;
        args.output(&mut out)?;
        args.rows(rows);
        args.key(&key)?;
        args.number(lanes)?;
        args.launch("categorical_lanes", Path::Lanes { lanes }.grid(rows, 1))?;
        return Ok((out, shape));
    }
    let tiles = rows.len.div_ceil(TILE);
    let mut stats = context.scratch(2 * rows.count() * tiles)?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut stats)?;
    args.rows(rows);
    args.number(tiles)?;
    if rows.inner == 1 {
        // A warp a tile.
        let grid = Grid {
            blocks: rows.count() * tiles.div_ceil(4),
            x: 4 * WARP,
            y: 1,
        };
        args.launch("categorical_tiles", grid)?;
    } else {
        let tile = Rows { len: TILE, ..rows };
        let mut grid = columns(tile, 1, false).grid(tile, 1);
        grid.blocks *= tiles;
        args.launch("categorical_tiles_columns", grid)?;
    }
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.output(&mut stats)?;
    args.output(&mut out)?;
    args.rows(rows);
    args.key(&key)?;
    args.number(tiles)?;
    let grid = Grid {
        blocks: rows.count(),
        x: CHOOSE_THREADS,
        y: 1,
    };
    args.launch("categorical_choose", grid)?;
    Ok((out, shape))
}
