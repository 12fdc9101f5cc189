//! The indices of the k largest logits plus Gumbel noise in each row, in descending order.

use super::scores::{Block, Perturbed, Scores, fill_block, flat_room};
use super::{GRAIN_NOISE, LINES, Rows, TILE, padded};
use crate::element::{Element, Vector};
use crate::math::Real;
use crate::output::{Piece, Split, fill, parallel, threads};
use crate::rng::{FILL_SLACK, RaceReal, RaceScratch, Stream, Taker};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch, outlined};
use std::fmt;

/// Rows of so many times `k` elements are raced lazily; in shorter ones too many vectors hold a score above the bar.
const LAZY_TIMES: usize = 64;
/// Room behind the `k` best, so that the bar is not looked for at every score.
const ROOM: usize = 64;
/// Ranks that a tile of columns keeps, at most.
const COLUMN_RANKS: usize = 1 << 16;

/// Scores that can be ranked: with the index they make one number, of which the larger comes first.
pub(crate) trait Ranked: RaceReal {
    type Rank: Ord + Copy + Send + Sync;
    /// The larger the score the larger; where scores tie, the lower the index.
    fn rank(self, index: u32) -> Self::Rank;
    fn score(rank: Self::Rank) -> Self;
    fn index(rank: Self::Rank) -> u32;
    /// The next number below.
    fn below(self) -> Self;
}

macro_rules! ranked {
    ($t:ident, $bits:ident, $rank:ident) => {
        impl Ranked for $t {
            type Rank = $rank;
            #[inline(always)]
            fn rank(self, index: u32) -> $rank {
                const TOP: $bits = 1 << ($bits::BITS - 1);
                // The sum makes -0 a 0, of which it is not below.
                let bits = (self + 0.0).to_bits();
                let ordered = if bits & TOP == 0 { bits | TOP } else { !bits };
                $rank::from(ordered) << 32 | $rank::from(!index)
            }
            #[inline(always)]
            fn score(rank: $rank) -> $t {
                const TOP: $bits = 1 << ($bits::BITS - 1);
                let ordered = (rank >> 32) as $bits;
                $t::from_bits(if ordered & TOP == 0 {
                    !ordered
                } else {
                    ordered ^ TOP
                })
            }
            #[inline(always)]
            fn index(rank: $rank) -> u32 {
                !(rank as u32)
            }
            #[inline(always)]
            fn below(self) -> $t {
                self.next_down()
            }
        }
    };
}
ranked!(f32, u32, u64);
ranked!(f64, u64, u128);

/// Why a row has no `k` classes to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It holds NaN or +inf.
    Improper,
    /// It has only so many above -inf.
    Few(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Improper => f.write_str("holds NaN or +inf; there is nothing to draw"),
            Fault::Few(n) => write!(f, "has {n} classes above -inf"),
        }
    }
}

/// The indices of all rows, of shape (outer, k, inner), and the rows that had none, where they are 0.
pub(crate) struct TopK {
    pub(crate) indices: Vec<u32>,
    pub(crate) faults: Vec<(usize, Fault)>,
}

/// The best so far of a part of a row: at least all of its `k` best.
struct Top<C: Ranked> {
    k: usize,
    room: usize,
    /// The `k`-th best when the others were last thrown away.
    bar: C,
    nan: bool,
    ranks: Vec<C::Rank>,
}

impl<C: Ranked> Top<C> {
    fn new(k: usize, len: usize) -> Self {
        let room = (k + k.max(ROOM)).min(len);
        Self {
            k,
            room,
            bar: C::NEG_INFINITY,
            nan: false,
            ranks: Vec::with_capacity(room),
        }
    }

    fn clear(&mut self) {
        self.bar = C::NEG_INFINITY;
        self.nan = false;
        self.ranks.clear();
    }

    /// Throws away all but the `k` best, and puts the bar there.
    #[inline(never)]
    fn cut(&mut self) {
        if self.ranks.len() > self.k {
            let (_, &mut last, _) = self
                .ranks
                .select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            self.ranks.truncate(self.k);
            self.bar = C::score(last);
        }
    }

