//! One block at a time: its warps, its barriers, its shared and local memory.

use std::sync::atomic::Ordering;

use super::warp::{Stop, Warp, run};
use super::{Job, Rng};
use crate::counters::{CLASSES, Counters};
use crate::fault::{Fault, FaultKind};
use crate::footprint::{Footprint, NEVER, Origin, Race, Touch, WarpRace};
use crate::ir::{BarKind, Op, R_SINK};
use crate::regs::{LANES, Regs};
use crate::shared::Shared;

/// What a warp needs of its block while it runs.
pub(super) struct Env<'a> {
    pub job: &'a Job<'a>,
    pub block: u64,
    pub index: [u32; 3],
    pub shared: Shared,
    pub local: Vec<u8>,
    /// Per byte of local memory, whether it was written.
    pub local_written: Vec<bool>,
    pub footprint: Footprint,
    pub counters: Counters,
    pub classes: [u64; CLASSES],
    pub steps: u64,
    /// The allocation that the last access hit.
    pub last: usize,
    pub checks: bool,
    /// Whether a thread of the block passed a device-wide fence since the last release.
    pub fenced: bool,
}

impl Env<'_> {
    /// Before an atomic operation on global memory: with a fence before it, it releases what the block did so far.
    pub fn release(&mut self) -> Result<(), Fault> {
        if !self.checks || !self.fenced {
            return Ok(());
        }
        self.fenced = false;
        let now = self.job.clock.fetch_add(1, Ordering::SeqCst);
        match self
            .job
            .footprint
            .merge(self.block, &mut self.footprint, now)
        {
            Some(race) => Err(self.global_race(&race)),
            None => Ok(()),
        }
    }

    /// After an atomic operation on global memory: what follows comes after whatever it saw.
    pub fn acquire(&mut self) {
        if self.checks && self.job.f.code.device_fence {
            self.footprint.acquired = self.job.clock.fetch_add(1, Ordering::SeqCst);
            self.footprint.order();
        }
    }

    /// The fault of a race between two warps of the block.
    pub fn warp_race(&self, race: &WarpRace, writes: bool) -> Fault {
        let job = self.job;
        let who = match race.warp {
            Some(warp) => format!("warp {warp}"),
            None => "several warps".to_owned(),
        };
        let place = race.origin.map_or_else(String::new, |o| {
            let line = job.f.code.insts.get(o.pc as usize).map_or(0, |i| i.line);
            format!(" at line {line} ({})", job.f.text.line(line))
        });
        let message = format!(
            "this thread {} a byte of global memory that {who} of the block {}{place}, with no barrier between",
            if writes { "writes" } else { "reads" },
            if race.wrote { "wrote" } else { "read" },
        );
        Fault::new(FaultKind::GlobalRace, message).at_address(race.addr)
    }

    fn global_race(&self, race: &Race) -> Fault {
        let job = self.job;
        let verb = |t: Touch| match t {
            Touch::Read | Touch::StrongRead => "reads",
            Touch::Write => "writes",
            Touch::Atomic => "changes",
        };
        let line_of = |o: Origin| job.f.code.insts.get(o.pc as usize).map_or(0, |i| i.line);
        let (mine, origin) = race.mine;
        let other = match race.other {
            Some((block, touch, o)) => {
                let [x, y, z] = job.block_index(block);
                let line = line_of(o);
                format!(
                    "block ({x}, {y}, {z}) {} it at line {line}: {}",
                    verb(touch),
                    job.f.text.line(line)
                )
            }
            None => "another block touches it".to_owned(),
        };
        let message = format!(
            "two blocks race for a byte of global memory: this one {} it, {other}",
            verb(mine)
        );
        let line = line_of(origin);
        let mut fault = Fault::new(FaultKind::GlobalRace, message)
            .at_block(self.index)
            .at_thread(job.thread_index(origin.thread))
            .at_line(line, job.f.text.line(line))
            .at_address(race.addr);
        let at = job.allocations.partition_point(|a| a.base <= race.addr);
        if let Some(a) = at.checked_sub(1).and_then(|i| job.allocations.get(i)) {
            fault = fault.in_allocation(a.info());
        }
        fault
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// At barrier number, and the instruction it stands at.
    Waiting {
        id: u32,
        pc: u32,
    },
    Done,
}

