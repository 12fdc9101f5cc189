//! What the tests share: a device with one module, typed copies, launches.
#![allow(dead_code, missing_docs)]

use std::sync::Arc;

use ptx_sim::{Counters, Fault, FaultKind, Launch, Memory, Module, Options, launch};

/// Types that travel between host and device.
pub trait Plain: Copy {
    const SIZE: usize;
    fn bytes(self) -> Vec<u8>;
    fn from(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($t:ty)*) => {$(
        impl Plain for $t {
            const SIZE: usize = size_of::<$t>();
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("size"))
            }
        }
    )*};
}

plain! { u8 u16 u32 u64 i32 i64 f32 f64 }

pub struct Device {
    pub memory: Arc<Memory>,
    pub module: Arc<Module>,
    pub options: Options,
}

/// One kernel argument.
#[derive(Clone, Debug)]
pub struct Arg(pub Vec<u8>);

pub fn arg<T: Plain>(value: T) -> Arg {
    Arg(value.bytes())
}

impl Device {
    pub fn new(ptx: &str) -> Self {
        let memory = Arc::new(Memory::new());
        let module = Module::parse(ptx, &memory).unwrap_or_else(|e| panic!("{e}"));
        Self {
            memory,
            module,
            options: Options::default(),
        }
    }

    pub fn alloc(&self, bytes: usize) -> u64 {
        self.memory.alloc(bytes).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn upload<T: Plain>(&self, values: &[T]) -> u64 {
        let addr = self.alloc(values.len() * T::SIZE);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.bytes()).collect();
        self.memory
            .write(addr, &bytes)
            .unwrap_or_else(|e| panic!("{e}"));
        addr
    }

    pub fn download<T: Plain>(&self, addr: u64, n: usize) -> Vec<T> {
        let mut bytes = vec![0; n * T::SIZE];
        self.memory
            .read(addr, &mut bytes)
            .unwrap_or_else(|e| panic!("{e}"));
        bytes.chunks_exact(T::SIZE).map(T::from).collect()
    }

    pub fn run(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        args: &[Arg],
    ) -> Result<Counters, Fault> {
        let f = self.module.function(name)?;
        let mut params = vec![0; f.param_bytes()];
        assert_eq!(
            args.len(),
            f.params().len(),
            "number of arguments of {name}"
        );
        for (p, a) in f.params().iter().zip(args) {
            assert_eq!(p.size, a.0.len(), "size of an argument of {name}");
            params[p.offset..p.offset + p.size].copy_from_slice(&a.0);
        }
        launch(
            &self.memory,
            &f,
            &Launch {
                grid,
                block,
                dynamic_shared,
                params,
            },
            &self.options,
        )
    }

    pub fn ok(
        &self,
        name: &str,
        grid: u32,
        block: u32,
        dynamic_shared: u32,
        args: &[Arg],
    ) -> Counters {
        self.run(name, [grid, 1, 1], [block, 1, 1], dynamic_shared, args)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// The fault that a launch must end in.
    pub fn fault(
        &self,
        name: &str,
        grid: u32,
        block: u32,
        dynamic_shared: u32,
        args: &[Arg],
    ) -> Fault {
        match self.run(name, [grid, 1, 1], [block, 1, 1], dynamic_shared, args) {
            Ok(_) => panic!("{name} ran without a fault"),
            Err(e) => e,
        }
    }
}

/// A module of one kernel `k` with a parameter `out` (and `in`, if asked for), and registers of every kind.
pub fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .pred %p<20>;\n.reg .b16 %h<40>;\n.reg .b32 %r<60>;\n.reg .f32 %f<40>;\n.reg .b64 %rd<40>;\n.reg .f64 %fd<40>;\n\
         ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    )
}

pub fn kind(result: Result<Counters, Fault>) -> Option<FaultKind> {
    result.err().map(|e| e.kind)
}

