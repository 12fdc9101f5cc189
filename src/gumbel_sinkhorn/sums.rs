//! Sums over the rows and the columns of a matrix, by blocks of rows that threads share where one matrix is all there is.

use super::passes::{self, Size};
use crate::math::Real;
use crate::output::parallel;
use crate::rowwise::GRAIN;
use crate::simd::Simd;

/// Rows of a block, whatever the number of threads, so that the order of sums does not depend on it.
const BLOCK: usize = 64;

/// How the sums of one matrix are taken.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) size: Size,
    /// Whether threads share the blocks.
    pub(super) shared: bool,
}

impl Sums {
    /// `out[i] = sum_j k[i][j] weights[j]`.
    pub(super) fn rows<S: Simd, C: Real>(self, k: &[C], weights: &[C], out: &mut [C]) {
        self.over_rows::<C>(out, |block, out| {
            passes::row_sums::<S, C>(self.size, &k[block * self.stride()..], weights, out);
        });
    }

    /// `out[i] = sum_j k[i][j] m[i][j]`.
    pub(super) fn row_products<S: Simd, C: Real>(self, k: &[C], m: &[C], out: &mut [C]) {
        self.over_rows::<C>(out, |block, out| {
            let at = block * self.stride();
            passes::row_products::<S, C>(self.size, &k[at..], &m[at..], out);
        });
    }

    /// `out[j] = sum_i k[i][j] weights[i]`.
    pub(super) fn columns<S: Simd, C: Real>(self, k: &[C], weights: &[C], out: &mut [C]) {
        self.over_columns::<S, C>(out, |block, out| {
            let k = &k[block * self.stride()..];
            passes::column_sums::<S, C>(self.size, k, self.rows_of(weights, block), out);
        });
    }

    /// `out[j] = sum_i k[i][j] weights[i] m[i][j]`.
    pub(super) fn column_products<S: Simd, C: Real>(
        self,
        k: &[C],
        weights: &[C],
        m: &[C],
        out: &mut [C],
    ) {
        self.over_columns::<S, C>(out, |block, out| {
            let at = block * self.stride();
            let weights = self.rows_of(weights, block);
            passes::column_products::<S, C>(self.size, &k[at..], weights, &m[at..], out);
        });
    }

    /// From one block to the next.
    fn stride(self) -> usize {
        BLOCK * self.size.stride
    }

    /// A block's values of one a row.
    fn rows_of<C>(self, values: &[C], block: usize) -> &[C] {
        let first = block * BLOCK;
        &values[first..self.size.n.min(first + BLOCK)]
    }

    fn each<C: Real>(self, work: impl Fn(usize) -> Vec<C> + Sync) -> Vec<Vec<C>> {
        let blocks = self.size.n.div_ceil(BLOCK);
        parallel(
            blocks,
            self.size.elements(),
            GRAIN,
            || (),
            |(), block| work(block),
        )
    }

    fn over_rows<C: Real>(self, out: &mut [C], work: impl Fn(usize, &mut [C]) + Sync) {
        let out = &mut out[..self.size.n];
        if !self.shared {
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                work(block, out);
            }
            return;
        }
        let parts = self.each(|block| {
            let mut part = vec![C::default(); self.size.n.min((block + 1) * BLOCK) - block * BLOCK];
            work(block, &mut part);
            part
        });
        for (out, part) in out.chunks_mut(BLOCK).zip(parts) {
            out.copy_from_slice(&part);
        }
    }

    fn over_columns<S: Simd, C: Real>(self, out: &mut [C], work: impl Fn(usize, &mut [C]) + Sync) {
        let out = &mut out[..self.size.stride];
        let room = || vec![C::default(); self.size.stride];
        if self.shared {
            let parts = self.each(|block| {
                let mut part = room();
                work(block, &mut part);
                part
            });
            for (block, part) in parts.iter().enumerate() {
                match block {
                    0 => out.copy_from_slice(part),
                    _ => passes::add::<S, C>(part, out),
                }
            }
            return;
        }
        work(0, out);
        let mut part = Vec::new();
        for block in 1..self.size.n.div_ceil(BLOCK) {
            part.resize(self.size.stride, C::default());
            work(block, &mut part);
            passes::add::<S, C>(&part, out);
        }
    }
}
