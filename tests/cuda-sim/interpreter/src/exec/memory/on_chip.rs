//! Memory of a block and of a thread: shared and local, and the kernel's parameters.

use super::super::block::Env;
use super::super::warp::{LaneFault, Warp};
use super::{Lanes, Span, Values, inside, low};
use crate::fault::{Fault, FaultKind};
use crate::ir::AtomOp;
use crate::regs::LANES;
use crate::shared::{Access, Finding, bank_conflicts};

fn shared_offsets(env: &Env<'_>, s: &Span<'_>) -> Result<[u32; LANES], LaneFault> {
    let have = env.shared.data.len() as u64;
    let mut offsets = [0; LANES];
    for l in s.lanes() {
        inside(s.addrs[l], s.size(), have, "shared memory", l)?;
        offsets[l] = s.addrs[l] as u32;
    }
    Ok(offsets)
}

fn shared_fault(env: &Env<'_>, lane: usize, writes: bool, finding: Finding) -> LaneFault {
    let fault = match finding {
        Finding::Unwritten { offset } => Fault::new(
            FaultKind::Uninitialised,
            "read of shared memory that nothing wrote in this block",
        )
        .at_address(u64::from(offset)),
        Finding::Race {
            offset,
            thread,
            pc,
            wrote,
        } => {
            let [x, y, z] = env.job.thread_index(u32::from(thread));
            let line = env.job.f.code.insts.get(pc as usize).map_or(0, |i| i.line);
            let message = format!(
                "this thread {} a byte of shared memory that thread ({x}, {y}, {z}) {} at line {line}, with no barrier \
                 between: {}",
                if writes { "writes" } else { "reads" },
                if wrote { "wrote" } else { "read" },
                env.job.f.text.line(line)
            );
            Fault::new(FaultKind::SharedRace, message).at_address(u64::from(offset))
        }
    };
    (fault, lane as u32)
}

fn access(w: &Warp, s: &Span<'_>, lane: usize, offset: u32) -> Access {
    Access {
        offset,
        len: s.size(),
        thread: w.thread(lane as u32) as u16,
        warp_epoch: w.epoch,
        pc: w.pc,
        strong: s.strong,
    }
}

fn get(data: &[u8], at: usize, width: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..width as usize].copy_from_slice(&data[at..at + width as usize]);
    u64::from_le_bytes(bytes)
}

fn put(data: &mut [u8], at: usize, width: u32, value: u64) {
    data[at..at + width as usize].copy_from_slice(&value.to_le_bytes()[..width as usize]);
}

pub(super) fn shared_load(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &mut Values,
) -> Result<(), LaneFault> {
    let offsets = shared_offsets(env, s)?;
    if env.checks {
        for l in s.lanes() {
            if let Some(f) = env.shared.read(&access(w, s, l, offsets[l])) {
                return Err(shared_fault(env, l, false, f));
            }
        }
    }
    for l in s.lanes() {
        for (e, value) in values.iter_mut().enumerate().take(s.n) {
            value[l] = get(
                &env.shared.data,
                offsets[l] as usize + e * s.width as usize,
                s.width,
            );
        }
    }
    env.counters.bank_conflicts += bank_conflicts(&offsets, s.m, s.size());
    Ok(())
}

pub(super) fn shared_store(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &Values,
) -> Result<(), LaneFault> {
    let offsets = shared_offsets(env, s)?;
    for l in s.lanes() {
        let at = offsets[l] as usize;
        if env.checks {
            let same = (0..s.n).all(|e| {
                get(&env.shared.data, at + e * s.width as usize, s.width)
                    == low(values[e][l], s.width)
            });
            if let Some(f) = env.shared.write(&access(w, s, l, offsets[l]), same) {
                return Err(shared_fault(env, l, true, f));
            }
        }
        for (e, value) in values.iter().enumerate().take(s.n) {
            put(
                &mut env.shared.data,
                at + e * s.width as usize,
                s.width,
                value[l],
            );
        }
    }
    env.counters.bank_conflicts += bank_conflicts(&offsets, s.m, s.size());
    Ok(())
}

pub(super) fn shared_atomic(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    op: &AtomOp,
    b: &Lanes,
    c: &Lanes,
    old: &mut Lanes,
) -> Result<(), LaneFault> {
    let offsets = shared_offsets(env, s)?;
    for l in s.lanes() {
        if env.checks {
            let a = access(w, s, l, offsets[l]);
            if let Some(f) = env.shared.read(&a).or_else(|| env.shared.write(&a, false)) {
                return Err(shared_fault(env, l, true, f));
            }
        }
        let at = offsets[l] as usize;
        old[l] = get(&env.shared.data, at, s.width);
        put(
            &mut env.shared.data,
            at,
            s.width,
            (op.f)(old[l], b[l], c[l]),
        );
    }
    env.counters.bank_conflicts += bank_conflicts(&offsets, s.m, s.size());
    Ok(())
}

fn local_at(env: &Env<'_>, w: &Warp, s: &Span<'_>, l: usize) -> Result<usize, LaneFault> {
    let have = env.job.f.code.local;
    inside(s.addrs[l], s.size(), have as u64, "local memory", l)?;
    Ok(w.thread(l as u32) as usize * have + s.addrs[l] as usize)
}

pub(super) fn local_load(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &mut Values,
) -> Result<(), LaneFault> {
    for l in s.lanes() {
        let at = local_at(env, w, s, l)?;
        let size = s.size() as usize;
        if env.checks
            && !s.quiet
            && let Some(missing) = env.local_written[at..at + size].iter().position(|x| !x)
        {
            let fault = Fault::new(
                FaultKind::Uninitialised,
                "read of local memory that the thread did not write",
            );
            return Err((fault.at_address(s.addrs[l] + missing as u64), l as u32));
        }
        for (e, value) in values.iter_mut().enumerate().take(s.n) {
            value[l] = get(&env.local, at + e * s.width as usize, s.width);
        }
    }
    Ok(())
}

pub(super) fn local_store(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &Values,
) -> Result<(), LaneFault> {
    for l in s.lanes() {
        let at = local_at(env, w, s, l)?;
        for (e, value) in values.iter().enumerate().take(s.n) {
            put(&mut env.local, at + e * s.width as usize, s.width, value[l]);
        }
        env.local_written[at..at + s.size() as usize].fill(true);
    }
    Ok(())
}

pub(super) fn param_value(
    env: &Env<'_>,
    at: u64,
    width: u32,
    lane: usize,
) -> Result<u64, LaneFault> {
    let params = &env.job.launch.params;
    let have = env.job.f.param_bytes().min(params.len());
    inside(at, width, have as u64, "parameters", lane)?;
    Ok(get(params, at as usize, width))
}
