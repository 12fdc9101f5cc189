//! Of a conditional sample only ratios matter: with `R_j = E_j Z / (exp(logits_j) E_D)`, class `j` has `(1 + R_j)^(-1 / tau)`
//! times the weight of the class drawn, whose own is 1 and the largest. So one logarithm, behind the exponential variate,
//! makes a weight at `tau = 1`, and no logarithm of `Z` costs digits.
//!
//! `R` may be too large for the scalar where a class is very improbable. At `tau = 1` its weight is then 0 as it should be;
//! elsewhere such a row is worked on with `ln R`.

use super::beside::{self, Lanes};
use super::{Average, NAME, SAMPLES, sample_key};
use crate::element::Element;
use crate::math::{Real, scalar};
use crate::op::{by_dtype, dtype, rows_of};
use crate::rng::{Exponential, Key, NoiseReal, Stream};
use crate::rowwise::{
    CHAIN, Chunk, GRAIN_NOISE, Lines, Operands, Passes, hot, load_first, passes, pivot, row_map,
    row_max,
};
use crate::simd::{Float, Simd, outlined};
use candle_core::{CpuStorage, Layout, Result, Shape};

pub(super) fn gradient(
    op: &Average,
    logits: (&CpuStorage, &Layout),
    drawn: (&CpuStorage, &Layout),
    grad: (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    let rao = Rao {
        tau: op.tau,
        samples: op.samples,
        noise: op.key.now()?.fold_in(SAMPLES),
    };
    by_dtype!(NAME, dtype(logits.0), E => {
        let operands = Operands::<E>::new(logits, drawn, grad)?;
        let grain = (GRAIN_NOISE / op.samples as usize).max(1);
        let out = passes(&rao, &operands, rows_of(logits.1, op.dim), grain);
        Ok((E::storage(out), logits.1.shape().clone()))
    })
}

pub(crate) struct Rao {
    pub(crate) tau: f64,
    pub(crate) samples: u32,
    /// The key of the first sample's noise.
    pub(crate) noise: Key,
}

/// How a row's weights are computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `1 / (1 + R)`, at a temperature of 1.
    Plain,
    /// `exp(-ln(1 + R) / tau)`.
    Power,
    /// The same from `ln R`, where `R` may be too large.
    Logarithmic,
}

/// What is known of a row.
pub(crate) struct Row<C> {
    /// The largest logit.
    top: C,
    /// The smallest logit that is not a mask.
    bottom: C,
    /// The sum of exponentials relative to the largest logit.
    z: f64,
    /// Where the one-hot is hot.
    pub(super) hot: Option<usize>,
    /// The gradient there.
    shift: C,
    pub(super) way: Way,
    /// For each sample of a row in several pieces: the exponential variate of the class drawn, and the sums of weights and
    /// of their products with the gradient.
    samples: Vec<(C, f64, f64)>,
}

impl<C: Real> Row<C> {
    fn new() -> Self {
        Self {
            top: C::NEG_INFINITY,
            bottom: C::INFINITY,
            z: 0.0,
            hot: None,
            shift: C::default(),
            way: Way::Plain,
            samples: Vec::new(),
        }
    }

    /// Takes in a part of the row.
    #[inline(always)]
    fn look<S: Simd>(&mut self, at: usize, logits: &[C], drawn: &[C], grad: &[C], n: usize) {
        let top = row_max::<S, C>(logits, n);
        if top > self.top {
            self.top = top;
        }
        if let Some(hot) = hot(&drawn[..n]) {
            self.hot = Some(at + hot);
            self.shift = grad[hot];
        }
        let lanes = C::V::<S>::LANES;
        let (mask, high) = (
            C::V::<S>::splat(C::NEG_INFINITY),
            C::V::<S>::splat(C::INFINITY),
        );
        let mut bottom = high;
        for from in (0..n).step_by(lanes) {
            let x = load_first::<S, C>(&logits[from..], n - from, high);
            bottom = bottom.min(Float::select(x.le(mask), high, x));
        }
        let bottom = C::of(-(-bottom).reduce_max().f64());
        if bottom < self.bottom {
            self.bottom = bottom;
        }
    }

