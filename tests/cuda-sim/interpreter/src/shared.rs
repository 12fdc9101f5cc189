//! A block's shared memory, with the order of accesses that barriers give.
//!
//! Time is counted in epochs: one for the block, which a block-wide barrier advances, and one per warp, which a
//! warp-wide synchronisation advances. Two accesses to one byte by different threads are ordered if a block epoch lies
//! between them or, within a warp, a warp epoch.
//!
//! The shadow holds one entry per granule, the smallest width that the kernel accesses shared memory with. Accesses are
//! aligned to their width, so that a granule is never touched in part.

/// Who touched a granule last, and when.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Block epoch; 0 is before any block.
    epoch: u32,
    /// Epoch of the thread's warp.
    warp_epoch: u32,
    thread: u16,
    flags: u16,
    pc: u32,
}

/// More than one thread of the warp read it in the same warp epoch.
const SEVERAL_LANES: u16 = 1;
/// Threads of more than one warp read it in the same block epoch.
const SEVERAL_WARPS: u16 = 2;
/// The access was atomic, or marked volatile, relaxed, acquire or release.
const STRONG: u16 = 4;

/// An access by one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub offset: u32,
    pub len: u32,
    pub thread: u16,
    pub warp_epoch: u32,
    pub pc: u32,
    pub strong: bool,
}

/// What the check of an access found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Unwritten {
        offset: u32,
    },
    /// The thread and instruction of the earlier access; whether that was a write.
    Race {
        offset: u32,
        thread: u16,
        pc: u32,
        wrote: bool,
    },
}

/// The shared memory of the block that runs on a worker.
#[derive(Default)]
pub(crate) struct Shared {
    pub data: Vec<u8>,
    /// log2 of the granule.
    grain: u32,
    writes: Vec<Mark>,
    reads: Vec<Mark>,
    epoch: u32,
    /// Epoch at which the block began: older writes are another block's.
    start: u32,
}

impl Shared {
    /// Ready for a new block.
    pub fn begin(&mut self, size: usize, granule: u32, checks: bool) {
        let grain = granule.trailing_zeros();
        self.data.clear();
        // A pattern that is neither zero nor a small number, for runs without checks.
        self.data.resize(size, 0xcd);
        if self.epoch > u32::MAX / 2 || grain != self.grain {
            self.epoch = 0;
            self.writes.clear();
            self.reads.clear();
        }
        self.grain = grain;
        let n = if checks { (size >> grain) + 1 } else { 0 };
        if self.writes.len() < n {
            self.writes.resize(n, Mark::default());
            self.reads.resize(n, Mark::default());
        }
        self.epoch += 1;
        self.start = self.epoch;
    }

    /// All threads of the block met at a barrier.
    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    fn range(&self, a: &Access) -> std::ops::Range<usize> {
        (a.offset >> self.grain) as usize..((a.offset + a.len - 1) >> self.grain) as usize + 1
    }

    /// Checks and notes a read.
    #[inline]
    pub fn read(&mut self, a: &Access) -> Option<Finding> {
        for i in self.range(a) {
            let w = self.writes[i];
            let offset = (i as u32) << self.grain;
            if w.epoch < self.start {
                return Some(Finding::Unwritten { offset });
            }
            if w.epoch == self.epoch && w.thread != a.thread {
                let ordered = w.thread / 32 == a.thread / 32 && w.warp_epoch != a.warp_epoch;
                let both_strong = a.strong && w.flags & STRONG != 0;
                if !ordered && !both_strong {
                    return Some(Finding::Race {
                        offset,
                        thread: w.thread,
                        pc: w.pc,
                        wrote: true,
                    });
                }
            }
            self.note_read(i, a);
        }
        None
    }

