//! Two independent computations of each result: the exact integer routines and the host's (or the vectorised) ones.

use crate::approx;
use crate::float::*;
use crate::types::Round;

const MODES: [Round; 4] = [Round::Near, Round::Zero, Round::Down, Round::Up];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Bits of an f32: often special, often close to the last one in exponent.
    fn f32(&mut self) -> u32 {
        let r = self.next();
        let edge = [
            0,
            1,
            2,
            0x007f_ffff,
            0x0080_0000,
            0x0080_0001,
            0x3f80_0000,
            0x3f80_0001,
            0x3f7f_ffff,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
            0x4b00_0000,
            0x4b80_0001,
            0x3300_0000,
            0x0000_ffff,
        ];
        let bits = match r % 8 {
            0 => edge[(r >> 8) as usize % edge.len()],
            1 => (r >> 8) as u32 & 0x007f_ffff,
            2 | 3 => ((r >> 8) as u32 & 0x03ff_ffff) + 0x3e00_0000,
            4 => (((r >> 8) as u32) & 0xff) << 15 | 0x3f80_0000,
            _ => (r >> 8) as u32 & 0x7fff_ffff,
        };
        bits | ((r >> 63) as u32) << 31
    }

    fn f64(&mut self) -> u64 {
        let r = self.next();
        let edge = [
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3ff0_0000_0000_0001,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x4330_0000_0000_0001,
        ];
        let bits = match r % 6 {
            0 => edge[(r >> 8) as usize % edge.len()],
            1 => self.next() & 0x000f_ffff_ffff_ffff,
            2 | 3 => (self.next() & 0x007f_ffff_ffff_ffff) + 0x3fc0_0000_0000_0000,
            _ => self.next() & 0x7fff_ffff_ffff_ffff,
        };
        bits | r & 1 << 63
    }
}

fn same32(soft: u64, hard: f32, what: &str) {
    let hard = canon(hard).to_bits();
    assert_eq!(
        soft as u32,
        hard,
        "{what}: exact {:e}, other {:e}",
        f32::from_bits(soft as u32),
        f32::from_bits(hard)
    );
}

fn same64(soft: u64, hard: f64, what: &str) {
    if hard.is_nan() {
        assert!(f64::from_bits(soft).is_nan(), "{what}: NaN");
    } else {
        assert_eq!(
            soft,
            hard.to_bits(),
            "{what}: exact {:e}, other {hard:e}",
            f64::from_bits(soft)
        );
    }
}

const N: usize = 300_000;

#[test]
fn nearest_agrees_with_the_host() {
    let mut rng = Rng(1);
    for _ in 0..N {
        let (a, b, c) = (rng.f32(), rng.f32(), rng.f32());
        let (x, y, z) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
        let (a, b, c) = (u64::from(a), u64::from(b), u64::from(c));
        same32(
            fma(a, b, c, F32, Round::Near),
            x.mul_add(y, z),
            &format!("{x:e} * {y:e} + {z:e}"),
        );
        same32(
            div(a, b, F32, Round::Near),
            x / y,
            &format!("{x:e} / {y:e}"),
        );
        same32(sqrt(a, F32, Round::Near), x.sqrt(), &format!("sqrt {x:e}"));
        same32(
            round_integral(a, F32, Round::Near),
            x.round_ties_even(),
            &format!("rint {x:e}"),
        );
        same32(
            round_integral(a, F32, Round::Zero),
            x.trunc(),
            &format!("trunc {x:e}"),
        );
        same32(
            round_integral(a, F32, Round::Down),
            x.floor(),
            &format!("floor {x:e}"),
        );
        same32(
            round_integral(a, F32, Round::Up),
            x.ceil(),
            &format!("ceil {x:e}"),
        );
        same64(convert(a, F32, F64, Round::Near), f64::from(x), "widen");
        let (a, b, c) = (rng.f64(), rng.f64(), rng.f64());
        let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
        same64(
            fma(a, b, c, F64, Round::Near),
            x.mul_add(y, z),
            &format!("{x:e} * {y:e} + {z:e}"),
        );
        same64(
            div(a, b, F64, Round::Near),
            x / y,
            &format!("{x:e} / {y:e}"),
        );
        same64(sqrt(a, F64, Round::Near), x.sqrt(), &format!("sqrt {x:e}"));
        same32(convert(a, F64, F32, Round::Near), x as f32, "narrow");
        let i = rng.next().cast_signed() >> (rng.next() % 64);
        same32(
            from_integer(i128::from(i), F32, Round::Near),
            i as f32,
            "integer",
        );
        same64(
            from_integer(i128::from(i), F64, Round::Near),
            i as f64,
            "integer",
        );
        if !x.is_nan() {
            assert_eq!(
                to_integer(a, F64, Round::Zero, 64, true),
                (x as i64).cast_unsigned()
            );
            assert_eq!(
                to_integer(a, F64, Round::Zero, 32, false),
                u64::from(x as u32)
            );
            assert_eq!(
                to_integer(a, F64, Round::Near, 16, true),
                u64::from((x.round_ties_even() as i16).cast_unsigned())
            );
        }
    }
}