    /// Adds a part of the row to the sum of exponentials.
    #[inline(always)]
    fn add<S: Simd>(&mut self, logits: &[C], n: usize) {
        let lanes = C::V::<S>::LANES;
        let lowest = C::V::<S>::splat(C::NEG_INFINITY);
        let top = C::V::<S>::splat(pivot(self.top));
        let unit = C::V::<S>::splat(C::exp_scale(1.0));
        let mut total = C::V::<S>::splat(C::default());
        for chain in (0..n).step_by(CHAIN * lanes) {
            let mut sum = C::V::<S>::splat(C::default());
            for at in (chain..n.min(chain + CHAIN * lanes)).step_by(lanes) {
                let x = load_first::<S, C>(&logits[at..], n - at, lowest);
                sum = sum + C::exp_scaled::<S>((x - top) * unit);
            }
            total = total + sum;
        }
        self.z += total.reduce_add().f64();
    }

    /// The same of a row of which this is known.
    pub(super) fn settle(&mut self, (top, bottom): (C, C), z: f64, tau: f64) {
        (self.top, self.bottom, self.z) = (top, bottom, z);
        self.choose(tau);
    }

    /// Settles how weights are computed, once all of the row was taken in.
    fn choose(&mut self, tau: f64) {
        // E_j is below 2^6 and E_D above 2^-66, so that R stays below the largest number that `ln_1p_lanes` takes.
        let room = C::LARGEST.f64().log2() - 74.0;
        let spread = (self.top.f64() - self.bottom.f64()) * std::f64::consts::LOG2_E;
        self.way = if tau == 1.0 {
            Way::Plain
        } else if spread + self.z.log2() <= room {
            Way::Power
        } else {
            Way::Logarithmic
        };
    }

    /// What a sample has besides its variates, given that of the class drawn.
    #[inline(always)]
    fn draw<S: Simd>(&self, own: C, tau: f64) -> Draw<C> {
        let factor = match self.way {
            Way::Logarithmic => {
                let ln = |x: f64| {
                    scalar::<S, f64>(
                        x,
                        #[inline(always)]
                        |x| f64::ln_lanes::<S>(x),
                    )
                };
                ln(self.z) - ln(own.f64())
            }
            _ => self.z / own.f64(),
        };
        Draw {
            factor: C::of(factor),
            scale: C::exp_scale(tau),
            way: self.way,
        }
    }
}

/// What all weights of a sample in a row share.
#[derive(Clone, Copy)]
struct Draw<C> {
    /// `Z / E_D`, relative to the largest logit, or its logarithm.
    factor: C,
    scale: C,
    way: Way,
}

impl<C: Real> Draw<C> {
    /// The weights of `n` classes, to `dst`: from their exponential variates, and from `exp(top - logit)` or that
    /// exponent. Their sum, and that of their products with `h`.
    #[inline(always)]
    fn weights<S: Simd>(
        self,
        noise: &[C],
        rarity: &[C],
        h: &[C],
        dst: &mut [C],
        n: usize,
    ) -> (C, C) {
        let factor = C::V::<S>::splat(self.factor);
        let scale = C::V::<S>::splat(self.scale);
        let operands = (noise, rarity, h, dst);
        match self.way {
            Way::Plain => weigh::<S, C>(
                operands,
                n,
                #[inline(always)]
                |e, r| plain::<S, C>(e, r, factor),
            ),
            Way::Power => weigh::<S, C>(
                operands,
                n,
                #[inline(always)]
                |e, r| power::<S, C>(e, r, factor, scale),
            ),
            Way::Logarithmic => weigh::<S, C>(
                operands,
                n,
                #[inline(always)]
                |e, d| logarithmic::<S, C>(e, d, factor, scale),
            ),
        }
    }
}

/// A weight by [`Way::Plain`], of an exponential variate, `exp(top - logit)` and `Z / E_D`.
#[inline(always)]
pub(super) fn plain<S: Simd, C: Real>(e: C::V<S>, rarity: C::V<S>, factor: C::V<S>) -> C::V<S> {
    let one = C::V::<S>::splat(C::of(1.0));
    one / (one + (e * rarity) * factor)
}

