//! The order of every sum here is part of the op's stream contract, so that another device can keep it.
//!
//! Level 1, rows of more than one tile. The sum of a tile: lane `j` of 256 adds its elements `j`, `j + 256`, `j + 512` and
//! `j + 768` in this order; then lane `j` takes lane `j + 128`, then `j + 64`, and so on down to one. Tiles then add up one
//! after the other in f64, each weighted by `exp` of its maximum relative to the row's.
//!
//! Level 2, the tile chosen. Weights relative to the tile's maximum become integers, `floor(exp(x - max) 2^50)`, whose sums
//! are exact in any order; a 64-bit word `r` chooses the first element at which they exceed `floor(r total / 2^64)`.

use crate::element::Element;
use crate::math::{Real, scalar};
use crate::output::{Piece, Split, fill, parallel};
use crate::rng::Stream;
use crate::rowwise::{GRAIN, Rows, Source, has_nan, padded, pivot, pivot_lanes, row_max};
use crate::simd::{Bits, Float, Kernel, LANES_F32, Simd, dispatch, outlined};

/// Elements of a tile.
const TILE: usize = 1024;
/// Lanes of a tile's sum.
const LANES: usize = 256;
/// Elements whose weights are added up before the search looks at single ones.
const CHUNK: usize = 128;
const WEIGHT_BITS: i32 = 50;
/// Rows whose words are drawn at a time: two words each of the 32 that eight blocks hold.
const WORD_ROWS: usize = 16;
/// Tiles that a task takes at a time where a row is shared out.
const TILES_PER_TASK: usize = 16;

/// The integer weights, per scalar type.
pub(super) trait Weight: Real {
    /// Adds up the weights of whole vectors of exponentials.
    fn total<S: Simd>(exponentials: &[Self]) -> u64;

    fn weight(self) -> u64 {
        (self.f64() * f64::from(2f32.powi(WEIGHT_BITS))) as u64
    }
}

impl Weight for f32 {
    #[inline(always)]
    fn total<S: Simd>(exponentials: &[f32]) -> u64 {
        // In two halves of 25 bits, each exact; a lane adds up to eight of them.
        debug_assert!(exponentials.len() <= CHUNK);
        let scale = S::F32::splat(33_554_432.0);
        let zero = S::U32::splat(0);
        let (mut high, mut low) = (zero, zero);
        for e in exponentials.chunks_exact(LANES_F32) {
            let scaled = S::F32::load(e) * scale;
            let whole = S::u32_from_f32(scaled);
            let rest = (scaled - S::f32_from_i32(whole)) * scale;
            high = high.add(whole);
            low = low.add(S::u32_from_f32(rest));
        }
        let mut lanes = [[0u32; LANES_F32]; 2];
        high.store(&mut lanes[0]);
        low.store(&mut lanes[1]);
        let [high, low] = lanes.map(|lanes| lanes.iter().copied().map(u64::from).sum::<u64>());
        (high << 25) + low
    }
}

impl Weight for f64 {
    #[inline(always)]
    fn total<S: Simd>(exponentials: &[f64]) -> u64 {
        exponentials.iter().map(|&e| e.weight()).sum()
    }
}

