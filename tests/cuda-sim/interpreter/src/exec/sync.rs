//! What the lanes of a warp do together: shuffles, votes, matches, reductions.

use super::block::Env;
use super::warp::{LaneFault, Warp};
use crate::fault::{Fault, FaultKind};
use crate::ir::{ReduxOp, ShflMode, VoteMode};
use crate::regs::{FULL, LANES};

/// What a shuffle gives that reads a lane which does not exist: undefined on a device, conspicuous here.
const POISON: u32 = 0xdead_beef;

/// Checks the member masks of the executing lanes `m`; gives them back. Lanes beyond the end of the block may be named.
fn members(env: &Env<'_>, w: &mut Warp, register: u32, m: u32) -> Result<[u32; LANES], LaneFault> {
    let masks = w.regs.r32[register as usize];
    let first = masks[m.trailing_zeros() as usize & 31];
    w.epoch += 1;
    // The usual case: everybody there, everybody named.
    if m == FULL && masks == [FULL; LANES] {
        return Ok(masks);
    }
    let bad = |message: String, lane: u32| Err((Fault::new(FaultKind::SyncMask, message), lane));
    for lane in 0..LANES as u32 {
        if m >> lane & 1 == 0 {
            continue;
        }
        let mask = masks[lane as usize];
        if mask >> lane & 1 == 0 {
            return bad(
                format!("lane {lane} executes with the mask {mask:#010x}, which does not name it"),
                lane,
            );
        }
        let missing = mask & w.all & !m;
        if missing != 0 {
            let other = missing.trailing_zeros();
            let line = |pc: u32| env.job.f.code.insts.get(pc as usize).map_or(0, |i| i.line);
            let place = match w.lane_pc(other) {
                Some(pc) if pc == w.pc => "its predicate is false".to_owned(),
                Some(pc) => format!("it is on its way to line {}", line(pc)),
                None => "it has left the kernel".to_owned(),
            };
            return bad(
                format!("the mask {mask:#010x} names lane {other}, which does not arrive: {place}"),
                lane,
            );
        }
        if mask != first {
            // Groups with masks of their own must agree among themselves.
            let other = (0..32).find(|&l| mask >> l & m >> l & 1 != 0 && masks[l as usize] != mask);
            if let Some(other) = other {
                return bad(
                    format!(
                        "lane {lane} names lane {other} in its mask {mask:#010x}, which has the mask {:#010x}",
                        masks[other as usize]
                    ),
                    lane,
                );
            }
        }
    }
    Ok(masks)
}

pub(super) fn warp_sync(
    env: &Env<'_>,
    w: &mut Warp,
    register: u32,
    m: u32,
) -> Result<(), LaneFault> {
    members(env, w, register, m).map(|_| ())
}

/// Registers: d, p, a, b, c, members.
pub(super) fn shfl(
    env: &Env<'_>,
    w: &mut Warp,
    mode: ShflMode,
    r: [u32; 6],
    m: u32,
) -> Result<(), LaneFault> {
    let [d, p, a, b, c, register] = r;
    let masks = members(env, w, register, m)?;
    let a = w.regs.r32[a as usize];
    let b = w.regs.r32[b as usize];
    let c = w.regs.r32[c as usize];
    let mut within = 0;
    let mut out = [0; LANES];
    for lane in 0..LANES as i32 {
        let l = lane as usize;
        let (delta, clamp, segment) = (
            (b[l] & 31) as i32,
            (c[l] & 31) as i32,
            (c[l] >> 8 & 31) as i32,
        );
        let highest = lane & segment | clamp & !segment;
        let lowest = lane & segment;
        let (source, ok) = match mode {
            ShflMode::Up => (lane - delta, lane - delta >= highest),
            ShflMode::Down => (lane + delta, lane + delta <= highest),
            ShflMode::Bfly => (lane ^ delta, lane ^ delta <= highest),
            ShflMode::Idx => (
                lowest | delta & !segment,
                lowest | delta & !segment <= highest,
            ),
        };
        let source = if ok { source } else { lane };
        within |= u32::from(ok) << l;
        let s = source as usize & 31;
        out[l] = if m >> s & 1 != 0 { a[s] } else { POISON };
        // A lane that exists and takes part, but in another group, is not there to be read.
        if m >> l & 1 != 0 && m >> s & 1 != 0 && masks[l] >> s & 1 == 0 {
            let message = format!(
                "lane {lane} reads lane {s}, which its mask {:#010x} does not name",
                masks[l]
            );
            return Err((Fault::new(FaultKind::SyncMask, message), lane as u32));
        }
    }
    let regs = &mut w.regs.r32[d as usize];
    for l in 0..LANES {
        regs[l] = if m >> l & 1 != 0 { out[l] } else { regs[l] };
    }
    let p = &mut w.regs.p[p as usize];
    *p = *p & !m | within & m;
    Ok(())
}

