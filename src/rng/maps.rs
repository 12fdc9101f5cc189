//! From words to uniforms on the open interval, Gumbel, exponential, logistic and normal variates.

use super::{GROUP, Stream};
use crate::math::Real;
use crate::simd::{Bits, Float, Mask, Simd, outlined};

const TWO_M31: f64 = 1.0 / 2_147_483_648.0;
const TWO_M32: f64 = 1.0 / 4_294_967_296.0;
const TWO_M33: f64 = 0.5 / 4_294_967_296.0;
/// Below this word an `f32` draw is refined by its second word.
pub(crate) const REFINED_BELOW: f32 = 256.0;

/// Which words an `f32` draw takes its second word for: those within [`REFINED_BELOW`] of an end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refined {
    Nowhere,
    /// Small words, next to 0.
    Low,
    /// Small and large ones, next to 0 and next to 1.
    Both,
}

/// A map from words to variates. The `f64` maps always use both words; the `f32` maps use the second only where
/// [`Noise::REFINES`] says so, and `REFINED = false` promises that no lane is such a word.
pub(crate) trait Noise: Copy + Send + Sync + 'static {
    const REFINES: Refined;
    /// Whether the variates lie in the open unit interval.
    const UNIT: bool = false;
    /// Whether they are above 0.
    const POSITIVE: bool = Self::UNIT;
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, second: S::U32) -> S::F32;
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64;
}

/// The open unit interval: `(w + 1/2) 2^-32`, capped at `1 - 2^-24` (f32) or `1 - 2^-53` (f64).
#[derive(Clone, Copy)]
pub(crate) struct Uniform;
/// Standard Gumbel: `-ln(-ln(1 - v))`.
#[derive(Clone, Copy)]
pub(crate) struct Gumbel;
/// Standard exponential: `-ln(1 - v)`.
#[derive(Clone, Copy)]
pub(crate) struct Exponential;
/// Standard logistic: `ln v - ln(1 - v)`.
#[derive(Clone, Copy)]
pub(crate) struct Logistic;
/// Standard normal by inversion: the sign from the word's top bit, the magnitude from the other 31.
#[derive(Clone, Copy)]
pub(crate) struct Normal;

impl Noise for Uniform {
    const REFINES: Refined = Refined::Low;
    const UNIT: bool = true;
    #[inline(always)]
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, second: S::U32) -> S::F32 {
        let (scale, half) = (S::F32::splat(TWO_M32 as f32), S::F32::splat(TWO_M33 as f32));
        let w = S::f32_from_u32(word);
        let mut v = w.mul_add(scale, half);
        if REFINED {
            let fine = (w + S::f32_from_u32(second).mul_add(scale, half)) * scale;
            v = S::F32::select(w.lt(S::F32::splat(REFINED_BELOW)), fine, v);
        }
        v.min(S::F32::splat(1.0 - f32::EPSILON / 2.0))
    }
    #[inline(always)]
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64 {
        let (scale, half) = (S::F64::splat(TWO_M32), S::F64::splat(TWO_M33));
        let v = (word + second.mul_add(scale, half)) * scale;
        v.min(S::F64::splat(1.0 - f64::EPSILON / 2.0))
    }
}

impl Noise for Gumbel {
    const REFINES: Refined = Refined::Low;
    #[inline(always)]
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, second: S::U32) -> S::F32 {
        f32::gumbel::<S>(Uniform::f32::<S, REFINED>(word, second))
    }
    #[inline(always)]
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64 {
        f64::gumbel::<S>(Uniform::f64::<S>(word, second))
    }
}

/// The nearer end of each word and how far off it is: all ones where that is 1, else 0; and `min(v, 1 - v)` in
/// `(0, 1/2]`, to the last digit at either end, since the upper half counts down from the largest word.
#[inline(always)]
fn nearer_end_f32<S: Simd, const REFINED: bool>(
    word: S::U32,
    second: S::U32,
) -> (S::U32, S::U32, S::F32) {
    let (scale, half) = (S::F32::splat(TWO_M32 as f32), S::F32::splat(TWO_M33 as f32));
    let upper = S::U32::splat(0).sub(word.shr::<31>());
    let magnitude = word.xor(upper);
    let w = S::f32_from_i32(magnitude);
    let mut p = w.mul_add(scale, half);
    if REFINED {
        let second = S::f32_from_u32(second.xor(upper));
        let fine = (w + second.mul_add(scale, half)) * scale;
        p = S::F32::select(w.lt(S::F32::splat(REFINED_BELOW)), fine, p);
    }
    (upper, magnitude, p)
}