    #[inline]
    fn note_read(&mut self, i: usize, a: &Access) {
        let strong = if a.strong { STRONG } else { 0 };
        let r = &mut self.reads[i];
        let mut new = Mark {
            epoch: self.epoch,
            warp_epoch: a.warp_epoch,
            thread: a.thread,
            flags: strong,
            pc: a.pc,
        };
        if r.epoch == self.epoch && r.thread != a.thread {
            if r.thread / 32 != a.thread / 32 {
                new.flags |= SEVERAL_WARPS;
            } else if r.warp_epoch == a.warp_epoch {
                new.flags |= SEVERAL_LANES;
            }
        }
        if r.epoch == self.epoch {
            // A weak read of this epoch stays one.
            if r.flags & STRONG == 0 {
                new.flags &= !STRONG;
            }
            new.flags |= r.flags & SEVERAL_WARPS;
            if r.warp_epoch == a.warp_epoch && r.thread / 32 == a.thread / 32 {
                new.flags |= r.flags & SEVERAL_LANES;
            }
        }
        *r = new;
    }

    /// Checks and notes a write. `same` says that the bytes already hold the value: two threads that write the same
    /// value do not race over what it is.
    #[inline]
    pub fn write(&mut self, a: &Access, same: bool) -> Option<Finding> {
        for i in self.range(a) {
            let offset = (i as u32) << self.grain;
            let w = self.writes[i];
            if w.epoch == self.epoch && w.thread != a.thread && !same {
                let ordered = w.thread / 32 == a.thread / 32 && w.warp_epoch != a.warp_epoch;
                let both_strong = a.strong && w.flags & STRONG != 0;
                if !ordered && !both_strong {
                    return Some(Finding::Race {
                        offset,
                        thread: w.thread,
                        pc: w.pc,
                        wrote: true,
                    });
                }
            }
            let r = self.reads[i];
            if r.epoch == self.epoch {
                let other = r.thread != a.thread || r.flags & SEVERAL_LANES != 0;
                let same_warp = r.thread / 32 == a.thread / 32;
                let clash = r.flags & SEVERAL_WARPS != 0
                    || other && (!same_warp || r.warp_epoch == a.warp_epoch);
                if clash && !(a.strong && r.flags & STRONG != 0) {
                    return Some(Finding::Race {
                        offset,
                        thread: r.thread,
                        pc: r.pc,
                        wrote: false,
                    });
                }
            }
            self.writes[i] = Mark {
                epoch: self.epoch,
                warp_epoch: a.warp_epoch,
                thread: a.thread,
                flags: if a.strong { STRONG } else { 0 },
                pc: a.pc,
            };
        }
        None
    }
}

/// Extra passes over the 32 banks of 4 bytes that a warp's access needs: lanes that ask for different words of one bank
/// wait for each other. Accesses of 8 bytes run as two half-warps, of 16 bytes as four quarters.
pub(crate) fn bank_conflicts(offsets: &[u32; 32], mask: u32, width: u32) -> u64 {
    let group = match width {
        0..=4 => 32,
        8 => 16,
        _ => 8,
    };
    let words = width.div_ceil(4);
    if words == 1 && one_word_per_bank(offsets, mask) {
        return 0;
    }
    let mut extra = 0;
    for start in (0..32).step_by(group) {
        // At most 32 distinct words per group.
        let mut seen = [u32::MAX; 32];
        let mut seen_len = 0;
        let mut depth = [0u8; 32];
        for (lane, offset) in offsets.iter().enumerate().skip(start).take(group) {
            if mask >> lane & 1 == 0 {
                continue;
            }
            for w in 0..words {
                let word = offset / 4 + w;
                if seen_len < 32 && !seen[..seen_len].contains(&word) {
                    seen[seen_len] = word;
                    seen_len += 1;
                    depth[word as usize % 32] += 1;
                }
            }
        }
        extra += u64::from(depth.iter().copied().max().unwrap_or(0).saturating_sub(1));
    }
    extra
}

/// The usual case: no bank is asked for two different words.
fn one_word_per_bank(offsets: &[u32; 32], mask: u32) -> bool {
    let mut bank = [u32::MAX; 32];
    for (lane, offset) in offsets.iter().enumerate() {
        let word = offset / 4;
        let slot = &mut bank[word as usize % 32];
        if mask >> lane & 1 != 0 {
            if *slot != u32::MAX && *slot != word {
                return false;
            }
            *slot = word;
        }
    }
    true
}
