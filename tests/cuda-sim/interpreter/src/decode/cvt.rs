//! Conversions: vectorised versions of the common ones, one exact routine for all others.

use crate::float::{
    self, BF16, F16, F32, F64, Format, bf16_to_f32, canon, directed, f16_to_f32, f32_to_bf16,
    f32_to_f16, ftz, sat,
};
use crate::regs::{AluFn, op1, op2, slow3};
use crate::types::{Round, Ty};

/// The modifiers of a conversion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CvtMods {
    /// Rounding to the format of a float.
    pub round: Option<Round>,
    /// Rounding to an integral value.
    pub integral: Option<Round>,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub satfinite: bool,
}

fn format(ty: Ty) -> Option<Format> {
    Some(match ty {
        Ty::F16 => F16,
        Ty::BF16 => BF16,
        Ty::F32 => F32,
        Ty::F64 => F64,
        _ => return None,
    })
}

const TYPES: [Ty; 12] = [
    Ty::U8,
    Ty::S8,
    Ty::U16,
    Ty::S16,
    Ty::U32,
    Ty::S32,
    Ty::U64,
    Ty::S64,
    Ty::F16,
    Ty::BF16,
    Ty::F32,
    Ty::F64,
];

fn index(ty: Ty) -> Option<u32> {
    TYPES.iter().position(|&t| t == ty).map(|i| i as u32)
}

/// Packs types, modifiers and the width of the destination register for [`scalar`].
pub(super) fn immediate(d: Ty, a: Ty, m: CvtMods, register_bits: u32) -> Option<u32> {
    let mode = |r: Option<Round>| r.map_or(0, super::float::mode_imm);
    Some(
        index(d)?
            | index(a)? << 4
            | mode(m.round) << 8
            | mode(m.integral) << 10
            | u32::from(m.integral.is_some()) << 12
            | u32::from(m.ftz) << 13
            | u32::from(m.sat) << 14
            | (register_bits / 16) << 16,
    )
}

