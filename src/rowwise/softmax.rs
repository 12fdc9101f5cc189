//! The forward engine: a tempered softmax or log-softmax of scores, along rows or columns.
//!
//! Rows up to [`TILE`] elements stay in one buffer between the passes. Longer ones go tile by tile, each with its own
//! maximum and sum, then once more to write the result; where there are fewer of them than threads, the tiles are shared
//! out. Columns are worked on side by side, a vector across neighbours, with running maxima and sums per column.

use super::scores::{Block, fill_block, flat_room};
use super::source::{push, widen};
use super::temperature::{RowTau, Tau, inverse};
use super::{
    CHAIN, CHAIN_LINES, GRAIN, GRAIN_NOISE, LINES, Rows, Scores, TILE, add_compensated, padded,
};
use crate::element::Element;
use crate::math::{Real, scalar};
use crate::output::{Piece, Split, fill, parallel, rework};
use crate::rng::FILL_SLACK;
use crate::simd::{Float, Kernel, Simd, dispatch, outlined};

/// What is written for each element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Softmax,
    LogSoftmax,
}

/// The softmax of `scores / tau` over the rows.
///
/// A row that is all -inf, or holds NaN or +inf, is NaN; no other row is touched by it.
pub(crate) fn softmax<E: Element, Z: Scores<E>>(
    scores: &Z,
    tau: &Tau<E>,
    rows: Rows,
    form: Form,
) -> Vec<E> {
    if rows.elements() == 0 {
        return Vec::new();
    }
    let grain = if Z::NOISY { GRAIN_NOISE } else { GRAIN };
    let job = Job {
        scores,
        tau,
        rows,
        form,
    };
    if rows.inner > 1 {
        job.columns(grain)
    } else if rows.len <= TILE {
        job.short_rows(grain)
    } else if rows.few() {
        job.split_rows(grain)
    } else {
        job.long_rows(grain)
    }
}

struct Job<'a, E: Element, Z> {
    scores: &'a Z,
    tau: &'a Tau<'a, E>,
    rows: Rows,
    form: Form,
}

/// The maximum and the sum of exponentials relative to it.
type Stats<E> = (<E as Element>::Compute, f64);

/// What a finished element needs of its row.
#[derive(Clone, Copy)]
struct Whole<C> {
    max: C,
    /// What the row is brought to order with: the inverse of the sum of exponentials, or that sum's logarithm.
    norm: C,
}

