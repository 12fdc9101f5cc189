//! Elementary functions on vectors, from IEEE add, multiply, fused multiply-add, divide, square root and integer
//! operations alone, each in one order: the same bits on every instruction set and on every device that has those
//! operations. The polynomials are minimax fits made for this crate; the errors named are the largest seen in the
//! tests of this file.

use crate::simd::{Bits, Float, Mask, Simd};
use std::hint::black_box;

/// The scalar that an op computes in: `f32` (for f16, bf16 and f32) or `f64`.
pub(crate) trait Real:
    Copy + PartialOrd + PartialEq + Default + Send + Sync + 'static
{
    type V<S: Simd>: Float<Scalar = Self>;
    const NEG_INFINITY: Self;
    const INFINITY: Self;
    const LARGEST: Self;
    /// The smallest positive normal number.
    const SMALLEST: Self;

    fn of(x: f64) -> Self;
    fn f64(self) -> f64;

    /// What a difference `z - max` is multiplied by before [`Real::exp_scaled`], for a temperature of `tau`: `f32` works
    /// in base 2 and so saves the argument reduction. Kept finite and above zero, so that a difference of 0 stays 0 and
    /// one of -inf stays -inf at any temperature.
    fn exp_scale(tau: f64) -> Self;
    /// `exp((z - max) / tau)` of `(z - max) * exp_scale(tau)`, which is not above zero; below the smallest normal number
    /// it is 0. Relative error 2e-7 (f32), 5e-16 (f64), times `1 + |x|` for the rounding of the product.
    fn exp_scaled<S: Simd>(x: Self::V<S>) -> Self::V<S>;
    /// `exp(x)`, relative error 1.2e-7 (f32), 3e-16 (f64) where the result is normal.
    fn exp_lanes<S: Simd>(x: Self::V<S>) -> Self::V<S>;
    /// `exp(x) - 1 - x` without cancellation, relative error 6e-7 (f32), 2e-15 (f64).
    fn exp_minus_linear<S: Simd>(x: Self::V<S>) -> Self::V<S>;
    /// `exp(x) - 1`, relative error as above.
    #[inline(always)]
    fn expm1_lanes<S: Simd>(x: Self::V<S>) -> Self::V<S> {
        let near = Self::exp_minus_linear::<S>(x) + x;
        let far = Self::exp_lanes::<S>(x) - Self::V::<S>::splat(Self::of(1.0));
        Float::select((x * x).le(Self::V::<S>::splat(Self::of(0.49))), near, far)
    }
    /// `ln(x)` for positive normal `x`, relative error 1.3e-7 (f32), 3e-16 (f64).
    fn ln_lanes<S: Simd>(x: Self::V<S>) -> Self::V<S>;
    /// `ln(1 + x)` without cancellation, for `x` from 0 to a quarter of the largest number, relative error as `ln_lanes`.
    fn ln_1p_lanes<S: Simd>(x: Self::V<S>) -> Self::V<S>;
    /// `-ln(1 - v)` for `v` in `(0, 1)`.
    fn exponential<S: Simd>(v: Self::V<S>) -> Self::V<S>;
    /// `-ln(-ln(1 - v))` for `v` in `(0, 1)`.
    fn gumbel<S: Simd>(v: Self::V<S>) -> Self::V<S>;
    /// Inverse of the normal tail: `|z|` with `P(|Z| > |z|) = t`, from `t` and `1 - t`, both exact to the last digit.
    fn normal_magnitude<S: Simd>(t: Self::V<S>, one_minus_t: Self::V<S>) -> Self::V<S>;
}

/// A function of one scalar through the vector code, so that there is one implementation of it.
///
/// All lanes are computed, which the black boxes see to. Left to itself, LLVM 22.1 narrows such a chain to the one lane that
/// is used, and was seen to take the scalar's neighbour in memory for it (rustc 1.95, AVX-512).
#[inline(always)]
pub(crate) fn scalar<S: Simd, C: Real>(x: C, f: impl FnOnce(C::V<S>) -> C::V<S>) -> C {
    let mut lanes = black_box([x; 16]);
    f(Float::load(&lanes)).store(&mut lanes);
    black_box(lanes)[0]
}