/// The same by [`Way::Power`].
#[inline(always)]
pub(super) fn power<S: Simd, C: Real>(
    e: C::V<S>,
    rarity: C::V<S>,
    factor: C::V<S>,
    scale: C::V<S>,
) -> C::V<S> {
    let zero = C::V::<S>::splat(C::default());
    let most = C::V::<S>::splat(C::of(C::LARGEST.f64() / 8.0));
    let ratio = (e * rarity) * factor;
    let l = C::ln_1p_lanes::<S>(ratio.min(most));
    // Beyond `most` are masks alone.
    let w = C::exp_scaled::<S>(-l * scale);
    Float::select(ratio.le(most), w, zero)
}

/// The same by [`Way::Logarithmic`], of `top - logit` and the factor's logarithm.
#[inline(always)]
pub(super) fn logarithmic<S: Simd, C: Real>(
    e: C::V<S>,
    rarity: C::V<S>,
    factor: C::V<S>,
    scale: C::V<S>,
) -> C::V<S> {
    // ln(1 + R) of ln R: the larger of it and 0, and what the smaller of the two adds.
    let zero = C::V::<S>::splat(C::default());
    let ln = C::ln_lanes::<S>(e) + (rarity + factor);
    let rest = C::ln_1p_lanes::<S>(C::exp_lanes::<S>(-ln.max(-ln)));
    C::exp_scaled::<S>(-(ln.max(zero) + rest) * scale)
}

/// Stores `f` of the noise and the rarity of each class; the sum, and that of the products with `h`.
#[inline(always)]
fn weigh<S: Simd, C: Real>(
    (noise, rarity, h, dst): (&[C], &[C], &[C], &mut [C]),
    n: usize,
    f: impl Fn(C::V<S>, C::V<S>) -> C::V<S>,
) -> (C, C) {
    let lanes = C::V::<S>::LANES;
    let zero = C::V::<S>::splat(C::default());
    let mut total = [zero; 2];
    for chain in (0..n).step_by(CHAIN * lanes) {
        let mut sum = [zero; 2];
        for at in (chain..n.min(chain + CHAIN * lanes)).step_by(lanes) {
            let w = f(Float::load(&noise[at..]), Float::load(&rarity[at..]));
            w.store(&mut dst[at..]);
            let inside = C::V::<S>::first(n - at);
            let w = Float::select(inside, w, zero);
            let h = Float::select(inside, C::V::<S>::load(&h[at..]), zero);
            sum[0] = sum[0] + w;
            sum[1] = w.mul_add(h, sum[1]);
        }
        total = [total[0] + sum[0], total[1] + sum[1]];
    }
    (total[0].reduce_add(), total[1].reduce_add())
}

/// `acc += y (h - mean)` with `y` the weights times `inverse`.
#[inline(always)]
fn accumulate<S: Simd, C: Real>(
    w: &[C],
    h: &[C],
    acc: &mut [C],
    n: usize,
    (sum, product): (f64, f64),
) {
    let inverse = C::V::<S>::splat(C::of(1.0 / sum));
    let mean = C::V::<S>::splat(C::of(product / sum));
    for at in (0..n).step_by(C::V::<S>::LANES) {
        let (w, h) = (C::V::<S>::load(&w[at..]), C::V::<S>::load(&h[at..]));
        let old = C::V::<S>::load(&acc[at..]);
        let new = (w * inverse).mul_add(h - mean, old);
        // What follows may be another row's.
        Float::select(C::V::<S>::first(n - at), new, old).store(&mut acc[at..]);
    }
}

/// Buffers of a task.
pub(crate) struct Scratch<C> {
    /// How improbable each class is, as `Draw::weights` takes it.
    pub(super) rarity: Vec<C>,
    /// The gradient counted from that of the class drawn.
    pub(super) h: Vec<C>,
    pub(super) weights: Vec<C>,
    pub(super) lanes: Lanes<C>,
}

