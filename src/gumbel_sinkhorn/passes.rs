//! The loops over a matrix: rows of whole vectors, what lies past column `n` being -inf as a score and 0 as an exponential.

#![allow(
    clippy::needless_range_loop,
    reason = "a row's number indexes matrices and vectors alike"
)]

use crate::math::Real;
use crate::simd::{Float, Mask, Simd, outlined};

/// Vectors of a row that are summed in one chain; the chains' sums are summed again, which keeps the error down.
const CHAIN: usize = 16;
/// Rows of a column that are, for the same reason.
const LINES: usize = 8;
/// Scales stay below this, and above its inverse. An exponential that was flushed to 0 would count for less than its square
/// times the smallest normal number: nothing, in a sum that is at least its inverse.
const LIMIT: f64 = 1_073_741_824.0;

/// An `n` by `n` matrix, its rows `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) n: usize,
    pub(super) stride: usize,
}

impl Size {
    pub(super) fn new(n: usize) -> Self {
        Self {
            n,
            stride: n.next_multiple_of(crate::simd::LANES_F32),
        }
    }

    pub(super) fn elements(self) -> usize {
        self.n * self.stride
    }
}

/// `a - b`, and what its rounding lost.
#[inline(always)]
fn less<V: Float>(a: V, b: V) -> (V, V) {
    let sum = a - b;
    let part = sum - a;
    (sum, (a - (sum - part)) - (b + part))
}

/// Row `i` of a matrix.
#[inline(always)]
fn row<C>(size: Size, matrix: &[C], i: usize) -> &[C] {
    &matrix[i * size.stride..][..size.stride]
}

#[inline(always)]
fn row_mut<C>(size: Size, matrix: &mut [C], i: usize) -> &mut [C] {
    &mut matrix[i * size.stride..][..size.stride]
}