/// The drawn index of each row; none where the row is all -inf or holds NaN or +inf.
pub(super) fn draw<E>(logits: &Source<E>, stream: Stream, rows: Rows) -> Vec<Option<u32>>
where
    E: Element,
    E::Compute: Weight,
{
    if rows.elements() == 0 {
        return Vec::new();
    }
    let Rows { outer, len, inner } = rows;
    let grain = (GRAIN / len).max(1);
    if inner > 1 {
        let width = rows.column_width().min(64);
        let split = Split::Columns {
            outer,
            len: 1,
            inner,
            width,
        };
        let scratch = || ColumnScratch::<E>::new(rows, width);
        let work = |scratch: &mut ColumnScratch<E>, _: usize, piece: &mut Piece<Option<u32>>| {
            dispatch(ColumnTile {
                logits,
                stream,
                rows,
                scratch,
                piece,
            });
        };
        return fill(split, grain, scratch, work).0;
    }
    let tiles = len.div_ceil(TILE);
    if rows.few() && tiles >= 2 * TILES_PER_TASK {
        // Few long rows: their tiles are shared out.
        let tasks = tiles.div_ceil(TILES_PER_TASK);
        let stats: Vec<Vec<Tile<E>>> = parallel(
            outer * tasks,
            rows.elements(),
            GRAIN,
            room::<E>,
            |buffer, task| {
                let first = task % tasks * TILES_PER_TASK;
                let tiles = first..tiles.min(first + TILES_PER_TASK);
                let row = task / tasks;
                dispatch(TileStats {
                    logits,
                    row,
                    len,
                    tiles,
                    buffer,
                })
            },
        );
        let mut buffer = room::<E>();
        return (0..outer)
            .map(|row| {
                let tiles = stats[row * tasks..(row + 1) * tasks].concat();
                dispatch(ChooseLong {
                    logits,
                    row,
                    len,
                    tiles: &tiles,
                    words: row_words(&stream, row),
                    buffer: &mut buffer,
                })
            })
            .collect();
    }
    // Short rows come in whole groups, so that their words come from whole groups of blocks; a long one is its own piece.
    let per_piece = match TILE / len {
        0 => 1,
        rows => rows.next_multiple_of(WORD_ROWS).min(256),
    };
    let split = Split::Runs {
        total: outer,
        size: per_piece,
    };
    let scratch = || (room::<E>(), Vec::new());
    let work =
        |(buffer, tiles): &mut (Vec<_>, Vec<_>), i: usize, piece: &mut Piece<Option<u32>>| {
            dispatch(RowRange {
                logits,
                stream,
                len,
                first: i * per_piece,
                buffer,
                tiles,
                piece,
            });
        };
    fill(split, grain, scratch, work).0
}

/// Room for one tile.
fn room<E: Element>() -> Vec<E::Compute> {
    vec![E::Compute::default(); TILE + LANES_F32]
}

/// A tile's maximum and its sum of exponentials relative to that.
type Tile<E> = (<E as Element>::Compute, <E as Element>::Compute);

/// The two 64-bit words of a row: `(word, second word)` each, as [`Uniform`](crate::rng) joins them.
type Words = [u64; 2];

fn join(word: u32, second: u32) -> u64 {
    u64::from(word) << 32 | u64::from(second)
}

fn row_words(stream: &Stream, row: usize) -> Words {
    [0, 1].map(|i| {
        let (word, second) = stream.words(2 * row as u64 + i);
        join(word, second)
    })
}

/// The uniform on (0, 1) of a 64-bit word: the f64 map of `uniform`.
fn unit(word: u64) -> f64 {
    let (high, low) = ((word >> 32) as f64, f64::from(word as u32));
    let v = (high + (low + 0.5) / 4_294_967_296.0) / 4_294_967_296.0;
    v.min(1.0 - f64::EPSILON / 2.0)
}

// ------------------------------------------------------------------------------------------------------------ a tile

/// `exp(x - max)` of whole vectors in place.
#[inline(always)]
fn exponentials<S: Simd, C: Real>(x: &mut [C], max: C) {
    let lanes = C::V::<S>::LANES;
    let (max, scale) = (C::V::<S>::splat(max), C::V::<S>::splat(C::exp_scale(1.0)));
    for x in x.chunks_exact_mut(lanes) {
        C::exp_scaled::<S>((C::V::<S>::load(x) - max) * scale).store(x);
    }
}

/// Brings elements `at .. at + n` of a row to the buffer, and -inf to the rest of their last vector.
#[inline(always)]
fn load<S: Simd, E: Element>(logits: &Source<E>, at: usize, n: usize, buffer: &mut [E::Compute]) {
    logits.copy_to::<S>(at, &mut buffer[..n]);
    buffer[n..n.next_multiple_of(LANES_F32)].fill(E::Compute::NEG_INFINITY);
}

/// The maximum and the sum of a whole tile, in the order that the head of this file gives. A NaN makes the sum NaN. While
/// it computes, it has the tile that comes `next` brought to the cache.
#[inline(always)]
fn stats<S: Simd, C: Real>(tile: &[C], next: &[C]) -> (C, C) {
    let lanes = C::V::<S>::LANES;
    let max = row_max::<S, C>(tile, TILE);
    let scale = C::V::<S>::splat(C::exp_scale(1.0));
    let pivot = C::V::<S>::splat(pivot(max));
    let mut sums = [C::default(); LANES];
    for j in (0..LANES).step_by(lanes) {
        let mut e = [pivot; TILE / LANES];
        for (i, e) in e.iter_mut().enumerate() {
            let at = j + i * LANES;
            S::prefetch(next, at);
            *e = C::exp_scaled::<S>((C::V::<S>::load(&tile[at..]) - pivot) * scale);
        }
        (((e[0] + e[1]) + e[2]) + e[3]).store(&mut sums[j..]);
    }
    let mut half = LANES / 2;
    while half >= lanes {
        for j in (0..half).step_by(lanes) {
            let sum = C::V::<S>::load(&sums[j..]) + Float::load(&sums[j + half..]);
            sum.store(&mut sums[j..]);
        }
        half /= 2;
    }
    (max, C::V::<S>::load(&sums).reduce_add())
}

