use crate::element::{Element, Vector};
use crate::math::Real;
use crate::output::{Piece, Split, fill};
use crate::rng::{self, FILL_SLACK, Normal, Stream};
use crate::rowwise::{
    CHAIN, CHAIN_LINES, GRAIN, GRAIN_NOISE, LINES, Rows, Source, TILE, add_compensated, padded,
    push,
};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch, outlined};
use std::marker::PhantomData;

/// A function of two elements and the noise at their place.
pub(super) trait Formula: Copy + Send + Sync + 'static {
    fn at<S: Simd, C: Real>(a: C::V<S>, b: C::V<S>, eps: C::V<S>) -> C::V<S>;
}

/// `mean + exp(log_var / 2) eps`.
#[derive(Clone, Copy)]
pub(super) struct Sample;
/// `g exp(log_var / 2) eps / 2`.
#[derive(Clone, Copy)]
pub(super) struct SampleGradient;
/// `g mean`.
#[derive(Clone, Copy)]
pub(super) struct MeanGradient;
/// `g expm1(log_var) / 2`.
#[derive(Clone, Copy)]
pub(super) struct LogVarGradient;

#[inline(always)]
fn half<S: Simd, C: Real>() -> C::V<S> {
    C::V::<S>::splat(C::of(0.5))
}

impl Formula for Sample {
    #[inline(always)]
    fn at<S: Simd, C: Real>(mean: C::V<S>, log_var: C::V<S>, eps: C::V<S>) -> C::V<S> {
        C::exp_lanes::<S>(log_var * half::<S, C>()).mul_add(eps, mean)
    }
}

impl Formula for SampleGradient {
    #[inline(always)]
    fn at<S: Simd, C: Real>(log_var: C::V<S>, g: C::V<S>, eps: C::V<S>) -> C::V<S> {
        let half = half::<S, C>();
        (C::exp_lanes::<S>(log_var * half) * eps) * (g * half)
    }
}

impl Formula for MeanGradient {
    #[inline(always)]
    fn at<S: Simd, C: Real>(mean: C::V<S>, g: C::V<S>, _: C::V<S>) -> C::V<S> {
        mean * g
    }
}

impl Formula for LogVarGradient {
    #[inline(always)]
    fn at<S: Simd, C: Real>(log_var: C::V<S>, g: C::V<S>, _: C::V<S>) -> C::V<S> {
        (C::expm1_lanes::<S>(log_var) * half::<S, C>()) * g
    }
}

pub(super) fn elementwise<E: Element, F: Formula>(
    a: &Source<E>,
    b: &Source<E>,
    n: usize,
    noise: Option<Stream>,
) -> Vec<E> {
    /// Elements at a time: three buffers of f32 in the first-level cache.
    const BLOCK: usize = TILE / 2;
    let split = Split::Runs {
        total: n,
        size: BLOCK,
    };
    let grain = if noise.is_some() { GRAIN_NOISE } else { GRAIN };
    let scratch = || [(); 3].map(|()| vec![E::Compute::default(); BLOCK + FILL_SLACK]);
    let work = |buffers: &mut [Vec<E::Compute>; 3], i: usize, piece: &mut Piece<E>| {
        dispatch(Block {
            a,
            b,
            noise,
            start: i * BLOCK,
            buffers,
            piece,
            formula: PhantomData::<F>,
        });
    };
    fill(split, grain, scratch, work).0
}

struct Block<'a, 'b, E: Element, F> {
    a: &'a Source<'a, E>,
    b: &'a Source<'a, E>,
    noise: Option<Stream>,
    start: usize,
    buffers: &'a mut [Vec<E::Compute>; 3],
    piece: &'a mut Piece<'b, E>,
    formula: PhantomData<F>,
}

impl<E: Element, F: Formula> Kernel for Block<'_, '_, E, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.piece.place().width;
        let [a, b, eps] = self.buffers;
        self.a.copy_to::<S>(self.start, &mut a[..n]);
        self.b.copy_to::<S>(self.start, &mut b[..n]);
        let offset = match self.noise {
            Some(stream) => rng::fill::<S, E::Compute, Normal>(&stream, self.start as u64, n, eps),
            None => 0,
        };
        block::<S, E::Compute, F>(a, b, &eps[offset..], n, self.formula);
        push::<S, E>(self.piece, &a[..n]);
    }
}

