//! The backward engine of estimators whose forward result is a one-hot that was drawn from the logits: passes over rows of
//! three operands, the logits, the one-hot and its gradient.
//!
//! A formula sees rows one after the other in small buffers, whole where they fit and piece by piece where they do not, and
//! need not know along which dim they run. Short rows it sees side by side, a lane for each: see [`Lines`].

use super::lines::{self, Lines};
use super::source::push;
use super::{Rows, Source, TILE, padded};
use crate::element::Element;
use crate::math::Real;
use crate::output::{Piece, Split, fill as fill_pieces};
use crate::rng::{FILL_SLACK, Noise, NoiseReal, Stream, fill};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch};
use candle_core::{CpuStorage, Layout, Result};

/// Columns that are worked on side by side: as many elements as noise is drawn for at a time.
const COLUMNS: usize = 64;
/// Rows up to this length are worked on side by side where they lie one after the other too.
const SHORT: usize = 24;

/// The operands of a backward pass.
pub(crate) struct Operands<'a, E> {
    pub(crate) logits: Source<'a, E>,
    /// The forward result: a one-hot, or NaN where a row has no proper class.
    pub(crate) drawn: Source<'a, E>,
    /// The gradient of the result.
    pub(crate) grad: Source<'a, E>,
}

impl<'a, E: Element> Operands<'a, E> {
    /// From storage and layout of each.
    pub(crate) fn new(
        logits: (&'a CpuStorage, &Layout),
        drawn: (&'a CpuStorage, &Layout),
        grad: (&'a CpuStorage, &Layout),
    ) -> Result<Self> {
        Ok(Self {
            logits: Source::new(logits.0, logits.1)?,
            drawn: Source::new(drawn.0, drawn.1)?,
            grad: Source::new(grad.0, grad.1)?,
        })
    }
}

/// Elements `at .. at + n` of `count` rows: element `k` of row `i` is at `i * n + k` of each buffer. What follows the last
/// one, for at least a vector, can be read and means nothing.
pub(crate) struct Chunk<'a, C> {
    pub(crate) count: usize,
    pub(crate) n: usize,
    /// The place in the rows where this begins.
    pub(crate) at: usize,
    pub(crate) logits: &'a [C],
    pub(crate) drawn: &'a [C],
    pub(crate) grad: &'a [C],
    place: Origin,
    room: &'a mut Room<C>,
}

/// Where a chunk's elements lie in the logical order of the tensor.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The first element of the first row, counted from the row's own beginning.
    pub(super) row: usize,
    pub(super) rows: Rows,
}

/// Where noise is drawn, in the logical order and turned.
pub(super) struct Room<C> {
    pub(super) flat: Vec<C>,
    pub(super) turned: Vec<C>,
}

impl<C: NoiseReal> Chunk<'_, C> {
    /// The logical index of element `k`, counted from the row's beginning, of the chunk's row `i`.
    pub(crate) fn index(&self, i: usize, k: usize) -> usize {
        let Origin { row, rows } = self.place;
        if rows.inner > 1 {
            row + i + k * rows.inner
        } else {
            row + i * rows.len + k
        }
    }

    /// The variates of the chunk's elements, placed as the operands are.
    #[inline(always)]
    pub(crate) fn noise<S: Simd, N: Noise>(&mut self, stream: &Stream) -> &[C] {
        let (count, n) = (self.count, self.n);
        let first = self.index(0, self.at);
        let Room { flat, turned } = &mut *self.room;
        let inner = self.place.rows.inner;
        if inner == 1 {
            let offset = fill::<S, C, N>(stream, first as u64, count * n, flat);
            return &flat[offset..];
        }
        if count == inner {
            // One run of elements, whose noise is drawn in one go however short its lines.
            let offset = fill::<S, C, N>(stream, first as u64, count * n, flat);
            turn_lines(&flat[offset..], turned, (count, n), 0..n);
        } else {
            for line in 0..n {
                let offset = fill::<S, C, N>(stream, (first + line * inner) as u64, count, flat);
                turn_lines(&flat[offset..], turned, (count, n), line..line + 1);
            }
        }
        turned
    }

    /// The variate of one element.
    #[inline(always)]
    pub(crate) fn one<S: Simd, N: Noise>(&mut self, stream: &Stream, element: usize) -> C {
        let flat = &mut self.room.flat;
        let offset = fill::<S, C, N>(stream, element as u64, 1, flat);
        flat[offset]
    }
}

/// Lines of `count` neighbouring columns to rows of `n`: `src` begins with the first of `lines`.
fn turn_lines<C: Copy>(
    src: &[C],
    dst: &mut [C],
    (count, n): (usize, usize),
    lines: std::ops::Range<usize>,
) {
    for (line, src) in lines.zip(src.chunks_exact(count)) {
        for (i, &x) in src.iter().enumerate() {
            dst[i * n + line] = x;
        }
    }
}

