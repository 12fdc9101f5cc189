//! The backward engine of the softmax family: from the result `a` and its gradient `g`, row by row, a sum `r` of both and
//! then the gradient of every element; and, where the temperature is learned, a second sum.

use super::source::{push, widen};
use super::temperature::{RowTau, Tau, inverse};
use super::{CHAIN, CHAIN_LINES, GRAIN, LINES, Rows, Source, TILE, add_compensated, padded};
use crate::element::Element;
use crate::math::Real;
use crate::output::{Piece, Split, fill, parallel, rework};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch, outlined};
use std::marker::PhantomData;

/// What the formulas need of a row.
///
/// Both shifts change nothing in exact arithmetic, where the gradients of a row's scores sum to 0, and everything in
/// rounded arithmetic: the gradient of a class of probability near 1 is a difference of nearly equal numbers, and a sum
/// that should vanish is multiplied by a logarithm. The largest element is where both differences become exact.
#[derive(Clone, Copy)]
pub(crate) struct Around<V> {
    /// [`Gradient::level`] of the largest element.
    top: V,
    /// The gradient at the largest element, from which gradients are counted.
    shift: V,
    /// The sum of [`Gradient::term`] over the row.
    sum: V,
}

/// The formulas of one member of the family. `a` is the forward result, `g` its gradient.
pub(crate) trait Gradient: Copy + Send + Sync + 'static {
    /// Whether the gradient of the logits needs the shift.
    const SHIFTS: bool;
    fn term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, row: Around<C::V<S>>) -> C::V<S>;
    /// The gradient of the tempered score, that is, `tau` times that of the logit.
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, row: Around<C::V<S>>) -> C::V<S>;
    /// The tempered score, up to a constant of the row.
    fn level<S: Simd, C: Real>(a: C::V<S>) -> C::V<S>;
    /// Whether an element has no share in the temperature's gradient.
    fn vanishes<S: Simd, C: Real>(a: C::V<S>) -> <C::V<S> as Float>::Mask;
}

/// `y = softmax(score)`: `y (g - <y, g>)`, level `ln y`.
#[derive(Clone, Copy)]
pub(crate) struct SoftmaxGradient;

impl Gradient for SoftmaxGradient {
    const SHIFTS: bool = true;
    #[inline(always)]
    fn term<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, row: Around<C::V<S>>) -> C::V<S> {
        a * (g - row.shift)
    }
    #[inline(always)]
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, row: Around<C::V<S>>) -> C::V<S> {
        a * ((g - row.shift) - row.sum)
    }
    #[inline(always)]
    fn level<S: Simd, C: Real>(a: C::V<S>) -> C::V<S> {
        C::ln_lanes::<S>(a)
    }
    #[inline(always)]
    fn vanishes<S: Simd, C: Real>(a: C::V<S>) -> <C::V<S> as Float>::Mask {
        // y ln y tends to 0 with y; the logarithm is that of normal numbers.
        a.lt(C::V::<S>::splat(C::SMALLEST))
    }
}

/// `l = log softmax(score)`: `g - exp(l) sum g`, level `l`; all 0 where `l` is -inf, since such a score is a mask.
#[derive(Clone, Copy)]
pub(crate) struct LogSoftmaxGradient;

impl Gradient for LogSoftmaxGradient {
    const SHIFTS: bool = false;
    #[inline(always)]
    fn term<S: Simd, C: Real>(_: C::V<S>, g: C::V<S>, _: Around<C::V<S>>) -> C::V<S> {
        g
    }
    #[inline(always)]
    fn score<S: Simd, C: Real>(a: C::V<S>, g: C::V<S>, row: Around<C::V<S>>) -> C::V<S> {
        let p = C::exp_scaled::<S>(a * C::V::<S>::splat(C::exp_scale(1.0)));
        let zero = C::V::<S>::splat(C::default());
        Float::select(Self::vanishes::<S, C>(a), zero, p.neg_mul_add(row.sum, g))
    }
    #[inline(always)]
    fn level<S: Simd, C: Real>(a: C::V<S>) -> C::V<S> {
        a
    }
    #[inline(always)]
    fn vanishes<S: Simd, C: Real>(a: C::V<S>) -> <C::V<S> as Float>::Mask {
        a.le(C::V::<S>::splat(C::NEG_INFINITY))
    }
}

