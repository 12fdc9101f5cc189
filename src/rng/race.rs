//! The Gumbel race: the largest of logits plus Gumbel noise, one or several, and where they are.

use super::maps::{Gumbel, Noise, NoiseReal, REFINED_BELOW};
use super::{FILL_SLACK, Stream, fill};
use crate::simd::{Bits, Float, Mask, Simd};

/// What takes in the scores of a row, in the order of their indices.
pub(crate) trait Taker<C: NoiseReal> {
    /// A score that is not above this one changes nothing.
    fn bar(&self) -> C;

    /// Takes in finished scores, the first of which has index `first`.
    fn scan(&mut self, scores: &[C], first: usize);

    /// [`Taker::scan`] for many scores, vector by vector; only one that holds a score above the bar, or NaN, is looked into.
    #[inline(always)]
    fn scan_all<S: Simd>(&mut self, scores: &[C], first: usize) {
        let lanes = C::V::<S>::LANES;
        let mut at = 0;
        while at + lanes <= scores.len() {
            let z = C::V::<S>::load(&scores[at..]);
            if !z.le(C::V::<S>::splat(self.bar())).all() {
                self.scan(&scores[at..at + lanes], first + at);
            }
            at += lanes;
        }
        self.scan(&scores[at..], first + at);
    }
}

/// How far a race over the elements of one row has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Race<C> {
    pub(crate) best: C,
    /// Its index; the lowest one where scores tie.
    pub(crate) index: usize,
    /// Whether a NaN took part.
    pub(crate) nan: bool,
}

impl<C: NoiseReal> Race<C> {
    pub(crate) fn new() -> Self {
        Self {
            best: C::NEG_INFINITY,
            index: 0,
            nan: false,
        }
    }

    /// The index of the winner, unless a row held NaN, +inf, or nothing but -inf.
    pub(crate) fn winner(self) -> Option<usize> {
        let proper = self.best > C::NEG_INFINITY && self.best < C::INFINITY;
        (proper && !self.nan).then_some(self.index)
    }

    /// Takes in a race over later elements of the row.
    pub(crate) fn then(&mut self, later: Self) {
        if later.best > self.best {
            (self.best, self.index) = (later.best, later.index);
        }
        self.nan |= later.nan;
    }
}

impl<C: NoiseReal> Taker<C> for Race<C> {
    #[inline(always)]
    fn bar(&self) -> C {
        self.best
    }

    #[inline(always)]
    fn scan(&mut self, scores: &[C], first: usize) {
        for (i, &score) in scores.iter().enumerate() {
            if score > self.best {
                (self.best, self.index) = (score, first + i);
            }
            // Not a comparison of a number with itself: this is false for NaN alone.
            self.nan |= score.f64().is_nan();
        }
    }
}

/// Scratch of [`RaceReal::race`]: room for the noise or the words of `n` elements.
pub(crate) struct RaceScratch<C> {
    noise: Vec<C>,
    words: Vec<u32>,
}

/// The scalar type as the race needs it.
pub(crate) trait RaceReal: NoiseReal {
    fn scratch(n: usize) -> RaceScratch<Self>;
    /// Takes in the elements `start .. start + n` of a draw, `n` below `i32::MAX`, whose logits are in `logits`, followed
    /// by at least a vector's worth of -inf; the first of them has index `first` in its row.
    fn race<S: Simd, T: Taker<Self>>(
        race: &mut T,
        stream: &Stream,
        start: usize,
        first: usize,
        logits: &[Self],
        n: usize,
        scratch: &mut RaceScratch<Self>,
    );
}

impl RaceReal for f64 {
    fn scratch(n: usize) -> RaceScratch<f64> {
        RaceScratch {
            noise: vec![0.0; n + FILL_SLACK],
            words: Vec::new(),
        }
    }

    #[inline(always)]
    fn race<S: Simd, T: Taker<f64>>(
        race: &mut T,
        stream: &Stream,
        start: usize,
        first: usize,
        logits: &[f64],
        n: usize,
        scratch: &mut RaceScratch<f64>,
    ) {
        let offset = fill::<S, f64, Gumbel>(stream, start as u64, n, &mut scratch.noise);
        let scores = &mut scratch.noise[offset..offset + n];
        for (z, &x) in scores.iter_mut().zip(logits) {
            *z += x;
        }
        race.scan_all::<S>(scores, first);
    }
}

impl RaceReal for f32 {
    fn scratch(n: usize) -> RaceScratch<f32> {
        RaceScratch {
            noise: Vec::new(),
            words: vec![0; n + FILL_SLACK],
        }
    }

    /// Lazy: since `-ln(1 - v) >= v`, the noise is at most `-ln v`, and the exponent and mantissa bits of the word, read
    /// as a number, bound that logarithm from above. Only a vector with a bound above the taker's bar, such as the best score so far, has its
    /// scores computed, which in a long row are few. The bound is added to the logit with the same rounding as the noise
    /// is, so that it bounds the rounded score too, and the winner is the one that all exact scores give.
    #[inline(always)]
    fn race<S: Simd, T: Taker<f32>>(
        race: &mut T,
        stream: &Stream,
        start: usize,
        first: usize,
        logits: &[f32],
        n: usize,
        scratch: &mut RaceScratch<f32>,
    ) {
        const LANES: usize = 16;
        let offset = start % 4;
        let group = 4 * <<S::Wide as Simd>::U64 as Bits>::LANES;
        let groups = (offset + n).div_ceil(group);
        let words = &mut scratch.words;
        for (i, out) in words.chunks_exact_mut(group).take(groups).enumerate() {
            let (a, b) = stream.blocks::<S::Wide>((start / 4 + i * group / 4) as u64);
            a.store(out);
            b.store(&mut out[group / 2..]);
        }
        // log2 x >= (bits(x) 2^-23 - 127), so -ln(w 2^-32) <= ln 2 (159 - bits(w) 2^-23); and a thousandth for rounding.
        let slope = S::F32::splat(-std::f32::consts::LN_2 / 8_388_608.0);
        let level = S::F32::splat(159.0 * std::f32::consts::LN_2 + 1e-3);
        for at in (0..n).step_by(LANES) {
            let word = S::U32::load(&words[offset + at..]);
            let x = S::F32::load(&logits[at..]);
            let bits = S::f32_from_u32(word).to_bits();
            let bound = x + S::f32_from_i32(bits).mul_add(slope, level);
            if bound.le(S::F32::splat(race.bar())).all() {
                continue;
            }
            let small = S::f32_from_u32(word).lt(S::F32::splat(REFINED_BELOW));
            let noise = if small.any() {
                let mut seconds = [0; LANES];
                for (i, second) in seconds.iter_mut().enumerate() {
                    *second = stream.words((start + at + i) as u64).1;
                }
                Gumbel::f32::<S, true>(word, S::U32::load(&seconds))
            } else {
                Gumbel::f32::<S, false>(word, word)
            };
            let scores = x + noise;
            if !scores.le(S::F32::splat(race.bar())).all() {
                let mut lanes = [0.0; LANES];
                scores.store(&mut lanes);
                race.scan(&lanes[..LANES.min(n - at)], first + at);
            }
        }
    }
}
