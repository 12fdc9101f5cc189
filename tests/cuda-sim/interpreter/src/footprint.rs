//! Which bytes of global memory each block read, wrote and changed atomically: for races between the blocks of a launch
//! and for the number of distinct bytes that a launch touched.
//!
//! A block collects bit maps, one bit per byte, in pages of its own, without any synchronisation; when it ends they are
//! merged into the launch's pages, and a bit that meets another block's is a race. The outcome does not depend on the
//! order in which blocks run or on which threads.
//!
//! Blocks may order their accesses themselves: one writes, passes a device-wide fence and does something atomic; another
//! does something atomic, sees that it comes later, and reads. In kernels with such fences a block's accesses fall into
//! segments, each with the time of the last atomic operation before it and that of the releasing one after it, and two
//! segments do not race if one was released before the other began. Which atomic variable it was is not looked at.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::within::{Clash, Epochs, Marks};

const PAGE_BITS: u32 = 12;
const PAGE: usize = 1 << PAGE_BITS;
const WORDS: usize = PAGE / 64;
/// Bytes that share one note of who touched them.
const LINE: usize = 128;
const LINES: usize = PAGE / LINE;

type Bits = [u64; WORDS];

/// What an access does to the bytes it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
    /// An atomic operation, or a store marked volatile, relaxed or release.
    Atomic,
    /// A load marked volatile, relaxed or acquire: meets atomics and such stores without a race.
    StrongRead,
}

/// Where an access came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub pc: u32,
    pub thread: u32,
}

/// Page numbers are already well spread in their low bits.
#[derive(Default)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, x: u64) {
        self.0 = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ x >> 7;
    }
}

type PageMap<T> = HashMap<u64, T, BuildHasherDefault<PageHasher>>;

struct LocalPage {
    page: u64,
    bits: [Bits; 4],
    /// Per line, the last access of each kind.
    origin: [[Origin; LINES]; 4],
    marks: Marks,
}

impl LocalPage {
    fn new(page: u64, granules: usize) -> Self {
        Self {
            page,
            marks: Marks::new(granules),
            bits: [[0; WORDS]; 4],
            origin: [[Origin::default(); LINES]; 4],
        }
    }
}

impl LocalPage {
    /// A clash of granules as a race, with the other access if it is the last one on its line.
    fn race(&self, c: Clash, grain: u32) -> WarpRace {
        let offset = c.granule << grain;
        let kinds: &[Touch] = if c.wrote {
            &[Touch::Write]
        } else {
            &[Touch::Read, Touch::Atomic, Touch::StrongRead]
        };
        let origins = kinds
            .iter()
            .map(|&k| self.origin[k as usize][offset / LINE]);
        WarpRace {
            addr: (self.page << PAGE_BITS) + offset as u64,
            warp: c.warp,
            wrote: c.wrote,
            origin: origins
                .into_iter()
                .find(|o| c.warp == Some(o.thread / 32) && o.pc != 0),
        }
    }
}

const CACHE: usize = 64;

/// One block's bit maps.
pub(crate) struct Footprint {
    pages: Vec<LocalPage>,
    used: usize,
    index: PageMap<u32>,
    /// The pages touched last: page number and position.
    cache: [(u64, u32); CACHE],
    /// Which kinds occur at all.
    kinds: [bool; 4],
    /// When this segment began: the time of the last atomic operation before it.
    pub acquired: u64,
    /// log2 of the granule of races between the block's warps; none where there is but one.
    grain: Option<u32>,
    epochs: Epochs,
}

/// Two warps of a block that touched one byte with no barrier between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WarpRace {
    pub addr: u64,
    /// The other warp, if it is one alone, and whether it wrote.
    pub warp: Option<u32>,
    pub wrote: bool,
    /// Where that was, if it is known.
    pub origin: Option<Origin>,
}

impl Footprint {
    /// Of a block of more warps than one, the smallest width that global memory is accessed with.
    pub fn new(granule: Option<u32>) -> Self {
        Self {
            grain: granule.map(u32::trailing_zeros),
            epochs: Epochs::default(),
            pages: Vec::new(),
            used: 0,
            index: PageMap::default(),
            cache: [(u64::MAX, 0); CACHE],
            kinds: [false; 4],
            acquired: 0,
        }
    }

    /// The block's warps met at a barrier, or one of them passed a fence.
    pub fn order(&mut self) {
        if !self.epochs.advance() {
            for p in &mut self.pages {
                p.marks.clear();
            }
        }
    }