outlined! {
    /// Replaces `a` by the formula's value; the buffers go on past `n`, so that the last vector may too.
    fn block['a, C: Real, F: Formula](
        a: &'a mut [C],
        b: &'a [C],
        eps: &'a [C],
        n: usize,
        formula: PhantomData<F>,
    ) -> () {
        let _ = formula;
        for at in (0..n).step_by(C::V::<S>::LANES) {
            let (x, y) = (Float::load(&a[at..]), Float::load(&b[at..]));
            F::at::<S, C>(x, y, Float::load(&eps[at..])).store(&mut a[at..]);
        }
    }

    /// The sum of the divergence's terms over whole vectors.
    fn row_terms['a, C: Real](mean: &'a [C], log_var: &'a [C], n: usize) -> f64 {
        let lanes = C::V::<S>::LANES;
        let mut sum = C::V::<S>::splat(C::default());
        for first in (0..n).step_by(CHAIN * lanes) {
            let mut chain = C::V::<S>::splat(C::default());
            for at in (first..n.min(first + CHAIN * lanes)).step_by(lanes) {
                chain = chain + term::<S, C>(&mean[at..], &log_var[at..]);
            }
            sum = sum + chain;
        }
        sum.reduce_add().f64()
    }

    /// Adds the terms of a block's lines to the sums of its columns.
    fn block_terms['a, C: Real](
        mean: &'a [C],
        log_var: &'a [C],
        sums: &'a mut [C],
        carry: &'a mut [C],
        stride: usize,
    ) -> () {
        for j in (0..stride).step_by(C::V::<S>::LANES) {
            let mut sum = C::V::<S>::splat(C::default());
            let chains = mean.chunks(CHAIN_LINES * stride);
            for (mean, log_var) in chains.zip(log_var.chunks(CHAIN_LINES * stride)) {
                let mut chain = C::V::<S>::splat(C::default());
                for (mean, log_var) in mean.chunks_exact(stride).zip(log_var.chunks_exact(stride)) {
                    chain = chain + term::<S, C>(&mean[j..], &log_var[j..]);
                }
                sum = sum + chain;
            }
            add_compensated::<S, C>(&mut sums[j..], &mut carry[j..], sum);
        }
    }
}

/// `1/2 sum (mean^2 + expm1(log_var) - log_var)` over the rows.
pub(super) fn divergence<E: Element>(mean: &Source<E>, log_var: &Source<E>, rows: Rows) -> Vec<E> {
    let Rows { outer, len, inner } = rows;
    let width = if inner > 1 { rows.column_width() } else { 1 };
    let split = if inner > 1 {
        Split::Columns {
            outer,
            len: 1,
            inner,
            width,
        }
    } else {
        // Short rows share a piece.
        Split::Runs {
            total: rows.count(),
            size: (TILE / len).max(1),
        }
    };
    let block = if inner > 1 {
        len.min(LINES) * padded(width)
    } else {
        TILE + LANES_F32
    };
    let scratch =
        || [block, block, padded(width), padded(width)].map(|n| vec![E::Compute::default(); n]);
    let grain = (GRAIN / len).max(1);
    let work = |buffers: &mut [Vec<E::Compute>; 4], _: usize, piece: &mut Piece<E>| {
        dispatch(Divergence {
            mean,
            log_var,
            rows,
            buffers,
            piece,
        });
    };
    fill(split, grain, scratch, work).0
}

struct Divergence<'a, 'b, E: Element> {
    mean: &'a Source<'a, E>,
    log_var: &'a Source<'a, E>,
    rows: Rows,
    buffers: &'a mut [Vec<E::Compute>; 4],
    piece: &'a mut Piece<'b, E>,
}

#[inline(always)]
fn term<S: Simd, C: Real>(mean: &[C], log_var: &[C]) -> C::V<S> {
    let mean = C::V::<S>::load(mean);
    mean.mul_add(mean, C::exp_minus_linear::<S>(Float::load(log_var)))
}

impl<E: Element> Kernel for Divergence<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Rows { len, inner, .. } = self.rows;
        let place = self.piece.place();
        let [mean, log_var, sums, carry] = self.buffers;
        let lanes = Vector::<S, E>::LANES;
        if inner == 1 {
            for row in place.start..place.start + place.width {
                let mut total = 0.0;
                for at in (0..len).step_by(TILE) {
                    let n = TILE.min(len - at);
                    let start = row * len + at;
                    self.mean.copy_to::<S>(start, &mut mean[..n]);
                    self.log_var.copy_to::<S>(start, &mut log_var[..n]);
                    // What follows the row adds nothing.
                    mean[n..n + lanes].fill(E::Compute::default());
                    log_var[n..n + lanes].fill(E::Compute::default());
                    total += row_terms::<S, E::Compute>(mean, log_var, n);
                }
                push::<S, E>(self.piece, &[E::Compute::of(total * 0.5)]);
            }
            return;
        }
        let (slab, at) = (place.start / inner, place.start % inner);
        let (width, stride) = (place.width, padded(place.width));
        sums[..stride].fill(E::Compute::default());
        carry[..stride].fill(E::Compute::default());
        for first in (0..len).step_by(LINES) {
            let lines = LINES.min(len - first);
            for line in 0..lines {
                let start = (slab * len + first + line) * inner + at;
                let range = line * stride..line * stride + width;
                self.mean.copy_to::<S>(start, &mut mean[range.clone()]);
                self.log_var.copy_to::<S>(start, &mut log_var[range]);
            }
            let n = lines * stride;
            block_terms::<S, E::Compute>(&mean[..n], &log_var[..n], sums, carry, stride);
        }
        let half = half::<S, E::Compute>();
        for j in (0..stride).step_by(lanes) {
            (Vector::<S, E>::load(&sums[j..]) * half).store(&mut sums[j..]);
        }
        push::<S, E>(self.piece, &sums[..width]);
    }
}
