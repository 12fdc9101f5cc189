//! Loads, stores, atomics.

use super::symbols::Place;
use super::{Builder, Mods, Res};
use crate::atomic;
use crate::counters::Class;
use crate::ir::{AtomOp, Cell, MemOp, Op, R_SINK};
use crate::parser::{Operand, RawInst};
use crate::types::{File, Space, Ty};

/// Marks modifiers that change nothing here: cache operators, eviction and prefetch hints, scopes.
fn ignore_hints(m: &mut Mods<'_>) {
    for hint in [
        "weak", "cta", "cluster", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc",
    ] {
        m.flag(hint);
    }
    while m
        .pick(|s| {
            matches!(
                s,
                "L1::evict_normal"
                    | "L1::evict_unchanged"
                    | "L1::evict_first"
                    | "L1::evict_last"
                    | "L1::no_allocate"
                    | "L2::evict_normal"
                    | "L2::evict_first"
                    | "L2::evict_last"
                    | "L2::64B"
                    | "L2::128B"
                    | "L2::256B"
            )
            .then_some(())
        })
        .is_some()
    {}
}

/// Marks a memory-ordering modifier: whether the access may meet others without a race, and whether it releases.
fn strong(m: &mut Mods<'_>) -> (bool, bool) {
    let weak = m.flag("volatile") | m.flag("relaxed") | m.flag("acquire");
    let release = m.flag("release") | m.flag("acq_rel");
    (weak | release, release)
}

