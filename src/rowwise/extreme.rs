//! The largest element of each row, which may be several, and what is written of it.

use super::softmax::row_max;
use super::{GRAIN, Rows, Source, TILE, has_nan, padded, push};
use crate::element::{Element, Vector};
use crate::math::Real;
use crate::output::{Piece, Split, fill};
use crate::simd::{Float, Kernel, Simd, dispatch};

/// What is written of a row's largest element. A row that holds NaN has none: all that is written of it is NaN.
#[derive(Clone, Copy)]
pub(crate) enum Largest<'a, E> {
    /// The element; a zero is +0, since it cannot matter to a maximum which of the zeros it met first.
    Value,
    /// Each row's element of this tensor, shared evenly among those that are largest; 0 elsewhere.
    Shares(&'a Source<'a, E>),
    /// 1 at the first of them, 0 elsewhere.
    OneHot,
}

impl<E> Largest<'_, E> {
    /// Whether a row's result is as long as the row.
    fn is_row(&self) -> bool {
        !matches!(self, Largest::Value)
    }
}

/// `what` of each row of `x`, or, where `negated`, of `-x`; a value is then negated once more.
pub(crate) fn extreme<E: Element>(
    x: &Source<E>,
    rows: Rows,
    negated: bool,
    what: Largest<E>,
) -> Vec<E> {
    if rows.elements() == 0 {
        return Vec::new();
    }
    let Rows { outer, len, inner } = rows;
    let lines = if what.is_row() { len } else { 1 };
    let grain = if what.is_row() {
        GRAIN
    } else {
        (GRAIN / len).max(1)
    };
    let (split, room) = if inner > 1 {
        let width = rows.column_width();
        let split = Split::Columns {
            outer,
            len: lines,
            inner,
            width,
        };
        (split, padded(width))
    } else {
        // Whole rows to a piece.
        let some = (TILE / len).max(1);
        let split = Split::Runs {
            total: outer * lines,
            size: some * lines,
        };
        (split, padded(len.min(TILE)))
    };
    let scratch = || [(); 4].map(|()| vec![E::Compute::default(); room]);
    let work = |buffers: &mut [Vec<E::Compute>; 4], _: usize, piece: &mut Piece<E>| {
        let task = Task {
            x,
            rows,
            negated,
            what,
            buffers,
            piece,
        };
        if inner > 1 {
            dispatch(Columns(task));
        } else {
            dispatch(Lines(task));
        }
    };
    fill(split, grain, scratch, work).0
}

struct Task<'a, 'b, E: Element> {
    x: &'a Source<'a, E>,
    rows: Rows,
    negated: bool,
    what: Largest<'a, E>,
    buffers: &'a mut [Vec<E::Compute>; 4],
    piece: &'a mut Piece<'b, E>,
}

/// Elements `start .. start + n`, negated if need be.
#[inline(always)]
fn load<S: Simd, E: Element>(
    x: &Source<E>,
    negated: bool,
    start: usize,
    n: usize,
    to: &mut [E::Compute],
) {
    x.copy_to::<S>(start, &mut to[..n]);
    if negated {
        for at in (0..n).step_by(Vector::<S, E>::LANES) {
            (-Vector::<S, E>::load(&to[at..])).store(&mut to[at..]);
        }
    }
}

/// The value as it is returned.
#[inline(always)]
fn value<V: Float>(zero: V, largest: V, negated: bool) -> V {
    zero + if negated { -largest } else { largest }
}

struct Lines<'a, 'b, E: Element>(Task<'a, 'b, E>);

impl<E: Element> Kernel for Lines<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Task {
            x,
            rows: Rows { len, .. },
            negated,
            what,
            buffers: [row, out, ..],
            piece,
        } = self.0;
        let lanes = Vector::<S, E>::LANES;
        let (zero, one) = (E::Compute::default(), E::Compute::of(1.0));
        let place = piece.place();
        let lines = if what.is_row() { len } else { 1 };
        let first = place.start / lines;
        for index in first..first + place.width / lines {
            let tiles = || (0..len).step_by(TILE).map(|at| (at, TILE.min(len - at)));
            let start = index * len;
            let (mut largest, mut nan) = (E::Compute::NEG_INFINITY, false);
            for (at, n) in tiles() {
                load::<S, E>(x, negated, start + at, n, row);
                let here = row_max::<S, E::Compute>(row, n);
                largest = if here > largest { here } else { largest };
                nan |= has_nan::<S, E::Compute>(row, n);
            }
            if nan {
                largest = E::Compute::of(f64::NAN);
            }
            // A row of one tile is still there.
            let again = len > TILE;
            match what {
                Largest::Value => {
                    let largest = if negated {
                        -largest.f64()
                    } else {
                        largest.f64()
                    };
                    push::<S, E>(piece, &[E::Compute::of(largest + 0.0)]);
                }
                Largest::Shares(grad) => {
                    let mut ties = 0.0;
                    for (at, n) in tiles() {
                        if again {
                            load::<S, E>(x, negated, start + at, n, row);
                        }
                        ties += count::<S, E::Compute>(row, n, largest);
                    }
                    let share = grad.at(index).compute().f64() / ties;
                    let share = E::Compute::of(if nan { f64::NAN } else { share });
                    let (zero, share) = (Float::splat(zero), Float::splat(share));
                    let bound = Vector::<S, E>::splat(largest);
                    for (at, n) in tiles() {
                        if again {
                            load::<S, E>(x, negated, start + at, n, row);
                        }
                        for at in (0..n).step_by(lanes) {
                            let below = Vector::<S, E>::load(&row[at..]).lt(bound);
                            Vector::<S, E>::select(below, zero, share).store(&mut out[at..]);
                        }
                        push::<S, E>(piece, &out[..n]);
                    }
                }
                Largest::OneHot => {
                    let mut found = nan;
                    for (at, n) in tiles() {
                        if again {
                            load::<S, E>(x, negated, start + at, n, row);
                        }
                        out[..n].fill(if nan { largest } else { zero });
                        if !found && let Some(i) = row[..n].iter().position(|&x| x == largest) {
                            (found, out[i]) = (true, one);
                        }
                        push::<S, E>(piece, &out[..n]);
                    }
                }
            }
        }
    }
}

