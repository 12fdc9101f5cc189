//! Decoded instructions: register numbers, constants and function pointers, nothing left to look up.

use crate::counters::Class;
use crate::regs::{AluFn, Args};
use crate::types::{File, Space};

/// Predicate registers that every function has.
pub(crate) const P_TRUE: u32 = 0;
pub(crate) const P_FALSE: u32 = 1;
/// Destination of predicates that nobody reads.
pub(crate) const P_SINK: u32 = 2;
/// Destinations of values that nobody reads, in both files.
pub(crate) const R_SINK: u32 = 0;

#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub op: Op,
    /// The lanes that execute are `p[guard] ^ negate`, among the active ones.
    pub guard: u32,
    pub negate: u32,
    pub line: u32,
    pub class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    Clock,
    GlobalTimer,
    DynamicShared,
    TotalShared,
}

/// A register that a load fills or a store reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub index: u32,
    pub file: File,
    /// Loads of signed types: bits of the register to sign-extend to; 0 for zero extension.
    pub extend: u32,
}

/// Base register and offset of an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: u32,
    pub wide: bool,
    pub offset: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct MemOp {
    pub space: Space,
    pub address: Address,
    /// Bytes of one element.
    pub width: u32,
    pub cells: Vec<Cell>,
    /// Volatile, relaxed, acquire or release: meets atomics without a race.
    pub strong: bool,
    /// Release: orders earlier accesses before it, for other blocks too.
    pub release: bool,
    /// Compiler-made parameter passing: no check for unwritten bytes, as structures have padding.
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AtomOp {
    pub space: Space,
    pub address: Address,
    pub width: u32,
    pub file: File,
    /// Register of the old value, or none for `red`.
    pub dst: Option<u32>,
    pub b: u32,
    pub c: u32,
    /// New value from the old one and the two operands.
    pub f: fn(u64, u64, u64) -> u64,
    /// Addition in f32, which flushes subnormal numbers in global memory but not in shared memory.
    pub flushes: bool,
    pub release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    Sync,
    Arrive,
    RedPopc,
    RedAnd,
    RedOr,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BarOp {
    pub kind: BarKind,
    pub id: u32,
    /// Register of the thread count; none for the whole block.
    pub count: Option<u32>,
    /// All threads of the warp must execute it together.
    pub aligned: bool,
    /// Reductions: source predicate (already negated where asked) and destination.
    pub p: u32,
    pub d: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    AddU,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu {
        f: AluFn,
        args: Args,
    },
    Special {
        d: u32,
        wide: bool,
        which: Special,
    },
    /// From the launch's parameters, at a fixed offset: the same for every lane.
    LdParam {
        width: u32,
        offset: u32,
        cells: Vec<Cell>,
    },
    Load(Box<MemOp>),
    Store(Box<MemOp>),
    Atom(Box<AtomOp>),
    Bra(u32),
    /// Index register and targets.
    Brx(u32, Vec<u32>),
    Bar(Box<BarOp>),
    WarpSync {
        members: u32,
    },
    Shfl {
        mode: ShflMode,
        d: u32,
        p: u32,
        a: u32,
        b: u32,
        c: u32,
        members: u32,
    },
    Vote {
        mode: VoteMode,
        d: u32,
        a: u32,
        members: u32,
    },
    /// `wide`: 64-bit values; `all`: match.all with its predicate.
    Match {
        all: bool,
        wide: bool,
        d: u32,
        p: u32,
        a: u32,
        members: u32,
    },
    Redux {
        op: ReduxOp,
        d: u32,
        a: u32,
        members: u32,
    },
    Elect {
        d: u32,
        p: u32,
        members: u32,
    },
    ActiveMask {
        d: u32,
    },
    /// Whether the fence orders accesses between blocks.
    Fence {
        device: bool,
    },
    Exit,
    Trap(&'static str),
    Nop,
}

/// A decoded function, ready to run.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub insts: Vec<Inst>,
    pub n32: usize,
    pub n64: usize,
    pub np: usize,
    /// Registers that hold constants, and their values.
    pub const32: Vec<(u32, u32)>,
    pub const64: Vec<(u32, u64)>,
    /// Bytes of shared memory before the dynamic part.
    pub static_shared: usize,
    /// Where dynamic shared memory starts.
    pub dynamic_base: usize,
    /// Bytes of local memory per thread.
    pub local: usize,
    /// The narrowest access to shared memory.
    pub granule: u32,
    /// The smallest width, in bytes, that the kernel accesses global memory with.
    pub global_granule: u32,
    /// Whether any fence orders accesses between blocks.
    pub device_fence: bool,
}