/// The formulas of an estimator.
pub(crate) trait Passes<C: NoiseReal>: Sync {
    /// What is known of a row.
    type Row: Send;
    /// Buffers of a task, each of the size given at least.
    type Scratch;
    /// Passes over a row before the one that gives its result.
    const BEFORE: usize;

    fn row(&self) -> Self::Row;
    fn scratch(&self, elements: usize) -> Self::Scratch;
    /// Takes a chunk in.
    fn pass<S: Simd>(
        &self,
        number: usize,
        rows: &mut [Self::Row],
        chunk: &mut Chunk<C>,
        scratch: &mut Self::Scratch,
    );
    /// The result of a chunk, placed as its operands are; past its end goes what is left of the last vector.
    fn finish<S: Simd>(
        &self,
        rows: &mut [Self::Row],
        chunk: &mut Chunk<C>,
        scratch: &mut Self::Scratch,
        out: &mut [C],
    );
    /// All of it, for rows that are whole.
    fn whole<S: Simd>(
        &self,
        rows: &mut [Self::Row],
        chunk: &mut Chunk<C>,
        scratch: &mut Self::Scratch,
        out: &mut [C],
    );
    /// All of it, for short rows side by side: the result's elements are placed as the operands' are.
    fn beside<S: Simd>(
        &self,
        rows: &mut [Self::Row],
        lines: &mut Lines<C>,
        scratch: &mut Self::Scratch,
        out: &mut [C],
    );
}

/// The gradient of the logits. `grain` is the number of elements worth a task of its own.
pub(crate) fn passes<E: Element, P: Passes<E::Compute>>(
    formulas: &P,
    operands: &Operands<E>,
    rows: Rows,
    grain: usize,
) -> Vec<E> {
    if rows.elements() == 0 {
        return Vec::new();
    }
    let job = Job {
        formulas,
        operands,
        rows,
    };
    let work = |buffers: &mut Buffers<E, P>, i: usize, piece: &mut Piece<E>| {
        dispatch(Work {
            job: &job,
            buffers,
            i,
            piece,
        });
    };
    fill_pieces(job.split(), grain, || job.buffers(), work).0
}

struct Job<'a, E: Element, P> {
    formulas: &'a P,
    operands: &'a Operands<'a, E>,
    rows: Rows,
}

struct Buffers<E: Element, P: Passes<E::Compute>> {
    logits: Vec<E::Compute>,
    drawn: Vec<E::Compute>,
    grad: Vec<E::Compute>,
    out: Vec<E::Compute>,
    line: Vec<E::Compute>,
    room: Room<E::Compute>,
    rows: Vec<P::Row>,
    scratch: P::Scratch,
}

impl<E: Element, P: Passes<E::Compute>> Job<'_, E, P> {
    fn split(&self) -> Split {
        let Rows { outer, len, inner } = self.rows;
        if inner > 1 {
            Split::Columns {
                outer,
                len,
                inner,
                width: COLUMNS.min(inner),
            }
        } else {
            Split::Runs {
                total: outer * len,
                size: self.rows_per_piece() * len,
            }
        }
    }

    fn rows_per_piece(&self) -> usize {
        (TILE / self.rows.len).max(1)
    }

    /// Whether rows are worked on side by side: where they are short, and that leaves no more lanes empty than one row after
    /// the other does.
    fn beside(&self) -> bool {
        let Rows { len, inner, .. } = self.rows;
        if inner == 1 {
            return len <= SHORT;
        }
        let count = COLUMNS.min(inner);
        len <= TILE / COLUMNS && padded(count) * len <= count * padded(len)
    }

    fn buffers(&self) -> Buffers<E, P> {
        let Rows { outer, len, inner } = self.rows;
        let columns = inner > 1;
        let elements = if self.beside() {
            let count = if columns {
                COLUMNS.min(inner)
            } else {
                self.rows_per_piece().min(outer)
            };
            lines::elements(count, len)
        } else {
            self.rows.elements().min(TILE)
        } + LANES_F32;
        let zeros = |n| vec![E::Compute::default(); n];
        Buffers {
            logits: zeros(elements),
            drawn: zeros(elements),
            grad: zeros(elements),
            out: zeros(elements),
            line: zeros(if columns { COLUMNS } else { 0 }),
            room: Room {
                flat: zeros(elements + FILL_SLACK),
                turned: zeros(if columns || self.beside() {
                    elements
                } else {
                    0
                }),
            },
            rows: Vec::new(),
            scratch: self.formulas.scratch(elements),
        }
    }
}

