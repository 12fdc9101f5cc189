//! Global memory.

use super::super::block::Env;
use super::super::warp::{LaneFault, Warp};
use super::{Lanes, Span, Values, low, misaligned};
use crate::fault::{Fault, FaultKind};
use crate::footprint::{Origin, Touch};
use crate::ir::AtomOp;
use crate::memory::Allocation;
use crate::regs::LANES;

/// The allocation that holds `len` bytes at `addr`, and the offset in it.
#[inline]
fn locate<'a>(env: &mut Env<'a>, addr: u64, len: u64) -> Result<(&'a Allocation, usize), Fault> {
    let all = &env.job.allocations;
    let fits = |a: &Allocation| {
        let offset = addr.wrapping_sub(a.base);
        offset < a.size as u64 && len <= a.size as u64 - offset
    };
    if let Some(a) = all.get(env.last)
        && fits(a)
    {
        return Ok((a, (addr - a.base) as usize));
    }
    let at = all.partition_point(|a| a.base <= addr);
    if let Some(i) = at.checked_sub(1)
        && fits(&all[i])
    {
        env.last = i;
        let a = &all[i];
        return Ok((a, (addr - a.base) as usize));
    }
    Err(env.job.memory.explain(addr, len as usize))
}

/// Distinct 32-byte sectors.
fn sectors(s: &Span<'_>) -> u64 {
    let size = u64::from(s.size());
    let mut list = [0u64; LANES];
    let mut n = 0;
    // Aligned accesses of up to 32 bytes lie within one sector.
    for l in s.lanes() {
        let sector = s.addrs[l] / 32;
        if n == 0 || list[n - 1] != sector {
            list[n] = sector;
            n += 1;
        }
    }
    let list = &mut list[..n];
    list.sort_unstable();
    let distinct = 1 + list.windows(2).filter(|w| w[0] != w[1]).count() as u64;
    distinct * size.div_ceil(32)
}

fn unwritten(a: &Allocation, offset: usize) -> Fault {
    Fault::new(
        FaultKind::Uninitialised,
        "read of global memory that nothing wrote",
    )
    .at_address(a.base + offset as u64)
    .in_allocation(a.info())
}

/// Calls `f` with each run of lanes that lies in one piece: allocation, offset, length, first lane, count of lanes and
/// whether they all have the same address.
fn global_pieces<'a>(
    env: &mut Env<'a>,
    s: &Span<'_>,
    mut f: impl FnMut(&mut Env<'a>, &'a Allocation, usize, usize, usize, bool) -> Result<(), LaneFault>,
) -> Result<(), LaneFault> {
    let size = s.size();
    let first = s.first();
    let aligned = |l: usize| s.addrs[l].is_multiple_of(u64::from(size));
    if s.contiguous() && aligned(0) {
        let len = u64::from(size) * 32;
        // Where the whole does not fit in one allocation, the lanes are looked at one by one below.
        if let Ok((a, offset)) = locate(env, s.addrs[0], len) {
            return f(env, a, offset, 0, LANES, false);
        }
    } else if s.uniform() && aligned(first) {
        let (a, offset) =
            locate(env, s.addrs[first], u64::from(size)).map_err(|e| (e, first as u32))?;
        return f(env, a, offset, first, 1, true);
    }
    for l in s.lanes() {
        if !aligned(l) {
            let mut fault = misaligned(s.addrs[l], size, l);
            if let Ok((a, _)) = locate(env, s.addrs[l], 1) {
                fault.0 = fault.0.in_allocation(a.info());
            }
            return Err(fault);
        }
        let (a, offset) = locate(env, s.addrs[l], u64::from(size)).map_err(|e| (e, l as u32))?;
        f(env, a, offset, l, 1, false)?;
    }
    Ok(())
}

/// Notes an access to global memory. A fault if another warp of the block touched it since the last barrier, but for two that
/// write the same value: they do not race over what it is.
fn note(
    env: &mut Env<'_>,
    w: &Warp,
    lane: usize,
    addr: u64,
    len: usize,
    touch: Touch,
    same: impl FnOnce() -> bool,
) -> Result<(), LaneFault> {
    let origin = Origin {
        pc: w.pc,
        thread: w.thread(lane as u32),
    };
    match env.footprint.touch(addr, len as u32, touch, origin) {
        Some(race) if !(race.wrote && same()) => {
            let writes = matches!(touch, Touch::Write | Touch::Atomic);
            Err((env.warp_race(&race, writes), lane as u32))
        }
        _ => Ok(()),
    }
}

