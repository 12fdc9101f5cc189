//! One row's iterations, forward and backward, whatever the element type.
//!
//! With `w = z + c`, where `z` are the perturbed logits and `c` what the iterations have added so far, one iteration is
//! `a = softmax(w / tau)`, `c += ln(1 - a)`. For the largest class, where `1 - a` would cancel, it is the share of all others:
//! their exponentials are counted from the second largest, so that neither their sum nor its logarithm underflows.

use crate::math::{Real, scalar};
use crate::rowwise::{CHAIN, row_max};
use crate::simd::{Float, Mask, Simd, outlined};

/// What an iteration found out of its row.
#[derive(Clone, Copy)]
pub(super) struct Step<C> {
    /// The largest class, and its share.
    top: usize,
    share: C,
    /// The share of another is its exponential times this.
    factor: C,
    /// The inverse of the sum of the others' exponentials; 0 where there is no other.
    inverse_rest: C,
    /// How far the second largest is below the largest, not above 0.
    gap: C,
}

/// The place of the first element that equals the largest.
#[inline(always)]
fn place_of<S: Simd, C: Real>(row: &[C], largest: C) -> usize {
    let lanes = C::V::<S>::LANES;
    let all = C::V::<S>::splat(largest);
    for (i, chunk) in row.chunks_exact(lanes).enumerate() {
        if !C::V::<S>::load(chunk).lt(all).all()
            && let Some(at) = chunk.iter().position(|&x| x == largest)
        {
            return i * lanes + at;
        }
    }
    0
}

/// The sum over all vectors of a row, chain by chain.
#[inline(always)]
fn sum_chains<S: Simd, C: Real>(n: usize, mut term: impl FnMut(usize) -> C::V<S>) -> f64 {
    let lanes = C::V::<S>::LANES;
    let mut total = 0.0;
    for from in (0..n).step_by(CHAIN * lanes) {
        let mut sum = C::V::<S>::splat(C::default());
        for at in (from..n.min(from + CHAIN * lanes)).step_by(lanes) {
            sum = sum + term(at);
        }
        total += sum.reduce_add().f64();
    }
    total
}

/// `ln(1 - share)` of the largest class, where the others sum up to `rest` relative to the second and `rest q` to the first.
#[inline(always)]
fn ln_left<S: Simd, C: Real>(share: C, rest: f64, q: f64, gap: C, inverse: C) -> C {
    if share.f64() <= 0.5 {
        let left = scalar::<S, C>(
            share,
            #[inline(always)]
            |share| C::neg_ln_1m::<S>(share),
        );
        return C::of(-left.f64());
    }
    if rest == 0.0 {
        return C::NEG_INFINITY;
    }
    let ln = |x: f64| {
        scalar::<S, C>(
            C::of(x),
            #[inline(always)]
            |x| C::ln_lanes::<S>(x),
        )
    };
    let total = 1.0 + rest * q;
    if rest * q > 1e-20 {
        ln(rest * q / total)
    } else {
        C::of(ln(rest / total).f64() + gap.f64() * inverse.f64())
    }
}

