//! Fewer registers: values that are never needed at the same time share one.
//!
//! PTX gives nearly every value a register of its own, thousands in a large kernel, and a warp's registers would fill
//! more cache than there is. A lane only ever touches its own slot of a register, and only while it is active, so that
//! what counts is when a value is live along the ways through the code, not in which order diverged lanes run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ir::{BarKind, Cell, Code, Inst, Op, P_FALSE, P_SINK, P_TRUE, R_SINK, VoteMode};
use crate::types::File;

/// What an instruction does with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Use,
    Def,
}

type Visitor<'v> = dyn FnMut(&mut u32, File, Access) + 'v;

fn cells(list: &mut [Cell], access: Access, f: &mut Visitor<'_>) {
    for c in list {
        f(&mut c.index, c.file, access);
    }
}

fn width(wide: bool) -> File {
    if wide { File::R64 } else { File::R32 }
}

/// Calls `f` for every register of an instruction, those that it reads first.
fn registers(inst: &mut Inst, f: &mut Visitor<'_>) {
    use Access::{Def, Use};
    f(&mut inst.guard, File::Pred, Use);
    match &mut inst.op {
        Op::Alu { f: function, args } => {
            let sig = function.sig;
            let sources = [
                (&mut args.a, sig.a),
                (&mut args.b, sig.b),
                (&mut args.c, sig.c),
                (&mut args.e, sig.e),
            ];
            for (r, file) in sources {
                if let Some(file) = file {
                    f(r, file, Use);
                }
            }
            if let Some(file) = sig.d2 {
                // Written only in some variants.
                f(&mut args.d2, file, Use);
                f(&mut args.d2, file, Def);
            }
            f(&mut args.d, sig.d, Def);
        }
        Op::Special { d, wide, .. } => f(d, width(*wide), Def),
        Op::LdParam { cells: list, .. } => cells(list, Def, f),
        Op::Load(op) => {
            f(&mut op.address.base, width(op.address.wide), Use);
            cells(&mut op.cells, Def, f);
        }
        Op::Store(op) => {
            f(&mut op.address.base, width(op.address.wide), Use);
            cells(&mut op.cells, Use, f);
        }
        Op::Atom(op) => {
            f(&mut op.address.base, width(op.address.wide), Use);
            f(&mut op.b, op.file, Use);
            f(&mut op.c, op.file, Use);
            if let Some(d) = &mut op.dst {
                f(d, op.file, Def);
            }
        }
        Op::Brx(index, _) => f(index, File::R32, Use),
        Op::Bar(bar) => {
            f(&mut bar.id, File::R32, Use);
            f(&mut bar.p, File::Pred, Use);
            if let Some(count) = &mut bar.count {
                f(count, File::R32, Use);
            }
            match bar.kind {
                BarKind::RedPopc => f(&mut bar.d, File::R32, Def),
                BarKind::RedAnd | BarKind::RedOr => f(&mut bar.d, File::Pred, Def),
                BarKind::Sync | BarKind::Arrive => {}
            }
        }
        Op::WarpSync { members } => f(members, File::R32, Use),
        Op::Shfl {
            d,
            p,
            a,
            b,
            c,
            members,
            ..
        } => {
            for r in [a, b, c, members] {
                f(r, File::R32, Use);
            }
            f(d, File::R32, Def);
            f(p, File::Pred, Def);
        }
        Op::Vote {
            mode,
            d,
            a,
            members,
        } => {
            f(a, File::Pred, Use);
            f(members, File::R32, Use);
            f(
                d,
                if *mode == VoteMode::Ballot {
                    File::R32
                } else {
                    File::Pred
                },
                Def,
            );
        }
        Op::Match {
            wide,
            d,
            p,
            a,
            members,
            ..
        } => {
            f(a, width(*wide), Use);
            f(members, File::R32, Use);
            f(d, File::R32, Def);
            f(p, File::Pred, Def);
        }
        Op::Redux { d, a, members, .. } => {
            f(a, File::R32, Use);
            f(members, File::R32, Use);
            f(d, File::R32, Def);
        }
        Op::Elect { d, p, members } => {
            f(members, File::R32, Use);
            f(d, File::R32, Def);
            f(p, File::Pred, Def);
        }
        Op::ActiveMask { d } => f(d, File::R32, Def),
        Op::Bra(_) | Op::Fence { .. } | Op::Exit | Op::Trap(_) | Op::Nop => {}
    }
}

