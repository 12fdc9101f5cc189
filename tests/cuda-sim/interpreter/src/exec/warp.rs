//! A warp: 32 lanes in lockstep, divergence, and the loop that executes instructions.

use super::block::Env;
use super::{memory, sync};
use crate::fault::{Fault, FaultKind};
use crate::ir::{Op, Special};
use crate::regs::{LANES, Regs};

/// Lanes on their own way wait here until the others come by.
#[derive(Clone, Copy, Debug)]
struct Way {
    pc: u32,
    mask: u32,
}

pub(super) struct Warp {
    pub number: u32,
    /// Lanes that exist.
    pub all: u32,
    /// Lanes that have not left.
    pub live: u32,
    pub pc: u32,
    /// Lanes that run now.
    pub mask: u32,
    waiting: Vec<Way>,
    /// The least place at which lanes wait.
    frontier: u32,
    pub regs: Regs,
    /// Advanced by every warp-wide synchronisation.
    pub epoch: u32,
    tid: [[u32; LANES]; 3],
}

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its turn is over.
    Slice,
    Barrier,
    Done,
}

/// A fault and the lane it belongs to.
pub(super) type LaneFault = (Fault, u32);

impl Warp {
    pub fn new(number: u32, all: u32, regs: Regs, tid: [[u32; LANES]; 3]) -> Self {
        Self {
            number,
            all,
            live: all,
            pc: 0,
            mask: all,
            waiting: Vec::new(),
            frontier: u32::MAX,
            regs,
            epoch: 0,
            tid,
        }
    }

    /// Ready for a new block. A program that reads a register it has not set gets what `fresh` holds: anything, as on a
    /// device, but the same in every run.
    pub fn begin(&mut self, fresh: &Regs) {
        self.regs.r32.copy_from_slice(&fresh.r32);
        self.regs.r64.copy_from_slice(&fresh.r64);
        self.regs.p.copy_from_slice(&fresh.p);
        self.live = self.all;
        self.mask = self.all;
        self.pc = 0;
        self.waiting.clear();
        self.frontier = u32::MAX;
        self.epoch = 0;
    }

    /// Number of a lane's thread in the block.
    pub fn thread(&self, lane: u32) -> u32 {
        self.number * 32 + lane
    }

    /// Runs the way that is least far in the code, together with all that are at the same place. False if none is left.
    fn settle(&mut self) -> bool {
        if self.mask != 0 {
            self.waiting.push(Way {
                pc: self.pc,
                mask: self.mask,
            });
        }
        let Some(least) = self.waiting.iter().map(|w| w.pc).min() else {
            self.mask = 0;
            return false;
        };
        self.pc = least;
        self.mask = 0;
        let mask = &mut self.mask;
        self.waiting.retain(|w| {
            if w.pc == least {
                *mask |= w.mask;
            }
            w.pc != least
        });
        self.frontier = self.waiting.iter().map(|w| w.pc).min().unwrap_or(u32::MAX);
        true
    }

    /// Sends `taken` lanes to another place; the rest go on at the next instruction.
    fn branch(&mut self, taken: u32, target: u32) {
        if taken == self.mask {
            self.pc = target;
        } else if taken == 0 {
            self.pc += 1;
        } else {
            self.waiting.push(Way {
                pc: target,
                mask: taken,
            });
            self.mask &= !taken;
            self.pc += 1;
            self.settle();
        }
    }

    /// Where a lane is, for messages.
    pub fn lane_pc(&self, lane: u32) -> Option<u32> {
        if self.mask >> lane & 1 != 0 {
            return Some(self.pc);
        }
        self.waiting
            .iter()
            .find(|w| w.mask >> lane & 1 != 0)
            .map(|w| w.pc)
    }

    fn leave(&mut self, lanes: u32) -> bool {
        self.live &= !lanes;
        self.mask &= !lanes;
        self.pc += 1;
        self.mask != 0 || self.settle()
    }

    fn set32(&mut self, d: u32, m: u32, value: impl Fn(usize) -> u32) {
        for (l, r) in self.regs.r32[d as usize].iter_mut().enumerate() {
            if m >> l & 1 != 0 {
                *r = value(l);
            }
        }
    }

    fn special(&mut self, env: &Env<'_>, d: u32, wide: bool, which: Special, m: u32) {
        let job = env.job;
        let lane_mask = |f: fn(u64) -> u64| -> [u64; LANES] {
            std::array::from_fn(|l| f(1 << l) & 0xffff_ffff)
        };
        let values: [u64; LANES] = match which {
            Special::Tid(a) => self.tid[a as usize].map(u64::from),
            Special::Ntid(a) => [u64::from(job.launch.block[a as usize]); LANES],
            Special::Ctaid(a) => [u64::from(env.index[a as usize]); LANES],
            Special::Nctaid(a) => [u64::from(job.launch.grid[a as usize]); LANES],
            Special::LaneId => std::array::from_fn(|l| l as u64),
            Special::WarpId => [u64::from(self.number); LANES],
            Special::NWarpId => [u64::from(job.threads.div_ceil(32)); LANES],
            // One multiprocessor per block would be as true; a number that kernels can divide by is all that is asked.
            Special::SmId => [env.block % 108; LANES],
            Special::NSmId => [108; LANES],
            Special::GridId => [1; LANES],
            Special::LaneMaskEq => lane_mask(|b| b),
            Special::LaneMaskLt => lane_mask(|b| b - 1),
            Special::LaneMaskLe => lane_mask(|b| 2 * b - 1),
            Special::LaneMaskGt => lane_mask(|b| !(2 * b - 1)),
            Special::LaneMaskGe => lane_mask(|b| !(b - 1)),
            // Time passes with instructions: the same in every run.
            Special::Clock | Special::GlobalTimer => [env.steps; LANES],
            Special::DynamicShared => [u64::from(job.launch.dynamic_shared); LANES],
            Special::TotalShared => [job.shared_bytes as u64; LANES],
        };
        if wide {
            for (l, r) in self.regs.r64[d as usize].iter_mut().enumerate() {
                if m >> l & 1 != 0 {
                    *r = values[l];
                }
            }
        } else {
            self.set32(d, m, |l| values[l] as u32);
        }
    }
}

