//! Statements to decoded instructions: names to numbers, calls to inlined bodies.

mod arithmetic;
mod compare;
mod control;
mod convert;
mod cvt;
#[expect(
    clippy::double_comparisons,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "comparisons that involve NaN mean what they say"
)]
mod float;
mod int;
mod memory;
mod symbols;
mod values;

use std::collections::HashMap;

use crate::allocate;
use crate::cfg;
use crate::counters::Class;
use crate::fault::{Fault, FaultKind};
use crate::ir::{Code, Inst, Op, P_FALSE, P_SINK, P_TRUE};
use crate::lexer;
use crate::module::{FunctionText, Module};
use crate::parser::{Operand, Parser, RawInst, Stmt, StmtKind};
use crate::regs::{AluFn, Args};
use crate::types::{File, Ty};

use symbols::{Frame, Place, Scope};

type Res<T> = Result<T, Fault>;

/// A register as declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reg {
    file: File,
    index: u32,
    bits: u32,
}

/// An opcode split at its dots; every part must be used, or the instruction is unknown.
pub(crate) struct Mods<'a> {
    whole: &'a str,
    parts: Vec<&'a str>,
    used: Vec<bool>,
}

impl<'a> Mods<'a> {
    fn new(whole: &'a str) -> Self {
        let parts: Vec<&str> = whole.split('.').collect();
        let mut used = vec![false; parts.len()];
        used[0] = true;
        Self { whole, parts, used }
    }

    fn base(&self) -> &'a str {
        self.parts[0]
    }

    /// Whether a modifier is there; marks it used.
    fn flag(&mut self, name: &str) -> bool {
        match (1..self.parts.len()).find(|&i| !self.used[i] && self.parts[i] == name) {
            Some(i) => {
                self.used[i] = true;
                true
            }
            None => false,
        }
    }

    /// The first unused modifier that `f` accepts.
    fn pick<T>(&mut self, f: impl Fn(&'a str) -> Option<T>) -> Option<T> {
        for i in 1..self.parts.len() {
            if !self.used[i]
                && let Some(v) = f(self.parts[i])
            {
                self.used[i] = true;
                return Some(v);
            }
        }
        None
    }

    fn ty(&mut self) -> Res<Ty> {
        match self.pick(Ty::parse) {
            Some(t) => Ok(t),
            None => Err(self.unknown("has no type that is known")),
        }
    }

    fn unknown(&self, why: &str) -> Fault {
        Fault::new(
            FaultKind::Unsupported,
            format!("instruction {} {why}", self.whole),
        )
    }

    /// An error naming the first unused modifier.
    fn finish(&self) -> Res<()> {
        match self.used.iter().position(|u| !u) {
            None => Ok(()),
            Some(i) => Err(self.unknown(&format!("has the unknown modifier .{}", self.parts[i]))),
        }
    }
}

/// Decodes one kernel and all that it calls.
pub(crate) struct Builder<'m> {
    module: &'m Module,
    insts: Vec<Inst>,
    /// Where each label stands, once it is reached.
    labels: Vec<Option<u32>>,
    frames: Vec<Frame<'m>>,
    code: Code,
    n32: u32,
    n64: u32,
    np: u32,
    consts32: HashMap<u32, u32>,
    consts64: HashMap<u64, u32>,
    /// Registers that will hold the start of dynamic shared memory.
    dynamic32: Option<u32>,
    dynamic64: Option<u32>,
    /// Module-scope shared variables that the kernel uses.
    shared: HashMap<&'m str, u32>,
    granule: u32,
    global_granule: u32,
    guard: u32,
    negate: u32,
    line: u32,
    /// The carry flag, a predicate register.
    carry: u32,
}

