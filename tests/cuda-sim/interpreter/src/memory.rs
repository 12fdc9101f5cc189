//! The device's global memory: allocations far apart, and which of their bytes were ever written.
//!
//! Kernels of several host threads run over the same memory, racing where the simulated program races, so that every
//! byte lies in an atomic. Accesses are relaxed: a simulated program's order comes from its barriers, which end in the
//! host's own synchronisation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use crate::fault::{AllocationInfo, Fault, FaultKind};

/// Where addresses begin: no host pointer and no small integer is valid.
const FIRST_ADDRESS: u64 = 0x7000_0000_0000;
const LAST_ADDRESS: u64 = 0x7fff_0000_0000;
/// Allocations start at multiples of this, and are at least this far apart.
const ALIGN: u64 = 512;

/// One allocation: its bytes and, per byte, whether anything wrote it.
pub(crate) struct Allocation {
    pub base: u64,
    pub size: usize,
    serial: u64,
    name: Option<String>,
    pub read_only: bool,
    pub freed: AtomicBool,
    data: Box<[AtomicU64]>,
    written: Box<[AtomicU64]>,
}

fn zeroed(n: usize) -> Option<Box<[AtomicU64]>> {
    // A plain vector would be filled by hand; zeroed pages come free from the system, and large tensors stay cheap.
    let mut v: Vec<u64> = Vec::new();
    v.try_reserve_exact(n).ok()?;
    drop(v);
    let b = Box::<[AtomicU64]>::new_zeroed_slice(n);
    // SAFETY: an AtomicU64 has the layout of a u64, for which all bits zero is a value.
    Some(unsafe { b.assume_init() })
}

impl Allocation {
    fn new(
        base: u64,
        size: usize,
        serial: u64,
        name: Option<String>,
        read_only: bool,
    ) -> Option<Self> {
        Some(Self {
            base,
            size,
            serial,
            name,
            read_only,
            freed: AtomicBool::new(false),
            data: zeroed(size.div_ceil(8))?,
            written: zeroed(size.div_ceil(64))?,
        })
    }

    pub fn info(&self) -> AllocationInfo {
        AllocationInfo {
            base: self.base,
            size: self.size,
            serial: self.serial,
            name: self.name.clone(),
        }
    }

    fn cell<T>(&self, offset: usize) -> &T {
        debug_assert!(
            offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.data.len() * 8
        );
        assert!(offset + size_of::<T>() <= self.data.len() * 8);
        // SAFETY: the atomics of 1, 2, 4 and 8 bytes that this is called with (private function) have no padding and
        // accept any bits; the offset lies within `data` by the assertion and callers align it to T's size; and the
        // bytes are only ever reached through atomics.
        unsafe { &*self.data.as_ptr().cast::<u8>().add(offset).cast::<T>() }
    }

    /// `width` bytes (1, 2, 4 or 8), aligned to the width.
    #[inline]
    pub fn load(&self, offset: usize, width: u32) -> u64 {
        match width {
            1 => u64::from(self.cell::<AtomicU8>(offset).load(Relaxed)),
            2 => u64::from(self.cell::<AtomicU16>(offset & !1).load(Relaxed)),
            4 => u64::from(self.cell::<AtomicU32>(offset & !3).load(Relaxed)),
            _ => self.cell::<AtomicU64>(offset & !7).load(Relaxed),
        }
    }

    #[inline]
    pub fn store(&self, offset: usize, width: u32, value: u64) {
        match width {
            1 => self.cell::<AtomicU8>(offset).store(value as u8, Relaxed),
            2 => self
                .cell::<AtomicU16>(offset & !1)
                .store(value as u16, Relaxed),
            4 => self
                .cell::<AtomicU32>(offset & !3)
                .store(value as u32, Relaxed),
            _ => self.cell::<AtomicU64>(offset & !7).store(value, Relaxed),
        }
    }

    /// Replaces a value by a function of it, atomically; gives the old one.
    pub fn update(&self, offset: usize, width: u32, mut f: impl FnMut(u64) -> u64) -> u64 {
        macro_rules! rmw {
            ($t:ty, $raw:ty, $align:expr) => {{
                let cell = self.cell::<$t>(offset & !$align);
                let mut old = cell.load(Relaxed);
                loop {
                    let new = f(u64::from(old)) as $raw;
                    match cell.compare_exchange_weak(
                        old,
                        new,
                        std::sync::atomic::Ordering::AcqRel,
                        std::sync::atomic::Ordering::Relaxed,
                    ) {
                        Ok(_) => return u64::from(old),
                        Err(now) => old = now,
                    }
                }
            }};
        }
        match width {
            1 => rmw!(AtomicU8, u8, 0),
            2 => rmw!(AtomicU16, u16, 1),
            4 => rmw!(AtomicU32, u32, 3),
            _ => rmw!(AtomicU64, u64, 7),
        }
    }

