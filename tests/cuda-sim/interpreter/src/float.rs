//! Floating-point formats, exact rounding in every mode, and the conversions between them.
//!
//! The common cases (round to nearest in f32 and f64) run on the host's own instructions, which follow the same IEEE
//! rules. Everything else, the directed modes and the small formats, is computed exactly here and rounded once.

use crate::types::Round;

/// The NaN that f32 instructions return.
pub(crate) const NAN32: u32 = 0x7fff_ffff;
/// The NaN that f16 and bf16 instructions return.
pub(crate) const NAN16: u16 = 0x7fff;

/// A binary interchange format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Explicit fraction bits.
    pub fraction: u32,
    /// Exponent of the smallest normal number.
    pub emin: i32,
    /// Bits of the exponent field.
    pub exponent: u32,
}

pub(crate) const F64: Format = Format {
    fraction: 52,
    emin: -1022,
    exponent: 11,
};
pub(crate) const F32: Format = Format {
    fraction: 23,
    emin: -126,
    exponent: 8,
};
pub(crate) const F16: Format = Format {
    fraction: 10,
    emin: -14,
    exponent: 5,
};
pub(crate) const BF16: Format = Format {
    fraction: 7,
    emin: -126,
    exponent: 8,
};

impl Format {
    fn infinity(self) -> u64 {
        ((1u64 << self.exponent) - 1) << self.fraction
    }

    fn sign(self) -> u64 {
        1 << (self.fraction + self.exponent)
    }

    /// The canonical NaN.
    pub fn nan(self) -> u64 {
        if self == F64 {
            0xfff8_0000_0000_0000
        } else {
            self.sign() - 1
        }
    }
}

/// A number taken apart: `(-1)^negative * mantissa * 2^exponent`, infinities and NaN aside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Num {
    Nan,
    Infinite {
        negative: bool,
    },
    Finite {
        negative: bool,
        mantissa: u128,
        exponent: i32,
    },
}

/// Takes the bits of a number apart.
pub(crate) fn unpack(bits: u64, f: Format) -> Num {
    let negative = bits & f.sign() != 0;
    let magnitude = bits & (f.sign() - 1);
    if magnitude > f.infinity() {
        return Num::Nan;
    }
    if magnitude == f.infinity() {
        return Num::Infinite { negative };
    }
    let biased = (magnitude >> f.fraction) as i32;
    let low = magnitude & ((1 << f.fraction) - 1);
    let (mantissa, exponent) = if biased == 0 {
        (low, f.emin - f.fraction as i32)
    } else {
        (
            low | 1 << f.fraction,
            f.emin - f.fraction as i32 + biased - 1,
        )
    };
    Num::Finite {
        negative,
        mantissa: u128::from(mantissa),
        exponent,
    }
}

/// Whether a magnitude is to be rounded away from zero, given its last kept bit, the first dropped bit and whether any
/// later bit is set.
fn round_up(mode: Round, negative: bool, odd: bool, half: bool, rest: bool) -> bool {
    match mode {
        Round::Near => half && (rest || odd),
        Round::Zero => false,
        Round::Down => negative && (half || rest),
        Round::Up => !negative && (half || rest),
    }
}

/// Splits `mantissa * 2^exponent` at `quantum`: the multiple of 2^quantum, the first bit below, and whether more follow.
fn split(mantissa: u128, exponent: i32, quantum: i32) -> (u128, bool, bool) {
    let shift = quantum - exponent;
    if shift <= 0 {
        return (mantissa << -shift, false, false);
    }
    if shift > 128 {
        return (0, false, mantissa != 0);
    }
    let half = mantissa >> (shift - 1) & 1 != 0;
    let rest = mantissa & ((1u128 << (shift - 1)) - 1) != 0;
    (if shift == 128 { 0 } else { mantissa >> shift }, half, rest)
}