/// Decodes the kernel `f`.
pub(crate) fn decode(module: &Module, f: &FunctionText) -> Res<Code> {
    let mut b = Builder {
        module,
        insts: Vec::new(),
        labels: Vec::new(),
        frames: Vec::new(),
        code: Code::default(),
        // Register 0 of each file swallows what nobody reads.
        n32: 1,
        n64: 1,
        np: P_SINK + 1,
        consts32: HashMap::new(),
        consts64: HashMap::new(),
        dynamic32: None,
        dynamic64: None,
        shared: HashMap::new(),
        granule: 16,
        global_granule: 16,
        guard: P_TRUE,
        negate: 0,
        line: f.line,
        carry: P_FALSE,
    };
    b.carry = b.new_pred();
    let mut top = Scope::default();
    let header = module.header(f)?;
    let mut offset = 0usize;
    for p in &header.params {
        offset = offset.next_multiple_of(p.align.max(1) as usize);
        top.vars.insert(p.name, Place::EntryParam(offset as u32));
        offset += p.size;
    }
    b.body(f, top, None)?;
    b.finish()
}

impl<'m> Builder<'m> {
    /// Decodes a body in a new frame; `ret` is the label that a return jumps to, if not the end of the thread.
    fn body(&mut self, f: &FunctionText, top: Scope<'m>, ret: Option<u32>) -> Res<()> {
        let module = self.module;
        let text = module.body_text(f);
        let tokens = lexer::lex(text, f.body_line)?;
        let statements = Parser::new(&tokens).body()?;
        let mut frame = Frame::new(module.name_of(f), top, ret);
        frame.collect_labels(&statements, &mut self.labels);
        self.frames.push(frame);
        for s in &statements {
            self.line = s.line;
            self.statement(s)
                .map_err(|e| e.at_line(s.line, module.line_text(s.line)))?;
        }
        self.frames.pop();
        Ok(())
    }