/// `c[0] + c[1] x + ...` by Horner's rule.
#[inline(always)]
fn polynomial<V: Float, const N: usize>(x: V, c: &[V::Scalar; N]) -> V {
    let mut y = V::splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        y = y.mul_add(x, V::splat(c));
    }
    y
}

// ------------------------------------------------------------------------------------------------------------- f32

/// `(-ln(1 - u) - u) / u^2` on [-1/3, 1/3].
const NEG_LN_F32: [f32; 8] = [
    0.49999937, 0.33333197, 0.2500782, 0.20011169, 0.16415952, 0.13995802, 0.15388583, 0.14026378,
];
/// `(2^f - 1) / f` on [-1/2, 1/2].
const EXP2_F32: [f32; 6] = [
    std::f32::consts::LN_2,
    0.24022648,
    0.055503324,
    0.009618438,
    0.00133989,
    0.00015353334,
];
/// `(e^r - 1 - r) / r^2` on [-ln 2 / 2, ln 2 / 2].
const EXP_F32: [f32; 5] = [0.49999994, 0.16666521, 0.04166839, 0.008368728, 0.001381458];
/// The same quotient on [-0.7, 0.7].
const EXP_MINUS_LINEAR_F32: [f32; 7] = [
    0.5,
    0.1666667,
    0.04166665,
    0.0083327545,
    0.0013889461,
    0.00020078203,
    2.4882002e-5,
];
/// `|z| / x` of `w - 2.5` for `w = -ln(1 - x^2) < 5` (the form of Giles, 2012).
const NORMAL_F32_CENTRAL: [f32; 9] = [
    2.1233137,
    0.3488027,
    -0.0059081586,
    -0.0017730319,
    0.0003091355,
    -6.209552e-6,
    -4.985613e-6,
    4.851963e-7,
    3.986351e-8,
];
/// `|z| / x` of `sqrt(w) - 3` for `w` from 5 to 22.
const NORMAL_F32_TAIL: [f32; 10] = [
    4.0064344,
    1.4165834,
    0.013340653,
    -0.010815304,
    0.008156892,
    -0.0050630216,
    0.0018353562,
    -2.1756012e-5,
    -0.00023404932,
    5.7303856e-5,
];

/// The exponent field of `x / 2^round` for a mantissa in [2/3, 4/3), as a multiple of 2^23.
#[inline(always)]
fn exponent_f32<S: Simd>(x: S::F32) -> S::U32 {
    x.to_bits()
        .sub(S::U32::splat(0x3F2A_AAAB))
        .and(S::U32::splat(0xFF80_0000))
}

/// `-ln(1 - u) - e ln 2` for `u` in [-1/3, 1/3], `e` given as its exponent field.
#[inline(always)]
fn neg_ln_reduced_f32<S: Simd>(u: S::F32, exponent: S::U32) -> S::F32 {
    let r = (u * u).mul_add(polynomial(u, &NEG_LN_F32), u);
    // ln 2 / 2^23: the exponent field converts without a shift.
    let ln2 = S::F32::splat(std::f32::consts::LN_2 / 8_388_608.0);
    S::f32_from_i32(exponent).neg_mul_add(ln2, r)
}

/// `-ln(x)`.
#[inline(always)]
fn neg_ln_f32<S: Simd>(x: S::F32) -> S::F32 {
    let e = exponent_f32::<S>(x);
    let u = S::F32::splat(1.0) - S::F32::from_bits(x.to_bits().sub(e));
    neg_ln_reduced_f32::<S>(u, e)
}