/// Rounds `mantissa * 2^exponent` into a format; `sticky` says that a little more, less than the last bit, follows.
pub(crate) fn pack(
    negative: bool,
    mantissa: u128,
    exponent: i32,
    sticky: bool,
    f: Format,
    mode: Round,
) -> u64 {
    let sign = if negative { f.sign() } else { 0 };
    if mantissa == 0 {
        return sign;
    }
    let top = 127 - mantissa.leading_zeros() as i32 + exponent;
    if top > -f.emin + 2 {
        return sign | overflow(negative, f, mode);
    }
    let quantum = top.max(f.emin) - f.fraction as i32;
    let (kept, half, rest) = split(mantissa, exponent, quantum);
    let mut kept = kept as u64;
    if round_up(mode, negative, kept & 1 != 0, half, rest || sticky) {
        kept += 1;
    }
    // The implicit leading bit of a normal number adds 1 to the exponent field, and so does a carry out of the fraction.
    let steps = (quantum - (f.emin - f.fraction as i32)) as u64;
    let bits = (steps << f.fraction) + kept;
    sign | if bits >= f.infinity() {
        overflow(negative, f, mode)
    } else {
        bits
    }
}

fn overflow(negative: bool, f: Format, mode: Round) -> u64 {
    let to_infinity = match mode {
        Round::Near => true,
        Round::Zero => false,
        Round::Down => negative,
        Round::Up => !negative,
    };
    if to_infinity {
        f.infinity()
    } else {
        f.infinity() - 1
    }
}

/// A number of one format in another.
pub(crate) fn convert(bits: u64, from: Format, to: Format, mode: Round) -> u64 {
    match unpack(bits, from) {
        Num::Nan => to.nan(),
        Num::Infinite { negative } => to.infinity() | if negative { to.sign() } else { 0 },
        Num::Finite {
            negative,
            mantissa,
            exponent,
        } => pack(negative, mantissa, exponent, false, to, mode),
    }
}

/// Rounds to an integer, in the same format.
pub(crate) fn round_integral(bits: u64, f: Format, mode: Round) -> u64 {
    match unpack(bits, f) {
        Num::Nan => f.nan(),
        Num::Infinite { .. } => bits,
        Num::Finite {
            negative,
            mantissa,
            exponent,
        } => {
            if exponent >= 0 || mantissa == 0 {
                return bits;
            }
            let (kept, half, rest) = split(mantissa, exponent, 0);
            let up = round_up(mode, negative, kept & 1 != 0, half, rest);
            pack(negative, kept + u128::from(up), 0, false, f, Round::Near)
        }
    }
}

/// Rounds to an integer of `width` bits, saturating; NaN as the PTX manual says for the types at hand.
pub(crate) fn to_integer(bits: u64, f: Format, mode: Round, width: u32, signed: bool) -> u64 {
    let (low, high) = if signed {
        (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1)
    } else {
        (0, (1i128 << width) - 1)
    };
    let value = match unpack(bits, f) {
        // Zero, unless a 64-bit type takes part: then the top bit alone.
        Num::Nan => {
            if f == F64 || width == 64 {
                return 1 << (width - 1);
            }
            0
        }
        Num::Infinite { negative } => {
            if negative {
                low
            } else {
                high
            }
        }
        Num::Finite {
            negative,
            mantissa,
            exponent,
        } => {
            // Beyond 2^70 the answer saturates whatever the bits are.
            let magnitude = if exponent > 70 && mantissa != 0 {
                1i128 << 100
            } else {
                let (kept, half, rest) = split(mantissa, exponent, 0);
                let up = round_up(mode, negative, kept & 1 != 0, half, rest);
                (kept + u128::from(up)) as i128
            };
            (if negative { -magnitude } else { magnitude }).clamp(low, high)
        }
    };
    value as u64
        & if width == 64 {
            u64::MAX
        } else {
            (1 << width) - 1
        }
}

/// An integer as a number of a format.
pub(crate) fn from_integer(value: i128, f: Format, mode: Round) -> u64 {
    pack(value < 0, value.unsigned_abs(), 0, false, f, mode)
}

