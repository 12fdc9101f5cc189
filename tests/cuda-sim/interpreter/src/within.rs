//! Races for global memory between the warps of one block: which warp touched each granule since the block's last barrier.
//!
//! A granule is the smallest width that the kernel accesses global memory with, so that none is touched in part. Lanes of
//! one warp run in lockstep here and are taken to be ordered; so is everything on either side of a fence, since threads may
//! wait for each other with one. Races are missed then, none are made up.

/// A mark is the epoch, above the number of a warp (there are at most 32) and this: several warps read it.
const SEVERAL: u32 = 1 << 5;
const EPOCH_SHIFT: u32 = 6;

/// A page's marks.
#[derive(Default)]
pub(crate) struct Marks {
    writes: Vec<u32>,
    reads: Vec<u32>,
}

/// An access of another warp that nothing orders with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub granule: usize,
    /// None if several warps read it.
    pub warp: Option<u32>,
    pub wrote: bool,
}

/// The time of a block, in barriers.
pub(crate) struct Epochs {
    now: u32,
}

impl Default for Epochs {
    fn default() -> Self {
        // Fresh marks are 0: before any.
        Self { now: 1 }
    }
}

impl Epochs {
    /// Everything up to here comes before everything after it. False if the count began anew, and old marks have to go.
    pub fn advance(&mut self) -> bool {
        self.now += 1;
        let fits = self.now < 1 << (32 - EPOCH_SHIFT);
        if !fits {
            self.now = 1;
        }
        fits
    }

    pub fn mark(&self, warp: u32) -> u32 {
        self.now << EPOCH_SHIFT | warp
    }
}

impl Marks {
    pub fn new(granules: usize) -> Self {
        Self {
            writes: vec![0; granules],
            reads: vec![0; granules],
        }
    }

    pub fn clear(&mut self) {
        self.writes.fill(0);
        self.reads.fill(0);
    }

    /// Notes an access to a range of granules by the warp of a mark; the first clash in it.
    #[inline]
    pub fn touch(
        &mut self,
        range: std::ops::Range<usize>,
        writes: bool,
        mark: u32,
    ) -> Option<Clash> {
        let current = |m: u32| m >> EPOCH_SHIFT == mark >> EPOCH_SHIFT;
        // Of this epoch, and by another warp or several.
        let foreign = |m: u32| current(m) && m != mark;
        let start = range.start;
        let (w, r) = (&mut self.writes[range.clone()], &mut self.reads[range]);
        let mut clash = w.iter().any(|&m| foreign(m));
        if writes {
            clash |= r.iter().any(|&m| foreign(m));
        }
        let found = clash.then(|| {
            let other = |marks: &[u32]| {
                marks
                    .iter()
                    .position(|&m| foreign(m))
                    .map(|i| (i, marks[i]))
            };
            let (at, m, wrote) = match other(w) {
                Some((at, m)) => (at, m, true),
                None => other(r).map_or((0, mark, false), |(at, m)| (at, m, false)),
            };
            Clash {
                granule: start + at,
                warp: (m & SEVERAL == 0).then_some(m & 31),
                wrote,
            }
        });
        if writes {
            w.fill(mark);
        } else {
            for m in r {
                *m = if foreign(*m) { mark | SEVERAL } else { mark };
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_barrier_orders_clashes() {
        let (mut epochs, mut marks) = (Epochs::default(), Marks::new(8));
        let clash = |granule, warp, wrote| {
            Some(Clash {
                granule,
                warp,
                wrote,
            })
        };
        assert_eq!(marks.touch(0..4, true, epochs.mark(0)), None);
        assert_eq!(marks.touch(0..4, false, epochs.mark(0)), None);
        assert_eq!(
            marks.touch(3..5, false, epochs.mark(7)),
            clash(3, Some(0), true)
        );
        assert!(epochs.advance());
        assert_eq!(marks.touch(0..8, false, epochs.mark(7)), None);
        assert_eq!(marks.touch(6..8, true, epochs.mark(7)), None);
        assert_eq!(
            marks.touch(5..6, true, epochs.mark(31)),
            clash(5, Some(7), false)
        );
        assert_eq!(marks.touch(0..1, false, epochs.mark(2)), None);
        assert_eq!(
            marks.touch(0..1, true, epochs.mark(2)),
            clash(0, None, false)
        );
        assert!(epochs.advance());
        assert_eq!(marks.touch(0..8, true, epochs.mark(2)), None);
        // The count begins anew.
        epochs.now = (1 << (32 - EPOCH_SHIFT)) - 1;
        assert_eq!(marks.touch(0..8, true, epochs.mark(3)), None);
        assert!(!epochs.advance());
        marks.clear();
        assert_eq!(marks.touch(0..8, true, epochs.mark(4)), None);
    }
}