/// A barrier on which some threads have arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Barrier {
    arrived: u32,
    /// Threads that it waits for; none for the whole block.
    count: Option<u32>,
    active: bool,
    /// The instruction of the first arrival.
    pc: u32,
    popc: u32,
    and: bool,
    or: bool,
}

const BARRIERS: usize = 16;

/// What a register holds before anything is written to it: conspicuous as an integer, huge and negative as a float.
const UNSET: u64 = 0xfadd_feed_fadd_feed;

/// Runs blocks, one after another, with buffers that it keeps.
pub(super) struct Worker<'a> {
    env: Env<'a>,
    warps: Vec<Warp>,
    states: Vec<State>,
    barriers: [Barrier; BARRIERS],
    order: Vec<u32>,
    /// The registers of a warp before its first instruction.
    fresh: Regs,
}

impl<'a> Worker<'a> {
    pub fn new(job: &'a Job<'a>) -> Self {
        let code = &job.f.code;
        let warps = job.threads.div_ceil(32);
        let mut regs = Regs {
            r32: vec![[UNSET as u32; LANES]; code.n32],
            r64: vec![[UNSET; LANES]; code.n64],
            p: vec![0; code.np],
            noise: job.noise,
        };
        for &(r, v) in &code.const32 {
            regs.r32[r as usize] = [v; LANES];
        }
        for &(r, v) in &code.const64 {
            regs.r64[r as usize] = [v; LANES];
        }
        regs.p[crate::ir::P_TRUE as usize] = u32::MAX;
        debug_assert_eq!(R_SINK, 0);
        let make = |w: u32| {
            let threads = (job.threads - w * 32).min(32);
            let all = if threads == 32 {
                u32::MAX
            } else {
                (1 << threads) - 1
            };
            let tid = std::array::from_fn(|axis| {
                std::array::from_fn(|lane| job.thread_index(w * 32 + lane as u32)[axis])
            });
            Warp::new(w, all, regs.clone(), tid)
        };
        Self {
            env: Env {
                job,
                block: 0,
                index: [0; 3],
                shared: Shared::default(),
                local: Vec::new(),
                local_written: Vec::new(),
                footprint: Footprint::new((job.threads > 32).then_some(code.global_granule)),
                counters: Counters::default(),
                classes: [0; CLASSES],
                steps: 0,
                last: 0,
                checks: job.options.checks,
                fenced: false,
            },
            warps: (0..warps).map(make).collect(),
            states: Vec::new(),
            barriers: [Barrier::default(); BARRIERS],
            order: (0..warps).collect(),
            fresh: regs,
        }
    }

    /// All that this worker counted.
    pub fn counters(mut self) -> Counters {
        self.env.counters.add_classes(&self.env.classes);
        self.env.counters
    }

    pub fn run_block(&mut self, block: u64) -> Result<(), Fault> {
        let job = self.env.job;
        self.env.block = block;
        self.env.index = job.block_index(block);
        let index = self.env.index;
        self.begin();
        let mut rng = Rng::new(job.options.seed, block.wrapping_add(3));
        self.schedule(&mut rng).map_err(|e| e.at_block(index))?;
        self.env.counters.blocks += 1;
        if self.env.checks
            && let Some(race) = job.footprint.merge(block, &mut self.env.footprint, NEVER)
        {
            return Err(self.env.global_race(&race));
        }
        Ok(())
    }

