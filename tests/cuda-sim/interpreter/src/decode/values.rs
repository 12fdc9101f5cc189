//! Instructions that compute with registers alone.

use super::{Builder, Mods, Res, float, int};
use crate::counters::Class;
use crate::parser::{Operand, RawInst};
use crate::regs::{AluFn, Args, op1, op2, op3};
use crate::types::{File, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, Ty, WINDOW_SIZE};

pub(super) fn half(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2)
}

/// The class that arithmetic on a type counts as.
pub(super) fn class(ty: Ty) -> Class {
    if ty.float() || half(ty) {
        Class::Float
    } else {
        Class::Integer
    }
}

pub(super) fn copy(file: File) -> AluFn {
    match file {
        File::Pred => op1!(bool => bool, |x| x),
        File::R32 => op1!(u32 => u32, |x| x),
        File::R64 => op1!(u64 => u64, |x| x),
    }
}

impl<'m> Builder<'m> {
    /// Decodes an instruction over registers; false if its name is not one.
    pub(super) fn value(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<bool> {
        match m.base() {
            "mov" => self.mov(m, i)?,
            "add" | "sub" | "mul" | "mad" | "fma" | "mul24" | "mad24" | "addc" | "subc"
            | "madc" => {
                self.arithmetic(m, i)?;
            }
            "div" | "rem" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                self.special(m, i)?
            }
            "min" | "max" => self.extremum(m, i)?,
            "abs" | "neg" | "not" | "cnot" | "brev" | "popc" | "clz" => self.unary(m, i)?,
            "and" | "or" | "xor" => {
                let ty = m.ty()?;
                let f = int::binary(m.base(), ty).ok_or_else(|| m.unknown("is unknown"))?;
                let class = if ty == Ty::Pred {
                    Class::Other
                } else {
                    Class::Integer
                };
                self.two(i, ty, ty, ty, class, f)?;
            }
            "shl" | "shr" => {
                let ty = m.ty()?;
                let f = int::shift(m.base(), ty).ok_or_else(|| m.unknown("is unknown"))?;
                self.two(i, ty, ty, Ty::U32, Class::Integer, f)?;
            }
            "shf" => {
                let left = m.flag("l");
                if !left && !m.flag("r") {
                    return Err(m.unknown("has no direction"));
                }
                let wrap = m.flag("wrap");
                if !wrap && !m.flag("clamp") {
                    return Err(m.unknown("has no mode"));
                }
                let ty = m.ty()?;
                if ty != Ty::B32 {
                    return Err(m.unknown("has an unknown type"));
                }
                self.three(
                    i,
                    [ty, ty, ty, Ty::U32],
                    Class::Integer,
                    int::funnel(left, wrap),
                )?;
            }
            "sad" => {
                let ty = m.ty()?;
                let f = int::ternary("sad", ty).ok_or_else(|| m.unknown("is unknown"))?;
                self.three(i, [ty; 4], Class::Integer, f)?;
            }
            "bfe" => {
                let ty = m.ty()?;
                let f = int::bfe(ty).ok_or_else(|| m.unknown("is unknown"))?;
                self.three(i, [ty, ty, Ty::U32, Ty::U32], Class::Integer, f)?;
            }
            "bfi" => {
                let ty = m.ty()?;
                let f = int::bfi(ty).ok_or_else(|| m.unknown("is unknown"))?;
                let [d, a, b, c, e] = self.args::<5>(i)?;
                let args = Args {
                    d: self.dst(d, ty)?,
                    a: self.src(a, ty)?,
                    b: self.src(b, ty)?,
                    c: self.src(c, Ty::U32)?,
                    e: self.src(e, Ty::U32)?,
                    ..Args::default()
                };
                self.alu(Class::Integer, f, args);
            }
            "bfind" => {
                let shift = m.flag("shiftamt");
                let ty = m.ty()?;
                let f = int::bfind(ty, shift).ok_or_else(|| m.unknown("is unknown"))?;
                self.one(i, Ty::U32, ty, Class::Integer, f)?;
            }
            "bmsk" => {
                let wrap = m.flag("wrap");
                if !wrap && !m.flag("clamp") {
                    return Err(m.unknown("has no mode"));
                }
                let ty = m.ty()?;
                self.two(i, ty, Ty::U32, Ty::U32, Class::Integer, int::bmsk(wrap))?;
            }
            "prmt" => {
                let mode = m.pick(|s| {
                    matches!(s, "f4e" | "b4e" | "rc8" | "ecl" | "ecr" | "rc16").then_some(s)
                });
                let ty = m.ty()?;
                let f = int::prmt(mode.unwrap_or("")).filter(|_| ty == Ty::B32);
                let f = f.ok_or_else(|| m.unknown("is unknown"))?;
                self.three(i, [ty, ty, ty, Ty::U32], Class::Integer, f)?;
            }
            "lop3" => self.lop3(m, i)?,
            "dp4a" => {
                let (a, b) = (m.ty()?, m.ty()?);
                let f = int::dp4a(a, b).ok_or_else(|| m.unknown("is unknown"))?;
                self.three(i, [Ty::U32, Ty::U32, Ty::U32, Ty::U32], Class::Integer, f)?;
            }
            "copysign" => {
                let ty = m.ty()?;
                let f =
                    float::sign("copysign", ty, false).ok_or_else(|| m.unknown("is unknown"))?;
                self.two(i, ty, ty, ty, Class::Float, f)?;
            }
            "testp" => {
                let what = m.pick(|s| {
                    matches!(
                        s,
                        "finite" | "infinite" | "number" | "notanumber" | "normal" | "subnormal"
                    )
                    .then_some(s)
                });
                let ty = m.ty()?;
                let f = what
                    .and_then(|w| float::testp(w, ty))
                    .ok_or_else(|| m.unknown("is unknown"))?;
                self.one(i, Ty::Pred, ty, Class::Float, f)?;
            }
            "setp" => self.setp(m, i)?,
            "set" => self.set(m, i)?,
            "selp" => {
                let ty = m.ty()?;
                let [d, a, b, p] = self.args::<4>(i)?;
                let f = match ty.file() {
                    File::R32 => op3!(u32, u32, bool => u32, |x, y, p| if p { x } else { y }),
                    File::R64 => op3!(u64, u64, bool => u64, |x, y, p| if p { x } else { y }),
                    File::Pred => return Err(m.unknown("has an unknown type")),
                };
                let args = Args {
                    d: self.dst(d, ty)?,
                    a: self.src(a, ty)?,
                    b: self.src(b, ty)?,
                    c: self.src(p, Ty::Pred)?,
                    ..Args::default()
                };
                self.alu(Class::Other, f, args);
            }
            "slct" => self.slct(m, i)?,
            "cvt" => self.cvt(m, i)?,
            "cvta" => self.cvta(m, i)?,
            "isspacep" => {
                let space = m
                    .pick(Space::parse)
                    .ok_or_else(|| m.unknown("has an unknown space"))?;
                let f = match space {
                    Space::Shared => {
                        op1!(u64 => bool, |x| x.wrapping_sub(SHARED_WINDOW) < WINDOW_SIZE)
                    }
                    Space::Local => {
                        op1!(u64 => bool, |x| x.wrapping_sub(LOCAL_WINDOW) < WINDOW_SIZE)
                    }
                    Space::Param => {
                        op1!(u64 => bool, |x| x.wrapping_sub(PARAM_WINDOW) < WINDOW_SIZE)
                    }
                    Space::Global => op1!(u64 => bool, |x| x >= SHARED_WINDOW + WINDOW_SIZE),
                    _ => return Err(m.unknown("has an unknown space")),
                };
                self.one(i, Ty::Pred, Ty::U64, Class::Other, f)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn one(
        &mut self,
        i: &RawInst<'m>,
        td: Ty,
        ta: Ty,
        class: Class,
        f: AluFn,
    ) -> Res<()> {
        let [d, a] = self.args::<2>(i)?;
        let a = self.src(a, ta)?;
        let args = Args {
            d: self.dst(d, td)?,
            a,
            b: a,
            c: a,
            ..Args::default()
        };
        self.alu(class, f, args);
        Ok(())
    }

    pub(super) fn two(
        &mut self,
        i: &RawInst<'m>,
        td: Ty,
        ta: Ty,
        tb: Ty,
        class: Class,
        f: AluFn,
    ) -> Res<()> {
        self.two_imm(i, [td, ta, tb], class, f, 0)
    }

    pub(super) fn two_imm(
        &mut self,
        i: &RawInst<'m>,
        t: [Ty; 3],
        class: Class,
        f: AluFn,
        imm: u32,
    ) -> Res<()> {
        let [d, a, b] = self.args::<3>(i)?;
        let (d, a, b) = (self.dst(d, t[0])?, self.src(a, t[1])?, self.src(b, t[2])?);
        self.alu(
            class,
            f,
            Args {
                d,
                a,
                b,
                c: a,
                imm,
                ..Args::default()
            },
        );
        Ok(())
    }

    pub(super) fn three(&mut self, i: &RawInst<'m>, t: [Ty; 4], class: Class, f: AluFn) -> Res<()> {
        self.three_imm(i, t, class, f, 0)
    }

    pub(super) fn three_imm(
        &mut self,
        i: &RawInst<'m>,
        t: [Ty; 4],
        class: Class,
        f: AluFn,
        imm: u32,
    ) -> Res<()> {
        let [d, a, b, c] = self.args::<4>(i)?;
        let args = Args {
            d: self.dst(d, t[0])?,
            a: self.src(a, t[1])?,
            b: self.src(b, t[2])?,
            c: self.src(c, t[3])?,
            imm,
            ..Args::default()
        };
        self.alu(class, f, args);
        Ok(())
    }

    fn mov(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let ty = m.ty()?;
        let [d, a] = self.args::<2>(i)?;
        match (d, a) {
            (_, Operand::Vec(parts)) => self.pack(m, ty, d, parts),
            (Operand::Vec(parts), _) => self.unpack(m, ty, parts, a),
            _ => {
                let before = self.instructions();
                let a = self.src(a, ty)?;
                let d = self.dst(d, ty)?;
                // A special register was read into a register of its own: let it go where it is wanted.
                if self.instructions() > before && self.redirect(d) {
                    return Ok(());
                }
                self.alu(
                    Class::Other,
                    copy(ty.file()),
                    Args {
                        d,
                        a,
                        ..Args::default()
                    },
                );
                Ok(())
            }
        }
    }

    fn pack(&mut self, m: &Mods<'m>, ty: Ty, d: &Operand<'m>, parts: &[Operand<'m>]) -> Res<()> {
        let d = self.dst(d, ty)?;
        let pack16 = op2!(u16, u16 => u32, |low, high| u32::from(high) << 16 | u32::from(low));
        let pack32 = op2!(u32, u32 => u64, |low, high| u64::from(high) << 32 | u64::from(low));
        match (ty.bytes(), parts) {
            (4, [low, high]) => {
                let (a, b) = (self.src(low, Ty::B16)?, self.src(high, Ty::B16)?);
                self.alu(
                    Class::Other,
                    pack16,
                    Args {
                        d,
                        a,
                        b,
                        ..Args::default()
                    },
                );
            }
            (8, [low, high]) => {
                let (a, b) = (self.src(low, Ty::B32)?, self.src(high, Ty::B32)?);
                self.alu(
                    Class::Other,
                    pack32,
                    Args {
                        d,
                        a,
                        b,
                        ..Args::default()
                    },
                );
            }
            (8, [p0, p1, p2, p3]) => {
                let (a, b) = (self.src(p0, Ty::B16)?, self.src(p1, Ty::B16)?);
                let low = self.new32();
                self.alu(
                    Class::Other,
                    pack16,
                    Args {
                        d: low,
                        a,
                        b,
                        ..Args::default()
                    },
                );
                let (a, b) = (self.src(p2, Ty::B16)?, self.src(p3, Ty::B16)?);
                let high = self.new32();
                self.alu(
                    Class::Other,
                    pack16,
                    Args {
                        d: high,
                        a,
                        b,
                        ..Args::default()
                    },
                );
                self.alu(
                    Class::Other,
                    pack32,
                    Args {
                        d,
                        a: low,
                        b: high,
                        ..Args::default()
                    },
                );
            }
            (4, [p0, p1, p2, p3]) => {
                let pack8 = op2!(u8, u8 => u16, |low, high| u16::from(high) << 8 | u16::from(low));
                let (a, b) = (self.src(p0, Ty::B8)?, self.src(p1, Ty::B8)?);
                let low = self.new32();
                self.alu(
                    Class::Other,
                    pack8,
                    Args {
                        d: low,
                        a,
                        b,
                        ..Args::default()
                    },
                );
                let (a, b) = (self.src(p2, Ty::B8)?, self.src(p3, Ty::B8)?);
                let high = self.new32();
                self.alu(
                    Class::Other,
                    pack8,
                    Args {
                        d: high,
                        a,
                        b,
                        ..Args::default()
                    },
                );
                self.alu(
                    Class::Other,
                    pack16,
                    Args {
                        d,
                        a: low,
                        b: high,
                        ..Args::default()
                    },
                );
            }
            (2, [low, high]) => {
                let pack8 = op2!(u8, u8 => u16, |low, high| u16::from(high) << 8 | u16::from(low));
                let (a, b) = (self.src(low, Ty::B8)?, self.src(high, Ty::B8)?);
                self.alu(
                    Class::Other,
                    pack8,
                    Args {
                        d,
                        a,
                        b,
                        ..Args::default()
                    },
                );
            }
            _ => return Err(m.unknown("packs a vector of an unknown shape")),
        }
        Ok(())
    }

    fn unpack(&mut self, m: &Mods<'m>, ty: Ty, parts: &[Operand<'m>], a: &Operand<'m>) -> Res<()> {
        let a = self.src(a, ty)?;
        let (element, functions): (Ty, &[AluFn]) = match (ty.bytes(), parts.len()) {
            (2, 2) => (
                Ty::B8,
                &[
                    op1!(u16 => u8, |x| x as u8),
                    op1!(u16 => u8, |x| (x >> 8) as u8),
                ],
            ),
            (4, 2) => (
                Ty::B16,
                &[
                    op1!(u32 => u16, |x| x as u16),
                    op1!(u32 => u16, |x| (x >> 16) as u16),
                ],
            ),
            (4, 4) => (
                Ty::B8,
                &[
                    op1!(u32 => u8, |x| x as u8),
                    op1!(u32 => u8, |x| (x >> 8) as u8),
                    op1!(u32 => u8, |x| (x >> 16) as u8),
                    op1!(u32 => u8, |x| (x >> 24) as u8),
                ],
            ),
            (8, 2) => (
                Ty::B32,
                &[
                    op1!(u64 => u32, |x| x as u32),
                    op1!(u64 => u32, |x| (x >> 32) as u32),
                ],
            ),
            (8, 4) => (
                Ty::B16,
                &[
                    op1!(u64 => u16, |x| x as u16),
                    op1!(u64 => u16, |x| (x >> 16) as u16),
                    op1!(u64 => u16, |x| (x >> 32) as u16),
                    op1!(u64 => u16, |x| (x >> 48) as u16),
                ],
            ),
            _ => return Err(m.unknown("unpacks into a vector of an unknown shape")),
        };
        for (part, f) in parts.iter().zip(functions) {
            let d = self.dst(part, element)?;
            self.alu(
                Class::Other,
                *f,
                Args {
                    d,
                    a,
                    ..Args::default()
                },
            );
        }
        Ok(())
    }

    fn lop3(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let combine = m.pick(|s| matches!(s, "or" | "and").then_some(s));
        let ty = m.ty()?;
        if ty != Ty::B32 {
            return Err(m.unknown("has an unknown type"));
        }
        let wanted = if combine.is_some() { 6 } else { 5 };
        if i.args.len() != wanted {
            return Err(m.unknown("has the wrong number of operands"));
        }
        let Operand::Int(table) = i.args[4] else {
            return Err(m.unknown("has no constant truth table"));
        };
        let (d, p) = match combine {
            Some(_) => self.value_and_pred(&i.args[0], ty)?,
            None => (self.dst(&i.args[0], ty)?, None),
        };
        let (a, b, c) = (
            self.src(&i.args[1], ty)?,
            self.src(&i.args[2], ty)?,
            self.src(&i.args[3], ty)?,
        );
        // The predicate form also tests the result: (d != 0) combined with the last operand.
        let test = match (combine, p) {
            (Some(op), Some(p)) => Some((op, p, self.src(&i.args[5], Ty::Pred)?)),
            (Some(_), None) => return Err(m.unknown("has no predicate")),
            _ => None,
        };
        self.alu(
            Class::Integer,
            int::lop3(),
            Args {
                d,
                a,
                b,
                c,
                imm: table as u32,
                ..Args::default()
            },
        );
        if let Some((op, p, q)) = test {
            let f = if op == "or" {
                op2!(u32, bool => bool, |x, q| (x != 0) | q)
            } else {
                op2!(u32, bool => bool, |x, q| (x != 0) & q)
            };
            self.alu(
                Class::Other,
                f,
                Args {
                    d: p,
                    a: d,
                    b: q,
                    ..Args::default()
                },
            );
        }
        Ok(())
    }
}
