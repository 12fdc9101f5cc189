use crate::element::Element;
use crate::elementwise::{Elementwise, Formula, Silent};
use crate::math::Real;
use crate::op::{by_dtype, dtype, rows_of, without};
use crate::piecewise::{number_or, times_slope};
use crate::rowwise::{Largest, Source, extreme};
use crate::simd::{Float, Simd};
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// `max(0, margin - target input)`.
#[derive(Clone, Copy)]
pub(super) struct Hinge {
    pub(super) margin: f64,
    pub(super) at_kink: f64,
}

/// `-target g` where `margin - target input` is above 0, and `at_kink` of it where it is 0: of input, target and gradient, or, for
/// the target's own, of target, input and gradient.
#[derive(Clone, Copy)]
pub(super) struct HingeSlope(Hinge);

impl Formula<2, 1> for Hinge {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("subgradient", "subgradient_hinge");

    fn parameters(&self) -> [f64; 1] {
        [self.margin]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [input, target]: [C::V<S>; 2],
        _: C::V<S>,
        [margin]: [C::V<S>; 1],
    ) -> C::V<S> {
        let zero = C::V::<S>::splat(C::default());
        let excess = target.neg_mul_add(input, margin);
        Float::select(excess.le(zero), zero, excess)
    }

    fn backward(
        op: &Elementwise<Self, 2, 1>,
        [input, target]: [&Tensor; 2],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let op = op.with(HingeSlope(op.formula));
        let to_input = || op.gradient([input, target, grad]);
        let to_target = || op.gradient([target, input, grad]);
        Ok([
            input.track_op().then(to_input).transpose()?,
            target.track_op().then(to_target).transpose()?,
        ])
    }
}

impl Formula<3, 2> for HingeSlope {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("subgradient", "subgradient_hinge_slope");

    fn parameters(&self) -> [f64; 2] {
        [self.0.margin, self.0.at_kink]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [own, other, g]: [C::V<S>; 3],
        _: C::V<S>,
        [margin, at_kink]: [C::V<S>; 2],
    ) -> C::V<S> {
        let zero = C::V::<S>::splat(C::default());
        let excess = other.neg_mul_add(own, margin);
        let slope = Float::select(excess.le(zero), at_kink, C::V::<S>::splat(C::of(1.0)));
        let slope = Float::select(excess.lt(zero), zero, slope);
        times_slope::<S, C>(number_or::<S, C>(excess, slope), -other * g)
    }
}

/// The larger of two elements, or with a sign of -1 the smaller.
#[derive(Clone, Copy)]
pub(super) struct Larger {
    pub(super) sign: f64,
    /// The first operand's part of the gradient where they are equal.
    pub(super) first: f64,
}

/// The gradient's part of the operand that comes first: of both operands and the gradient.
#[derive(Clone, Copy)]
pub(super) struct LargerSlope(Larger);

impl Formula<2, 1> for Larger {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("subgradient", "subgradient_larger");

    fn parameters(&self) -> [f64; 1] {
        [self.sign]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([a, b]: [C::V<S>; 2], _: C::V<S>, [sign]: [C::V<S>; 1]) -> C::V<S> {
        let larger = Float::select((a * sign).lt(b * sign), b, a);
        number_or::<S, C>(b, larger)
    }

    fn backward(
        op: &Elementwise<Self, 2, 1>,
        [a, b]: [&Tensor; 2],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let Larger { sign, first } = op.formula;
        let other = 1.0 - first;
        let to_a = || op.with(LargerSlope(op.formula)).gradient([a, b, grad]);
        let to_b = || {
            let formula = LargerSlope(Larger { sign, first: other });
            op.with(formula).gradient([b, a, grad])
        };
        Ok([
            a.track_op().then(to_a).transpose()?,
            b.track_op().then(to_b).transpose()?,
        ])
    }
}

impl Formula<3, 2> for LargerSlope {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("subgradient", "subgradient_larger_slope");

    fn parameters(&self) -> [f64; 2] {
        [self.0.sign, self.0.first]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [own, other, g]: [C::V<S>; 3],
        _: C::V<S>,
        [sign, tie]: [C::V<S>; 2],
    ) -> C::V<S> {
        let (zero, one) = (C::V::<S>::splat(C::default()), C::V::<S>::splat(C::of(1.0)));
        let (a, b) = (own * sign, other * sign);
        let slope = Float::select(b.lt(a), one, Float::select(b.le(a), tie, zero));
        let slope = number_or::<S, C>(own, number_or::<S, C>(other, slope));
        times_slope::<S, C>(slope, g)
    }
}

pub(super) fn largest(
    name: &str,
    dim: usize,
    negated: bool,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let x = Source::<E>::new(storage, layout)?;
        let out = extreme(&x, rows_of(layout, dim), negated, Largest::Value);
        Ok((E::storage(out), without(layout, dim)))
    })
}

pub(super) fn shares(
    name: &str,
    dim: usize,
    negated: bool,
    (x, layout): (&CpuStorage, &Layout),
    (grad, grad_layout): (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(x), E => {
        let (x, grad) = (Source::<E>::new(x, layout)?, Source::<E>::new(grad, grad_layout)?);
        let out = extreme(&x, rows_of(layout, dim), negated, Largest::Shares(&grad));
        Ok((E::storage(out), layout.shape().clone()))
    })
}
