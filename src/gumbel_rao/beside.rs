//! Short rows, a lane for each: the formulas of [`super::cpu`].

use super::cpu::{Rao, Row, Scratch, Way, logarithmic, plain, power};
use crate::math::Real;
use crate::rng::{Exponential, NoiseReal};
use crate::rowwise::{CHAIN_LINES, Lines, pivot_lanes};
use crate::simd::{Float, Mask, Simd, outlined};

/// What is known of each row, by lane.
#[derive(Default)]
pub(super) struct Lanes<C> {
    top: Vec<C>,
    bottom: Vec<C>,
    shift: Vec<C>,
    /// Where the one-hot is hot; -1 without such a place.
    hot: Vec<C>,
    z: Vec<C>,
    /// 1 where weights are computed by [`Way::Logarithmic`], else 0.
    logarithmic: Vec<C>,
    /// The exponential variate of the class drawn.
    own: Vec<C>,
    /// What the sum over samples is multiplied by.
    last: Vec<C>,
}

impl<C: Real> Lanes<C> {
    fn resize(&mut self, lanes: usize) {
        let Self {
            top,
            bottom,
            shift,
            hot,
            z,
            logarithmic,
            own,
            last,
        } = self;
        for row in [top, bottom, shift, hot, z, logarithmic, own, last] {
            row.resize(lanes, C::default());
        }
    }
}

/// The gradient of whole rows.
#[inline(always)]
pub(super) fn gradient<S: Simd, C: NoiseReal>(
    rao: &Rao,
    rows: &mut [Row<C>],
    lines: &mut Lines<C>,
    scratch: &mut Scratch<C>,
    out: &mut [C],
) {
    scratch.lanes.resize(lines.stride);
    look::<S, C>(lines, &mut scratch.lanes);
    let factor = rao.factor::<C>();
    let Lanes {
        top,
        bottom,
        hot,
        z,
        logarithmic,
        last,
        ..
    } = &mut scratch.lanes;
    for (i, row) in rows.iter_mut().enumerate() {
        let place = hot[i].f64();
        row.settle((top[i], bottom[i]), z[i].f64(), rao.tau);
        row.hot = (place >= 0.0).then_some(place as usize);
        logarithmic[i] = C::of(f64::from(u8::from(row.way == Way::Logarithmic)));
        last[i] = C::of(if row.hot.is_some() { factor } else { f64::NAN });
    }
    prepare::<S, C>(lines, scratch);
    out.fill(C::default());
    let (n, stride) = (lines.n, lines.stride);
    for k in 0..rao.samples {
        let noise = lines.noise::<S, Exponential>(&rao.stream(k));
        for (i, row) in rows.iter().enumerate() {
            scratch.lanes.own[i] = noise.0[row.hot.unwrap_or(0) * noise.1 + i];
        }
        add_sample::<S, C>(noise, (n, stride), rao.tau, scratch, out);
    }
    divide::<S, C>((n, stride), &scratch.lanes.last, out);
}

