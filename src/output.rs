//! Output buffers that are not zeroed before they are written, and the split of a buffer into pieces for threads.
//!
//! Zeroing an output first costs up to half of a fused op's time on a CPU. A [`Piece`] is a part of a buffer that is
//! written from its first element to its last, so that what is initialised is known at any moment; [`fill`] hands out
//! pieces that are disjoint and together the whole, and makes the buffer a `Vec` once each of them is full.

use candle_core::utils::barrier_pool;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How a buffer is cut; each variant covers a buffer once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Split {
    /// Runs of `size` elements, the last one possibly shorter.
    Runs { total: usize, size: usize },
    /// The tiles of rows: runs of `size` elements that start anew with each of `rows` rows of `len` elements.
    RowTiles {
        rows: usize,
        len: usize,
        size: usize,
    },
    /// For each of `outer` slabs of `len` lines of `inner` elements: all lines of `width` neighbouring columns.
    Columns {
        outer: usize,
        len: usize,
        inner: usize,
        width: usize,
    },
}

/// Where a piece lies: `lines` lines of `width` elements, `stride` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) lines: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

impl Split {
    fn total(self) -> usize {
        match self {
            Split::Runs { total, .. } => total,
            Split::RowTiles { rows, len, .. } => rows * len,
            Split::Columns {
                outer, len, inner, ..
            } => outer * len * inner,
        }
    }

    /// The number of pieces.
    pub(crate) fn pieces(self) -> usize {
        match self {
            Split::Runs { total, size } => total.div_ceil(size),
            Split::RowTiles { rows, len, size } => rows * len.div_ceil(size),
            Split::Columns {
                outer,
                inner,
                width,
                ..
            } => outer * inner.div_ceil(width),
        }
    }

    /// Where piece `i` lies.
    pub(crate) fn place(self, i: usize) -> Place {
        match self {
            Split::Runs { total, size } => Place {
                start: i * size,
                lines: 1,
                width: size.min(total - i * size),
                stride: 0,
            },
            Split::RowTiles { len, size, .. } => {
                let tiles = len.div_ceil(size);
                let (row, at) = (i / tiles, i % tiles * size);
                Place {
                    start: row * len + at,
                    lines: 1,
                    width: size.min(len - at),
                    stride: 0,
                }
            }
            Split::Columns {
                len, inner, width, ..
            } => {
                let tiles = inner.div_ceil(width);
                let (slab, at) = (i / tiles, i % tiles * width);
                Place {
                    start: slab * len * inner + at,
                    lines: len,
                    width: width.min(inner - at),
                    stride: inner,
                }
            }
        }
    }
}

/// A part of an output buffer, of which the first `filled` elements, line after line, are initialised.
pub(crate) struct Piece<'a, E> {
    start: *mut E,
    place: Place,
    /// Where the next [`Piece::push`] goes.
    line: usize,
    column: usize,
    /// Whether the buffer was full before.
    whole: bool,
    buffer: PhantomData<&'a mut [E]>,
}

impl<E: Copy> Piece<'_, E> {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Writes the elements that follow those written so far; a call must not go past the end of a line.
    #[inline]
    pub(crate) fn push(&mut self, src: &[E]) {
        assert!(self.line < self.place.lines && src.len() <= self.place.width - self.column);
        let at = self.line * self.place.stride + self.column;
        // SAFETY: by the assertion the elements from (line, column) on are inside the piece, which no other thread and
        // no reference touches while this one lives (see `pieces`); `src` cannot overlap it, since the only references
        // to the buffer that ever exist are borrows of this piece.
        unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), self.start.add(at), src.len()) };
        self.column += src.len();
        if self.column == self.place.width {
            self.line += 1;
            self.column = 0;
        }
    }

    /// Elements of the first line that were written before.
    #[inline]
    pub(crate) fn written(&self, at: usize, n: usize) -> &[E] {
        self.check_written(0, at, n);
        // SAFETY: the range is inside the first line of this piece and, as just checked, initialised.
        unsafe { std::slice::from_raw_parts(self.start.add(at), n) }
    }

    /// Elements of line `line` that were written before.
    #[inline]
    pub(crate) fn written_line(&self, line: usize) -> &[E] {
        self.check_written(line, 0, self.place.width);
        // SAFETY: the line is inside this piece and, as just checked, initialised.
        unsafe {
            std::slice::from_raw_parts(self.start.add(line * self.place.stride), self.place.width)
        }
    }

    #[inline]
    fn check_written(&self, line: usize, at: usize, n: usize) {
        assert!(line < self.place.lines && n <= self.place.width && at <= self.place.width - n);
        assert!(
            self.whole || line < self.line || (line == self.line && at + n <= self.column),
            "read of an output element before it was written"
        );
    }

    /// Starts over: the elements written so far can be read until they are pushed again.
    #[inline]
    pub(crate) fn rewind(&mut self) {
        self.whole |= self.is_full();
        assert!(self.whole);
        self.line = 0;
        self.column = 0;
    }

    fn is_full(&self) -> bool {
        self.line == self.place.lines || self.place.width == 0
    }
}

