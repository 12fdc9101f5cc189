//! With `q = softmax(logits / tau)`, `pi = softmax(logits)` and the one-hot `D`, the gradient is
//! `(q + D) (h - <q, h> / 2) - pi (h' - <pi, h'>) / 2`, where `h` is `g` counted from where `D` is hot and `h'` from the largest
//! logit. Neither shift changes anything in exact arithmetic. In rounded arithmetic a softmax's gradient near its largest
//! entry is a difference of nearly equal numbers, which the shift to that entry makes exact: the largest entry of
//! `(q + D) / 2` is always the hot one, that of `pi` the largest logit's.

use crate::element::Element;
use crate::math::Real;
use crate::op::{by_dtype, dtype, rows_of};
use crate::rng::NoiseReal;
use crate::rowwise::{
    CHAIN, CHAIN_LINES, Chunk, GRAIN, Lines, Operands, Passes, load_first, passes, pivot,
    pivot_lanes, row_pivot,
};
use crate::simd::{Float, Simd, outlined};
use candle_core::{CpuStorage, Layout, Result, Shape};

pub(super) fn gradient(
    name: &str,
    dim: usize,
    tau: f64,
    logits: (&CpuStorage, &Layout),
    drawn: (&CpuStorage, &Layout),
    grad: (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(logits.0), E => {
        let operands = Operands::<E>::new(logits, drawn, grad)?;
        let out = passes(&Heun { tau }, &operands, rows_of(logits.1, dim), GRAIN / 2);
        Ok((E::storage(out), logits.1.shape().clone()))
    })
}

struct Heun {
    tau: f64,
}

/// What is known of a row.
#[derive(Clone, Copy)]
struct Row<C> {
    /// The largest logit and the gradient there.
    top: (C, C),
    /// The gradient where the one-hot is hot; with the 1 that it has there.
    hot: (C, C),
    /// The sums of exponentials at `tau` and at 1, each followed by the sum of their products with the gradient, counted from
    /// `hot` and from `top`.
    sums: [f64; 4],
}

impl<C: Real> Row<C> {
    fn new() -> Self {
        Self {
            top: (C::NEG_INFINITY, C::default()),
            hot: (C::NEG_INFINITY, C::default()),
            sums: [0.0; 4],
        }
    }

    /// Takes in the largest logit and the hot entry of another part of the row, and the gradients there.
    fn take(&mut self, top: (C, C), hot: (C, C)) {
        for (own, other) in [(&mut self.top, top), (&mut self.hot, hot)] {
            if other.0 > own.0 || (other.0 == own.0 && other.1 > own.1) {
                *own = other;
            }
        }
    }
}

/// The vectors that finish an element.
struct Finish<V> {
    tempered: V,
    plain: V,
    half_mean: V,
    mean: V,
}

impl<V: Float> Finish<V> {
    #[inline(always)]
    fn new<C: Real>(row: &Row<C>) -> Self
    where
        V: Float<Scalar = C>,
    {
        let [tempered, tempered_product, plain, plain_product] = row.sums;
        Self {
            tempered: V::splat(C::of(1.0 / tempered)),
            plain: V::splat(C::of(0.5 / plain)),
            half_mean: V::splat(C::of(0.5 * tempered_product / tempered)),
            mean: V::splat(C::of(plain_product / plain)),
        }
    }

    /// From the exponentials at `tau` and at 1, the one-hot's entry and the gradient, counted twice.
    #[inline(always)]
    fn of(&self, tempered: V, plain: V, drawn: V, from_hot: V, from_top: V) -> V {
        let s = tempered.mul_add(self.tempered, drawn);
        let corrected = (plain * self.plain) * (from_top - self.mean);
        s.mul_add(from_hot - self.half_mean, -corrected)
    }
}

/// Exponentials, and the sums of which [`Row`] has room, of `n` elements; `each` is given place, both exponentials and both
/// shifted gradients.
#[inline(always)]
fn sum_pass<S: Simd, C: Real>(
    logits: &[C],
    grad: &[C],
    n: usize,
    row: &mut Row<C>,
    tau: f64,
    mut each: impl FnMut(usize, C::V<S>, C::V<S>),
) {
    let lanes = C::V::<S>::LANES;
    let zero = C::V::<S>::splat(C::default());
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    let top = C::V::<S>::splat(pivot(row.top.0));
    let (at_top, at_hot) = (C::V::<S>::splat(row.top.1), C::V::<S>::splat(row.hot.1));
    let (scale, unit) = (
        C::V::<S>::splat(C::exp_scale(tau)),
        C::V::<S>::splat(C::exp_scale(1.0)),
    );
    let mut total = [zero; 4];
    for chain in (0..n).step_by(CHAIN * lanes) {
        let mut sum = [zero; 4];
        for at in (chain..n.min(chain + CHAIN * lanes)).step_by(lanes) {
            let (x, g) = (&logits[at..], &grad[at..]);
            let x = load_first::<S, C>(x, n - at, lowest) - top;
            // What is not in the row may be anything: its product with an exponential of 0 must be 0.
            let g = load_first::<S, C>(g, n - at, zero);
            let plain = C::exp_scaled::<S>(x * unit);
            let tempered = if tau == 1.0 {
                plain
            } else {
                C::exp_scaled::<S>(x * scale)
            };
            each(at, tempered, plain);
            sum[0] = sum[0] + tempered;
            sum[1] = tempered.mul_add(g - at_hot, sum[1]);
            sum[2] = sum[2] + plain;
            sum[3] = plain.mul_add(g - at_top, sum[3]);
        }
        for (total, sum) in total.iter_mut().zip(sum) {
            *total = *total + sum;
        }
    }
    for (sum, total) in row.sums.iter_mut().zip(total) {
        *sum += total.reduce_add().f64();
    }
}