impl Real for f32 {
    type V<S: Simd> = S::F32;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    const INFINITY: f32 = f32::INFINITY;
    const LARGEST: f32 = f32::MAX;
    const SMALLEST: f32 = f32::MIN_POSITIVE;

    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn exp_scale(tau: f64) -> f32 {
        (std::f64::consts::LOG2_E / tau).clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX))
            as f32
    }
    #[inline(always)]
    fn exp_scaled<S: Simd>(x: S::F32) -> S::F32 {
        let n = x.round();
        let f = x - n;
        let y = f
            .mul_add(polynomial(f, &EXP2_F32), S::F32::splat(1.0))
            .scale_pow2(n);
        S::F32::select(x.lt(S::F32::splat(-126.0)), S::F32::splat(0.0), y)
    }
    #[inline(always)]
    fn exp_lanes<S: Simd>(x: S::F32) -> S::F32 {
        // The bounds are where the result rounds to 0 and to infinity; written so that a NaN passes.
        let x = S::F32::splat(-104.0).max(x);
        let x = S::F32::splat(89.0).min(x);
        let n = (x * S::F32::splat(std::f32::consts::LOG2_E)).round();
        let r = n.neg_mul_add(S::F32::splat(0.693_359_4), x);
        let r = n.neg_mul_add(S::F32::splat(-2.121_944_4e-4), r);
        let y = (r * r).mul_add(polynomial(r, &EXP_F32), r) + S::F32::splat(1.0);
        let half = (n * S::F32::splat(0.5)).round();
        y.scale_pow2(half).scale_pow2(n - half)
    }
    #[inline(always)]
    fn exp_minus_linear<S: Simd>(x: S::F32) -> S::F32 {
        let near = (x * x) * polynomial(x, &EXP_MINUS_LINEAR_F32);
        let far = (Self::exp_lanes::<S>(x) - S::F32::splat(1.0)) - x;
        S::F32::select((x * x).le(S::F32::splat(0.49)), near, far)
    }
    #[inline(always)]
    fn ln_lanes<S: Simd>(x: S::F32) -> S::F32 {
        -neg_ln_f32::<S>(x)
    }
    #[inline(always)]
    fn ln_1p_lanes<S: Simd>(x: S::F32) -> S::F32 {
        let one = S::F32::splat(1.0);
        let e = exponent_f32::<S>(one + x);
        // As for `exponential`, with -x for v.
        let s = S::F32::from_bits(S::U32::splat(0x3F80_0000).sub(e));
        -neg_ln_reduced_f32::<S>(x.neg_mul_add(s, one - s), e)
    }
    #[inline(always)]
    fn exponential<S: Simd>(v: S::F32) -> S::F32 {
        let one = S::F32::splat(1.0);
        let e = exponent_f32::<S>(one - v);
        // s = 2^-e, and u = 1 - s (1 - v) from v itself, so that no digit of a small v is lost.
        let s = S::F32::from_bits(S::U32::splat(0x3F80_0000).sub(e));
        neg_ln_reduced_f32::<S>(v.mul_add(s, one - s), e)
    }
    #[inline(always)]
    fn gumbel<S: Simd>(v: S::F32) -> S::F32 {
        neg_ln_f32::<S>(Self::exponential::<S>(v))
    }
    #[inline(always)]
    fn normal_magnitude<S: Simd>(t: S::F32, x: S::F32) -> S::F32 {
        // 1 - x^2 = (1 - x)(1 + x), of which 1 - x is t.
        let w = -Self::ln_lanes::<S>(t * (x + S::F32::splat(1.0)));
        let mut p = polynomial(w - S::F32::splat(2.5), &NORMAL_F32_CENTRAL);
        let tail = S::F32::splat(5.0).le(w);
        if tail.any() {
            let far = polynomial(w.sqrt() - S::F32::splat(3.0), &NORMAL_F32_TAIL);
            p = S::F32::select(tail, far, p);
        }
        p * x
    }
}

// ------------------------------------------------------------------------------------------------------------- f64

