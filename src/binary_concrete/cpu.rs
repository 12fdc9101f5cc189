//! The formulas, as kernels/binary_concrete.cu has them.

use super::Stretch;
use crate::elementwise::{Elementwise, Formula, Silent};
use crate::math::Real;
use crate::rng::Logistic;
use crate::simd::{Float, Mask, Simd};
use candle_core::{DType, Result, Tensor};

/// What becomes of a relaxed gate `y = sigmoid(v)`.
pub(super) trait Gate: Copy + Send + Sync + 'static {
    const KERNELS: Kernels;
    /// Whether its slope can be told from the gate itself.
    const INVERTIBLE: bool;
    /// Two numbers that [`Gate::of`] and [`Gate::slope`] are given as `limits`.
    fn limits(&self) -> [f64; 2] {
        [0.0; 2]
    }
    /// The gate, of the noisy logit `z` and of `v = z / tau`.
    fn of<S: Simd, C: Real>(z: C::V<S>, v: C::V<S>, limits: [C::V<S>; 2]) -> C::V<S>;
    /// Its derivative by `v`.
    fn slope<S: Simd, C: Real>(v: C::V<S>, limits: [C::V<S>; 2]) -> C::V<S>;
    /// The same of the gate, where it is [`Gate::INVERTIBLE`].
    #[inline(always)]
    fn slope_at<S: Simd, C: Real>(y: C::V<S>, _limits: [C::V<S>; 2]) -> C::V<S> {
        y * (one::<S, C>() - y)
    }
}

/// Whether the backward pass of a result in this dtype may start from it: one that is rounded to a half type says too little
/// about its slope near 1, so that the noise is drawn once more there.
pub(super) fn has_digits(result: &Tensor) -> bool {
    !matches!(result.dtype(), DType::F16 | DType::BF16)
}

/// The kernels of a gate: with a temperature that is a number, and with one that is an operand. A gradient's kernel takes
/// the result where that [`has_digits`], and else the logits.
pub(super) struct Kernels {
    fixed: &'static str,
    fixed_gradient: &'static str,
    learned: &'static str,
    learned_gradient: &'static str,
    tau_gradient: &'static str,
}

const FILE: &str = "binary_concrete";

/// `y`.
#[derive(Clone, Copy)]
pub(super) struct Concrete;
/// 1 where the noisy logit is above 0, else 0.
#[derive(Clone, Copy)]
pub(super) struct StraightThrough;
/// `clamp(low + (high - low) y, 0, 1)`.
#[derive(Clone, Copy)]
pub(super) struct Hard(pub(super) Stretch);

#[inline(always)]
fn one<S: Simd, C: Real>() -> C::V<S> {
    C::V::<S>::splat(C::of(1.0))
}

#[inline(always)]
fn zero<S: Simd, C: Real>() -> C::V<S> {
    C::V::<S>::splat(C::default())
}

/// `exp(-|v|)` and `1 / (1 + exp(-|v|))`, from which neither `y` nor `1 - y` loses digits at either end.
#[inline(always)]
fn parts<S: Simd, C: Real>(v: C::V<S>) -> (C::V<S>, C::V<S>) {
    // In this order a NaN passes.
    let e = C::exp_lanes::<S>(-v.max(-v));
    (e, one::<S, C>() / (one::<S, C>() + e))
}

#[inline(always)]
fn sigmoid<S: Simd, C: Real>(v: C::V<S>) -> C::V<S> {
    let (e, r) = parts::<S, C>(v);
    Float::select(v.lt(zero::<S, C>()), e * r, r)
}

/// `y (1 - y)`.
#[inline(always)]
fn sigmoid_slope<S: Simd, C: Real>(v: C::V<S>) -> C::V<S> {
    let (e, r) = parts::<S, C>(v);
    (e * r) * r
}

/// Within the finite numbers above 0: a noisy logit of 0 then stays 0, and one of infinity what it is, at any temperature.
#[inline(always)]
fn bounded<S: Simd, C: Real>(inverse: C::V<S>) -> C::V<S> {
    let inverse = C::V::<S>::splat(C::LARGEST).min(inverse);
    C::V::<S>::splat(C::SMALLEST).max(inverse)
}

/// The nearest finite number; NaN is kept.
#[inline(always)]
fn finite<S: Simd, C: Real>(x: C::V<S>) -> C::V<S> {
    let largest = C::V::<S>::splat(C::LARGEST);
    (-largest).max(largest.min(x))
}