/// Registers: d, a, members.
pub(super) fn vote(
    env: &Env<'_>,
    w: &mut Warp,
    mode: VoteMode,
    r: [u32; 3],
    m: u32,
) -> Result<(), LaneFault> {
    let [d, a, register] = r;
    let masks = members(env, w, register, m)?;
    let p = w.regs.p[a as usize] & m;
    let mut flags = 0;
    for (lane, mask) in masks.iter().enumerate() {
        if m >> lane & 1 == 0 {
            continue;
        }
        let group = mask & m;
        let yes = p & group;
        match mode {
            VoteMode::Ballot => w.regs.r32[d as usize][lane] = yes,
            VoteMode::All => flags |= u32::from(yes == group) << lane,
            VoteMode::Any => flags |= u32::from(yes != 0) << lane,
            VoteMode::Uni => flags |= u32::from(yes == group || yes == 0) << lane,
        }
    }
    if mode != VoteMode::Ballot {
        let p = &mut w.regs.p[d as usize];
        *p = *p & !m | flags;
    }
    Ok(())
}

/// Registers: d, p, a, members.
pub(super) fn matching(
    env: &Env<'_>,
    w: &mut Warp,
    all: bool,
    wide: bool,
    r: [u32; 4],
    m: u32,
) -> Result<(), LaneFault> {
    let [d, p, a, register] = r;
    let masks = members(env, w, register, m)?;
    let values: [u64; LANES] = if wide {
        w.regs.r64[a as usize]
    } else {
        w.regs.r32[a as usize].map(u64::from)
    };
    let mut flags = 0;
    for (lane, mask) in masks.iter().enumerate() {
        if m >> lane & 1 == 0 {
            continue;
        }
        let group = mask & m;
        let mut same = 0;
        for (other, value) in values.iter().enumerate() {
            if group >> other & 1 != 0 && *value == values[lane] {
                same |= 1 << other;
            }
        }
        let full = same == group;
        flags |= u32::from(full) << lane;
        w.regs.r32[d as usize][lane] = if all && !full { 0 } else { same };
    }
    if all {
        let p = &mut w.regs.p[p as usize];
        *p = *p & !m | flags;
    }
    Ok(())
}

/// Registers: d, a, members.
pub(super) fn redux(
    env: &Env<'_>,
    w: &mut Warp,
    op: ReduxOp,
    r: [u32; 3],
    m: u32,
) -> Result<(), LaneFault> {
    let [d, a, register] = r;
    let masks = members(env, w, register, m)?;
    let values = w.regs.r32[a as usize];
    let combine = |x: u32, y: u32| match op {
        ReduxOp::AddU => x.wrapping_add(y),
        ReduxOp::MinU => x.min(y),
        ReduxOp::MaxU => x.max(y),
        ReduxOp::MinS => x.cast_signed().min(y.cast_signed()).cast_unsigned(),
        ReduxOp::MaxS => x.cast_signed().max(y.cast_signed()).cast_unsigned(),
        ReduxOp::And => x & y,
        ReduxOp::Or => x | y,
        ReduxOp::Xor => x ^ y,
    };
    for (lane, mask) in masks.iter().enumerate() {
        if m >> lane & 1 == 0 {
            continue;
        }
        let group = mask & m;
        let total = (0..LANES)
            .filter(|o| group >> o & 1 != 0)
            .map(|o| values[o])
            .reduce(combine);
        w.regs.r32[d as usize][lane] = total.unwrap_or(0);
    }
    Ok(())
}

/// Registers: d, p, members. The leader is the lowest lane of the mask.
pub(super) fn elect(env: &Env<'_>, w: &mut Warp, r: [u32; 3], m: u32) -> Result<(), LaneFault> {
    let [d, p, register] = r;
    let masks = members(env, w, register, m)?;
    let mut flags = 0;
    for (lane, mask) in masks.iter().enumerate() {
        if m >> lane & 1 == 0 {
            continue;
        }
        let leader = (mask & m).trailing_zeros();
        w.regs.r32[d as usize][lane] = leader;
        flags |= u32::from(leader == lane as u32) << lane;
    }
    let p = &mut w.regs.p[p as usize];
    *p = *p & !m | flags;
    Ok(())
}