/// `-tau` times the element's share of the temperature's gradient.
#[inline(always)]
fn tau_term<S: Simd, C: Real, G: Gradient>(
    a: C::V<S>,
    g: C::V<S>,
    row: Around<C::V<S>>,
) -> C::V<S> {
    let term = G::score::<S, C>(a, g, row) * (G::level::<S, C>(a) - row.top);
    Float::select(G::vanishes::<S, C>(a), C::V::<S>::splat(C::default()), term)
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
        let rows = job.split_rows(a);
        let work = |buffers: &mut Buffers<E>, i, piece: &mut Piece<E>| {
            job.finish_tile(buffers, i, rows[job.row_of_tile(i)], piece);
        };
        fill(job.rows.tiles(), GRAIN, || job.buffers(), work).0
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

/// The gradient of the temperature of each row, not rounded to a half type: it may yet be summed over rows.
pub(crate) fn tau_gradient<E: Element, G: Gradient>(
    _: G,
    a: &Source<E>,
    g: &Source<E>,
    tau: &Tau<E>,
    rows: Rows,
) -> Vec<E::Wide> {
    let job = Job::<E, G>::new(Some(a), g, tau, rows);
    if rows.elements() == 0 {
        // The row dim is not empty, so there is no row.
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
        let work = |buffers: &mut Buffers<E>, _: usize, piece: &mut Piece<E::Wide>| {
            dispatch(TauColumns {
                job: &job,
                buffers,
                piece,
            });
        };
        fill(split, grain, || job.buffers(), work).0
    } else {
        let split = Split::Runs {
            total: outer,
            size: 1,
        };
        let work = |buffers: &mut Buffers<E>, row: usize, piece: &mut Piece<E::Wide>| {
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
    columns: ColumnState<E::Compute>,
    taus: Vec<f64>,
}

/// What is known of the columns of a tile.
#[derive(Default)]
struct ColumnState<C> {
    top: Vec<C>,
    shift: Vec<C>,
    sum: Vec<C>,
    /// What the sums' roundings lost.
    carry: Vec<C>,
    inverse: Vec<C>,
    second: Vec<C>,
    second_carry: Vec<C>,
}

/// What is known of a row.
#[derive(Clone, Copy)]
struct Row<C> {
    /// The largest element.
    top: C,
    shift: C,
    sum: f64,
}

impl<C: Real> Row<C> {
    fn new() -> Self {
        Self {
            top: C::NEG_INFINITY,
            shift: C::default(),
            sum: 0.0,
        }
    }

    /// Takes in the largest element of another tile and the gradient there.
    fn take(&mut self, (top, shift): (C, C)) {
        if top > self.top || (top == self.top && shift > self.shift) {
            (self.top, self.shift) = (top, shift);
        }
    }

    #[inline(always)]
    fn around<S: Simd, G: Gradient>(self) -> Around<C::V<S>> {
        Around {
            top: G::level::<S, C>(C::V::<S>::splat(self.top)),
            shift: C::V::<S>::splat(self.shift),
            sum: C::V::<S>::splat(C::of(self.sum)),
        }
    }
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
                columns: ColumnState {
                    top: zeros(stride),
                    shift: zeros(stride),
                    sum: zeros(stride),
                    carry: zeros(stride),
                    inverse: zeros(stride),
                    second: zeros(stride),
                    second_carry: zeros(stride),
                },
                taus: Vec::new(),
            }
        } else {
            let n = TILE + LANES_F32;
            Buffers {
                a: zeros(n),
                g: zeros(n),
                out: zeros(n),
                columns: ColumnState::default(),
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
        self.rows.inner == 1 && self.rows.len > TILE && self.rows.few()
    }

    fn row_of_tile(&self, i: usize) -> usize {
        i / self.rows.tiles_per_row()
    }

    /// What is known of the rows from what is known of their tiles.
    fn split_rows(&self, a: &Source<E>) -> Vec<Row<E::Compute>> {
        let split = self.rows.tiles();
        let tiles = self.rows.tiles_per_row();
        let elements = self.rows.elements();
        let mut rows = vec![Row::new(); self.rows.outer];
        let tile = |buffers: &mut Buffers<E>, i: usize, row: Option<Row<E::Compute>>| {
            let place = split.place(i);
            dispatch(Tile::<E, G> {
                a,
                g: self.g,
                buffers,
                start: place.start,
                n: place.width,
                row,
                formulas: self.formulas,
            })
        };
        if G::SHIFTS {
            let pivots = parallel(
                split.pieces(),
                elements,
                GRAIN,
                || self.buffers(),
                |b, i| tile(b, i, None),
            );
            for (row, pivots) in rows.iter_mut().zip(pivots.chunks(tiles)) {
                pivots
                    .iter()
                    .for_each(|pivot| row.take((pivot.top, pivot.shift)));
            }
        }
        let sums = parallel(
            split.pieces(),
            elements,
            GRAIN,
            || self.buffers(),
            |b, i| tile(b, i, Some(rows[self.row_of_tile(i)])),
        );
        for (row, sums) in rows.iter_mut().zip(sums.chunks(tiles)) {
            row.sum = sums.iter().map(|tile| tile.sum).sum();
        }
        rows
    }

    fn whole(&self, buffers: &mut Buffers<E>, i: usize, piece: &mut Piece<E>) {
        if self.rows.inner > 1 {
            dispatch(Columns {
                job: self,
                buffers,
                piece,
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

    fn finish_tile(
        &self,
        buffers: &mut Buffers<E>,
        i: usize,
        row: Row<E::Compute>,
        piece: &mut Piece<E>,
    ) {
        dispatch(FinishTile {
            job: self,
            buffers,
            index: self.row_of_tile(i),
            row,
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
        piece: Option<&Piece<E>>,
        a: &'s mut [E::Compute],
        g: &'s mut [E::Compute],
    ) -> (&'s [E::Compute], &'s [E::Compute]) {
        let a = match (self.a, piece) {
            (Some(source), _) => source.view::<S>(start, n, a),
            (None, Some(piece)) => {
                widen::<S, E>(piece.written(at, n), &mut a[..n]);
                a
            }
            (None, None) => unreachable!("the forward result is an operand or in the output"),
        };
        (a, self.g.view::<S>(start, n, g))
    }

    /// Lines `first ..` of both operands, as many as make a block, each padded to whole vectors.
    #[inline(always)]
    fn load_block<S: Simd>(
        &self,
        (slab, first, at, width): (usize, usize, usize, usize),
        piece: Option<&Piece<E>>,
        a: &mut [E::Compute],
        g: &mut [E::Compute],
    ) {
        let Rows { len, inner, .. } = self.rows;
        let stride = padded(width);
        for line in 0..LINES.min(len - first) {
            let start = (slab * len + first + line) * inner + at;
            let range = line * stride..line * stride + width;
            match (self.a, piece) {
                (Some(source), _) => source.copy_to::<S>(start, &mut a[range.clone()]),
                (None, Some(piece)) => {
                    widen::<S, E>(piece.written_line(first + line), &mut a[range.clone()]);
                }
                (None, None) => unreachable!("the forward result is an operand or in the output"),
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
    row: Around<C::V<S>>,
    inverse: C,
) {
    let lanes = C::V::<S>::LANES;
    let inverse = C::V::<S>::splat(inverse);
    let full = n / lanes * lanes;
    for at in (0..full).step_by(lanes) {
        let score = G::score::<S, C>(Float::load(&a[at..]), Float::load(&g[at..]), row);
        (score * inverse).store(&mut dst[at..]);
    }
    if full < n {
        let (a, g) = (load_tail::<S, C>(a, full, n), load_tail::<S, C>(g, full, n));
        (G::score::<S, C>(a, g, row) * inverse).store(&mut dst[full..]);
    }
}

/// The largest element of a row and the gradient there; the largest gradient where elements tie.
#[inline(always)]
pub(crate) fn row_pivot<S: Simd, C: Real>(a: &[C], g: &[C], n: usize) -> (C, C) {
    let lanes = C::V::<S>::LANES;
    let lowest = C::V::<S>::splat(C::NEG_INFINITY);
    let (mut top, mut shift) = (lowest, lowest);
    let full = n / lanes * lanes;
    for at in (0..full).step_by(lanes) {
        let x = C::V::<S>::load(&a[at..]);
        let better = top.lt(x);
        top = Float::select(better, x, top);
        shift = Float::select(better, Float::load(&g[at..]), shift);
    }
    if full < n {
        let mask = C::V::<S>::first(n - full);
        let x = Float::select(mask, load_tail::<S, C>(a, full, n), lowest);
        let better = top.lt(x);
        top = Float::select(better, x, top);
        shift = Float::select(better, load_tail::<S, C>(g, full, n), shift);
    }
    let best = top.reduce_max();
    let there = C::V::<S>::splat(best).le(top);
    (best, Float::select(there, shift, lowest).reduce_max())
}

outlined! {
    /// [`row_gradient`] of rows that follow each other.
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
        let zero = C::V::<S>::splat(C::default());
        for i in 0..count {
            let (a, g, dst) = (&a[i * len..], &g[i * len..], &mut dst[i * len..]);
            let inverse = match tau {
                RowTau::Fixed(_) => fixed,
                RowTau::Each(_) => inverse::<C>(tau.at(i)),
            };
            let mut row = Around { top: zero, shift: zero, sum: zero };
            if G::SHIFTS {
                row.shift = C::V::<S>::splat(row_pivot::<S, C>(a, g, len).1);
            }
            let sum = row_sum::<S, C>(a, g, len, #[inline(always)] |a, g| G::term::<S, C>(a, g, row));
            row.sum = C::V::<S>::splat(sum);
            row_gradient::<S, C, G>(a, g, dst, len, row, inverse);
        }
    }

    fn tile_pivot['a, C: Real](a: &'a [C], g: &'a [C], n: usize) -> (C, C) {
        row_pivot::<S, C>(a, g, n)
    }

    fn tile_term['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        n: usize,
        row: Row<C>,
        formulas: PhantomData<G>,
    ) -> f64 {
        let _ = formulas;
        let row = row.around::<S, G>();
        row_sum::<S, C>(a, g, n, #[inline(always)] |a, g| G::term::<S, C>(a, g, row)).f64()
    }

    fn tile_gradient['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        dst: &'a mut [C],
        n: usize,
        row: Row<C>,
        tau: f64,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        row_gradient::<S, C, G>(a, g, dst, n, row.around::<S, G>(), inverse(tau));
    }

    fn tile_tau_term['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        n: usize,
        row: Row<C>,
        formulas: PhantomData<G>,
    ) -> f64 {
        let _ = formulas;
        let row = row.around::<S, G>();
        row_sum::<S, C>(a, g, n, #[inline(always)] |a, g| tau_term::<S, C, G>(a, g, row)).f64()
    }

    /// Brings the largest elements of columns, and the gradients there, up to date with a block.
    fn block_pivots['a, C: Real](
        a: &'a [C],
        g: &'a [C],
        state: &'a mut ColumnState<C>,
        stride: usize,
    ) -> () {
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (mut top, mut shift) =
                (C::V::<S>::load(&state.top[j..]), C::V::<S>::load(&state.shift[j..]));
            for (a, g) in a.chunks_exact(stride).zip(g.chunks_exact(stride)) {
                let x = C::V::<S>::load(&a[j..]);
                let better = top.lt(x);
                top = Float::select(better, x, top);
                shift = Float::select(better, Float::load(&g[j..]), shift);
            }
            top.store(&mut state.top[j..]);
            shift.store(&mut state.shift[j..]);
        }
    }

    /// Adds the terms of a block's lines to the sums of its columns.
    fn block_sums['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        state: &'a mut ColumnState<C>,
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let row = state.around::<S, G>(j);
            let sum = column_sum::<S, C>(a, g, stride, j, #[inline(always)] |a, g| {
                G::term::<S, C>(a, g, row)
            });
            add_compensated::<S, C>(&mut state.sum[j..], &mut state.carry[j..], sum);
        }
    }

    /// Replaces a block's `a` by the gradient of the logits.
    fn block_gradient['a, C: Real, G: Gradient](
        a: &'a mut [C],
        g: &'a [C],
        state: &'a ColumnState<C>,
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (row, inverse) = (state.around::<S, G>(j), C::V::<S>::load(&state.inverse[j..]));
            for (a, g) in a.chunks_exact_mut(stride).zip(g.chunks_exact(stride)) {
                let score = G::score::<S, C>(Float::load(&a[j..]), Float::load(&g[j..]), row);
                (score * inverse).store(&mut a[j..]);
            }
        }
    }

    /// Subtracts a block's share of the temperatures' gradients.
    fn block_tau['a, C: Real, G: Gradient](
        a: &'a [C],
        g: &'a [C],
        state: &'a mut ColumnState<C>,
        stride: usize,
        formulas: PhantomData<G>,
    ) -> () {
        let _ = formulas;
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let (row, inverse) = (state.around::<S, G>(j), C::V::<S>::load(&state.inverse[j..]));
            let sum = column_sum::<S, C>(a, g, stride, j, #[inline(always)] |a, g| {
                tau_term::<S, C, G>(a, g, row)
            });
            let (second, carry) = (&mut state.second[j..], &mut state.second_carry[j..]);
            add_compensated::<S, C>(second, carry, -(sum * inverse));
        }
    }
}

impl<C: Real> ColumnState<C> {
    #[inline(always)]
    fn around<S: Simd, G: Gradient>(&self, j: usize) -> Around<C::V<S>> {
        Around {
            top: G::level::<S, C>(Float::load(&self.top[j..])),
            shift: Float::load(&self.shift[j..]),
            sum: Float::load(&self.sum[j..]),
        }
    }
}

/// The sum of `f` over a block's lines, for the columns from `j` on.
#[inline(always)]
fn column_sum<S: Simd, C: Real>(
    a: &[C],
    g: &[C],
    stride: usize,
    j: usize,
    f: impl Fn(C::V<S>, C::V<S>) -> C::V<S>,
) -> C::V<S> {
    let mut sum = C::V::<S>::splat(C::default());
    let chains = a.chunks(CHAIN_LINES * stride);
    for (a, g) in chains.zip(g.chunks(CHAIN_LINES * stride)) {
        let mut chain = C::V::<S>::splat(C::default());
        for (a, g) in a.chunks_exact(stride).zip(g.chunks_exact(stride)) {
            chain = chain + f(Float::load(&a[j..]), Float::load(&g[j..]));
        }
        sum = sum + chain;
    }
    sum
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
            let (a, g) = job.operands::<S>((start, 0, n), Some(piece), a, g);
            let tau = job.tau.rows(first, count, taus);
            rows_gradient::<S, E::Compute, G>(a, g, out, len, count, tau, job.formulas);
            push::<S, E>(piece, &out[..n]);
            return;
        }
        let row = job.row::<S>(start, Some(piece), a, g, G::SHIFTS);
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((start + at, at, n), Some(piece), a, g);
            tile_gradient::<S, E::Compute, G>(a, g, out, n, row, job.tau.at(first), job.formulas);
            push::<S, E>(piece, &out[..n]);
        }
    }
}

impl<E: Element, G: Gradient> Job<'_, E, G> {
    /// What is known of the row from element `start` on, with its shift where `shifts`.
    #[inline(always)]
    fn row<S: Simd>(
        &self,
        start: usize,
        piece: Option<&Piece<E>>,
        a: &mut [E::Compute],
        g: &mut [E::Compute],
        shifts: bool,
    ) -> Row<E::Compute> {
        let len = self.rows.len;
        let mut row = Row::new();
        if shifts {
            for at in (0..len).step_by(TILE) {
                let n = TILE.min(len - at);
                let (a, g) = self.operands::<S>((start + at, at, n), piece, a, g);
                row.take(tile_pivot::<S, E::Compute>(a, g, n));
            }
        }
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = self.operands::<S>((start + at, at, n), piece, a, g);
            row.sum += tile_term::<S, E::Compute, G>(a, g, n, row, self.formulas);
        }
        row
    }

    /// Brings the state of a tile of columns up to their sums; the last block is left in the buffers.
    #[inline(always)]
    fn columns<S: Simd>(
        &self,
        (slab, at, width): (usize, usize, usize),
        piece: Option<&Piece<E>>,
        buffers: &mut Buffers<E>,
        shifts: bool,
    ) {
        let Rows { len, inner, .. } = self.rows;
        let Buffers { a, g, columns, .. } = buffers;
        let stride = padded(width);
        for i in 0..width {
            columns.inverse[i] = inverse(self.tau.at(slab * inner + at + i));
        }
        columns.top[..stride].fill(E::Compute::NEG_INFINITY);
        for zeros in [
            &mut columns.shift,
            &mut columns.sum,
            &mut columns.carry,
            &mut columns.second,
            &mut columns.second_carry,
        ] {
            zeros[..stride].fill(E::Compute::default());
        }
        if shifts {
            for first in (0..len).step_by(LINES) {
                self.load_block::<S>((slab, first, at, width), piece, a, g);
                let n = LINES.min(len - first) * stride;
                block_pivots::<S, E::Compute>(&a[..n], &g[..n], columns, stride);
            }
        }
        for first in (0..len).step_by(LINES) {
            if !(shifts && len <= LINES) {
                self.load_block::<S>((slab, first, at, width), piece, a, g);
            }
            let n = LINES.min(len - first) * stride;
            block_sums::<S, E::Compute, G>(&a[..n], &g[..n], columns, stride, self.formulas);
        }
    }
}

/// One tile of a row that is shared out: its largest element, or, given what is known of the row, its sum.
struct Tile<'a, E: Element, G> {
    a: &'a Source<'a, E>,
    g: &'a Source<'a, E>,
    buffers: &'a mut Buffers<E>,
    start: usize,
    n: usize,
    row: Option<Row<E::Compute>>,
    formulas: PhantomData<G>,
}

impl<E: Element, G: Gradient> Kernel for Tile<'_, E, G> {
    type Output = Row<E::Compute>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Row<E::Compute> {
        let Buffers { a, g, .. } = self.buffers;
        let a = self.a.view::<S>(self.start, self.n, a);
        let g = self.g.view::<S>(self.start, self.n, g);
        let mut tile = Row::new();
        match self.row {
            None => tile.take(tile_pivot::<S, E::Compute>(a, g, self.n)),
            Some(row) => {
                tile.sum = tile_term::<S, E::Compute, G>(a, g, self.n, row, self.formulas);
            }
        }
        tile
    }
}

