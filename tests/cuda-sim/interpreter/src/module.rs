//! A PTX module: its functions, found by a quick scan and decoded when first asked for, and its variables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::decode;
use crate::fault::{Fault, FaultKind};
use crate::ir::Code;
use crate::lexer::{lex, skip_blank};
use crate::memory::Memory;
use crate::parser::{Header, Init, Parser, VarDecl};
use crate::types::{Space, Ty};

/// The text of a module, with its lines.
pub(crate) struct Text {
    text: String,
    lines: OnceLock<Vec<usize>>,
}

impl Text {
    /// A line by its number, from 1.
    pub fn line(&self, number: u32) -> &str {
        let starts = self.lines.get_or_init(|| {
            let newlines = self
                .text
                .bytes()
                .enumerate()
                .filter(|&(_, b)| b == b'\n')
                .map(|(i, _)| i + 1);
            std::iter::once(0).chain(newlines).collect()
        });
        let Some(&start) = (number as usize).checked_sub(1).and_then(|n| starts.get(n)) else {
            return "";
        };
        let end = starts
            .get(number as usize)
            .map_or(self.text.len(), |&e| e - 1);
        self.text[start..end].trim()
    }
}

/// Where a function stands in the text.
#[derive(Clone, Debug)]
pub(crate) struct FunctionText {
    name: (usize, usize),
    header: (usize, usize),
    body: (usize, usize),
    pub line: u32,
    pub body_line: u32,
    entry: bool,
}

struct Variable {
    addr: u64,
    size: usize,
}

/// A kernel parameter, laid out as the launch passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset in the parameter buffer.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
}

/// A decoded kernel.
pub struct Function {
    name: String,
    params: Vec<Param>,
    max_threads: u32,
    pub(crate) required_block: Option<[u32; 3]>,
    pub(crate) code: Code,
    pub(crate) text: Arc<Text>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Function({}, {} instructions)",
            self.name,
            self.code.insts.len()
        )
    }
}

impl Function {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of the parameter buffer.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// Bytes of shared memory that the kernel declares itself.
    pub fn static_shared(&self) -> usize {
        self.code.static_shared
    }

    /// The most threads per block: `.maxntid` or `.reqntid` if given, else 1024.
    pub fn max_threads(&self) -> u32 {
        self.max_threads
    }

    /// Bytes of local memory per thread.
    pub fn local_bytes(&self) -> usize {
        self.code.local
    }

    /// Registers that it runs with: of up to 32 bits, of 64 bits, predicates; constants have one each.
    pub fn registers(&self) -> [usize; 3] {
        [self.code.n32, self.code.n64, self.code.np]
    }

    /// Decoded instructions, calls inlined.
    pub fn instructions(&self) -> usize {
        self.code.insts.len()
    }
}

/// A loaded module.
pub struct Module {
    text: Arc<Text>,
    functions: HashMap<String, FunctionText>,
    order: Vec<String>,
    variables: HashMap<String, Variable>,
    /// Size and alignment; size 0 for `extern` arrays.
    shared: HashMap<String, (usize, u32)>,
    memory: Arc<Memory>,
    decoded: Mutex<HashMap<String, Arc<Function>>>,
}

impl Drop for Module {
    fn drop(&mut self) {
        for v in self.variables.values() {
            // Each variable is an allocation of this module alone, freed nowhere else.
            let _ = self.memory.free(v.addr);
        }
    }
}