/// `a * b + c`, exact, then rounded once. `a`, `b` and `c` are of the same format.
pub(crate) fn fma(a: u64, b: u64, c: u64, f: Format, mode: Round) -> u64 {
    let (a, b, c) = (unpack(a, f), unpack(b, f), unpack(c, f));
    let inf = |negative| f.infinity() | if negative { f.sign() } else { 0 };
    let (pn, pm, pe) = match (a, b) {
        (Num::Nan, _) | (_, Num::Nan) => return f.nan(),
        (Num::Infinite { negative: n }, Num::Infinite { negative: m }) => {
            (n ^ m, u128::MAX, i32::MAX)
        }
        (
            Num::Infinite { negative: n },
            Num::Finite {
                negative: m,
                mantissa,
                ..
            },
        )
        | (
            Num::Finite {
                negative: m,
                mantissa,
                ..
            },
            Num::Infinite { negative: n },
        ) => {
            if mantissa == 0 {
                return f.nan();
            }
            (n ^ m, u128::MAX, i32::MAX)
        }
        (
            Num::Finite {
                negative: n,
                mantissa: x,
                exponent: e,
            },
            Num::Finite {
                negative: m,
                mantissa: y,
                exponent: g,
            },
        ) => (n ^ m, x * y, e + g),
    };
    let (cn, cm, ce) = match c {
        Num::Nan => return f.nan(),
        Num::Infinite { negative } => {
            return if pe == i32::MAX && pn != negative {
                f.nan()
            } else {
                inf(negative)
            };
        }
        _ if pe == i32::MAX => return inf(pn),
        Num::Finite {
            negative,
            mantissa,
            exponent,
        } => (negative, mantissa, exponent),
    };
    if pm == 0 && cm == 0 {
        let negative = if pn == cn { pn } else { mode == Round::Down };
        return if negative { f.sign() } else { 0 };
    }
    add(pn, pm, pe, cn, cm, ce, f, mode)
}

/// The sum of two finite numbers of which one at least is not zero.
#[allow(clippy::too_many_arguments)]
fn add(an: bool, am: u128, ae: i32, bn: bool, bm: u128, be: i32, f: Format, mode: Round) -> u64 {
    if am == 0 {
        return pack(bn, bm, be, false, f, mode);
    }
    if bm == 0 {
        return pack(an, am, ae, false, f, mode);
    }
    // Both with their top bit at 125: two bits of room above, and at least 19 below a 106-bit product.
    let normal = |m: u128, e: i32| {
        let shift = m.leading_zeros() as i32 - 2;
        (m << shift, e - shift)
    };
    let (mut x, mut y) = ((an, normal(am, ae)), (bn, normal(bm, be)));
    if (y.1.1, y.1.0) > (x.1.1, x.1.0) {
        std::mem::swap(&mut x, &mut y);
    }
    let (xn, (xm, xe)) = x;
    let (yn, (ym, ye)) = y;
    let d = xe - ye;
    // Bits that fall off are kept as one sticky bit at the bottom: with d >= 2 at most one leading bit cancels, so that
    // the sticky bit stays far below the rounding position; with d < 2 nothing falls off.
    let ym = if d >= 127 {
        1
    } else {
        let lost = ym & ((1u128 << d) - 1) != 0;
        ym >> d | u128::from(lost)
    };
    if xn == yn {
        pack(xn, xm + ym, xe, false, f, mode)
    } else {
        let m = xm - ym;
        if m == 0 {
            return if mode == Round::Down { f.sign() } else { 0 };
        }
        pack(xn, m, xe, false, f, mode)
    }
}

/// `a / b`, rounded once.
pub(crate) fn div(a: u64, b: u64, f: Format, mode: Round) -> u64 {
    let inf = |negative| f.infinity() | if negative { f.sign() } else { 0 };
    match (unpack(a, f), unpack(b, f)) {
        (Num::Nan, _) | (_, Num::Nan) | (Num::Infinite { .. }, Num::Infinite { .. }) => f.nan(),
        (Num::Infinite { negative: n }, Num::Finite { negative: m, .. }) => inf(n ^ m),
        (Num::Finite { negative: n, .. }, Num::Infinite { negative: m }) => {
            if n ^ m {
                f.sign()
            } else {
                0
            }
        }
        (
            Num::Finite {
                negative: n,
                mantissa: x,
                exponent: e,
            },
            Num::Finite {
                negative: m,
                mantissa: y,
                exponent: g,
            },
        ) => match (x, y) {
            (0, 0) => f.nan(),
            (0, _) => {
                if n ^ m {
                    f.sign()
                } else {
                    0
                }
            }
            (_, 0) => inf(n ^ m),
            _ => {
                let shift = x.leading_zeros() as i32;
                let x = x << shift;
                // y has at most 53 bits, so the quotient has at least 75.
                pack(n ^ m, x / y, e - shift - g, !x.is_multiple_of(y), f, mode)
            }
        },
    }
}