outlined! {
    /// One iteration over rows of whole vectors, padded with `z` of -inf: the shares are added to `khot` and, unless it is
    /// the last one, `c` goes on. `e` is left with the exponentials relative to the second largest class, 0 at the largest.
    /// None where a row has no class left to draw, or holds NaN or +inf.
    pub(super) fn iterate['a, C: Real](
        z: &'a mut [C],
        c: &'a mut [C],
        w: &'a mut [C],
        e: &'a mut [C],
        khot: &'a mut [C],
        scales: (C, C),
        last: bool,
    ) -> Option<Step<C>> {
        let (scale, inverse) = scales;
        let (n, lanes) = (z.len(), C::V::<S>::LANES);
        let zero = C::V::<S>::splat(C::default());
        for at in (0..n).step_by(lanes) {
            (C::V::<S>::load(&z[at..]) + C::V::<S>::load(&c[at..])).store(&mut w[at..]);
        }
        let largest = row_max::<S, C>(w, n);
        if !(largest > C::NEG_INFINITY && largest < C::INFINITY) {
            return None;
        }
        let top = place_of::<S, C>(w, largest);
        w[top] = C::NEG_INFINITY;
        let next = row_max::<S, C>(w, n);
        let second = (next > C::NEG_INFINITY).then(|| place_of::<S, C>(w, next));
        let from = second.map_or((C::default(), C::default()), |second| (z[second], c[second]));
        let (z_top, c_top) = (z[top], c[top]);
        // The difference of two numbers and that of what was added to them: each is more exact than that of the sums.
        let difference = |z: C, c: C| (from.0.f64() - z.f64()) + (from.1.f64() - c.f64());
        let gap = match second {
            Some(_) => C::of(difference(z_top, c_top).min(0.0)),
            None => C::default(),
        };
        z[top] = C::NEG_INFINITY;
        let (z_from, c_from) = (C::V::<S>::splat(from.0), C::V::<S>::splat(from.1));
        let by = C::V::<S>::splat(scale);
        let rest = sum_chains::<S, C>(n, #[inline(always)] |at| {
            let d = (C::V::<S>::load(&z[at..]) - z_from) + (C::V::<S>::load(&c[at..]) - c_from);
            // Not above 0, which the roundings of a tie may be; a NaN passes.
            let x = C::exp_scaled::<S>(zero.min(d) * by);
            x.store(&mut e[at..]);
            x
        });
        z[top] = z_top;
        if rest.is_nan() {
            return None;
        }
        let q = match second {
            Some(_) => scalar::<S, C>(gap, #[inline(always)] |gap| C::exp_scaled::<S>(gap * by)).f64(),
            None => 0.0,
        };
        let total = 1.0 + rest * q;
        let share = C::of(1.0 / total);
        let factor = C::of(q / total);
        let shares = C::V::<S>::splat(factor);
        for at in (0..n).step_by(lanes) {
            let a = C::V::<S>::load(&e[at..]) * shares;
            (C::V::<S>::load(&khot[at..]) + a).store(&mut khot[at..]);
            if !last {
                (C::V::<S>::load(&c[at..]) - C::neg_ln_1m::<S>(a)).store(&mut c[at..]);
            }
        }
        khot[top] = C::of(khot[top].f64() + 1.0 / total);
        if !last {
            c[top] = C::of(c_top.f64() + ln_left::<S, C>(share, rest, q, gap, inverse).f64());
        }
        let inverse_rest = C::of(if rest > 0.0 { 1.0 / rest } else { 0.0 });
        Some(Step { top, share, factor, inverse_rest, gap })
    }

    /// An iteration's part of the gradient: `lambda`, that of `w` behind it, becomes that of `w` before it. Returns its part
    /// of the gradient of tau, if that is wanted.
    ///
    /// With `v = g - lambda / (1 - a)` it is `lambda += a (v - <a, v>) / tau`, where for the largest class `lambda / (1 - a)`
    /// is never formed: in the sums it meets `1 - a` again.
    pub(super) fn retreat['a, C: Real](
        e: &'a [C],
        g: &'a [C],
        lambda: &'a mut [C],
        step: Step<C>,
        inverse: C,
        to_tau: bool,
    ) -> f64 {
        let n = e.len();
        let (zero, one) = (C::V::<S>::splat(C::default()), C::V::<S>::splat(C::of(1.0)));
        let factor = C::V::<S>::splat(step.factor);
        // Counted from the gradient of the largest class: a constant changes nothing but the roundings.
        let shift = C::V::<S>::splat(g[step.top]);
        let mean = sum_chains::<S, C>(n, #[inline(always)] |at| {
            let a = C::V::<S>::load(&e[at..]) * factor;
            let v = (C::V::<S>::load(&g[at..]) - shift) - C::V::<S>::load(&lambda[at..]) / (one - a);
            a * v
        });
        let own = lambda[step.top].f64();
        let means = C::V::<S>::splat(C::of(mean));
        // The largest class's lambda reaches the others by their shares of the rest.
        let from_top = C::V::<S>::splat(C::of(step.share.f64() * own * step.inverse_rest.f64()));
        let by = C::V::<S>::splat(inverse);
        let mut tau = sum_chains::<S, C>(n, #[inline(always)] |at| {
            let (e, old) = (C::V::<S>::load(&e[at..]), C::V::<S>::load(&lambda[at..]));
            let a = e * factor;
            let v = (C::V::<S>::load(&g[at..]) - shift) - old / (one - a);
            let d = (a * (v - means) + from_top * e) * by;
            (old + d).store(&mut lambda[at..]);
            if to_tau {
                // (w - w of the second) / tau = ln e; one that underflowed weighs nothing.
                let there = zero.lt(e);
                let level = C::ln_lanes::<S>(Float::select(there, e, one));
                -(d * level)
            } else {
                zero
            }
        });
        let d = (-own - mean) * step.share.f64() * inverse.f64();
        lambda[step.top] = C::of(own + d);
        if d != 0.0 {
            tau += d * step.gap.f64() * inverse.f64();
        }
        tau
    }
}
