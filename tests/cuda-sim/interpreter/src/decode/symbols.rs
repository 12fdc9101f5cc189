//! Names of registers, variables and labels, by scope; operands.

use std::collections::HashMap;

use super::{Builder, Reg, Res};
use crate::counters::Class;
use crate::fault::{Fault, FaultKind};
use crate::ir::{Address, Op, P_FALSE, P_SINK, P_TRUE, R_SINK, Special};
use crate::parser::{Operand, Stmt, StmtKind, VarDecl};
use crate::regs::{Args, op1};
use crate::types::{File, PARAM_WINDOW, Space, Ty};

/// Where a variable lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Shared(u32),
    /// `extern .shared`: behind all static shared memory.
    Dynamic,
    Local(u32),
    /// A kernel parameter.
    EntryParam(u32),
    /// A parameter of a call, in local memory.
    CallParam {
        offset: u32,
        size: u32,
    },
    Global(u64),
}

#[derive(Default)]
pub(super) struct Scope<'m> {
    pub regs: HashMap<&'m str, Reg>,
    /// `%r<10>`: prefix, count, first register.
    pub ranges: HashMap<&'m str, (u32, Reg)>,
    pub vars: HashMap<&'m str, Place>,
    /// Number of the scope within the function, for labels.
    id: u32,
}

/// A function being decoded, or inlined.
pub(super) struct Frame<'m> {
    pub name: &'m str,
    scopes: Vec<Scope<'m>>,
    opened: u32,
    labels: HashMap<(u32, &'m str), u32>,
    pub targets: HashMap<&'m str, Vec<&'m str>>,
    pub last_label: Option<&'m str>,
    pub ret: Option<u32>,
}

impl<'m> Frame<'m> {
    pub fn new(name: &'m str, top: Scope<'m>, ret: Option<u32>) -> Self {
        Self {
            name,
            scopes: vec![top],
            opened: 0,
            labels: HashMap::new(),
            targets: HashMap::new(),
            last_label: None,
            ret,
        }
    }

    /// Labels may be used before they are placed, so that they are numbered first, scope by scope.
    pub fn collect_labels(&mut self, statements: &[Stmt<'m>], labels: &mut Vec<Option<u32>>) {
        let (mut stack, mut opened) = (vec![0], 0);
        for s in statements {
            match &s.kind {
                StmtKind::Open => {
                    opened += 1;
                    stack.push(opened);
                }
                StmtKind::Close => {
                    stack.pop();
                }
                StmtKind::Label(name) => {
                    let scope = stack.last().copied().unwrap_or(0);
                    self.labels.insert((scope, name), labels.len() as u32);
                    labels.push(None);
                }
                _ => {}
            }
        }
    }

    pub fn open(&mut self) {
        self.opened += 1;
        self.scopes.push(Scope {
            id: self.opened,
            ..Scope::default()
        });
    }

    pub fn close(&mut self) -> Res<()> {
        if self.scopes.len() < 2 {
            return Err(Fault::new(
                FaultKind::Parse,
                "a closing brace without an opening one",
            ));
        }
        self.scopes.pop();
        Ok(())
    }

    pub fn scope(&mut self) -> &mut Scope<'m> {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    pub fn label(&self, name: &str) -> Option<u32> {
        self.scopes
            .iter()
            .rev()
            .find_map(|s| self.labels.get(&(s.id, name)).copied())
    }

    fn register(&self, name: &str) -> Option<Reg> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: Option<u32> = name[stem.len()..].parse().ok();
        self.scopes.iter().rev().find_map(|s| {
            if let Some(&r) = s.regs.get(name) {
                return Some(r);
            }
            let &(count, first) = s.ranges.get(stem)?;
            let n = number.filter(|&n| n < count)?;
            Some(Reg {
                index: first.index + n,
                ..first
            })
        })
    }

    fn var(&self, name: &str) -> Option<Place> {
        self.scopes
            .iter()
            .rev()
            .find_map(|s| s.vars.get(name).copied())
    }
}

