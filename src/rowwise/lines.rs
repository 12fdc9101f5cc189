//! Short rows side by side: element `k` of all rows is one line, a row has a lane of its own, and what is summed over a row
//! needs no sum across lanes. For columns this is how they lie; rows that follow one another are turned.

use super::passes::{Operands, Origin, Room};
use super::source::push;
use super::{Rows, padded};
use crate::element::Element;
use crate::output::Piece;
use crate::rng::{Noise, NoiseReal, Stream, fill};
use crate::simd::Simd;

/// Whole rows: element `k` of row `i` is at `k * stride + i` of each buffer, and `stride` is whole vectors. What the lanes
/// from `count` on hold means nothing.
pub(crate) struct Lines<'a, C> {
    pub(crate) count: usize,
    pub(crate) n: usize,
    pub(crate) stride: usize,
    pub(crate) logits: &'a [C],
    pub(crate) drawn: &'a [C],
    pub(crate) grad: &'a [C],
    pub(super) place: Origin,
    pub(super) room: &'a mut Room<C>,
}

impl<C: NoiseReal> Lines<'_, C> {
    /// The variates: element `k` of row `i` is at `k * stride + i` of what is returned, with that stride, which need not be
    /// that of the operands. A vector can be read from wherever a row's lane is.
    #[inline(always)]
    pub(crate) fn noise<S: Simd, N: Noise>(&mut self, stream: &Stream) -> (&[C], usize) {
        let (count, n, stride) = (self.count, self.n, self.stride);
        let Origin { row, rows } = self.place;
        let Room { flat, turned } = &mut *self.room;
        if rows.inner == 1 {
            let offset = fill::<S, C, N>(stream, row as u64, count * n, flat);
            turn(&flat[offset..], turned, (count, n), stride);
            return (turned, stride);
        }
        if count == rows.inner {
            // One run of elements.
            let offset = fill::<S, C, N>(stream, row as u64, count * n, flat);
            return (&flat[offset..], count);
        }
        for k in 0..n {
            let first = row + k * rows.inner;
            let offset = fill::<S, C, N>(stream, first as u64, count, flat);
            turned[k * stride..][..count].copy_from_slice(&flat[offset..offset + count]);
        }
        (turned, stride)
    }
}

/// Rows of `n` elements, one after the other, to lines.
fn turn<C: Copy>(src: &[C], dst: &mut [C], (count, n): (usize, usize), stride: usize) {
    for (i, row) in src.chunks_exact(n).take(count).enumerate() {
        for (k, &x) in row.iter().enumerate() {
            dst[k * stride + i] = x;
        }
    }
}

/// Elements of rows that may be worked on side by side, in lines of whole vectors.
pub(super) fn elements(count: usize, n: usize) -> usize {
    padded(count) * n
}

/// Brings `count` whole rows of the operands to `buffers`; `flat` is room for them as they lie.
#[inline(always)]
pub(super) fn load<S: Simd, E: Element>(
    operands: &Operands<E>,
    Origin { row, rows }: Origin,
    count: usize,
    flat: &mut [E::Compute],
    buffers: [&mut [E::Compute]; 3],
) {
    let Rows { len, inner, .. } = rows;
    let stride = padded(count);
    let sources = [&operands.logits, &operands.drawn, &operands.grad];
    for (source, dst) in sources.into_iter().zip(buffers) {
        if inner == 1 {
            let flat = &mut flat[..count * len];
            source.copy_to::<S>(row, flat);
            turn(flat, dst, (count, len), stride);
        } else {
            for k in 0..len {
                source.copy_to::<S>(row + k * inner, &mut dst[k * stride..][..count]);
            }
        }
    }
}

/// Writes `count` rows of `n` elements where they belong.
#[inline(always)]
pub(super) fn store<S: Simd, E: Element>(
    out: &[E::Compute],
    (count, n): (usize, usize),
    inner: usize,
    flat: &mut [E::Compute],
    piece: &mut Piece<E>,
) {
    let stride = padded(count);
    if inner == 1 {
        for (i, row) in flat.chunks_exact_mut(n).take(count).enumerate() {
            for (k, x) in row.iter_mut().enumerate() {
                *x = out[k * stride + i];
            }
        }
        push::<S, E>(piece, &flat[..count * n]);
        return;
    }
    for line in out.chunks_exact(stride).take(n) {
        push::<S, E>(piece, &line[..count]);
    }
}