/// A set of registers.
#[derive(Clone, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn new(n: usize) -> Self {
        Self(vec![0; n.div_ceil(64)])
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }

    fn add_all(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }

    fn each(&self, mut f: impl FnMut(usize)) {
        for (i, &word) in self.0.iter().enumerate() {
            let mut w = word;
            while w != 0 {
                f(i * 64 + w.trailing_zeros() as usize);
                w &= w - 1;
            }
        }
    }
}

/// Blocks of laid-out code: first and last-plus-one instruction, and successors.
fn blocks(insts: &[Inst]) -> Vec<(usize, usize, Vec<usize>)> {
    let n = insts.len();
    let mut leader = vec![false; n + 1];
    leader[0] = true;
    for (i, inst) in insts.iter().enumerate() {
        match &inst.op {
            Op::Bra(t) => leader[*t as usize] = true,
            Op::Brx(_, targets) => targets.iter().for_each(|&t| leader[t as usize] = true),
            Op::Exit | Op::Trap(_) => {}
            _ => continue,
        }
        leader[i + 1] = true;
    }
    let starts: Vec<usize> = (0..n).filter(|&i| leader[i]).collect();
    let find = |t: usize| starts.partition_point(|&s| s < t);
    (0..starts.len())
        .map(|b| {
            let end = starts.get(b + 1).copied().unwrap_or(n);
            let last = &insts[end - 1];
            let always = last.guard == P_TRUE && last.negate == 0;
            let mut next = match &last.op {
                Op::Bra(t) => vec![find(*t as usize)],
                Op::Brx(_, targets) => targets.iter().map(|&t| find(t as usize)).collect(),
                _ => Vec::new(),
            };
            let leaves = matches!(last.op, Op::Bra(_) | Op::Brx(..) | Op::Exit | Op::Trap(_));
            if !(leaves && always) && b + 1 < starts.len() {
                next.push(b + 1);
            }
            (starts[b], end, next)
        })
        .collect()
}

