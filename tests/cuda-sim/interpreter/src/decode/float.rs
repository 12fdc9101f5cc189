//! Floating-point arithmetic of every width.

use crate::approx;
use crate::float::{
    self, bf16_to_f32, canon, directed, directed_sum, f16_to_f32, f32_to_bf16, f32_to_f16,
    fma_for_half, ftz, mul_for_half, sat, sat64, sum_error,
};
use crate::regs::{AluFn, op1, op2, op3, slow3};
use crate::types::{Round, Ty};

macro_rules! f32op1 {
    ($ftz:expr; |$x:ident| $e:expr) => {
        if $ftz {
            op1!(f32 => f32, |$x| {
                let $x = ftz($x);
                ftz($e)
            })
        } else {
            op1!(f32 => f32, |$x| $e)
        }
    };
}

macro_rules! f32op2 {
    ($ftz:expr, $sat:expr; |$x:ident, $y:ident| $e:expr) => {
        match ($ftz, $sat) {
            (false, false) => op2!(f32, f32 => f32, |$x, $y| canon($e)),
            (false, true) => op2!(f32, f32 => f32, |$x, $y| sat($e)),
            (true, false) => op2!(f32, f32 => f32, |$x, $y| {
                let ($x, $y) = (ftz($x), ftz($y));
                ftz(canon($e))
            }),
            (true, true) => op2!(f32, f32 => f32, |$x, $y| {
                let ($x, $y) = (ftz($x), ftz($y));
                sat(ftz($e))
            }),
        }
    };
}

macro_rules! f32op3 {
    ($ftz:expr, $sat:expr; |$x:ident, $y:ident, $z:ident| $e:expr) => {
        match ($ftz, $sat) {
            (false, false) => op3!(f32, f32, f32 => f32, |$x, $y, $z| canon($e)),
            (false, true) => op3!(f32, f32, f32 => f32, |$x, $y, $z| sat($e)),
            (true, false) => op3!(f32, f32, f32 => f32, |$x, $y, $z| {
                let ($x, $y, $z) = (ftz($x), ftz($y), ftz($z));
                ftz(canon($e))
            }),
            (true, true) => op3!(f32, f32, f32 => f32, |$x, $y, $z| {
                let ($x, $y, $z) = (ftz($x), ftz($y), ftz($z));
                sat(ftz($e))
            }),
        }
    };
}

macro_rules! by_mode {
    ($mode:expr; |$m:ident| $e:expr) => {
        match $mode {
            Round::Near | Round::Zero => {
                const $m: Round = Round::Zero;
                $e
            }
            Round::Down => {
                const $m: Round = Round::Down;
                $e
            }
            Round::Up => {
                const $m: Round = Round::Up;
                $e
            }
        }
    };
}

fn mode_from(imm: u32) -> Round {
    [Round::Near, Round::Zero, Round::Down, Round::Up][(imm & 3) as usize]
}

/// How a rounding mode travels in an instruction's immediate.
pub(super) fn mode_imm(mode: Round) -> u32 {
    match mode {
        Round::Near => 0,
        Round::Zero => 1,
        Round::Down => 2,
        Round::Up => 3,
    }
}

/// `add`, `sub`, `mul`, `fma` in f32.
pub(super) fn arith32(op: &str, mode: Round, z: bool, s: bool) -> Option<AluFn> {
    if mode == Round::Near {
        return Some(match op {
            "add" => f32op2!(z, s; |x, y| x + y),
            "sub" => f32op2!(z, s; |x, y| x - y),
            "mul" => f32op2!(z, s; |x, y| x * y),
            "fma" => f32op3!(z, s; |x, y, w| x.mul_add(y, w)),
            _ => return None,
        });
    }
    Some(match op {
        "add" => by_mode!(mode; |MODE| f32op2!(z, s; |x, y| {
            let (a, b) = (f64::from(x), f64::from(y));
            let sum = a + b;
            directed_sum(sum, sum_error(a, b, sum), x.is_sign_negative(), y.is_sign_negative(), MODE)
        })),
        "sub" => by_mode!(mode; |MODE| f32op2!(z, s; |x, y| {
            let (a, b) = (f64::from(x), -f64::from(y));
            let sum = a + b;
            directed_sum(sum, sum_error(a, b, sum), x.is_sign_negative(), !y.is_sign_negative(), MODE)
        })),
        "mul" => {
            by_mode!(mode; |MODE| f32op2!(z, s; |x, y| directed(f64::from(x) * f64::from(y), 0.0, MODE)))
        }
        "fma" => by_mode!(mode; |MODE| f32op3!(z, s; |x, y, w| {
            let (p, c) = (f64::from(x) * f64::from(y), f64::from(w));
            let sum = p + c;
            directed_sum(sum, sum_error(p, c, sum), p.is_sign_negative(), c.is_sign_negative(), MODE)
        })),
        _ => return None,
    })
}