/// A pointer into a buffer whose pieces are handed to several threads.
#[derive(Clone, Copy)]
struct Shared<E>(*mut E);

// SAFETY: `pieces` turns the pointer into pieces that are disjoint, one thread each, and `E` may be sent.
unsafe impl<E: Send> Send for Shared<E> {}
// SAFETY: as above; the pointer itself is only copied.
unsafe impl<E: Send> Sync for Shared<E> {}

impl<E> Shared<E> {
    /// A method, so that closures capture the wrapper and not the pointer in it.
    fn get(self) -> *mut E {
        self.0
    }
}

/// The number of threads that [`parallel`] has here.
pub(crate) fn threads() -> usize {
    match rayon::current_thread_index() {
        Some(_) => rayon::current_num_threads(),
        None => barrier_pool().n_workers() + 1,
    }
}

/// Runs `work` on every index below `items`, in parallel where there are at least two tasks of `grain` elements, with
/// one scratch value a task; the results in order.
///
/// On candle's own pool: its workers spin for a while after each of candle's ops, and threads of another pool would have
/// to share their cores with them. A thread of a rayon pool stays in that pool, where several can be at work at a time.
pub(crate) fn parallel<R: Send, T>(
    items: usize,
    elements: usize,
    grain: usize,
    scratch: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, usize) -> R + Sync,
) -> Vec<R> {
    let run = |range: Range<usize>| {
        let mut scratch = scratch();
        range.map(|i| work(&mut scratch, i)).collect::<Vec<R>>()
    };
    let worth = items.min(elements / grain.max(1));
    if worth < 2 {
        return run(0..items);
    }
    // More tasks than threads, so that a thread that lost its core for a while does not hold up the rest.
    let tasks = match threads() {
        1 => return run(0..items),
        threads => worth.min(4 * threads),
    };
    let task = |task: usize| run(items * task / tasks..items * (task + 1) / tasks);
    let parts: Vec<Vec<R>> = if rayon::current_thread_index().is_some() {
        (0..tasks).into_par_iter().map(task).collect()
    } else {
        let parts: Vec<Mutex<thread::Result<Vec<R>>>> =
            (0..tasks).map(|_| Mutex::new(Ok(Vec::new()))).collect();
        barrier_pool().execute_chunked(tasks, |range| {
            for i in range {
                // A panic that went through the pool would leave its lock poisoned for every later op of the process.
                let part = catch_unwind(AssertUnwindSafe(|| task(i)));
                *parts[i].lock().unwrap_or_else(PoisonError::into_inner) = part;
            }
        });
        let part = |part: Mutex<_>| part.into_inner().unwrap_or_else(PoisonError::into_inner);
        let parts: thread::Result<_> = parts.into_iter().map(part).collect();
        parts.unwrap_or_else(|panic| resume_unwind(panic))
    };
    let mut results = Vec::with_capacity(items);
    parts.into_iter().for_each(|part| results.extend(part));
    results
}

