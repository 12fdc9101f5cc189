//! Arithmetic: which function an opcode with its modifiers and type is.

use super::values::{class, half};
use super::{Builder, Mods, Res, float, int};
use crate::counters::Class;
use crate::parser::RawInst;
use crate::regs::{Args, op1};
use crate::types::{Round, Ty};

impl<'m> Builder<'m> {
    pub(super) fn arithmetic(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let base = m.base();
        let round = m.pick(Round::float);
        let part = m.pick(|s| matches!(s, "lo" | "hi" | "wide").then_some(s));
        let carries_out = m.flag("cc");
        let (z, s) = (m.flag("ftz"), m.flag("sat"));
        let relu = m.flag("relu");
        let ty = m.ty()?;
        let three = matches!(base, "mad" | "fma" | "mad24" | "madc");
        let reject = |m: &Mods<'m>| m.unknown("is unknown");
        if carries_out || matches!(base, "addc" | "subc" | "madc") {
            return self.carry_chain(m, i, ty, part, carries_out);
        }
        if ty.integer() || matches!(ty, Ty::B32 | Ty::B64) {
            if round.is_some() || z || relu {
                return Err(reject(m));
            }
            let name = match (part, s) {
                (Some(p), false) => format!("{base}.{p}"),
                (None, true) => format!("{base}.sat"),
                (None, false) => base.to_owned(),
                _ => return Err(reject(m)),
            };
            let wide = match (part, ty) {
                (Some("wide"), Ty::U16) => Ty::U32,
                (Some("wide"), Ty::S16) => Ty::S32,
                (Some("wide"), Ty::U32) => Ty::U64,
                (Some("wide"), Ty::S32) => Ty::S64,
                _ => ty,
            };
            if three {
                let f = int::ternary(&name, ty).ok_or_else(|| reject(m))?;
                return self.three(i, [wide, ty, ty, wide], Class::Integer, f);
            }
            let f = int::binary(&name, ty).ok_or_else(|| reject(m))?;
            return self.two(i, wide, ty, ty, Class::Integer, f);
        }
        if part.is_some() {
            return Err(reject(m));
        }
        let op = if base == "mad" { "fma" } else { base };
        // `fma` and f64's `mad` must name their rounding.
        if base == "fma" && round.is_none() {
            return Err(m.unknown("names no rounding"));
        }
        let mode = round.unwrap_or(Round::Near);
        if half(ty) {
            let mods = float::HalfMods {
                ftz: z,
                sat: s,
                relu,
                nan: false,
            };
            let bf = matches!(ty, Ty::BF16 | Ty::BF16x2);
            if mode != Round::Near || (bf && (z || s)) || (relu && op != "fma") {
                return Err(reject(m));
            }
            let f = float::half(op, ty).filter(|_| matches!(op, "add" | "sub" | "mul" | "fma"));
            let f = f.ok_or_else(|| reject(m))?;
            return if three {
                self.three_imm(i, [ty; 4], Class::Float, f, mods.imm())
            } else {
                self.two_imm(i, [ty; 3], Class::Float, f, mods.imm())
            };
        }
        let f = match ty {
            Ty::F32 if !relu => float::arith32(op, mode, z, s),
            Ty::F64 if !relu && !z && !s => float::arith64(op, mode),
            _ => None,
        };
        let f = f.ok_or_else(|| reject(m))?;
        let imm = float::mode_imm(mode);
        if three {
            self.three_imm(i, [ty; 4], Class::Float, f, imm)
        } else {
            self.two_imm(i, [ty; 3], Class::Float, f, imm)
        }
    }

    fn carry_chain(
        &mut self,
        m: &Mods<'m>,
        i: &RawInst<'m>,
        ty: Ty,
        part: Option<&str>,
        out: bool,
    ) -> Res<()> {
        let base = m.base();
        let with = base.ends_with('c') && base.len() == 4;
        if !matches!(
            ty,
            Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64 | Ty::B32 | Ty::B64
        ) {
            return Err(m.unknown("has an unknown type"));
        }
        let wide = ty.bytes() == 8;
        let name = match (base, part) {
            ("add" | "addc", None) => "add",
            ("sub" | "subc", None) => "sub",
            ("mad" | "madc", Some("lo")) => "mad.lo",
            ("mad" | "madc", Some("hi")) if ty == Ty::S32 => "mad.hi.s",
            ("mad" | "madc", Some("hi")) if ty != Ty::S64 => "mad.hi",
            _ => return Err(m.unknown("is unknown")),
        };
        let imm = u32::from(with) | u32::from(out) << 1;
        let f = int::carry(name, wide).ok_or_else(|| m.unknown("is unknown"))?;
        let (d, a, b, c) = if name.starts_with("mad") {
            let [d, a, b, c] = self.args::<4>(i)?;
            (
                self.dst(d, ty)?,
                self.src(a, ty)?,
                self.src(b, ty)?,
                self.src(c, ty)?,
            )
        } else {
            let [d, a, b] = self.args::<3>(i)?;
            let a = self.src(a, ty)?;
            (self.dst(d, ty)?, a, self.src(b, ty)?, a)
        };
        let flag = self.carry;
        self.alu(
            Class::Integer,
            f,
            Args {
                d,
                a,
                b,
                c,
                e: flag,
                d2: flag,
                imm,
            },
        );
        Ok(())
    }