outlined! {
    /// Takes the largest logits of a chunk in, and what the gradients are there and at the hot entries.
    fn find_tops['a, C: NoiseReal](chunk: &'a Chunk<'a, C>, rows: &'a mut [Row<C>]) -> () {
        let n = chunk.n;
        for (i, row) in rows.iter_mut().enumerate() {
            let grad = &chunk.grad[i * n..];
            row.take(
                row_pivot::<S, C>(&chunk.logits[i * n..], grad, n),
                row_pivot::<S, C>(&chunk.drawn[i * n..], grad, n),
            );
        }
    }

    fn add_sums['a, C: NoiseReal](chunk: &'a Chunk<'a, C>, rows: &'a mut [Row<C>], tau: f64) -> () {
        let n = chunk.n;
        for (i, row) in rows.iter_mut().enumerate() {
            let (logits, grad) = (&chunk.logits[i * n..], &chunk.grad[i * n..]);
            sum_pass::<S, C>(logits, grad, n, row, tau, #[inline(always)] |_, _, _| {});
        }
    }

    /// The result, from exponentials that are computed again.
    fn finish_chunk['a, C: NoiseReal](
        chunk: &'a Chunk<'a, C>,
        rows: &'a [Row<C>],
        tau: f64,
        out: &'a mut [C],
    ) -> () {
        let n = chunk.n;
        let (scale, unit) = (
            C::V::<S>::splat(C::exp_scale(tau)),
            C::V::<S>::splat(C::exp_scale(1.0)),
        );
        for (i, row) in rows.iter().enumerate() {
            let finish = Finish::<C::V<S>>::new(row);
            let top = C::V::<S>::splat(pivot(row.top.0));
            let (at_top, at_hot) = (C::V::<S>::splat(row.top.1), C::V::<S>::splat(row.hot.1));
            for at in (0..n).step_by(C::V::<S>::LANES) {
                let from = i * n + at;
                let x = C::V::<S>::load(&chunk.logits[from..]) - top;
                let (d, g) = (Float::load(&chunk.drawn[from..]), C::V::<S>::load(&chunk.grad[from..]));
                let (tempered, plain) = (C::exp_scaled::<S>(x * scale), C::exp_scaled::<S>(x * unit));
                finish.of(tempered, plain, d, g - at_hot, g - at_top).store(&mut out[from..]);
            }
        }
    }

    /// Rows that are whole: their exponentials stay in the cache.
    fn whole_rows['a, C: NoiseReal](
        chunk: &'a Chunk<'a, C>,
        rows: &'a mut [Row<C>],
        tau: f64,
        scratch: &'a mut [Vec<C>; 2],
        out: &'a mut [C],
    ) -> () {
        let n = chunk.n;
        let [tempered, plain] = scratch;
        for (i, row) in rows.iter_mut().enumerate() {
            let (logits, drawn, grad) =
                (&chunk.logits[i * n..], &chunk.drawn[i * n..], &chunk.grad[i * n..]);
            row.take(row_pivot::<S, C>(logits, grad, n), row_pivot::<S, C>(drawn, grad, n));
            sum_pass::<S, C>(logits, grad, n, row, tau, #[inline(always)] |at, a, b| {
                a.store(&mut tempered[at..]);
                b.store(&mut plain[at..]);
            });
            let finish = Finish::<C::V<S>>::new(row);
            let (at_top, at_hot) = (C::V::<S>::splat(row.top.1), C::V::<S>::splat(row.hot.1));
            for at in (0..n).step_by(C::V::<S>::LANES) {
                let (d, g) = (Float::load(&drawn[at..]), C::V::<S>::load(&grad[at..]));
                let (a, b) = (Float::load(&tempered[at..]), Float::load(&plain[at..]));
                finish.of(a, b, d, g - at_hot, g - at_top).store(&mut out[i * n + at..]);
            }
        }
    }
}

