//! The backward engine of the softmax family: from the result `a` and its gradient `g`, row by row, a sum `r` of both and
//! then the gradient of every element; and, where the temperature is learned, a second sum.

use super::source::{push, widen};
use super::temperature::{RowTau, Tau, inverse};
use super::{CHAIN_LINES, GRAIN, LINES, Rows, Source, TILE, padded};
use crate::element::Element;
use crate::math::Real;
use crate::output::{Piece, Split, fill, parallel, rework};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch, outlined};
use std::marker::PhantomData;

/// The formulas of one member of the family. `a` is the forward result, `g` its gradient, `r` the sum of
/// [`Gradient::term`] over the row.
pub(crate) trait Gradient: Copy + Send + Sync + 'static {
    fn term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>) -> C::V<S>;
    /// The gradient of the tempered score, that is, `tau` times that of the logit.
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S>;
    /// `-tau` times the element's share of the temperature's gradient.
    fn tau_term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S>;
}

/// `y = softmax(score)`: `r = <y, g>`, `y (g - r)`, and `ln y` times that.
#[derive(Clone, Copy)]
pub(crate) struct SoftmaxGradient;

impl Gradient for SoftmaxGradient {
    #[inline(always)]
    fn term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>) -> C::V<S> {
        a * g
    }
    #[inline(always)]
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S> {
        a * (g - r)
    }
    #[inline(always)]
    fn tau_term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S> {
        // y ln y tends to 0 with y; the logarithm is that of normal numbers.
        let vanishing = a.lt(C::V::<S>::splat(C::SMALLEST));
        let term = Self::score::<S, C>(a, g, r) * C::ln_lanes::<S>(a);
        Float::select(vanishing, C::V::<S>::splat(C::default()), term)
    }
}

/// `l = log softmax(score)`: `r = sum g`, `g - exp(l) r`, and `l` times that; all 0 where `l` is -inf, since such a score
/// is a mask.
#[derive(Clone, Copy)]
pub(crate) struct LogSoftmaxGradient;

impl Gradient for LogSoftmaxGradient {
    #[inline(always)]
    fn term<S: Simd, C: Real>(_: C::V<S>, g: C::V<S>) -> C::V<S> {
        g
    }
    #[inline(always)]
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S> {
        let p = C::exp_scaled::<S>(a * C::V::<S>::splat(C::exp_scale(1.0)));
        masked::<S, C>(a, p.neg_mul_add(r, g))
    }
    #[inline(always)]
    fn tau_term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, r: C::V<S>) -> C::V<S> {
        masked::<S, C>(a, Self::score::<S, C>(a, g, r) * a)
    }
}

/// 0 where `a` is -inf.
#[inline(always)]
fn masked<S: Simd, C: Real>(a: C::V<S>, x: C::V<S>) -> C::V<S> {
    let mask = a.le(C::V::<S>::splat(C::NEG_INFINITY));
    Float::select(mask, C::V::<S>::splat(C::default()), x)
}

/// The gradient of the logits.
pub(crate) fn gradient<E: Element, G: Gradient>(
    _: G,
    a: &Source<E>,
    g: &Source<E>,
    tau: &Tau<E>,
    rows: Rows,
) -> Vec<E> {
    let job = Job::<E, G>::new(Some(a), g, tau, rows);
    if rows.elements() == 0 {
        Vec::new()
    } else if job.splits() {
        let sums = job.split_sums(a);
        let work = |buffers: &mut Buffers<E>, i, piece: &mut Piece<E>| {
            job.finish_tile(buffers, i, sums[job.row_of_tile(i)], piece);
        };
        fill(job.tiles(), GRAIN, || job.buffers(), work).0
    } else {
        fill(
            job.split(),
            GRAIN,
            || job.buffers(),
            |b, i, piece| job.whole(b, i, piece),
        )
        .0
    }
}

/// The same over `out`, which holds the forward result where `a` is not given.
pub(crate) fn gradient_into<E: Element, G: Gradient>(
    _: G,
    a: Option<&Source<E>>,
    out: &mut [E],
    g: &Source<E>,
    tau: &Tau<E>,
    rows: Rows,
) {
    let job = Job::<E, G>::new(a, g, tau, rows);
    if rows.elements() == 0 {
        return;
    }
    // A row is one piece here however few there are: its sum needs all of it before the first element is replaced.
    rework(
        out,
        job.split(),
        GRAIN,
        || job.buffers(),
        |b, i, piece| job.whole(b, i, piece),
    );
}