    /// The first byte of a range that nothing wrote, as an offset.
    #[inline]
    pub fn unwritten(&self, offset: usize, len: usize) -> Option<usize> {
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let word = at / 64;
            let shift = at % 64;
            let n = (64 - shift).min(end - at);
            let mask = (u64::MAX >> (64 - n)) << shift;
            let have = self.written[word].load(Relaxed) & mask;
            if have != mask {
                return Some(word * 64 + (mask & !have).trailing_zeros() as usize);
            }
            at += n;
        }
        None
    }

    #[inline]
    pub fn mark_written(&self, offset: usize, len: usize) {
        self.mark(offset, len, true);
    }

    fn mark(&self, offset: usize, len: usize, written: bool) {
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let word = &self.written[at / 64];
            let shift = at % 64;
            let n = (64 - shift).min(end - at);
            let mask = (u64::MAX >> (64 - n)) << shift;
            if written {
                // Most stores hit bytes that were written before; looking first spares the locked instruction.
                if word.load(Relaxed) & mask != mask {
                    word.fetch_or(mask, Relaxed);
                }
            } else {
                word.fetch_and(!mask, Relaxed);
            }
            at += n;
        }
    }

    fn get_bytes(&self, offset: usize, out: &mut [u8]) {
        let mut i = 0;
        while i < out.len() {
            let at = offset + i;
            if at.is_multiple_of(8) && out.len() - i >= 8 {
                out[i..i + 8].copy_from_slice(&self.load(at, 8).to_le_bytes());
                i += 8;
            } else {
                out[i] = self.load(at, 1) as u8;
                i += 1;
            }
        }
    }

    fn put_bytes(&self, offset: usize, bytes: &[u8]) {
        let mut i = 0;
        while i < bytes.len() {
            let at = offset + i;
            if at.is_multiple_of(8) && bytes.len() - i >= 8 {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[i..i + 8]);
                self.store(at, 8, u64::from_le_bytes(word));
                i += 8;
            } else {
                self.store(at, 1, u64::from(bytes[i]));
                i += 1;
            }
        }
    }
}

#[derive(Default)]
struct Table {
    live: BTreeMap<u64, Arc<Allocation>>,
    freed: BTreeMap<u64, AllocationInfo>,
    next: u64,
    serial: u64,
}

impl Table {
    /// The allocation at or before an address.
    fn before(&self, addr: u64) -> Option<&Arc<Allocation>> {
        self.live.range(..=addr).next_back().map(|(_, a)| a)
    }

    fn find(&self, addr: u64, len: usize) -> Result<(&Arc<Allocation>, usize), Fault> {
        if let Some(a) = self.before(addr) {
            let offset = (addr - a.base) as usize;
            if offset <= a.size && len <= a.size - offset {
                return Ok((a, offset));
            }
        }
        Err(self.explain(addr, len))
    }

    fn explain(&self, addr: u64, len: usize) -> Fault {
        if let Some((_, f)) = self.freed.range(..=addr).next_back()
            && addr - f.base < f.size as u64
        {
            return Fault::new(
                FaultKind::UseAfterFree,
                format!("access of {len} bytes to memory that was freed"),
            )
            .at_address(addr)
            .in_allocation(f.clone());
        }
        let fault = Fault::new(
            FaultKind::OutOfBounds,
            format!("access of {len} bytes outside every allocation"),
        );
        let mut fault = fault.at_address(addr);
        let after = self.live.range(addr..).next().map(|(_, a)| a);
        let near = match (self.before(addr), after) {
            (Some(b), Some(a)) if a.base - addr < addr.saturating_sub(b.base + b.size as u64) => {
                Some(a)
            }
            (Some(b), _) => Some(b),
            (None, a) => a,
        };
        if let Some(a) = near {
            fault = fault.in_allocation(a.info());
        }
        fault
    }
}