pub(super) fn global_load(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &mut Values,
) -> Result<(), LaneFault> {
    let size = s.size() as usize;
    let touch = if s.strong {
        Touch::StrongRead
    } else {
        Touch::Read
    };
    global_pieces(env, s, |env, a, offset, lane, lanes, uniform| {
        let len = size * lanes;
        if env.checks {
            if let Some(missing) = a.unwritten(offset, len) {
                return Err((
                    unwritten(a, missing),
                    (lane + (missing - offset) / size) as u32,
                ));
            }
            note(env, w, lane, a.base + offset as u64, len, touch, || false)?;
        }
        for l in 0..lanes {
            for (e, value) in values.iter_mut().enumerate().take(s.n) {
                value[lane + l] = a.load(offset + l * size + e * s.width as usize, s.width);
            }
        }
        if uniform {
            for value in values.iter_mut().take(s.n) {
                *value = [value[lane]; LANES];
            }
        }
        Ok(())
    })?;
    env.counters.global_load_bytes += u64::from(s.m.count_ones()) * size as u64;
    env.counters.global_load_sectors += sectors(s);
    Ok(())
}

pub(super) fn global_store(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    values: &Values,
) -> Result<(), LaneFault> {
    let size = s.size() as usize;
    let touch = if s.strong {
        Touch::Atomic
    } else {
        Touch::Write
    };
    global_pieces(env, s, |env, a, offset, lane, lanes, uniform| {
        let len = size * lanes;
        if a.read_only {
            let fault = Fault::new(FaultKind::ReadOnly, "write to constant memory")
                .at_address(a.base + offset as u64);
            return Err((fault.in_allocation(a.info()), lane as u32));
        }
        // Of lanes that write one address the last one wins; a device leaves open which.
        let lane = if uniform {
            31 - s.m.leading_zeros() as usize
        } else {
            lane
        };
        if env.checks {
            let same = || {
                (0..lanes * s.n).all(|i| {
                    let (l, e) = (i / s.n, i % s.n);
                    let at = offset + l * size + e * s.width as usize;
                    a.load(at, s.width) == low(values[e][lane + l], s.width)
                })
            };
            note(env, w, lane, a.base + offset as u64, len, touch, same)?;
        }
        for l in 0..lanes {
            for (e, value) in values.iter().enumerate().take(s.n) {
                a.store(
                    offset + l * size + e * s.width as usize,
                    s.width,
                    value[lane + l],
                );
            }
        }
        a.mark_written(offset, len);
        Ok(())
    })?;
    env.counters.global_store_bytes += u64::from(s.m.count_ones()) * size as u64;
    env.counters.global_store_sectors += sectors(s);
    Ok(())
}

fn flush(x: u64) -> u64 {
    u64::from(crate::float::ftz(f32::from_bits(x as u32)).to_bits())
}

pub(super) fn global_atomic(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    op: &AtomOp,
    b: &Lanes,
    c: &Lanes,
    old: &mut Lanes,
) -> Result<(), LaneFault> {
    let size = s.size();
    for l in s.lanes() {
        let addr = s.addrs[l];
        if !addr.is_multiple_of(u64::from(size)) {
            return Err(misaligned(addr, size, l));
        }
        let (a, offset) = locate(env, addr, u64::from(size)).map_err(|e| (e, l as u32))?;
        if a.read_only {
            let fault = Fault::new(FaultKind::ReadOnly, "atomic operation on constant memory")
                .at_address(addr);
            return Err((fault.in_allocation(a.info()), l as u32));
        }
        if env.checks {
            if let Some(missing) = a.unwritten(offset, size as usize) {
                return Err((unwritten(a, missing), l as u32));
            }
            note(env, w, l, addr, size as usize, Touch::Atomic, || false)?;
        }
        old[l] = if op.flushes {
            a.update(offset, size, |x| flush((op.f)(flush(x), flush(b[l]), c[l])))
        } else {
            a.update(offset, size, |x| (op.f)(x, b[l], c[l]))
        };
    }
    let bytes = u64::from(s.m.count_ones()) * u64::from(size);
    env.counters.global_load_bytes += bytes;
    env.counters.global_store_bytes += bytes;
    let touched = sectors(s);
    env.counters.global_load_sectors += touched;
    env.counters.global_store_sectors += touched;
    Ok(())
}