/// The square root, rounded once.
pub(crate) fn sqrt(a: u64, f: Format, mode: Round) -> u64 {
    match unpack(a, f) {
        Num::Nan | Num::Infinite { negative: true } => f.nan(),
        Num::Infinite { negative: false } => a,
        Num::Finite { mantissa: 0, .. } => a,
        Num::Finite { negative: true, .. } => f.nan(),
        Num::Finite {
            mantissa, exponent, ..
        } => {
            let mut shift = mantissa.leading_zeros() as i32;
            if (exponent - shift) % 2 != 0 {
                shift -= 1;
            }
            let m = mantissa << shift;
            let root = m.isqrt();
            pack(
                false,
                root,
                (exponent - shift) / 2,
                root * root != m,
                f,
                mode,
            )
        }
    }
}

// ---- vectorisable pieces ----

/// f32 results: any NaN is the canonical one.
#[inline(always)]
pub(crate) fn canon(x: f32) -> f32 {
    // In integers: as floats, the compiler may take one NaN for as good as another and drop the selection.
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 {
        NAN32
    } else {
        bits
    })
}

/// Flushes a subnormal f32 to zero of its sign.
#[inline(always)]
pub(crate) fn ftz(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else {
        bits
    })
}

/// Clamps to [0, 1]; NaN and -0 become +0.
#[inline(always)]
pub(crate) fn sat(x: f32) -> f32 {
    if x > 0.0 {
        if x < 1.0 { x } else { 1.0 }
    } else {
        0.0
    }
}

#[inline(always)]
pub(crate) fn sat64(x: f64) -> f64 {
    if x > 0.0 {
        if x < 1.0 { x } else { 1.0 }
    } else {
        0.0
    }
}

#[inline(always)]
pub(crate) fn next_up(x: f32) -> f32 {
    let b = x.to_bits();
    f32::from_bits(if b << 1 == 0 {
        1
    } else if b >> 31 == 0 {
        b + 1
    } else {
        b - 1
    })
}

#[inline(always)]
pub(crate) fn next_down(x: f32) -> f32 {
    -next_up(-x)
}

/// The rounding error of `s = a + b`, exactly (Knuth).
#[inline(always)]
pub(crate) fn sum_error(a: f64, b: f64, s: f64) -> f64 {
    let t = s - a;
    (a - (s - t)) + (b - t)
}

/// Rounds the exact `s + err`, where `s` is its f64 nearest, to f32 in a directed mode.
#[inline(always)]
pub(crate) fn directed(s: f64, err: f64, mode: Round) -> f32 {
    let t = s as f32;
    let wide = f64::from(t);
    let above = wide > s || (wide == s && err < 0.0);
    let below = wide < s || (wide == s && err > 0.0);
    let (down, up) = match mode {
        Round::Near => (false, false),
        Round::Zero => (s > 0.0, s < 0.0),
        Round::Down => (true, false),
        Round::Up => (false, true),
    };
    if t.is_nan() {
        t
    } else if above && down {
        next_down(t)
    } else if below && up {
        next_up(t)
    } else {
        t
    }
}

/// `directed(s, err, mode)` for a sum of numbers of these signs: an exact zero takes its sign from the mode.
#[inline(always)]
pub(crate) fn directed_sum(
    s: f64,
    err: f64,
    a_negative: bool,
    b_negative: bool,
    mode: Round,
) -> f32 {
    if s == 0.0 && a_negative != b_negative {
        if matches!(mode, Round::Down) {
            -0.0
        } else {
            0.0
        }
    } else {
        directed(s, err, mode)
    }
}

/// The exact `s + err` rounded to odd in f64: a later rounding to at most 51 bits is then as if from the exact value.
#[inline(always)]
pub(crate) fn to_odd(s: f64, err: f64) -> f64 {
    let b = s.to_bits();
    if err == 0.0 || err.is_nan() || b & 1 != 0 || s.is_infinite() {
        s
    } else if (err > 0.0) == (s > 0.0) {
        f64::from_bits(b + 1)
    } else {
        f64::from_bits(b - 1)
    }
}

/// f64 to f32, rounded to odd.
#[inline(always)]
pub(crate) fn narrow_odd(x: f64) -> f32 {
    let t = x as f32;
    let wide = f64::from(t);
    if wide == x || t.to_bits() & 1 != 0 || t.is_nan() {
        t
    } else if wide < x {
        next_up(t)
    } else {
        next_down(t)
    }
}