#[test]
fn directed_modes_agree_with_each_other() {
    let mut rng = Rng(2);
    for _ in 0..N {
        let (a, b, c) = (rng.f32(), rng.f32(), rng.f32());
        let (x, y, z) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
        for mode in MODES {
            let (p, w) = (f64::from(x) * f64::from(y), f64::from(z));
            let s = p + w;
            let fast = directed_sum(
                s,
                sum_error(p, w, s),
                p.is_sign_negative(),
                w.is_sign_negative(),
                mode,
            );
            if mode != Round::Near {
                let exact = fma(u64::from(a), u64::from(b), u64::from(c), F32, mode);
                same32(exact, fast, &format!("{mode:?}: {x:e} * {y:e} + {z:e}"));
            }
        }
        // What is rounded down is at most what is rounded up, and they differ by a step unless exact.
        let down =
            f32::from_bits(fma(u64::from(a), u64::from(b), u64::from(c), F32, Round::Down) as u32);
        let up =
            f32::from_bits(fma(u64::from(a), u64::from(b), u64::from(c), F32, Round::Up) as u32);
        assert!(down.is_nan() == up.is_nan());
        if !down.is_nan() {
            assert!(down == up || next_up(down) == up, "{down:e} {up:e}");
        }
    }
}

#[test]
fn every_half_converts_there_and_back() {
    for h in 0..=u16::MAX {
        let wide = f16_to_f32(h);
        assert_eq!(
            u64::from(wide.to_bits()),
            convert(u64::from(h), F16, F32, Round::Near),
            "{h:#x}"
        );
        if !wide.is_nan() {
            assert_eq!(f32_to_f16(wide), h);
        }
        let wide = bf16_to_f32(h);
        if !wide.is_nan() {
            assert_eq!(
                u64::from(wide.to_bits()),
                convert(u64::from(h), BF16, F32, Round::Near)
            );
            assert_eq!(f32_to_bf16(wide), h);
        }
    }
    let mut rng = Rng(3);
    for _ in 0..N {
        // Around the range of f16 as well as anywhere.
        let bits = if rng.next() & 1 == 0 {
            rng.f32()
        } else {
            (rng.next() as u32 & 0x9fff_ffff) + 0x3000_0000
        };
        let x = f32::from_bits(bits);
        assert_eq!(
            u64::from(f32_to_f16(x)),
            convert(u64::from(bits), F32, F16, Round::Near),
            "{x:e}"
        );
        assert_eq!(
            u64::from(f32_to_bf16(x)),
            convert(u64::from(bits), F32, BF16, Round::Near),
            "{x:e}"
        );
    }
}