    /// Raises the bar to just below the `k`-th largest of at least `k` maxima of different elements: as many elements reach it.
    fn raise(&mut self, maxima: &[C]) {
        debug_assert!(self.ranks.is_empty() && maxima.len() >= self.k);
        self.ranks.extend(maxima.iter().map(|&max| max.rank(0)));
        let last = self.k - 1;
        let (_, &mut last, _) = self.ranks.select_nth_unstable_by(last, |a, b| b.cmp(a));
        self.bar = C::score(last).below();
        self.ranks.clear();
    }

    /// Takes in another part of the row, earlier or later.
    fn join(&mut self, other: &Self) {
        self.ranks.extend_from_slice(&other.ranks);
        self.nan |= other.nan;
    }

    /// The indices in order.
    fn finish(&mut self, indices: &mut [u32]) -> Option<Fault> {
        self.cut();
        self.ranks.sort_unstable_by(|a, b| b.cmp(a));
        let top = self.ranks.first().map(|&rank| C::score(rank));
        if self.nan || top.is_some_and(|score| score == C::INFINITY) {
            indices.fill(0);
            return Some(Fault::Improper);
        }
        if self.ranks.len() < self.k {
            indices.fill(0);
            return Some(Fault::Few(self.ranks.len()));
        }
        for (index, &rank) in indices.iter_mut().zip(&self.ranks) {
            *index = C::index(rank);
        }
        None
    }
}

impl<C: Ranked> Taker<C> for Top<C> {
    #[inline(always)]
    fn bar(&self) -> C {
        self.bar
    }

    #[inline(always)]
    fn scan(&mut self, scores: &[C], first: usize) {
        for (i, &score) in scores.iter().enumerate() {
            // One that equals the bar has a higher index than all that were taken before.
            if score > self.bar {
                // The callers refuse rows whose indices do not fit.
                self.ranks.push(score.rank((first + i) as u32));
                if self.ranks.len() == self.room {
                    self.cut();
                }
            }
            self.nan |= score.f64().is_nan();
        }
    }
}

/// The `k` best of each row.
pub(crate) fn top_k<E>(scores: &Perturbed<E>, rows: Rows, k: usize) -> TopK
where
    E: Element,
    E::Compute: Ranked,
{
    if rows.elements() == 0 {
        return TopK {
            indices: Vec::new(),
            faults: Vec::new(),
        };
    }
    let job = Job { scores, rows, k };
    if rows.inner > 1 {
        job.columns()
    } else if rows.len > TILE && rows.few() {
        job.split_rows()
    } else {
        job.rows()
    }
}

struct Job<'a, E> {
    scores: &'a Perturbed<'a, E>,
    rows: Rows,
    k: usize,
}