impl<E: Element, Z: Scores<E>> Job<'_, E, Z> {
    /// Whether scores are kept in the output between the passes of a long row: where they are dear and fit unrounded.
    fn keeps() -> bool {
        Z::NOISY && E::as_elements(&[]).is_some()
    }

    fn scratch() -> Vec<E::Compute> {
        vec![E::Compute::default(); TILE + FILL_SLACK]
    }

    fn short_rows(&self, grain: usize) -> Vec<E> {
        let len = self.rows.len;
        let per_block = TILE / len;
        let split = Split::Runs {
            total: self.rows.elements(),
            size: per_block * len,
        };
        let scratch = || (Self::scratch(), Self::scratch(), Vec::new());
        let work =
            |(buffer, out, taus): &mut (Vec<_>, Vec<_>, Vec<_>), i: usize, piece: &mut Piece<E>| {
                dispatch(ShortRows {
                    job: self,
                    first: i * per_block,
                    buffer,
                    out,
                    taus,
                    piece,
                });
            };
        fill(split, grain, scratch, work).0
    }

    fn long_rows(&self, grain: usize) -> Vec<E> {
        let len = self.rows.len;
        let split = Split::Runs {
            total: self.rows.elements(),
            size: len,
        };
        let scratch = || (Self::scratch(), Vec::new());
        let work = |(buffer, stats): &mut (Vec<_>, Vec<_>), row: usize, piece: &mut Piece<E>| {
            stats.clear();
            for at in (0..len).step_by(TILE) {
                let keep = Self::keeps().then_some(&mut *piece);
                stats.push(self.tile_stats(buffer, row, at, keep));
            }
            if Self::keeps() {
                piece.rewind();
            }
            let whole = self.combine(row, stats);
            for at in (0..len).step_by(TILE) {
                self.tile_finish(buffer, row, at, at, whole, piece);
            }
        };
        fill(split, grain, scratch, work).0
    }

    fn split_rows(&self, grain: usize) -> Vec<E> {
        let split = self.rows.tiles();
        let tiles = self.rows.tiles_per_row();
        let place = |i: usize| (i / tiles, i % tiles * TILE);
        let combine = |stats: Vec<Stats<E>>| -> Vec<Whole<E::Compute>> {
            let rows = stats.chunks(tiles).enumerate();
            rows.map(|(row, stats)| self.combine(row, stats)).collect()
        };
        let finish = |whole: &[Whole<_>], buffer: &mut Vec<_>, i: usize, piece: &mut Piece<E>| {
            let (row, at) = place(i);
            self.tile_finish(buffer, row, at, 0, whole[row], piece);
        };
        if Self::keeps() {
            let (mut out, stats) = fill(split, grain, Self::scratch, |buffer, i, piece| {
                let (row, at) = place(i);
                self.tile_stats(buffer, row, at, Some(piece))
            });
            let whole = combine(stats);
            rework(&mut out, split, grain, Self::scratch, |buffer, i, piece| {
                finish(&whole, buffer, i, piece);
            });
            out
        } else {
            let elements = self.rows.elements();
            let stats = parallel(
                split.pieces(),
                elements,
                grain,
                Self::scratch,
                |buffer, i| {
                    let (row, at) = place(i);
                    self.tile_stats(buffer, row, at, None)
                },
            );
            let whole = combine(stats);
            fill(split, grain, Self::scratch, |buffer, i, piece| {
                finish(&whole, buffer, i, piece);
            })
            .0
        }
    }

    fn columns(&self, grain: usize) -> Vec<E> {
        let Rows { outer, len, inner } = self.rows;
        let width = self.rows.column_width();
        let split = Split::Columns {
            outer,
            len,
            inner,
            width,
        };
        let scratch = || ColumnScratch::new(self.rows, width);
        let work = |scratch: &mut ColumnScratch<E>, _: usize, piece: &mut Piece<E>| {
            dispatch(ColumnTile {
                job: self,
                scratch,
                piece,
            });
        };
        fill(split, grain, scratch, work).0
    }

    /// One tile's maximum and sum; its scores go to `keep` where that is given.
    fn tile_stats(
        &self,
        buffer: &mut [E::Compute],
        row: usize,
        at: usize,
        keep: Option<&mut Piece<E>>,
    ) -> Stats<E> {
        dispatch(TileStats {
            job: self,
            buffer,
            row,
            at,
            keep,
        })
    }

    /// A row's maximum and norm from the maxima and sums of its tiles.
    fn combine(&self, row: usize, tiles: &[Stats<E>]) -> Whole<E::Compute> {
        dispatch(Combine {
            tiles,
            scale: E::Compute::exp_scale(self.tau.at(row)),
            form: self.form,
        })
    }

    /// Writes one tile, whose scores are at `kept` in `piece` or else computed again.
    fn tile_finish(
        &self,
        buffer: &mut [E::Compute],
        row: usize,
        at: usize,
        kept: usize,
        whole: Whole<E::Compute>,
        piece: &mut Piece<E>,
    ) {
        dispatch(TileFinish {
            job: self,
            buffer,
            row,
            at,
            kept,
            whole,
            piece,
        });
    }
}

// ------------------------------------------------------------------------------------------------ passes over a row
// `row` is followed by at least a vector's worth of elements that may be read and are left as they are.