#[test]
fn half_arithmetic_rounds_once() {
    let mut rng = Rng(4);
    for _ in 0..N {
        let r = rng.next();
        let (a, mut b, mut c) = (r as u16, (r >> 16) as u16, (r >> 32) as u16);
        if r >> 60 < 8 {
            // Exponents that meet, so that ties occur.
            b = b & 0x83ff | 0x3c00;
            c = c & 0x83ff | a & 0x7c00;
        }
        for (f, wide, narrow) in [
            (
                F16,
                f16_to_f32 as fn(u16) -> f32,
                f32_to_f16 as fn(f32) -> u16,
            ),
            (BF16, bf16_to_f32, f32_to_bf16),
        ] {
            let (x, y, z) = (wide(a), wide(b), wide(c));
            let (p, q, s) = (u64::from(a), u64::from(b), u64::from(c));
            let one = from_integer(1, f, Round::Near);
            assert_eq!(
                u64::from(narrow(fma_for_half(x, y, z))),
                fma(p, q, s, f, Round::Near),
                "{x:e} * {y:e} + {z:e}"
            );
            let zero = (p ^ q) & 0x8000;
            assert_eq!(
                u64::from(narrow(mul_for_half(x, y))),
                fma(p, q, zero, f, Round::Near),
                "{x:e} * {y:e}"
            );
            assert_eq!(
                u64::from(narrow(x + y)),
                fma(p, one, q, f, Round::Near),
                "{x:e} + {y:e}"
            );
        }
    }
}

#[test]
fn eight_bit_floats() {
    // Every finite value converts there and back, and what lies between goes to the nearer one.
    type Pair = (fn(u8) -> f32, fn(f32) -> u8, u8);
    let formats: [Pair; 2] = [(from_e4m3, to_e4m3, 0x7e), (from_e5m2, to_e5m2, 0x7b)];
    for (from, to, max) in formats {
        for b in 0..=max {
            assert_eq!(to(from(b)), b);
            assert_eq!(to(-from(b)), b | 0x80);
            if b < max {
                let (low, high) = (from(b), from(b + 1));
                assert!(low < high);
                let middle = (low + high) / 2.0;
                assert_eq!(
                    to(middle),
                    if b % 2 == 0 { b } else { b + 1 },
                    "tie at {middle}"
                );
                assert_eq!(to(next_up(middle)), b + 1);
                assert_eq!(to(next_down(middle)), b);
            }
        }
        assert_eq!(
            (to(f32::INFINITY), to(1e9), to(-1e9)),
            (max, max, max | 0x80)
        );
        assert_eq!(to(f32::NAN) & 0x7f, 0x7f);
    }
    assert_eq!(
        (from_e4m3(0x7e), from_e4m3(0x01), from_e5m2(0x7b)),
        (448.0, 2f32.powi(-9), 57344.0)
    );
}

/// Largest error found, in the unit that `error` measures.
fn worst(
    f: impl Fn(f32, u64) -> f32,
    noise: u64,
    inputs: impl Fn(&mut Rng) -> f32,
    error: impl Fn(f64, f64) -> f64,
) -> f64 {
    let mut rng = Rng(5);
    (0..N)
        .map(|_| inputs(&mut rng))
        .map(|x| error(f64::from(x), f64::from(f(x, noise))))
        .fold(0.0, f64::max)
}