/// Of `z = s^2`, `s = m / (2 + m)`: the series that fdlibm uses for `ln(1 + m)` on [sqrt(1/2), sqrt(2)].
const LN_F64: [f64; 7] = [
    0.6666666666666735,
    0.3999999999940942,
    0.2857142874366239,
    0.22222198432149784,
    0.1818357216161805,
    0.15313837699209373,
    0.14798198605116586,
];
/// `(e^r - 1 - r) / r^2` on [-ln 2 / 2, ln 2 / 2].
const EXP_F64: [f64; 10] = [
    0.5000000000000011,
    0.16666666666666413,
    0.04166666666653001,
    0.008333333333494715,
    0.0013888888943674527,
    0.0001984126950601039,
    2.4801493047271412e-5,
    2.755758691247337e-6,
    2.7630268557282933e-7,
    2.4999880312177517e-8,
];
/// The same quotient on [-0.7, 0.7].
const EXP_MINUS_LINEAR_F64: [f64; 14] = [
    0.5,
    0.16666666666666666,
    0.04166666666666666,
    0.00833333333333334,
    0.0013888888888891457,
    0.00019841269841258373,
    2.480158729843276e-5,
    2.755731923120774e-6,
    2.75573210682052e-7,
    2.5052106384712755e-8,
    2.0876204011633576e-9,
    1.6059221878343228e-10,
    1.1552876199763263e-11,
    7.663900747896911e-13,
];
/// `|z| / x` of `w - 3.125` for `w < 6.25`.
const NORMAL_F64_CENTRAL: [f64; 23] = [
    2.3386207100265937,
    0.3396349587011406,
    -0.008532899177272787,
    -0.0010475115695007657,
    0.0002640820495640187,
    -1.963285282243133e-05,
    -1.9310650670412107e-06,
    5.988894344399987e-07,
    -4.111170708297901e-08,
    -5.816144303092077e-09,
    1.4866365460101351e-09,
    -7.658497918053742e-11,
    -1.834897780256385e-11,
    3.724238463171141e-12,
    -1.1540706466094584e-13,
    -5.732635511457603e-14,
    9.401979248006968e-15,
    2.8548756065763303e-17,
    -1.896801266464398e-16,
    1.5829429932856653e-17,
    1.8676624173399083e-18,
    -2.3925988335281647e-19,
    -6.0690020905968595e-21,
];
/// `|z| / x` of `sqrt(w) - 3.25` for `sqrt(w)` from 2.5 to 4.
const NORMAL_F64_TAIL: [f64; 19] = [
    4.36127285516533,
    1.4216508658102573,
    0.007595620204052577,
    -0.0053050099467249244,
    0.0035234312013050105,
    -0.0023875821876146617,
    0.00134815478572704,
    -0.0005020988842417426,
    3.398497568308222e-05,
    9.656940660819418e-05,
    -6.691732961279803e-05,
    1.7642607124958155e-05,
    4.132112597441464e-06,
    -5.6762191817481994e-06,
    2.1291643002895103e-06,
    2.5561239892001734e-08,
    -3.929063593430534e-07,
    1.2843965735785856e-07,
    4.607826465127839e-09,
];
/// `|z| / x` of `sqrt(w) - 5.3` for `sqrt(w)` from 4 to 6.65.
const NORMAL_F64_FAR: [f64; 19] = [
    7.287412535487795,
    1.428591372172323,
    -0.0004186349298730976,
    -0.00019708363953163652,
    7.319562506755481e-05,
    -1.8555299074548155e-05,
    4.1027781355896975e-06,
    -8.448959515839895e-07,
    1.6840386294211666e-07,
    -3.475561981575607e-08,
    8.871581975903502e-09,
    -3.4898469008666948e-09,
    1.7029275378795242e-09,
    -7.337956113397565e-10,
    3.549715904864077e-10,
    -2.110985047854053e-10,
    7.059054035850526e-11,
    5.904211803080654e-13,
    -3.954767750797801e-12,
];

const EXPONENT_F64: u64 = 0xFFF0_0000_0000_0000;

/// The exponent field of `x` for a mantissa in [sqrt(1/2), sqrt(2)).
#[inline(always)]
fn exponent_f64<S: Simd>(x: S::F64) -> S::U64 {
    x.to_bits()
        .sub(S::U64::splat(0x3FE6_A09E_667F_3BCD))
        .and(S::U64::splat(EXPONENT_F64))
}