outlined! {
    fn look_at_rows['a, C: NoiseReal](chunk: &'a Chunk<'a, C>, rows: &'a mut [Row<C>]) -> () {
        let n = chunk.n;
        for (i, row) in rows.iter_mut().enumerate() {
            let from = i * n;
            let (x, d, g) = (&chunk.logits[from..], &chunk.drawn[from..], &chunk.grad[from..]);
            row.look::<S>(chunk.at, x, d, g, n);
        }
    }

    fn add_rows['a, C: NoiseReal](chunk: &'a Chunk<'a, C>, rows: &'a mut [Row<C>]) -> () {
        for (i, row) in rows.iter_mut().enumerate() {
            row.add::<S>(&chunk.logits[i * chunk.n..], chunk.n);
        }
    }

    /// Fills the buffers that all samples share.
    fn prepare['a, C: NoiseReal](
        chunk: &'a Chunk<'a, C>,
        rows: &'a [Row<C>],
        scratch: &'a mut Scratch<C>,
    ) -> () {
        let n = chunk.n;
        for (i, row) in rows.iter().enumerate() {
            let top = C::V::<S>::splat(pivot(row.top));
            let shift = C::V::<S>::splat(row.shift);
            for at in (0..n).step_by(C::V::<S>::LANES) {
                let from = i * n + at;
                let rarity = top - C::V::<S>::load(&chunk.logits[from..]);
                let rarity = match row.way {
                    Way::Logarithmic => rarity,
                    // Too large a number becomes infinity, and its weight 0.
                    Way::Plain | Way::Power => C::exp_lanes::<S>(rarity),
                };
                rarity.store(&mut scratch.rarity[from..]);
                (C::V::<S>::load(&chunk.grad[from..]) - shift).store(&mut scratch.h[from..]);
            }
            // The class drawn has R = 0, whatever its variate.
            let hot = row.hot.unwrap_or(0).wrapping_sub(chunk.at);
            if hot < n {
                scratch.rarity[i * n + hot] = match row.way {
                    Way::Logarithmic => C::NEG_INFINITY,
                    Way::Plain | Way::Power => C::default(),
                };
            }
        }
    }

    /// Adds one sample of rows that are whole.
    fn add_sample['a, C: NoiseReal](
        noise: &'a [C],
        n: usize,
        rows: &'a [Row<C>],
        tau: f64,
        scratch: &'a mut Scratch<C>,
        acc: &'a mut [C],
    ) -> () {
        for (i, row) in rows.iter().enumerate() {
            let from = i * n;
            let own = noise[from + row.hot.unwrap_or(0)];
            let (rarity, h) = (&scratch.rarity[from..], &scratch.h[from..]);
            let draw = row.draw::<S>(own, tau);
            let (sum, product) =
                draw.weights::<S>(&noise[from..], rarity, h, &mut scratch.weights, n);
            let sums = (sum.f64(), product.f64());
            accumulate::<S, C>(&scratch.weights, h, &mut acc[from..], n, sums);
        }
    }

    /// Adds a part of each row to the sums of sample `k`.
    fn sum_sample['a, C: NoiseReal](
        noise: &'a [C],
        n: usize,
        rows: &'a mut [Row<C>],
        k: usize,
        tau: f64,
        scratch: &'a mut Scratch<C>,
    ) -> () {
        for (i, row) in rows.iter_mut().enumerate() {
            let from = i * n;
            let draw = row.draw::<S>(row.samples[k].0, tau);
            let (rarity, h) = (&scratch.rarity[from..], &scratch.h[from..]);
            let (sum, product) =
                draw.weights::<S>(&noise[from..], rarity, h, &mut scratch.weights, n);
            row.samples[k].1 += sum.f64();
            row.samples[k].2 += product.f64();
        }
    }

    /// Adds a part of sample `k`, given the sums of its rows.
    fn add_part['a, C: NoiseReal](
        noise: &'a [C],
        n: usize,
        rows: &'a [Row<C>],
        k: usize,
        tau: f64,
        scratch: &'a mut Scratch<C>,
        acc: &'a mut [C],
    ) -> () {
        for (i, row) in rows.iter().enumerate() {
            let from = i * n;
            let (own, sum, product) = row.samples[k];
            let (rarity, h) = (&scratch.rarity[from..], &scratch.h[from..]);
            row.draw::<S>(own, tau).weights::<S>(
                &noise[from..],
                rarity,
                h,
                &mut scratch.weights,
                n,
            );
            accumulate::<S, C>(&scratch.weights, h, &mut acc[from..], n, (sum, product));
        }
    }

    /// Times the factor that makes a gradient of the sum over samples; NaN in a row without a proper class.
    fn divide['a, C: NoiseReal](acc: &'a mut [C], n: usize, rows: &'a [Row<C>], factor: f64) -> () {
        for (i, row) in rows.iter().enumerate() {
            let factor = if row.hot.is_some() { factor } else { f64::NAN };
            let factor = C::V::<S>::splat(C::of(factor));
            row_map::<S, C>(&mut acc[i * n..], n, #[inline(always)] |x| x * factor);
        }
    }
}

impl Rao {
    /// The mean over samples, divided by the temperature, is this times their sum.
    pub(super) fn factor<C: Real>(&self) -> f64 {
        let most = C::LARGEST.f64();
        (1.0 / (self.tau * f64::from(self.samples))).clamp(-most, most)
    }

    pub(super) fn stream(&self, k: u32) -> Stream {
        Stream::new(sample_key(self.noise, k))
    }
}

impl<C: NoiseReal> Passes<C> for Rao {
    type Row = Row<C>;
    type Scratch = Scratch<C>;
    const BEFORE: usize = 3;

    fn row(&self) -> Row<C> {
        Row::new()
    }

    fn scratch(&self, elements: usize) -> Scratch<C> {
        let zeros = || vec![C::default(); elements];
        Scratch {
            rarity: zeros(),
            h: zeros(),
            weights: zeros(),
            lanes: Lanes::default(),
        }
    }

    #[inline(always)]
    fn pass<S: Simd>(
        &self,
        number: usize,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        scratch: &mut Scratch<C>,
    ) {
        match number {
            0 => look_at_rows::<S, C>(chunk, rows),
            1 => add_rows::<S, C>(chunk, rows),
            _ => {
                if chunk.at == 0 {
                    for (i, row) in rows.iter_mut().enumerate() {
                        row.choose(self.tau);
                        let element = chunk.index(i, row.hot.unwrap_or(0));
                        for k in 0..self.samples {
                            let own = chunk.one::<S, Exponential>(&self.stream(k), element);
                            row.samples.push((own, 0.0, 0.0));
                        }
                    }
                }
                prepare::<S, C>(chunk, rows, scratch);
                let n = chunk.n;
                for k in 0..self.samples {
                    let noise = chunk.noise::<S, Exponential>(&self.stream(k));
                    sum_sample::<S, C>(noise, n, rows, k as usize, self.tau, scratch);
                }
            }
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        scratch: &mut Scratch<C>,
        out: &mut [C],
    ) {
        prepare::<S, C>(chunk, rows, scratch);
        let n = chunk.n;
        out.fill(C::default());
        for k in 0..self.samples {
            let noise = chunk.noise::<S, Exponential>(&self.stream(k));
            add_part::<S, C>(noise, n, rows, k as usize, self.tau, scratch, out);
        }
        divide::<S, C>(out, n, rows, self.factor::<C>());
    }

    #[inline(always)]
    fn whole<S: Simd>(
        &self,
        rows: &mut [Row<C>],
        chunk: &mut Chunk<C>,
        scratch: &mut Scratch<C>,
        out: &mut [C],
    ) {
        look_at_rows::<S, C>(chunk, rows);
        add_rows::<S, C>(chunk, rows);
        rows.iter_mut().for_each(|row| row.choose(self.tau));
        prepare::<S, C>(chunk, rows, scratch);
        let n = chunk.n;
        out.fill(C::default());
        for k in 0..self.samples {
            let noise = chunk.noise::<S, Exponential>(&self.stream(k));
            add_sample::<S, C>(noise, n, rows, self.tau, scratch, out);
        }
        divide::<S, C>(out, n, rows, self.factor::<C>());
    }

    #[inline(always)]
    fn beside<S: Simd>(
        &self,
        rows: &mut [Row<C>],
        lines: &mut Lines<C>,
        scratch: &mut Scratch<C>,
        out: &mut [C],
    ) {
        beside::gradient::<S, C>(self, rows, lines, scratch, out);
    }
}