    fn begin(&mut self) {
        let job = self.env.job;
        let code = &job.f.code;
        self.env
            .shared
            .begin(job.shared_bytes, code.granule, self.env.checks);
        let local = code.local * job.threads as usize;
        if local > 0 {
            self.env.local.clear();
            self.env.local.resize(local, 0xcd);
            self.env.local_written.clear();
            self.env.local_written.resize(local, false);
        }
        self.env.steps = 0;
        self.env.fenced = false;
        self.env.footprint.acquired = 0;
        self.barriers = [Barrier::default(); BARRIERS];
        self.states.clear();
        self.states.resize(self.warps.len(), State::Ready);
        for w in &mut self.warps {
            w.begin(&self.fresh);
        }
    }

    fn schedule(&mut self, rng: &mut Rng) -> Result<(), Fault> {
        let job = self.env.job;
        loop {
            let mut ran = false;
            if job.options.seed != 0 {
                for i in (1..self.order.len()).rev() {
                    self.order.swap(i, rng.below(i as u64 + 1) as usize);
                }
            }
            for at in 0..self.order.len() {
                let w = self.order[at] as usize;
                if self.states[w] != State::Ready {
                    continue;
                }
                ran = true;
                let budget = 1000 + rng.below(4000) as u32;
                match run(&mut self.env, &mut self.warps[w], budget)? {
                    Stop::Slice => {}
                    Stop::Done => {
                        self.states[w] = State::Done;
                        // Threads that have left count as arrived.
                        for id in 0..BARRIERS as u32 {
                            self.complete(id);
                        }
                    }
                    Stop::Barrier => self.arrive(w)?,
                }
                if self.env.steps > job.options.limits.max_steps {
                    let message =
                        "the block ran for more instructions than the limit: an endless loop?";
                    let fault = Fault::new(FaultKind::StepLimit, message);
                    let pc = self.warps[w].pc;
                    return Err(self.at(fault, w, pc));
                }
                if job.stop.load(Ordering::Relaxed) {
                    // Another block failed: that fault is the one to report.
                    return Ok(());
                }
            }
            if self.states.iter().all(|s| *s == State::Done) {
                return Ok(());
            }
            if !ran {
                return Err(self.deadlock());
            }
        }
    }

    /// Adds place and thread (the warp's first live one) to a fault.
    fn at(&self, fault: Fault, w: usize, pc: u32) -> Fault {
        let lane = self.warps[w].live.trailing_zeros().min(31);
        let line = self
            .env
            .job
            .f
            .code
            .insts
            .get(pc as usize)
            .map_or(0, |i| i.line);
        fault
            .at_thread(self.env.job.thread_index(w as u32 * 32 + lane))
            .at_line(line, self.env.job.f.text.line(line))
    }

    fn arrive(&mut self, w: usize) -> Result<(), Fault> {
        let warp = &self.warps[w];
        let pc = warp.pc;
        let Op::Bar(bar) = &self.env.job.f.code.insts[pc as usize].op else {
            return Ok(());
        };
        let lane = warp.live.trailing_zeros() as usize;
        let id = warp.regs.r32[bar.id as usize][lane];
        let count = bar.count.map(|c| warp.regs.r32[c as usize][lane]);
        let p = warp.regs.p[bar.p as usize] & warp.live;
        let (live, threads) = (warp.live, warp.live.count_ones());
        let warp_threads = warp.all.count_ones();
        let kind = bar.kind;
        if id as usize >= BARRIERS {
            let fault = Fault::new(FaultKind::Barrier, format!("barrier {id}: there are 16"));
            return Err(self.at(fault, w, pc));
        }
        if let Some(c) = count
            && (!c.is_multiple_of(32) || c == 0)
        {
            let fault = Fault::new(
                FaultKind::Barrier,
                format!("a barrier for {c} threads, no multiple of the warp size"),
            );
            return Err(self.at(fault, w, pc));
        }
        let b = &mut self.barriers[id as usize];
        if b.active && b.count != count {
            let fault = Fault::new(
                FaultKind::Barrier,
                format!("threads meet at barrier {id} with different counts"),
            );
            return Err(self.at(fault, w, pc));
        }
        if b.active && b.pc != pc && count.is_none() {
            let line = self.env.job.f.code.insts[b.pc as usize].line;
            let message = format!(
                "a barrier that not all threads reach: this warp waits here while another waits at line {line}"
            );
            return Err(self.at(Fault::new(FaultKind::Barrier, message), w, pc));
        }
        if !b.active {
            *b = Barrier {
                active: true,
                count,
                pc,
                and: true,
                ..Barrier::default()
            };
        }
        // A counted barrier counts whole warps.
        b.arrived += if count.is_some() {
            warp_threads.next_multiple_of(32)
        } else {
            threads
        };
        b.popc += p.count_ones();
        b.and &= p == live;
        b.or |= p != 0;
        if kind == BarKind::Arrive {
            self.warps[w].pc += 1;
        } else {
            self.states[w] = State::Waiting { id, pc };
        }
        self.complete(id);
        Ok(())
    }