impl Gate for Concrete {
    const INVERTIBLE: bool = true;
    const KERNELS: Kernels = Kernels {
        fixed: "binary_concrete",
        fixed_gradient: "binary_concrete_gradient",
        learned: "binary_concrete_learned",
        learned_gradient: "binary_concrete_learned_gradient",
        tau_gradient: "binary_concrete_tau_gradient",
    };
    #[inline(always)]
    fn of<S: Simd, C: Real>(_: C::V<S>, v: C::V<S>, _: [C::V<S>; 2]) -> C::V<S> {
        sigmoid::<S, C>(v)
    }
    #[inline(always)]
    fn slope<S: Simd, C: Real>(v: C::V<S>, _: [C::V<S>; 2]) -> C::V<S> {
        sigmoid_slope::<S, C>(v)
    }
}

impl Gate for StraightThrough {
    const INVERTIBLE: bool = false;
    const KERNELS: Kernels = Kernels {
        fixed: "binary_concrete_st",
        fixed_gradient: "binary_concrete_st_gradient",
        learned: "binary_concrete_st_learned",
        learned_gradient: "binary_concrete_st_learned_gradient",
        ..Concrete::KERNELS
    };
    #[inline(always)]
    fn of<S: Simd, C: Real>(z: C::V<S>, _: C::V<S>, _: [C::V<S>; 2]) -> C::V<S> {
        let (zero, one) = (zero::<S, C>(), one::<S, C>());
        // What is neither is not a number, and stays that.
        let positive = Float::select(zero.lt(z), one, z);
        Float::select(z.le(zero), zero, positive)
    }
    #[inline(always)]
    fn slope<S: Simd, C: Real>(v: C::V<S>, limits: [C::V<S>; 2]) -> C::V<S> {
        Concrete::slope::<S, C>(v, limits)
    }
}

impl Gate for Hard {
    const INVERTIBLE: bool = true;
    const KERNELS: Kernels = Kernels {
        fixed: "hard_concrete",
        fixed_gradient: "hard_concrete_gradient",
        learned: "hard_concrete_learned",
        learned_gradient: "hard_concrete_learned_gradient",
        tau_gradient: "hard_concrete_tau_gradient",
    };
    fn limits(&self) -> [f64; 2] {
        [self.0.low, self.0.high - self.0.low]
    }
    #[inline(always)]
    fn of<S: Simd, C: Real>(_: C::V<S>, v: C::V<S>, [low, width]: [C::V<S>; 2]) -> C::V<S> {
        let stretched = sigmoid::<S, C>(v).mul_add(width, low);
        // In this order a NaN passes.
        one::<S, C>().min(zero::<S, C>().max(stretched))
    }
    #[inline(always)]
    fn slope<S: Simd, C: Real>(v: C::V<S>, [low, width]: [C::V<S>; 2]) -> C::V<S> {
        let (e, r) = parts::<S, C>(v);
        let y = Float::select(v.lt(zero::<S, C>()), e * r, r);
        let stretched = y.mul_add(width, low);
        let outside = stretched.le(zero::<S, C>()).or(one::<S, C>().le(stretched));
        Float::select(outside, zero::<S, C>(), ((e * r) * r) * width)
    }
    #[inline(always)]
    fn slope_at<S: Simd, C: Real>(z: C::V<S>, [low, width]: [C::V<S>; 2]) -> C::V<S> {
        let outside = z.le(zero::<S, C>()).or(one::<S, C>().le(z));
        let per_width = one::<S, C>() / width;
        let slope = ((z - low) * ((low + width) - z)) * per_width;
        Float::select(outside, zero::<S, C>(), slope)
    }
}

/// A gate with a temperature that is a number: of the logits.
#[derive(Clone, Copy)]
pub(super) struct Fixed<G>(pub(super) G, pub(super) f64);
/// Its gradient to the logits: of the logits and the gradient.
#[derive(Clone, Copy)]
struct FixedGradient<G>(G, f64);
/// The same of the result and the gradient.
#[derive(Clone, Copy)]
pub(super) struct FixedGradientAt<G>(pub(super) G, pub(super) f64);
/// A gate whose temperature is the second operand.
#[derive(Clone, Copy)]
pub(super) struct Learned<G>(pub(super) G);
/// Its gradient to the logits: of logits, temperatures and gradient.
#[derive(Clone, Copy)]
struct LearnedGradient<G>(G);
/// The same of result, temperatures and gradient.
#[derive(Clone, Copy)]
struct LearnedGradientAt<G>(G);
/// Its gradient to the temperature of each element: of the same.
#[derive(Clone, Copy)]
struct TauGradient<G>(G);