/// The gradient of the temperature of each row.
pub(crate) fn tau_gradient<E: Element, G: Gradient>(
    _: G,
    a: &Source<E>,
    g: &Source<E>,
    tau: &Tau<E>,
    rows: Rows,
) -> Vec<E> {
    let job = Job::<E, G>::new(Some(a), g, tau, rows);
    if rows.elements() == 0 {
        // A row exists even where the batch is empty only if there are rows, and then they have elements.
        return Vec::new();
    }
    let grain = (GRAIN / rows.len).max(1);
    let Rows { outer, inner, .. } = rows;
    if inner > 1 {
        let split = Split::Columns {
            outer,
            len: 1,
            inner,
            width: rows.column_width(),
        };
        let work = |buffers: &mut Buffers<E>, _: usize, piece: &mut Piece<E>| {
            dispatch(Columns {
                job: &job,
                buffers,
                piece,
                tau: true,
            });
        };
        fill(split, grain, || job.buffers(), work).0
    } else {
        let split = Split::Runs {
            total: outer,
            size: 1,
        };
        let work = |buffers: &mut Buffers<E>, row: usize, piece: &mut Piece<E>| {
            dispatch(TauRow {
                job: &job,
                buffers,
                row,
                piece,
            });
        };
        fill(split, grain, || job.buffers(), work).0
    }
}

struct Job<'a, E: Element, G> {
    /// The forward result, unless it is in the output.
    a: Option<&'a Source<'a, E>>,
    g: &'a Source<'a, E>,
    tau: &'a Tau<'a, E>,
    rows: Rows,
    formulas: PhantomData<G>,
}

struct Buffers<E: Element> {
    a: Vec<E::Compute>,
    g: Vec<E::Compute>,
    out: Vec<E::Compute>,
    /// Column tiles: the sums, the inverse temperatures, and a second sum.
    sum: Vec<E::Compute>,
    inverse: Vec<E::Compute>,
    second: Vec<E::Compute>,
    taus: Vec<f64>,
}

impl<'a, E: Element, G: Gradient> Job<'a, E, G> {
    fn new(a: Option<&'a Source<E>>, g: &'a Source<E>, tau: &'a Tau<E>, rows: Rows) -> Self {
        Self {
            a,
            g,
            tau,
            rows,
            formulas: PhantomData,
        }
    }

    fn buffers(&self) -> Buffers<E> {
        let zeros = |n| vec![E::Compute::default(); n];
        if self.rows.inner > 1 {
            let stride = padded(self.rows.column_width());
            let block = self.rows.len.min(LINES) * stride;
            Buffers {
                a: zeros(block),
                g: zeros(block),
                out: Vec::new(),
                sum: zeros(stride),
                inverse: zeros(stride),
                second: zeros(stride),
                taus: Vec::new(),
            }
        } else {
            let n = TILE + LANES_F32;
            Buffers {
                a: zeros(n),
                g: zeros(n),
                out: zeros(n),
                sum: Vec::new(),
                inverse: Vec::new(),
                second: Vec::new(),
                taus: Vec::new(),
            }
        }
    }

    /// Pieces of whole rows.
    fn split(&self) -> Split {
        let Rows { outer, len, inner } = self.rows;
        if inner > 1 {
            Split::Columns {
                outer,
                len,
                inner,
                width: self.rows.column_width(),
            }
        } else {
            Split::Runs {
                total: outer * len,
                size: self.rows_per_piece() * len,
            }
        }
    }

    fn rows_per_piece(&self) -> usize {
        (TILE / self.rows.len).max(1)
    }

    /// Whether long rows are so few that their tiles are shared out.
    fn splits(&self) -> bool {
        let threads = rayon::current_num_threads();
        let Rows { outer, len, inner } = self.rows;
        inner == 1 && len > TILE && threads > 1 && outer < 2 * threads
    }

    fn tiles(&self) -> Split {
        Split::RowTiles {
            rows: self.rows.outer,
            len: self.rows.len,
            size: TILE,
        }
    }

    fn row_of_tile(&self, i: usize) -> usize {
        i / self.rows.len.div_ceil(TILE)
    }

    /// The sums of the rows from those of their tiles.
    fn split_sums(&self, a: &Source<E>) -> Vec<f64> {
        let split = self.tiles();
        let sums = parallel(
            split.pieces(),
            self.rows.elements(),
            GRAIN,
            || self.buffers(),
            |buffers, i| {
                let place = split.place(i);
                dispatch(TileSum::<E, G> {
                    a,
                    g: self.g,
                    buffers,
                    start: place.start,
                    n: place.width,
                    formulas: self.formulas,
                })
            },
        );
        let tiles = self.rows.len.div_ceil(TILE);
        sums.chunks(tiles).map(|tiles| tiles.iter().sum()).collect()
    }