#[test]
fn approximations_stay_within_their_documented_error() {
    let unit = |rng: &mut Rng| (rng.next() >> 40) as f32 / (1u64 << 24) as f32;
    let wide =
        |rng: &mut Rng| f32::from_bits((rng.next() >> 34) as u32 % 0x7d00_0000 + 0x0100_0000);
    let rel = |want: f64, got: f64| ((got - want) / want).abs();
    let p = |e: f64| e.exp2();
    for (noise, least) in [(0, 0.0), (77, 0.3)] {
        let found = [
            (
                worst(
                    approx::ex2,
                    noise,
                    |r| unit(r) * 200.0 - 100.0,
                    |x, y| rel(x.exp2(), y),
                ),
                p(-22.0),
            ),
            (
                worst(
                    approx::lg2,
                    noise,
                    |r| 0.5 + 1.5 * unit(r),
                    |x, y| (y - x.log2()).abs(),
                ),
                p(-22.0),
            ),
            (
                worst(
                    approx::lg2,
                    noise,
                    |r| 2.0 + 1e6 * unit(r),
                    |x, y| rel(x.log2(), y),
                ),
                p(-22.0),
            ),
            (
                worst(approx::rcp, noise, wide, |x, y| rel(1.0 / x, y)),
                p(-23.0),
            ),
            (
                worst(approx::rsqrt, noise, wide, |x, y| rel(1.0 / x.sqrt(), y)),
                p(-22.9),
            ),
            (
                worst(approx::sqrt, noise, wide, |x, y| rel(x.sqrt(), y)),
                p(-23.0),
            ),
            (
                worst(
                    approx::sin,
                    noise,
                    |r| (unit(r) - 0.5) * std::f32::consts::TAU,
                    |x, y| (y - x.sin()).abs(),
                ),
                p(-20.5),
            ),
            (
                worst(
                    approx::cos,
                    noise,
                    |r| (unit(r) - 0.5) * std::f32::consts::TAU,
                    |x, y| (y - x.cos()).abs(),
                ),
                p(-20.5),
            ),
            (
                worst(
                    approx::tanh,
                    noise,
                    |r| unit(r) * 8.0 - 4.0,
                    |x, y| rel(x.tanh(), y),
                ),
                p(-11.0),
            ),
        ];
        for (i, (error, bound)) in found.into_iter().enumerate() {
            assert!(
                error <= bound * 1.0001,
                "function {i}, noise {noise}: {error:e} of {bound:e}"
            );
            // Noise must be there to be of use, and without it the result is the nearest or next to it.
            assert!(
                error >= bound * least,
                "function {i}, noise {noise}: only {error:e} of {bound:e}"
            );
            if noise == 0 {
                assert!(error <= p(-23.99) * 2.0 || i < 3, "function {i}: {error:e}");
            }
        }
    }
}

#[test]
fn approximations_of_special_values() {
    for noise in [0, 5] {
        let inf = f32::INFINITY;
        assert_eq!(approx::ex2(0.0, noise), 1.0);
        assert_eq!(approx::ex2(-0.0, noise), 1.0);
        for n in -149..128 {
            let power = f64::from(n).exp2() as f32;
            assert_eq!(approx::ex2(n as f32, noise), power, "2^{n}");
        }
        assert_eq!(approx::ex2(inf, noise), inf);
        assert_eq!(approx::ex2(-inf, noise).to_bits(), 0);
        assert_eq!(approx::ex2(128.5, noise), inf);
        assert_eq!(approx::ex2(-160.0, noise).to_bits(), 0);
        assert!(
            approx::ex2(-140.0, noise) > 0.0,
            "subnormal results are kept without .ftz"
        );
        assert_eq!(approx::ex2(f32::NAN, noise).to_bits(), NAN32);
        assert_eq!(approx::lg2(1.0, noise).to_bits(), 0);
        assert_eq!(approx::lg2(0.0, noise), -inf);
        assert_eq!(approx::lg2(-0.0, noise), -inf);
        assert_eq!(approx::lg2(inf, noise), inf);
        assert_eq!(approx::lg2(-1.0, noise).to_bits(), NAN32);
        assert_eq!(approx::lg2(f32::NAN, noise).to_bits(), NAN32);
        assert!((approx::lg2(1e-40, noise) + 132.877).abs() < 1e-3);
        assert_eq!(approx::rcp(0.0, noise), inf);
        assert_eq!(approx::rcp(-0.0, noise), -inf);
        assert_eq!(approx::rcp(-inf, noise).to_bits(), 0x8000_0000);
        assert_eq!(approx::rsqrt(0.0, noise), inf);
        assert_eq!(approx::rsqrt(-0.0, noise), -inf);
        assert_eq!(approx::rsqrt(-1.0, noise).to_bits(), NAN32);
        assert_eq!(approx::sqrt(-0.0, noise).to_bits(), 0x8000_0000);
        assert_eq!(approx::sin(-0.0, noise).to_bits(), 0x8000_0000);
        assert_eq!(approx::cos(0.0, noise), 1.0);
        assert_eq!(approx::sin(inf, noise).to_bits(), NAN32);
        assert_eq!(approx::div(1.0, 0.0, false, noise), inf);
        assert_eq!(approx::div(0.0, 0.0, false, noise).to_bits(), NAN32);
        // Divisors of 2^126 and above flush in the fast form alone.
        assert_eq!(approx::div(1e38, 2e38, false, noise), 0.0);
        assert!((approx::div(1e38, 2e38, true, noise) - 0.5).abs() < 1e-6);
    }
}
