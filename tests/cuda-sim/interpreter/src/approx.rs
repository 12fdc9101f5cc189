//! The approximate instructions: computed in f64 and rounded to f32, then, on request, moved by a pseudo-random amount
//! within the error that the PTX manual allows. The move depends on the seed, the operation and the operand alone: a
//! device, too, gives the same answer to the same question.

use crate::float::canon;

/// Which function; the number takes part in the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Func {
    Ex2 = 1,
    Lg2,
    Rcp,
    Rsqrt,
    Sqrt,
    Sin,
    Cos,
    Tanh,
    Div,
}

/// A hash of the seed, the operation and the operand.
#[inline(always)]
pub(crate) fn hash(noise: u64, func: Func, bits: u64) -> u64 {
    let mut z = noise ^ (func as u64) << 56 ^ bits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Moves `y` by a factor `1 + u * bound`, u in [-1, 1]. Zero, infinities and NaN stay.
#[inline(always)]
pub(crate) fn relative(noise: u64, func: Func, x: u64, y: f64, bound: f64) -> f64 {
    if noise == 0 {
        return y;
    }
    y * (1.0 + unit(hash(noise, func, x)) * bound)
}

#[inline(always)]
fn absolute(noise: u64, func: Func, x: u64, y: f64, bound: f64) -> f64 {
    if noise == 0 {
        return y;
    }
    y + unit(hash(noise, func, x)) * bound
}

#[inline(always)]
fn unit(h: u64) -> f64 {
    (h as i64 >> 11) as f64 / (1u64 << 52) as f64
}

/// 2^-22, and powers of two with a fraction that the manual states.
const P22: f64 = 1.0 / 4_194_304.0;
const P23: f64 = P22 / 2.0;
/// 2^-20.5
const P20_5: f64 = 6.743_495_761_743_044e-7;

/// 2^x for f64 in the range of f32, to about 1e-11.
#[inline(always)]
fn exp2(x: f64) -> f64 {
    // Beyond +-300 an f32 has long overflowed or vanished.
    let x = if x > 300.0 { 300.0 } else { x };
    let x = if x < -300.0 { -300.0 } else { x };
    let n = (x + 6_755_399_441_055_744.0) - 6_755_399_441_055_744.0;
    let t = (x - n) * std::f64::consts::LN_2;
    let mut p = 1.0 / 3_628_800.0;
    for c in [
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * t + c;
    }
    // The magic sum holds n in its low bits.
    let low = (n + 6_755_399_441_055_744.0).to_bits();
    p * f64::from_bits(low.wrapping_add(1023) << 52)
}

/// `ex2.approx.f32`: relative error at most 2^-22. Powers of two are exact, as on devices, whose table of the fractions
/// begins with 1: kernels scale by them, and `2^0` is what a softmax has at its largest element.
#[inline(always)]
pub(crate) fn ex2(x: f32, noise: u64) -> f32 {
    let y = exp2(f64::from(x));
    let moved = relative(noise, Func::Ex2, u64::from(x.to_bits()), y, P22 * 0.75);
    canon(if x == x.round_ties_even() { y } else { moved } as f32)
}

/// log2 of a positive normal f64, to about 1e-12.
#[inline(always)]
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let shifted = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let e = (shifted as i64 >> 52) as f64;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 15.0;
    for c in [
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        0.2,
        1.0 / 3.0,
        1.0,
    ] {
        p = p * z + c;
    }
    e + 2.0 * std::f64::consts::LOG2_E * s * p
}