    fn whole(&self, buffers: &mut Buffers<E>, i: usize, piece: &mut Piece<E>) {
        if self.rows.inner > 1 {
            dispatch(Columns {
                job: self,
                buffers,
                piece,
                tau: false,
            });
        } else {
            let first = i * self.rows_per_piece();
            dispatch(WholeRows {
                job: self,
                buffers,
                first,
                piece,
            });
        }
    }

    fn finish_tile(&self, buffers: &mut Buffers<E>, i: usize, sum: f64, piece: &mut Piece<E>) {
        dispatch(FinishTile {
            job: self,
            buffers,
            row: self.row_of_tile(i),
            sum,
            piece,
        });
    }
}

impl<E: Element, G: Gradient> Job<'_, E, G> {
    /// Elements `start .. start + n` of both operands, the forward result's from `at` on in the piece where it is in there:
    /// where they lie if they can be used as they are, else brought to the buffers.
    #[inline(always)]
    fn operands<'s, S: Simd>(
        &'s self,
        (start, at, n): (usize, usize, usize),
        piece: &Piece<E>,
        a: &'s mut [E::Compute],
        g: &'s mut [E::Compute],
    ) -> (&'s [E::Compute], &'s [E::Compute]) {
        let a = match self.a {
            Some(source) => source.view::<S>(start, n, a),
            None => {
                widen::<S, E>(piece.written(at, n), &mut a[..n]);
                a
            }
        };
        (a, self.g.view::<S>(start, n, g))
    }

    /// Lines `first ..` of both operands, as many as make a block, each padded to whole vectors.
    #[inline(always)]
    fn load_block<S: Simd>(
        &self,
        (slab, first, at, width): (usize, usize, usize, usize),
        piece: &Piece<E>,
        a: &mut [E::Compute],
        g: &mut [E::Compute],
    ) {
        let Rows { len, inner, .. } = self.rows;
        let stride = padded(width);
        for line in 0..LINES.min(len - first) {
            let start = (slab * len + first + line) * inner + at;
            let range = line * stride..line * stride + width;
            match self.a {
                Some(source) => source.copy_to::<S>(start, &mut a[range.clone()]),
                None => widen::<S, E>(piece.written_line(first + line), &mut a[range.clone()]),
            }
            self.g.copy_to::<S>(start, &mut g[range]);
        }
    }
}

/// A vector from `at` on, of which the elements from `n` on do not matter and need not be there.
#[inline(always)]
fn load_tail<S: Simd, C: Real>(x: &[C], at: usize, n: usize) -> C::V<S> {
    if at + C::V::<S>::LANES <= x.len() {
        return Float::load(&x[at..]);
    }
    let mut lanes = [C::default(); LANES_F32];
    lanes[..n - at].copy_from_slice(&x[at..n]);
    Float::load(&lanes)
}

/// The sum of `f` over the first `n` elements of two rows.
#[inline(always)]
fn row_sum<S: Simd, C: Real>(
    a: &[C],
    g: &[C],
    n: usize,
    f: impl Fn(C::V<S>, C::V<S>) -> C::V<S>,
) -> C {
    /// As in the forward engine: chains, then their sums.
    const CHAIN: usize = 64;
    let lanes = C::V::<S>::LANES;
    let zero = C::V::<S>::splat(C::default());
    let mut total = zero;
    let full = n / lanes * lanes;
    for chain in (0..full).step_by(CHAIN * lanes) {
        let end = full.min(chain + CHAIN * lanes);
        let mut sum = [zero; 2];
        let mut at = chain;
        while at + 2 * lanes <= end {
            sum[0] = sum[0] + f(Float::load(&a[at..]), Float::load(&g[at..]));
            let next = at + lanes;
            sum[1] = sum[1] + f(Float::load(&a[next..]), Float::load(&g[next..]));
            at += 2 * lanes;
        }
        if at < end {
            sum[0] = sum[0] + f(Float::load(&a[at..]), Float::load(&g[at..]));
        }
        total = total + (sum[0] + sum[1]);
    }
    if full < n {
        let x = f(load_tail::<S, C>(a, full, n), load_tail::<S, C>(g, full, n));
        total = total + Float::select(C::V::<S>::first(n - full), x, zero);
    }
    total.reduce_add()
}

