//! Loads, stores and atomics of a warp, with their checks and counts.

use super::block::Env;
use super::warp::{LaneFault, Warp};
use crate::fault::{Fault, FaultKind};
use crate::footprint::{Origin, Touch};
use crate::ir::{Address, AtomOp, Cell, MemOp};
use crate::memory::Allocation;
use crate::regs::{FULL, LANES};
use crate::shared::{Access, Finding, bank_conflicts};
use crate::types::{File, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_SIZE};

/// The elements of a vector, each over the lanes.
type Values = [[u64; LANES]];
type Addresses = [u64; LANES];

/// One warp's access to one space.
struct Span<'o> {
    addrs: &'o Addresses,
    m: u32,
    width: u32,
    n: usize,
    strong: bool,
    quiet: bool,
}

impl<'o> Span<'o> {
    fn of(op: &MemOp, addrs: &'o Addresses, m: u32) -> Self {
        Self {
            addrs,
            m,
            width: op.width,
            n: op.cells.len(),
            strong: op.strong,
            quiet: op.quiet,
        }
    }

    fn size(&self) -> u32 {
        self.width * self.n as u32
    }

    fn lanes(&self) -> impl Iterator<Item = usize> + use<> {
        let m = self.m;
        (0..LANES).filter(move |&l| m >> l & 1 != 0)
    }

    fn first(&self) -> usize {
        self.m.trailing_zeros() as usize & 31
    }

    /// All lanes active, each right behind the one before.
    fn contiguous(&self) -> bool {
        let size = u64::from(self.size());
        let first = self.addrs[0];
        self.m == FULL
            && self
                .addrs
                .iter()
                .enumerate()
                .all(|(l, &a)| a == first.wrapping_add(l as u64 * size))
    }

    /// All active lanes at one address.
    fn uniform(&self) -> bool {
        let first = self.addrs[self.first()];
        (0..LANES).all(|l| self.m >> l & 1 == 0 || self.addrs[l] == first)
    }
}

fn addresses(w: &Warp, a: &Address) -> Addresses {
    if a.wide {
        w.regs.r64[a.base as usize].map(|x| x.wrapping_add_signed(a.offset))
    } else {
        w.regs.r32[a.base as usize].map(|x| u64::from(x).wrapping_add_signed(a.offset))
    }
}

/// Calls `f` for each space that a warp's addresses fall into, with the addresses there and the lanes.
fn by_space(
    w: &Warp,
    space: Space,
    address: &Address,
    m: u32,
    mut f: impl FnMut(Space, &Addresses, u32) -> Result<(), LaneFault>,
) -> Result<(), LaneFault> {
    let addrs = addresses(w, address);
    let rest = match space {
        Space::Global | Space::Const => return f(Space::Global, &addrs, m),
        Space::Shared | Space::Local => return f(space, &addrs, m),
        // What is left of a parameter address has no window: a parameter of a call, in local memory.
        Space::Param => Space::Local,
        Space::Generic => Space::Global,
    };
    let mut left = m;
    for (space, window) in [
        (Space::Shared, SHARED_WINDOW),
        (Space::Local, LOCAL_WINDOW),
        (Space::Param, PARAM_WINDOW),
    ] {
        let mut inside = 0;
        for (l, &a) in addrs.iter().enumerate() {
            inside |= u32::from(a.wrapping_sub(window) < WINDOW_SIZE) << l;
        }
        inside &= m;
        left &= !inside;
        if inside != 0 {
            f(space, &addrs.map(|a| a.wrapping_sub(window)), inside)?;
        }
    }
    if left != 0 {
        f(rest, &addrs, left)?;
    }
    Ok(())
}

/// An access of `size` bytes at offset `a` of `have` bytes of some memory: in bounds, and aligned to its size.
fn inside(a: u64, size: u32, have: u64, memory: &str, lane: usize) -> Result<(), LaneFault> {
    if a > have || u64::from(size) > have - a {
        let message =
            format!("access of {size} bytes at offset {a:#x} of {have} bytes of {memory}");
        let fault = Fault::new(FaultKind::OutOfBounds, message).at_address(a);
        return Err((fault, lane as u32));
    }
    if !a.is_multiple_of(u64::from(size)) {
        return Err(misaligned(a, size, lane));
    }
    Ok(())
}