/// The memory of a simulated device. Every method may be called from any thread.
pub struct Memory {
    table: RwLock<Table>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty memory.
    pub fn new() -> Self {
        Self {
            table: RwLock::new(Table {
                next: FIRST_ADDRESS,
                ..Table::default()
            }),
        }
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        // No code panics while it holds the lock half-way through a change.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alloc_named(
        &self,
        bytes: usize,
        name: Option<String>,
        read_only: bool,
    ) -> Result<Arc<Allocation>, Fault> {
        let mut t = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let base = t.next;
        let full = || {
            Fault::new(
                FaultKind::OutOfMemory,
                format!("cannot allocate {bytes} bytes"),
            )
        };
        let end = base
            .checked_add(bytes as u64)
            .filter(|&e| e < LAST_ADDRESS)
            .ok_or_else(full)?;
        // A vector of that many elements does not even have a valid layout.
        if bytes > isize::MAX as usize / 2 {
            return Err(full());
        }
        t.serial += 1;
        let allocation =
            Arc::new(Allocation::new(base, bytes, t.serial, name, read_only).ok_or_else(full)?);
        t.next = end.next_multiple_of(ALIGN) + ALIGN;
        t.live.insert(base, Arc::clone(&allocation));
        Ok(allocation)
    }

    /// Allocates: 512-byte aligned, with a gap to the next allocation, every byte "never written".
    pub fn alloc(&self, bytes: usize) -> Result<u64, Fault> {
        self.alloc_named(bytes, None, false).map(|a| a.base)
    }

    /// Frees an allocation by its first address. Its addresses are never given out again.
    pub fn free(&self, addr: u64) -> Result<(), Fault> {
        let mut t = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match t.live.remove(&addr) {
            Some(a) => {
                a.freed.store(true, Relaxed);
                t.freed.insert(addr, a.info());
                Ok(())
            }
            None => {
                let mut fault = Fault::new(
                    FaultKind::InvalidFree,
                    "free of an address that is no live allocation's start",
                )
                .at_address(addr);
                if let Some(f) = t.freed.get(&addr) {
                    fault = Fault::new(FaultKind::InvalidFree, "allocation freed twice")
                        .at_address(addr);
                    fault = fault.in_allocation(f.clone());
                } else if let Some(a) = t.before(addr) {
                    fault = fault.in_allocation(a.info());
                }
                Err(fault)
            }
        }
    }

    /// Copies from the host and marks the bytes as written.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), Fault> {
        let t = self.table();
        let (a, offset) = t.find(addr, bytes.len())?;
        a.put_bytes(offset, bytes);
        a.mark_written(offset, bytes.len());
        Ok(())
    }

    /// Copies to the host; bytes that nothing wrote are a fault.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), Fault> {
        let t = self.table();
        let (a, offset) = t.find(addr, out.len())?;
        if let Some(missing) = a.unwritten(offset, out.len()) {
            return Err(Fault::new(
                FaultKind::Uninitialised,
                "the host reads a byte that nothing wrote",
            )
            .at_address(a.base + missing as u64)
            .in_allocation(a.info()));
        }
        a.get_bytes(offset, out);
        Ok(())
    }

    /// Copies within the device, the never-written state of each byte included.
    pub fn copy(&self, dst: u64, src: u64, n: usize) -> Result<(), Fault> {
        let t = self.table();
        let (s, from) = t.find(src, n)?;
        let (d, to) = t.find(dst, n)?;
        let mut bytes = vec![0; n];
        s.get_bytes(from, &mut bytes);
        // Taken before the marks change: the two ranges may overlap.
        let first = from / 64;
        let state: Vec<u64> = s.written[first..(from + n).div_ceil(64)]
            .iter()
            .map(|w| w.load(Relaxed))
            .collect();
        let have = |i: usize| state[i / 64 - first] >> (i % 64) & 1 != 0;
        d.put_bytes(to, &bytes);
        if s.unwritten(from, n).is_none() {
            d.mark_written(to, n);
            return Ok(());
        }
        let mut i = 0;
        while i < n {
            // Runs of equal state, so that the usual case is one call.
            let value = have(from + i);
            let mut end = i + 1;
            while end < n && have(from + end) == value {
                end += 1;
            }
            d.mark(to + i, end - i, value);
            i = end;
        }
        Ok(())
    }

    /// Fills with a byte and marks as written.
    pub fn fill(&self, addr: u64, byte: u8, n: usize) -> Result<(), Fault> {
        let t = self.table();
        let (a, offset) = t.find(addr, n)?;
        a.put_bytes(offset, &vec![byte; n]);
        a.mark_written(offset, n);
        Ok(())
    }

    /// The live allocations, address and size, for leak reports. Variables of modules are not among them.
    pub fn live(&self) -> Vec<(u64, usize)> {
        self.table()
            .live
            .values()
            .filter(|a| a.name.is_none())
            .map(|a| (a.base, a.size))
            .collect()
    }

    /// The live allocations of this moment, for one launch.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Allocation>> {
        self.table().live.values().cloned().collect()
    }

    /// The fault of an access that no allocation of a snapshot holds.
    pub(crate) fn explain(&self, addr: u64, len: usize) -> Fault {
        self.table().explain(addr, len)
    }
}
