//! Functions that are linear but for two kinks, and their slopes: one kernel for all of them.
//!
//! Rectifiers, clamps and their like are such functions; the window through which a straight-through gradient passes is such a
//! slope.

use crate::elementwise::{Elementwise, Formula, Silent};
use crate::math::Real;
use crate::simd::{Float, Simd};
use candle_core::{Result, Tensor};

/// A function that is linear below, between and above two kinks, which may be one.
///
/// A piece is a slope and the value at its anchor, which is the kink for the outer pieces: with an anchor the result keeps all
/// its digits near a zero of the function that is not at 0. A slope of 0 makes a piece constant, at infinity too. The piece
/// between, to which the kinks belong, has a slope other than 0, so that a NaN remains one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    /// From low to high; infinite where there is none.
    pub(crate) kinks: [f64; 2],
    pub(crate) slopes: [f64; 3],
    /// At the lower kink, at `anchor`, at the upper kink. With the anchor at 0, a value of -0.0 keeps the sign of a zero.
    pub(crate) values: [f64; 3],
    pub(crate) anchor: f64,
    /// The slope that is taken at each kink.
    pub(crate) at_kinks: [f64; 2],
}

impl Formula<1, 9> for Linear {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("piecewise", "piecewise_linear");

    fn parameters(&self) -> [f64; 9] {
        let ([low, high], [s0, s1, s2], [v0, v1, v2]) = (self.kinks, self.slopes, self.values);
        [low, high, s0, v0, s1, v1, s2, v2, self.anchor]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([x]: [C::V<S>; 1], _: C::V<S>, p: [C::V<S>; 9]) -> C::V<S> {
        let [low, high, s0, v0, s1, v1, s2, v2, anchor] = p;
        let (below, above) = (x.lt(low), high.lt(x));
        let slope = Float::select(below, s0, Float::select(above, s2, s1));
        let value = Float::select(below, v0, Float::select(above, v2, v1));
        let anchor = Float::select(below, low, Float::select(above, high, anchor));
        let linear = (x - anchor).mul_add(slope, value);
        Float::select(is_zero::<S, C>(slope), value, linear)
    }

    fn backward(
        op: &Elementwise<Self, 1, 9>,
        [x]: [&Tensor; 1],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 1]> {
        let to_x = || op.with(Slope::of(op.formula)).gradient([x, grad]);
        Ok([x.track_op().then(to_x).transpose()?])
    }
}

/// A gradient times the slope of a piecewise linear function: exactly 0 where that is 0, NaN where the argument is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    pub(crate) kinks: [f64; 2],
    pub(crate) slopes: [f64; 3],
    pub(crate) at_kinks: [f64; 2],
}

impl Slope {
    fn of(linear: Linear) -> Self {
        Self {
            kinks: linear.kinks,
            slopes: linear.slopes,
            at_kinks: linear.at_kinks,
        }
    }
}

impl Formula<2, 7> for Slope {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("piecewise", "piecewise_slope");

    fn parameters(&self) -> [f64; 7] {
        let ([low, high], [s0, s1, s2], [e0, e1]) = (self.kinks, self.slopes, self.at_kinks);
        [low, high, s0, e0, s1, e1, s2]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([x, g]: [C::V<S>; 2], _: C::V<S>, p: [C::V<S>; 7]) -> C::V<S> {
        let [low, high, s0, e0, s1, e1, s2] = p;
        // From the last piece down to the first: what comes later holds further down.
        let slope = Float::select(x.le(high), e1, s2);
        let slope = Float::select(x.lt(high), s1, slope);
        let slope = Float::select(x.le(low), e0, slope);
        let slope = Float::select(x.lt(low), s0, slope);
        times_slope::<S, C>(number_or::<S, C>(x, slope), g)
    }
}

/// `slope`, but where `x` is NaN, that.
#[inline(always)]
pub(crate) fn number_or<S: Simd, C: Real>(x: C::V<S>, slope: C::V<S>) -> C::V<S> {
    Float::select(x.le(C::V::<S>::splat(C::INFINITY)), slope, x)
}

/// `slope g`, and 0 where the slope is 0, whatever the gradient is.
#[inline(always)]
pub(crate) fn times_slope<S: Simd, C: Real>(slope: C::V<S>, g: C::V<S>) -> C::V<S> {
    let zero = C::V::<S>::splat(C::default());
    Float::select(is_zero::<S, C>(slope), zero, slope * g)
}

#[inline(always)]
fn is_zero<S: Simd, C: Real>(x: C::V<S>) -> <C::V<S> as Float>::Mask {
    x.max(-x).le(C::V::<S>::splat(C::default()))
}