/// Numbers that look random, for inputs.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn next_u32(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// In [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next_u32() as f64 / 2_147_483_648.0 - 1.0) as f32
    }
}

/// Which register of [`eval`]'s body holds the result.
#[derive(Clone, Copy, Debug)]
pub enum Out {
    /// `%h20`
    H,
    /// `%r20`
    R,
    /// `%f20`
    F,
    /// `%rd20`
    Rd,
    /// `%fd20`
    Fd,
    /// `%p10`
    P,
}

/// Runs instructions on rows of up to three operands, one thread per row. Operand i is in `%h{i}`, `%r1{i}`, `%f{i}`,
/// `%rd1{i}` and `%fd{i}`, i from 1; the result is zero-extended to 64 bits.
pub fn try_eval(
    options: &Options,
    out: Out,
    body: &str,
    rows: &[[u64; 3]],
) -> Result<Vec<u64>, Fault> {
    let mut prelude = String::from("mul.wide.u32 %rd3, %r1, 24;\nadd.u64 %rd4, %rd1, %rd3;\n");
    for i in 1..=3 {
        prelude += &format!(
            "ld.global.u64 %rd1{i}, [%rd4+{}];\ncvt.u32.u64 %r1{i}, %rd1{i};\ncvt.u16.u64 %h{i}, %rd1{i};\n\
             mov.b32 %f{i}, %r1{i};\nmov.b64 %fd{i}, %rd1{i};\n",
            8 * (i - 1)
        );
    }
    let result = match out {
        Out::H => "cvt.u64.u16 %rd20, %h20;",
        Out::R => "cvt.u64.u32 %rd20, %r20;",
        Out::F => "mov.b32 %r20, %f20;\ncvt.u64.u32 %rd20, %r20;",
        Out::Rd => "",
        Out::Fd => "mov.b64 %rd20, %fd20;",
        Out::P => "selp.u64 %rd20, 1, 0, %p10;",
    };
    let text = kernel(&format!(
        "{prelude}{body}\n{result}\nmul.wide.u32 %rd5, %r1, 8;\nadd.u64 %rd6, %rd2, %rd5;\nst.global.u64 [%rd6], %rd20;"
    ));
    let mut d = Device::new(&text);
    d.options = options.clone();
    let flat: Vec<u64> = rows.iter().flatten().copied().collect();
    let (a, b) = (d.upload(&flat), d.alloc(rows.len() * 8));
    d.run(
        "k",
        [1, 1, 1],
        [rows.len() as u32, 1, 1],
        0,
        &[arg(a), arg(b)],
    )?;
    Ok(d.download(b, rows.len()))
}

pub fn eval(out: Out, body: &str, rows: &[[u64; 3]]) -> Vec<u64> {
    try_eval(&Options::default(), out, body, rows).unwrap_or_else(|e| panic!("{body}: {e}"))
}

/// Known answers: operands and result.
pub fn check(out: Out, body: &str, table: &[([u64; 3], u64)]) {
    let rows: Vec<[u64; 3]> = table.iter().map(|t| t.0).collect();
    for ((row, want), got) in table.iter().zip(eval(out, body, &rows)) {
        assert_eq!(
            got, *want,
            "{body}\n with {row:#x?}: {got:#x}, not {want:#x}"
        );
    }
}

/// Rows of [`check`] for instructions of one, two and three operands.
pub fn one(table: &[(u64, u64)]) -> Vec<([u64; 3], u64)> {
    table.iter().map(|&(a, d)| ([a, 0, 0], d)).collect()
}

pub fn two(table: &[(u64, u64, u64)]) -> Vec<([u64; 3], u64)> {
    table.iter().map(|&(a, b, d)| ([a, b, 0], d)).collect()
}

pub fn three(table: &[(u64, u64, u64, u64)]) -> Vec<([u64; 3], u64)> {
    table.iter().map(|&(a, b, c, d)| ([a, b, c], d)).collect()
}