#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let x = u32::from(h);
    let magnitude = x & 0x7fff;
    // The exponent field moves by 112; the product also normalises subnormal numbers.
    let scaled = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    let special = 0x7f80_0000 | magnitude << 13;
    let bits = if magnitude > 0x7c00 {
        NAN32
    } else if magnitude == 0x7c00 {
        special
    } else {
        scaled
    };
    f32::from_bits(
        bits | if magnitude > 0x7c00 {
            0
        } else {
            (x & 0x8000) << 16
        },
    )
}

#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let b = x.to_bits();
    let sign = b >> 16 & 0x8000;
    let a = b & 0x7fff_ffff;
    // 0.5 has its last bit at 2^-24, where f16 has its smallest step.
    let small = (f32::from_bits(a) + 0.5)
        .to_bits()
        .wrapping_sub(0x3f00_0000);
    let normal = a
        .wrapping_add(0xfff + (a >> 13 & 1))
        .wrapping_sub(112 << 23)
        >> 13;
    let magnitude = if a < 0x3880_0000 {
        small
    } else if a < 0x4780_0000 {
        normal
    } else {
        0x7c00
    };
    if a > 0x7f80_0000 {
        NAN16
    } else {
        (sign | magnitude) as u16
    }
}

#[inline(always)]
pub(crate) fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16)
}

#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let b = x.to_bits();
    if b & 0x7fff_ffff > 0x7f80_0000 {
        NAN16
    } else {
        (b.wrapping_add(0x7fff + (b >> 16 & 1)) >> 16) as u16
    }
}

/// `x * y + z` for values of a 16-bit format held in f32, so that rounding the result to that format is exact.
#[inline(always)]
pub(crate) fn fma_for_half(x: f32, y: f32, z: f32) -> f32 {
    let p = f64::from(x) * f64::from(y);
    let z = f64::from(z);
    let s = p + z;
    narrow_odd(to_odd(s, sum_error(p, z, s)))
}

/// `x * y` likewise: exact in f64, and in f32 unless it is subnormal there.
#[inline(always)]
pub(crate) fn mul_for_half(x: f32, y: f32) -> f32 {
    narrow_odd(f64::from(x) * f64::from(y))
}

/// The two 8-bit formats that conversions know: value of a byte.
pub(crate) fn from_e4m3(b: u8) -> f32 {
    let magnitude = b & 0x7f;
    let v = if magnitude == 0x7f {
        return f32::from_bits(NAN32);
    } else if magnitude < 8 {
        f32::from(magnitude) / 512.0
    } else {
        f32::from(8 + (magnitude & 7)) / 8.0 * ((i32::from(magnitude >> 3) - 7) as f32).exp2()
    };
    if b & 0x80 != 0 { -v } else { v }
}

/// To nearest even, saturating to the largest finite value; NaN to NaN.
pub(crate) fn to_e4m3(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    const E4M3: Format = Format {
        fraction: 3,
        emin: -6,
        exponent: 4,
    };
    let Num::Finite {
        negative,
        mantissa,
        exponent,
    } = unpack(u64::from(x.to_bits()), F32)
    else {
        return if x > 0.0 { 0x7e } else { 0xfe };
    };
    // The format gives its top exponent to numbers: round as if it had one more exponent bit.
    let wide = Format {
        exponent: 5,
        ..E4M3
    };
    let bits = pack(false, mantissa, exponent, false, wide, Round::Near).min(0x7e) as u8;
    bits | if negative { 0x80 } else { 0 }
}

/// Value of an e5m2 byte: the top half of an f16.
pub(crate) fn from_e5m2(b: u8) -> f32 {
    f16_to_f32(u16::from(b) << 8)
}

/// To nearest even, saturating to the largest finite value; NaN to NaN.
pub(crate) fn to_e5m2(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    const E5M2: Format = Format {
        fraction: 2,
        emin: -14,
        exponent: 5,
    };
    let Num::Finite {
        negative,
        mantissa,
        exponent,
    } = unpack(u64::from(x.to_bits()), F32)
    else {
        return if x > 0.0 { 0x7b } else { 0xfb };
    };
    let bits = pack(false, mantissa, exponent, false, E5M2, Round::Near).min(0x7b) as u8;
    bits | if negative { 0x80 } else { 0 }
}
