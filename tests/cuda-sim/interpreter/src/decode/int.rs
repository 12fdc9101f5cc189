//! Integer and bit instructions.

use crate::regs::{AluFn, Lane, Signature, dispatch, op1, op2, op3, slow3};
use crate::types::{File, Ty};

macro_rules! int1 {
    ($ty:expr; |$x:ident| $e:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => op1!(u16 => u16, |$x| $e),
            Ty::S16 => op1!(i16 => i16, |$x| $e),
            Ty::U32 | Ty::B32 => op1!(u32 => u32, |$x| $e),
            Ty::S32 => op1!(i32 => i32, |$x| $e),
            Ty::U64 | Ty::B64 => op1!(u64 => u64, |$x| $e),
            Ty::S64 => op1!(i64 => i64, |$x| $e),
            _ => return None,
        }
    };
}

macro_rules! int2 {
    ($ty:expr; |$x:ident, $y:ident| $e:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => op2!(u16, u16 => u16, |$x, $y| $e),
            Ty::S16 => op2!(i16, i16 => i16, |$x, $y| $e),
            Ty::U32 | Ty::B32 => op2!(u32, u32 => u32, |$x, $y| $e),
            Ty::S32 => op2!(i32, i32 => i32, |$x, $y| $e),
            Ty::U64 | Ty::B64 => op2!(u64, u64 => u64, |$x, $y| $e),
            Ty::S64 => op2!(i64, i64 => i64, |$x, $y| $e),
            _ => return None,
        }
    };
}

/// `not`, `neg`, `abs`, `cnot`.
pub(super) fn unary(op: &str, ty: Ty) -> Option<AluFn> {
    Some(match (op, ty) {
        ("not", Ty::Pred) => op1!(bool => bool, |x| !x),
        ("not", Ty::B16 | Ty::B32 | Ty::B64) => int1!(ty; |x| !x),
        ("neg", Ty::S16 | Ty::S32 | Ty::S64) => int1!(ty; |x| x.wrapping_neg()),
        ("abs", Ty::S16) => op1!(i16 => i16, |x| x.wrapping_abs()),
        ("abs", Ty::S32) => op1!(i32 => i32, |x| x.wrapping_abs()),
        ("abs", Ty::S64) => op1!(i64 => i64, |x| x.wrapping_abs()),
        ("cnot", Ty::B16) => op1!(u16 => u16, |x| u16::from(x == 0)),
        ("cnot", Ty::B32) => op1!(u32 => u32, |x| u32::from(x == 0)),
        ("cnot", Ty::B64) => op1!(u64 => u64, |x| u64::from(x == 0)),
        ("brev", Ty::B32) => op1!(u32 => u32, |x| x.reverse_bits()),
        ("brev", Ty::B64) => op1!(u64 => u64, |x| x.reverse_bits()),
        ("popc", Ty::B32) => op1!(u32 => u32, |x| x.count_ones()),
        ("popc", Ty::B64) => op1!(u64 => u32, |x| x.count_ones()),
        ("clz", Ty::B32) => op1!(u32 => u32, |x| x.leading_zeros()),
        ("clz", Ty::B64) => op1!(u64 => u32, |x| x.leading_zeros()),
        _ => return None,
    })
}

/// `bfind`: the position of the top bit that differs from the sign, or its distance from the top.
pub(super) fn bfind(ty: Ty, shift_amount: bool) -> Option<AluFn> {
    Some(match (ty, shift_amount) {
        (Ty::U32, false) => op1!(u32 => u32, |x| 31u32.wrapping_sub(x.leading_zeros())),
        (Ty::U32, true) => op1!(u32 => u32, |x| if x == 0 { u32::MAX } else { x.leading_zeros() }),
        (Ty::S32, false) => op1!(i32 => u32, |x| {
            let m = (x ^ x >> 31).cast_unsigned();
            31u32.wrapping_sub(m.leading_zeros())
        }),
        (Ty::S32, true) => op1!(i32 => u32, |x| {
            let m = (x ^ x >> 31).cast_unsigned();
            if m == 0 { u32::MAX } else { m.leading_zeros() }
        }),
        (Ty::U64, false) => op1!(u64 => u32, |x| 63u32.wrapping_sub(x.leading_zeros())),
        (Ty::U64, true) => op1!(u64 => u32, |x| if x == 0 { u32::MAX } else { x.leading_zeros() }),
        (Ty::S64, false) => op1!(i64 => u32, |x| {
            let m = (x ^ x >> 63).cast_unsigned();
            63u32.wrapping_sub(m.leading_zeros())
        }),
        (Ty::S64, true) => op1!(i64 => u32, |x| {
            let m = (x ^ x >> 63).cast_unsigned();
            if m == 0 { u32::MAX } else { m.leading_zeros() }
        }),
        _ => return None,
    })
}