/// Runs a warp for up to `budget` instructions.
pub(super) fn run(env: &mut Env<'_>, w: &mut Warp, budget: u32) -> Result<Stop, Fault> {
    let job = env.job;
    let mut left = budget;
    let result = step_loop(env, w, &mut left);
    env.steps += u64::from(budget - left);
    env.counters.warp_instructions += u64::from(budget - left);
    result.map_err(|(fault, lane)| {
        let line = job.f.code.insts.get(w.pc as usize).map_or(0, |i| i.line);
        fault
            .at_thread(job.thread_index(w.thread(lane)))
            .at_line(line, job.f.text.line(line))
    })
}

fn step_loop(env: &mut Env<'_>, w: &mut Warp, left: &mut u32) -> Result<Stop, LaneFault> {
    let code = &env.job.f.code.insts;
    loop {
        if w.pc >= w.frontier {
            w.settle();
        }
        if *left == 0 {
            return Ok(Stop::Slice);
        }
        *left -= 1;
        let inst = &code[w.pc as usize];
        let m = w.mask & (w.regs.p[inst.guard as usize] ^ inst.negate);
        env.classes[inst.class as usize] += u64::from(m.count_ones());
        match &inst.op {
            Op::Alu { f, args } => {
                if m != 0 {
                    // SAFETY: `launch` has seen that this machine has the extensions that the function is compiled for.
                    unsafe { (f.run)(&mut w.regs, args, m) };
                }
            }
            Op::Bra(target) => {
                w.branch(m, *target);
                continue;
            }
            _ if m == 0 => {}
            Op::Load(op) => memory::load(env, w, op, m)?,
            Op::Store(op) => memory::store(env, w, op, m)?,
            Op::LdParam {
                width,
                offset,
                cells,
            } => memory::load_param(env, w, *width, *offset, cells, m)?,
            Op::Atom(op) => memory::atomic(env, w, op, m)?,
            Op::Special { d, wide, which } => w.special(env, *d, *wide, *which, m),
            Op::Brx(index, targets) => {
                brx(w, m, *index, targets)?;
                continue;
            }
            Op::Bar(bar) => {
                let missing = w.live & !m;
                if missing != 0 {
                    let lane = missing.trailing_zeros();
                    let form = if bar.aligned {
                        ""
                    } else {
                        " (this form allows it on a device, but not here)"
                    };
                    let message = format!(
                        "a barrier reached by part of a warp: lane {lane} of warp {} is elsewhere{form}",
                        w.number
                    );
                    return Err((Fault::new(FaultKind::Barrier, message), m.trailing_zeros()));
                }
                return Ok(Stop::Barrier);
            }
            Op::WarpSync { members } => sync::warp_sync(env, w, *members, m)?,
            Op::Shfl {
                mode,
                d,
                p,
                a,
                b,
                c,
                members,
            } => {
                sync::shfl(env, w, *mode, [*d, *p, *a, *b, *c, *members], m)?;
            }
            Op::Vote {
                mode,
                d,
                a,
                members,
            } => sync::vote(env, w, *mode, [*d, *a, *members], m)?,
            Op::Match {
                all,
                wide,
                d,
                p,
                a,
                members,
            } => {
                sync::matching(env, w, *all, *wide, [*d, *p, *a, *members], m)?;
            }
            Op::Redux { op, d, a, members } => sync::redux(env, w, *op, [*d, *a, *members], m)?,
            Op::Elect { d, p, members } => sync::elect(env, w, [*d, *p, *members], m)?,
            Op::ActiveMask { d } => w.set32(*d, m, |_| m),
            Op::Fence { device } => {
                env.fenced |= device;
                env.footprint.order();
            }
            Op::Nop => {}
            Op::Exit => {
                if !w.leave(m) {
                    return Ok(Stop::Done);
                }
                continue;
            }
            Op::Trap(what) => {
                return Err((Fault::new(FaultKind::Trap, *what), m.trailing_zeros()));
            }
        }
        w.pc += 1;
    }
}

fn brx(w: &mut Warp, m: u32, index: u32, targets: &[u32]) -> Result<(), LaneFault> {
    let index = w.regs.r32[index as usize];
    let next = w.pc + 1;
    let rest = w.mask & !m;
    if rest != 0 {
        w.waiting.push(Way {
            pc: next,
            mask: rest,
        });
    }
    for (lane, index) in index.into_iter().enumerate() {
        if m >> lane & 1 == 0 {
            continue;
        }
        let Some(&target) = targets.get(index as usize) else {
            let message = format!("branch number {index} of {}", targets.len());
            return Err((Fault::new(FaultKind::OutOfBounds, message), lane as u32));
        };
        match w.waiting.iter_mut().find(|x| x.pc == target) {
            Some(way) => way.mask |= 1 << lane,
            None => w.waiting.push(Way {
                pc: target,
                mask: 1 << lane,
            }),
        }
    }
    w.mask = 0;
    w.settle();
    Ok(())
}