/// # Safety
/// `buffer` points to `split.total()` elements that nothing else refers to during the call, initialised where `whole`.
unsafe fn pieces<E: Copy + Send, R: Send, T>(
    buffer: *mut E,
    whole: bool,
    split: Split,
    grain: usize,
    scratch: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, usize, &mut Piece<E>) -> R + Sync,
) -> Vec<R> {
    let shared = Shared(buffer);
    parallel(
        split.pieces(),
        split.total(),
        grain,
        scratch,
        move |scratch, i| {
            let place = split.place(i);
            let mut piece = Piece {
                // SAFETY: `place` lies inside a buffer of `split.total()` elements, and the places of different `i` are
                // disjoint; `parallel` calls this once for each `i`.
                start: unsafe { shared.get().add(place.start) },
                place,
                line: 0,
                column: 0,
                whole,
                buffer: PhantomData,
            };
            let result = work(scratch, i, &mut piece);
            assert!(
                whole || piece.whole || piece.is_full(),
                "an output piece was left unfinished"
            );
            result
        },
    )
}

/// A new buffer, each piece of it written by `work`, and what `work` returned for each.
pub(crate) fn fill<E: Copy + Send, R: Send, T>(
    split: Split,
    grain: usize,
    scratch: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, usize, &mut Piece<E>) -> R + Sync,
) -> (Vec<E>, Vec<R>) {
    let total = split.total();
    let mut buffer = Vec::<E>::with_capacity(total);
    // SAFETY: the capacity is `total` elements, and `buffer` is not used before the call returns.
    let results = unsafe { pieces(buffer.as_mut_ptr(), false, split, grain, scratch, work) };
    // SAFETY: the pieces of a split cover the buffer, and `pieces` has checked that each was written to its end.
    unsafe { buffer.set_len(total) };
    (buffer, results)
}

/// The same over a buffer that is full already, whose pieces can be read.
pub(crate) fn rework<E: Copy + Send, R: Send, T>(
    buffer: &mut [E],
    split: Split,
    grain: usize,
    scratch: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, usize, &mut Piece<E>) -> R + Sync,
) -> Vec<R> {
    assert_eq!(buffer.len(), split.total());
    // SAFETY: the buffer is borrowed exclusively, initialised and of the split's length.
    unsafe { pieces(buffer.as_mut_ptr(), true, split, grain, scratch, work) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_covers_a_buffer_exactly_once() {
        let splits = [
            Split::Runs {
                total: 1000,
                size: 33,
            },
            Split::RowTiles {
                rows: 7,
                len: 101,
                size: 25,
            },
            Split::Columns {
                outer: 3,
                len: 5,
                inner: 70,
                width: 16,
            },
            Split::Columns {
                outer: 2,
                len: 1,
                inner: 16,
                width: 16,
            },
        ];
        for split in splits {
            let mut seen = vec![0; split.total()];
            for i in 0..split.pieces() {
                let place = split.place(i);
                for line in 0..place.lines {
                    for column in 0..place.width {
                        seen[place.start + line * place.stride + column] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{split:?}");
        }
    }

    #[test]
    #[should_panic(expected = "unfinished")]
    fn an_unfinished_piece_is_caught() {
        let split = Split::Runs { total: 10, size: 5 };
        fill(
            split,
            1,
            || (),
            |(), _, piece: &mut Piece<f32>| piece.push(&[1.0; 4]),
        );
    }

    #[test]
    #[should_panic(expected = "before it was written")]
    fn an_unwritten_element_cannot_be_read() {
        let split = Split::Runs {
            total: 10,
            size: 10,
        };
        fill(
            split,
            1,
            || (),
            |(), _, piece: &mut Piece<f32>| {
                piece.push(&[1.0; 4]);
                piece.written(0, 5)[4]
            },
        );
    }

    #[test]
    #[should_panic]
    fn a_piece_cannot_be_overrun() {
        let split = Split::Runs { total: 10, size: 5 };
        fill(
            split,
            1,
            || (),
            |(), _, piece: &mut Piece<f32>| piece.push(&[1.0; 6]),
        );
    }
}
