use super::{Rows, Source, padded};
use crate::element::Element;
use crate::rng::{FILL_SLACK, Gumbel, Stream, fill};
use crate::simd::Simd;

/// What a row op works on: the logits, or the logits plus Gumbel noise.
pub(crate) trait Scores<E: Element>: Sync {
    /// Whether scores cost so much more than a load that they are worth keeping.
    const NOISY: bool;
    /// Writes the scores of elements `start .. start + n` to `out[offset .. offset + n]` and returns `offset`; `out` has
    /// room for `n + FILL_SLACK`.
    fn fill<S: Simd>(&self, start: usize, n: usize, out: &mut [E::Compute]) -> usize;
}

/// The logits themselves.
pub(crate) struct Plain<'a, E>(pub(crate) Source<'a, E>);

impl<E: Element> Scores<E> for Plain<'_, E> {
    const NOISY: bool = false;
    #[inline(always)]
    fn fill<S: Simd>(&self, start: usize, n: usize, out: &mut [E::Compute]) -> usize {
        self.0.copy_to::<S>(start, &mut out[..n]);
        0
    }
}

/// Logits plus the Gumbel noise of a stream.
pub(crate) struct Perturbed<'a, E> {
    pub(crate) logits: Source<'a, E>,
    pub(crate) stream: Stream,
}

impl<E: Element> Scores<E> for Perturbed<'_, E> {
    const NOISY: bool = true;
    #[inline(always)]
    fn fill<S: Simd>(&self, start: usize, n: usize, out: &mut [E::Compute]) -> usize {
        let offset = fill::<S, E::Compute, Gumbel>(&self.stream, start as u64, n, out);
        self.logits.add_to::<S>(start, &mut out[offset..offset + n]);
        offset
    }
}

/// A block of a column tile: lines `first .. first + lines` of slab `slab`, columns `at .. at + width`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) slab: usize,
    pub(crate) first: usize,
    pub(crate) lines: usize,
    pub(crate) at: usize,
    pub(crate) width: usize,
}

impl Block {
    /// The logical index of the first element of a line of the block.
    #[inline(always)]
    pub(crate) fn start(&self, rows: Rows, line: usize) -> usize {
        (self.slab * rows.len + self.first + line) * rows.inner + self.at
    }
}

/// Room for the flat scores of one block.
pub(crate) fn flat_room(rows: Rows, width: usize) -> usize {
    if width == rows.inner {
        rows.len.min(super::LINES) * width + FILL_SLACK
    } else {
        width + FILL_SLACK
    }
}

/// Writes a block's scores to `out`, each line padded to whole vectors.
#[inline(always)]
pub(crate) fn fill_block<S: Simd, E: Element, Z: Scores<E>>(
    scores: &Z,
    rows: Rows,
    block: Block,
    flat: &mut [E::Compute],
    out: &mut [E::Compute],
) {
    let Block { lines, width, .. } = block;
    let stride = padded(width);
    if width == rows.inner {
        // The block is one run of elements, so that its noise is drawn in one go however short its lines.
        let offset = scores.fill::<S>(block.start(rows, 0), lines * width, flat);
        let flat = &flat[offset..offset + lines * width];
        for (src, dst) in flat.chunks_exact(width).zip(out.chunks_exact_mut(stride)) {
            dst[..width].copy_from_slice(src);
        }
    } else {
        for (line, dst) in out.chunks_exact_mut(stride).take(lines).enumerate() {
            let offset = scores.fill::<S>(block.start(rows, line), width, flat);
            dst[..width].copy_from_slice(&flat[offset..offset + width]);
        }
    }
}