    fn frame(&mut self) -> &mut Frame<'m> {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn statement(&mut self, s: &Stmt<'m>) -> Res<()> {
        match &s.kind {
            StmtKind::Open => self.frame().open(),
            StmtKind::Close => return self.frame().close(),
            StmtKind::Label(name) => {
                let here = self.insts.len() as u32;
                if let Some(id) = self.frame().label(name) {
                    self.labels[id as usize] = Some(here);
                }
                self.frame().last_label = Some(*name);
            }
            StmtKind::Reg(ty, name, count) => self.declare_registers(*ty, name, *count)?,
            StmtKind::Var(v) => self.declare_variable(v)?,
            StmtKind::Targets(names) => {
                let frame = self.frame();
                if let Some(label) = frame.last_label {
                    frame.targets.insert(label, names.clone());
                }
            }
            StmtKind::Inst(i) => return self.instruction(i),
        }
        Ok(())
    }

    fn declare_registers(&mut self, ty: Ty, name: &'m str, count: Option<u32>) -> Res<()> {
        let file = ty.file();
        let n = count.unwrap_or(1);
        if n > 1 << 20 || ty == Ty::B128 {
            return Err(Fault::new(
                FaultKind::Unsupported,
                format!("registers {name} of this type or number"),
            ));
        }
        let index = match file {
            File::Pred => &mut self.np,
            File::R32 => &mut self.n32,
            File::R64 => &mut self.n64,
        };
        let first = *index;
        *index += n;
        let reg = Reg {
            file,
            index: first,
            bits: ty.bytes() * 8,
        };
        let scope = self.frame().scope();
        match count {
            None => {
                scope.regs.insert(name, reg);
            }
            Some(n) => {
                scope.ranges.insert(name, (n, reg));
            }
        }
        Ok(())
    }

    fn new32(&mut self) -> u32 {
        self.n32 += 1;
        self.n32 - 1
    }

    fn new64(&mut self) -> u32 {
        self.n64 += 1;
        self.n64 - 1
    }

    fn new_pred(&mut self) -> u32 {
        self.np += 1;
        self.np - 1
    }

    fn temp(&mut self, file: File) -> u32 {
        match file {
            File::Pred => self.new_pred(),
            File::R32 => self.new32(),
            File::R64 => self.new64(),
        }
    }

    fn const32(&mut self, value: u32) -> u32 {
        if let Some(&r) = self.consts32.get(&value) {
            return r;
        }
        let r = self.new32();
        self.consts32.insert(value, r);
        self.code.const32.push((r, value));
        r
    }

    fn const64(&mut self, value: u64) -> u32 {
        if let Some(&r) = self.consts64.get(&value) {
            return r;
        }
        let r = self.new64();
        self.consts64.insert(value, r);
        self.code.const64.push((r, value));
        r
    }

    fn push(&mut self, class: Class, op: Op) {
        self.insts.push(Inst {
            op,
            guard: self.guard,
            negate: self.negate,
            line: self.line,
            class,
        });
    }

    fn instructions(&self) -> usize {
        self.insts.len()
    }

    /// Makes the last instruction write to `to`, if it reads a special register.
    fn redirect(&mut self, to: u32) -> bool {
        match self.insts.last_mut() {
            Some(Inst {
                op: Op::Special { d, .. },
                ..
            }) => {
                *d = to;
                true
            }
            _ => false,
        }
    }

    fn alu(&mut self, class: Class, f: AluFn, args: Args) {
        self.push(class, Op::Alu { f, args });
    }

    fn new_label(&mut self) -> u32 {
        self.labels.push(None);
        self.labels.len() as u32 - 1
    }

    fn place_label(&mut self, id: u32) {
        self.labels[id as usize] = Some(self.insts.len() as u32);
    }

    fn instruction(&mut self, i: &RawInst<'m>) -> Res<()> {
        (self.guard, self.negate) = match i.guard {
            None => (P_TRUE, 0),
            Some((name, negated)) => {
                let reg = self.register(name).filter(|r| r.file == File::Pred);
                let reg = reg.ok_or_else(|| {
                    Fault::new(FaultKind::Parse, format!("{name} is no predicate"))
                })?;
                (reg.index, if negated { u32::MAX } else { 0 })
            }
        };
        let mut m = Mods::new(i.op);
        let done = self.control(&mut m, i)? || self.memory(&mut m, i)? || self.value(&mut m, i)?;
        (self.guard, self.negate) = (P_TRUE, 0);
        if !done {
            return Err(m.unknown("is unknown"));
        }
        m.finish()
    }

    /// Exactly `N` operands.
    fn args<'i, const N: usize>(&self, i: &'i RawInst<'m>) -> Res<&'i [Operand<'m>; N]> {
        i.args.as_slice().try_into().map_err(|_| {
            Fault::new(
                FaultKind::Unsupported,
                format!("{} with {} operands instead of {N}", i.op, i.args.len()),
            )
        })
    }

    fn finish(mut self) -> Res<Code> {
        // A label may stand at the very end; a return is then implied.
        self.guard = P_TRUE;
        self.negate = 0;
        self.push(Class::Control, Op::Exit);
        let labels = &self.labels;
        let resolve = |t: &mut u32| -> Res<()> {
            *t = labels[*t as usize].ok_or_else(|| {
                Fault::new(FaultKind::Parse, "branch to a label that is not there")
            })?;
            Ok(())
        };
        for inst in &mut self.insts {
            match &mut inst.op {
                Op::Bra(t) => resolve(t),
                Op::Brx(_, targets) => targets.iter_mut().try_for_each(resolve),
                _ => Ok(()),
            }
            .map_err(|e| e.at_line(inst.line, self.module.line_text(inst.line)))?;
        }
        let mut code = self.code;
        code.insts = cfg::lay_out(&self.insts)?;
        code.dynamic_base = code.static_shared.next_multiple_of(16);
        if let Some(r) = self.dynamic32 {
            code.const32.push((r, code.dynamic_base as u32));
        }
        if let Some(r) = self.dynamic64 {
            code.const64.push((r, code.dynamic_base as u64));
        }
        code.local = code.local.next_multiple_of(16);
        code.n32 = self.n32 as usize;
        code.n64 = self.n64 as usize;
        code.np = self.np as usize;
        code.granule = self.granule.min(8);
        code.global_granule = self.global_granule.min(8);
        allocate::allocate(&mut code);
        Ok(code)
    }
}