fn misaligned(addr: u64, size: u32, lane: usize) -> LaneFault {
    let message = format!("access of {size} bytes at an address that is no multiple of {size}");
    (
        Fault::new(FaultKind::Misaligned, message).at_address(addr),
        lane as u32,
    )
}

// ---- global memory ----

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

fn global_load(
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

fn global_store(
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

// ---- shared memory ----

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

fn shared_load(
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

fn shared_store(
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

fn low(value: u64, width: u32) -> u64 {
    if width >= 8 {
        value
    } else {
        value & ((1 << (8 * width)) - 1)
    }
}

// ---- local and parameter memory ----

fn local_at(env: &Env<'_>, w: &Warp, s: &Span<'_>, l: usize) -> Result<usize, LaneFault> {
    let have = env.job.f.code.local;
    inside(s.addrs[l], s.size(), have as u64, "local memory", l)?;
    Ok(w.thread(l as u32) as usize * have + s.addrs[l] as usize)
}

fn local_load(
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

fn local_store(
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

fn param_value(env: &Env<'_>, at: u64, width: u32, lane: usize) -> Result<u64, LaneFault> {
    let params = &env.job.launch.params;
    let have = env.job.f.param_bytes().min(params.len());
    inside(at, width, have as u64, "parameters", lane)?;
    Ok(get(params, at as usize, width))
}

// ---- instructions ----

/// Writes a loaded element into a register.
fn fill(w: &mut Warp, cell: &Cell, width: u32, values: &[u64; LANES], m: u32) {
    let sign = 64 - 8 * width.min(8);
    let mask = match cell.extend {
        0 | 64 => u64::MAX,
        bits => (1 << bits) - 1,
    };
    let extend = |v: u64| {
        if cell.extend == 0 {
            v
        } else {
            ((v << sign).cast_signed() >> sign).cast_unsigned() & mask
        }
    };
    match cell.file {
        File::R32 => {
            let r = &mut w.regs.r32[cell.index as usize];
            for l in 0..LANES {
                r[l] = if m >> l & 1 != 0 {
                    extend(values[l]) as u32
                } else {
                    r[l]
                };
            }
        }
        _ => {
            let r = &mut w.regs.r64[cell.index as usize];
            for l in 0..LANES {
                r[l] = if m >> l & 1 != 0 {
                    extend(values[l])
                } else {
                    r[l]
                };
            }
        }
    }
}

pub(super) fn load_param(
    env: &mut Env<'_>,
    w: &mut Warp,
    width: u32,
    offset: u32,
    cells: &[Cell],
    m: u32,
) -> Result<(), LaneFault> {
    let lane = m.trailing_zeros() as usize & 31;
    if !offset.is_multiple_of(width * cells.len() as u32) {
        return Err(misaligned(
            u64::from(offset),
            width * cells.len() as u32,
            lane,
        ));
    }
    for (e, cell) in cells.iter().enumerate() {
        let value = param_value(
            env,
            u64::from(offset) + e as u64 * u64::from(width),
            width,
            lane,
        )?;
        fill(w, cell, width, &[value; LANES], m);
    }
    Ok(())
}

/// The function for a number of elements. Scalars are by far the most frequent, and a buffer for eight elements costs time
/// to clear.
macro_rules! by_count {
    ($f:ident($env:expr, $w:expr, $op:expr, $m:expr)) => {
        match $op.cells.len() {
            1 => $f::<1>($env, $w, $op, $m),
            2 => $f::<2>($env, $w, $op, $m),
            4 => $f::<4>($env, $w, $op, $m),
            _ => $f::<8>($env, $w, $op, $m),
        }
    };
}

pub(super) fn load(env: &mut Env<'_>, w: &mut Warp, op: &MemOp, m: u32) -> Result<(), LaneFault> {
    by_count!(load_n(env, w, op, m))
}

pub(super) fn store(env: &mut Env<'_>, w: &mut Warp, op: &MemOp, m: u32) -> Result<(), LaneFault> {
    by_count!(store_n(env, w, op, m))
}

fn load_n<const N: usize>(
    env: &mut Env<'_>,
    w: &mut Warp,
    op: &MemOp,
    m: u32,
) -> Result<(), LaneFault> {
    let mut values = [[0; LANES]; N];
    by_space(w, op.space, &op.address, m, |space, addrs, m| {
        let s = Span::of(op, addrs, m);
        match space {
            Space::Shared => shared_load(env, w, &s, &mut values)?,
            Space::Local => local_load(env, w, &s, &mut values)?,
            Space::Param => {
                for l in s.lanes() {
                    for (e, value) in values.iter_mut().enumerate().take(s.n) {
                        let at = s.addrs[l] + e as u64 * u64::from(s.width);
                        value[l] = param_value(env, at, s.width, l)?;
                    }
                }
            }
            _ => {
                global_load(env, w, &s, &mut values)?;
                if op.strong {
                    env.acquire();
                }
            }
        }
        Ok(())
    })?;
    for (cell, values) in op.cells.iter().zip(&values) {
        fill(w, cell, op.width, values, m);
    }
    Ok(())
}

fn store_n<const N: usize>(
    env: &mut Env<'_>,
    w: &mut Warp,
    op: &MemOp,
    m: u32,
) -> Result<(), LaneFault> {
    let mut values = [[0; LANES]; N];
    for (cell, value) in op.cells.iter().zip(&mut values) {
        *value = operand(w, cell.file, cell.index);
    }
    by_space(w, op.space, &op.address, m, |space, addrs, m| {
        let s = Span::of(op, addrs, m);
        match space {
            Space::Shared => shared_store(env, w, &s, &values),
            Space::Local => local_store(env, w, &s, &values),
            Space::Param => {
                let fault = Fault::new(FaultKind::ReadOnly, "write to the kernel's parameters");
                Err((fault.at_address(addrs[s.first()]), s.first() as u32))
            }
            _ => {
                if op.strong {
                    env.fenced |= op.release;
                    env.release().map_err(|e| (e, s.first() as u32))?;
                }
                global_store(env, w, &s, &values)
            }
        }
    })
}

/// A register over the lanes, as bits.
fn operand(w: &Warp, file: File, index: u32) -> [u64; LANES] {
    match file {
        File::R64 => w.regs.r64[index as usize],
        _ => w.regs.r32[index as usize].map(u64::from),
    }
}

fn flush(x: u64) -> u64 {
    u64::from(crate::float::ftz(f32::from_bits(x as u32)).to_bits())
}

pub(super) fn atomic(
    env: &mut Env<'_>,
    w: &mut Warp,
    op: &AtomOp,
    m: u32,
) -> Result<(), LaneFault> {
    let (b, c) = (operand(w, op.file, op.b), operand(w, op.file, op.c));
    let mut old = [0; LANES];
    by_space(w, op.space, &op.address, m, |space, addrs, m| {
        let s = Span {
            addrs,
            m,
            width: op.width,
            n: 1,
            strong: true,
            quiet: false,
        };
        match space {
            Space::Shared => shared_atomic(env, w, &s, op, &b, &c, &mut old)?,
            Space::Global => {
                env.fenced |= op.release;
                env.release().map_err(|e| (e, s.first() as u32))?;
                global_atomic(env, w, &s, op, &b, &c, &mut old)?;
                env.acquire();
            }
            _ => {
                let fault = Fault::new(
                    FaultKind::OutOfBounds,
                    "atomic operation outside global and shared memory",
                );
                return Err((fault.at_address(addrs[s.first()]), s.first() as u32));
            }
        }
        Ok(())
    })?;
    if let Some(d) = op.dst {
        let cell = Cell {
            index: d,
            file: op.file,
            extend: 0,
        };
        fill(w, &cell, op.width, &old, m);
    }
    Ok(())
}

fn shared_atomic(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    op: &AtomOp,
    b: &[u64; LANES],
    c: &[u64; LANES],
    old: &mut [u64; LANES],
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

fn global_atomic(
    env: &mut Env<'_>,
    w: &Warp,
    s: &Span<'_>,
    op: &AtomOp,
    b: &[u64; LANES],
    c: &[u64; LANES],
    old: &mut [u64; LANES],
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
