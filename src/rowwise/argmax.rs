//! The index of the largest logit plus Gumbel noise in each row.

use super::scores::{Block, Perturbed, Scores, fill_block, flat_room};
use super::softmax::row_max;
use super::{GRAIN_NOISE, LINES, Rows, TILE, padded};
use crate::element::{Element, Vector};
use crate::math::Real;
use crate::output::{Piece, Split, fill, parallel};
use crate::rng::{FILL_SLACK, Race, RaceReal, RaceScratch, Stream};
use crate::simd::{Float, Kernel, Mask, Simd, dispatch, outlined};

/// A row's winner; none where the row is all -inf or holds NaN or +inf.
pub(crate) type Winner = Option<u32>;

/// Rows from this length on are raced lazily; shorter ones are too soon over for it to save anything.
const LAZY_FROM: usize = 128;

/// The winner of each row.
pub(crate) fn argmax<E: Element>(scores: &Perturbed<E>, rows: Rows) -> Vec<Winner> {
    if rows.elements() == 0 {
        return Vec::new();
    }
    let Rows { outer, len, inner } = rows;
    let grain = (GRAIN_NOISE / len).max(1);
    if inner > 1 {
        let width = rows.column_width();
        let split = Split::Columns {
            outer,
            len: 1,
            inner,
            width,
        };
        let scratch = || ColumnScratch::<E>::new(rows, width);
        let work = |scratch: &mut ColumnScratch<E>, _: usize, piece: &mut Piece<Winner>| {
            dispatch(ColumnTile {
                scores,
                rows,
                scratch,
                piece,
            });
        };
        return fill(split, grain, scratch, work).0;
    }
    if len < LAZY_FROM {
        let size = TILE / len;
        let split = Split::Runs { total: outer, size };
        let scratch = || {
            let scores = vec![E::Compute::default(); TILE + FILL_SLACK];
            (scores, vec![None; size])
        };
        let work = |(buffer, winners): &mut (Vec<_>, Vec<_>), i: usize, piece: &mut Piece<_>| {
            dispatch(ShortRows {
                scores,
                len,
                first: i * size,
                buffer,
                winners,
                piece,
            });
        };
        return fill(split, grain, scratch, work).0;
    }
    let room = len.min(TILE);
    let scratch = || {
        let logits = vec![E::Compute::default(); room + FILL_SLACK];
        (logits, E::Compute::scratch(room))
    };
    let race = |(logits, scratch): &mut (Vec<_>, _), place: (usize, usize, usize), from| {
        let (row, first, n) = place;
        dispatch(RowTile {
            scores,
            start: row * len + first,
            first,
            n,
            logits,
            scratch,
            from,
        })
    };
    if len <= TILE || !rows.few() {
        return parallel(outer, outer, grain, scratch, |scratch, row| {
            // Each tile starts from the best of those before, which lets it skip the more.
            let tiles = (0..len).step_by(TILE);
            let whole = tiles.fold(Race::new(), |from, at| {
                race(scratch, (row, at, TILE.min(len - at)), from)
            });
            winner(whole)
        });
    }
    let split = rows.tiles();
    let elements = rows.elements();
    let races = parallel(
        split.pieces(),
        elements,
        GRAIN_NOISE,
        scratch,
        |scratch, i| {
            let place = split.place(i);
            let (row, at) = (place.start / len, place.start % len);
            race(scratch, (row, at, place.width), Race::new())
        },
    );
    let merge = |tiles: &[Race<E::Compute>]| {
        let mut whole = Race::new();
        tiles.iter().for_each(|&tile| whole.then(tile));
        winner(whole)
    };
    races.chunks(rows.tiles_per_row()).map(merge).collect()
}

/// The one-hots of the rows; NaN in a row without a winner.
pub(crate) fn one_hots<E: Element>(winners: &[Winner], rows: Rows) -> Vec<E> {
    let Rows { len, inner, .. } = rows;
    let mut out = vec![E::default(); rows.elements()];
    for (row, winner) in winners.iter().enumerate() {
        let first = row / inner * len * inner + row % inner;
        match winner {
            Some(index) => out[first + *index as usize * inner] = E::round(1.0),
            None => (0..len).for_each(|k| out[first + k * inner] = E::round(f64::NAN)),
        }
    }
    out
}

fn winner<C: RaceReal>(race: Race<C>) -> Winner {
    // The callers refuse rows whose indices do not fit.
    race.winner().map(|index| index as u32)
}

struct ShortRows<'a, 'b, E: Element> {
    scores: &'a Perturbed<'a, E>,
    len: usize,
    first: usize,
    buffer: &'a mut [E::Compute],
    winners: &'a mut [Winner],
    piece: &'a mut Piece<'b, Winner>,
}

impl<E: Element> Kernel for ShortRows<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let len = self.len;
        let n = self.piece.place().width * len;
        let offset = self.scores.fill::<S>(self.first * len, n, self.buffer);
        let winners = &mut self.winners[..n / len];
        scan_rows::<S, E::Compute>(&self.buffer[offset..], len, winners);
        self.piece.push(winners);
    }
}

