//! A reduction dim as `(outer, len, inner)`, reading tensors of any layout in logical order, and the row and column
//! engines that the ops share.

mod argmax;
mod extreme;
mod gradient;
mod lines;
mod passes;
mod scores;
mod softmax;
mod source;
mod temperature;
mod top_k;

pub(crate) use argmax::{argmax, has_nan, one_hots};
pub(crate) use extreme::{Largest, extreme};
pub(crate) use gradient::{
    Gradient, LogSoftmaxGradient, SoftmaxGradient, gradient, gradient_into, row_pivot, tau_gradient,
};
pub(crate) use lines::Lines;
pub(crate) use passes::{Chunk, Operands, Passes, hot, load_first, passes};
pub(crate) use scores::{Block, Perturbed, Plain, Scores, fill_block, flat_room};
pub(crate) use softmax::{Form, pivot, pivot_lanes, row_map, row_max, softmax};
pub(crate) use source::{Source, push};
pub(crate) use temperature::{Tau, inverse};
pub(crate) use top_k::{Ranked, top_k};

use crate::math::Real;
use crate::output::{Split, threads};
use crate::simd::{Float, Simd};
use candle_core::Shape;

/// Elements of a row that are worked on at a time: two buffers of 16 KiB in f32. Longer rows go through in tiles of this
/// size, whatever the number of threads, so that the order of their sums does not depend on it.
pub(crate) const TILE: usize = 4096;
/// Lines of a column tile that are worked on at a time, fixed for the same reason.
pub(crate) const LINES: usize = 256;
/// Vectors of a row that are summed in one chain; the chains' sums are summed again, which keeps the error down.
pub(crate) const CHAIN: usize = 64;
/// Lines of a block that are summed in one chain; the chains' sums are summed again, which keeps the error down.
pub(crate) const CHAIN_LINES: usize = 16;
/// Elements of a column tile that are worked on at a time, at most.
const COLUMN_TILE: usize = 16384;
/// The least number of elements worth a task of its own, for ops that draw noise and for those that do not.
pub(crate) const GRAIN_NOISE: usize = 8 * 1024;
pub(crate) const GRAIN: usize = 32 * 1024;

/// A shape seen from the dim that an op reduces over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The product of the dims before it.
    pub(crate) outer: usize,
    /// Its size.
    pub(crate) len: usize,
    /// The product of the dims after it.
    pub(crate) inner: usize,
}

impl Rows {
    pub(crate) fn new(shape: &Shape, dim: usize) -> Self {
        let dims = shape.dims();
        Self {
            outer: dims[..dim].iter().product(),
            len: dims[dim],
            inner: dims[dim + 1..].iter().product(),
        }
    }

    /// The number of rows.
    pub(crate) fn count(self) -> usize {
        self.outer * self.inner
    }

    pub(crate) fn elements(self) -> usize {
        self.count() * self.len
    }

    /// Whether there are too few rows to keep every thread busy with rows of its own.
    pub(crate) fn few(self) -> bool {
        let threads = threads();
        threads > 1 && self.outer < 2 * threads
    }

    /// The tiles of long rows, to be shared out.
    pub(crate) fn tiles(self) -> Split {
        Split::RowTiles {
            rows: self.outer,
            len: self.len,
            size: TILE,
        }
    }

    /// How many tiles a row has.
    pub(crate) fn tiles_per_row(self) -> usize {
        self.len.div_ceil(TILE)
    }

    /// Columns worked on side by side when the dim is not the last: as many as keep a tile in the second-level cache,
    /// but so few that every thread has some.
    pub(crate) fn column_width(self) -> usize {
        let fit = COLUMN_TILE / self.len.min(LINES);
        let share = self.count().div_ceil(2 * threads());
        let width = fit.min(share).min(1024) / 32 * 32;
        width.max(32).min(self.inner)
    }
}

/// Columns rounded up to whole vectors.
pub(crate) fn padded(width: usize) -> usize {
    width.next_multiple_of(crate::simd::LANES_F32)
}

/// `sum += x` for one vector, with what the roundings lose kept in `carry` and put back in the next time (Kahan). A sum
/// that overflows stays infinite: nothing that is not a number is carried.
#[inline(always)]
pub(crate) fn add_compensated<S: Simd, C: Real>(sum: &mut [C], carry: &mut [C], x: C::V<S>) {
    let old = C::V::<S>::load(sum);
    let x = x - C::V::<S>::load(carry);
    let new = old + x;
    let lost = (new - old) - x;
    let zero = C::V::<S>::splat(C::default());
    // Only a finite number times 0 is 0.
    Float::select((lost * zero).le(zero), lost, zero).store(carry);
    new.store(sum);
}