/// The largest of the first `len` elements.
#[inline(always)]
pub(crate) fn row_max<S: Simd, C: Real>(row: &[C], len: usize) -> C {
    let lanes = C::V::<S>::LANES;
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    // Four chains, since a maximum takes four cycles and two can start in each.
    let mut m = [lowest; 4];
    let mut groups = row[..len].chunks_exact(4 * lanes);
    for group in &mut groups {
        for (m, x) in m.iter_mut().zip(group.chunks_exact(lanes)) {
            *m = m.max(Float::load(x));
        }
    }
    let mut at = len - groups.remainder().len();
    while at + lanes <= len {
        m[0] = m[0].max(Float::load(&row[at..]));
        at += lanes;
    }
    if at < len {
        let x = C::V::<S>::load(&row[at..]);
        m[1] = m[1].max(Float::select(C::V::<S>::first(len - at), x, lowest));
    }
    m[0].max(m[1]).max(m[2].max(m[3])).reduce_max()
}

/// The maximum as it is subtracted: 0 for a row that is all -inf, whose exponentials are then 0 and not NaN.
#[inline(always)]
pub(crate) fn pivot<C: Real>(max: C) -> C {
    if max == C::NEG_INFINITY {
        C::default()
    } else {
        max
    }
}

/// The sum of `exp((x - max) / tau)` over the first `len` elements.
#[inline(always)]
fn row_sum<S: Simd, C: Real>(src: &[C], len: usize, max: C, scale: C) -> C {
    exp_pass::<S, C>(
        src,
        len,
        max,
        scale,
        #[inline(always)]
        |_, _| {},
    )
}

/// The same; the exponentials go to `dst`, and past them what is left of the last vector.
#[inline(always)]
fn row_exp<S: Simd, C: Real>(src: &[C], dst: &mut [C], len: usize, max: C, scale: C) -> C {
    exp_pass::<S, C>(
        src,
        len,
        max,
        scale,
        #[inline(always)]
        |at, e| e.store(&mut dst[at..]),
    )
}

#[inline(always)]
fn exp_pass<S: Simd, C: Real>(
    src: &[C],
    len: usize,
    max: C,
    scale: C,
    mut each: impl FnMut(usize, C::V<S>),
) -> C {
    let lanes = C::V::<S>::LANES;
    let (max, scale) = (C::V::<S>::splat(max), C::V::<S>::splat(scale));
    let zero = C::V::<S>::splat(C::default());
    let mut total = zero;
    let full = len / lanes * lanes;
    for chain in (0..full).step_by(CHAIN * lanes) {
        let mut sum = zero;
        for at in (chain..full.min(chain + CHAIN * lanes)).step_by(lanes) {
            let e = C::exp_scaled::<S>((C::V::<S>::load(&src[at..]) - max) * scale);
            each(at, e);
            sum = sum + e;
        }
        total = total + sum;
    }
    if full < len {
        let e = C::exp_scaled::<S>((C::V::<S>::load(&src[full..]) - max) * scale);
        let e = Float::select(C::V::<S>::first(len - full), e, zero);
        each(full, e);
        total = total + e;
    }
    total.reduce_add()
}

/// Replaces each of the first `len` elements by `f` of it.
#[inline(always)]
pub(crate) fn row_map<S: Simd, C: Real>(row: &mut [C], len: usize, f: impl Fn(C::V<S>) -> C::V<S>) {
    let lanes = C::V::<S>::LANES;
    let full = len / lanes * lanes;
    for x in row[..full].chunks_exact_mut(lanes) {
        f(Float::load(x)).store(x);
    }
    if full < len {
        let x = C::V::<S>::load(&row[full..]);
        Float::select(C::V::<S>::first(len - full), f(x), x).store(&mut row[full..]);
    }
}

