use crate::element::{Element, Vector};
use crate::elementwise::{Elementwise, Formula, Silent};
use crate::math::Real;
use crate::output::{Piece, Split, fill};
use crate::rng::Normal;
use crate::rowwise::{
    CHAIN, CHAIN_LINES, GRAIN, LINES, Rows, Source, TILE, add_compensated, padded, push,
};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch, outlined};
use candle_core::{Result, Tensor};

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

impl Formula<2, 0> for Sample {
    type Noise = Normal;
    const KERNEL: (&'static str, &'static str) = ("gaussian", "gaussian_sample");

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [mean, log_var]: [C::V<S>; 2],
        eps: C::V<S>,
        _: [C::V<S>; 0],
    ) -> C::V<S> {
        C::exp_lanes::<S>(log_var * half::<S, C>()).mul_add(eps, mean)
    }

    fn backward(
        op: &Elementwise<Self, 2, 0>,
        [mean, log_var]: [&Tensor; 2],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let to_log_var = || op.with(SampleGradient).gradient([log_var, grad]);
        Ok([
            mean.track_op().then(|| grad.clone()),
            log_var.track_op().then(to_log_var).transpose()?,
        ])
    }
}

impl Formula<2, 0> for SampleGradient {
    type Noise = Normal;
    const KERNEL: (&'static str, &'static str) = ("gaussian", "gaussian_sample_gradient");

    #[inline(always)]
    fn at<S: Simd, C: Real>([log_var, g]: [C::V<S>; 2], eps: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        let half = half::<S, C>();
        (C::exp_lanes::<S>(log_var * half) * eps) * (g * half)
    }
}

impl Formula<2, 0> for MeanGradient {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("gaussian", "gaussian_kl_mean_gradient");

    #[inline(always)]
    fn at<S: Simd, C: Real>([mean, g]: [C::V<S>; 2], _: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        mean * g
    }
}

impl Formula<2, 0> for LogVarGradient {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("gaussian", "gaussian_kl_log_var_gradient");

    #[inline(always)]
    fn at<S: Simd, C: Real>([log_var, g]: [C::V<S>; 2], _: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        (C::expm1_lanes::<S>(log_var) * half::<S, C>()) * g
    }
}

outlined! {
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