/// How many of the first `n` elements, none of which is larger, are `largest`.
#[inline(always)]
fn count<S: Simd, C: Real>(row: &[C], n: usize, largest: C) -> f64 {
    let lanes = C::V::<S>::LANES;
    let (zero, one) = (C::V::<S>::splat(C::default()), C::V::<S>::splat(C::of(1.0)));
    let largest = C::V::<S>::splat(largest);
    let mut ties = zero;
    for at in (0..n).step_by(lanes) {
        let tie = Float::select(C::V::<S>::load(&row[at..]).lt(largest), zero, one);
        ties = ties + Float::select(C::V::<S>::first(n - at), tie, zero);
    }
    ties.reduce_add().f64()
}

struct Columns<'a, 'b, E: Element>(Task<'a, 'b, E>);

impl<E: Element> Kernel for Columns<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Task {
            x,
            rows: Rows { len, inner, .. },
            negated,
            what,
            buffers: [line, largest, given, out],
            piece,
        } = self.0;
        let place = piece.place();
        let lines = if what.is_row() { len } else { 1 };
        let (slab, column) = (place.start / (lines * inner), place.start % inner);
        let width = place.width;
        let zero = Vector::<S, E>::splat(E::Compute::default());
        let one = Vector::<S, E>::splat(E::Compute::of(1.0));
        let lowest = Vector::<S, E>::splat(E::Compute::NEG_INFINITY);
        let top = Vector::<S, E>::splat(E::Compute::INFINITY);
        let nan = Vector::<S, E>::splat(E::Compute::of(f64::NAN));
        let lanes = || (0..width).step_by(Vector::<S, E>::LANES);
        let start = |k: usize| (slab * len + k) * inner + column;
        // The largest so far; `out` says with NaN that one took part.
        for at in lanes() {
            lowest.store(&mut largest[at..]);
            zero.store(&mut out[at..]);
        }
        for k in 0..len {
            load::<S, E>(x, negated, start(k), width, line);
            for at in lanes() {
                let x = Vector::<S, E>::load(&line[at..]);
                let so_far = Vector::<S, E>::load(&largest[at..]);
                Float::select(so_far.lt(x), x, so_far).store(&mut largest[at..]);
                let proper = Vector::<S, E>::load(&out[at..]);
                Float::select(x.le(top), proper, nan).store(&mut out[at..]);
            }
        }
        match what {
            Largest::Value => {
                for at in lanes() {
                    let largest = Vector::<S, E>::load(&largest[at..]);
                    let proper = Vector::<S, E>::load(&out[at..]);
                    (value(zero, largest, negated) + proper).store(&mut out[at..]);
                }
                push::<S, E>(piece, &out[..width]);
                return;
            }
            Largest::OneHot => {
                for at in lanes() {
                    (one + Vector::<S, E>::load(&out[at..])).store(&mut given[at..]);
                }
            }
            Largest::Shares(grad) => {
                for at in lanes() {
                    zero.store(&mut given[at..]);
                }
                for k in 0..len {
                    load::<S, E>(x, negated, start(k), width, line);
                    for at in lanes() {
                        let below = Vector::<S, E>::load(&line[at..])
                            .lt(Vector::<S, E>::load(&largest[at..]));
                        let ties = Vector::<S, E>::load(&given[at..]);
                        (ties + Float::select(below, zero, one)).store(&mut given[at..]);
                    }
                }
                grad.copy_to::<S>(slab * inner + column, &mut line[..width]);
                for at in lanes() {
                    let share =
                        Vector::<S, E>::load(&line[at..]) / Vector::<S, E>::load(&given[at..]);
                    (share + Vector::<S, E>::load(&out[at..])).store(&mut given[at..]);
                }
            }
        }
        // In a column with a NaN, which `given` then is, no element is below.
        for at in lanes() {
            let given = Vector::<S, E>::load(&given[at..]);
            let bound = Vector::<S, E>::load(&largest[at..]);
            let bound = Float::select(Vector::<S, E>::load(&out[at..]).le(top), bound, lowest);
            bound.store(&mut largest[at..]);
            // What is left of it, for a one-hot.
            given.store(&mut out[at..]);
        }
        let once = matches!(what, Largest::OneHot);
        for k in 0..len {
            load::<S, E>(x, negated, start(k), width, line);
            for at in lanes() {
                let below =
                    Vector::<S, E>::load(&line[at..]).lt(Vector::<S, E>::load(&largest[at..]));
                let left = Vector::<S, E>::load(&out[at..]);
                let y = Float::select(below, zero, left);
                y.store(&mut line[at..]);
                if once {
                    (left - y).store(&mut out[at..]);
                }
            }
            push::<S, E>(piece, &line[..width]);
        }
    }
}