impl<C: Real> Whole<C> {
    #[inline(always)]
    fn new<S: Simd>(max: C, sum: f64, form: Form) -> Self {
        let norm = match form {
            Form::Softmax => 1.0 / sum,
            // NaN unless the sum is that of a proper row, which `ln` does not look at.
            Form::LogSoftmax if !(sum > 0.0 && sum < f64::INFINITY) => f64::NAN,
            Form::LogSoftmax => scalar::<S, f64>(
                sum,
                #[inline(always)]
                |x| f64::ln_lanes::<S>(x),
            ),
        };
        Self {
            max,
            norm: C::of(norm),
        }
    }

    /// The log-softmax of a score, given the inverse temperature.
    #[inline(always)]
    fn log<S: Simd>(self, z: C::V<S>, inverse: C::V<S>) -> C::V<S> {
        (z - C::V::<S>::splat(self.max)) * inverse - C::V::<S>::splat(self.norm)
    }
}

/// The softmax of the first `len` elements of `src`, to `dst`; past them goes what is left of the last vector.
///
/// Two buffers, so that the next row's first load does not wait for this row's last store, which overlaps it.
#[inline(always)]
fn row_softmax<S: Simd, C: Real>(
    src: &[C],
    dst: &mut [C],
    len: usize,
    tau: f64,
    scale: C,
    form: Form,
) {
    let lanes = C::V::<S>::LANES;
    if form == Form::Softmax && len <= lanes {
        // A row that fits a vector never leaves its register.
        let lowest = C::V::<S>::splat(C::NEG_INFINITY);
        let z = Float::select(C::V::<S>::first(len), C::V::<S>::load(src), lowest);
        let max = C::V::<S>::splat(pivot(z.reduce_max()));
        let e = C::exp_scaled::<S>((z - max) * C::V::<S>::splat(scale));
        let inverse = C::of(1.0 / e.reduce_add().f64());
        (e * C::V::<S>::splat(inverse)).store(dst);
        return;
    }
    let max = pivot(row_max::<S, C>(src, len));
    match form {
        Form::Softmax => {
            let sum = row_exp::<S, C>(src, dst, len, max, scale).f64();
            let norm = C::V::<S>::splat(Whole::new::<S>(max, sum, form).norm);
            for at in (0..len).step_by(lanes) {
                (C::V::<S>::load(&dst[at..]) * norm).store(&mut dst[at..]);
            }
        }
        Form::LogSoftmax => {
            let sum = row_sum::<S, C>(src, len, max, scale).f64();
            let whole = Whole::new::<S>(max, sum, form);
            let inverse = C::V::<S>::splat(inverse::<C>(tau));
            for at in (0..len).step_by(lanes) {
                let l = whole.log::<S>(Float::load(&src[at..]), inverse);
                l.store(&mut dst[at..]);
            }
        }
    }
}

