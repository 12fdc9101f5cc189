//! Launches: blocks over host threads, warps within a block in turn.

mod block;
mod memory;
mod sync;
mod warp;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::footprint::LaunchFootprint;
use crate::memory::{Allocation, Memory};
use crate::module::Function;

use block::Worker;

/// What the device allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest grid along each axis.
    pub max_grid: [u32; 3],
    /// Largest block along each axis.
    pub max_block: [u32; 3],
    /// Most threads in a block.
    pub max_threads: u32,
    /// Most shared memory of a block that did not opt in to more, static and dynamic together.
    pub max_shared: u32,
    /// Most warp instructions of one block, against endless loops.
    pub max_steps: u64,
}

impl Default for Limits {
    /// An A100 or H100: 227 KiB of shared memory. The 48 KiB without opting in are the driver's to hold.
    fn default() -> Self {
        Self {
            max_grid: [0x7fff_ffff, 65_535, 65_535],
            max_block: [1024, 1024, 64],
            max_threads: 1024,
            max_shared: 227 * 1024,
            max_steps: 1 << 32,
        }
    }
}

/// Most static shared memory, which no launch attribute raises.
const MAX_STATIC_SHARED: usize = 48 * 1024;

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides the order of blocks and warps, and the noise of approximate instructions.
    pub seed: u64,
    /// Moves the results of approximate instructions within their documented error.
    pub perturb_approx: bool,
    /// Checks for races, unwritten memory and distinct bytes; bounds and alignment are always checked.
    pub checks: bool,
    /// The device's limits.
    pub limits: Limits,
}

impl Default for Options {
    /// Seed 0, all checks, exact approximations.
    fn default() -> Self {
        Self {
            seed: 0,
            perturb_approx: false,
            checks: true,
            limits: Limits::default(),
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter buffer, laid out as [`Function::params`] says.
    pub params: Vec<u8>,
}

/// A small generator for schedules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x2545_f491_4f6c_dd1d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0. The bias of the remainder does not matter to a schedule.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What all workers of a launch share.
pub(crate) struct Job<'a> {
    pub f: &'a Function,
    pub launch: &'a Launch,
    pub options: &'a Options,
    pub memory: &'a Memory,
    pub allocations: Vec<Arc<Allocation>>,
    pub footprint: LaunchFootprint,
    /// Counts the points at which blocks may order their accesses, see [`LaunchFootprint`].
    pub clock: AtomicU64,
    pub blocks: u64,
    pub threads: u32,
    pub shared_bytes: usize,
    pub noise: u64,
    /// The i-th block to run is `first + i * step` modulo the number of blocks.
    first: u64,
    step: u64,
    next: AtomicU64,
    pub stop: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Job<'_> {
    fn work(&self) -> Counters {
        let mut worker = Worker::new(self);
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.blocks || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let block = (u128::from(self.first) + u128::from(i) * u128::from(self.step))
                % u128::from(self.blocks);
            if let Err(fault) = worker.run_block(block as u64) {
                self.stop.store(true, Ordering::Relaxed);
                let mut first = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(fault);
                break;
            }
        }
        worker.counters()
    }

    /// The index of a block from its number.
    pub fn block_index(&self, block: u64) -> [u32; 3] {
        let [x, y, _] = self.launch.grid.map(u64::from);
        [
            (block % x) as u32,
            (block / x % y) as u32,
            (block / x / y) as u32,
        ]
    }