impl<E> Job<'_, E>
where
    E: Element,
    E::Compute: Ranked,
{
    fn lazy(&self) -> bool {
        self.rows.len / LAZY_TIMES >= self.k.max(2)
    }

    /// The least number of indices worth a task of its own.
    fn grain(&self) -> usize {
        (GRAIN_NOISE * self.k / self.rows.len).max(1)
    }

    fn rows(&self) -> TopK {
        let Rows { outer, len, .. } = self.rows;
        let per_piece = (TILE / len).max(1);
        let split = Split::Runs {
            total: outer * self.k,
            size: per_piece * self.k,
        };
        let scratch = || Scratch::<E>::new(self.rows, self.k);
        let work = |scratch: &mut Scratch<E>, i: usize, piece: &mut Piece<u32>| {
            dispatch(RowRun {
                scores: self.scores,
                len,
                lazy: self.lazy(),
                first: i * per_piece,
                scratch,
                piece,
            })
        };
        let (indices, faults) = fill(split, self.grain(), scratch, work);
        TopK {
            indices,
            faults: faults.concat(),
        }
    }

    /// Few long rows: parts of them are shared out. Where a row is cut does not show in its `k` best.
    fn split_rows(&self) -> TopK {
        let Rows { outer, len, .. } = self.rows;
        let size = len.div_ceil(4 * threads()).next_multiple_of(TILE);
        let split = Split::RowTiles {
            rows: outer,
            len,
            size,
        };
        let work = |scratch: &mut Scratch<E>, i: usize| {
            let place = split.place(i);
            dispatch(RowPart {
                scores: self.scores,
                lazy: self.lazy(),
                start: place.start,
                first: place.start % len,
                n: place.width,
                scratch,
            });
            std::mem::replace(&mut scratch.top, Top::new(self.k, len))
        };
        let scratch = || Scratch::<E>::new(self.rows, self.k);
        let parts = parallel(
            split.pieces(),
            self.rows.elements(),
            GRAIN_NOISE,
            scratch,
            work,
        );
        let mut indices = vec![0; outer * self.k];
        let mut faults = Vec::new();
        let mut whole = Top::<E::Compute>::new(self.k, len);
        for ((row, parts), indices) in parts
            .chunks(len.div_ceil(size))
            .enumerate()
            .zip(indices.chunks_mut(self.k))
        {
            whole.clear();
            parts.iter().for_each(|part| whole.join(part));
            faults.extend(whole.finish(indices).map(|fault| (row, fault)));
        }
        TopK { indices, faults }
    }

    fn columns(&self) -> TopK {
        let Rows { outer, len, inner } = self.rows;
        let fit = COLUMN_RANKS / Top::<E::Compute>::new(self.k, len).room;
        let width = self.rows.column_width().min(fit.max(1));
        let split = Split::Columns {
            outer,
            len: self.k,
            inner,
            width,
        };
        let scratch = || ColumnScratch::<E>::new(self.rows, self.k, width);
        let work = |scratch: &mut ColumnScratch<E>, _: usize, piece: &mut Piece<u32>| {
            dispatch(ColumnTile {
                scores: self.scores,
                rows: self.rows,
                scratch,
                piece,
            })
        };
        let (indices, faults) = fill(split, self.grain(), scratch, work);
        TopK {
            indices,
            faults: faults.concat(),
        }
    }
}

struct Scratch<E: Element>
where
    E::Compute: Ranked,
{
    /// Scores, or logits where the race is lazy.
    buffer: Vec<E::Compute>,
    race: RaceScratch<E::Compute>,
    maxima: Vec<E::Compute>,
    top: Top<E::Compute>,
    indices: Vec<u32>,
}

impl<E: Element> Scratch<E>
where
    E::Compute: Ranked,
{
    fn new(rows: Rows, k: usize) -> Self {
        Self {
            buffer: vec![E::Compute::default(); TILE + FILL_SLACK],
            race: E::Compute::scratch(TILE),
            maxima: vec![E::Compute::default(); (MAXIMA * k).min(TILE / 4) + LANES_F32],
            top: Top::new(k, rows.len),
            indices: vec![0; k],
        }
    }
}

/// Of this many maxima per draw the bar is made, before the first elements of a row are taken in.
const MAXIMA: usize = 2;

/// Raises the bar by the first scores of a row, lane by lane, where they are many more than the maxima. A NaN among them may
/// leave it too low, which is as good.
#[inline(always)]
fn raise_bar<S: Simd, C: Ranked>(scores: &[C], maxima: &mut [C], top: &mut Top<C>) {
    let lanes = C::V::<S>::LANES;
    let n = (MAXIMA * top.k).next_multiple_of(lanes);
    if n > maxima.len() || scores.len() < 4 * n {
        return;
    }
    let maxima = &mut maxima[..n];
    maxima.fill(C::NEG_INFINITY);
    for scores in scores.chunks(n) {
        for (max, x) in maxima
            .chunks_exact_mut(lanes)
            .zip(scores.chunks_exact(lanes))
        {
            C::V::<S>::load(max).max(Float::load(x)).store(max);
        }
    }
    top.raise(maxima);
}