/// The gradient of the logits to `dst`; past the row goes what is left of the last vector.
#[inline(always)]
fn row_gradient<S: Simd, C: Real, G: Gradient>(
    a: &[C],
    g: &[C],
    dst: &mut [C],
    n: usize,
    sum: C,
    inverse: C,
) {
    let lanes = C::V::<S>::LANES;
    let (sum, inverse) = (C::V::<S>::splat(sum), C::V::<S>::splat(inverse));
    let full = n / lanes * lanes;
    for at in (0..full).step_by(lanes) {
        let score = G::score::<S, C>(Float::load(&a[at..]), Float::load(&g[at..]), sum);
        (score * inverse).store(&mut dst[at..]);
    }
    if full < n {
        let (a, g) = (load_tail::<S, C>(a, full, n), load_tail::<S, C>(g, full, n));
        (G::score::<S, C>(a, g, sum) * inverse).store(&mut dst[full..]);
    }
}

outlined! {
    /// [`row_gradient`] of rows that follow each other, with their sums.
    fn rows_gradient['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        dst: &'a mut [C],
        len: usize,
        count: usize,
        tau: RowTau<'a>,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        let fixed = inverse::<C>(tau.at(0));
        for i in 0..count {
            let (a, g, dst) = (&a[i * len..], &g[i * len..], &mut dst[i * len..]);
            let inverse = match tau {
                RowTau::Fixed(_) => fixed,
                RowTau::Each(_) => inverse::<C>(tau.at(i)),
            };
            let sum = row_sum::<S, C>(a, g, len, #[inline(always)] |a, g| G::term::<S, C>(a, g));
            row_gradient::<S, C, G>(a, g, dst, len, sum, inverse);
        }
    }

    fn tile_term['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        n: usize,
        formulas: PhantomData<G>,
    ) -> f64 {
        let _ = formulas;
        row_sum::<S, C>(a, g, n, #[inline(always)] |a, g| G::term::<S, C>(a, g)).f64()
    }

    fn tile_gradient['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        dst: &'a mut [C],
        n: usize,
        sum: f64,
        tau: f64,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        row_gradient::<S, C, G>(a, g, dst, n, C::of(sum), inverse(tau));
    }

    fn tile_tau_term['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        n: usize,
        sum: f64,
        formulas: PhantomData<G>,
    ) -> f64 {
        let _ = formulas;
        let r = C::V::<S>::splat(C::of(sum));
        let term = row_sum::<S, C>(a, g, n, #[inline(always)] |a, g| G::tau_term::<S, C>(a, g, r));
        term.f64()
    }

    /// Adds the terms of a block's lines to the sums of its columns.
    fn block_sums['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        sums: &'a mut [C],
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let mut sum = C::V::<S>::splat(C::default());
            let chains = a.chunks(CHAIN_LINES * stride);
            for (a, g) in chains.zip(g.chunks(CHAIN_LINES * stride)) {
                let mut chain = C::V::<S>::splat(C::default());
                for (a, g) in a.chunks_exact(stride).zip(g.chunks_exact(stride)) {
                    chain = chain + G::term::<S, C>(Float::load(&a[j..]), Float::load(&g[j..]));
                }
                sum = sum + chain;
            }
            (C::V::<S>::load(&sums[j..]) + sum).store(&mut sums[j..]);
        }
    }

    /// Replaces a block's `a` by the gradient of the logits.
    fn block_gradient['a, C: Real, G: Gradient](
        a: &'a mut [C],
        g: &'a [C],
        sums: &'a [C],
        inverse: &'a [C],
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (r, inverse) = (C::V::<S>::load(&sums[j..]), C::V::<S>::load(&inverse[j..]));
            for (a, g) in a.chunks_exact_mut(stride).zip(g.chunks_exact(stride)) {
                let score = G::score::<S, C>(Float::load(&a[j..]), Float::load(&g[j..]), r);
                (score * inverse).store(&mut a[j..]);
            }
        }
    }

    /// Subtracts a block's share of the temperatures' gradients from `second`.
    fn block_tau['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        sums: &'a [C],
        inverse: &'a [C],
        second: &'a mut [C],
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (r, inverse) = (C::V::<S>::load(&sums[j..]), C::V::<S>::load(&inverse[j..]));
            let mut sum = C::V::<S>::splat(C::default());
            for (a, g) in a.chunks_exact(stride).zip(g.chunks_exact(stride)) {
                sum = sum + G::tau_term::<S, C>(Float::load(&a[j..]), Float::load(&g[j..]), r);
            }
            (C::V::<S>::load(&second[j..]) - sum * inverse).store(&mut second[j..]);
        }
    }
}