outlined! {
    /// Largest and smallest logits, the hot entry and the gradient there, the sum of exponentials.
    fn look['a, C: NoiseReal](lines: &'a Lines<'a, C>, lanes: &'a mut Lanes<C>) -> () {
        let zero = C::V::<S>::splat(C::default());
        let (mask, high) = (C::V::<S>::splat(C::NEG_INFINITY), C::V::<S>::splat(C::INFINITY));
        let unit = C::V::<S>::splat(C::exp_scale(1.0));
        for j in (0..lines.stride).step_by(C::V::<S>::LANES) {
            let at = |x: &[C], k: usize| C::V::<S>::load(&x[k * lines.stride + j..]);
            let (mut top, mut bottom, mut shift) = (mask, high, zero);
            let mut hot = C::V::<S>::splat(C::of(-1.0));
            for k in 0..lines.n {
                let x = at(lines.logits, k);
                top = x.max(top);
                bottom = Float::select(x.le(mask), high, x).min(bottom);
                let here = zero.lt(at(lines.drawn, k));
                hot = Float::select(here, C::V::<S>::splat(C::of(k as f64)), hot);
                shift = Float::select(here, at(lines.grad, k), shift);
            }
            let pivot = pivot_lanes::<S, C>(top);
            let mut z = zero;
            for chain in (0..lines.n).step_by(CHAIN_LINES) {
                let mut sum = zero;
                for k in chain..lines.n.min(chain + CHAIN_LINES) {
                    sum = sum + C::exp_scaled::<S>((at(lines.logits, k) - pivot) * unit);
                }
                z = z + sum;
            }
            top.store(&mut lanes.top[j..]);
            bottom.store(&mut lanes.bottom[j..]);
            shift.store(&mut lanes.shift[j..]);
            hot.store(&mut lanes.hot[j..]);
            z.store(&mut lanes.z[j..]);
        }
    }

    /// Fills the buffers that all samples share.
    fn prepare['a, C: NoiseReal](lines: &'a Lines<'a, C>, scratch: &'a mut Scratch<C>) -> () {
        let Scratch { rarity, h, lanes, .. } = scratch;
        let zero = C::V::<S>::splat(C::default());
        let never = C::V::<S>::splat(C::NEG_INFINITY);
        for j in (0..lines.stride).step_by(C::V::<S>::LANES) {
            let top = pivot_lanes::<S, C>(Float::load(&lanes.top[j..]));
            let shift = C::V::<S>::load(&lanes.shift[j..]);
            let logarithmic = zero.lt(Float::load(&lanes.logarithmic[j..]));
            // The class drawn has R = 0, whatever its variate.
            let none = Float::select(logarithmic, never, zero);
            for k in 0..lines.n {
                let at = k * lines.stride + j;
                let distance = top - C::V::<S>::load(&lines.logits[at..]);
                // Too large a number becomes infinity, and its weight 0.
                let x = Float::select(logarithmic, distance, C::exp_lanes::<S>(distance));
                let here = zero.lt(C::V::<S>::load(&lines.drawn[at..]));
                Float::select(here, none, x).store(&mut rarity[at..]);
                (C::V::<S>::load(&lines.grad[at..]) - shift).store(&mut h[at..]);
            }
        }
    }

    fn add_sample['a, C: NoiseReal](
        noise: (&'a [C], usize),
        size: (usize, usize),
        tau: f64,
        scratch: &'a mut Scratch<C>,
        acc: &'a mut [C],
    ) -> () {
        let scale = C::V::<S>::splat(C::exp_scale(tau));
        let zero = C::V::<S>::splat(C::default());
        for j in (0..size.1).step_by(C::V::<S>::LANES) {
            let lanes = &scratch.lanes;
            let (z, own) = (C::V::<S>::load(&lanes.z[j..]), C::V::<S>::load(&lanes.own[j..]));
            let factor = z / own;
            let logs = zero.lt(C::V::<S>::load(&lanes.logarithmic[j..]));
            if tau == 1.0 {
                add_lanes::<S, C>(noise, size, j, scratch, acc, #[inline(always)] |e, r| {
                    plain::<S, C>(e, r, factor)
                });
            } else if !logs.any() {
                add_lanes::<S, C>(noise, size, j, scratch, acc, #[inline(always)] |e, r| {
                    power::<S, C>(e, r, factor, scale)
                });
            } else {
                let ln = C::ln_lanes::<S>(z) - C::ln_lanes::<S>(own);
                add_lanes::<S, C>(noise, size, j, scratch, acc, #[inline(always)] |e, r| {
                    let power = power::<S, C>(e, r, factor, scale);
                    Float::select(logs, logarithmic::<S, C>(e, r, ln, scale), power)
                });
            }
        }
    }

    fn divide['a, C: NoiseReal](size: (usize, usize), last: &'a [C], acc: &'a mut [C]) -> () {
        for line in acc.chunks_exact_mut(size.1).take(size.0) {
            for j in (0..size.1).step_by(C::V::<S>::LANES) {
                (C::V::<S>::load(&line[j..]) * C::V::<S>::load(&last[j..])).store(&mut line[j..]);
            }
        }
    }
}

/// Adds a sample of the rows from lane `j` on, whose weights `f` makes of the noise and the rarity of each class.
#[inline(always)]
fn add_lanes<S: Simd, C: Real>(
    (noise, noise_stride): (&[C], usize),
    (n, stride): (usize, usize),
    j: usize,
    scratch: &mut Scratch<C>,
    acc: &mut [C],
    f: impl Fn(C::V<S>, C::V<S>) -> C::V<S>,
) {
    let Scratch {
        rarity, h, weights, ..
    } = scratch;
    let lanes = C::V::<S>::LANES;
    let zero = C::V::<S>::splat(C::default());
    let mut total = [zero; 2];
    for chain in (0..n).step_by(CHAIN_LINES) {
        let (mut sum, mut product) = (zero, zero);
        for k in chain..n.min(chain + CHAIN_LINES) {
            let e = Float::load(&noise[k * noise_stride + j..]);
            let at = k * stride + j;
            let w = f(e, Float::load(&rarity[at..]));
            w.store(&mut weights[k * lanes..]);
            sum = sum + w;
            product = w.mul_add(Float::load(&h[at..]), product);
        }
        total = [total[0] + sum, total[1] + product];
    }
    let inverse = C::V::<S>::splat(C::of(1.0)) / total[0];
    let mean = total[1] / total[0];
    for k in 0..n {
        let at = k * stride + j;
        let w = C::V::<S>::load(&weights[k * lanes..]) * inverse;
        let h = C::V::<S>::load(&h[at..]);
        w.mul_add(h - mean, Float::load(&acc[at..]))
            .store(&mut acc[at..]);
    }
}