outlined! {
    /// `out = z - rows - columns`, each potential in two parts, rounded once or nearly so.
    pub(super) fn differences['a, C: Real](
        size: Size,
        z: &'a [C],
        rows: [&'a [C]; 2],
        columns: [&'a [C]; 2],
        out: &'a mut [C],
    ) -> () {
        let limit = C::V::<S>::splat(C::LARGEST);
        for i in 0..size.n {
            let [high, low] = rows.map(#[inline(always)] |part| C::V::<S>::splat(part[i]));
            let (z, out) = (row(size, z, i), row_mut(size, out, i));
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let [c_high, c_low] = columns.map(#[inline(always)] |part| C::V::<S>::load(&part[at..]));
                let (x, lost) = less(C::V::<S>::load(&z[at..]), high);
                let (x, more) = less(x, c_high);
                let rest = ((lost + more) - low) - c_low;
                // A forbidden entry stays -inf; its `rest` is not a number.
                Float::select(rest.le(limit), x + rest, x).store(&mut out[at..]);
            }
        }
    }

    /// The largest element of each row.
    pub(super) fn row_maxima['a, C: Real](size: Size, x: &'a [C], out: &'a mut [C]) -> () {
        for (i, out) in out[..size.n].iter_mut().enumerate() {
            *out = crate::rowwise::row_max::<S, C>(row(size, x, i), size.stride);
        }
    }

    /// The largest element of each column; 0 past the last.
    pub(super) fn column_maxima['a, C: Real](size: Size, x: &'a [C], out: &'a mut [C]) -> () {
        out[..size.stride].fill(C::NEG_INFINITY);
        for i in 0..size.n {
            let x = row(size, x, i);
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let old = C::V::<S>::load(&out[at..]);
                C::V::<S>::load(&x[at..]).max(old).store(&mut out[at..]);
            }
        }
        out[size.n..size.stride].fill(C::default());
    }

    /// `k = exp((k - rows - columns) / tau)`, `scale` being that of the temperature. Nothing is above 0 before.
    pub(super) fn exponentials['a, C: Real](
        size: Size,
        rows: &'a [C],
        columns: &'a [C],
        scale: C,
        k: &'a mut [C],
    ) -> () {
        let scale = C::V::<S>::splat(scale);
        for i in 0..size.n {
            let here = C::V::<S>::splat(rows[i]);
            let k = row_mut(size, k, i);
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let x = (C::V::<S>::load(&k[at..]) - here) - C::V::<S>::load(&columns[at..]);
                C::exp_scaled::<S>(x * scale).store(&mut k[at..]);
            }
        }
    }

    /// `out[i] = sum_j k[i][j] weights[j]`, for as many rows as `out` has room for.
    pub(super) fn row_sums['a, C: Real](
        size: Size,
        k: &'a [C],
        weights: &'a [C],
        out: &'a mut [C],
    ) -> () {
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot::<S, C>(row(size, k, i), &weights[..size.stride]);
        }
    }

    /// `out[i] = sum_j k[i][j] m[i][j]`, for as many rows as `out` has room for.
    pub(super) fn row_products['a, C: Real](
        size: Size,
        k: &'a [C],
        m: &'a [C],
        out: &'a mut [C],
    ) -> () {
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot::<S, C>(row(size, k, i), row(size, m, i));
        }
    }

    /// `out[j] = sum_i k[i][j] weights[i]`, over as many rows as there are weights.
    pub(super) fn column_sums['a, C: Real](
        size: Size,
        k: &'a [C],
        weights: &'a [C],
        out: &'a mut [C],
    ) -> () {
        columns::<S, C>(size, weights.len(), out, #[inline(always)] |i, at, sum| {
            C::V::<S>::load(&k[at..]).mul_add(C::V::<S>::splat(weights[i]), sum)
        });
    }

    /// `out[j] = sum_i k[i][j] weights[i] m[i][j]`, over as many rows as there are weights.
    pub(super) fn column_products['a, C: Real](
        size: Size,
        k: &'a [C],
        weights: &'a [C],
        m: &'a [C],
        out: &'a mut [C],
    ) -> () {
        columns::<S, C>(size, weights.len(), out, #[inline(always)] |i, at, sum| {
            let k = C::V::<S>::load(&k[at..]) * C::V::<S>::splat(weights[i]);
            k.mul_add(C::V::<S>::load(&m[at..]), sum)
        });
    }

    /// `out += x`.
    pub(super) fn add['a, C: Real](x: &'a [C], out: &'a mut [C]) -> () {
        for at in (0..out.len()).step_by(C::V::<S>::LANES) {
            (C::V::<S>::load(&out[at..]) + C::V::<S>::load(&x[at..])).store(&mut out[at..]);
        }
    }

    /// `out = 1 / sums`, 0 past the last; whether all are within the limits of a scale.
    pub(super) fn invert['a, C: Real](size: Size, sums: &'a [C], out: &'a mut [C]) -> bool {
        let (one, zero) = (C::V::<S>::splat(C::of(1.0)), C::V::<S>::splat(C::default()));
        let (low, high) = (C::V::<S>::splat(C::of(1.0 / LIMIT)), C::V::<S>::splat(C::of(LIMIT)));
        let mut fits = true;
        for at in (0..size.stride).step_by(C::V::<S>::LANES) {
            let inside = C::V::<S>::first(size.n.saturating_sub(at).min(C::V::<S>::LANES));
            let sum = Float::select(inside, C::V::<S>::load(&sums[at..]), one);
            fits &= !sum.lt(low).or(high.lt(sum)).any();
            Float::select(inside, one / sum, zero).store(&mut out[at..]);
        }
        fits
    }

    /// `m += sum a b^T` over pairs of vectors, which lie one after the other in `pairs`.
    pub(super) fn add_outer['a, C: Real](size: Size, pairs: &'a [C], m: &'a mut [C]) -> () {
        for four in pairs.chunks(8 * size.stride) {
            if four.len() == 8 * size.stride {
                outer::<S, C, 4>(size, four, m);
            } else {
                for one in four.chunks(2 * size.stride) {
                    outer::<S, C, 1>(size, one, m);
                }
            }
        }
    }

    /// `d += k m` element by element, and `m = 0`.
    pub(super) fn settle['a, C: Real](size: Size, k: &'a [C], m: &'a mut [C], d: &'a mut [C]) -> () {
        let zero = C::V::<S>::splat(C::default());
        for at in (0..size.elements()).step_by(C::V::<S>::LANES) {
            let old = C::V::<S>::load(&d[at..]);
            C::V::<S>::load(&k[at..]).mul_add(C::V::<S>::load(&m[at..]), old).store(&mut d[at..]);
            zero.store(&mut m[at..]);
        }
    }

    /// `out = k a b^T` element by element.
    pub(super) fn scaled['a, C: Real](
        size: Size,
        k: &'a [C],
        a: &'a [C],
        b: &'a [C],
        out: &'a mut [C],
    ) -> () {
        for i in 0..size.n {
            let here = C::V::<S>::splat(a[i]);
            let (k, out) = (row(size, k, i), row_mut(size, out, i));
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let k = C::V::<S>::load(&k[at..]) * here;
                (k * C::V::<S>::load(&b[at..])).store(&mut out[at..]);
            }
        }
    }

    /// `g = a b^T (g - means)` element by element, `means` being one a column.
    pub(super) fn centre['a, C: Real](
        size: Size,
        a: &'a [C],
        b: &'a [C],
        means: &'a [C],
        g: &'a mut [C],
    ) -> () {
        for i in 0..size.n {
            let here = C::V::<S>::splat(a[i]);
            let g = row_mut(size, g, i);
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let x = C::V::<S>::load(&g[at..]) - C::V::<S>::load(&means[at..]);
                (x * (here * C::V::<S>::load(&b[at..]))).store(&mut g[at..]);
            }
        }
    }

    /// `out = factor a b` element by element, and the largest magnitude in it.
    pub(super) fn product['a, C: Real](factor: f64, a: &'a [C], b: &'a [C], out: &'a mut [C]) -> C {
        let factor = C::V::<S>::splat(C::of(factor));
        let mut largest = C::V::<S>::splat(C::default());
        for at in (0..out.len()).step_by(C::V::<S>::LANES) {
            let x = (C::V::<S>::load(&a[at..]) * C::V::<S>::load(&b[at..])) * factor;
            largest = largest.max(x.max(-x));
            x.store(&mut out[at..]);
        }
        largest.reduce_max()
    }

    /// `sum d (z - pivots)`, `pivots` being one a row; an entry whose score is -inf counts for nothing.
    pub(super) fn moment['a, C: Real](
        size: Size,
        d: &'a [C],
        z: &'a [C],
        pivots: &'a [C],
    ) -> f64 {
        let zero = C::V::<S>::splat(C::default());
        let lowest = C::V::<S>::splat(C::NEG_INFINITY);
        let mut total = 0.0;
        for i in 0..size.n {
            let (d, z) = (row(size, d, i), row(size, z, i));
            let pivot = C::V::<S>::splat(pivots[i]);
            let mut sum = zero;
            for at in (0..size.stride).step_by(C::V::<S>::LANES) {
                let z = C::V::<S>::load(&z[at..]);
                let x = Float::select(z.le(lowest), zero, z - pivot);
                sum = C::V::<S>::load(&d[at..]).mul_add(x, sum);
            }
            total += sum.reduce_add().f64();
        }
        total
    }

    /// Whether there is an entry that is not below +inf: NaN or +inf.
    pub(super) fn has_improper['a, C: Real](x: &'a [C]) -> bool {
        let largest = C::V::<S>::splat(C::LARGEST);
        let chunks = x.chunks_exact(C::V::<S>::LANES);
        !chunks.map(#[inline(always)] |x| C::V::<S>::load(x).le(largest)).all(#[inline(always)] |m| m.all())
    }
}

