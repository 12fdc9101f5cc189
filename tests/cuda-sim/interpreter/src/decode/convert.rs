//! Conversions between types and between address spaces.

use super::values::copy;
use super::{Builder, Mods, Res, cvt};
use crate::counters::Class;
use crate::parser::RawInst;
use crate::regs::{Args, op1};
use crate::types::{File, LOCAL_WINDOW, Round, SHARED_WINDOW, Space, Ty};

impl<'m> Builder<'m> {
    pub(super) fn cvt(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let mods = cvt::CvtMods {
            round: m.pick(Round::float),
            integral: m.pick(Round::integer),
            ftz: m.flag("ftz"),
            sat: m.flag("sat"),
            relu: m.flag("relu"),
            satfinite: m.flag("satfinite"),
        };
        let (td, ta) = (m.ty()?, m.ty()?);
        let reject = |m: &Mods<'m>| m.unknown("is unknown");
        let pair = |t: Ty| matches!(t, Ty::F16x2 | Ty::BF16x2 | Ty::E4M3x2 | Ty::E5M2x2);
        if pair(td) && ta == Ty::F32 {
            let plain = !mods.ftz && !mods.sat && mods.integral.is_none();
            let round = matches!(mods.round, Some(Round::Near | Round::Zero));
            let f = cvt::pair(td, mods)
                .filter(|_| plain && round)
                .ok_or_else(|| reject(m))?;
            return self.two_imm(i, [td, ta, ta], Class::Other, f, cvt::pair_immediate(mods));
        }
        if pair(td) || pair(ta) {
            let f = cvt::eight_bit(td, ta, mods)
                .filter(|_| mods.round == Some(Round::Near) && !mods.ftz && !mods.sat);
            let f = f.ok_or_else(|| reject(m))?;
            return self.one(i, td, ta, Class::Other, f);
        }
        if !((td.float() || td.integer()) && (ta.float() || ta.integer())) {
            return Err(reject(m));
        }
        // Where a rounding is needed it must be there, and elsewhere it must not.
        let narrowing = td.float() && (ta.integer() || (ta.float() && loses(ta, td)));
        let to_int = td.integer() && ta.float();
        if mods.round.is_some() != narrowing
            || (to_int && mods.integral.is_none())
            || (mods.integral.is_some() && !to_int && td != ta)
            || (mods.ftz && ta != Ty::F32 && td != Ty::F32)
        {
            return Err(reject(m));
        }
        let [d, a] = self.args::<2>(i)?;
        let a = self.src_wide(a, ta)?;
        let d = self.dst_wide(d, td)?;
        if mods.relu || mods.satfinite {
            let ok = ta == Ty::F32
                && matches!(mods.round, Some(Round::Near | Round::Zero))
                && !mods.sat
                && !mods.ftz;
            let f = cvt::narrow(td).filter(|_| ok).ok_or_else(|| reject(m))?;
            let imm = cvt::pair_immediate(mods);
            self.alu(
                Class::Other,
                f,
                Args {
                    d: d.index,
                    a: a.index,
                    b: a.index,
                    c: a.index,
                    imm,
                    ..Args::default()
                },
            );
            return Ok(());
        }
        // A source register wider than its type lies in the other file if it has 64 bits: take its low half.
        let mut source = a.index;
        if a.file == File::R64 && ta.bytes() < 8 {
            source = self.new32();
            let low = op1!(u64 => u32, |x| x as u32);
            self.alu(
                Class::Other,
                low,
                Args {
                    d: source,
                    a: a.index,
                    ..Args::default()
                },
            );
        }
        let f = cvt::unary(td, ta, mods, d.bits).ok_or_else(|| reject(m))?;
        if d.bits == 64 && td.float() && td.bytes() < 8 {
            return Err(reject(m));
        }
        let imm = cvt::immediate(td, ta, mods, d.bits).ok_or_else(|| reject(m))?;
        self.alu(
            Class::Other,
            f,
            Args {
                d: d.index,
                a: source,
                b: source,
                c: source,
                imm,
                ..Args::default()
            },
        );
        Ok(())
    }

    pub(super) fn cvta(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let to = m.flag("to");
        let space = m
            .pick(Space::parse)
            .ok_or_else(|| m.unknown("has an unknown space"))?;
        let ty = m.ty()?;
        if ty.bytes() != 8 {
            return Err(m.unknown("has an unknown type"));
        }
        let f = match (space, to) {
            (Space::Shared, false) => op1!(u64 => u64, |x| x.wrapping_add(SHARED_WINDOW)),
            (Space::Shared, true) => op1!(u64 => u64, |x| x.wrapping_sub(SHARED_WINDOW)),
            (Space::Local, false) => op1!(u64 => u64, |x| x.wrapping_add(LOCAL_WINDOW)),
            (Space::Local, true) => op1!(u64 => u64, |x| x.wrapping_sub(LOCAL_WINDOW)),
            // Addresses of parameters carry their window already; global and constant memory have no other address.
            _ => copy(File::R64),
        };
        self.one(i, Ty::U64, Ty::U64, Class::Other, f)
    }
}

/// Whether values of one float type need rounding in another.
fn loses(from: Ty, to: Ty) -> bool {
    let exact = from == to || to == Ty::F64 || (to == Ty::F32 && from != Ty::F64);
    !exact
}