    #[inline]
    fn page(&mut self, page: u64) -> &mut LocalPage {
        let slot = page as usize % CACHE;
        if self.cache[slot].0 != page {
            let at = match self.index.get(&page) {
                Some(&at) => at,
                None => {
                    let at = self.used;
                    if at == self.pages.len() {
                        let granules = self.grain.map_or(0, |grain| PAGE >> grain);
                        self.pages.push(LocalPage::new(page, granules));
                    } else {
                        self.pages[at].page = page;
                        self.pages[at].bits = [[0; WORDS]; 4];
                    }
                    self.used += 1;
                    self.index.insert(page, at as u32);
                    at as u32
                }
            };
            self.cache[slot] = (page, at);
        }
        &mut self.pages[self.cache[slot].1 as usize]
    }

    /// Notes an access to `len` bytes at `addr`; the first race with another warp of the block.
    #[inline]
    pub fn touch(&mut self, addr: u64, len: u32, touch: Touch, origin: Origin) -> Option<WarpRace> {
        self.kinds[touch as usize] = true;
        let (grain, mark) = (self.grain, self.epochs.mark(origin.thread / 32));
        let mut race = None;
        let mut at = addr;
        let end = addr + u64::from(len);
        while at < end {
            let p = self.page(at >> PAGE_BITS);
            let stop = end.min((at | (PAGE as u64 - 1)) + 1);
            if let Some(grain) = grain {
                let first = at as usize % PAGE;
                let range = first >> grain..(first + (stop - at) as usize).div_ceil(1 << grain);
                let clash = p.marks.touch(range, touch == Touch::Write, mark);
                race = race.or_else(|| clash.map(|c| p.race(c, grain)));
            }
            while at < stop {
                let offset = at as usize % PAGE;
                let shift = offset % 64;
                let n = (64 - shift).min((stop - at) as usize);
                p.bits[touch as usize][offset / 64] |= (u64::MAX >> (64 - n)) << shift;
                p.origin[touch as usize][offset / LINE] = origin;
                at += n as u64;
            }
        }
        race
    }

    fn clear(&mut self) {
        self.order();
        self.used = 0;
        self.index.clear();
        self.cache = [(u64::MAX, 0); CACHE];
        self.kinds = [false; 4];
    }
}

/// A note of which block touched a page, and where.
#[derive(Clone, Copy)]
struct Visit {
    block: u64,
    touch: Touch,
    low: u16,
    high: u16,
    origin: Origin,
}

#[derive(Default)]
struct Shard {
    pages: PageMap<Box<GlobalPage>>,
}

struct GlobalPage {
    bits: [Bits; 4],
    visits: Vec<Visit>,
    /// In kernels with device-wide fences, what each segment touched.
    segments: Vec<Segment>,
}

impl GlobalPage {
    fn new() -> Box<Self> {
        Box::new(Self {
            bits: [[0; WORDS]; 4],
            visits: Vec::new(),
            segments: Vec::new(),
        })
    }
}

/// The accesses of a block between two points of order.
struct Segment {
    block: u64,
    acquired: u64,
    released: u64,
    /// Words of the bit maps that are not zero: kind, position, bits.
    words: Vec<(Touch, u8, u64)>,
    origin: [Origin; 4],
}

/// The time of a release that never came.
pub(crate) const NEVER: u64 = u64::MAX;

/// More visits than this are not noted: the message then says "another block".
const MAX_VISITS: usize = 64;
const SHARDS: usize = 64;

/// Two blocks that touched one byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    pub addr: u64,
    pub mine: (Touch, Origin),
    /// The other block, and its access, as far as known.
    pub other: Option<(u64, Touch, Origin)>,
}

/// A launch's bit maps, merged from its blocks'.
pub(crate) struct LaunchFootprint {
    shards: Vec<Mutex<Shard>>,
    ordered: bool,
}

const KINDS: [Touch; 4] = [Touch::Read, Touch::Write, Touch::Atomic, Touch::StrongRead];

/// The kinds of other blocks' accesses that a kind must not meet.
fn enemies(touch: Touch) -> &'static [Touch] {
    match touch {
        Touch::Read | Touch::StrongRead => &[Touch::Write],
        Touch::Write => &[Touch::Write, Touch::Read, Touch::Atomic, Touch::StrongRead],
        Touch::Atomic => &[Touch::Write],
    }
}

