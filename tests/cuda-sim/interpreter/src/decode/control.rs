//! Branches, calls, barriers and what warps do together.

use super::symbols::{Place, Scope};
use super::{Builder, Mods, Res};
use crate::counters::Class;
use crate::fault::{Fault, FaultKind};
use crate::ir::{BarKind, BarOp, Op, P_SINK, P_TRUE, ReduxOp, ShflMode, VoteMode};
use crate::parser::{Operand, RawInst};
use crate::types::{File, Ty};

/// Calls nested deeper than this are taken for recursion that the names do not show.
const MAX_DEPTH: usize = 64;
/// Instructions that a kernel may grow to by inlining.
const MAX_INSTRUCTIONS: usize = 4_000_000;

impl<'m> Builder<'m> {
    /// Decodes a control or warp instruction; false if its name is not one.
    pub(super) fn control(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<bool> {
        match m.base() {
            "bra" => {
                m.flag("uni");
                let [Operand::Name(name)] = self.args::<1>(i)? else {
                    return Err(m.unknown("has no label"));
                };
                let label = self.find_label(name)?;
                self.push(Class::Control, Op::Bra(label));
            }
            "brx" => {
                if !m.flag("idx") {
                    return Err(m.unknown("is unknown"));
                }
                m.flag("uni");
                let [index, Operand::Name(list)] = self.args::<2>(i)? else {
                    return Err(m.unknown("has no list of targets"));
                };
                let index = self.src(index, Ty::U32)?;
                let names = self.frame().targets.get(list).cloned();
                let names = names.ok_or_else(|| m.unknown("names no list of targets before it"))?;
                let targets = names
                    .iter()
                    .map(|n| self.find_label(n))
                    .collect::<Res<Vec<u32>>>()?;
                self.push(Class::Control, Op::Brx(index, targets));
            }
            "call" => self.call(m, i)?,
            "ret" => {
                m.flag("uni");
                let op = self.frame().ret.map_or(Op::Exit, Op::Bra);
                self.push(Class::Control, op);
            }
            "exit" => self.push(Class::Control, Op::Exit),
            "trap" => self.push(Class::Control, Op::Trap("trap")),
            "brkpt" => self.push(Class::Control, Op::Trap("breakpoint")),
            "nanosleep" => {
                let ty = m.ty()?;
                let [a] = self.args::<1>(i)?;
                self.src(a, ty)?;
                self.push(Class::Control, Op::Nop);
            }
            "griddepcontrol" => {
                // Launches never overlap here: the grid before has always finished.
                if !m.flag("wait") && !m.flag("launch_dependents") {
                    return Err(m.unknown("is unknown"));
                }
                self.push(Class::Sync, Op::Nop);
            }
            "bar" | "barrier" => self.barrier(m, i)?,
            "membar" => {
                let device = m.flag("gl") || m.flag("sys");
                if !device && !m.flag("cta") {
                    return Err(m.unknown("has an unknown scope"));
                }
                self.fence(device);
            }
            "fence" => {
                m.pick(|s| matches!(s, "sc" | "acq_rel" | "acquire" | "release").then_some(()));
                let device = m.flag("gpu") || m.flag("sys");
                if !device && !m.flag("cta") {
                    return Err(m.unknown("has an unknown scope"));
                }
                self.fence(device);
            }
            "shfl" => self.shfl(m, i)?,
            "vote" => self.vote(m, i)?,
            "match" => self.matching(m, i)?,
            "redux" => self.redux(m, i)?,
            "activemask" => {
                if m.ty()? != Ty::B32 {
                    return Err(m.unknown("has an unknown type"));
                }
                let [d] = self.args::<1>(i)?;
                let d = self.dst(d, Ty::B32)?;
                self.push(Class::Sync, Op::ActiveMask { d });
            }
            "elect" => {
                if !m.flag("sync") {
                    return Err(m.unknown("is unknown"));
                }
                let [d, members] = self.args::<2>(i)?;
                let (d, p) = self.value_and_pred(d, Ty::B32)?;
                let members = self.src(members, Ty::B32)?;
                self.push(
                    Class::Sync,
                    Op::Elect {
                        d,
                        p: p.unwrap_or(P_SINK),
                        members,
                    },
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn find_label(&mut self, name: &str) -> Res<u32> {
        self.frame().label(name).ok_or_else(|| {
            Fault::new(
                FaultKind::UnknownSymbol,
                format!("no label {name} in this function"),
            )
        })
    }

    fn fence(&mut self, device: bool) {
        self.code.device_fence |= device;
        self.push(Class::Sync, Op::Fence { device });
    }

    fn call(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        m.flag("uni");
        let none: &[Operand<'m>] = &[];
        let (returns, name, params) = match i.args.as_slice() {
            [Operand::List(r), Operand::Name(f), Operand::List(p)] => {
                (r.as_slice(), *f, p.as_slice())
            }
            [Operand::List(r), Operand::Name(f)] => (r.as_slice(), *f, none),
            [Operand::Name(f), Operand::List(p)] => (none, *f, p.as_slice()),
            [Operand::Name(f)] => (none, *f, none),
            _ => return Err(m.unknown("is an indirect call, which is not supported")),
        };
        if self.register(name).is_some() {
            return Err(m.unknown("is an indirect call, which is not supported"));
        }
        let module = self.module;
        let Some(f) = module.find(name) else {
            // Known functions of the device runtime: an error if they are ever reached.
            let what = match name {
                "__assertfail" => "a device assertion failed",
                "vprintf" => "printf is not supported",
                "malloc" | "free" => "allocation from device code is not supported",
                _ => {
                    return Err(Fault::new(
                        FaultKind::UnknownSymbol,
                        format!("call of {name}, which has no body"),
                    ));
                }
            };
            self.push(Class::Control, Op::Trap(what));
            return Ok(());
        };
        if self.frames.iter().any(|x| x.name == name) || self.frames.len() > MAX_DEPTH {
            return Err(Fault::new(
                FaultKind::Unsupported,
                format!("{name} calls itself: recursion is not supported"),
            ));
        }
        if self.insts.len() > MAX_INSTRUCTIONS {
            return Err(Fault::new(
                FaultKind::Unsupported,
                "the kernel grows too large by inlining its calls",
            ));
        }
        let header = module.header(f)?;
        if header.params.len() != params.len() || header.returns.len() != returns.len() {
            return Err(m.unknown("has the wrong number of parameters"));
        }
        let mut top = Scope::default();
        let formal = header.returns.iter().chain(&header.params);
        for (p, actual) in formal.zip(returns.iter().chain(params)) {
            let Operand::Name(actual) = actual else {
                return Err(m.unknown("passes something else than a parameter variable"));
            };
            match self.place(actual) {
                Some(place @ Place::CallParam { size, .. })
                    if !p.register && size as usize >= p.size =>
                {
                    top.vars.insert(p.name, place);
                }
                _ => {
                    return Err(m.unknown(&format!(
                        "passes {actual}, which is no parameter variable of the right size"
                    )));
                }
            }
        }
        let line = self.line;
        let after = self.new_label();
        if (self.guard, self.negate) != (P_TRUE, 0) {
            self.negate = !self.negate;
            self.push(Class::Control, Op::Bra(after));
        }
        (self.guard, self.negate) = (P_TRUE, 0);
        // A statement is decoded with the counts of its call still to come: nothing else is live across it.
        self.body(f, top, Some(after))?;
        self.line = line;
        (self.guard, self.negate) = (P_TRUE, 0);
        self.place_label(after);
        // Something must stand at the label, even if the caller ends here.
        self.push(Class::Control, Op::Nop);
        Ok(())
    }

    fn barrier(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        m.flag("cta");
        let long = m.base() == "barrier";
        if m.flag("warp") {
            if long || !m.flag("sync") {
                return Err(m.unknown("is unknown"));
            }
            let [members] = self.args::<1>(i)?;
            let members = self.src(members, Ty::B32)?;
            self.push(Class::Sync, Op::WarpSync { members });
            return Ok(());
        }
        let aligned = m.flag("aligned") || !long;
        let op = m
            .pick(|s| matches!(s, "sync" | "arrive" | "red").then_some(s))
            .unwrap_or("");
        let mut bar = BarOp {
            kind: BarKind::Sync,
            id: 0,
            count: None,
            aligned,
            p: P_TRUE,
            d: P_SINK,
        };
        match op {
            "sync" | "arrive" => {
                if op == "arrive" {
                    bar.kind = BarKind::Arrive;
                }
                match i.args.as_slice() {
                    [id] if op == "sync" => bar.id = self.src(id, Ty::U32)?,
                    [id, count] => {
                        bar.id = self.src(id, Ty::U32)?;
                        bar.count = Some(self.src(count, Ty::U32)?);
                    }
                    _ => return Err(m.unknown("has the wrong number of operands")),
                }
            }
            "red" => {
                let what = m.pick(|s| matches!(s, "popc" | "and" | "or").then_some(s));
                let ty = m.ty()?;
                bar.kind = match (what, ty) {
                    (Some("popc"), Ty::U32) => BarKind::RedPopc,
                    (Some("and"), Ty::Pred) => BarKind::RedAnd,
                    (Some("or"), Ty::Pred) => BarKind::RedOr,
                    _ => return Err(m.unknown("is unknown")),
                };
                let (d, id, count, p) = match i.args.as_slice() {
                    [d, id, p] => (d, id, None, p),
                    [d, id, count, p] => (d, id, Some(count), p),
                    _ => return Err(m.unknown("has the wrong number of operands")),
                };
                bar.d = self.dst(d, ty)?;
                bar.id = self.src(id, Ty::U32)?;
                if let Some(c) = count {
                    bar.count = Some(self.src(c, Ty::U32)?);
                }
                bar.p = self.src(p, Ty::Pred)?;
            }
            _ => return Err(m.unknown("is unknown")),
        }
        self.push(Class::Sync, Op::Bar(Box::new(bar)));
        Ok(())
    }

    fn shfl(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        if !m.flag("sync") {
            return Err(m.unknown("lacks .sync, without which it is not defined on these devices"));
        }
        let mode = m.pick(|s| match s {
            "up" => Some(ShflMode::Up),
            "down" => Some(ShflMode::Down),
            "bfly" => Some(ShflMode::Bfly),
            "idx" => Some(ShflMode::Idx),
            _ => None,
        });
        let mode = mode.ok_or_else(|| m.unknown("has no mode"))?;
        if m.ty()? != Ty::B32 {
            return Err(m.unknown("has an unknown type"));
        }
        let [d, a, b, c, members] = self.args::<5>(i)?;
        let (d, p) = self.value_and_pred(d, Ty::B32)?;
        let a = self.src(a, Ty::B32)?;
        let b = self.src(b, Ty::B32)?;
        let c = self.src(c, Ty::B32)?;
        let members = self.src(members, Ty::B32)?;
        self.push(
            Class::Sync,
            Op::Shfl {
                mode,
                d,
                p: p.unwrap_or(P_SINK),
                a,
                b,
                c,
                members,
            },
        );
        Ok(())
    }

    fn vote(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        if !m.flag("sync") {
            return Err(m.unknown("lacks .sync, without which it is not defined on these devices"));
        }
        let mode = m.pick(|s| match s {
            "all" => Some(VoteMode::All),
            "any" => Some(VoteMode::Any),
            "uni" => Some(VoteMode::Uni),
            "ballot" => Some(VoteMode::Ballot),
            _ => None,
        });
        let mode = mode.ok_or_else(|| m.unknown("has no mode"))?;
        let ty = m.ty()?;
        if ty
            != (if mode == VoteMode::Ballot {
                Ty::B32
            } else {
                Ty::Pred
            })
        {
            return Err(m.unknown("has an unknown type"));
        }
        let [d, a, members] = self.args::<3>(i)?;
        let d = self.dst(d, ty)?;
        let a = self.src(a, Ty::Pred)?;
        let members = self.src(members, Ty::B32)?;
        self.push(
            Class::Sync,
            Op::Vote {
                mode,
                d,
                a,
                members,
            },
        );
        Ok(())
    }

    fn matching(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let all = m.flag("all");
        if (!all && !m.flag("any")) || !m.flag("sync") {
            return Err(m.unknown("is unknown"));
        }
        let ty = m.ty()?;
        if !matches!(ty, Ty::B32 | Ty::B64) {
            return Err(m.unknown("has an unknown type"));
        }
        let [d, a, members] = self.args::<3>(i)?;
        let (d, p) = self.value_and_pred(d, Ty::B32)?;
        if p.is_some() && !all {
            return Err(m.unknown("has no predicate in this form"));
        }
        let a = self.src(a, ty)?;
        let members = self.src(members, Ty::B32)?;
        let wide = ty.file() == File::R64;
        self.push(
            Class::Sync,
            Op::Match {
                all,
                wide,
                d,
                p: p.unwrap_or(P_SINK),
                a,
                members,
            },
        );
        Ok(())
    }

    fn redux(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        if !m.flag("sync") {
            return Err(m.unknown("is unknown"));
        }
        let op = m.pick(|s| matches!(s, "add" | "min" | "max" | "and" | "or" | "xor").then_some(s));
        let ty = m.ty()?;
        let op = match (op, ty) {
            (Some("add"), Ty::U32 | Ty::S32) => ReduxOp::AddU,
            (Some("min"), Ty::U32) => ReduxOp::MinU,
            (Some("max"), Ty::U32) => ReduxOp::MaxU,
            (Some("min"), Ty::S32) => ReduxOp::MinS,
            (Some("max"), Ty::S32) => ReduxOp::MaxS,
            (Some("and"), Ty::B32) => ReduxOp::And,
            (Some("or"), Ty::B32) => ReduxOp::Or,
            (Some("xor"), Ty::B32) => ReduxOp::Xor,
            _ => return Err(m.unknown("is unknown")),
        };
        let [d, a, members] = self.args::<3>(i)?;
        let d = self.dst(d, ty)?;
        let a = self.src(a, ty)?;
        let members = self.src(members, Ty::B32)?;
        self.push(Class::Sync, Op::Redux { op, d, a, members });
        Ok(())
    }
}