/// `ln(1 + m) + e ln 2` for `1 + m` in [sqrt(1/2), sqrt(2)), `e` given as its exponent field.
#[inline(always)]
fn ln_reduced_f64<S: Simd>(m: S::F64, exponent: S::U64) -> S::F64 {
    // Biased and shifted down, the exponent is a small positive integer: the low bits of 2^52 + itself.
    let biased = exponent.add(S::U64::splat(1023 << 52)).shr::<52>();
    let k = S::F64::from_bits(biased.or(S::U64::splat(0x4330_0000_0000_0000)))
        - S::F64::splat(4_503_599_627_370_496.0 + 1023.0);
    let s = m / (m + S::F64::splat(2.0));
    let z = s * s;
    let r = z * polynomial(z, &LN_F64);
    let half_square = (m * m) * S::F64::splat(0.5);
    let low = s.mul_add(half_square + r, k * S::F64::splat(1.9082149292705877e-10));
    k.mul_add(S::F64::splat(0.6931471803691238), m - (half_square - low))
}

/// Argument reduction and polynomial: `(y, n)` with `exp(x) = y 2^n`.
#[inline(always)]
fn exp_reduced_f64<S: Simd>(x: S::F64) -> (S::F64, S::F64) {
    let n = (x * S::F64::splat(std::f64::consts::LOG2_E)).round();
    let r = n.neg_mul_add(S::F64::splat(0.6931471803691238), x);
    let r = n.neg_mul_add(S::F64::splat(1.9082149292705877e-10), r);
    let y = (r * r).mul_add(polynomial(r, &EXP_F64), r) + S::F64::splat(1.0);
    (y, n)
}

