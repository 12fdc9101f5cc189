//! Comparisons, and the selection by a sign.

use super::values::{class, copy};
use super::{Builder, Mods, Res, float, int};
use crate::counters::Class;
use crate::parser::RawInst;
use crate::regs::{AluFn, Args, op1, op2, op3};
use crate::types::{File, Ty};

impl<'m> Builder<'m> {
    fn comparison(&mut self, m: &mut Mods<'m>) -> Option<&'m str> {
        m.pick(|s| {
            matches!(
                s,
                "eq" | "ne"
                    | "lt"
                    | "le"
                    | "gt"
                    | "ge"
                    | "lo"
                    | "ls"
                    | "hi"
                    | "hs"
                    | "equ"
                    | "neu"
                    | "ltu"
                    | "leu"
                    | "gtu"
                    | "geu"
                    | "num"
                    | "nan"
            )
            .then_some(s)
        })
    }

    fn compare(op: &str, ty: Ty, z: bool) -> Option<AluFn> {
        if ty.float() {
            float::compare(op, ty, z).filter(|_| !z || matches!(ty, Ty::F32 | Ty::F16))
        } else {
            float::compare_int(op, ty).filter(|_| !z)
        }
    }

    pub(super) fn setp(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let op = self
            .comparison(m)
            .ok_or_else(|| m.unknown("has no comparison"))?;
        let combine = m.pick(|s| matches!(s, "and" | "or" | "xor").then_some(s));
        let z = m.flag("ftz");
        let ty = m.ty()?;
        if i.args.len() != 3 + usize::from(combine.is_some()) {
            return Err(m.unknown("has the wrong number of operands"));
        }
        let (p, q) = self.pred_pair(&i.args[0])?;
        if q.is_some_and(|q| q == self.guard) || (q.is_some() && p == self.guard && p != 0) {
            return Err(m.unknown("writes its own guard twice"));
        }
        let (a, b) = (self.src(&i.args[1], ty)?, self.src(&i.args[2], ty)?);
        let combine = match combine {
            Some(c) => Some((c, self.src(&i.args[3], Ty::Pred)?)),
            None => None,
        };
        let not = op1!(bool => bool, |x| !x);
        // The third predicate may be a destination as well, and two destinations read it.
        let combine = match (combine, q) {
            (Some((c, r)), Some(_)) => {
                let saved = self.new_pred();
                let args = Args {
                    d: saved,
                    a: r,
                    ..Args::default()
                };
                self.alu(Class::Other, copy(File::Pred), args);
                Some((c, saved))
            }
            (c, _) => c,
        };
        if matches!(ty, Ty::F16x2 | Ty::BF16x2) {
            // One predicate per half, each combined with the same third one.
            let halves = [
                (p, false),
                (q.ok_or_else(|| m.unknown("needs two predicates"))?, true),
            ];
            for (dest, high) in halves {
                let f =
                    float::compare_half(op, ty, z, high).ok_or_else(|| m.unknown("is unknown"))?;
                let t = if combine.is_some() {
                    self.new_pred()
                } else {
                    dest
                };
                self.alu(
                    Class::Float,
                    f,
                    Args {
                        d: t,
                        a,
                        b,
                        ..Args::default()
                    },
                );
                if let Some((c, r)) = combine {
                    let f = int::binary(c, Ty::Pred).ok_or_else(|| m.unknown("is unknown"))?;
                    self.alu(
                        Class::Other,
                        f,
                        Args {
                            d: dest,
                            a: t,
                            b: r,
                            ..Args::default()
                        },
                    );
                }
            }
            return Ok(());
        }
        let f = Self::compare(op, ty, z).ok_or_else(|| m.unknown("is unknown"))?;
        let class = class(ty);
        if combine.is_none() && q.is_none() {
            self.alu(
                class,
                f,
                Args {
                    d: p,
                    a,
                    b,
                    ..Args::default()
                },
            );
            return Ok(());
        }
        let t = self.new_pred();
        self.alu(
            class,
            f,
            Args {
                d: t,
                a,
                b,
                ..Args::default()
            },
        );
        let (op_name, r) = combine.unwrap_or(("and", crate::ir::P_TRUE));
        let f = int::binary(op_name, Ty::Pred).ok_or_else(|| m.unknown("is unknown"))?;
        self.alu(
            Class::Other,
            f,
            Args {
                d: p,
                a: t,
                b: r,
                ..Args::default()
            },
        );
        if let Some(q) = q {
            let n = self.new_pred();
            self.alu(
                Class::Other,
                not,
                Args {
                    d: n,
                    a: t,
                    ..Args::default()
                },
            );
            self.alu(
                Class::Other,
                f,
                Args {
                    d: q,
                    a: n,
                    b: r,
                    ..Args::default()
                },
            );
        }
        Ok(())
    }

    pub(super) fn set(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let op = self
            .comparison(m)
            .ok_or_else(|| m.unknown("has no comparison"))?;
        let combine = m.pick(|s| matches!(s, "and" | "or" | "xor").then_some(s));
        let z = m.flag("ftz");
        let (td, ty) = (m.ty()?, m.ty()?);
        if i.args.len() != 3 + usize::from(combine.is_some()) {
            return Err(m.unknown("has the wrong number of operands"));
        }
        let d = self.dst(&i.args[0], td)?;
        let (a, b) = (self.src(&i.args[1], ty)?, self.src(&i.args[2], ty)?);
        let combine = match combine {
            Some(c) => {
                let f = int::binary(c, Ty::Pred).ok_or_else(|| m.unknown("is unknown"))?;
                Some((f, self.src(&i.args[3], Ty::Pred)?))
            }
            None => None,
        };
        let mut predicates = Vec::new();
        let packed = matches!(ty, Ty::F16x2 | Ty::BF16x2);
        for high in if packed { &[false, true][..] } else { &[false] } {
            let f = if packed {
                float::compare_half(op, ty, z, *high)
            } else {
                Self::compare(op, ty, z)
            };
            let f = f.ok_or_else(|| m.unknown("is unknown"))?;
            let t = self.new_pred();
            self.alu(
                class(ty),
                f,
                Args {
                    d: t,
                    a,
                    b,
                    ..Args::default()
                },
            );
            if let Some((f, r)) = combine {
                self.alu(
                    Class::Other,
                    f,
                    Args {
                        d: t,
                        a: t,
                        b: r,
                        ..Args::default()
                    },
                );
            }
            predicates.push(t);
        }
        let (p, q) = (
            predicates[0],
            predicates.last().copied().unwrap_or(predicates[0]),
        );
        let f = match td {
            Ty::U32 | Ty::S32 if !packed => {
                op2!(bool, bool => u32, |p, _q| if p { u32::MAX } else { 0 })
            }
            Ty::U16 | Ty::S16 if !packed => {
                op2!(bool, bool => u16, |p, _q| if p { u16::MAX } else { 0 })
            }
            Ty::F32 if !packed => op2!(bool, bool => f32, |p, _q| if p { 1.0 } else { 0.0 }),
            Ty::F16 if ty == Ty::F16 => op2!(bool, bool => u16, |p, _q| if p { 0x3c00 } else { 0 }),
            Ty::BF16 if ty == Ty::BF16 => {
                op2!(bool, bool => u16, |p, _q| if p { 0x3f80 } else { 0 })
            }
            Ty::F16x2 if ty == Ty::F16x2 => op2!(bool, bool => u32, |p, q| {
                (if p { 0x3c00 } else { 0 }) | (if q { 0x3c00_0000 } else { 0 })
            }),
            Ty::BF16x2 if ty == Ty::BF16x2 => op2!(bool, bool => u32, |p, q| {
                (if p { 0x3f80 } else { 0 }) | (if q { 0x3f80_0000 } else { 0 })
            }),
            Ty::U32 | Ty::S32 => op2!(bool, bool => u32, |p, q| {
                (if p { 0xffff } else { 0 }) | (if q { 0xffff_0000 } else { 0 })
            }),
            _ => return Err(m.unknown("is unknown")),
        };
        self.alu(
            Class::Other,
            f,
            Args {
                d,
                a: p,
                b: q,
                ..Args::default()
            },
        );
        Ok(())
    }

    pub(super) fn slct(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let z = m.flag("ftz");
        let (ty, by) = (m.ty()?, m.ty()?);
        let f = match (ty.file(), by) {
            (File::R32, Ty::S32) if !z => {
                op3!(u32, u32, i32 => u32, |x, y, c| if c >= 0 { x } else { y })
            }
            (File::R64, Ty::S32) if !z => {
                op3!(u64, u64, i32 => u64, |x, y, c| if c >= 0 { x } else { y })
            }
            (File::R32, Ty::F32) if z => {
                op3!(u32, u32, f32 => u32, |x, y, c| if crate::float::ftz(c) >= 0.0 { x } else { y })
            }
            (File::R64, Ty::F32) if z => {
                op3!(u64, u64, f32 => u64, |x, y, c| if crate::float::ftz(c) >= 0.0 { x } else { y })
            }
            (File::R32, Ty::F32) => {
                op3!(u32, u32, f32 => u32, |x, y, c| if c >= 0.0 { x } else { y })
            }
            (File::R64, Ty::F32) => {
                op3!(u64, u64, f32 => u64, |x, y, c| if c >= 0.0 { x } else { y })
            }
            _ => return Err(m.unknown("is unknown")),
        };
        self.three(i, [ty, ty, ty, by], Class::Other, f)
    }
}