struct FinishTile<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    index: usize,
    row: Row<E::Compute>,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, G: Gradient> Kernel for FinishTile<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Buffers { a, g, out, .. } = self.buffers;
        let (start, n) = (self.piece.place().start, self.piece.place().width);
        let (a, g) = self.job.operands::<S>((start, 0, n), None, a, g);
        let tau = self.job.tau.at(self.index);
        tile_gradient::<S, E::Compute, G>(a, g, out, n, self.row, tau, self.job.formulas);
        push::<S, E>(self.piece, &out[..n]);
    }
}

struct TauRow<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    row: usize,
    piece: &'a mut Piece<'b, E::Wide>,
}

impl<E: Element, G: Gradient> Kernel for TauRow<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Buffers { a, g, .. } = self.buffers;
        let (job, len) = (self.job, self.job.rows.len);
        let start = self.row * len;
        let row = job.row::<S>(start, None, a, g, true);
        let mut second = 0.0;
        for at in (0..len).step_by(TILE) {
            let n = TILE.min(len - at);
            let (a, g) = job.operands::<S>((start + at, at, n), None, a, g);
            second += tile_tau_term::<S, E::Compute, G>(a, g, n, row, job.formulas);
        }
        self.piece
            .push(&[E::Wide::round(-second / job.tau.at(self.row))]);
    }
}