/// A special register by name, and whether it has 64 bits.
fn special(name: &str) -> Option<(Special, bool)> {
    let axis = |s: &str| match s {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((stem, a)) = name.split_once('.') {
        let a = axis(a)?;
        let s = match stem {
            "tid" => Special::Tid(a),
            "ntid" => Special::Ntid(a),
            "ctaid" => Special::Ctaid(a),
            "nctaid" => Special::Nctaid(a),
            _ => return None,
        };
        return Some((s, false));
    }
    Some(match name {
        "laneid" => (Special::LaneId, false),
        "warpid" => (Special::WarpId, false),
        "nwarpid" => (Special::NWarpId, false),
        "smid" => (Special::SmId, false),
        "nsmid" => (Special::NSmId, false),
        "gridid" => (Special::GridId, true),
        "lanemask_eq" => (Special::LaneMaskEq, false),
        "lanemask_lt" => (Special::LaneMaskLt, false),
        "lanemask_le" => (Special::LaneMaskLe, false),
        "lanemask_gt" => (Special::LaneMaskGt, false),
        "lanemask_ge" => (Special::LaneMaskGe, false),
        "clock" => (Special::Clock, false),
        "clock64" => (Special::Clock, true),
        "globaltimer" => (Special::GlobalTimer, true),
        "globaltimer_lo" => (Special::GlobalTimer, false),
        "dynamic_smem_size" => (Special::DynamicShared, false),
        "total_smem_size" => (Special::TotalShared, false),
        _ => return None,
    })
}

fn parse_error(message: String) -> Fault {
    Fault::new(FaultKind::Parse, message)
}

impl<'m> Builder<'m> {
    pub(super) fn register(&self, name: &str) -> Option<Reg> {
        self.frames.last()?.register(name)
    }

    pub(super) fn declare_variable(&mut self, v: &VarDecl<'m>) -> Res<()> {
        let align = v.align.max(1) as usize;
        let place = match v.space {
            Space::Shared if v.is_extern || v.size == 0 => Place::Dynamic,
            Space::Shared => {
                let at = self.code.static_shared.next_multiple_of(align);
                self.code.static_shared = at + v.size;
                Place::Shared(at as u32)
            }
            Space::Local | Space::Param => {
                let at = self.code.local.next_multiple_of(align.max(8));
                self.code.local = at + v.size;
                if self.code.local > 1 << 24 {
                    return Err(Fault::new(
                        FaultKind::Unsupported,
                        "more than 16 MiB of local memory per thread",
                    ));
                }
                if v.space == Space::Local {
                    Place::Local(at as u32)
                } else {
                    Place::CallParam {
                        offset: at as u32,
                        size: v.size as u32,
                    }
                }
            }
            _ => {
                return Err(Fault::new(
                    FaultKind::Unsupported,
                    format!("variable {} of that space in a body", v.name),
                ));
            }
        };
        self.frame().scope().vars.insert(v.name, place);
        Ok(())
    }

    /// A variable of the function or the module.
    pub(super) fn place(&mut self, name: &str) -> Option<Place> {
        if let Some(p) = self.frames.last()?.var(name) {
            return Some(p);
        }
        let module = self.module;
        if let Some((addr, _)) = module.global(name) {
            return Some(Place::Global(addr));
        }
        let (key, size, align) = module.shared_variable(name)?;
        if size == 0 {
            return Some(Place::Dynamic);
        }
        if let Some(&at) = self.shared.get(key) {
            return Some(Place::Shared(at));
        }
        let at = self
            .code
            .static_shared
            .next_multiple_of(align.max(1) as usize);
        self.code.static_shared = at + size;
        self.shared.insert(key, at as u32);
        Some(Place::Shared(at as u32))
    }

    /// A register of `file` that holds a variable's address in its own space.
    pub(super) fn address_of(&mut self, name: &str, file: File) -> Res<u32> {
        let place = self.place(name).ok_or_else(|| {
            Fault::new(FaultKind::UnknownSymbol, format!("{name} is not declared"))
        })?;
        let value = match place {
            Place::Dynamic => return Ok(self.dynamic_register(file)),
            Place::Shared(o) | Place::Local(o) | Place::CallParam { offset: o, .. } => u64::from(o),
            Place::EntryParam(o) => PARAM_WINDOW + u64::from(o),
            Place::Global(a) => a,
        };
        match file {
            File::R64 => Ok(self.const64(value)),
            File::R32 if matches!(place, Place::Shared(_) | Place::Local(_)) => {
                Ok(self.const32(value as u32))
            }
            _ => Err(Fault::new(
                FaultKind::Unsupported,
                format!("address of {name} in a register of that size"),
            )),
        }
    }

    fn dynamic_register(&mut self, file: File) -> u32 {
        if file == File::R64 {
            if let Some(r) = self.dynamic64 {
                return r;
            }
            let r = self.new64();
            self.dynamic64 = Some(r);
            r
        } else {
            if let Some(r) = self.dynamic32 {
                return r;
            }
            let r = self.new32();
            self.dynamic32 = Some(r);
            r
        }
    }

    /// Base and offset of a memory operand.
    pub(super) fn address(&mut self, o: &Operand<'m>) -> Res<Address> {
        let Operand::Mem(base, offset) = o else {
            return Err(parse_error("expected an address in brackets".into()));
        };
        let Some(name) = base else {
            return Ok(Address {
                base: self.const64(0),
                wide: true,
                offset: *offset,
            });
        };
        if let Some(r) = self.register(name) {
            let wide = match (r.file, r.bits) {
                (File::R64, _) => true,
                (File::R32, 32) => false,
                _ => return Err(parse_error(format!("{name} cannot hold an address"))),
            };
            return Ok(Address {
                base: r.index,
                wide,
                offset: *offset,
            });
        }
        Ok(Address {
            base: self.address_of(name, File::R64)?,
            wide: true,
            offset: *offset,
        })
    }

    /// A source operand of a type: the register that holds it, constants included.
    pub(super) fn src(&mut self, o: &Operand<'m>, ty: Ty) -> Res<u32> {
        self.source(o, ty, false)
    }

    /// As [`src`](Self::src), but a register wider than the type will do (conversions and stores).
    pub(super) fn src_wide(&mut self, o: &Operand<'m>, ty: Ty) -> Res<Reg> {
        if let Operand::Name(name) = o
            && let Some(r) = self.register(name)
        {
            if r.bits >= ty.bytes() * 8 && (r.file == File::Pred) == (ty == Ty::Pred) {
                return Ok(r);
            }
            return Err(parse_error(format!("register {name} is too narrow")));
        }
        let index = self.source(o, ty, false)?;
        Ok(Reg {
            file: ty.file(),
            index,
            bits: ty.bytes() * 8,
        })
    }

    fn source(&mut self, o: &Operand<'m>, ty: Ty, _wide: bool) -> Res<u32> {
        let file = ty.file();
        match o {
            Operand::Name(name) => {
                if let Some(r) = self.register(name) {
                    if r.file != file || (file != File::Pred && r.bits != ty.bytes() * 8) {
                        return Err(parse_error(format!(
                            "register {name} does not fit the type of the instruction"
                        )));
                    }
                    return Ok(r.index);
                }
                if *name == "WARP_SZ" {
                    return self.src(&Operand::Int(32), ty);
                }
                if let Some((which, wide)) = special(name) {
                    // Most special registers have 32 bits, and may be read into 64.
                    let to64 = file == File::R64;
                    if file == File::Pred
                        || (wide && !to64 && which != Special::GridId)
                        || ty.bytes() < 4
                    {
                        return Err(parse_error(format!(
                            "{name} does not fit the type of the instruction"
                        )));
                    }
                    let d = self.temp(file);
                    self.push(
                        Class::Other,
                        Op::Special {
                            d,
                            wide: to64,
                            which,
                        },
                    );
                    return Ok(d);
                }
                if name.starts_with('%') && self.place(name).is_none() {
                    return Err(Fault::new(
                        FaultKind::Unsupported,
                        format!("unknown register {name}"),
                    ));
                }
                self.address_of(name, file)
            }
            Operand::Sum(name, offset) => match self.place(name) {
                Some(Place::Global(a)) if file == File::R64 => {
                    Ok(self.const64(a.wrapping_add_signed(*offset)))
                }
                Some(Place::Shared(o)) if file == File::R64 => {
                    Ok(self.const64(u64::from(o).wrapping_add_signed(*offset)))
                }
                Some(Place::Shared(o)) if file == File::R32 => {
                    Ok(self.const32(o.wrapping_add_signed(*offset as i32)))
                }
                Some(Place::Local(o)) if file == File::R64 => {
                    Ok(self.const64(u64::from(o).wrapping_add_signed(*offset)))
                }
                _ => Err(Fault::new(
                    FaultKind::Unsupported,
                    format!("the address expression {name}+{offset}"),
                )),
            },
            Operand::Not(name) if file == File::Pred => {
                let a = self.src(&Operand::Name(name), ty)?;
                let d = self.new_pred();
                let f = op1!(bool => bool, |x| !x);
                self.alu(
                    Class::Other,
                    f,
                    Args {
                        d,
                        a,
                        ..Args::default()
                    },
                );
                Ok(d)
            }
            Operand::Int(v) => match (file, ty) {
                (File::Pred, _) => Ok(if *v != 0 { P_TRUE } else { P_FALSE }),
                // Integers stand for themselves in integer and bit types; as the value of a float they are an error.
                (_, Ty::F32 | Ty::F64) => {
                    Err(parse_error("an integer where a float is wanted".into()))
                }
                (File::R64, _) => Ok(self.const64(*v)),
                _ if ty.bytes() == 1 => Ok(self.const32(*v as u32 & 0xff)),
                _ if ty.bytes() == 2 => Ok(self.const32(*v as u32 & 0xffff)),
                _ => Ok(self.const32(*v as u32)),
            },
            Operand::F32(bits) if file == File::R32 && ty.bytes() == 4 => Ok(self.const32(*bits)),
            Operand::F64(bits) if file == File::R64 => Ok(self.const64(*bits)),
            // A decimal constant in an f32 instruction.
            Operand::F64(bits) if ty == Ty::F32 => {
                Ok(self.const32((f64::from_bits(*bits) as f32).to_bits()))
            }
            _ => Err(parse_error(format!(
                "operand {o:?} does not fit the type of the instruction"
            ))),
        }
    }

    /// A destination register of a type; `_` is allowed.
    pub(super) fn dst(&mut self, o: &Operand<'m>, ty: Ty) -> Res<u32> {
        let Operand::Name(name) = o else {
            return Err(parse_error("expected a destination register".into()));
        };
        if *name == "_" {
            return Ok(if ty == Ty::Pred { P_SINK } else { R_SINK });
        }
        match self.register(name) {
            Some(r) if r.file == ty.file() && (ty == Ty::Pred || r.bits == ty.bytes() * 8) => {
                Ok(r.index)
            }
            Some(_) => Err(parse_error(format!(
                "register {name} does not fit the type of the instruction"
            ))),
            None => Err(parse_error(format!("register {name} is not declared"))),
        }
    }

    /// A destination register at least as wide as the type.
    pub(super) fn dst_wide(&mut self, o: &Operand<'m>, ty: Ty) -> Res<Reg> {
        let Operand::Name(name) = o else {
            return Err(parse_error("expected a destination register".into()));
        };
        if *name == "_" {
            return Ok(Reg {
                file: ty.file(),
                index: R_SINK,
                bits: ty.bytes() * 8,
            });
        }
        match self.register(name) {
            Some(r) if r.file != File::Pred && r.bits >= ty.bytes() * 8 => Ok(r),
            Some(_) => Err(parse_error(format!("register {name} is too narrow"))),
            None => Err(parse_error(format!("register {name} is not declared"))),
        }
    }

    /// `p` or `p|q` as predicate destinations.
    pub(super) fn pred_pair(&mut self, o: &Operand<'m>) -> Res<(u32, Option<u32>)> {
        match o {
            Operand::Pair(p, q) => {
                let p = self.dst(&Operand::Name(p), Ty::Pred)?;
                Ok((p, Some(self.dst(&Operand::Name(q), Ty::Pred)?)))
            }
            _ => Ok((self.dst(o, Ty::Pred)?, None)),
        }
    }

    /// `d` or `d|p`: a value and a predicate.
    pub(super) fn value_and_pred(&mut self, o: &Operand<'m>, ty: Ty) -> Res<(u32, Option<u32>)> {
        match o {
            Operand::Pair(d, p) => {
                let d = self.dst(&Operand::Name(d), ty)?;
                Ok((d, Some(self.dst(&Operand::Name(p), Ty::Pred)?)))
            }
            _ => Ok((self.dst(o, ty)?, None)),
        }
    }
}