outlined! {
    /// Takes in the first scores of a row.
    fn scan_first['a, C: Ranked](scores: &'a [C], maxima: &'a mut [C], top: &'a mut Top<C>) -> () {
        raise_bar::<S, C>(scores, maxima, top);
        top.scan_all::<S>(scores, 0);
    }

    /// Takes in finished scores, the first of which has index `first`.
    fn scan['a, C: Ranked](scores: &'a [C], first: usize, top: &'a mut Top<C>) -> () {
        top.scan_all::<S>(scores, first);
    }

    /// Takes in elements `place.0 .. place.0 + place.2`, the first of which has index `place.1`.
    fn race['a, C: Ranked](
        stream: &'a Stream,
        place: (usize, usize, usize),
        logits: &'a [C],
        scratch: &'a mut RaceScratch<C>,
        top: &'a mut Top<C>,
    ) -> () {
        let (start, first, n) = place;
        C::race::<S, _>(top, stream, start, first, logits, n, scratch);
    }
}

/// Takes in elements `start .. start + n`, the first of which has index `first` in its row.
#[inline(always)]
fn take<S: Simd, E: Element>(
    scores: &Perturbed<E>,
    lazy: bool,
    start: usize,
    first: usize,
    n: usize,
    scratch: &mut Scratch<E>,
) where
    E::Compute: Ranked,
{
    let Scratch {
        buffer,
        race: room,
        maxima,
        top,
        ..
    } = scratch;
    for at in (0..n).step_by(TILE) {
        let count = TILE.min(n - at);
        if lazy {
            scores.logits.copy_to::<S>(start + at, &mut buffer[..count]);
            buffer[count..count + Vector::<S, E>::LANES].fill(E::Compute::NEG_INFINITY);
            let place = (start + at, first + at, count);
            race::<S, E::Compute>(&scores.stream, place, buffer, room, top);
        } else {
            let offset = scores.fill::<S>(start + at, count, buffer);
            let scores = &buffer[offset..offset + count];
            if first + at == 0 {
                scan_first::<S, E::Compute>(scores, maxima, top);
            } else {
                scan::<S, E::Compute>(scores, first + at, top);
            }
        }
    }
}

/// Whole rows, one after the other.
struct RowRun<'a, 'b, E: Element>
where
    E::Compute: Ranked,
{
    scores: &'a Perturbed<'a, E>,
    len: usize,
    lazy: bool,
    first: usize,
    scratch: &'a mut Scratch<E>,
    piece: &'a mut Piece<'b, u32>,
}

impl<E: Element> Kernel for RowRun<'_, '_, E>
where
    E::Compute: Ranked,
{
    type Output = Vec<(usize, Fault)>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self {
            scores,
            len,
            lazy,
            first,
            scratch,
            piece,
        } = self;
        let count = piece.place().width / scratch.indices.len();
        let mut faults = Vec::new();
        // Short rows share groups of blocks: their scores come in one go.
        let shared = (len * count <= TILE && !lazy)
            .then(|| scores.fill::<S>(first * len, len * count, &mut scratch.buffer));
        for row in 0..count {
            scratch.top.clear();
            match shared {
                Some(offset) => {
                    let own = &scratch.buffer[offset + row * len..][..len];
                    scan_first::<S, E::Compute>(own, &mut scratch.maxima, &mut scratch.top);
                }
                None => take::<S, E>(scores, lazy, (first + row) * len, 0, len, scratch),
            }
            let fault = scratch.top.finish(&mut scratch.indices);
            faults.extend(fault.map(|fault| (first + row, fault)));
            piece.push(&scratch.indices);
        }
        faults
    }
}

/// A part of one row.
struct RowPart<'a, E: Element>
where
    E::Compute: Ranked,
{
    scores: &'a Perturbed<'a, E>,
    lazy: bool,
    start: usize,
    first: usize,
    n: usize,
    scratch: &'a mut Scratch<E>,
}

impl<E: Element> Kernel for RowPart<'_, E>
where
    E::Compute: Ranked,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        take::<S, E>(
            self.scores,
            self.lazy,
            self.start,
            self.first,
            self.n,
            self.scratch,
        );
        self.scratch.top.cut();
    }
}