outlined! {
    /// The winners of finished rows that follow each other, one for each element of `winners`.
    fn scan_rows['a, C: RaceReal](rows: &'a [C], len: usize, winners: &'a mut [Winner]) -> () {
        for (i, out) in winners.iter_mut().enumerate() {
            let row = &rows[i * len..];
            let best = row_max::<S, C>(row, len);
            let mut race = Race::new();
            race.best = best;
            race.nan = has_nan::<S, C>(row, len);
            race.index = row[..len].iter().position(|&z| z == best).unwrap_or(0);
            *out = winner(race);
        }
    }

    /// Takes a block's lines into the races of its columns.
    fn block_race['a, C: RaceReal](
        lines: &'a [C],
        stride: usize,
        first: usize,
        races: &'a mut [Race<C>],
    ) -> () {
        let lanes = C::V::<S>::LANES;
        for (j, races) in races.chunks_exact_mut(lanes).enumerate() {
            column_race::<S, C>(lines, stride, j * lanes, first, races);
        }
    }

    fn race_tile['a, C: RaceReal](
        race: Race<C>,
        stream: &'a Stream,
        place: (usize, usize, usize),
        logits: &'a [C],
        scratch: &'a mut RaceScratch<C>,
    ) -> Race<C> {
        let (start, first, n) = place;
        let mut race = race;
        C::race::<S, _>(&mut race, stream, start, first, logits, n, scratch);
        race
    }
}

/// Whether one of the first `len` elements of a padded row is NaN.
#[inline(always)]
pub(crate) fn has_nan<S: Simd, C: Real>(row: &[C], len: usize) -> bool {
    let lanes = C::V::<S>::LANES;
    let top = C::V::<S>::splat(C::INFINITY);
    let mut all = true;
    for at in (0..len).step_by(lanes) {
        let x = C::V::<S>::load(&row[at..]);
        let x = Float::select(C::V::<S>::first(len - at), x, top);
        all &= x.le(top).all();
    }
    !all
}

struct RowTile<'a, E: Element> {
    scores: &'a Perturbed<'a, E>,
    start: usize,
    first: usize,
    n: usize,
    logits: &'a mut [E::Compute],
    scratch: &'a mut RaceScratch<E::Compute>,
    from: Race<E::Compute>,
}

impl<E: Element> Kernel for RowTile<'_, E> {
    type Output = Race<E::Compute>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Race<E::Compute> {
        let n = self.n;
        self.scores
            .logits
            .copy_to::<S>(self.start, &mut self.logits[..n]);
        self.logits[n..n + Vector::<S, E>::LANES].fill(E::Compute::NEG_INFINITY);
        race_tile::<S, E::Compute>(
            self.from,
            &self.scores.stream,
            (self.start, self.first, n),
            self.logits,
            self.scratch,
        )
    }
}

struct ColumnScratch<E: Element> {
    flat: Vec<E::Compute>,
    scores: Vec<E::Compute>,
    races: Vec<Race<E::Compute>>,
}

impl<E: Element> ColumnScratch<E> {
    fn new(rows: Rows, width: usize) -> Self {
        let zeros = |n| vec![E::Compute::default(); n];
        Self {
            flat: zeros(flat_room(rows, width)),
            scores: zeros(rows.len.min(LINES) * padded(width)),
            races: Vec::new(),
        }
    }
}

struct ColumnTile<'a, 'b, E: Element> {
    scores: &'a Perturbed<'a, E>,
    rows: Rows,
    scratch: &'a mut ColumnScratch<E>,
    piece: &'a mut Piece<'b, Winner>,
}

impl<E: Element> Kernel for ColumnTile<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            scores,
            rows,
            scratch:
                ColumnScratch {
                    flat,
                    scores: buffer,
                    races,
                },
            piece,
        } = self;
        let place = piece.place();
        let (slab, at, width) = (
            place.start / rows.inner,
            place.start % rows.inner,
            place.width,
        );
        let stride = padded(width);
        races.clear();
        races.resize(stride, Race::new());
        for first in (0..rows.len).step_by(LINES) {
            let block = Block {
                slab,
                first,
                lines: LINES.min(rows.len - first),
                at,
                width,
            };
            fill_block::<S, E, _>(scores, rows, block, flat, buffer);
            let lines = &buffer[..block.lines * stride];
            block_race::<S, E::Compute>(lines, stride, first, races);
        }
        for &race in &races[..width] {
            piece.push(&[winner(race)]);
        }
    }
}

/// Takes a block's lines into the races of the columns from `j` on.
#[inline(always)]
fn column_race<S: Simd, C: RaceReal>(
    lines: &[C],
    stride: usize,
    j: usize,
    first: usize,
    races: &mut [Race<C>],
) {
    let top = C::V::<S>::splat(C::INFINITY);
    let one = C::V::<S>::splat(C::of(1.0));
    let mut best = C::V::<S>::splat(C::NEG_INFINITY);
    // A line's number within its block is small enough to be carried as a number.
    let mut number = C::V::<S>::splat(C::default());
    let mut index = number;
    let mut nan = number;
    for line in lines.chunks_exact(stride) {
        let z = C::V::<S>::load(&line[j..]);
        let better = best.lt(z);
        best = Float::select(better, z, best);
        index = Float::select(better, number, index);
        nan = Float::select(z.le(top), nan, one);
        number = number + one;
    }
    let mut lanes = [[C::default(); 16]; 3];
    for (lanes, x) in lanes.iter_mut().zip([best, index, nan]) {
        x.store(lanes);
    }
    for (i, race) in races.iter_mut().enumerate() {
        race.then(Race {
            best: lanes[0][i],
            index: first + lanes[1][i].f64() as usize,
            nan: lanes[2][i] > C::default(),
        });
    }
}