struct WholeRows<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    first: usize,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, G: Gradient> Kernel for WholeRows<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers: Buffers {
                a, g, out, taus, ..
            },
            first,
            piece,
        } = self;
        let len = job.rows.len;
        let n = piece.place().width;
        let start = first * len;
        if len <= TILE {
            let count = n / len;
            let (a, g) = job.operands::<S>((start, 0, n), piece, a, g);
            let tau = job.tau.rows(first, count, taus);
            rows_gradient::<S, E::Compute, G>(a, g, out, len, count, tau, job.formulas);
            push::<S, E>(piece, &out[..n]);
            return;
        }
        let mut sum = 0.0;
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((start + at, at, n), piece, a, g);
            sum += tile_term::<S, E::Compute, G>(a, g, n, job.formulas);
        }
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((start + at, at, n), piece, a, g);
            tile_gradient::<S, E::Compute, G>(a, g, out, n, sum, job.tau.at(first), job.formulas);
            push::<S, E>(piece, &out[..n]);
        }
    }
}

struct TileSum<'a, E: Element, G> {
    a: &'a Source<'a, E>,
    g: &'a Source<'a, E>,
    buffers: &'a mut Buffers<E>,
    start: usize,
    n: usize,
    formulas: PhantomData<G>,
}

impl<E: Element, G: Gradient> Kernel for TileSum<'_, E, G> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Buffers { a, g, .. } = self.buffers;
        let a = self.a.view::<S>(self.start, self.n, a);
        let g = self.g.view::<S>(self.start, self.n, g);
        tile_term::<S, E::Compute, G>(a, g, self.n, self.formulas)
    }
}

struct FinishTile<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    row: usize,
    sum: f64,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, G: Gradient> Kernel for FinishTile<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Buffers { a, g, out, .. } = self.buffers;
        let (start, n) = (self.piece.place().start, self.piece.place().width);
        let (a, g) = self.job.operands::<S>((start, 0, n), self.piece, a, g);
        let tau = self.job.tau.at(self.row);
        tile_gradient::<S, E::Compute, G>(a, g, out, n, self.sum, tau, self.job.formulas);
        push::<S, E>(self.piece, &out[..n]);
    }
}

struct TauRow<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    row: usize,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, G: Gradient> Kernel for TauRow<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers: Buffers { a, g, .. },
            row,
            piece,
        } = self;
        let len = job.rows.len;
        let (mut sum, mut second) = (0.0, 0.0);
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((row * len + at, 0, n), piece, a, g);
            sum += tile_term::<S, E::Compute, G>(a, g, n, job.formulas);
        }
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((row * len + at, 0, n), piece, a, g);
            second += tile_tau_term::<S, E::Compute, G>(a, g, n, sum, job.formulas);
        }
        let gradient = E::Compute::of(-second / job.tau.at(row));
        push::<S, E>(piece, &[gradient]);
    }
}

/// A tile of columns: the gradient of its elements, or with `tau` that of their temperatures.
struct Columns<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    piece: &'a mut Piece<'b, E>,
    tau: bool,
}

impl<E: Element, G: Gradient> Kernel for Columns<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers,
            piece,
            tau,
        } = self;
        let Rows { len, inner, .. } = job.rows;
        let place = piece.place();
        // The temperatures' pieces have one line a slab, the elements' `len`.
        let slab = place.start / (place.lines * inner);
        let at = place.start % inner;
        let (width, stride) = (place.width, padded(place.width));
        for i in 0..width {
            buffers.inverse[i] = inverse(job.tau.at(slab * inner + at + i));
        }
        buffers.sum[..stride].fill(E::Compute::default());
        buffers.second[..stride].fill(E::Compute::default());

        let single = len <= LINES;
        let Buffers {
            a,
            g,
            sum,
            inverse,
            second,
            ..
        } = buffers;
        for first in (0..len).step_by(LINES) {
            job.load_block::<S>((slab, first, at, width), piece, a, g);
            let n = LINES.min(len - first) * stride;
            block_sums::<S, E::Compute, G>(&a[..n], &g[..n], sum, stride, job.formulas);
        }
        for first in (0..len).step_by(LINES) {
            if !single {
                job.load_block::<S>((slab, first, at, width), piece, a, g);
            }
            let n = LINES.min(len - first) * stride;
            let g = &g[..n];
            if tau {
                let a = &a[..n];
                block_tau::<S, E::Compute, G>(a, g, sum, inverse, second, stride, job.formulas);
                continue;
            }
            block_gradient::<S, E::Compute, G>(&mut a[..n], g, sum, inverse, stride, job.formulas);
            for line in a[..n].chunks_exact(stride) {
                push::<S, E>(piece, &line[..width]);
            }
        }
        if tau {
            push::<S, E>(piece, &second[..width]);
        }
    }
}
