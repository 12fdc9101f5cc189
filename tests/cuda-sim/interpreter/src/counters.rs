//! What a launch did, in numbers.

/// Classes of instructions that [`Counters`] tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Memory,
    Integer,
    Float,
    Approx,
    Control,
    Sync,
    /// Predicate logic, moves, selections and conversions.
    Other,
}

pub(crate) const CLASSES: usize = 7;

/// Counts over one launch. Instruction counts are per thread: a warp instruction with 20 active lanes counts 20.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Loads, stores and atomics in every space.
    pub memory: u64,
    /// Integer arithmetic, logic, comparisons.
    pub integer: u64,
    /// Floating-point arithmetic and comparisons.
    pub float: u64,
    /// Approximate and special functions (ex2, lg2, rcp, rsqrt, sqrt, sin, cos, division).
    pub approx: u64,
    /// Branches, calls, returns.
    pub control: u64,
    /// Barriers, shuffles, votes, fences.
    pub sync: u64,
    /// Moves, selections, conversions, predicate logic.
    pub other: u64,
    /// Instructions issued to warps, whatever the number of active lanes.
    pub warp_instructions: u64,
    /// Bytes that loads asked for in global memory, atomics included.
    pub global_load_bytes: u64,
    /// Bytes that stores asked for in global memory, atomics included.
    pub global_store_bytes: u64,
    /// Distinct 32-byte sectors that each warp's load touched, summed.
    pub global_load_sectors: u64,
    /// Distinct 32-byte sectors that each warp's store touched, summed.
    pub global_store_sectors: u64,
    /// Distinct bytes of global memory read over the whole launch; 0 without checks.
    pub distinct_bytes_read: u64,
    /// Distinct bytes of global memory written over the whole launch; 0 without checks.
    pub distinct_bytes_written: u64,
    /// Extra passes over the banks of shared memory, beyond one per access.
    pub bank_conflicts: u64,
    /// Block-wide barriers completed, summed over the blocks.
    pub barriers: u64,
    /// Blocks run.
    pub blocks: u64,
}

impl Counters {
    pub(crate) fn add_classes(&mut self, c: &[u64; CLASSES]) {
        self.memory += c[Class::Memory as usize];
        self.integer += c[Class::Integer as usize];
        self.float += c[Class::Float as usize];
        self.approx += c[Class::Approx as usize];
        self.control += c[Class::Control as usize];
        self.sync += c[Class::Sync as usize];
        self.other += c[Class::Other as usize];
    }

    fn fields(&self) -> [(&'static str, u64); 17] {
        [
            ("memory", self.memory),
            ("integer", self.integer),
            ("float", self.float),
            ("approx", self.approx),
            ("control", self.control),
            ("sync", self.sync),
            ("other", self.other),
            ("warp_instructions", self.warp_instructions),
            ("global_load_bytes", self.global_load_bytes),
            ("global_store_bytes", self.global_store_bytes),
            ("global_load_sectors", self.global_load_sectors),
            ("global_store_sectors", self.global_store_sectors),
            ("distinct_bytes_read", self.distinct_bytes_read),
            ("distinct_bytes_written", self.distinct_bytes_written),
            ("bank_conflicts", self.bank_conflicts),
            ("barriers", self.barriers),
            ("blocks", self.blocks),
        ]
    }

    /// Thread instructions of every class.
    pub fn thread_instructions(&self) -> u64 {
        self.memory
            + self.integer
            + self.float
            + self.approx
            + self.control
            + self.sync
            + self.other
    }

    /// Adds another launch's (or worker's) counts.
    pub fn add(&mut self, o: &Self) {
        self.memory += o.memory;
        self.integer += o.integer;
        self.float += o.float;
        self.approx += o.approx;
        self.control += o.control;
        self.sync += o.sync;
        self.other += o.other;
        self.warp_instructions += o.warp_instructions;
        self.global_load_bytes += o.global_load_bytes;
        self.global_store_bytes += o.global_store_bytes;
        self.global_load_sectors += o.global_load_sectors;
        self.global_store_sectors += o.global_store_sectors;
        self.distinct_bytes_read += o.distinct_bytes_read;
        self.distinct_bytes_written += o.distinct_bytes_written;
        self.bank_conflicts += o.bank_conflicts;
        self.barriers += o.barriers;
        self.blocks += o.blocks;
    }

    /// One JSON object, a number per field.
    pub fn to_json(&self) -> String {
        let fields: Vec<String> = self
            .fields()
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }
}