    /// Lets everybody go if a barrier is complete.
    fn complete(&mut self, id: u32) {
        let b = self.barriers[id as usize];
        if !b.active {
            return;
        }
        let target = b
            .count
            .unwrap_or_else(|| self.warps.iter().map(|w| w.live.count_ones()).sum());
        if b.arrived < target {
            return;
        }
        self.barriers[id as usize] = Barrier::default();
        self.env.counters.barriers += 1;
        // A barrier of part of the block orders less than this says: races are missed then, none are made up.
        self.env.shared.barrier();
        self.env.footprint.order();
        for w in 0..self.warps.len() {
            let State::Waiting { id: at, pc } = self.states[w] else {
                continue;
            };
            if at != id {
                continue;
            }
            self.states[w] = State::Ready;
            let warp = &mut self.warps[w];
            if let Op::Bar(bar) = &self.env.job.f.code.insts[pc as usize].op {
                let live = warp.live;
                let set = |p: &mut u32, value: bool| *p = *p & !live | if value { live } else { 0 };
                match bar.kind {
                    BarKind::RedPopc => {
                        for (l, r) in warp.regs.r32[bar.d as usize].iter_mut().enumerate() {
                            if live >> l & 1 != 0 {
                                *r = b.popc;
                            }
                        }
                    }
                    BarKind::RedAnd => set(&mut warp.regs.p[bar.d as usize], b.and),
                    BarKind::RedOr => set(&mut warp.regs.p[bar.d as usize], b.or),
                    BarKind::Sync | BarKind::Arrive => {}
                }
            }
            warp.pc = pc + 1;
        }
    }

    /// Nobody can run, and not everybody is done.
    fn deadlock(&self) -> Fault {
        let waiting = self.states.iter().enumerate().find_map(|(w, s)| match s {
            State::Waiting { id, pc } => Some((w, *id, *pc)),
            _ => None,
        });
        let Some((w, id, pc)) = waiting else {
            return Fault::new(FaultKind::Barrier, "no warp can run");
        };
        let b = self.barriers[id as usize];
        let live: u32 = self.warps.iter().map(|w| w.live.count_ones()).sum();
        let elsewhere = self.states.iter().enumerate().find_map(|(w, s)| match s {
            State::Waiting { id: other, pc } if *other != id => Some((w, *other, *pc)),
            _ => None,
        });
        let why = match elsewhere {
            Some((other, n, at)) => {
                let line = self.env.job.f.code.insts[at as usize].line;
                format!("warp {other} waits at barrier {n} (line {line})")
            }
            None => "the others have left".to_owned(),
        };
        let wanted = b.count.unwrap_or(live);
        let message = format!(
            "barrier {id} that not all threads reach: {} of {wanted} arrived, {why}",
            b.arrived
        );
        self.at(Fault::new(FaultKind::Barrier, message), w, pc)
    }
}
