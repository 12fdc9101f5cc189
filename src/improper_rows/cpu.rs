use crate::element::Element;
use crate::math::Real;
use crate::op::{by_dtype, dtype, rows_of, without};
use crate::output::{Piece, Split, fill};
use crate::rowwise::{GRAIN, Rows, Source, TILE};
use crate::simd::{Float, Kernel, LANES_F32, Simd, dispatch};
use candle_core::{CpuStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &str,
    dim: usize,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let out = improper(&Source::<E>::new(storage, layout)?, rows_of(layout, dim));
        Ok((CpuStorage::U8(out), without(layout, dim)))
    })
}

fn improper<E: Element>(x: &Source<E>, rows: Rows) -> Vec<u8> {
    if rows.elements() == 0 {
        return Vec::new();
    }
    let split = Split::Runs {
        total: rows.count(),
        size: (TILE / rows.len).max(1),
    };
    let grain = (GRAIN / rows.len).max(1);
    let scratch = || vec![E::Compute::default(); TILE + LANES_F32];
    let work = |buffer: &mut Vec<_>, _: usize, piece: &mut Piece<u8>| {
        dispatch(Look {
            x,
            rows,
            buffer,
            piece,
        });
    };
    fill(split, grain, scratch, work).0
}

struct Look<'a, 'b, E: Element> {
    x: &'a Source<'a, E>,
    rows: Rows,
    buffer: &'a mut [E::Compute],
    piece: &'a mut Piece<'b, u8>,
}

impl<E: Element> Kernel for Look<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Rows { len, inner, .. } = self.rows;
        let place = self.piece.place();
        for row in place.start..place.start + place.width {
            let mut all = Seen::default();
            for at in (0..len).step_by(TILE) {
                let n = TILE.min(len - at);
                let tile = &mut self.buffer[..n];
                if inner == 1 {
                    self.x.copy_to::<S>(row * len + at, tile);
                } else {
                    let first = (row / inner * len + at) * inner + row % inner;
                    for (k, z) in tile.iter_mut().enumerate() {
                        *z = self.x.at(first + k * inner).compute();
                    }
                }
                // What follows the row is a mask, which says nothing.
                self.buffer[n..n + LANES_F32].fill(E::Compute::NEG_INFINITY);
                all = all.and(look::<S, E::Compute>(self.buffer, n));
            }
            self.piece.push(&[u8::from(!all.proper())]);
        }
    }
}

/// What a row was seen to hold.
#[derive(Clone, Copy, Default)]
struct Seen {
    class: bool,
    /// NaN or +inf.
    wrong: bool,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            class: self.class || other.class,
            wrong: self.wrong || other.wrong,
        }
    }

    fn proper(self) -> bool {
        self.class && !self.wrong
    }
}

#[inline(always)]
fn look<S: Simd, C: Real>(row: &[C], n: usize) -> Seen {
    use crate::simd::Mask;
    let lanes = C::V::<S>::LANES;
    let (lowest, largest) = (
        C::V::<S>::splat(C::NEG_INFINITY),
        C::V::<S>::splat(C::LARGEST),
    );
    let mut seen = Seen::default();
    for at in (0..n).step_by(lanes) {
        let z = C::V::<S>::load(&row[at..]);
        seen.class |= lowest.lt(z).any();
        seen.wrong |= !z.le(largest).all();
    }
    seen
}