/// Rows side by side, from lane `j` on: as [`whole_rows`] has it.
#[inline(always)]
fn lanes_at<S: Simd, C: NoiseReal>(
    lines: &Lines<C>,
    j: usize,
    tau: f64,
    [tempered, plain]: &mut [Vec<C>; 2],
    out: &mut [C],
) {
    let (n, stride, lanes) = (lines.n, lines.stride, C::V::<S>::LANES);
    let at = |x: &[C], k: usize| C::V::<S>::load(&x[k * stride + j..]);
    let zero = C::V::<S>::splat(C::default());
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    let (mut top, mut at_top) = (lowest, zero);
    let (mut hot, mut at_hot) = (lowest, zero);
    for k in 0..n {
        let (x, d, g) = (at(lines.logits, k), at(lines.drawn, k), at(lines.grad, k));
        let better = top.lt(x);
        (top, at_top) = (
            Float::select(better, x, top),
            Float::select(better, g, at_top),
        );
        let better = hot.lt(d);
        (hot, at_hot) = (
            Float::select(better, d, hot),
            Float::select(better, g, at_hot),
        );
    }
    let top = pivot_lanes::<S, C>(top);
    let (scale, unit) = (
        C::V::<S>::splat(C::exp_scale(tau)),
        C::V::<S>::splat(C::exp_scale(1.0)),
    );
    let mut sums = [zero; 4];
    for chain in (0..n).step_by(CHAIN_LINES) {
        let mut sum = [zero; 4];
        for k in chain..n.min(chain + CHAIN_LINES) {
            let (x, g) = (at(lines.logits, k) - top, at(lines.grad, k));
            let p = C::exp_scaled::<S>(x * unit);
            let t = if tau == 1.0 {
                p
            } else {
                C::exp_scaled::<S>(x * scale)
            };
            t.store(&mut tempered[k * lanes..]);
            p.store(&mut plain[k * lanes..]);
            sum[0] = sum[0] + t;
            sum[1] = t.mul_add(g - at_hot, sum[1]);
            sum[2] = sum[2] + p;
            sum[3] = p.mul_add(g - at_top, sum[3]);
        }
        for (total, sum) in sums.iter_mut().zip(sum) {
            *total = *total + sum;
        }
    }
    let (one, half) = (C::V::<S>::splat(C::of(1.0)), C::V::<S>::splat(C::of(0.5)));
    let finish = Finish {
        tempered: one / sums[0],
        plain: half / sums[2],
        half_mean: half * sums[1] / sums[0],
        mean: sums[3] / sums[2],
    };
    for k in 0..n {
        let (d, g) = (at(lines.drawn, k), at(lines.grad, k));
        let (t, p) = (
            Float::load(&tempered[k * lanes..]),
            Float::load(&plain[k * lanes..]),
        );
        finish
            .of(t, p, d, g - at_hot, g - at_top)
            .store(&mut out[k * stride + j..]);
    }
}

outlined! {
    fn rows_beside['a, C: NoiseReal](
        lines: &'a Lines<'a, C>,
        tau: f64,
        scratch: &'a mut [Vec<C>; 2],
        out: &'a mut [C],
    ) -> () {
        for j in (0..lines.stride).step_by(C::V::<S>::LANES) {
            lanes_at::<S, C>(lines, j, tau, scratch, out);
        }
    }
}

impl<C: NoiseReal> Passes<C> for Heun {
    type Row = Row<C>;
    type Scratch = [Vec<C>; 2];
    const BEFORE: usize = 2;

    fn row(&self) -> Row<C> {
        Row::new()
    }

    fn scratch(&self, elements: usize) -> [Vec<C>; 2] {
        [vec![C::default(); elements], vec![C::default(); elements]]
    }

    #[inline(always)]
    fn pass<S: Simd>(
        &self,
        number: usize,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        _: &mut [Vec<C>; 2],
    ) {
        match number {
            0 => find_tops::<S, C>(chunk, rows),
            _ => add_sums::<S, C>(chunk, rows, self.tau),
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        _: &mut [Vec<C>; 2],
        out: &mut [C],
    ) {
        finish_chunk::<S, C>(chunk, rows, self.tau, out);
    }

    #[inline(always)]
    fn whole<S: Simd>(
        &self,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        scratch: &mut [Vec<C>; 2],
        out: &mut [C],
    ) {
        whole_rows::<S, C>(chunk, rows, self.tau, scratch, out);
    }

    #[inline(always)]
    fn beside<S: Simd>(
        &self,
        _: &mut [Row<C>],
        lines: &mut Lines<C>,
        scratch: &mut [Vec<C>; 2],
        out: &mut [C],
    ) {
        rows_beside::<S, C>(lines, self.tau, scratch, out);
    }
}