impl<G: Gate> Formula<1, 3> for Fixed<G> {
    type Noise = Logistic;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.fixed);

    fn parameters(&self) -> [f64; 3] {
        let [low, width] = self.0.limits();
        [1.0 / self.1, low, width]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a]: [C::V<S>; 1],
        noise: C::V<S>,
        [inverse, low, width]: [C::V<S>; 3],
    ) -> C::V<S> {
        let z = a + noise;
        G::of::<S, C>(z, z * bounded::<S, C>(inverse), [low, width])
    }

    fn backward(
        op: &Elementwise<Self, 1, 3>,
        [logits]: [&Tensor; 1],
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 1]> {
        let Fixed(gate, tau) = op.formula;
        let to_logits = || {
            if G::INVERTIBLE && has_digits(result) {
                let gradient = FixedGradientAt(gate, tau);
                op.with(gradient).gradient([result, grad])
            } else {
                let gradient = FixedGradient(gate, tau);
                op.with(gradient).gradient([logits, grad])
            }
        };
        Ok([logits.track_op().then(to_logits).transpose()?])
    }
}

impl<G: Gate> Formula<2, 3> for FixedGradient<G> {
    type Noise = Logistic;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.fixed_gradient);

    fn parameters(&self) -> [f64; 3] {
        Fixed(self.0, self.1).parameters()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, g]: [C::V<S>; 2],
        noise: C::V<S>,
        [inverse, low, width]: [C::V<S>; 3],
    ) -> C::V<S> {
        let inverse = bounded::<S, C>(inverse);
        let v = (a + noise) * inverse;
        (G::slope::<S, C>(v, [low, width]) * g) * inverse
    }
}

impl<G: Gate> Formula<2, 3> for FixedGradientAt<G> {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.fixed_gradient);

    fn parameters(&self) -> [f64; 3] {
        Fixed(self.0, self.1).parameters()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [y, g]: [C::V<S>; 2],
        _: C::V<S>,
        [inverse, low, width]: [C::V<S>; 3],
    ) -> C::V<S> {
        (G::slope_at::<S, C>(y, [low, width]) * g) * bounded::<S, C>(inverse)
    }
}

impl<G: Gate> Formula<2, 2> for Learned<G> {
    type Noise = Logistic;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.learned);

    fn parameters(&self) -> [f64; 2] {
        self.0.limits()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau]: [C::V<S>; 2],
        noise: C::V<S>,
        limits: [C::V<S>; 2],
    ) -> C::V<S> {
        let z = a + noise;
        let inverse = bounded::<S, C>(one::<S, C>() / tau);
        G::of::<S, C>(z, z * inverse, limits)
    }

    fn backward(
        op: &Elementwise<Self, 2, 2>,
        [logits, tau]: [&Tensor; 2],
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let Learned(gate) = op.formula;
        let to_logits = || {
            if G::INVERTIBLE && has_digits(result) {
                let gradient = LearnedGradientAt(gate);
                op.with(gradient).gradient([result, tau, grad])
            } else {
                let gradient = LearnedGradient(gate);
                op.with(gradient).gradient([logits, tau, grad])
            }
        };
        let to_tau = || op.with(TauGradient(gate)).gradient([logits, tau, grad]);
        Ok([
            logits.track_op().then(to_logits).transpose()?,
            tau.track_op().then(to_tau).transpose()?,
        ])
    }
}

impl<G: Gate> Formula<3, 2> for LearnedGradient<G> {
    type Noise = Logistic;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.learned_gradient);

    fn parameters(&self) -> [f64; 2] {
        self.0.limits()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau, g]: [C::V<S>; 3],
        noise: C::V<S>,
        limits: [C::V<S>; 2],
    ) -> C::V<S> {
        let inverse = bounded::<S, C>(one::<S, C>() / tau);
        let v = (a + noise) * inverse;
        (G::slope::<S, C>(v, limits) * g) * inverse
    }
}

impl<G: Gate> Formula<3, 2> for LearnedGradientAt<G> {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.learned_gradient);

    fn parameters(&self) -> [f64; 2] {
        self.0.limits()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [y, tau, g]: [C::V<S>; 3],
        _: C::V<S>,
        limits: [C::V<S>; 2],
    ) -> C::V<S> {
        let inverse = bounded::<S, C>(one::<S, C>() / tau);
        (G::slope_at::<S, C>(y, limits) * g) * inverse
    }
}