impl Real for f64 {
    type V<S: Simd> = S::F64;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    const INFINITY: f64 = f64::INFINITY;
    const LARGEST: f64 = f64::MAX;
    const SMALLEST: f64 = f64::MIN_POSITIVE;

    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp_scale(tau: f64) -> f64 {
        (1.0 / tau).clamp(f64::MIN_POSITIVE, f64::MAX)
    }
    #[inline(always)]
    fn exp_scaled<S: Simd>(x: S::F64) -> S::F64 {
        let (y, n) = exp_reduced_f64::<S>(x);
        S::F64::select(
            x.lt(S::F64::splat(-708.0)),
            S::F64::splat(0.0),
            y.scale_pow2(n),
        )
    }
    #[inline(always)]
    fn exp_lanes<S: Simd>(x: S::F64) -> S::F64 {
        let x = S::F64::splat(-746.0).max(x);
        let x = S::F64::splat(710.0).min(x);
        let (y, n) = exp_reduced_f64::<S>(x);
        let half = (n * S::F64::splat(0.5)).round();
        y.scale_pow2(half).scale_pow2(n - half)
    }
    #[inline(always)]
    fn exp_minus_linear<S: Simd>(x: S::F64) -> S::F64 {
        let near = (x * x) * polynomial(x, &EXP_MINUS_LINEAR_F64);
        let far = (Self::exp_lanes::<S>(x) - S::F64::splat(1.0)) - x;
        S::F64::select((x * x).le(S::F64::splat(0.49)), near, far)
    }
    #[inline(always)]
    fn ln_lanes<S: Simd>(x: S::F64) -> S::F64 {
        let e = exponent_f64::<S>(x);
        let m = S::F64::from_bits(x.to_bits().sub(e)) - S::F64::splat(1.0);
        ln_reduced_f64::<S>(m, e)
    }
    #[inline(always)]
    fn ln_1p_lanes<S: Simd>(x: S::F64) -> S::F64 {
        let one = S::F64::splat(1.0);
        let e = exponent_f64::<S>(one + x);
        let s = S::F64::from_bits(S::U64::splat(0x3FF0_0000_0000_0000).sub(e));
        ln_reduced_f64::<S>(x.mul_add(s, s - one), e)
    }
    #[inline(always)]
    fn exponential<S: Simd>(v: S::F64) -> S::F64 {
        let one = S::F64::splat(1.0);
        let e = exponent_f64::<S>(one - v);
        let s = S::F64::from_bits(S::U64::splat(0x3FF0_0000_0000_0000).sub(e));
        let m = v.neg_mul_add(s, s - one);
        -ln_reduced_f64::<S>(m, e)
    }
    #[inline(always)]
    fn gumbel<S: Simd>(v: S::F64) -> S::F64 {
        -Self::ln_lanes::<S>(Self::exponential::<S>(v))
    }
    #[inline(always)]
    fn normal_magnitude<S: Simd>(t: S::F64, x: S::F64) -> S::F64 {
        let w = -Self::ln_lanes::<S>(t * (x + S::F64::splat(1.0)));
        let mut p = polynomial(w - S::F64::splat(3.125), &NORMAL_F64_CENTRAL);
        let tail = S::F64::splat(6.25).le(w);
        if tail.any() {
            let root = w.sqrt();
            let near = polynomial(root - S::F64::splat(3.25), &NORMAL_F64_TAIL);
            let far = polynomial(root - S::F64::splat(5.3), &NORMAL_F64_FAR);
            let far = S::F64::select(S::F64::splat(4.0).le(root), far, near);
            p = S::F64::select(tail, far, p);
        }
        p * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, dispatch};

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        ExpScaled,
        ExpMinusLinear,
        Expm1,
        Ln,
        Ln1p,
        Normal,
    }

    struct At<C>(Function, C, C);

    impl<C: Real> Kernel for At<C> {
        type Output = C;
        #[inline(always)]
        fn run<S: Simd>(self) -> C {
            let At(function, x, y) = self;
            scalar::<S, C>(
                x,
                #[inline(always)]
                |x| match function {
                    Function::Exp => C::exp_lanes::<S>(x),
                    Function::ExpScaled => C::exp_scaled::<S>(x),
                    Function::ExpMinusLinear => C::exp_minus_linear::<S>(x),
                    Function::Expm1 => C::expm1_lanes::<S>(x),
                    Function::Ln => C::ln_lanes::<S>(x),
                    Function::Ln1p => C::ln_1p_lanes::<S>(x),
                    Function::Normal => C::normal_magnitude::<S>(x, C::V::<S>::splat(y)),
                },
            )
        }
    }

    fn at<C: Real>(function: Function, x: C) -> C {
        dispatch(At(function, x, C::default()))
    }

    /// The largest relative error over `n` points from `low` to `high`.
    fn worst<C: Real>(f: Function, low: f64, high: f64, exact: impl Fn(f64) -> f64) -> f64 {
        const N: usize = 40_001;
        (0..N)
            .map(|i| {
                let x = C::of(low + (high - low) * i as f64 / (N - 1) as f64);
                let want = exact(x.f64());
                (at(f, x).f64() - want).abs() / want.abs().max(f64::MIN_POSITIVE)
            })
            .fold(0.0, f64::max)
    }

    /// `e^x - 1 - x` by its series, where the difference would cancel.
    fn exp_minus_linear(x: f64) -> f64 {
        if x.abs() > 0.5 {
            return x.exp_m1() - x;
        }
        let (mut term, mut sum) = (x * x / 2.0, 0.0);
        for k in 3..30 {
            sum += term;
            term *= x / f64::from(k);
        }
        sum
    }

    #[test]
    fn exponentials_are_as_precise_as_they_say() {
        assert!(worst::<f32>(Function::Exp, -87.0, 88.0, f64::exp) < 1.2e-7);
        assert!(worst::<f64>(Function::Exp, -700.0, 700.0, f64::exp) < 5e-16);
        assert!(worst::<f32>(Function::ExpScaled, -125.0, 0.0, f64::exp2) < 1.2e-7);
        assert!(worst::<f64>(Function::ExpScaled, -700.0, 0.0, f64::exp) < 5e-16);
        for (f, exact) in [
            (Function::ExpMinusLinear, exp_minus_linear as fn(f64) -> f64),
            (Function::Expm1, f64::exp_m1),
        ] {
            // The grid leaves out 0, where a relative error means nothing.
            assert!(worst::<f32>(f, -20.0, 20.3, exact) < 6e-7);
            assert!(worst::<f32>(f, -0.9, 0.91, exact) < 6e-7);
            assert!(worst::<f64>(f, -20.0, 20.3, exact) < 3e-15);
            assert!(worst::<f64>(f, -0.9, 0.91, exact) < 3e-15);
        }
    }

    #[test]
    fn logarithms_are_as_precise_as_they_say() {
        for (low, high) in [(1e-30, 1e-29), (1e-3, 0.7), (0.6, 1.5), (1.0, 1e6)] {
            assert!(worst::<f32>(Function::Ln, low, high, f64::ln) < 1.3e-7);
            assert!(worst::<f64>(Function::Ln, low, high, f64::ln) < 4e-16);
        }
        for (low, high) in [
            (1e-30, 1e-29),
            (1e-9, 1e-8),
            (1e-3, 0.7),
            (0.3, 40.0),
            (1e30, 8e37),
        ] {
            assert!(worst::<f32>(Function::Ln1p, low, high, f64::ln_1p) < 1.9e-7);
            assert!(worst::<f64>(Function::Ln1p, low, high, f64::ln_1p) < 5e-16);
        }
        assert_eq!(at::<f32>(Function::Ln1p, 0.0), 0.0);
        assert_eq!(at::<f64>(Function::Ln1p, 0.0), 0.0);
    }

    #[test]
    fn ends_and_values_that_are_not_numbers_pass() {
        assert_eq!(at::<f32>(Function::Exp, f32::NEG_INFINITY), 0.0);
        assert_eq!(at::<f32>(Function::Exp, f32::INFINITY), f32::INFINITY);
        assert_eq!(at::<f64>(Function::Exp, 1e9), f64::INFINITY);
        assert_eq!(at::<f32>(Function::Exp, -100.0), (-100f32).exp());
        assert_eq!(at::<f32>(Function::Exp, 0.0), 1.0);
        assert!(at::<f32>(Function::Exp, f32::NAN).is_nan());
        assert_eq!(at::<f32>(Function::ExpScaled, f32::NEG_INFINITY), 0.0);
        assert_eq!(at::<f64>(Function::ExpScaled, f64::NEG_INFINITY), 0.0);
        assert_eq!(at::<f32>(Function::ExpScaled, -126.5), 0.0);
        assert_eq!(at::<f32>(Function::ExpScaled, 0.0), 1.0);
        assert!(at::<f32>(Function::ExpScaled, f32::NAN).is_nan());
        assert!(at::<f64>(Function::ExpScaled, f64::NAN).is_nan());
    }

    #[test]
    fn temperatures_keep_zero_and_infinity() {
        for tau in [1e-300, 1e-40, 1.0, 1e40, 1e300] {
            for scale in [f32::exp_scale(tau).f64(), f64::exp_scale(tau)] {
                assert!(scale > 0.0 && scale.is_finite());
            }
        }
    }

    #[test]
    fn quantiles_match_known_ones() {
        // Two-sided tails and their quantiles, to 17 digits.
        for (t, z) in [
            (0.5f64, 0.674_489_750_196_081_7),
            (0.05, 1.959_963_984_540_054),
            (1e-3, 3.290_526_731_491_896),
            (1e-6, 4.891_638_475_698_59),
            (1e-9, 6.109_410_204_869_397),
            (1e-15, 8.026_858_882_534_54),
        ] {
            let f64 = dispatch(At(Function::Normal, t, 1.0 - t));
            assert!((f64 - z).abs() < 2e-15 * z, "{t}: {f64}");
            if t > 1e-10 {
                let f32 = dispatch(At(Function::Normal, t as f32, (1.0 - t) as f32));
                assert!((f32.f64() - z).abs() < 5e-7 * z, "{t}: {f32}");
            }
        }
    }
}
