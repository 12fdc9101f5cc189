//! Tokens to statements: the syntax of declarations and of function bodies, without their meaning.

use crate::fault::{Fault, FaultKind};
use crate::lexer::{Tok, Token};
use crate::types::{Space, Ty};

/// An operand as written.
#[derive(Clone, Debug)]
pub(crate) enum Operand<'a> {
    Name(&'a str),
    /// `!p`
    Not(&'a str),
    Int(u64),
    F32(u32),
    F64(u64),
    /// `[base + offset]`; the base is a register, a variable, or 0.
    Mem(Option<&'a str>, i64),
    Vec(Vec<Operand<'a>>),
    /// `symbol+4` outside brackets
    Sum(&'a str, i64),
    /// `p|q`
    Pair(&'a str, &'a str),
    /// `(a, b)` of a call
    List(Vec<Operand<'a>>),
}

#[derive(Clone, Debug)]
pub(crate) struct RawInst<'a> {
    /// Guard predicate and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    pub op: &'a str,
    pub args: Vec<Operand<'a>>,
}

/// One element of an initialiser.
#[derive(Clone, Debug)]
pub(crate) enum Init<'a> {
    Int(u64),
    F32(u32),
    F64(u64),
    /// The address of a variable, generic or in its own space, plus an offset.
    Symbol {
        name: &'a str,
        offset: i64,
    },
}

/// A variable declaration in some state space.
#[derive(Clone, Debug)]
pub(crate) struct VarDecl<'a> {
    pub space: Space,
    pub is_extern: bool,
    pub ty: Ty,
    pub align: u32,
    pub name: &'a str,
    /// In bytes; 0 for `name[]`.
    pub size: usize,
    pub init: Vec<Init<'a>>,
}

#[derive(Clone, Debug)]
pub(crate) enum StmtKind<'a> {
    Open,
    Close,
    Label(&'a str),
    /// `.reg`: type, name or prefix, and the count of a range such as `%r<10>`.
    Reg(Ty, &'a str, Option<u32>),
    Var(VarDecl<'a>),
    /// `.branchtargets`, after its label.
    Targets(Vec<&'a str>),
    Inst(RawInst<'a>),
}

#[derive(Clone, Debug)]
pub(crate) struct Stmt<'a> {
    pub line: u32,
    pub kind: StmtKind<'a>,
}

/// The header of a function: its name, parameters and performance directives.
#[derive(Clone, Debug)]
pub(crate) struct Header<'a> {
    pub entry: bool,
    pub name: &'a str,
    pub returns: Vec<ParamDecl<'a>>,
    pub params: Vec<ParamDecl<'a>>,
    pub max_threads: Option<u32>,
    pub required_block: Option<[u32; 3]>,
}

/// A formal parameter; `.reg` ones live in registers.
#[derive(Clone, Debug)]
pub(crate) struct ParamDecl<'a> {
    pub register: bool,
    pub name: &'a str,
    pub size: usize,
    pub align: u32,
}

pub(crate) struct Parser<'t, 'a> {
    toks: &'t [Token<'a>],
    at: usize,
}

type Res<T> = Result<T, Fault>;

impl<'t, 'a> Parser<'t, 'a> {
    pub fn new(toks: &'t [Token<'a>]) -> Self {
        Self { toks, at: 0 }
    }

    pub fn done(&self) -> bool {
        self.at >= self.toks.len()
    }

    fn line(&self) -> u32 {
        let last = self.toks.len().saturating_sub(1);
        self.toks.get(self.at.min(last)).map_or(0, |t| t.line)
    }

    fn error<T>(&self, message: impl Into<String>) -> Res<T> {
        let shown = match self.peek() {
            None => "the end".to_owned(),
            Some(Tok::Word(w)) => format!("`{w}`"),
            Some(Tok::Punct(c)) => format!("`{}`", char::from(c)),
            Some(t) => format!("{t:?}"),
        };
        let mut fault = Fault::new(
            FaultKind::Parse,
            format!("{}, found {shown}", message.into()),
        );
        if !self.toks.is_empty() {
            fault = fault.at_line(self.line(), "");
        }
        Err(fault)
    }

    fn peek(&self) -> Option<Tok<'a>> {
        self.toks.get(self.at).map(|t| t.tok)
    }

    fn next(&mut self) -> Option<Tok<'a>> {
        let tok = self.peek();
        self.at += 1;
        tok
    }

    fn is(&self, c: u8) -> bool {
        self.peek() == Some(Tok::Punct(c))
    }

    fn eat(&mut self, c: u8) -> bool {
        let found = self.is(c);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, c: u8) -> Res<()> {
        if self.eat(c) {
            Ok(())
        } else {
            self.error(format!("expected `{}`", char::from(c)))
        }
    }

    fn word(&mut self) -> Res<&'a str> {
        match self.peek() {
            Some(Tok::Word(w)) => {
                self.at += 1;
                Ok(w)
            }
            _ => self.error("expected a name"),
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Tok::Word(word));
        self.at += usize::from(found);
        found
    }

    fn int(&mut self) -> Res<u64> {
        let negative = self.eat(b'-');
        match self.peek() {
            Some(Tok::Int(v)) => {
                self.at += 1;
                Ok(if negative { v.wrapping_neg() } else { v })
            }
            _ => self.error("expected an integer"),
        }
    }

    fn small(&mut self) -> Res<u32> {
        let value = self.int()?;
        u32::try_from(value).or_else(|_| self.error("the number is too large"))
    }

    /// Skips to the end of the current source line, for `.loc` and `.file`.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.toks.get(self.at).is_some_and(|t| t.line == line) {
            self.at += 1;
        }
    }

    // ---- declarations ----

    /// `.align N .b8 name[size] = {...}` after the space; also the comma-separated rest is left to the caller.
    pub fn var(&mut self, space: Space, is_extern: bool) -> Res<VarDecl<'a>> {
        let mut align = None;
        let mut ty = None;
        let mut lanes = 1;
        loop {
            match self.peek() {
                Some(Tok::Word(".align")) => {
                    self.at += 1;
                    align = Some(self.small()?);
                }
                Some(Tok::Word(".v2")) => {
                    self.at += 1;
                    lanes = 2;
                }
                Some(Tok::Word(".v4")) => {
                    self.at += 1;
                    lanes = 4;
                }
                // `.ptr .global .align 4` on entry parameters says what a pointer points to: no part of its type.
                Some(Tok::Word(".ptr")) => {
                    self.at += 1;
                    if let Some(Tok::Word(".global" | ".const" | ".shared" | ".local")) =
                        self.peek()
                    {
                        self.at += 1;
                    }
                    if self.eat_word(".align") {
                        self.small()?;
                    }
                }
                Some(Tok::Word(w)) if w.starts_with('.') => match Ty::parse(&w[1..]) {
                    Some(t) => {
                        self.at += 1;
                        ty = Some(t);
                    }
                    None => return self.error("unknown modifier of a variable"),
                },
                _ => break,
            }
        }
        let Some(ty) = ty else {
            return self.error("expected a type");
        };
        let name = self.word()?;
        let mut count = 1usize;
        let mut open = false;
        while self.eat(b'[') {
            if self.is(b']') {
                open = true;
            } else {
                let n = self.int()?;
                count = usize::try_from(n)
                    .ok()
                    .and_then(|n| count.checked_mul(n))
                    .map_or_else(|| self.error("array too large"), Ok)?;
            }
            self.expect(b']')?;
        }
        let element = ty.bytes() * lanes;
        let mut init = Vec::new();
        if self.eat(b'=') {
            self.initialiser(&mut init)?;
        }
        let mut size = if open {
            0
        } else {
            count.saturating_mul(element as usize)
        };
        if open && !init.is_empty() {
            size = init.len() * ty.bytes() as usize;
        }
        if size >= 1 << 40 {
            return self.error("array too large");
        }
        let align = align.unwrap_or(element);
        if !align.is_power_of_two() {
            return self.error("alignment that is no power of two");
        }
        Ok(VarDecl {
            space,
            is_extern,
            ty,
            align,
            name,
            size,
            init,
        })
    }

    /// `.visible .global .align 4 .u32 a, b = 1` at module scope.
    pub fn module_variables(&mut self) -> Res<Vec<VarDecl<'a>>> {
        let mut is_extern = false;
        let space = loop {
            let word = self.word()?;
            match word {
                ".extern" => is_extern = true,
                ".visible" | ".weak" | ".common" => {}
                _ => match word.strip_prefix('.').and_then(Space::parse) {
                    Some(space) => break space,
                    None => {
                        return Err(Fault::new(
                            FaultKind::Unsupported,
                            format!("unknown directive {word}"),
                        )
                        .at_line(self.line(), ""));
                    }
                },
            }
        };
        let mut out = vec![self.var(space, is_extern)?];
        while self.eat(b',') {
            // The rest of a list shares the type.
            let first = out[0].clone();
            let name = self.word()?;
            out.push(VarDecl {
                name,
                init: Vec::new(),
                ..first
            });
        }
        if !self.done() {
            return self.error("expected the end of the declaration");
        }
        Ok(out)
    }

    fn initialiser(&mut self, out: &mut Vec<Init<'a>>) -> Res<()> {
        if self.eat(b'{') {
            while !self.eat(b'}') {
                self.initialiser(out)?;
                if !self.eat(b',') {
                    self.expect(b'}')?;
                    break;
                }
            }
            return Ok(());
        }
        let negative = self.eat(b'-');
        let item = match self.next() {
            Some(Tok::Int(v)) => Init::Int(if negative { v.wrapping_neg() } else { v }),
            Some(Tok::F32(v)) => Init::F32(if negative { v ^ 0x8000_0000 } else { v }),
            Some(Tok::F64(v)) => Init::F64(if negative { v ^ (1 << 63) } else { v }),
            Some(Tok::Word("generic")) => {
                self.expect(b'(')?;
                let name = self.word()?;
                self.expect(b')')?;
                Init::Symbol {
                    name,
                    offset: self.offset()?,
                }
            }
            Some(Tok::Word(name)) => Init::Symbol {
                name,
                offset: self.offset()?,
            },
            _ => {
                self.at -= 1;
                return self.error("expected an initial value");
            }
        };
        out.push(item);
        Ok(())
    }

    fn offset(&mut self) -> Res<i64> {
        if self.eat(b'+') || self.is(b'-') {
            Ok(self.int()?.cast_signed())
        } else {
            Ok(0)
        }
    }

    fn params(&mut self) -> Res<Vec<ParamDecl<'a>>> {
        let mut out = Vec::new();
        if !self.eat(b'(') {
            return Ok(out);
        }
        while !self.eat(b')') {
            let register = match self.word()? {
                ".param" => false,
                ".reg" => true,
                _ => {
                    self.at -= 1;
                    return self.error("expected `.param`");
                }
            };
            let v = self.var(Space::Param, false)?;
            out.push(ParamDecl {
                register,
                name: v.name,
                size: v.size,
                align: v.align,
            });
            if !self.eat(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(out)
    }

    /// `.visible .entry name(params) .maxntid ...`, up to the body or the semicolon.
    pub fn header(&mut self) -> Res<Header<'a>> {
        let entry = loop {
            match self.word()? {
                ".visible" | ".extern" | ".weak" | ".common" => {}
                ".entry" => break true,
                ".func" => break false,
                _ => {
                    self.at -= 1;
                    return self.error("expected `.entry` or `.func`");
                }
            }
        };
        let returns = if !entry && self.is(b'(') {
            self.params()?
        } else {
            Vec::new()
        };
        let name = self.word()?;
        let params = self.params()?;
        let mut header = Header {
            entry,
            name,
            returns,
            params,
            max_threads: None,
            required_block: None,
        };
        while !self.done() && !self.is(b';') && !self.is(b'{') {
            match self.word()? {
                ".maxntid" => header.max_threads = Some(self.dims()?.iter().product()),
                ".reqntid" => header.required_block = Some(self.dims()?),
                // Hints to the compiler's register allocator: nothing to obey here.
                ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => {
                    self.small()?;
                }
                ".noreturn" => {}
                ".pragma" => {
                    self.next();
                }
                _ => {
                    self.at -= 1;
                    return Err(Fault::new(
                        FaultKind::Unsupported,
                        format!("unknown directive of a function: {:?}", self.peek()),
                    )
                    .at_line(self.line(), ""));
                }
            }
        }
        Ok(header)
    }

    fn dims(&mut self) -> Res<[u32; 3]> {
        let mut dims = [self.small()?, 1, 1];
        for d in &mut dims[1..] {
            if !self.eat(b',') {
                break;
            }
            *d = self.small()?;
        }
        Ok(dims)
    }

    // ---- bodies ----

    /// The statements between the outermost braces of a function.
    pub fn body(&mut self) -> Res<Vec<Stmt<'a>>> {
        let mut out = Vec::new();
        while !self.done() {
            let line = self.line();
            match self.peek() {
                Some(Tok::Punct(b'{')) => {
                    self.at += 1;
                    out.push(Stmt {
                        line,
                        kind: StmtKind::Open,
                    });
                }
                Some(Tok::Punct(b'}')) => {
                    self.at += 1;
                    out.push(Stmt {
                        line,
                        kind: StmtKind::Close,
                    });
                }
                // `};` and empty statements of inline assembly.
                Some(Tok::Punct(b';')) => self.at += 1,
                Some(Tok::Word(w)) if w.starts_with('.') => self.directive(w, line, &mut out)?,
                Some(Tok::Word(w))
                    if self.toks.get(self.at + 1).map(|t| t.tok) == Some(Tok::Punct(b':')) =>
                {
                    self.at += 2;
                    out.push(Stmt {
                        line,
                        kind: StmtKind::Label(w),
                    });
                }
                _ => {
                    let inst = self.instruction()?;
                    out.push(Stmt {
                        line,
                        kind: StmtKind::Inst(inst),
                    });
                }
            }
        }
        Ok(out)
    }

    fn directive(&mut self, word: &'a str, line: u32, out: &mut Vec<Stmt<'a>>) -> Res<()> {
        self.at += 1;
        match word {
            ".reg" => self.registers(line, out),
            ".loc" | ".file" => {
                self.at -= 1;
                self.skip_line();
                Ok(())
            }
            ".pragma" => {
                while !self.eat(b';') {
                    if self.next().is_none() {
                        return self.error("expected `;`");
                    }
                }
                Ok(())
            }
            ".branchtargets" | ".calltargets" => {
                let mut names = vec![self.word()?];
                while self.eat(b',') {
                    names.push(self.word()?);
                }
                self.expect(b';')?;
                out.push(Stmt {
                    line,
                    kind: StmtKind::Targets(names),
                });
                Ok(())
            }
            _ => {
                let Some(space) = Space::parse(&word[1..]) else {
                    return Err(Fault::new(
                        FaultKind::Unsupported,
                        format!("unknown directive {word}"),
                    )
                    .at_line(line, ""));
                };
                loop {
                    let var = self.var(space, false)?;
                    out.push(Stmt {
                        line,
                        kind: StmtKind::Var(var),
                    });
                    if !self.eat(b',') {
                        break;
                    }
                }
                self.expect(b';')
            }
        }
    }

    fn registers(&mut self, line: u32, out: &mut Vec<Stmt<'a>>) -> Res<()> {
        let word = self.word()?;
        let Some(ty) = word.strip_prefix('.').and_then(Ty::parse) else {
            self.at -= 1;
            return self.error("expected a register type");
        };
        loop {
            let name = self.word()?;
            let count = if self.eat(b'<') {
                let n = self.small()?;
                self.expect(b'>')?;
                Some(n)
            } else {
                None
            };
            out.push(Stmt {
                line,
                kind: StmtKind::Reg(ty, name, count),
            });
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(b';')
    }

    fn instruction(&mut self) -> Res<RawInst<'a>> {
        let guard = if self.eat(b'@') {
            let negated = self.eat(b'!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let op = self.word()?;
        let mut args = Vec::new();
        while !self.eat(b';') {
            args.push(self.operand()?);
            if !self.eat(b',') {
                self.expect(b';')?;
                break;
            }
        }
        Ok(RawInst { guard, op, args })
    }

    fn operand(&mut self) -> Res<Operand<'a>> {
        match self.peek() {
            Some(Tok::Word(name)) => {
                self.at += 1;
                if self.eat(b'|') {
                    return Ok(Operand::Pair(name, self.word()?));
                }
                if self.is(b'+') {
                    return Ok(Operand::Sum(name, self.offset()?));
                }
                Ok(Operand::Name(name))
            }
            Some(Tok::Punct(b'!')) => {
                self.at += 1;
                Ok(Operand::Not(self.word()?))
            }
            Some(Tok::Punct(b'[')) => {
                self.at += 1;
                let base = match self.peek() {
                    Some(Tok::Word(w)) => {
                        self.at += 1;
                        Some(w)
                    }
                    _ => None,
                };
                let offset = if base.is_some() {
                    self.offset()?
                } else {
                    self.int()?.cast_signed()
                };
                self.expect(b']')?;
                Ok(Operand::Mem(base, offset))
            }
            Some(Tok::Punct(b'{')) => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.eat(b'}') {
                    items.push(self.operand()?);
                    if !self.eat(b',') {
                        self.expect(b'}')?;
                        break;
                    }
                }
                Ok(Operand::Vec(items))
            }
            Some(Tok::Punct(b'(')) => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.eat(b')') {
                    items.push(self.operand()?);
                    if !self.eat(b',') {
                        self.expect(b')')?;
                        break;
                    }
                }
                Ok(Operand::List(items))
            }
            Some(Tok::Punct(b'-')) => {
                self.at += 1;
                match self.operand()? {
                    Operand::Int(v) => Ok(Operand::Int(v.wrapping_neg())),
                    Operand::F32(v) => Ok(Operand::F32(v ^ 0x8000_0000)),
                    Operand::F64(v) => Ok(Operand::F64(v ^ (1 << 63))),
                    _ => self.error("expected a number after `-`"),
                }
            }
            Some(Tok::Int(v)) => {
                self.at += 1;
                Ok(Operand::Int(v))
            }
            Some(Tok::F32(v)) => {
                self.at += 1;
                Ok(Operand::F32(v))
            }
            Some(Tok::F64(v)) => {
                self.at += 1;
                Ok(Operand::F64(v))
            }
            _ => self.error("expected an operand"),
        }
    }
}