outlined! {
    /// [`row_softmax`] of rows that follow each other.
    fn rows_softmax['a, C: Real](
        src: &'a [C],
        dst: &'a mut [C],
        len: usize,
        count: usize,
        tau: RowTau<'a>,
        form: Form,
    ) -> () {
        // One quotient for all rows of one temperature.
        let fixed = C::exp_scale(tau.at(0));
        for i in 0..count {
            let scale = match tau {
                RowTau::Fixed(_) => fixed,
                RowTau::Each(_) => C::exp_scale(tau.at(i)),
            };
            let (src, dst) = (&src[i * len..], &mut dst[i * len..]);
            row_softmax::<S, C>(src, dst, len, tau.at(i), scale, form);
        }
    }

    /// The maximum of a tile and its sum relative to that.
    fn tile_max_sum['a, C: Real](tile: &'a [C], n: usize, scale: C) -> (C, f64) {
        let max = row_max::<S, C>(tile, n);
        let sum = row_sum::<S, C>(tile, n, pivot(max), scale);
        (max, sum.f64())
    }

    /// Turns a tile of scores into the result, given what it needs of its row.
    fn finish_tile['a, C: Real](
        tile: &'a mut [C],
        n: usize,
        tau: f64,
        whole: Whole<C>,
        form: Form,
    ) -> () {
        match form {
            Form::Softmax => {
                let max = C::V::<S>::splat(whole.max);
                let norm = C::V::<S>::splat(whole.norm);
                let scale = C::V::<S>::splat(C::exp_scale(tau));
                row_map::<S, C>(tile, n, #[inline(always)] |z| {
                    C::exp_scaled::<S>((z - max) * scale) * norm
                });
            }
            Form::LogSoftmax => {
                let inverse = C::V::<S>::splat(inverse::<C>(tau));
                row_map::<S, C>(tile, n, #[inline(always)] |z| whole.log::<S>(z, inverse));
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------- row kernels

struct ShortRows<'a, 'b, E: Element, Z> {
    job: &'a Job<'a, E, Z>,
    first: usize,
    buffer: &'a mut [E::Compute],
    out: &'a mut [E::Compute],
    taus: &'a mut Vec<f64>,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, Z: Scores<E>> Kernel for ShortRows<'_, '_, E, Z> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let len = self.job.rows.len;
        let n = self.piece.place().width;
        let count = n / len;
        let offset = self.job.scores.fill::<S>(self.first * len, n, self.buffer);
        let tau = self.job.tau.rows(self.first, count, self.taus);
        let src = &self.buffer[offset..];
        rows_softmax::<S, E::Compute>(src, self.out, len, count, tau, self.job.form);
        push::<S, E>(self.piece, &self.out[..n]);
    }
}

struct TileStats<'a, 'b, E: Element, Z> {
    job: &'a Job<'a, E, Z>,
    buffer: &'a mut [E::Compute],
    row: usize,
    at: usize,
    keep: Option<&'a mut Piece<'b, E>>,
}

impl<E: Element, Z: Scores<E>> Kernel for TileStats<'_, '_, E, Z> {
    type Output = Stats<E>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Stats<E> {
        let len = self.job.rows.len;
        let n = TILE.min(len - self.at);
        let start = self.row * len + self.at;
        let offset = self.job.scores.fill::<S>(start, n, self.buffer);
        if let Some(piece) = self.keep {
            push::<S, E>(piece, &self.buffer[offset..offset + n]);
        }
        let scale = E::Compute::exp_scale(self.job.tau.at(self.row));
        tile_max_sum::<S, E::Compute>(&self.buffer[offset..], n, scale)
    }
}

struct Combine<'a, C> {
    tiles: &'a [(C, f64)],
    scale: C,
    form: Form,
}

impl<C: Real> Kernel for Combine<'_, C> {
    type Output = Whole<C>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Whole<C> {
        let mut max = C::NEG_INFINITY;
        for &(m, _) in self.tiles {
            if m > max {
                max = m;
            }
        }
        let max = pivot(max);
        let mut sum = 0.0;
        for &(m, s) in self.tiles {
            let relative = C::of(m.f64() - max.f64());
            let factor = scalar::<S, C>(
                C::of(relative.f64() * self.scale.f64()),
                #[inline(always)]
                |x| C::exp_scaled::<S>(x),
            );
            sum += s * factor.f64();
        }
        Whole::new::<S>(max, sum, self.form)
    }
}

struct TileFinish<'a, 'b, E: Element, Z> {
    job: &'a Job<'a, E, Z>,
    buffer: &'a mut [E::Compute],
    row: usize,
    at: usize,
    kept: usize,
    whole: Whole<E::Compute>,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, Z: Scores<E>> Kernel for TileFinish<'_, '_, E, Z> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let len = self.job.rows.len;
        let n = TILE.min(len - self.at);
        let offset = if Job::<E, Z>::keeps() {
            widen::<S, E>(self.piece.written(self.kept, n), &mut self.buffer[..n]);
            0
        } else {
            let start = self.row * len + self.at;
            self.job.scores.fill::<S>(start, n, self.buffer)
        };
        let tau = self.job.tau.at(self.row);
        let tile = &mut self.buffer[offset..];
        finish_tile::<S, E::Compute>(tile, n, tau, self.whole, self.job.form);
        push::<S, E>(self.piece, &self.buffer[offset..offset + n]);
    }
}