/// [`stats`] of the tile of `n` elements from `at` on: where it lies if it is whole, else in the buffer, where elements
/// that are not there weigh nothing.
#[inline(always)]
fn stats_at<S: Simd, E: Element>(
    logits: &Source<E>,
    at: usize,
    n: usize,
    buffer: &mut [E::Compute],
) -> Tile<E> {
    if n < TILE {
        logits.copy_to::<S>(at, &mut buffer[..n]);
        buffer[n..TILE].fill(E::Compute::NEG_INFINITY);
        return tile_stats::<S, E::Compute>(&buffer[..TILE], &[]);
    }
    let tile = logits.view::<S>(at, TILE, buffer);
    tile_stats::<S, E::Compute>(tile, logits.native_from(at + TILE))
}

/// The element that `word` chooses among `n` exponentials, followed by zeros to the end of a vector.
#[inline(always)]
fn pick<S: Simd, C: Weight>(e: &[C], n: usize, word: u64) -> usize {
    let whole = n.next_multiple_of(LANES_F32);
    let mut totals = [0u64; TILE / CHUNK];
    for (total, chunk) in totals.iter_mut().zip(e[..whole].chunks(CHUNK)) {
        *total = C::total::<S>(chunk);
    }
    let total: u64 = totals.iter().sum();
    let mut target = ((u128::from(word) * u128::from(total)) >> 64) as u64;
    let mut at = 0;
    for &chunk in &totals {
        if target < chunk {
            break;
        }
        target -= chunk;
        at += CHUNK;
    }
    for (i, &e) in e[at..n].iter().enumerate() {
        let weight = e.weight();
        if target < weight {
            return at + i;
        }
        target -= weight;
    }
    // Not reached: the target is below the total, and the largest element weighs 2^50.
    n - 1
}

/// A tile's share of its row, relative to the row's maximum.
#[inline(always)]
fn tile_weight<S: Simd, C: Real>((m, s): (C, C), max: C) -> f64 {
    let (max, scale) = (C::V::<S>::splat(max), C::V::<S>::splat(C::exp_scale(1.0)));
    let relative = scalar::<S, C>(
        m,
        #[inline(always)]
        |m| C::exp_scaled::<S>((m - max) * scale),
    );
    s.f64() * relative.f64()
}

/// The tile that `word` chooses; none where no proper weight is left.
#[inline(always)]
fn choose_tile<S: Simd, C: Real>(tiles: &[(C, C)], word: u64) -> Option<usize> {
    let max = tiles.iter().fold(
        C::NEG_INFINITY,
        |max, &(m, _)| if m > max { m } else { max },
    );
    if !(max > C::NEG_INFINITY && max < C::INFINITY) {
        return None;
    }
    let mut total = 0.0;
    for &tile in tiles {
        total += tile_weight::<S, C>(tile, max);
    }
    if total.is_nan() {
        return None;
    }
    let target = unit(word) * total;
    let mut sum = 0.0;
    let mut last = None;
    for (i, &tile) in tiles.iter().enumerate() {
        let weight = tile_weight::<S, C>(tile, max);
        if weight > 0.0 {
            sum += weight;
            last = Some(i);
            if sum > target {
                break;
            }
        }
    }
    last
}

/// The element that `word` chooses in a tile whose logits are in the buffer.
#[inline(always)]
fn choose_element<S: Simd, C: Weight>(buffer: &mut [C], n: usize, word: u64) -> Option<usize> {
    let max = row_max::<S, C>(buffer, n);
    if !(max > C::NEG_INFINITY && max < C::INFINITY) || has_nan::<S, C>(buffer, n) {
        return None;
    }
    exponentials::<S, C>(&mut buffer[..n.next_multiple_of(LANES_F32)], max);
    Some(pick::<S, C>(buffer, n, word))
}

