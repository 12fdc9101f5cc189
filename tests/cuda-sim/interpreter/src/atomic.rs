//! What atomic operations compute: the new value from the old one and the operands, as bits.

use crate::float::{bf16_to_f32, canon, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::types::Ty;

type Function = fn(u64, u64, u64) -> u64;

fn add_f16(x: u16, y: u16) -> u16 {
    f32_to_f16(f16_to_f32(x) + f16_to_f32(y))
}

fn add_bf16(x: u16, y: u16) -> u16 {
    f32_to_bf16(bf16_to_f32(x) + bf16_to_f32(y))
}

fn halves(f: fn(u16, u16) -> u16, x: u64, y: u64) -> u64 {
    u64::from(f((x >> 16) as u16, (y >> 16) as u16)) << 16 | u64::from(f(x as u16, y as u16))
}

/// The operation by name and type; none where PTX has none.
pub(crate) fn function(op: &str, ty: Ty, noftz: bool) -> Option<Function> {
    let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2);
    if noftz != half {
        return None;
    }
    Some(match (op, ty) {
        ("add", Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64) => |x, y, _| x.wrapping_add(y),
        // In global memory devices flush subnormal operands and results of this one; the executor does that, since
        // shared memory does not.
        ("add", Ty::F32) => |x, y, _| {
            u64::from(canon(f32::from_bits(x as u32) + f32::from_bits(y as u32)).to_bits())
        },
        ("add", Ty::F64) => |x, y, _| (f64::from_bits(x) + f64::from_bits(y)).to_bits(),
        ("add", Ty::F16) => |x, y, _| u64::from(add_f16(x as u16, y as u16)),
        ("add", Ty::BF16) => |x, y, _| u64::from(add_bf16(x as u16, y as u16)),
        ("add", Ty::F16x2) => |x, y, _| halves(add_f16, x, y),
        ("add", Ty::BF16x2) => |x, y, _| halves(add_bf16, x, y),
        ("min", Ty::U32 | Ty::U64) => |x, y, _| x.min(y),
        ("max", Ty::U32 | Ty::U64) => |x, y, _| x.max(y),
        ("min", Ty::S32) => |x, y, _| u64::from((x as i32).min(y as i32).cast_unsigned()),
        ("max", Ty::S32) => |x, y, _| u64::from((x as i32).max(y as i32).cast_unsigned()),
        ("min", Ty::S64) => |x, y, _| x.cast_signed().min(y.cast_signed()).cast_unsigned(),
        ("max", Ty::S64) => |x, y, _| x.cast_signed().max(y.cast_signed()).cast_unsigned(),
        ("inc", Ty::U32) => |x, y, _| if x >= y { 0 } else { x + 1 },
        ("dec", Ty::U32) => |x, y, _| if x == 0 || x > y { y } else { x - 1 },
        ("exch", Ty::B32 | Ty::B64) => |_, y, _| y,
        ("cas", Ty::B16 | Ty::B32 | Ty::B64) => |x, y, z| if x == y { z } else { x },
        ("and", Ty::B32 | Ty::B64) => |x, y, _| x & y,
        ("or", Ty::B32 | Ty::B64) => |x, y, _| x | y,
        ("xor", Ty::B32 | Ty::B64) => |x, y, _| x ^ y,
        _ => return None,
    })
}