// ---------------------------------------------------------------------------------------------------------- columns

struct ColumnScratch<E: Element> {
    flat: Vec<E::Compute>,
    scores: Vec<E::Compute>,
    max: Vec<E::Compute>,
    sum: Vec<E::Compute>,
    /// What the sums' roundings lost.
    carry: Vec<E::Compute>,
    scale: Vec<E::Compute>,
    inverse: Vec<E::Compute>,
}

impl<E: Element> ColumnScratch<E> {
    fn new(rows: Rows, width: usize) -> Self {
        let zeros = |n| vec![E::Compute::default(); n];
        let stride = padded(width);
        Self {
            flat: zeros(flat_room(rows, width)),
            scores: zeros(rows.len.min(LINES) * stride),
            max: zeros(stride),
            sum: zeros(stride),
            carry: zeros(stride),
            scale: zeros(stride),
            inverse: zeros(stride),
        }
    }
}

struct ColumnTile<'a, 'b, E: Element, Z> {
    job: &'a Job<'a, E, Z>,
    scratch: &'a mut ColumnScratch<E>,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, Z: Scores<E>> Kernel for ColumnTile<'_, '_, E, Z> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            scratch,
            piece,
        } = self;
        let rows = job.rows;
        let place = piece.place();
        let slab = place.start / (rows.len * rows.inner);
        let at = place.start % rows.inner;
        let stride = padded(place.width);
        scratch.max[..stride].fill(E::Compute::NEG_INFINITY);
        scratch.sum[..stride].fill(E::Compute::default());
        scratch.carry[..stride].fill(E::Compute::default());
        for i in 0..place.width {
            let tau = job.tau.at(slab * rows.inner + at + i);
            scratch.scale[i] = E::Compute::exp_scale(tau);
            scratch.inverse[i] = inverse(tau);
        }
        let block = |first: usize| Block {
            slab,
            first,
            lines: LINES.min(rows.len - first),
            at,
            width: place.width,
        };
        // A tile of one block keeps its exponentials from the first pass.
        let single = rows.len <= LINES;
        let store = single && job.form == Form::Softmax;
        for first in (0..rows.len).step_by(LINES) {
            let block = block(first);
            fill_block::<S, E, Z>(
                job.scores,
                rows,
                block,
                &mut scratch.flat,
                &mut scratch.scores,
            );
            let scores = &mut scratch.scores[..block.lines * stride];
            block_stats::<S, E::Compute>(
                scores,
                stride,
                &mut scratch.max,
                (&mut scratch.sum, &mut scratch.carry),
                &scratch.scale,
                store,
            );
        }
        for first in (0..rows.len).step_by(LINES) {
            let block = block(first);
            if !single {
                fill_block::<S, E, Z>(
                    job.scores,
                    rows,
                    block,
                    &mut scratch.flat,
                    &mut scratch.scores,
                );
            }
            let scores = &mut scratch.scores[..block.lines * stride];
            block_finish::<S, E::Compute>(
                scores,
                stride,
                (&scratch.max, &scratch.sum),
                (&scratch.scale, &scratch.inverse),
                job.form,
                store,
            );
            for line in scores.chunks_exact(stride) {
                push::<S, E>(piece, &line[..place.width]);
            }
        }
    }
}

/// [`pivot`] of each lane.
#[inline(always)]
pub(crate) fn pivot_lanes<S: Simd, C: Real>(max: C::V<S>) -> C::V<S> {
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    Float::select(max.le(lowest), C::V::<S>::splat(C::default()), max)
}