impl<G: Gate> Formula<3, 2> for TauGradient<G> {
    type Noise = Logistic;
    const KERNEL: (&'static str, &'static str) = (FILE, G::KERNELS.tau_gradient);

    fn parameters(&self) -> [f64; 2] {
        self.0.limits()
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau, g]: [C::V<S>; 3],
        noise: C::V<S>,
        limits: [C::V<S>; 2],
    ) -> C::V<S> {
        let inverse = bounded::<S, C>(one::<S, C>() / tau);
        let v = (a + noise) * inverse;
        // An infinite v has a slope of 0, and no part in the gradient.
        -(((G::slope::<S, C>(v, limits) * finite::<S, C>(v)) * g) * inverse)
    }
}

/// The probability that a hard gate is not 0: the sigmoid of the logit and an offset, which must not lift a mask.
#[derive(Clone, Copy)]
pub(super) struct Open(pub(super) f64);
/// Its gradient: of the logits and the gradient.
#[derive(Clone, Copy)]
struct OpenGradient(f64);

impl Formula<1, 1> for Open {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, "hard_concrete_l0");

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([a]: [C::V<S>; 1], _: C::V<S>, [offset]: [C::V<S>; 1]) -> C::V<S> {
        sigmoid::<S, C>(a + finite::<S, C>(offset))
    }

    fn backward(
        op: &Elementwise<Self, 1, 1>,
        [logits]: [&Tensor; 1],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 1]> {
        let gradient = OpenGradient(op.formula.0);
        let to_logits = || op.with(gradient).gradient([logits, grad]);
        Ok([logits.track_op().then(to_logits).transpose()?])
    }
}

impl Formula<2, 1> for OpenGradient {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, "hard_concrete_l0_gradient");

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>([a, g]: [C::V<S>; 2], _: C::V<S>, [offset]: [C::V<S>; 1]) -> C::V<S> {
        sigmoid_slope::<S, C>(a + finite::<S, C>(offset)) * g
    }
}

/// The same with a temperature that is the second operand: the sigmoid of the logit less the temperature times a threshold.
#[derive(Clone, Copy)]
pub(super) struct OpenLearned(pub(super) f64);
/// Its gradient to the logits: of logits, temperatures and gradient.
#[derive(Clone, Copy)]
struct OpenLearnedGradient(f64);
/// Its gradient to the temperature of each element: of the same.
#[derive(Clone, Copy)]
struct OpenTauGradient(f64);

impl Formula<2, 1> for OpenLearned {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, "hard_concrete_l0_learned");

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau]: [C::V<S>; 2],
        _: C::V<S>,
        [threshold]: [C::V<S>; 1],
    ) -> C::V<S> {
        sigmoid::<S, C>(tau.neg_mul_add(threshold, a))
    }

    fn backward(
        op: &Elementwise<Self, 2, 1>,
        [logits, tau]: [&Tensor; 2],
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let OpenLearned(threshold) = op.formula;
        let args = [logits, tau, grad];
        let to_logits = || op.with(OpenLearnedGradient(threshold)).gradient(args);
        let to_tau = || op.with(OpenTauGradient(threshold)).gradient(args);
        Ok([
            logits.track_op().then(to_logits).transpose()?,
            tau.track_op().then(to_tau).transpose()?,
        ])
    }
}

impl Formula<3, 1> for OpenLearnedGradient {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, "hard_concrete_l0_learned_gradient");

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau, g]: [C::V<S>; 3],
        _: C::V<S>,
        [threshold]: [C::V<S>; 1],
    ) -> C::V<S> {
        sigmoid_slope::<S, C>(tau.neg_mul_add(threshold, a)) * g
    }
}

impl Formula<3, 1> for OpenTauGradient {
    type Noise = Silent;
    const KERNEL: (&'static str, &'static str) = (FILE, "hard_concrete_l0_tau_gradient");

    fn parameters(&self) -> [f64; 1] {
        [self.0]
    }

    #[inline(always)]
    fn at<S: Simd, C: Real>(
        [a, tau, g]: [C::V<S>; 3],
        _: C::V<S>,
        [threshold]: [C::V<S>; 1],
    ) -> C::V<S> {
        -((sigmoid_slope::<S, C>(tau.neg_mul_add(threshold, a)) * threshold) * g)
    }
}