struct ColumnScratch<E: Element>
where
    E::Compute: Ranked,
{
    flat: Vec<E::Compute>,
    lines: Vec<E::Compute>,
    column: Vec<E::Compute>,
    tops: Vec<Top<E::Compute>>,
    indices: Vec<u32>,
}

impl<E: Element> ColumnScratch<E>
where
    E::Compute: Ranked,
{
    fn new(rows: Rows, k: usize, width: usize) -> Self {
        let zeros = |n| vec![E::Compute::default(); n];
        let lines = rows.len.min(LINES);
        Self {
            flat: zeros(flat_room(rows, width)),
            lines: zeros(lines * padded(width)),
            column: zeros(lines),
            tops: (0..width).map(|_| Top::new(k, rows.len)).collect(),
            indices: vec![0; k * width],
        }
    }
}

struct ColumnTile<'a, 'b, E: Element>
where
    E::Compute: Ranked,
{
    scores: &'a Perturbed<'a, E>,
    rows: Rows,
    scratch: &'a mut ColumnScratch<E>,
    piece: &'a mut Piece<'b, u32>,
}

impl<E: Element> Kernel for ColumnTile<'_, '_, E>
where
    E::Compute: Ranked,
{
    type Output = Vec<(usize, Fault)>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self {
            scores,
            rows,
            scratch,
            piece,
        } = self;
        let place = piece.place();
        let (k, width, stride) = (place.lines, place.width, padded(place.width));
        // The result has k lines where the logits have len.
        let (slab, at) = (place.start / (k * rows.inner), place.start % rows.inner);
        let tops = &mut scratch.tops[..width];
        tops.iter_mut().for_each(Top::clear);
        for first in (0..rows.len).step_by(LINES) {
            let lines = LINES.min(rows.len - first);
            let block = Block {
                slab,
                first,
                lines,
                at,
                width,
            };
            fill_block::<S, E, _>(scores, rows, block, &mut scratch.flat, &mut scratch.lines);
            for (j, top) in tops.iter_mut().enumerate() {
                let column = &mut scratch.column[..lines];
                for (dst, line) in column.iter_mut().zip(scratch.lines.chunks_exact(stride)) {
                    *dst = line[j];
                }
                scan::<S, E::Compute>(column, first, top);
            }
        }
        let mut faults = Vec::new();
        let indices = &mut scratch.indices[..k * width];
        for (j, (top, indices)) in tops.iter_mut().zip(indices.chunks_mut(k)).enumerate() {
            let row = slab * rows.inner + at + j;
            faults.extend(top.finish(indices).map(|fault| (row, fault)));
        }
        let mut line = [0; 64];
        for rank in 0..k {
            for columns in indices.chunks(64 * k) {
                let n = columns.len() / k;
                for (dst, column) in line.iter_mut().zip(columns.chunks_exact(k)) {
                    *dst = column[rank];
                }
                piece.push(&line[..n]);
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_ordered_as_scores_and_then_by_index() {
        let scores = [
            f32::INFINITY,
            f32::MAX,
            1.0,
            f32::MIN_POSITIVE,
            1e-45,
            0.0,
            -1e-45,
            -1.0,
            f32::MIN,
            f32::NEG_INFINITY,
        ];
        for (i, &a) in scores.iter().enumerate() {
            for (j, &b) in scores.iter().enumerate() {
                let wide = (f64::from(a).rank(7), f64::from(b).rank(7));
                assert_eq!(a.rank(7).cmp(&b.rank(7)), j.cmp(&i));
                assert_eq!(wide.0.cmp(&wide.1), j.cmp(&i));
            }
            for index in [0, 1, u32::MAX] {
                assert_eq!(
                    (f32::score(a.rank(index)), f32::index(a.rank(index))),
                    (a, index)
                );
                let wide = f64::from(a).rank(index);
                assert_eq!((f64::score(wide), f64::index(wide)), (a.into(), index));
            }
            assert!(a.rank(3) > a.rank(4) && f64::from(a).rank(3) > f64::from(a).rank(4));
        }
        assert_eq!(
            (0f32.rank(1), 0f64.rank(1)),
            ((-0f32).rank(1), (-0f64).rank(1))
        );
    }
}