/// The same of both words: whether the nearer end is 0, `min(v, 1 - v)`, and `1 - 2 min(v, 1 - v)`.
#[inline(always)]
fn nearer_end_f64<S: Simd>(
    word: S::F64,
    second: S::F64,
) -> (<S::F64 as Float>::Mask, S::F64, S::F64) {
    let (scale, half) = (S::F64::splat(TWO_M32), S::F64::splat(TWO_M33));
    let last = S::F64::splat(4_294_967_295.0);
    let lower = word.lt(S::F64::splat(2_147_483_648.0));
    let magnitude = S::F64::select(lower, word, last - word);
    let near = S::F64::select(lower, second, last - second);
    let far = S::F64::select(lower, last - second, second);
    let p = (magnitude + near.mul_add(scale, half)) * scale;
    let rest = (S::F64::splat(2_147_483_647.0) - magnitude) + far.mul_add(scale, half);
    (lower, p, rest * S::F64::splat(TWO_M31))
}

impl Noise for Exponential {
    const REFINES: Refined = Refined::Both;
    const POSITIVE: bool = true;
    #[inline(always)]
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, second: S::U32) -> S::F32 {
        let (upper, _, p) = nearer_end_f32::<S, REFINED>(word, second);
        let upper = S::f32_from_i32(upper).lt(S::F32::splat(0.0));
        f32::exponential::<S>(p, upper)
    }
    #[inline(always)]
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64 {
        let (_, p, _) = nearer_end_f64::<S>(word, second);
        f64::exponential::<S>(p, S::F64::splat(2_147_483_648.0).le(word))
    }
}

impl Noise for Logistic {
    const REFINES: Refined = Refined::Both;
    #[inline(always)]
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, second: S::U32) -> S::F32 {
        let (upper, magnitude, p) = nearer_end_f32::<S, REFINED>(word, second);
        let rest = S::f32_from_i32(magnitude.xor(S::U32::splat(0x7FFF_FFFF)));
        let rest = rest.mul_add(S::F32::splat(TWO_M31 as f32), S::F32::splat(TWO_M32 as f32));
        let x = f32::logistic_magnitude::<S>(p, rest);
        let sign = S::U32::splat(0x8000_0000);
        S::F32::from_bits(x.to_bits().xor(sign.sub(upper.and(sign))))
    }
    #[inline(always)]
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64 {
        let (lower, p, rest) = nearer_end_f64::<S>(word, second);
        let x = f64::logistic_magnitude::<S>(p, rest);
        S::F64::select(lower, -x, x)
    }
}

impl Noise for Normal {
    const REFINES: Refined = Refined::Nowhere;
    #[inline(always)]
    fn f32<S: Simd, const REFINED: bool>(word: S::U32, _second: S::U32) -> S::F32 {
        let scale = S::F32::splat(TWO_M31 as f32);
        let half = S::F32::splat(TWO_M32 as f32);
        let magnitude = word.and(S::U32::splat(0x7FFF_FFFF));
        let sign = word.and(S::U32::splat(0x8000_0000));
        // Both ends from integers: neither tail nor centre loses digits to a subtraction from one.
        let t = S::f32_from_i32(magnitude).mul_add(scale, half);
        let rest = S::f32_from_i32(magnitude.xor(S::U32::splat(0x7FFF_FFFF))).mul_add(scale, half);
        let z = f32::normal_magnitude::<S>(t, rest);
        S::F32::from_bits(z.to_bits().xor(sign))
    }
    #[inline(always)]
    fn f64<S: Simd>(word: S::F64, second: S::F64) -> S::F64 {
        let (scale, half) = (S::F64::splat(TWO_M32), S::F64::splat(TWO_M33));
        let top = S::F64::splat(2_147_483_648.0);
        let positive = word.lt(top);
        let magnitude = S::F64::select(positive, word, word - top);
        let t = (magnitude + second.mul_add(scale, half)) * S::F64::splat(TWO_M31);
        let rest = (S::F64::splat(2_147_483_647.0) - magnitude)
            + (S::F64::splat(4_294_967_295.0) - second).mul_add(scale, half);
        let z = f64::normal_magnitude::<S>(t, rest * S::F64::splat(TWO_M31));
        S::F64::select(positive, z, -z)
    }
}