/// `lg2.approx.f32`: absolute error 2^-22 on (0.5, 2), relative 2^-22 elsewhere.
#[inline(always)]
pub(crate) fn lg2(x: f32, noise: u64) -> f32 {
    let y = log2(f64::from(x));
    let b = u64::from(x.to_bits());
    let y = if x > 0.5 && x < 2.0 {
        absolute(
            noise,
            Func::Lg2,
            b,
            y,
            if x == 1.0 { 0.0 } else { P22 * 0.7 },
        )
    } else {
        relative(noise, Func::Lg2, b, y, P22 * 0.75)
    };
    if x > 0.0 {
        if x == f32::INFINITY { x } else { y as f32 }
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else {
        canon(f32::NAN)
    }
}

/// `rcp.approx.f32`: 1 ulp.
#[inline(always)]
pub(crate) fn rcp(x: f32, noise: u64) -> f32 {
    canon(relative(
        noise,
        Func::Rcp,
        u64::from(x.to_bits()),
        1.0 / f64::from(x),
        P23 * 0.5,
    ) as f32)
}

/// `rsqrt.approx.f32`: relative error 2^-22.9.
#[inline(always)]
pub(crate) fn rsqrt(x: f32, noise: u64) -> f32 {
    let y = 1.0 / f64::from(x).sqrt();
    canon(relative(noise, Func::Rsqrt, u64::from(x.to_bits()), y, P23 * 0.5) as f32)
}

/// `sqrt.approx.f32`: relative error 2^-23.
#[inline(always)]
pub(crate) fn sqrt(x: f32, noise: u64) -> f32 {
    let y = f64::from(x).sqrt();
    canon(relative(noise, Func::Sqrt, u64::from(x.to_bits()), y, P23 * 0.5) as f32)
}

/// `sin.approx.f32`: absolute error 2^-20.5 on [-pi, pi].
pub(crate) fn sin(x: f32, noise: u64) -> f32 {
    if x == 0.0 {
        return x;
    }
    canon(absolute(
        noise,
        Func::Sin,
        u64::from(x.to_bits()),
        f64::from(x).sin(),
        P20_5 * 0.9,
    ) as f32)
}

/// `cos.approx.f32`: absolute error 2^-20.5 on [-pi, pi].
pub(crate) fn cos(x: f32, noise: u64) -> f32 {
    if x == 0.0 {
        return 1.0;
    }
    canon(absolute(
        noise,
        Func::Cos,
        u64::from(x.to_bits()),
        f64::from(x).cos(),
        P20_5 * 0.9,
    ) as f32)
}

/// `tanh.approx.f32`: relative error 2^-11.
pub(crate) fn tanh(x: f32, noise: u64) -> f32 {
    let y = relative(
        noise,
        Func::Tanh,
        u64::from(x.to_bits()),
        f64::from(x).tanh(),
        1.0 / 2100.0,
    );
    canon(y.clamp(-1.0, 1.0) as f32)
}

/// `div.approx.f32` and `div.full.f32`: 2 ulp. Divisors in (2^126, 2^128) give 0 (or NaN for an infinite dividend) in the
/// approximate form, as documented.
#[inline(always)]
pub(crate) fn div(x: f32, y: f32, full: bool, noise: u64) -> f32 {
    let q = f64::from(x) / f64::from(y);
    let key = u64::from(x.to_bits()) << 32 | u64::from(y.to_bits());
    let q = relative(noise, Func::Div, key, q, P22 * 0.75) as f32;
    let huge = y.abs() > f32::from_bits(0x7e80_0000) && y.abs() < f32::INFINITY;
    if !full && huge {
        return if x.is_infinite() || x.is_nan() {
            canon(f32::NAN)
        } else {
            0.0f32.copysign(q)
        };
    }
    canon(q)
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` use the top 32 bits of the operand and give the top 32 bits of the
/// result, with a relative error of about 2^-20.
pub(crate) fn high64(x: f64, root: bool, noise: u64) -> f64 {
    let bits = x.to_bits() & 0xffff_ffff_0000_0000;
    let magnitude = bits & 0x7fff_ffff_ffff_ffff;
    let t = f64::from_bits(if magnitude < 0x0010_0000_0000_0000 {
        bits & 1 << 63
    } else {
        bits
    });
    let y = if root { 1.0 / t.sqrt() } else { 1.0 / t };
    if y.is_nan() {
        return f64::from_bits(0x7fff_ffff_0000_0000);
    }
    let y = relative(
        noise,
        if root { Func::Rsqrt } else { Func::Rcp },
        bits,
        y,
        1.0 / 2_097_152.0,
    );
    let y = y.to_bits();
    let flushed = y & 0x7fff_ffff_ffff_ffff < 0x0010_0000_0000_0000;
    f64::from_bits(if flushed {
        y & 1 << 63
    } else {
        y & 0xffff_ffff_0000_0000
    })
}