impl<'m> Builder<'m> {
    /// Decodes a memory instruction; false if its name is not one.
    pub(super) fn memory(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<bool> {
        match m.base() {
            "ld" | "ldu" => self.load(m, i)?,
            "st" => self.store(m, i)?,
            "atom" | "red" => self.atomic(m, i)?,
            // Hints to the caches.
            "prefetch" | "prefetchu" => {
                m.pick(Space::parse);
                m.pick(|s| {
                    matches!(s, "L1" | "L2" | "L2::evict_last" | "L2::evict_normal").then_some(())
                });
                self.push(Class::Memory, Op::Nop);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn lanes(m: &mut Mods<'m>) -> usize {
        m.pick(|s| match s {
            "v2" => Some(2),
            "v4" => Some(4),
            "v8" => Some(8),
            _ => None,
        })
        .unwrap_or(1)
    }

    fn note_width(&mut self, space: Space, bytes: u32) {
        if matches!(space, Space::Shared | Space::Generic) {
            self.granule = self.granule.min(bytes);
        }
        if matches!(space, Space::Global | Space::Const | Space::Generic) {
            self.global_granule = self.global_granule.min(bytes);
        }
    }

    fn load(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let (strong, release) = strong(m);
        ignore_hints(m);
        let space = m.pick(Space::parse).unwrap_or(Space::Generic);
        let n = Self::lanes(m);
        let ty = m.ty()?;
        let [d, a] = self.args::<2>(i)?;
        if ty == Ty::Pred || ty == Ty::B128 {
            return Err(m.unknown("has an unknown type"));
        }
        let parts: Vec<&Operand<'m>> = match d {
            Operand::Vec(parts) if n > 1 && parts.len() == n => parts.iter().collect(),
            d if n == 1 => vec![d],
            _ => return Err(m.unknown("has a vector of the wrong length")),
        };
        let mut cells = Vec::with_capacity(n);
        for part in parts {
            let r = self.dst_wide(part, ty)?;
            cells.push(Cell {
                index: r.index,
                file: r.file,
                extend: if ty.signed() { r.bits } else { 0 },
            });
        }
        let width = ty.bytes();
        if space == Space::Param
            && let Operand::Mem(Some(name), offset) = a
            && let Some(Place::EntryParam(at)) = self.place_of_operand(name)
        {
            let offset = u32::try_from(i64::from(at) + offset)
                .map_err(|_| m.unknown("has a bad address"))?;
            self.push(
                Class::Memory,
                Op::LdParam {
                    width,
                    offset,
                    cells,
                },
            );
            return Ok(());
        }
        self.note_width(space, width);
        let (space, quiet) = self.resolve_param(space, a);
        let address = self.address(a)?;
        let op = MemOp {
            space,
            address,
            width,
            cells,
            strong,
            release,
            quiet,
        };
        self.code.device_fence |= release;
        self.push(Class::Memory, Op::Load(Box::new(op)));
        Ok(())
    }

    fn place_of_operand(&mut self, name: &str) -> Option<Place> {
        if self.register(name).is_some() {
            None
        } else {
            self.place(name)
        }
    }

    /// Parameters of calls lie in local memory.
    fn resolve_param(&mut self, space: Space, a: &Operand<'m>) -> (Space, bool) {
        if space == Space::Param
            && let Operand::Mem(Some(name), _) = a
            && let Some(Place::CallParam { .. }) = self.place_of_operand(name)
        {
            return (Space::Local, true);
        }
        (space, space == Space::Param)
    }

    fn store(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let (strong, release) = strong(m);
        ignore_hints(m);
        let space = m.pick(Space::parse).unwrap_or(Space::Generic);
        let n = Self::lanes(m);
        let ty = m.ty()?;
        let [a, s] = self.args::<2>(i)?;
        if ty == Ty::Pred || ty == Ty::B128 {
            return Err(m.unknown("has an unknown type"));
        }
        let parts: Vec<&Operand<'m>> = match s {
            Operand::Vec(parts) if n > 1 && parts.len() == n => parts.iter().collect(),
            s if n == 1 => vec![s],
            _ => return Err(m.unknown("has a vector of the wrong length")),
        };
        let mut cells = Vec::with_capacity(n);
        for part in parts {
            let r = self.src_wide(part, ty)?;
            cells.push(Cell {
                index: r.index,
                file: r.file,
                extend: 0,
            });
        }
        let width = ty.bytes();
        self.note_width(space, width);
        let (space, quiet) = self.resolve_param(space, a);
        let address = self.address(a)?;
        let op = MemOp {
            space,
            address,
            width,
            cells,
            strong,
            release,
            quiet,
        };
        self.code.device_fence |= release;
        self.push(Class::Memory, Op::Store(Box::new(op)));
        Ok(())
    }

    fn atomic(&mut self, m: &mut Mods<'m>, i: &RawInst<'m>) -> Res<()> {
        let (_, release) = strong(m);
        self.code.device_fence |= release;
        ignore_hints(m);
        let space = m.pick(Space::parse).unwrap_or(Space::Generic);
        let noftz = m.flag("noftz");
        let op = m.pick(|s| {
            matches!(
                s,
                "add" | "min" | "max" | "inc" | "dec" | "exch" | "cas" | "and" | "or" | "xor"
            )
            .then_some(s)
        });
        let ty = m.ty()?;
        let f = op
            .and_then(|op| atomic::function(op, ty, noftz))
            .ok_or_else(|| m.unknown("is unknown"))?;
        let cas = op == Some("cas");
        if !matches!(space, Space::Generic | Space::Global | Space::Shared) {
            return Err(m.unknown("has an unknown space"));
        }
        let returns = m.base() == "atom";
        let operands = 2 + usize::from(returns) + usize::from(cas);
        if i.args.len() != operands || (cas && !returns) {
            return Err(m.unknown("has the wrong number of operands"));
        }
        let at = usize::from(returns);
        let dst = if returns {
            let d = self.dst(&i.args[0], ty)?;
            (d != R_SINK).then_some(d)
        } else {
            None
        };
        let address = self.address(&i.args[at])?;
        let b = self.src(&i.args[at + 1], ty)?;
        let c = if cas {
            self.src(&i.args[at + 2], ty)?
        } else {
            b
        };
        let file = ty.file();
        let flushes = op == Some("add") && ty == Ty::F32;
        debug_assert!(file != File::Pred);
        self.note_width(space, ty.bytes());
        let op = AtomOp {
            space,
            address,
            width: ty.bytes(),
            file,
            dst,
            b,
            c,
            f,
            flushes,
            release,
        };
        self.push(Class::Memory, Op::Atom(Box::new(op)));
        Ok(())
    }
}