/// The scalar type as [`fill`] needs it.
pub(crate) trait NoiseReal: Real {
    /// The variates of as many blocks as `S` has 64-bit lanes, from `first` on.
    fn blocks<S: Simd, N: Noise>(stream: &Stream, first: u64, out: &mut [Self]);
}

impl NoiseReal for f32 {
    #[inline(always)]
    fn blocks<S: Simd, N: Noise>(stream: &Stream, first: u64, out: &mut [f32]) {
        let lanes = S::F32::LANES;
        let (out_a, out_b) = out[..2 * lanes].split_at_mut(lanes);
        let (a, b) = stream.blocks::<S>(first);
        if N::REFINES != Refined::Nowhere && near_end::<S, N>(a).or(near_end::<S, N>(b)).any() {
            let mut words = [0; GROUP];
            second_words(stream, first, &mut words);
            N::f32::<S, true>(a, S::U32::load(&words)).store(out_a);
            N::f32::<S, true>(b, S::U32::load(&words[lanes..])).store(out_b);
            return;
        }
        N::f32::<S, false>(a, a).store(out_a);
        N::f32::<S, false>(b, b).store(out_b);
    }
}

/// The words that take their second one.
#[inline(always)]
fn near_end<S: Simd, N: Noise>(word: S::U32) -> <S::F32 as Float>::Mask {
    let limit = S::F32::splat(REFINED_BELOW);
    if N::REFINES == Refined::Low {
        return S::f32_from_u32(word).lt(limit);
    }
    // Turned by as much, those at either end are the small ones.
    let turned = word.add(S::U32::splat(REFINED_BELOW as u32));
    S::f32_from_u32(turned).lt(limit + limit)
}

/// One group in a quarter of a million comes here: kept out of the loop.
#[cold]
#[inline(never)]
fn second_words(stream: &Stream, first: u64, out: &mut [u32; GROUP]) {
    let second = stream.second();
    for (i, words) in out.chunks_exact_mut(4).enumerate() {
        words.copy_from_slice(&second.block(first.wrapping_add(i as u64)));
    }
}

impl NoiseReal for f64 {
    #[inline(always)]
    fn blocks<S: Simd, N: Noise>(stream: &Stream, first: u64, out: &mut [f64]) {
        let lanes = S::F64::LANES;
        let (a, b) = stream.blocks::<S>(first);
        let (a2, b2) = stream.second().blocks::<S>(first);
        let words = [S::f64_from_u32(a), S::f64_from_u32(b)];
        let seconds = [S::f64_from_u32(a2), S::f64_from_u32(b2)];
        for ((out, w), s) in out[..4 * lanes]
            .chunks_exact_mut(2 * lanes)
            .zip(words)
            .zip(seconds)
        {
            N::f64::<S>(w.0, s.0).store(out);
            N::f64::<S>(w.1, s.1).store(&mut out[lanes..]);
        }
    }
}

outlined! {
    /// Writes the variates of elements `start .. start + n` to `out[offset .. offset + n]` and returns `offset`, which is
    /// below 4: whole groups of blocks from the one that holds `start`. `out` has room for `n + FILL_SLACK`.
    pub(crate) fn fill['a, C: NoiseReal, N: Noise](
        stream: &'a Stream,
        start: u64,
        n: usize,
        out: &'a mut [C],
    ) -> usize {
        let offset = (start % 4) as usize;
        let group = 4 * <<S::Wide as Simd>::U64 as Bits>::LANES;
        let groups = (offset + n).div_ceil(group);
        debug_assert!(out.len() / group >= groups);
        for (i, out) in out.chunks_exact_mut(group).take(groups).enumerate() {
            C::blocks::<S::Wide, N>(stream, start / 4 + (i * group / 4) as u64, out);
        }
        offset
    }
}
