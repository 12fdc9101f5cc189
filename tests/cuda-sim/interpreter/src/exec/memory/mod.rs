//! Loads, stores and atomics of a warp, with their checks and counts.

mod global;
mod on_chip;

use super::block::Env;
use super::warp::{LaneFault, Warp};
use crate::fault::{Fault, FaultKind};
use crate::ir::{Address, AtomOp, Cell, MemOp};
use crate::regs::{FULL, LANES};
use crate::types::{File, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_SIZE};
use global::{global_atomic, global_load, global_store};
use on_chip::{local_load, local_store, param_value, shared_atomic, shared_load, shared_store};

/// A value of each lane.
type Lanes = [u64; LANES];
/// The elements of a vector, each over the lanes.
type Values = [Lanes];

/// One warp's access to one space.
struct Span<'o> {
    addrs: &'o Lanes,
    m: u32,
    width: u32,
    n: usize,
    strong: bool,
    quiet: bool,
}

impl<'o> Span<'o> {
    fn of(op: &MemOp, addrs: &'o Lanes, m: u32) -> Self {
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

fn addresses(w: &Warp, a: &Address) -> Lanes {
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
    mut f: impl FnMut(Space, &Lanes, u32) -> Result<(), LaneFault>,
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

fn low(value: u64, width: u32) -> u64 {
    if width >= 8 {
        value
    } else {
        value & ((1 << (8 * width)) - 1)
    }
}

/// Writes a loaded element into a register.
fn fill(w: &mut Warp, cell: &Cell, width: u32, values: &Lanes, m: u32) {
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
fn operand(w: &Warp, file: File, index: u32) -> Lanes {
    match file {
        File::R64 => w.regs.r64[index as usize],
        _ => w.regs.r32[index as usize].map(u64::from),
    }
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