    /// The index of a thread from its number in the block.
    pub fn thread_index(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.launch.block;
        [thread % x, thread / x % y, thread / x / y]
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check(f: &Function, l: &Launch, o: &Options) -> Result<(), Fault> {
    let bad =
        |message: String| Err(Fault::new(FaultKind::InvalidLaunch, message).in_kernel(f.name()));
    for axis in 0..3 {
        if l.grid[axis] == 0 || l.grid[axis] > o.limits.max_grid[axis] {
            return bad(format!(
                "grid {:?} is outside the limits {:?}",
                l.grid, o.limits.max_grid
            ));
        }
        if l.block[axis] == 0 || l.block[axis] > o.limits.max_block[axis] {
            return bad(format!(
                "block {:?} is outside the limits {:?}",
                l.block, o.limits.max_block
            ));
        }
    }
    let threads: u64 = l.block.iter().map(|&d| u64::from(d)).product();
    let most = o.limits.max_threads.min(f.max_threads());
    if threads > u64::from(most) {
        return bad(format!(
            "block {:?} has {threads} threads, the limit is {most}",
            l.block
        ));
    }
    if let Some(required) = f.required_block
        && required != l.block
    {
        return bad(format!(
            "block {:?} where the kernel requires {required:?}",
            l.block
        ));
    }
    if f.static_shared() > MAX_STATIC_SHARED {
        return bad(format!(
            "{} bytes of static shared memory, the limit is {MAX_STATIC_SHARED}",
            f.static_shared()
        ));
    }
    let shared = f.code.dynamic_base as u64 + u64::from(l.dynamic_shared);
    if shared > u64::from(o.limits.max_shared) && l.dynamic_shared > 0 {
        return bad(format!(
            "{shared} bytes of shared memory, the limit is {}",
            o.limits.max_shared
        ));
    }
    if l.params.len() < f.param_bytes() {
        return bad(format!(
            "{} bytes of parameters where the kernel has {}",
            l.params.len(),
            f.param_bytes()
        ));
    }
    Ok(())
}

/// Runs a kernel to its end.
pub fn launch(memory: &Memory, f: &Function, l: &Launch, o: &Options) -> Result<Counters, Fault> {
    if !crate::regs::simd() {
        return Err(Fault::new(
            FaultKind::Unsupported,
            "this processor lacks AVX2 or FMA, which the interpreter needs",
        ));
    }
    check(f, l, o)?;
    let blocks: u64 = l.grid.iter().map(|&d| u64::from(d)).product();
    let threads: u32 = l.block.iter().product();
    let mut rng = Rng::new(o.seed, 1);
    // Seed 0 keeps the natural order.
    let (first, step) = if o.seed == 0 || blocks < 2 {
        (0, 1)
    } else {
        let mut step = rng.below(blocks).max(1);
        while gcd(step, blocks) != 1 {
            step += 1;
        }
        (rng.below(blocks), step)
    };
    let job = Job {
        f,
        launch: l,
        options: o,
        memory,
        allocations: memory.snapshot(),
        footprint: LaunchFootprint::new(f.code.device_fence),
        clock: AtomicU64::new(1),
        blocks,
        threads,
        shared_bytes: if l.dynamic_shared == 0 {
            f.code.static_shared
        } else {
            f.code.dynamic_base + l.dynamic_shared as usize
        },
        // Zero would mean none.
        noise: if o.perturb_approx {
            Rng::new(o.seed, 2).next() | 1
        } else {
            0
        },
        first,
        step,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        fault: Mutex::new(None),
    };
    // Handing a few thousand threads to other host threads costs more than running them, and what small tests do stays
    // the same from run to run.
    let workers = if blocks <= 8 && blocks * u64::from(threads) <= 4096 {
        1
    } else {
        (rayon::current_num_threads() as u64).min(blocks)
    };
    let mut total = Counters::default();
    if workers <= 1 {
        total = job.work();
    } else {
        let sum = Mutex::new(&mut total);
        rayon::scope(|s| {
            for _ in 0..workers {
                s.spawn(|_| {
                    let counters = job.work();
                    sum.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(&counters);
                });
            }
        });
    }
    if let Some(fault) = job
        .fault
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(fault.in_kernel(f.name()));
    }
    (total.distinct_bytes_read, total.distinct_bytes_written) = job.footprint.distinct();
    Ok(total)
}
