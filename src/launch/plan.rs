//! How a row op is cut into threads: by the length of its rows, and for the relaxed ops by nothing else, so that a row's
//! result does not depend on how many others there are, nor on the device.

use crate::rowwise::Rows;

/// Threads of a warp.
pub(crate) const WARP: usize = 32;
/// Threads of a block that works on a piece of a row, as in kernels/include.
const PIECE_THREADS: usize = 256;
/// Threads of a block of columns, as in kernels/include.
const COLUMN_THREADS: usize = 256;
/// Threads of a block that holds several rows.
const LANE_THREADS: usize = 128;

/// The number of blocks, and of threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) blocks: usize,
    pub(crate) x: usize,
    pub(crate) y: usize,
}

/// A way through a row op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// A few lanes of a warp for each row.
    Lanes { lanes: usize },
    /// A block for each row.
    Block { threads: usize },
    /// Several blocks for each row, then a second kernel that joins them.
    Pieces {
        pieces: usize,
        groups: usize,
        threads: usize,
    },
    /// Rows that lie across memory; `vector` where a thread takes a whole group of them.
    Columns { x: usize, y: usize, vector: bool },
}

/// Elements that a thread works on side by side, for elements of `size` bytes.
pub(crate) fn group(size: usize) -> usize {
    if size == 2 { 8 } else { 4 }
}

/// The most groups that a row can have, wherever in one it begins.
pub(super) fn groups(len: usize, group: usize) -> usize {
    if len.is_multiple_of(group) {
        len / group
    } else {
        (len - 1).div_ceil(group) + 1
    }
}

/// Elements that a thread of a long row holds in registers, for elements of `size` bytes.
pub(crate) fn share(size: usize) -> usize {
    if size == 8 { 16 } else { 32 }
}

/// The path of an op that holds its rows in registers: `held` elements a thread, `threads` at most.
pub(crate) fn held(rows: Rows, group: usize, held: usize, threads: usize, vector: bool) -> Path {
    if rows.inner > 1 {
        return columns(rows, group, vector);
    }
    let groups = groups(rows.len, group);
    let needed = (groups * group).div_ceil(held).next_multiple_of(WARP);
    if groups <= WARP {
        Path::Lanes {
            lanes: groups.next_power_of_two(),
        }
    } else if needed <= threads {
        Path::Block { threads: needed }
    } else {
        Path::Pieces {
            pieces: (groups * group).div_ceil(PIECE_THREADS * held),
            groups: PIECE_THREADS * held / group,
            threads: PIECE_THREADS,
        }
    }
}

/// The path of an op that goes over its rows step by step, whose result does not depend on how they are cut: for few long
/// rows, by as many blocks as keep `processors` busy.
pub(crate) fn streamed(rows: Rows, group: usize, processors: usize, vector: bool) -> Path {
    /// Steps of a warp from which on a row is worth a block.
    const WARP_STEPS: usize = 8;
    /// Groups from which on a stretch of a row is worth a block of its own.
    const STRETCH: usize = 1024;
    /// The most groups whose elements 31 bits can count.
    const MOST: usize = 1 << 27;
    const THREADS: usize = 512;
    if rows.inner > 1 {
        return columns(rows, group, vector);
    }
    let groups = groups(rows.len, group);
    if groups <= WARP * WARP_STEPS {
        return Path::Lanes {
            lanes: groups.next_power_of_two().min(WARP),
        };
    }
    let wanted = (2 * processors).div_ceil(rows.outer.max(1));
    let pieces = wanted
        .min(groups.div_ceil(STRETCH))
        .max(groups.div_ceil(MOST));
    if pieces > 1 {
        let per_piece = groups.div_ceil(pieces);
        return Path::Pieces {
            pieces: groups.div_ceil(per_piece),
            groups: per_piece,
            threads: PIECE_THREADS,
        };
    }
    Path::Block {
        threads: groups.div_ceil(4).next_multiple_of(WARP).min(THREADS),
    }
}

/// The path of an op that a team goes over a row with, element by element, whatever the layout.
pub(crate) fn looped(rows: Rows) -> Path {
    if rows.len <= 1024 {
        Path::Lanes {
            lanes: rows.len.next_power_of_two().min(WARP),
        }
    } else {
        Path::Block {
            threads: rows.len.div_ceil(4).next_multiple_of(WARP).min(512),
        }
    }
}

/// Threads side by side over columns, and one below the other over their lines.
pub(crate) fn columns(rows: Rows, group: usize, vector: bool) -> Path {
    /// Lines that a thread takes at a time.
    const LINES: usize = 4;
    let whole = rows.inner.is_multiple_of(group);
    let vector = vector && whole;
    let width = |whole: bool| (rows.count() / if whole { group } else { 1 }).next_power_of_two();
    // As if a thread took whole groups wherever the shape allows it: the order of a column's sum must not depend on how
    // the tensor lies in memory.
    let y = rows
        .len
        .div_ceil(LINES)
        .next_power_of_two()
        .min(COLUMN_THREADS / width(whole).min(WARP));
    let width = width(vector);
    Path::Columns {
        x: width.min(COLUMN_THREADS / y),
        y,
        vector,
    }
}