outlined! {
    /// Brings the running maxima and sums of columns up to date with a block; with `store` the exponentials replace it.
    fn block_stats['a, C: Real](
        scores: &'a mut [C],
        stride: usize,
        max: &'a mut [C],
        sum: (&'a mut [C], &'a mut [C]),
        scale: &'a [C],
        store: bool,
    ) -> () {
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (max, sum) = (&mut max[j..], (&mut sum.0[j..], &mut sum.1[j..]));
            column_stats::<S, C>(scores, stride, j, max, sum, &scale[j..], store);
        }
    }

    /// Writes the results over a block's scores.
    fn block_finish['a, C: Real](
        scores: &'a mut [C],
        stride: usize,
        stats: (&'a [C], &'a [C]),
        tau: (&'a [C], &'a [C]),
        form: Form,
        stored: bool,
    ) -> () {
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let stats = (&stats.0[j..], &stats.1[j..]);
            let tau = (&tau.0[j..], &tau.1[j..]);
            column_finish::<S, C>(scores, stride, j, stats, tau, form, stored);
        }
    }
}

/// Brings the running maxima and sums of the columns from `j` on up to date with a block.
#[inline(always)]
fn column_stats<S: Simd, C: Real>(
    scores: &mut [C],
    stride: usize,
    j: usize,
    max: &mut [C],
    (sum, carry): (&mut [C], &mut [C]),
    scale: &[C],
    store: bool,
) {
    let scale = C::V::<S>::load(scale);
    let old = C::V::<S>::load(max);
    let mut new = old;
    for line in scores.chunks_exact(stride) {
        new = new.max(Float::load(&line[j..]));
    }
    let pivot = pivot_lanes::<S, C>(new);
    let mut block = C::V::<S>::splat(C::default());
    for chain in scores.chunks_mut(CHAIN_LINES * stride) {
        let mut sum = C::V::<S>::splat(C::default());
        for line in chain.chunks_exact_mut(stride) {
            let e = C::exp_scaled::<S>((C::V::<S>::load(&line[j..]) - pivot) * scale);
            if store {
                e.store(&mut line[j..]);
            }
            sum = sum + e;
        }
        block = block + sum;
    }
    let rescale = C::exp_scaled::<S>((old - pivot) * scale);
    (C::V::<S>::load(sum) * rescale).store(sum);
    (C::V::<S>::load(carry) * rescale).store(carry);
    add_compensated::<S, C>(sum, carry, block);
    new.store(max);
}

/// Writes the results of the columns from `j` on over a block's scores.
#[inline(always)]
fn column_finish<S: Simd, C: Real>(
    scores: &mut [C],
    stride: usize,
    j: usize,
    (max, sum): (&[C], &[C]),
    (scale, inverse): (&[C], &[C]),
    form: Form,
    stored: bool,
) {
    let pivot = pivot_lanes::<S, C>(Float::load(max));
    let sum = C::V::<S>::load(sum);
    match form {
        Form::Softmax => {
            let scale = C::V::<S>::load(scale);
            let inverse = C::V::<S>::splat(C::of(1.0)) / sum;
            for line in scores.chunks_exact_mut(stride) {
                let x = C::V::<S>::load(&line[j..]);
                let e = if stored {
                    x
                } else {
                    C::exp_scaled::<S>((x - pivot) * scale)
                };
                (e * inverse).store(&mut line[j..]);
            }
        }
        Form::LogSoftmax => {
            let inverse = C::V::<S>::load(inverse);
            // 0 for a proper sum, and NaN for 0, infinity and NaN, which `ln` does not look at.
            let zero = C::V::<S>::splat(C::default());
            let check = (sum * zero) / sum;
            let ln_sum = C::ln_lanes::<S>(sum) + check;
            for line in scores.chunks_exact_mut(stride) {
                let x = C::V::<S>::load(&line[j..]);
                ((x - pivot) * inverse - ln_sum).store(&mut line[j..]);
            }
        }
    }
}