/// The same in f64, where only saturation, not flushing, exists (as it does for `cvt` alone, it is not offered here).
pub(super) fn arith64(op: &str, mode: Round) -> Option<AluFn> {
    if mode == Round::Near {
        return Some(match op {
            "add" => op2!(f64, f64 => f64, |x, y| x + y),
            "sub" => op2!(f64, f64 => f64, |x, y| x - y),
            "mul" => op2!(f64, f64 => f64, |x, y| x * y),
            "fma" => op3!(f64, f64, f64 => f64, |x, y, z| x.mul_add(y, z)),
            _ => return None,
        });
    }
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    const MINUS: u64 = 1 << 63;
    Some(match op {
        "add" => {
            slow3!(u64, u64, u64 => u64, |x, y, _z, imm, _noise| float::fma(x, ONE, y, float::F64, mode_from(imm)))
        }
        "sub" => {
            slow3!(u64, u64, u64 => u64, |x, y, _z, imm, _noise| {
                float::fma(x, ONE, y ^ MINUS, float::F64, mode_from(imm))
            })
        }
        // The sign of a zero product is its own: the addend is a zero of the same sign.
        "mul" => slow3!(u64, u64, u64 => u64, |x, y, _z, imm, _noise| {
            float::fma(x, y, (x ^ y) & MINUS, float::F64, mode_from(imm))
        }),
        "fma" => {
            slow3!(u64, u64, u64 => u64, |x, y, z, imm, _noise| float::fma(x, y, z, float::F64, mode_from(imm)))
        }
        _ => return None,
    })
}

/// `div`, `rcp`, `sqrt` with an IEEE rounding mode. `rcp` divides 1, which the decoder puts in `a`, by `b`.
pub(super) fn division(op: &str, ty: Ty, mode: Round, z: bool) -> Option<AluFn> {
    let near = mode == Round::Near;
    Some(match (op, ty) {
        ("div" | "rcp", Ty::F32) if near => f32op2!(z, false; |x, y| x / y),
        ("div" | "rcp", Ty::F64) if near => op2!(f64, f64 => f64, |x, y| x / y),
        ("sqrt", Ty::F32) if near => f32op1!(z; |x| canon(x.sqrt())),
        ("sqrt", Ty::F64) if near => op1!(f64 => f64, |x| x.sqrt()),
        ("div" | "rcp", Ty::F32) => slow3!(f32, f32, f32 => f32, |x, y, _z, imm, _noise| {
            let flush = imm & 4 != 0;
            let (x, y) = if flush { (ftz(x), ftz(y)) } else { (x, y) };
            let q = float::div(u64::from(x.to_bits()), u64::from(y.to_bits()), float::F32, mode_from(imm));
            let q = f32::from_bits(q as u32);
            if flush { ftz(q) } else { q }
        }),
        ("div" | "rcp", Ty::F64) => {
            slow3!(u64, u64, u64 => u64, |x, y, _z, imm, _noise| float::div(x, y, float::F64, mode_from(imm)))
        }
        ("sqrt", Ty::F32) => slow3!(f32, f32, f32 => f32, |x, _y, _z, imm, _noise| {
            let flush = imm & 4 != 0;
            let x = if flush { ftz(x) } else { x };
            f32::from_bits(float::sqrt(u64::from(x.to_bits()), float::F32, mode_from(imm)) as u32)
        }),
        ("sqrt", Ty::F64) => {
            slow3!(u64, u64, u64 => u64, |x, _y, _z, imm, _noise| float::sqrt(x, float::F64, mode_from(imm)))
        }
        _ => return None,
    })
}