impl LaunchFootprint {
    /// `ordered`: whether blocks may order their accesses by fences.
    pub fn new(ordered: bool) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            ordered,
        }
    }

    /// Merges a block's footprint, released at a time, and empties it; the first race found, if any.
    pub fn merge(&self, block: u64, f: &mut Footprint, released: u64) -> Option<Race> {
        let mut race = None;
        for p in &f.pages[..f.used] {
            let shard = &self.shards[p.page as usize % SHARDS];
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let g = shard.pages.entry(p.page).or_insert_with(GlobalPage::new);
            if race.is_none() {
                race = conflict(block, p, g, &f.kinds);
                if self.ordered && race.is_some() {
                    race = unordered(block, p, g, f.acquired, released);
                }
            }
            if self.ordered {
                let mut words = Vec::new();
                let mut origin = [Origin::default(); 4];
                for kind in KINDS {
                    for (i, &w) in p.bits[kind as usize]
                        .iter()
                        .enumerate()
                        .filter(|(_, w)| **w != 0)
                    {
                        words.push((kind, i as u8, w));
                        origin[kind as usize] = p.origin[kind as usize][i * 64 / LINE];
                    }
                }
                g.segments.push(Segment {
                    block,
                    acquired: f.acquired,
                    released,
                    words,
                    origin,
                });
            }
            for kind in KINDS {
                let k = kind as usize;
                if !f.kinds[k] {
                    continue;
                }
                let mut any = 0;
                for (mine, all) in p.bits[k].iter().zip(&mut g.bits[k]) {
                    *all |= mine;
                    any |= mine;
                }
                if any != 0 && g.visits.len() < MAX_VISITS {
                    let first = p.bits[k].iter().position(|&w| w != 0).unwrap_or(0);
                    let last = p.bits[k].iter().rposition(|&w| w != 0).unwrap_or(0);
                    let low = first * 64 + p.bits[k][first].trailing_zeros() as usize;
                    let high = last * 64 + 63 - p.bits[k][last].leading_zeros() as usize;
                    let origin = p.origin[k][low / LINE];
                    g.visits.push(Visit {
                        block,
                        touch: kind,
                        low: low as u16,
                        high: high as u16,
                        origin,
                    });
                }
            }
        }
        f.clear();
        race
    }

    /// Distinct bytes read and written; atomic operations count as both.
    pub fn distinct(&self) -> (u64, u64) {
        let (mut read, mut written) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for g in shard.pages.values() {
                for i in 0..WORDS {
                    let [r, w, a, s] = [g.bits[0][i], g.bits[1][i], g.bits[2][i], g.bits[3][i]];
                    read += u64::from((r | a | s).count_ones());
                    written += u64::from((w | a).count_ones());
                }
            }
        }
        (read, written)
    }
}

/// The conflict of a segment with one of another block that is not ordered with it.
fn unordered(
    block: u64,
    p: &LocalPage,
    g: &GlobalPage,
    acquired: u64,
    released: u64,
) -> Option<Race> {
    for s in g
        .segments
        .iter()
        .filter(|s| s.block != block && s.released >= acquired && released >= s.acquired)
    {
        for &(touch, word, bits) in &s.words {
            for kind in KINDS {
                let both = p.bits[kind as usize][usize::from(word)] & bits;
                if both != 0 && enemies(kind).contains(&touch) {
                    let offset = usize::from(word) * 64 + both.trailing_zeros() as usize;
                    return Some(Race {
                        addr: (p.page << PAGE_BITS) + offset as u64,
                        mine: (kind, p.origin[kind as usize][offset / LINE]),
                        other: Some((s.block, touch, s.origin[touch as usize])),
                    });
                }
            }
        }
    }
    None
}

fn conflict(block: u64, p: &LocalPage, g: &GlobalPage, kinds: &[bool; 4]) -> Option<Race> {
    for kind in KINDS {
        if !kinds[kind as usize] {
            continue;
        }
        for &enemy in enemies(kind) {
            let (mine, all) = (&p.bits[kind as usize], &g.bits[enemy as usize]);
            let Some(word) = (0..WORDS).find(|&i| mine[i] & all[i] != 0) else {
                continue;
            };
            let offset = word * 64 + (mine[word] & all[word]).trailing_zeros() as usize;
            let within = |v: &&Visit| {
                v.block != block && v.touch == enemy && (v.low..=v.high).contains(&(offset as u16))
            };
            return Some(Race {
                addr: (p.page << PAGE_BITS) + offset as u64,
                mine: (kind, p.origin[kind as usize][offset / LINE]),
                other: g
                    .visits
                    .iter()
                    .find(within)
                    .map(|v| (v.block, v.touch, v.origin)),
            });
        }
    }
    None
}