/// Renumbers the registers of laid-out code.
pub(crate) fn allocate(code: &mut Code) {
    let (n32, n64) = (code.n32, code.n64);
    let total = n32 + n64 + code.np;
    let number = |r: u32, file: File| match file {
        File::R32 => r as usize,
        File::R64 => n32 + r as usize,
        File::Pred => n32 + n64 + r as usize,
    };
    // Registers with a meaning of their own keep a place for the whole run.
    let mut pinned = vec![false; total];
    for r in [P_TRUE, P_FALSE, P_SINK] {
        pinned[number(r, File::Pred)] = true;
    }
    pinned[number(R_SINK, File::R32)] = true;
    pinned[number(R_SINK, File::R64)] = true;
    code.const32
        .iter()
        .for_each(|&(r, _)| pinned[number(r, File::R32)] = true);
    code.const64
        .iter()
        .for_each(|&(r, _)| pinned[number(r, File::R64)] = true);

    let insts = &mut code.insts;
    let blocks = blocks(insts);
    let mut live_in: Vec<Set> = vec![Set::new(total); blocks.len()];
    let mut live_out = live_in.clone();
    // What each block reads before it writes, and what it surely writes.
    let mut upward = live_in.clone();
    let mut killed = live_in.clone();
    for (b, &(start, end, _)) in blocks.iter().enumerate() {
        for inst in insts[start..end].iter_mut().rev() {
            let always = inst.guard == P_TRUE && inst.negate == 0;
            let (mut uses, mut defs) = (Vec::new(), Vec::new());
            registers(inst, &mut |r, file, access| match access {
                Access::Use => uses.push(number(*r, file)),
                Access::Def => defs.push(number(*r, file)),
            });
            if always {
                for &d in &defs {
                    upward[b].remove(d);
                    killed[b].insert(d);
                }
            }
            uses.iter().for_each(|&u| upward[b].insert(u));
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for b in (0..blocks.len()).rev() {
            let mut out = Set::new(total);
            blocks[b].2.iter().for_each(|&s| out.add_all(&live_in[s]));
            let mut new = out.clone();
            for (word, kill) in new.0.iter_mut().zip(&killed[b].0) {
                *word &= !kill;
            }
            new.add_all(&upward[b]);
            changed |= new != live_in[b];
            live_in[b] = new;
            live_out[b] = out;
        }
    }

    // Each instruction has two moments: it reads, then it writes.
    let mut span: Vec<(usize, usize)> = vec![(usize::MAX, 0); total];
    let mut extend = |r: usize, at: usize| {
        span[r].0 = span[r].0.min(at);
        span[r].1 = span[r].1.max(at);
    };
    for (b, &(start, end, _)) in blocks.iter().enumerate() {
        live_in[b].each(|r| extend(r, 2 * start));
        live_out[b].each(|r| extend(r, 2 * end - 1));
        for (i, inst) in insts[start..end].iter_mut().enumerate() {
            let at = 2 * (start + i);
            registers(inst, &mut |r, file, access| match access {
                Access::Use => extend(number(*r, file), at),
                Access::Def => extend(number(*r, file), at + 1),
            });
        }
    }

    let place = |range: std::ops::Range<usize>| -> (Vec<(usize, u32)>, usize) {
        let mut out = Vec::new();
        let mut count = 0u32;
        let mut order = Vec::new();
        for r in range {
            if pinned[r] {
                out.push((r, count));
                count += 1;
            } else if span[r].0 != usize::MAX {
                order.push(r);
            }
        }
        order.sort_unstable_by_key(|&r| span[r]);
        let mut free: Vec<u32> = Vec::new();
        let mut active: BinaryHeap<Reverse<(usize, u32)>> = BinaryHeap::new();
        for r in order {
            while let Some(&Reverse((until, place))) = active.peek()
                && until < span[r].0
            {
                active.pop();
                free.push(place);
            }
            let place = free.pop().unwrap_or_else(|| {
                count += 1;
                count - 1
            });
            active.push(Reverse((span[r].1, place)));
            out.push((r, place));
        }
        (out, count as usize)
    };
    let mut new = vec![0u32; total];
    let ranges = [0..n32, n32..n32 + n64, n32 + n64..total];
    let counts = ranges.map(|range| {
        let (places, count) = place(range);
        places.into_iter().for_each(|(r, p)| new[r] = p);
        count
    });
    rename(insts, &|r, file| new[number(r, file)]);
    code.const32
        .iter_mut()
        .for_each(|c| c.0 = new[number(c.0, File::R32)]);
    code.const64
        .iter_mut()
        .for_each(|c| c.0 = new[number(c.0, File::R64)]);
    [code.n32, code.n64, code.np] = counts;
}

fn rename(insts: &mut [Inst], new: &dyn Fn(u32, File) -> u32) {
    for inst in insts {
        // A second destination is visited twice, as read and as written, and must be renumbered once.
        let second = match &inst.op {
            Op::Alu { f, args } if f.sig.d2.is_some() => Some(args.d2),
            _ => None,
        };
        registers(inst, &mut |r, file, _| *r = new(*r, file));
        if let (Some(old), Op::Alu { f, args }) = (second, &mut inst.op)
            && let Some(file) = f.sig.d2
        {
            args.d2 = new(old, file);
        }
    }
}