macro_rules! approx1 {
    ($ftz:expr; |$x:ident, $noise:ident| $e:expr) => {
        if $ftz {
            slow3!(f32, f32, f32 => f32, |$x, _y, _z, _imm, $noise| {
                let $x = ftz($x);
                ftz($e)
            })
        } else {
            slow3!(f32, f32, f32 => f32, |$x, _y, _z, _imm, $noise| $e)
        }
    };
}

/// The approximate functions of f32. Without `.ftz` the hardware scales subnormal operands, so that they count in full.
pub(super) fn approx32(op: &str, z: bool) -> Option<AluFn> {
    Some(match op {
        "ex2" => approx1!(z; |x, noise| approx::ex2(x, noise)),
        "lg2" => approx1!(z; |x, noise| approx::lg2(x, noise)),
        "rcp" => approx1!(z; |x, noise| approx::rcp(x, noise)),
        "rsqrt" => approx1!(z; |x, noise| approx::rsqrt(x, noise)),
        "sqrt" => approx1!(z; |x, noise| approx::sqrt(x, noise)),
        "sin" => approx1!(z; |x, noise| approx::sin(x, noise)),
        "cos" => approx1!(z; |x, noise| approx::cos(x, noise)),
        "tanh" if !z => approx1!(z; |x, noise| approx::tanh(x, noise)),
        _ => return None,
    })
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx{.ftz}.f64`.
pub(super) fn approx64(root: bool) -> AluFn {
    if root {
        slow3!(f64, f64, f64 => f64, |x, _y, _z, _imm, noise| approx::high64(x, true, noise))
    } else {
        slow3!(f64, f64, f64 => f64, |x, _y, _z, _imm, noise| approx::high64(x, false, noise))
    }
}

/// `div.approx` and `div.full`.
pub(super) fn div_approx(full: bool, z: bool) -> AluFn {
    match (full, z) {
        (false, false) => {
            slow3!(f32, f32, f32 => f32, |x, y, _z, _imm, noise| approx::div(x, y, false, noise))
        }
        (false, true) => slow3!(f32, f32, f32 => f32, |x, y, _z, _imm, noise| {
            ftz(approx::div(ftz(x), ftz(y), false, noise))
        }),
        (true, false) => {
            slow3!(f32, f32, f32 => f32, |x, y, _z, _imm, noise| approx::div(x, y, true, noise))
        }
        (true, true) => slow3!(f32, f32, f32 => f32, |x, y, _z, _imm, noise| {
            ftz(approx::div(ftz(x), ftz(y), true, noise))
        }),
    }
}

/// The smaller number; of two zeros the negative one; NaN only if both are NaN.
#[inline(always)]
fn min32(x: f32, y: f32) -> f32 {
    let (a, b) = (x.to_bits().cast_signed(), y.to_bits().cast_signed());
    let less = x < y || (x == y && a < b);
    if y.is_nan() || less { x } else { y }
}

#[inline(always)]
fn max32(x: f32, y: f32) -> f32 {
    -min32(-x, -y)
}

#[inline(always)]
fn min64(x: f64, y: f64) -> f64 {
    let (a, b) = (x.to_bits().cast_signed(), y.to_bits().cast_signed());
    let less = x < y || (x == y && a < b);
    if y.is_nan() || less { x } else { y }
}

#[inline(always)]
fn max64(x: f64, y: f64) -> f64 {
    -min64(-x, -y)
}

#[inline(always)]
fn nan_if(any: bool, x: f32) -> f32 {
    f32::from_bits(if any { float::NAN32 } else { x.to_bits() })
}

/// `min` and `max` of f32 and f64; `nan`: NaN if either is.
pub(super) fn extremum(op: &str, ty: Ty, z: bool, nan: bool) -> Option<AluFn> {
    Some(match (op, ty, nan) {
        ("min", Ty::F32, false) => f32op2!(z, false; |x, y| min32(x, y)),
        ("max", Ty::F32, false) => f32op2!(z, false; |x, y| max32(x, y)),
        ("min", Ty::F32, true) => {
            f32op2!(z, false; |x, y| nan_if(x.is_nan() | y.is_nan(), min32(x, y)))
        }
        ("max", Ty::F32, true) => {
            f32op2!(z, false; |x, y| nan_if(x.is_nan() | y.is_nan(), max32(x, y)))
        }
        ("min", Ty::F64, false) => op2!(f64, f64 => f64, |x, y| min64(x, y)),
        ("max", Ty::F64, false) => op2!(f64, f64 => f64, |x, y| max64(x, y)),
        _ => return None,
    })
}

/// `abs`, `neg` and `copysign` (the sign of the first operand on the second).
pub(super) fn sign(op: &str, ty: Ty, z: bool) -> Option<AluFn> {
    Some(match (op, ty) {
        ("abs", Ty::F32) if z => op1!(f32 => f32, |x| ftz(x).abs()),
        ("abs", Ty::F32) => op1!(u32 => u32, |x| x & 0x7fff_ffff),
        ("abs", Ty::F64) => op1!(u64 => u64, |x| x & !(1 << 63)),
        ("neg", Ty::F32) if z => op1!(f32 => f32, |x| -ftz(x)),
        ("neg", Ty::F32) => op1!(u32 => u32, |x| x ^ 0x8000_0000),
        ("neg", Ty::F64) => op1!(u64 => u64, |x| x ^ 1 << 63),
        ("abs", Ty::F16) if z => op1!(u16 => u16, |x| flush16(x) & 0x7fff),
        ("neg", Ty::F16) if z => op1!(u16 => u16, |x| flush16(x) ^ 0x8000),
        ("abs", Ty::F16x2) if z => {
            op1!(u32 => u32, |x| halves(|a, _, _| flush16(a) & 0x7fff, x, x, x))
        }
        ("neg", Ty::F16x2) if z => {
            op1!(u32 => u32, |x| halves(|a, _, _| flush16(a) ^ 0x8000, x, x, x))
        }
        ("abs", Ty::F16 | Ty::BF16) => op1!(u16 => u16, |x| x & 0x7fff),
        ("abs", Ty::F16x2 | Ty::BF16x2) => op1!(u32 => u32, |x| x & 0x7fff_7fff),
        ("neg", Ty::F16 | Ty::BF16) => op1!(u16 => u16, |x| x ^ 0x8000),
        ("neg", Ty::F16x2 | Ty::BF16x2) => op1!(u32 => u32, |x| x ^ 0x8000_8000),
        ("copysign", Ty::F32) => op2!(u32, u32 => u32, |x, y| x & 0x8000_0000 | y & 0x7fff_ffff),
        ("copysign", Ty::F64) => op2!(u64, u64 => u64, |x, y| x & 1 << 63 | y & !(1 << 63)),
        _ => return None,
    })
}

/// `testp`.
pub(super) fn testp(what: &str, ty: Ty) -> Option<AluFn> {
    Some(match (what, ty) {
        ("finite", Ty::F32) => op1!(f32 => bool, |x| x.is_finite()),
        ("infinite", Ty::F32) => op1!(f32 => bool, |x| x.is_infinite()),
        ("number", Ty::F32) => op1!(f32 => bool, |x| !x.is_nan()),
        ("notanumber", Ty::F32) => op1!(f32 => bool, |x| x.is_nan()),
        // Zero counts as normal, as the manual says.
        ("normal", Ty::F32) => op1!(f32 => bool, |x| x.is_normal() || x == 0.0),
        ("subnormal", Ty::F32) => op1!(f32 => bool, |x| x.is_subnormal()),
        ("finite", Ty::F64) => op1!(f64 => bool, |x| x.is_finite()),
        ("infinite", Ty::F64) => op1!(f64 => bool, |x| x.is_infinite()),
        ("number", Ty::F64) => op1!(f64 => bool, |x| !x.is_nan()),
        ("notanumber", Ty::F64) => op1!(f64 => bool, |x| x.is_nan()),
        ("normal", Ty::F64) => op1!(f64 => bool, |x| x.is_normal() || x == 0.0),
        ("subnormal", Ty::F64) => op1!(f64 => bool, |x| x.is_subnormal()),
        _ => return None,
    })
}

// ---- 16-bit formats ----

/// Modifiers of 16-bit arithmetic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HalfMods {
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub nan: bool,
}

impl HalfMods {
    pub fn imm(self) -> u32 {
        u32::from(self.ftz)
            | u32::from(self.sat) << 1
            | u32::from(self.relu) << 2
            | u32::from(self.nan) << 3
    }
}

#[inline(always)]
fn flush16(h: u16) -> u16 {
    if h & 0x7c00 == 0 { h & 0x8000 } else { h }
}

/// Saturation and rectification, as the immediate asks.
#[inline(always)]
fn clamped(x: f32, imm: u32) -> f32 {
    let x = if imm & 2 != 0 { sat(x) } else { x };
    if imm & 4 != 0 && !x.is_nan() && x <= 0.0 {
        0.0
    } else {
        x
    }
}

#[inline(always)]
fn h_in(h: u16, imm: u32) -> f32 {
    f16_to_f32(if imm & 1 != 0 { flush16(h) } else { h })
}

#[inline(always)]
fn h_out(x: f32, imm: u32) -> u16 {
    let h = f32_to_f16(clamped(x, imm));
    if imm & 1 != 0 { flush16(h) } else { h }
}

#[inline(always)]
fn b_in(h: u16, _imm: u32) -> f32 {
    bf16_to_f32(h)
}

#[inline(always)]
fn b_out(x: f32, imm: u32) -> u16 {
    f32_to_bf16(clamped(x, imm))
}

#[inline(always)]
fn halves(f: impl Fn(u16, u16, u16) -> u16, x: u32, y: u32, z: u32) -> u32 {
    let low = f(x as u16, y as u16, z as u16);
    let high = f((x >> 16) as u16, (y >> 16) as u16, (z >> 16) as u16);
    u32::from(high) << 16 | u32::from(low)
}

macro_rules! half_op {
    ($ty:expr; |$x:ident, $y:ident, $z:ident, $imm:ident, $noise:ident| $e:expr) => {
        match $ty {
            Ty::F16 => slow3!(u16, u16, u16 => u16, |a, b, c, $imm, $noise| {
                let ($x, $y, $z) = (h_in(a, $imm), h_in(b, $imm), h_in(c, $imm));
                h_out($e, $imm)
            }),
            Ty::BF16 => slow3!(u16, u16, u16 => u16, |a, b, c, $imm, $noise| {
                let ($x, $y, $z) = (b_in(a, $imm), b_in(b, $imm), b_in(c, $imm));
                b_out($e, $imm)
            }),
            Ty::F16x2 => slow3!(u32, u32, u32 => u32, |p, q, r, $imm, $noise| {
                halves(|a, b, c| {
                    let ($x, $y, $z) = (h_in(a, $imm), h_in(b, $imm), h_in(c, $imm));
                    h_out($e, $imm)
                }, p, q, r)
            }),
            Ty::BF16x2 => slow3!(u32, u32, u32 => u32, |p, q, r, $imm, $noise| {
                halves(|a, b, c| {
                    let ($x, $y, $z) = (b_in(a, $imm), b_in(b, $imm), b_in(c, $imm));
                    b_out($e, $imm)
                }, p, q, r)
            }),
            _ => return None,
        }
    };
}

/// Arithmetic of f16, bf16 and their pairs: each half computed exactly and rounded once.
pub(super) fn half(op: &str, ty: Ty) -> Option<AluFn> {
    Some(match op {
        // A sum of two 16-bit numbers rounds in f32 so that the second rounding cannot differ.
        "add" => half_op!(ty; |x, y, _z, imm, _noise| x + y),
        "sub" => half_op!(ty; |x, y, _z, imm, _noise| x - y),
        "mul" => half_op!(ty; |x, y, _z, imm, _noise| mul_for_half(x, y)),
        "fma" => half_op!(ty; |x, y, z, imm, _noise| fma_for_half(x, y, z)),
        "min" => half_op!(ty; |x, y, _z, imm, _noise| {
            nan_if(imm & 8 != 0 && (x.is_nan() | y.is_nan()), min32(x, y))
        }),
        "max" => half_op!(ty; |x, y, _z, imm, _noise| {
            nan_if(imm & 8 != 0 && (x.is_nan() | y.is_nan()), max32(x, y))
        }),
        "ex2" => half_op!(ty; |x, _y, _z, imm, noise| approx::ex2(x, noise)),
        "tanh" => half_op!(ty; |x, _y, _z, imm, noise| approx::tanh(x, noise)),
        _ => return None,
    })
}

// ---- comparisons ----

macro_rules! compare {
    ($op:expr, $t:ty, |$x:ident| $conv:expr) => {
        match $op {
            "eq" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x == y }),
            "ne" => op2!($t, $t => bool, |a, b| {
                let x = { let $x = a; $conv };
                let y = { let $x = b; $conv };
                x < y || x > y
            }),
            "lt" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x < y }),
            "le" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x <= y }),
            "gt" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x > y }),
            "ge" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x >= y }),
            "equ" => op2!($t, $t => bool, |a, b| {
                let x = { let $x = a; $conv };
                let y = { let $x = b; $conv };
                !(x < y || x > y)
            }),
            "neu" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; x != y }),
            "ltu" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; !(x >= y) }),
            "leu" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; !(x > y) }),
            "gtu" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; !(x <= y) }),
            "geu" => op2!($t, $t => bool, |a, b| { let x = { let $x = a; $conv }; let y = { let $x = b; $conv }; !(x < y) }),
            "num" => op2!($t, $t => bool, |a, b| {
                let x = { let $x = a; $conv };
                let y = { let $x = b; $conv };
                !x.is_nan() && !y.is_nan()
            }),
            "nan" => op2!($t, $t => bool, |a, b| {
                let x = { let $x = a; $conv };
                let y = { let $x = b; $conv };
                x.is_nan() || y.is_nan()
            }),
            _ => return None,
        }
    };
}

/// Comparisons of floats to a predicate. For the 16-bit pairs see [`compare_half`].
pub(super) fn compare(op: &str, ty: Ty, z: bool) -> Option<AluFn> {
    Some(match (ty, z) {
        (Ty::F32, false) => compare!(op, f32, |x| x),
        (Ty::F32, true) => compare!(op, f32, |x| ftz(x)),
        (Ty::F64, false) => compare!(op, f64, |x| x),
        (Ty::F16, false) => compare!(op, u16, |x| f16_to_f32(x)),
        (Ty::F16, true) => compare!(op, u16, |x| h_in(x, 1)),
        (Ty::BF16, false) => compare!(op, u16, |x| bf16_to_f32(x)),
        _ => return None,
    })
}

/// Comparison of one half (`high`) of a pair.
pub(super) fn compare_half(op: &str, ty: Ty, z: bool, high: bool) -> Option<AluFn> {
    Some(match (ty, z, high) {
        (Ty::F16x2, false, false) => compare!(op, u32, |x| f16_to_f32(x as u16)),
        (Ty::F16x2, false, true) => compare!(op, u32, |x| f16_to_f32((x >> 16) as u16)),
        (Ty::F16x2, true, false) => compare!(op, u32, |x| h_in(x as u16, 1)),
        (Ty::F16x2, true, true) => compare!(op, u32, |x| h_in((x >> 16) as u16, 1)),
        (Ty::BF16x2, false, false) => compare!(op, u32, |x| bf16_to_f32(x as u16)),
        (Ty::BF16x2, false, true) => compare!(op, u32, |x| bf16_to_f32((x >> 16) as u16)),
        _ => return None,
    })
}

/// Comparisons of integers and bits.
pub(super) fn compare_int(op: &str, ty: Ty) -> Option<AluFn> {
    macro_rules! ints {
        ($t:ty) => {
            match op {
                "eq" => op2!($t, $t => bool, |x, y| x == y),
                "ne" => op2!($t, $t => bool, |x, y| x != y),
                "lt" | "lo" => op2!($t, $t => bool, |x, y| x < y),
                "le" | "ls" => op2!($t, $t => bool, |x, y| x <= y),
                "gt" | "hi" => op2!($t, $t => bool, |x, y| x > y),
                "ge" | "hs" => op2!($t, $t => bool, |x, y| x >= y),
                _ => return None,
            }
        };
    }
    let unsigned_only = matches!(op, "lo" | "ls" | "hi" | "hs");
    let equality = matches!(op, "eq" | "ne");
    Some(match ty {
        Ty::B16 if equality => ints!(u16),
        Ty::B32 if equality => ints!(u32),
        Ty::B64 if equality => ints!(u64),
        Ty::U16 => ints!(u16),
        Ty::U32 => ints!(u32),
        Ty::U64 => ints!(u64),
        Ty::S16 if !unsigned_only => ints!(i16),
        Ty::S32 if !unsigned_only => ints!(i32),
        Ty::S64 if !unsigned_only => ints!(i64),
        _ => return None,
    })
}

/// `cvt.sat` of f64 to itself.
pub(super) fn sat_f64() -> AluFn {
    op1!(f64 => f64, |x| sat64(x))
}