/// The gradient of the elements of a tile of columns.
struct Columns<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, G: Gradient> Kernel for Columns<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers,
            piece,
        } = self;
        let Rows { len, inner, .. } = job.rows;
        let place = piece.place();
        let (slab, at, width) = (
            place.start / (len * inner),
            place.start % inner,
            place.width,
        );
        let stride = padded(width);
        job.columns::<S>((slab, at, width), Some(piece), buffers, G::SHIFTS);
        let Buffers { a, g, columns, .. } = buffers;
        for first in (0..len).step_by(LINES) {
            if len > LINES {
                job.load_block::<S>((slab, first, at, width), Some(piece), a, g);
            }
            let n = LINES.min(len - first) * stride;
            let (a, g) = (&mut a[..n], &g[..n]);
            block_gradient::<S, E::Compute, G>(a, g, columns, stride, job.formulas);
            for line in a.chunks_exact(stride) {
                push::<S, E>(piece, &line[..width]);
            }
        }
    }
}

/// The gradient of the temperatures of a tile of columns.
struct TauColumns<'a, 'b, E: Element, G> {
    job: &'a Job<'a, E, G>,
    buffers: &'a mut Buffers<E>,
    piece: &'a mut Piece<'b, E::Wide>,
}

impl<E: Element, G: Gradient> Kernel for TauColumns<'_, '_, E, G> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers,
            piece,
        } = self;
        let Rows { len, inner, .. } = job.rows;
        let place = piece.place();
        let (slab, at, width) = (place.start / inner, place.start % inner, place.width);
        let stride = padded(width);
        job.columns::<S>((slab, at, width), None, buffers, true);
        let Buffers { a, g, columns, .. } = buffers;
        for first in (0..len).step_by(LINES) {
            if len > LINES {
                job.load_block::<S>((slab, first, at, width), None, a, g);
            }
            let n = LINES.min(len - first) * stride;
            block_tau::<S, E::Compute, G>(&a[..n], &g[..n], columns, stride, job.formulas);
        }
        for &x in &columns.second[..width] {
            piece.push(&[E::Wide::round(x.f64())]);
        }
    }
}