struct Work<'a, 'b, E: Element, P: Passes<E::Compute>> {
    job: &'a Job<'a, E, P>,
    buffers: &'a mut Buffers<E, P>,
    i: usize,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, P: Passes<E::Compute>> Kernel for Work<'_, '_, E, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            buffers,
            i,
            piece,
        } = self;
        let (place, rows) = (piece.place(), job.rows);
        let (count, row) = if rows.inner > 1 {
            (place.width, place.start)
        } else {
            let first = i * job.rows_per_piece();
            (place.width / rows.len, first * rows.len)
        };
        let origin = Origin { row, rows };
        // Elements of each row at a time.
        let step = (TILE / count).min(rows.len);
        buffers.rows.clear();
        buffers.rows.resize_with(count, || job.formulas.row());
        if job.beside() {
            job.side_by_side::<S>(buffers, origin, count, piece);
            return;
        }
        if step == rows.len {
            let span = (count, 0, step);
            job.at_work::<S>(
                buffers,
                origin,
                span,
                #[inline(always)]
                |rows, chunk, scratch, out| {
                    job.formulas.whole::<S>(rows, chunk, scratch, out);
                },
            );
            job.push::<S>(buffers, piece, span);
            return;
        }
        for number in 0..P::BEFORE {
            for at in (0..rows.len).step_by(step) {
                let span = (count, at, step.min(rows.len - at));
                job.at_work::<S>(
                    buffers,
                    origin,
                    span,
                    #[inline(always)]
                    |rows, chunk, scratch, _| {
                        job.formulas.pass::<S>(number, rows, chunk, scratch);
                    },
                );
            }
        }
        for at in (0..rows.len).step_by(step) {
            let span = (count, at, step.min(rows.len - at));
            job.at_work::<S>(
                buffers,
                origin,
                span,
                #[inline(always)]
                |rows, chunk, scratch, out| {
                    job.formulas.finish::<S>(rows, chunk, scratch, out);
                },
            );
            job.push::<S>(buffers, piece, span);
        }
    }
}

impl<E: Element, P: Passes<E::Compute>> Job<'_, E, P> {
    /// Works on `count` whole rows, a lane for each.
    #[inline(always)]
    fn side_by_side<S: Simd>(
        &self,
        buffers: &mut Buffers<E, P>,
        place: Origin,
        count: usize,
        piece: &mut Piece<E>,
    ) {
        let Buffers {
            logits,
            drawn,
            grad,
            out,
            room,
            rows,
            scratch,
            ..
        } = buffers;
        let Rows { len: n, inner, .. } = self.rows;
        let operands = [&mut logits[..], &mut drawn[..], &mut grad[..]];
        lines::load::<S, E>(self.operands, place, count, &mut room.flat, operands);
        let stride = padded(count);
        let mut lines = Lines {
            count,
            n,
            stride,
            logits,
            drawn,
            grad,
            place,
            room,
        };
        self.formulas.beside::<S>(rows, &mut lines, scratch, out);
        lines::store::<S, E>(out, (count, n), inner, &mut room.flat, piece);
    }

    /// Brings elements `at .. at + n` of `count` rows to the buffers, and calls `f` with them.
    #[inline(always)]
    fn at_work<S: Simd>(
        &self,
        buffers: &mut Buffers<E, P>,
        origin: Origin,
        (count, at, n): (usize, usize, usize),
        f: impl FnOnce(&mut [P::Row], &mut Chunk<E::Compute>, &mut P::Scratch, &mut [E::Compute]),
    ) {
        let Buffers {
            logits,
            drawn,
            grad,
            out,
            line,
            room,
            rows,
            scratch,
        } = buffers;
        let Operands {
            logits: x,
            drawn: d,
            grad: g,
        } = self.operands;
        for (source, dst) in [(x, &mut *logits), (d, &mut *drawn), (g, &mut *grad)] {
            if self.rows.inner == 1 {
                source.copy_to::<S>(origin.row + at, &mut dst[..count * n]);
            } else {
                for k in 0..n {
                    let start = origin.row + (at + k) * self.rows.inner;
                    source.copy_to::<S>(start, &mut line[..count]);
                    turn_lines(&line[..count], dst, (count, n), k..k + 1);
                }
            }
        }
        let mut chunk = Chunk {
            count,
            n,
            at,
            logits,
            drawn,
            grad,
            place: origin,
            room,
        };
        f(rows, &mut chunk, scratch, out);
    }

    /// Writes a chunk's result.
    #[inline(always)]
    fn push<S: Simd>(
        &self,
        buffers: &mut Buffers<E, P>,
        piece: &mut Piece<E>,
        (count, _, n): (usize, usize, usize),
    ) {
        let Buffers { out, line, .. } = buffers;
        if self.rows.inner == 1 {
            push::<S, E>(piece, &out[..count * n]);
            return;
        }
        for k in 0..n {
            for (i, x) in line[..count].iter_mut().enumerate() {
                *x = out[i * n + k];
            }
            push::<S, E>(piece, &line[..count]);
        }
    }
}

/// Where the one-hot of a row is hot; nothing where it is NaN.
pub(crate) fn hot<C: Real>(drawn: &[C]) -> Option<usize> {
    drawn.iter().position(|&d| d > C::default())
}

/// The first lanes of `x`, and `rest` in those from `n` on.
#[inline(always)]
pub(crate) fn load_first<S: Simd, C: Real>(x: &[C], n: usize, rest: C::V<S>) -> C::V<S> {
    Float::select(C::V::<S>::first(n), Float::load(x), rest)
}