    /// Division, remainder and the special functions.
    pub(super) fn special(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let base = m.base();
        let round = m.pick(Round::float);
        let (approx, full) = (m.flag("approx"), m.flag("full"));
        let z = m.flag("ftz");
        let ty = m.ty()?;
        let reject = |m: &Mods<'m>| m.unknown("is unknown");
        if ty.integer() && matches!(base, "div" | "rem") {
            let plain = round.is_none() && !approx && !full && !z;
            let f = int::binary(base, ty)
                .filter(|_| plain)
                .ok_or_else(|| reject(m))?;
            return self.two(i, ty, ty, ty, Class::Integer, f);
        }
        if let Some(mode) = round {
            if approx || full || (z && ty != Ty::F32) {
                return Err(reject(m));
            }
            let f = float::division(base, ty, mode, z).ok_or_else(|| reject(m))?;
            let imm = float::mode_imm(mode) | u32::from(z) << 2;
            if base == "div" {
                return self.two_imm(i, [ty; 3], Class::Approx, f, imm);
            }
            let [d, a] = self.args::<2>(i)?;
            let (d, a) = (self.dst(d, ty)?, self.src(a, ty)?);
            let args = if base == "rcp" {
                let one = if ty == Ty::F32 {
                    self.const32(1f32.to_bits())
                } else {
                    self.const64(1f64.to_bits())
                };
                Args {
                    d,
                    a: one,
                    b: a,
                    c: a,
                    imm,
                    ..Args::default()
                }
            } else {
                Args {
                    d,
                    a,
                    b: a,
                    c: a,
                    imm,
                    ..Args::default()
                }
            };
            self.alu(Class::Approx, f, args);
            return Ok(());
        }
        if full != (base == "div" && !approx) || approx == full {
            return Err(reject(m));
        }
        let f = match (base, ty) {
            ("div", Ty::F32) => Some(float::div_approx(full, z)),
            ("rcp", Ty::F64) if z => Some(float::approx64(false)),
            ("rsqrt", Ty::F64) if z => Some(float::approx64(true)),
            // Without flushing, the assembler expands it to the whole precision.
            ("rsqrt", Ty::F64) => Some(op1!(f64 => f64, |x| 1.0 / x.sqrt())),
            (_, Ty::F32) => float::approx32(base, z),
            ("ex2", Ty::F16 | Ty::F16x2) if !z => float::half(base, ty),
            ("ex2", Ty::BF16 | Ty::BF16x2) if z => float::half(base, ty),
            ("tanh", _) if half(ty) && !z => float::half(base, ty),
            _ => None,
        };
        let f = f.ok_or_else(|| reject(m))?;
        if base == "div" {
            self.two(i, ty, ty, ty, Class::Approx, f)
        } else {
            self.one(i, ty, ty, Class::Approx, f)
        }
    }

    pub(super) fn extremum(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let (z, nan) = (m.flag("ftz"), m.flag("NaN"));
        let ty = m.ty()?;
        let base = m.base();
        if half(ty) {
            let bf = matches!(ty, Ty::BF16 | Ty::BF16x2);
            let mods = float::HalfMods {
                ftz: z,
                nan,
                ..Default::default()
            };
            let f = float::half(base, ty)
                .filter(|_| !(bf && z))
                .ok_or_else(|| m.unknown("is unknown"))?;
            return self.two_imm(i, [ty; 3], Class::Float, f, mods.imm());
        }
        let f = if ty.integer() {
            int::binary(base, ty).filter(|_| !z && !nan)
        } else {
            float::extremum(base, ty, z, nan).filter(|_| !z || ty == Ty::F32)
        };
        let f = f.ok_or_else(|| m.unknown("is unknown"))?;
        self.two(i, ty, ty, ty, class(ty), f)
    }

    pub(super) fn unary(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let z = m.flag("ftz");
        let ty = m.ty()?;
        let f = if ty.float() || half(ty) {
            float::sign(m.base(), ty, z)
                .filter(|_| !z || matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2))
        } else {
            int::unary(m.base(), ty).filter(|_| !z)
        };
        let f = f.ok_or_else(|| m.unknown("is unknown"))?;
        let td = if matches!(m.base(), "popc" | "clz") {
            Ty::U32
        } else {
            ty
        };
        let class = if ty == Ty::Pred {
            Class::Other
        } else {
            class(ty)
        };
        self.one(i, td, ty, class, f)
    }
}
