use crate::element::{Element, Vector};
use crate::math::Real;
use crate::output::{Piece, Split, fill};
use crate::rng::{self, FILL_SLACK, Key, Noise, Stream};
use crate::rowwise::{GRAIN_NOISE, TILE, push, row_map};
use crate::simd::{Float, Kernel, Simd, dispatch};
use std::marker::PhantomData;

pub(super) fn draw<E: Element, N: Noise>(n: usize, key: Key) -> Vec<E> {
    let split = Split::Runs {
        total: n,
        size: TILE,
    };
    let scratch = || vec![E::Compute::default(); TILE + FILL_SLACK];
    let stream = Stream::new(key);
    let work = |buffer: &mut Vec<E::Compute>, i: usize, piece: &mut Piece<E>| {
        dispatch(Draw {
            stream,
            start: i * TILE,
            buffer,
            piece,
            noise: PhantomData::<N>,
        });
    };
    fill(split, GRAIN_NOISE, scratch, work).0
}

struct Draw<'a, 'b, E: Element, N> {
    stream: Stream,
    start: usize,
    buffer: &'a mut [E::Compute],
    piece: &'a mut Piece<'b, E>,
    noise: PhantomData<N>,
}

impl<E: Element, N: Noise> Kernel for Draw<'_, '_, E, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.piece.place().width;
        let start = self.start as u64;
        let offset = rng::fill::<S, E::Compute, N>(&self.stream, start, n, self.buffer);
        // Rounding to a half type must not take a draw to an end that it does not have.
        let (low, high) = E::UNIT_BOUNDS;
        let high = if N::UNIT { high } else { f64::INFINITY };
        if N::POSITIVE && (low > 0.0 || high < 1.0) {
            let low = Vector::<S, E>::splat(E::Compute::of(low));
            let high = Vector::<S, E>::splat(E::Compute::of(high));
            row_map::<S, E::Compute>(
                &mut self.buffer[offset..],
                n,
                #[inline(always)]
                |v| v.max(low).min(high),
            );
        }
        push::<S, E>(self.piece, &self.buffer[offset..offset + n]);
    }
}