outlined! {
    /// [`stats`] of one tile.
    fn tile_stats['a, C: Real](tile: &'a [C], next: &'a [C]) -> (C, C) {
        stats::<S, C>(tile, next)
    }

    /// [`choose_element`] in one tile.
    fn draw_element['a, C: Weight](buffer: &'a mut [C], n: usize, word: u64) -> Option<usize> {
        choose_element::<S, C>(buffer, n, word)
    }

    /// [`choose_tile`] in one row.
    fn draw_tile['a, C: Real](tiles: &'a [(C, C)], word: u64) -> Option<usize> {
        choose_tile::<S, C>(tiles, word)
    }

    /// Columns side by side: the maxima to `max`, the sums to the first line of `lanes`.
    fn block_stats['a, C: Real](
        lines: &'a [C],
        lanes: &'a mut [C],
        max: &'a mut [C],
        stride: usize,
    ) -> () {
        column_stats::<S, C>(lines, lanes, max, stride);
    }
}

// -------------------------------------------------------------------------------------------------------------- rows

struct TileStats<'a, E: Element> {
    logits: &'a Source<'a, E>,
    row: usize,
    len: usize,
    tiles: std::ops::Range<usize>,
    buffer: &'a mut [E::Compute],
}

impl<E: Element> Kernel for TileStats<'_, E> {
    type Output = Vec<Tile<E>>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self {
            logits,
            row,
            len,
            tiles,
            buffer,
        } = self;
        let mut stats = Vec::with_capacity(tiles.len());
        for tile in tiles {
            let n = TILE.min(len - tile * TILE);
            stats.push(stats_at::<S, E>(logits, row * len + tile * TILE, n, buffer));
        }
        stats
    }
}

/// The choice in a row of which every tile's sum is known.
struct ChooseLong<'a, E: Element> {
    logits: &'a Source<'a, E>,
    row: usize,
    len: usize,
    tiles: &'a [Tile<E>],
    words: Words,
    buffer: &'a mut [E::Compute],
}

impl<E: Element> Kernel for ChooseLong<'_, E>
where
    E::Compute: Weight,
{
    type Output = Option<u32>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Option<u32> {
        let at = TILE * draw_tile::<S, E::Compute>(self.tiles, self.words[0])?;
        let n = TILE.min(self.len - at);
        load::<S, E>(self.logits, self.row * self.len + at, n, self.buffer);
        let index = draw_element::<S, E::Compute>(self.buffer, n, self.words[1])?;
        Some((at + index) as u32)
    }
}

struct RowRange<'a, 'b, E: Element> {
    logits: &'a Source<'a, E>,
    stream: Stream,
    len: usize,
    first: usize,
    buffer: &'a mut [E::Compute],
    tiles: &'a mut Vec<Tile<E>>,
    piece: &'a mut Piece<'b, Option<u32>>,
}