/// Two sources of the instruction's type. Division by zero gives all ones, and its remainder the dividend, as on the
/// hardware; the PTX manual leaves both open.
pub(super) fn binary(op: &str, ty: Ty) -> Option<AluFn> {
    Some(match op {
        "add" if ty.integer() => int2!(ty; |x, y| x.wrapping_add(y)),
        "sub" if ty.integer() => int2!(ty; |x, y| x.wrapping_sub(y)),
        "mul.lo" if ty.integer() => int2!(ty; |x, y| x.wrapping_mul(y)),
        "mul.hi" if ty.integer() => match ty {
            Ty::U16 => op2!(u16, u16 => u16, |x, y| ((u32::from(x) * u32::from(y)) >> 16) as u16),
            Ty::S16 => op2!(i16, i16 => i16, |x, y| ((i32::from(x) * i32::from(y)) >> 16) as i16),
            Ty::U32 => op2!(u32, u32 => u32, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32),
            Ty::S32 => op2!(i32, i32 => i32, |x, y| ((i64::from(x) * i64::from(y)) >> 32) as i32),
            Ty::U64 => op2!(u64, u64 => u64, |x, y| ((u128::from(x) * u128::from(y)) >> 64) as u64),
            Ty::S64 => op2!(i64, i64 => i64, |x, y| ((i128::from(x) * i128::from(y)) >> 64) as i64),
            _ => return None,
        },
        "mul.wide" => match ty {
            Ty::U16 => op2!(u16, u16 => u32, |x, y| u32::from(x) * u32::from(y)),
            Ty::S16 => op2!(i16, i16 => i32, |x, y| i32::from(x) * i32::from(y)),
            Ty::U32 => op2!(u32, u32 => u64, |x, y| u64::from(x) * u64::from(y)),
            Ty::S32 => op2!(i32, i32 => i64, |x, y| i64::from(x) * i64::from(y)),
            _ => return None,
        },
        "mul24.lo" => match ty {
            Ty::U32 => op2!(u32, u32 => u32, |x, y| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff)),
            Ty::S32 => op2!(i32, i32 => i32, |x, y| (x << 8 >> 8).wrapping_mul(y << 8 >> 8)),
            _ => return None,
        },
        "mul24.hi" => match ty {
            Ty::U32 => op2!(u32, u32 => u32, |x, y| {
                ((u64::from(x & 0xff_ffff) * u64::from(y & 0xff_ffff)) >> 16) as u32
            }),
            Ty::S32 => {
                op2!(i32, i32 => i32, |x, y| ((i64::from(x << 8 >> 8) * i64::from(y << 8 >> 8)) >> 16) as i32)
            }
            _ => return None,
        },
        "div" if ty.integer() => match ty {
            Ty::U16 => op2!(u16, u16 => u16, |x, y| x.checked_div(y).unwrap_or(u16::MAX)),
            Ty::S16 => op2!(i16, i16 => i16, |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
            Ty::U32 => op2!(u32, u32 => u32, |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
            Ty::S32 => op2!(i32, i32 => i32, |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
            Ty::U64 => op2!(u64, u64 => u64, |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
            Ty::S64 => op2!(i64, i64 => i64, |x, y| if y == 0 { -1 } else { x.wrapping_div(y) }),
            _ => return None,
        },
        "rem" if ty.integer() => int2!(ty; |x, y| if y == 0 { x } else { x.wrapping_rem(y) }),
        "min" if ty.integer() => int2!(ty; |x, y| x.min(y)),
        "max" if ty.integer() => int2!(ty; |x, y| x.max(y)),
        "add.sat" if ty == Ty::S32 => op2!(i32, i32 => i32, |x, y| x.saturating_add(y)),
        "sub.sat" if ty == Ty::S32 => op2!(i32, i32 => i32, |x, y| x.saturating_sub(y)),
        "and" => match ty {
            Ty::Pred => op2!(bool, bool => bool, |x, y| x & y),
            Ty::B16 | Ty::B32 | Ty::B64 => int2!(ty; |x, y| x & y),
            _ => return None,
        },
        "or" => match ty {
            Ty::Pred => op2!(bool, bool => bool, |x, y| x | y),
            Ty::B16 | Ty::B32 | Ty::B64 => int2!(ty; |x, y| x | y),
            _ => return None,
        },
        "xor" => match ty {
            Ty::Pred => op2!(bool, bool => bool, |x, y| x ^ y),
            Ty::B16 | Ty::B32 | Ty::B64 => int2!(ty; |x, y| x ^ y),
            _ => return None,
        },
        _ => return None,
    })
}

/// The shift count is always a u32; counts beyond the width shift everything out.
pub(super) fn shift(op: &str, ty: Ty) -> Option<AluFn> {
    Some(match (op, ty) {
        ("shl", Ty::B16) => op2!(u16, u32 => u16, |x, n| if n < 16 { x << n } else { 0 }),
        ("shl", Ty::B32) => op2!(u32, u32 => u32, |x, n| if n < 32 { x << n } else { 0 }),
        ("shl", Ty::B64) => op2!(u64, u32 => u64, |x, n| if n < 64 { x << n } else { 0 }),
        ("shr", Ty::B16 | Ty::U16) => op2!(u16, u32 => u16, |x, n| if n < 16 { x >> n } else { 0 }),
        ("shr", Ty::B32 | Ty::U32) => op2!(u32, u32 => u32, |x, n| if n < 32 { x >> n } else { 0 }),
        ("shr", Ty::B64 | Ty::U64) => op2!(u64, u32 => u64, |x, n| if n < 64 { x >> n } else { 0 }),
        ("shr", Ty::S16) => op2!(i16, u32 => i16, |x, n| x >> n.min(15)),
        ("shr", Ty::S32) => op2!(i32, u32 => i32, |x, n| x >> n.min(31)),
        ("shr", Ty::S64) => op2!(i64, u32 => i64, |x, n| x >> n.min(63)),
        _ => return None,
    })
}

/// `mad` and `sad`.
pub(super) fn ternary(op: &str, ty: Ty) -> Option<AluFn> {
    Some(match op {
        "mad.lo" => match ty {
            Ty::U16 | Ty::S16 => {
                op3!(u16, u16, u16 => u16, |x, y, z| x.wrapping_mul(y).wrapping_add(z))
            }
            Ty::U32 | Ty::S32 => {
                op3!(u32, u32, u32 => u32, |x, y, z| x.wrapping_mul(y).wrapping_add(z))
            }
            Ty::U64 | Ty::S64 => {
                op3!(u64, u64, u64 => u64, |x, y, z| x.wrapping_mul(y).wrapping_add(z))
            }
            _ => return None,
        },
        "mad.hi" => match ty {
            Ty::U16 => {
                op3!(u16, u16, u16 => u16, |x, y, z| (((u32::from(x) * u32::from(y)) >> 16) as u16).wrapping_add(z))
            }
            Ty::S16 => {
                op3!(i16, i16, i16 => i16, |x, y, z| (((i32::from(x) * i32::from(y)) >> 16) as i16).wrapping_add(z))
            }
            Ty::U32 => {
                op3!(u32, u32, u32 => u32, |x, y, z| (((u64::from(x) * u64::from(y)) >> 32) as u32).wrapping_add(z))
            }
            Ty::S32 => {
                op3!(i32, i32, i32 => i32, |x, y, z| (((i64::from(x) * i64::from(y)) >> 32) as i32).wrapping_add(z))
            }
            Ty::U64 => {
                op3!(u64, u64, u64 => u64, |x, y, z| (((u128::from(x) * u128::from(y)) >> 64) as u64).wrapping_add(z))
            }
            Ty::S64 => {
                op3!(i64, i64, i64 => i64, |x, y, z| (((i128::from(x) * i128::from(y)) >> 64) as i64).wrapping_add(z))
            }
            _ => return None,
        },
        "mad.wide" => match ty {
            Ty::U16 => {
                op3!(u16, u16, u32 => u32, |x, y, z| (u32::from(x) * u32::from(y)).wrapping_add(z))
            }
            Ty::S16 => {
                op3!(i16, i16, i32 => i32, |x, y, z| (i32::from(x) * i32::from(y)).wrapping_add(z))
            }
            Ty::U32 => {
                op3!(u32, u32, u64 => u64, |x, y, z| (u64::from(x) * u64::from(y)).wrapping_add(z))
            }
            Ty::S32 => {
                op3!(i32, i32, i64 => i64, |x, y, z| (i64::from(x) * i64::from(y)).wrapping_add(z))
            }
            _ => return None,
        },
        "mad24.lo" => match ty {
            Ty::U32 => op3!(u32, u32, u32 => u32, |x, y, z| {
                (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff).wrapping_add(z)
            }),
            Ty::S32 => {
                op3!(i32, i32, i32 => i32, |x, y, z| (x << 8 >> 8).wrapping_mul(y << 8 >> 8).wrapping_add(z))
            }
            _ => return None,
        },
        "sad" => match ty {
            Ty::U16 => op3!(u16, u16, u16 => u16, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            Ty::S16 => op3!(i16, i16, u16 => u16, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            Ty::U32 => op3!(u32, u32, u32 => u32, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            Ty::S32 => op3!(i32, i32, u32 => u32, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            Ty::U64 => op3!(u64, u64, u64 => u64, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            Ty::S64 => op3!(i64, i64, u64 => u64, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            _ => return None,
        },
        _ => return None,
    })
}

/// `dp4a`: four products of bytes, the signedness of each operand its own.
pub(super) fn dp4a(a: Ty, b: Ty) -> Option<AluFn> {
    macro_rules! dot {
        ($a:ty, $b:ty) => {
            op3!(u32, u32, u32 => u32, |x, y, z| {
                let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
                let mut sum = z;
                for i in 0..4 {
                    sum = sum.wrapping_add((i32::from(x[i] as $a) * i32::from(y[i] as $b)).cast_unsigned());
                }
                sum
            })
        };
    }
    Some(match (a, b) {
        (Ty::U32, Ty::U32) => dot!(u8, u8),
        (Ty::U32, Ty::S32) => dot!(u8, i8),
        (Ty::S32, Ty::U32) => dot!(i8, u8),
        (Ty::S32, Ty::S32) => dot!(i8, i8),
        _ => return None,
    })
}

pub(super) fn bfe(ty: Ty) -> Option<AluFn> {
    macro_rules! extract {
        ($t:ty, $bits:expr, $signed:expr) => {
            op3!($t, u32, u32 => $t, |x, pos, len| {
                let (pos, len) = (pos & 0xff, len & 0xff);
                let top = (pos + len).saturating_sub(1).min($bits - 1);
                let fill = if $signed && len != 0 && x >> top & 1 != 0 { <$t>::MAX } else { 0 };
                // Bits that the source has from `pos` on, and that the length asks for.
                let n = len.min(($bits as u32).saturating_sub(pos));
                if n == 0 {
                    fill
                } else {
                    let mask = <$t>::MAX >> ($bits - n);
                    x >> pos & mask | fill & !mask
                }
            })
        };
    }
    Some(match ty {
        Ty::U32 => extract!(u32, 32, false),
        Ty::S32 => extract!(u32, 32, true),
        Ty::U64 => extract!(u64, 64, false),
        Ty::S64 => extract!(u64, 64, true),
        _ => return None,
    })
}

/// `bfi` takes four sources; the position and the length come packed in the third, see the decoder.
pub(super) fn bfi(ty: Ty) -> Option<AluFn> {
    macro_rules! insert {
        ($t:ty, $bits:expr) => {{
            #[inline(always)]
            fn body(r: &mut crate::regs::Regs, i: &crate::regs::Args, mask: u32) {
                let a = <$t>::get(r, i.a);
                let b = <$t>::get(r, i.b);
                let pos = u32::get(r, i.c);
                let len = u32::get(r, i.e);
                let v: [$t; 32] = std::array::from_fn(|l| {
                    let (pos, len) = (pos[l] & 0xff, len[l] & 0xff);
                    let n = len.min(($bits as u32).saturating_sub(pos));
                    if n == 0 {
                        b[l]
                    } else {
                        let field = <$t>::MAX >> ($bits - n) << pos;
                        b[l] & !field | a[l] << pos & field
                    }
                });
                <$t>::put(r, i.d, v, mask);
            }
            AluFn {
                run: dispatch!(body),
                sig: Signature {
                    a: Some(<$t>::FILE),
                    b: Some(<$t>::FILE),
                    c: Some(File::R32),
                    e: Some(File::R32),
                    ..Signature::to(<$t>::FILE)
                },
            }
        }};
    }
    Some(match ty {
        Ty::B32 => insert!(u32, 32),
        Ty::B64 => insert!(u64, 64),
        _ => return None,
    })
}

/// `bmsk`: a run of ones.
pub(super) fn bmsk(wrap: bool) -> AluFn {
    if wrap {
        op2!(u32, u32 => u32, |pos, len| {
            let (pos, len) = (pos & 31, len & 31);
            ((1u32 << len) - 1) << pos
        })
    } else {
        op2!(u32, u32 => u32, |pos, len| {
            let ones = if len >= 32 { u32::MAX } else { (1u32 << len) - 1 };
            if pos >= 32 { 0 } else { ones << pos }
        })
    }
}

/// Funnel shifts of the pair b:a.
pub(super) fn funnel(left: bool, wrap: bool) -> AluFn {
    match (left, wrap) {
        (true, true) => op3!(u32, u32, u32 => u32, |a, b, n| {
            ((u64::from(b) << 32 | u64::from(a)) << (n & 31) >> 32) as u32
        }),
        (true, false) => op3!(u32, u32, u32 => u32, |a, b, n| {
            ((u64::from(b) << 32 | u64::from(a)) << n.min(32) >> 32) as u32
        }),
        (false, true) => {
            op3!(u32, u32, u32 => u32, |a, b, n| ((u64::from(b) << 32 | u64::from(a)) >> (n & 31)) as u32)
        }
        (false, false) => {
            op3!(u32, u32, u32 => u32, |a, b, n| ((u64::from(b) << 32 | u64::from(a)) >> n.min(32)) as u32)
        }
    }
}

/// Any boolean function of three bits, by its truth table.
pub(super) fn lop3() -> AluFn {
    slow3!(u32, u32, u32 => u32, |a, b, c, table, _noise| {
        let row = |i: u32| 0u32.wrapping_sub(table >> i & 1);
        row(0) & !a & !b & !c
            | row(1) & !a & !b & c
            | row(2) & !a & b & !c
            | row(3) & !a & b & c
            | row(4) & a & !b & !c
            | row(5) & a & !b & c
            | row(6) & a & b & !c
            | row(7) & a & b & c
    })
}

/// Byte permutations.
pub(super) fn prmt(mode: &str) -> Option<AluFn> {
    macro_rules! by_selector {
        (|$sel:ident| $table:expr) => {
            op3!(u32, u32, u32 => u32, |a, b, c| {
                let pair = u64::from(b) << 32 | u64::from(a);
                let $sel = c & 3;
                let picks: u32 = $table;
                let mut out = 0;
                for i in 0..4 {
                    let byte = (pair >> (8 * (picks >> (4 * i) & 7))) as u32 & 0xff;
                    out |= byte << (8 * i);
                }
                out
            })
        };
    }
    Some(match mode {
        "" => op3!(u32, u32, u32 => u32, |a, b, c| {
            let pair = u64::from(b) << 32 | u64::from(a);
            let mut out = 0;
            for i in 0..4 {
                let pick = c >> (4 * i) & 15;
                let byte = (pair >> (8 * (pick & 7))) as u32 & 0xff;
                // The selector's top bit replicates the byte's sign.
                let byte = if pick & 8 != 0 { 0xff * (byte >> 7) } else { byte };
                out |= byte << (8 * i);
            }
            out
        }),
        "f4e" => by_selector!(|s| [0x3210, 0x4321, 0x5432, 0x6543][s as usize]),
        "b4e" => by_selector!(|s| [0x5670, 0x6701, 0x7012, 0x0123][s as usize]),
        "rc8" => by_selector!(|s| 0x1111 * s),
        "ecl" => by_selector!(|s| [0x3210, 0x3211, 0x3222, 0x3333][s as usize]),
        "ecr" => by_selector!(|s| [0x0000, 0x1110, 0x2210, 0x3210][s as usize]),
        "rc16" => by_selector!(|s| [0x1010, 0x3232, 0x1010, 0x3232][s as usize]),
        _ => return None,
    })
}

/// Instructions with carry in (the flag register `e`) or out (`d2`). Immediate: bit 0 carry in, bit 1 carry out.
pub(super) fn carry(op: &str, wide: bool) -> Option<AluFn> {
    macro_rules! carry {
        ($t:ty, |$x:ident, $y:ident, $z:ident, $cin:ident| $e:expr) => {{
            #[inline(always)]
            fn body(r: &mut crate::regs::Regs, i: &crate::regs::Args, mask: u32) {
                #[inline(always)]
                fn f($x: $t, $y: $t, $z: $t, $cin: $t) -> ($t, bool) {
                    $e
                }
                let a = <$t>::get(r, i.a);
                let b = <$t>::get(r, i.b);
                let c = <$t>::get(r, i.c);
                let flag = bool::get(r, i.e);
                let (with, out) = (i.imm & 1 != 0, i.imm & 2 != 0);
                let v: [($t, bool); 32] = std::array::from_fn(|l| {
                    f(a[l], b[l], c[l], if with { <$t>::from(flag[l]) } else { 0 })
                });
                <$t>::put(r, i.d, v.map(|x| x.0), mask);
                if out {
                    bool::put(r, i.d2, v.map(|x| x.1), mask);
                }
            }
            AluFn {
                run: dispatch!(body),
                sig: Signature {
                    d2: Some(File::Pred),
                    a: Some(<$t>::FILE),
                    b: Some(<$t>::FILE),
                    c: Some(<$t>::FILE),
                    e: Some(File::Pred),
                    ..Signature::to(<$t>::FILE)
                },
            }
        }};
    }
    macro_rules! both {
        ($wide:expr, |$x:ident, $y:ident, $z:ident, $cin:ident| $e:expr) => {
            if $wide {
                carry!(u64, |$x, $y, $z, $cin| $e)
            } else {
                carry!(u32, |$x, $y, $z, $cin| $e)
            }
        };
    }
    Some(match op {
        "add" => both!(wide, |x, y, _z, c| x.carrying_add(y, c != 0)),
        "sub" => both!(wide, |x, y, _z, c| x.borrowing_sub(y, c != 0)),
        "mad.lo" => both!(wide, |x, y, z, c| x.wrapping_mul(y).carrying_add(z, c != 0)),
        "mad.hi" if wide => carry!(u64, |x, y, z, c| {
            (((u128::from(x) * u128::from(y)) >> 64) as u64).carrying_add(z, c != 0)
        }),
        "mad.hi" => carry!(u32, |x, y, z, c| (((u64::from(x) * u64::from(y)) >> 32)
            as u32)
            .carrying_add(z, c != 0)),
        "mad.hi.s" => {
            carry!(u32, |x, y, z, c| {
                (((i64::from(x.cast_signed()) * i64::from(y.cast_signed())) >> 32) as u32)
                    .carrying_add(z, c != 0)
            })
        }
        _ => return None,
    })
}