/// Position just behind the brace that closes the one at `i`; counts lines.
fn matching_brace(b: &[u8], mut i: usize, line: &mut u32) -> Option<usize> {
    let mut depth = 0usize;
    while i < b.len() {
        match b[i] {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            b'\n' => *line += 1,
            b'"' => {
                i += 1;
                while i < b.len() && b[i] != b'"' {
                    i += 1;
                }
            }
            b'/' if matches!(b.get(i + 1), Some(b'/' | b'*')) => {
                i = skip_blank(b, i, line);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// The next of `stops` outside comments and strings, from `i`; counts lines.
fn find_stop(b: &[u8], mut i: usize, stops: &[u8], line: &mut u32) -> Option<usize> {
    while i < b.len() {
        match b[i] {
            c if stops.contains(&c) => return Some(i),
            b'\n' => *line += 1,
            b'"' => {
                i += 1;
                while i < b.len() && b[i] != b'"' {
                    i += 1;
                }
            }
            b'/' if matches!(b.get(i + 1), Some(b'/' | b'*')) => {
                i = skip_blank(b, i, line);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

impl Module {
    /// Indexes a module and allocates its variables. Function bodies are not looked at yet.
    pub fn parse(ptx: &str, memory: &Arc<Memory>) -> Result<Arc<Self>, Fault> {
        // Images handed to a driver end in a zero byte.
        let ptx = ptx.trim_end_matches('\0');
        let text = Arc::new(Text {
            text: ptx.to_owned(),
            lines: OnceLock::new(),
        });
        let mut m = Self {
            text: Arc::clone(&text),
            functions: HashMap::new(),
            order: Vec::new(),
            variables: HashMap::new(),
            shared: HashMap::new(),
            memory: Arc::clone(memory),
            decoded: Mutex::new(HashMap::new()),
        };
        let mut declarations = Vec::new();
        m.index(&text.text, &mut declarations)?;
        m.initialise(&declarations)?;
        Ok(Arc::new(m))
    }

    fn index<'t>(
        &mut self,
        text: &'t str,
        declarations: &mut Vec<VarDecl<'t>>,
    ) -> Result<(), Fault> {
        let b = text.as_bytes();
        let (mut i, mut line) = (0, 1);
        let error = |kind, message: String, line: u32| {
            Fault::new(kind, message).at_line(line, self.text.line(line))
        };
        loop {
            i = skip_blank(b, i, &mut line);
            if i >= b.len() {
                return Ok(());
            }
            let start = i;
            let first_line = line;
            let end = text[i..]
                .find(|c: char| c.is_whitespace() || c == '(' || c == '{')
                .map_or(b.len(), |n| i + n);
            match &text[i..end] {
                ".version" | ".target" | ".address_size" | ".file" | ".loc" => {
                    i = text[i..].find('\n').map_or(b.len(), |n| i + n);
                    continue;
                }
                ".section" => {
                    let open = find_stop(b, i, b"{", &mut line);
                    i = open
                        .and_then(|o| matching_brace(b, o, &mut line))
                        .ok_or_else(|| {
                            error(
                                FaultKind::Parse,
                                "a section without an end".into(),
                                first_line,
                            )
                        })?;
                    continue;
                }
                ".pragma" => {
                    i = find_stop(b, i, b";", &mut line).map_or(b.len(), |n| n + 1);
                    continue;
                }
                w if w.starts_with('.') => {}
                w => {
                    return Err(error(
                        FaultKind::Parse,
                        format!("expected a directive, found `{w}`"),
                        line,
                    ));
                }
            }
            let stop = find_stop(b, i, b"{;", &mut line).ok_or_else(|| {
                error(
                    FaultKind::Parse,
                    "a declaration without an end".into(),
                    first_line,
                )
            })?;
            let head = &text[start..stop];
            let is_function = head.split_whitespace().take(4).any(|w| {
                let w = w.split('(').next().unwrap_or(w);
                w == ".entry" || w == ".func"
            });
            if is_function {
                let body_line = line;
                let tokens = lex(head, first_line)?;
                let header = Parser::new(&tokens)
                    .header()
                    .map_err(|e| e.at_line(first_line, head))?;
                if b[stop] == b';' {
                    i = stop + 1;
                    continue;
                }
                let close = matching_brace(b, stop, &mut line).ok_or_else(|| {
                    error(
                        FaultKind::Parse,
                        format!("{} has no end", header.name),
                        first_line,
                    )
                })?;
                let at = header.name.as_ptr() as usize - text.as_ptr() as usize;
                let f = FunctionText {
                    name: (at, at + header.name.len()),
                    header: (start, stop),
                    body: (stop + 1, close - 1),
                    line: first_line,
                    body_line,
                    entry: header.entry,
                };
                if header.entry {
                    self.order.push(header.name.to_owned());
                }
                self.functions.insert(header.name.to_owned(), f);
                i = close;
                continue;
            }
            // A variable: up to the semicolon behind its initialiser.
            let mut end = stop;
            if b[stop] == b'{' {
                let close = matching_brace(b, stop, &mut line).ok_or_else(|| {
                    error(
                        FaultKind::Parse,
                        "an initialiser without an end".into(),
                        first_line,
                    )
                })?;
                end = find_stop(b, close, b";", &mut line).ok_or_else(|| {
                    error(
                        FaultKind::Parse,
                        "a declaration without an end".into(),
                        first_line,
                    )
                })?;
            }
            let tokens = lex(&text[start..end], first_line)?;
            let vars = Parser::new(&tokens).module_variables();
            declarations.extend(vars.map_err(|e| e.at_line(first_line, head))?);
            i = end + 1;
        }
    }

    fn initialise(&mut self, declarations: &[VarDecl<'_>]) -> Result<(), Fault> {
        for v in declarations {
            match v.space {
                Space::Shared => {
                    let size = if v.is_extern { 0 } else { v.size };
                    self.shared.insert(v.name.to_owned(), (size, v.align));
                }
                // Another module would have to define it; whoever uses it is told.
                _ if v.is_extern => {}
                Space::Global | Space::Const => {
                    let a = self.memory.alloc_named(
                        v.size,
                        Some(v.name.to_owned()),
                        v.space == Space::Const,
                    )?;
                    self.variables.insert(
                        v.name.to_owned(),
                        Variable {
                            addr: a.base,
                            size: v.size,
                        },
                    );
                }
                _ => {
                    let message = format!("variable {} at module scope in that space", v.name);
                    return Err(Fault::new(FaultKind::Unsupported, message));
                }
            }
        }
        for v in declarations {
            let Some(target) = self.variables.get(v.name).filter(|_| !v.is_extern) else {
                continue;
            };
            // Variables without an initialiser are zero.
            let mut bytes = Vec::with_capacity(v.size);
            for init in &v.init {
                let value = match init {
                    Init::Int(x) | Init::F64(x) => *x,
                    Init::F32(x) => u64::from(*x),
                    Init::Symbol { name, offset } => {
                        let s = self.variables.get(*name).ok_or_else(|| {
                            Fault::new(
                                FaultKind::Unsupported,
                                format!("{} is initialised with the address of {name}", v.name),
                            )
                        })?;
                        s.addr.wrapping_add_signed(*offset)
                    }
                };
                let value = match (init, v.ty) {
                    (Init::F64(x), Ty::F32) => u64::from((f64::from_bits(*x) as f32).to_bits()),
                    _ => value,
                };
                bytes.extend_from_slice(&value.to_le_bytes()[..v.ty.bytes().min(8) as usize]);
            }
            if bytes.len() > v.size {
                return Err(Fault::new(
                    FaultKind::Parse,
                    format!("{} has too many initial values", v.name),
                ));
            }
            bytes.resize(v.size, 0);
            self.memory.write(target.addr, &bytes)?;
        }
        Ok(())
    }

    /// A kernel by name, decoded on the first call.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Arc<Function>, Fault> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(f) = decoded.get(name) {
            return Ok(Arc::clone(f));
        }
        let f = self.functions.get(name).filter(|f| f.entry);
        let f = f.ok_or_else(|| {
            Fault::new(
                FaultKind::UnknownSymbol,
                format!("the module has no kernel {name}"),
            )
        })?;
        let build = || -> Result<Function, Fault> {
            let header = self.header(f)?;
            let mut params = Vec::new();
            let mut offset = 0usize;
            for p in &header.params {
                let align = p.align.max(1) as usize;
                offset = offset.next_multiple_of(align);
                params.push(Param {
                    offset,
                    size: p.size,
                    align,
                });
                offset += p.size;
            }
            let required = header.required_block;
            let max_threads = required
                .map(|d| d.iter().product())
                .or(header.max_threads)
                .unwrap_or(1024);
            Ok(Function {
                name: name.to_owned(),
                params,
                max_threads,
                required_block: required,
                code: decode::decode(self, f)?,
                text: Arc::clone(&self.text),
            })
        };
        let f = Arc::new(build().map_err(|e| e.in_kernel(name).with_text(|n| self.text.line(n)))?);
        decoded.insert(name.to_owned(), Arc::clone(&f));
        Ok(f)
    }

    /// The names of all kernels, in the order of the text.
    pub fn function_names(&self) -> Vec<String> {
        self.order.clone()
    }

    /// Address and size of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Option<(u64, usize)> {
        self.variables.get(name).map(|v| (v.addr, v.size))
    }

    // ---- for the decoder ----

    pub(crate) fn find(&self, name: &str) -> Option<&FunctionText> {
        self.functions.get(name).filter(|f| !f.entry)
    }

    pub(crate) fn header(&self, f: &FunctionText) -> Result<Header<'_>, Fault> {
        let tokens = lex(&self.text.text[f.header.0..f.header.1], f.line)?;
        Parser::new(&tokens).header()
    }

    pub(crate) fn name_of(&self, f: &FunctionText) -> &str {
        &self.text.text[f.name.0..f.name.1]
    }

    pub(crate) fn body_text(&self, f: &FunctionText) -> &str {
        &self.text.text[f.body.0..f.body.1]
    }

    pub(crate) fn line_text(&self, line: u32) -> &str {
        self.text.line(line)
    }

    /// A module-scope shared variable: its name, size (0 if dynamic) and alignment.
    pub(crate) fn shared_variable(&self, name: &str) -> Option<(&str, usize, u32)> {
        self.shared
            .get_key_value(name)
            .map(|(k, &(size, align))| (k.as_str(), size, align))
    }
}