impl<E: Element> Kernel for RowRange<'_, '_, E>
where
    E::Compute: Weight,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            logits,
            stream,
            len,
            first,
            buffer,
            tiles,
            piece,
        } = self;
        let rows = piece.place().width;
        let mut words = [[0u32; 2 * WORD_ROWS]; 2];
        for i in 0..rows {
            let (row, slot) = (first + i, 2 * (i % WORD_ROWS));
            if slot == 0 && len <= TILE {
                // Element 2 row, of block row / 2, begins a group: `first` is a multiple of the group's rows.
                for (words, stream) in words.iter_mut().zip([stream, stream.second()]) {
                    let (a, b) = stream.blocks::<S>(row as u64 / 2);
                    a.store(&mut words[..LANES_F32]);
                    b.store(&mut words[LANES_F32..]);
                }
            }
            let drawn = if len <= TILE {
                let word = join(words[0][slot + 1], words[1][slot + 1]);
                load::<S, E>(logits, row * len, len, buffer);
                draw_element::<S, E::Compute>(buffer, len, word).map(|i| i as u32)
            } else {
                tiles.clear();
                for at in (0..len).step_by(TILE) {
                    let n = TILE.min(len - at);
                    tiles.push(stats_at::<S, E>(logits, row * len + at, n, buffer));
                }
                ChooseLong {
                    logits,
                    row,
                    len,
                    tiles,
                    words: row_words(&stream, row),
                    buffer,
                }
                .run::<S>()
            };
            piece.push(&[drawn]);
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- columns

struct ColumnScratch<E: Element> {
    /// Lines of a tile, each padded to whole vectors.
    lines: Vec<E::Compute>,
    /// The lanes of the tile's sums.
    lanes: Vec<E::Compute>,
    max: Vec<E::Compute>,
    /// The stats of every tile of every column, tile by tile.
    tiles: Vec<Tile<E>>,
    /// One column's stats, and one column's tile.
    column_tiles: Vec<Tile<E>>,
    column: Vec<E::Compute>,
}

impl<E: Element> ColumnScratch<E> {
    fn new(rows: Rows, width: usize) -> Self {
        let zeros = |n| vec![E::Compute::default(); n];
        let stride = padded(width);
        Self {
            lines: zeros(rows.len.min(TILE) * stride),
            lanes: zeros(LANES * stride),
            max: zeros(stride),
            tiles: Vec::new(),
            column_tiles: Vec::new(),
            column: room::<E>(),
        }
    }
}

struct ColumnTile<'a, 'b, E: Element> {
    logits: &'a Source<'a, E>,
    stream: Stream,
    rows: Rows,
    scratch: &'a mut ColumnScratch<E>,
    piece: &'a mut Piece<'b, Option<u32>>,
}

impl<E: Element> Kernel for ColumnTile<'_, '_, E>
where
    E::Compute: Weight,
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            logits,
            stream,
            rows: Rows { len, inner, .. },
            scratch,
            piece,
        } = self;
        let place = piece.place();
        let (slab, at, width) = (place.start / inner, place.start % inner, place.width);
        let stride = padded(width);
        let element = |k: usize, column: usize| (slab * len + k) * inner + at + column;
        scratch.tiles.clear();
        for first in (0..len).step_by(TILE) {
            let n = TILE.min(len - first);
            for (line, dst) in scratch.lines.chunks_exact_mut(stride).take(n).enumerate() {
                logits.copy_to::<S>(element(first + line, 0), &mut dst[..width]);
            }
            if len > TILE {
                let lines = &scratch.lines[..n * stride];
                block_stats::<S, E::Compute>(lines, &mut scratch.lanes, &mut scratch.max, stride);
                let sums = scratch.max.iter().zip(&scratch.lanes[..stride]);
                scratch.tiles.extend(sums.map(|(&max, &sum)| (max, sum)));
            }
        }
        for column in 0..width {
            let row = slab * inner + at + column;
            let words = row_words(&stream, row);
            let (tile, buffer) = if len <= TILE {
                let src = scratch.lines[column..].iter().step_by(stride).take(len);
                for (dst, &src) in scratch.column.iter_mut().zip(src) {
                    *dst = src;
                }
                (Some(0), &mut scratch.column)
            } else {
                let own = scratch.tiles[column..].iter().step_by(stride);
                scratch.column_tiles.clear();
                scratch.column_tiles.extend(own);
                let tile = draw_tile::<S, E::Compute>(&scratch.column_tiles, words[0]);
                if let Some(tile) = tile {
                    let lines = tile * TILE..len.min((tile + 1) * TILE);
                    for (dst, k) in scratch.column.iter_mut().zip(lines) {
                        *dst = logits.at(element(k, column)).compute();
                    }
                }
                (tile, &mut scratch.column)
            };
            let drawn = tile.and_then(|tile| {
                let n = TILE.min(len - tile * TILE);
                buffer[n..n.next_multiple_of(LANES_F32)].fill(E::Compute::NEG_INFINITY);
                let index = draw_element::<S, E::Compute>(buffer, n, words[1])?;
                Some((tile * TILE + index) as u32)
            });
            piece.push(&[drawn]);
        }
    }
}

/// [`stats`] for columns side by side: the maxima to `max`, the sums to the first line of `lanes`.
#[inline(always)]
fn column_stats<S: Simd, C: Real>(lines: &[C], lanes: &mut [C], max: &mut [C], stride: usize) {
    let scale = C::V::<S>::splat(C::exp_scale(1.0));
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    let zero = C::V::<S>::splat(C::default());
    for j in (0..stride).step_by(C::V::<S>::LANES) {
        let mut m = lowest;
        for line in lines.chunks_exact(stride) {
            m = m.max(Float::load(&line[j..]));
        }
        m.store(&mut max[j..]);
        let pivot = pivot_lanes::<S, C>(m);
        for lane in 0..LANES {
            let mut sum = zero;
            for at in (lane * stride..lines.len()).step_by(LANES * stride) {
                let x = C::V::<S>::load(&lines[at + j..]);
                sum = sum + C::exp_scaled::<S>((x - pivot) * scale);
            }
            sum.store(&mut lanes[lane * stride + j..]);
        }
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                let other = C::V::<S>::load(&lanes[(lane + half) * stride + j..]);
                let sum = C::V::<S>::load(&lanes[lane * stride + j..]) + other;
                sum.store(&mut lanes[lane * stride + j..]);
            }
            half /= 2;
        }
    }
}
