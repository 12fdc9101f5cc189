use super::{Surrogate, Through};
use crate::element::Element;
use crate::elementwise::{Elementwise, Formula, Silent};
use crate::math::Real;
use crate::op::{by_dtype, dtype, rows_of};
use crate::piecewise::{Slope, number_or};
use crate::rowwise::{Largest, Source, extreme};
use crate::simd::{Bits, Float, Simd};
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// A function of one element that is flat wherever it has a slope.
pub(super) trait Step<const P: usize>: Copy + Send + Sync + 'static {
    const KERNEL: &'static str;
    fn parameters(&self) -> [f64; P];
    fn at<S: Simd, C: Real>(x: C::V<S>, p: [C::V<S>; P]) -> C::V<S>;
}

impl<T: Step<P>, const P: usize> Formula<1, P> for Through<T> {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = ("straight_through", T::KERNEL);

    fn parameters(&self) -> [f64; P] {
        self.step.parameters()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([x]: [C::V<S>; 1], _: C::V<S>, p: [C::V<S>; P]) -> C::V<S> {
        T::at::<S, C>(x, p)
    }

    fn backward(
        op: &Elementwise<Self, 1, P>,
        [x]: [&Tensor; 1],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 1]> {
        let to_x = || match op.formula.surrogate {
            Surrogate::Identity => Ok(grad.clone()),
            Surrogate::Clipped { low, high } => {
                let window = Slope {
                    kinks: [low, high],
                    slopes: [0.0, 1.0, 0.0],
                    at_kinks: [1.0; 2],
                };
                op.with(window).gradient([x, grad])
            }
        };
        Ok([x.track_op().then(to_x).transpose()?])
    }
}

#[derive(Clone, Copy)]
pub(super) struct Round;
#[derive(Clone, Copy)]
pub(super) struct Floor;
#[derive(Clone, Copy)]
pub(super) struct Ceil;
#[derive(Clone, Copy)]
pub(super) struct Sign;
/// 1 above the threshold, 0 elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Binarize(pub(super) f64);
#[derive(Clone, Copy)]
pub(super) struct Quantize {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) levels: u32,
}

/// `y` with the sign of `x`, of which it has either that or none.
#[inline(always)]
fn signed_as<S: Simd, C: Real>(y: C::V<S>, x: C::V<S>) -> C::V<S> {
    let sign = C::V::<S>::splat(C::of(-0.0)).to_bits();
    Float::from_bits(y.to_bits().or(x.to_bits().and(sign)))
}

impl Step<0> for Round {
    const KERNEL: &'static str = "straight_through_round";

    fn parameters(&self) -> [f64; 0] {
        []
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        x.round()
    }
}

impl Step<0> for Floor {
    const KERNEL: &'static str = "straight_through_floor";

    fn parameters(&self) -> [f64; 0] {
        []
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        let near = x.round();
        let below = near - C::V::<S>::splat(C::of(1.0));
        signed_as::<S, C>(Float::select(x.lt(near), below, near), x)
    }
}

impl Step<0> for Ceil {
    const KERNEL: &'static str = "straight_through_ceil";

    fn parameters(&self) -> [f64; 0] {
        []
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        let near = x.round();
        let above = near + C::V::<S>::splat(C::of(1.0));
        signed_as::<S, C>(Float::select(near.lt(x), above, near), x)
    }
}

impl Step<0> for Sign {
    const KERNEL: &'static str = "straight_through_sign";

    fn parameters(&self) -> [f64; 0] {
        []
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, _: [C::V<S>; 0]) -> C::V<S> {
        let (zero, one) = (C::V::<S>::splat(C::default()), C::V::<S>::splat(C::of(1.0)));
        let sign = Float::select(x.lt(zero), -one, Float::select(zero.lt(x), one, zero));
        number_or::<S, C>(x, sign)
    }
}

impl Step<1> for Binarize {
    const KERNEL: &'static str = "straight_through_binarize";

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, [threshold]: [C::V<S>; 1]) -> C::V<S> {
        let (zero, one) = (C::V::<S>::splat(C::default()), C::V::<S>::splat(C::of(1.0)));
        number_or::<S, C>(x, Float::select(threshold.lt(x), one, zero))
    }
}

impl Step<5> for Quantize {
    const KERNEL: &'static str = "straight_through_quantize";

    fn parameters(&self) -> [f64; 5] {
        let Quantize { low, high, levels } = *self;
        let (last, width) = (f64::from(levels - 1), high - low);
        [low, high, last / width, width, last]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(x: C::V<S>, p: [C::V<S>; 5]) -> C::V<S> {
        let [low, high, density, width, last] = p;
        let inside = Float::select(x.lt(low), low, Float::select(high.lt(x), high, x));
        let level = ((inside - low) * density).round();
        // By a quotient, so that the middle of a range is exact: the 0 of one that is symmetric. The ends are the bounds.
        let value = (level / last).mul_add(width, low);
        Float::select(last.le(level), high, value)
    }
}

pub(super) fn one_hot(
    name: &str,
    dim: usize,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let x = Source::<E>::new(storage, layout)?;
        let out = extreme(&x, rows_of(layout, dim), false, Largest::OneHot);
        Ok((E::storage(out), layout.shape().clone()))
    })
}