/// `sum_j a[j] b[j]`, of slices of whole vectors.
#[inline(always)]
fn dot<S: Simd, C: Real>(a: &[C], b: &[C]) -> C {
    let lanes = C::V::<S>::LANES;
    let mut total = C::V::<S>::splat(C::default());
    for (a, b) in a.chunks(CHAIN * lanes).zip(b.chunks(CHAIN * lanes)) {
        let mut sum = C::V::<S>::splat(C::default());
        for (a, b) in a.chunks_exact(lanes).zip(b.chunks_exact(lanes)) {
            sum = C::V::<S>::load(a).mul_add(C::V::<S>::load(b), sum);
        }
        total = total + sum;
    }
    total.reduce_add()
}

/// `m += sum a b^T` over `PAIRS` pairs.
#[inline(always)]
fn outer<S: Simd, C: Real, const PAIRS: usize>(size: Size, pairs: &[C], m: &mut [C]) {
    let vector = |which: usize| &pairs[which * size.stride..][..size.stride];
    for i in 0..size.n {
        let mut a = [C::V::<S>::splat(C::default()); PAIRS];
        for (p, a) in a.iter_mut().enumerate() {
            *a = C::V::<S>::splat(vector(2 * p)[i]);
        }
        let m = row_mut(size, m, i);
        for at in (0..size.stride).step_by(C::V::<S>::LANES) {
            let mut x = C::V::<S>::load(&m[at..]);
            for (p, a) in a.iter().enumerate() {
                x = a.mul_add(C::V::<S>::load(&vector(2 * p + 1)[at..]), x);
            }
            x.store(&mut m[at..]);
        }
    }
}

/// Sums over `rows` rows, `add(i, at, sum)` adding the vector at place `at` of a matrix, which is in row `i`.
#[inline(always)]
fn columns<S: Simd, C: Real>(
    size: Size,
    rows: usize,
    out: &mut [C],
    add: impl Fn(usize, usize, C::V<S>) -> C::V<S>,
) {
    // Down a few rows at a time and then along them: neighbours in memory follow each other, and a chain of sums stays short.
    out[..size.stride].fill(C::default());
    let zero = C::V::<S>::splat(C::default());
    let full = rows / LINES * LINES;
    for first in (0..full).step_by(LINES) {
        for at in (0..size.stride).step_by(C::V::<S>::LANES) {
            let mut sum = zero;
            for i in first..first + LINES {
                sum = add(i, i * size.stride + at, sum);
            }
            (C::V::<S>::load(&out[at..]) + sum).store(&mut out[at..]);
        }
    }
    for at in (0..size.stride).step_by(C::V::<S>::LANES) {
        let mut sum = zero;
        for i in full..rows {
            sum = add(i, i * size.stride + at, sum);
        }
        (C::V::<S>::load(&out[at..]) + sum).store(&mut out[at..]);
    }
}