/// Any conversion between scalar types.
fn scalar(src: u64, imm: u32) -> u64 {
    let d = TYPES[(imm & 15) as usize];
    let a = TYPES[(imm >> 4 & 15) as usize];
    let mode = |i: u32| [Round::Near, Round::Zero, Round::Down, Round::Up][(i & 3) as usize];
    let (round, integral) = (mode(imm >> 8), mode(imm >> 10));
    let has_integral = imm >> 12 & 1 != 0;
    let (flush, clamp) = (imm >> 13 & 1 != 0, imm >> 14 & 1 != 0);
    let register = (imm >> 16) * 16;
    let a_bits = a.bytes() * 8;
    let src = if a_bits == 64 {
        src
    } else {
        src & ((1 << a_bits) - 1)
    };
    let flush_to_zero = |bits: u64, ty: Ty| {
        if flush && ty == Ty::F32 {
            u64::from(ftz(f32::from_bits(bits as u32)).to_bits())
        } else {
            bits
        }
    };
    match (format(a), format(d)) {
        (None, None) => {
            let value = integer(src, a);
            let bits = d.bytes() * 8;
            let value = if clamp {
                let (low, high) = if d.signed() {
                    (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
                } else {
                    (0, (1i128 << bits) - 1)
                };
                value.clamp(low, high)
            } else {
                value
            };
            widen(value as u64, d, register)
        }
        (None, Some(f)) => clamp_unit(float::from_integer(integer(src, a), f, round), f, clamp),
        (Some(f), None) => {
            let src = flush_to_zero(src, a);
            widen(
                float::to_integer(src, f, integral, d.bytes() * 8, d.signed()),
                d,
                register,
            )
        }
        (Some(from), Some(to)) => {
            let src = flush_to_zero(src, a);
            let bits = float::convert(src, from, to, round);
            let bits = if has_integral {
                float::round_integral(bits, to, integral)
            } else {
                bits
            };
            let bits = flush_to_zero(bits, d);
            clamp_unit(bits, to, clamp)
        }
    }
}

fn integer(bits: u64, ty: Ty) -> i128 {
    match ty {
        Ty::S8 => i128::from(bits as u8 as i8),
        Ty::S16 => i128::from(bits as u16 as i16),
        Ty::S32 => i128::from(bits as u32 as i32),
        Ty::S64 => i128::from(bits.cast_signed()),
        _ => i128::from(bits),
    }
}

/// A value of type `d` in a register of that many bits: extended by its sign, zero above.
fn widen(value: u64, d: Ty, register: u32) -> u64 {
    let bits = d.bytes() * 8;
    let low = if bits == 64 {
        value
    } else {
        value & ((1 << bits) - 1)
    };
    let full = if d.signed() {
        (low << (64 - bits)).cast_signed() >> (64 - bits)
    } else {
        low.cast_signed()
    };
    if register >= 64 {
        full.cast_unsigned()
    } else {
        full.cast_unsigned() & ((1 << register) - 1)
    }
}

fn clamp_unit(bits: u64, f: Format, clamp: bool) -> u64 {
    if !clamp {
        return bits;
    }
    let one = float::from_integer(1, f, Round::Near);
    let sign = 1u64 << (f.fraction + f.exponent);
    // NaN, zeros and negative numbers go to +0; positive bit patterns sort like their values.
    if bits & sign != 0 || bits == f.nan() {
        0
    } else {
        bits.min(one)
    }
}

macro_rules! int_to_int {
    ($a:ty, $d:expr) => {
        match $d {
            Ty::U16 | Ty::S16 => op1!($a => u16, |x| x as u16),
            Ty::U32 | Ty::S32 => op1!($a => u32, |x| x as u32),
            _ => op1!($a => u64, |x| x as u64),
        }
    };
}

/// The function for a conversion of one source; `register_bits` is the width of the destination register.
pub(super) fn unary(d: Ty, a: Ty, m: CvtMods, register_bits: u32) -> Option<AluFn> {
    if let Some(f) = fast(d, a, m, register_bits) {
        return Some(f);
    }
    index(d)?;
    index(a)?;
    Some(
        match (a.bytes() == 8, d.bytes() == 8 || register_bits == 64) {
            (false, false) => {
                slow3!(u32, u32, u32 => u32, |x, _y, _z, imm, _noise| scalar(u64::from(x), imm) as u32)
            }
            (false, true) => {
                slow3!(u32, u32, u32 => u64, |x, _y, _z, imm, _noise| scalar(u64::from(x), imm))
            }
            (true, false) => {
                slow3!(u64, u64, u64 => u32, |x, _y, _z, imm, _noise| scalar(x, imm) as u32)
            }
            (true, true) => slow3!(u64, u64, u64 => u64, |x, _y, _z, imm, _noise| scalar(x, imm)),
        },
    )
}

fn fast(d: Ty, a: Ty, m: CvtMods, register_bits: u32) -> Option<AluFn> {
    if d.integer() && a.integer() {
        if m.sat || register_bits != d.bytes() * 8 {
            return None;
        }
        return Some(match a {
            Ty::U8 => int_to_int!(u8, d),
            Ty::S8 => int_to_int!(i8, d),
            Ty::U16 => int_to_int!(u16, d),
            Ty::S16 => int_to_int!(i16, d),
            Ty::U32 => int_to_int!(u32, d),
            Ty::S32 => int_to_int!(i32, d),
            Ty::U64 => int_to_int!(u64, d),
            _ => int_to_int!(i64, d),
        });
    }
    if m.relu || m.satfinite {
        return None;
    }
    let near = m.round == Some(Round::Near);
    Some(match (d, a, m.integral) {
        (Ty::F32, Ty::S32, None) if near && !m.sat => op1!(i32 => f32, |x| x as f32),
        (Ty::F32, Ty::U32, None) if near && !m.sat => op1!(u32 => f32, |x| x as f32),
        (Ty::F32, Ty::S64, None) if near && !m.sat => op1!(i64 => f32, |x| x as f32),
        (Ty::F32, Ty::U64, None) if near && !m.sat => op1!(u64 => f32, |x| x as f32),
        (Ty::F32, Ty::U8, None) if near && !m.sat => op1!(u8 => f32, |x| f32::from(x)),
        (Ty::F32, Ty::S8, None) if near && !m.sat => op1!(i8 => f32, |x| f32::from(x)),
        (Ty::F32, Ty::U16, None) if near && !m.sat => op1!(u16 => f32, |x| f32::from(x)),
        (Ty::F32, Ty::S16, None) if near && !m.sat => op1!(i16 => f32, |x| f32::from(x)),
        (Ty::F32, Ty::S32, None) if !m.sat => match m.round? {
            Round::Zero => op1!(i32 => f32, |x| directed(f64::from(x), 0.0, Round::Zero)),
            Round::Down => op1!(i32 => f32, |x| directed(f64::from(x), 0.0, Round::Down)),
            _ => op1!(i32 => f32, |x| directed(f64::from(x), 0.0, Round::Up)),
        },
        (Ty::F32, Ty::U32, None) if !m.sat => match m.round? {
            Round::Zero => op1!(u32 => f32, |x| directed(f64::from(x), 0.0, Round::Zero)),
            Round::Down => op1!(u32 => f32, |x| directed(f64::from(x), 0.0, Round::Down)),
            _ => op1!(u32 => f32, |x| directed(f64::from(x), 0.0, Round::Up)),
        },
        (Ty::F64, Ty::S32, None) if near && !m.sat => op1!(i32 => f64, |x| f64::from(x)),
        (Ty::F64, Ty::U32, None) if near && !m.sat => op1!(u32 => f64, |x| f64::from(x)),
        (Ty::F64, Ty::S64, None) if near && !m.sat => op1!(i64 => f64, |x| x as f64),
        (Ty::F64, Ty::U64, None) if near && !m.sat => op1!(u64 => f64, |x| x as f64),
        // The host's conversion saturates and takes NaN to 0, as f32 to 32 bits does.
        (Ty::S32, Ty::F32, Some(r)) if register_bits == 32 => match (r, m.ftz) {
            (Round::Zero, _) => op1!(f32 => i32, |x| x as i32),
            (Round::Near, _) => op1!(f32 => i32, |x| x.round_ties_even() as i32),
            (Round::Down, false) => op1!(f32 => i32, |x| x.floor() as i32),
            (Round::Down, true) => op1!(f32 => i32, |x| ftz(x).floor() as i32),
            (Round::Up, false) => op1!(f32 => i32, |x| x.ceil() as i32),
            (Round::Up, true) => op1!(f32 => i32, |x| ftz(x).ceil() as i32),
        },
        (Ty::U32, Ty::F32, Some(r)) if register_bits == 32 => match (r, m.ftz) {
            (Round::Zero, _) => op1!(f32 => u32, |x| x as u32),
            (Round::Near, _) => op1!(f32 => u32, |x| x.round_ties_even() as u32),
            (Round::Down, _) => op1!(f32 => u32, |x| x.floor() as u32),
            (Round::Up, false) => op1!(f32 => u32, |x| x.ceil() as u32),
            (Round::Up, true) => op1!(f32 => u32, |x| ftz(x).ceil() as u32),
        },
        (Ty::F32, Ty::F32, Some(r)) if !m.sat => match (r, m.ftz) {
            (Round::Near, false) => op1!(f32 => f32, |x| canon(x.round_ties_even())),
            (Round::Zero, false) => op1!(f32 => f32, |x| canon(x.trunc())),
            (Round::Down, false) => op1!(f32 => f32, |x| canon(x.floor())),
            (Round::Up, false) => op1!(f32 => f32, |x| canon(x.ceil())),
            (Round::Near, true) => op1!(f32 => f32, |x| canon(ftz(x).round_ties_even())),
            (Round::Zero, true) => op1!(f32 => f32, |x| canon(ftz(x).trunc())),
            (Round::Down, true) => op1!(f32 => f32, |x| canon(ftz(x).floor())),
            (Round::Up, true) => op1!(f32 => f32, |x| canon(ftz(x).ceil())),
        },
        (Ty::F32, Ty::F32, None) => match (m.ftz, m.sat) {
            (false, false) => op1!(f32 => f32, |x| canon(x)),
            (false, true) => op1!(f32 => f32, |x| sat(x)),
            (true, false) => op1!(f32 => f32, |x| canon(ftz(x))),
            (true, true) => op1!(f32 => f32, |x| sat(ftz(x))),
        },
        (Ty::F64, Ty::F64, Some(r)) if !m.sat => match r {
            Round::Near => op1!(f64 => f64, |x| x.round_ties_even()),
            Round::Zero => op1!(f64 => f64, |x| x.trunc()),
            Round::Down => op1!(f64 => f64, |x| x.floor()),
            Round::Up => op1!(f64 => f64, |x| x.ceil()),
        },
        (Ty::F64, Ty::F64, None) if m.sat => super::float::sat_f64(),
        (Ty::F64, Ty::F32, None) if !m.sat && !m.ftz => op1!(f32 => f64, |x| f64::from(x)),
        (Ty::F32, Ty::F64, None) if !m.sat && !m.ftz && near => {
            op1!(f64 => f32, |x| canon(x as f32))
        }
        (Ty::F32, Ty::F16, None) if !m.sat => op1!(u16 => f32, |x| f16_to_f32(x)),
        (Ty::F32, Ty::BF16, None) if !m.sat && !m.ftz => {
            op1!(u16 => f32, |x| canon(bf16_to_f32(x)))
        }
        (Ty::F16, Ty::F32, None) if !m.sat && !m.ftz && near => op1!(f32 => u16, |x| f32_to_f16(x)),
        (Ty::BF16, Ty::F32, None) if !m.sat && !m.ftz && near => {
            op1!(f32 => u16, |x| f32_to_bf16(x))
        }
        _ => return None,
    })
}

fn clean(x: f32, imm: u32, max: f32) -> f32 {
    let x = if imm & 4 != 0 && x <= 0.0 { 0.0 } else { x };
    if imm & 16 != 0 && !x.is_nan() {
        x.clamp(-max, max)
    } else {
        x
    }
}

fn to16(x: f32, imm: u32, bf: bool) -> u16 {
    // The mode matters too: only nearest and toward zero exist here.
    let mode = if imm & 32 != 0 {
        Round::Zero
    } else {
        Round::Near
    };
    let f = if bf { BF16 } else { F16 };
    let x = clean(
        x,
        imm,
        if bf {
            f32::from_bits(0x7f7f_0000)
        } else {
            65504.0
        },
    );
    float::convert(u64::from(x.to_bits()), F32, f, mode) as u16
}

/// The immediate of [`pair`] and [`narrow`].
pub(super) fn pair_immediate(m: CvtMods) -> u32 {
    u32::from(m.relu) << 2
        | u32::from(m.satfinite) << 4
        | u32::from(m.round == Some(Round::Zero)) << 5
}

/// Two f32 into one packed register, the first operand in the high half.
pub(super) fn pair(d: Ty, m: CvtMods) -> Option<AluFn> {
    let plain = m.round == Some(Round::Near) && !m.relu && !m.satfinite;
    Some(match d {
        Ty::F16x2 if plain => {
            op2!(f32, f32 => u32, |x, y| u32::from(f32_to_f16(x)) << 16 | u32::from(f32_to_f16(y)))
        }
        Ty::BF16x2 if plain => {
            op2!(f32, f32 => u32, |x, y| u32::from(f32_to_bf16(x)) << 16 | u32::from(f32_to_bf16(y)))
        }
        Ty::F16x2 => slow3!(f32, f32, f32 => u32, |x, y, _z, imm, _noise| {
            u32::from(to16(x, imm, false)) << 16 | u32::from(to16(y, imm, false))
        }),
        Ty::BF16x2 => slow3!(f32, f32, f32 => u32, |x, y, _z, imm, _noise| {
            u32::from(to16(x, imm, true)) << 16 | u32::from(to16(y, imm, true))
        }),
        Ty::E4M3x2 if m.satfinite => slow3!(f32, f32, f32 => u16, |x, y, _z, imm, _noise| {
            let f = |v| u16::from(float::to_e4m3(clean(v, imm & 4, 0.0)));
            f(x) << 8 | f(y)
        }),
        Ty::E5M2x2 if m.satfinite => slow3!(f32, f32, f32 => u16, |x, y, _z, imm, _noise| {
            let f = |v| u16::from(float::to_e5m2(clean(v, imm & 4, 0.0)));
            f(x) << 8 | f(y)
        }),
        _ => return None,
    })
}

/// f32 to one 16-bit float with `.relu` or `.satfinite`.
pub(super) fn narrow(d: Ty) -> Option<AluFn> {
    Some(match d {
        Ty::F16 => slow3!(f32, f32, f32 => u16, |x, _y, _z, imm, _noise| to16(x, imm, false)),
        Ty::BF16 => slow3!(f32, f32, f32 => u16, |x, _y, _z, imm, _noise| to16(x, imm, true)),
        _ => return None,
    })
}

/// Between the pairs of 8-bit floats and f16x2.
pub(super) fn eight_bit(d: Ty, a: Ty, m: CvtMods) -> Option<AluFn> {
    Some(match (d, a) {
        (Ty::F16x2, Ty::E4M3x2) if !m.relu => op1!(u16 => u32, |x| {
            let f = |b| u32::from(f32_to_f16(float::from_e4m3(b)));
            f((x >> 8) as u8) << 16 | f(x as u8)
        }),
        (Ty::F16x2, Ty::E5M2x2) if !m.relu => op1!(u16 => u32, |x| {
            let f = |b| u32::from(f32_to_f16(float::from_e5m2(b)));
            f((x >> 8) as u8) << 16 | f(x as u8)
        }),
        (Ty::E4M3x2, Ty::F16x2) if m.satfinite && !m.relu => op1!(u32 => u16, |x| {
            let f = |h| u16::from(float::to_e4m3(f16_to_f32(h)));
            f((x >> 16) as u16) << 8 | f(x as u16)
        }),
        (Ty::E5M2x2, Ty::F16x2) if m.satfinite && !m.relu => op1!(u32 => u16, |x| {
            let f = |h| u16::from(float::to_e5m2(f16_to_f32(h)));
            f((x >> 16) as u16) << 8 | f(x as u16)
        }),
        _ => return None,
    })
}