impl Path {
    /// The blocks and threads of the path's first, or only, kernel.
    pub(crate) fn grid(self, rows: Rows, group: usize) -> Grid {
        let count = rows.count();
        match self {
            Path::Lanes { lanes } => Grid {
                blocks: count.div_ceil(LANE_THREADS / lanes),
                x: LANE_THREADS,
                y: 1,
            },
            Path::Block { threads } => Grid {
                blocks: count,
                x: threads,
                y: 1,
            },
            Path::Pieces {
                pieces, threads, ..
            } => Grid {
                blocks: count * pieces,
                x: threads,
                y: 1,
            },
            Path::Columns { x, y, vector } => Grid {
                blocks: count.div_ceil(x * if vector { group } else { 1 }),
                x,
                y,
            },
        }
    }

    /// What the names of the path's kernels end in; those of pieces are named one by one.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Path::Lanes { .. } => "_lanes",
            Path::Block { .. } => "_block",
            Path::Pieces { .. } => "_pieces",
            Path::Columns { vector: true, .. } => "_columns",
            Path::Columns { vector: false, .. } => "_columns_one",
        }
    }
}

/// Threads that take group after group of `n` elements: enough to fill the device, and no more than there is work for.
pub(crate) fn over_groups(n: usize, group: usize, processors: usize) -> Grid {
    const THREADS: usize = 256;
    /// Blocks of that size that a processor holds at once.
    const RESIDENT: usize = 8;
    Grid {
        blocks: n.div_ceil(group * THREADS).min(RESIDENT * processors),
        x: THREADS,
        y: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(outer: usize, len: usize, inner: usize) -> Rows {
        Rows { outer, len, inner }
    }

    #[test]
    fn every_row_fits_the_threads_that_hold_it() {
        for group in [4, 8] {
            for (held_elements, threads) in [(16, 512), (16, 1024), (32, 1024)] {
                for len in (1..=70_000).step_by(7).chain([8192, 16384, 32768]) {
                    let rows = rows(3, len, 1);
                    // The worst place for a row to begin is one before a group's end.
                    let before = if len % group == 0 { 0 } else { group - 1 };
                    let needed = (before + len).div_ceil(group);
                    match held(rows, group, held_elements, threads, true) {
                        Path::Lanes { lanes } => {
                            assert!(lanes.is_power_of_two() && lanes <= WARP && lanes >= needed);
                        }
                        Path::Block { threads: t } => {
                            assert!(t <= threads && t % WARP == 0);
                            assert!(t * held_elements >= needed * group, "{len}");
                        }
                        Path::Pieces { pieces, groups, .. } => {
                            assert!(
                                pieces > 1
                                    && pieces * groups >= needed
                                    && groups * group == PIECE_THREADS * held_elements
                            );
                        }
                        path => panic!("{path:?}"),
                    }
                    match streamed(rows, group, 132, true) {
                        Path::Pieces { pieces, groups, .. } => assert!(pieces * groups >= needed),
                        Path::Lanes { lanes } => assert!(lanes <= WARP && lanes.is_power_of_two()),
                        Path::Block { threads } => assert!(threads <= 512 && threads % WARP == 0),
                        path => panic!("{path:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn the_path_of_a_relaxed_row_does_not_depend_on_how_many_there_are() {
        for len in [1, 10, 128, 129, 1000, 8192, 8193, 100_000] {
            let paths = [1, 2, 1000].map(|outer| held(rows(outer, len, 1), 4, 16, 512, true));
            assert!(paths.iter().all(|&p| p == paths[0]), "{paths:?}");
        }
    }

    #[test]
    fn columns_fill_a_block_and_no_more() {
        for (outer, len, inner) in [
            (1, 1, 2),
            (5, 40_000, 3),
            (7, 10, 300),
            (100, 33, 64),
            (1, 4, 100_000),
        ] {
            for vector in [false, true] {
                let r = rows(outer, len, inner);
                let path = columns(r, 4, vector);
                let Path::Columns { x, y, vector } = path else {
                    panic!("{path:?}")
                };
                assert!(x.is_power_of_two() && y.is_power_of_two() && x * y <= COLUMN_THREADS);
                assert!(!vector || inner % 4 == 0);
                assert!(
                    matches!(columns(r, 4, false), Path::Columns { y: other, .. } if other == y)
                );
                let columns_a_thread = if vector { 4 } else { 1 };
                assert!(path.grid(r, 4).blocks * x * columns_a_thread >= r.count());
            }
        }
    }

    #[test]
    fn few_long_rows_keep_all_processors_busy_and_many_do_not_pay_for_it() {
        let path = streamed(rows(1, 1 << 20, 1), 8, 132, true);
        assert!(
            matches!(path, Path::Pieces { pieces, .. } if pieces >= 120),
            "{path:?}"
        );
        assert!(matches!(
            streamed(rows(10_000, 1 << 15, 1), 8, 132, true),
            Path::Block { .. }
        ));
        // A row beyond what 31 bits can count is cut however many rows there are.
        assert!(matches!(
            streamed(rows(100_000, 1 << 31, 1), 8, 132, true),
            Path::Pieces { .. }
        ));
    }
}
