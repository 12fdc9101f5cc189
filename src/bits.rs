//! The raw maps on forced words, the choice of instruction set, and single kernels, for this crate's own tests and
//! benches. Not part of the API: nothing here keeps to the version policy.

#![allow(missing_docs, reason = "hidden from the documentation")]

use crate::backward::{self, Family};
use crate::math::scalar;
use crate::output::parallel;
use crate::rng::{
    self, Exponential, FILL_SLACK, Gumbel, Key, Logistic, Noise, Normal, Stream, Uniform,
};
use crate::rowwise::{Rows, SoftmaxGradient, Source, Tau, gradient_into};
use crate::simd::{self, Bits, Float, Kernel, LANES_F32, Level, Simd, dispatch};
use crate::tempered::{Target, TauTensor};
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};
use std::marker::PhantomData;
use std::sync::Mutex;

/// The instruction sets that this machine has, best last.
pub fn levels() -> Vec<&'static str> {
    Level::available().into_iter().map(Level::name).collect()
}

static FORCED: Mutex<()> = Mutex::new(());

/// Runs `f` with the kernels of one instruction set, in every thread of the process, one caller at a time. The results
/// of other threads do not change, since every instruction set gives the same bits.
pub fn with_level<R>(name: &str, f: impl FnOnce() -> R) -> R {
    let _guard = FORCED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let level = Level::available()
        .into_iter()
        .find(|level| level.name() == name);
    let _restored = Restore(simd::level());
    assert!(level.is_some_and(simd::force), "no level {name} here");
    f()
}

/// Brings a level back when it goes out of scope, after a panic too.
struct Restore(Level);

impl Drop for Restore {
    fn drop(&mut self) {
        simd::force(self.0);
    }
}

struct F32<'a, N> {
    words: &'a [u32],
    seconds: &'a [u32],
    out: &'a mut [f32],
    noise: PhantomData<N>,
}

impl<N: Noise> Kernel for F32<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let words = self.words.chunks(LANES_F32);
        let seconds = self.seconds.chunks(LANES_F32);
        for ((w, s), out) in words.zip(seconds).zip(self.out.chunks_mut(LANES_F32)) {
            let mut lanes = [[0; LANES_F32]; 2];
            lanes[0][..w.len()].copy_from_slice(w);
            lanes[1][..s.len()].copy_from_slice(s);
            let mut x = [0.0; LANES_F32];
            N::f32::<S, true>(S::U32::load(&lanes[0]), S::U32::load(&lanes[1])).store(&mut x);
            out.copy_from_slice(&x[..out.len()]);
        }
    }
}

struct F64<N> {
    word: u32,
    second: u32,
    noise: PhantomData<N>,
}

impl<N: Noise> Kernel for F64<N> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let second = S::F64::splat(f64::from(self.second));
        scalar::<S, f64>(
            self.word.into(),
            #[inline(always)]
            |word| N::f64::<S>(word, second),
        )
    }
}

macro_rules! maps {
    ($($noise:ident: $f32:ident, $slice:ident, $f64:ident;)*) => {
        $(
            pub fn $f32(word: u32, second: u32) -> f32 {
                let mut out = [0.0];
                $slice(&[word], &[second], &mut out);
                out[0]
            }

            pub fn $slice(words: &[u32], seconds: &[u32], out: &mut [f32]) {
                assert!(words.len() == seconds.len() && words.len() == out.len());
                dispatch(F32::<$noise> { words, seconds, out, noise: PhantomData });
            }

            pub fn $f64(word: u32, second: u32) -> f64 {
                dispatch(F64::<$noise> { word, second, noise: PhantomData })
            }
        )*
    };
}
maps! {
    Uniform: uniform_f32, uniform_f32_slice, uniform_f64;
    Gumbel: gumbel_f32, gumbel_f32_slice, gumbel_f64;
    Exponential: exponential_f32, exponential_f32_slice, exponential_f64;
    Logistic: logistic_f32, logistic_f32_slice, logistic_f64;
    Normal: normal_f32, normal_f32_slice, normal_f64;
}

/// The softmax's backward kernel alone, on the tensors' device: from the result and its gradient to that of the logits.
pub fn softmax_gradient(y: &Tensor, g: &Tensor, tau: f64, dim: usize) -> Result<Tensor> {
    backward::softmax_gradient(
        "softmax_gradient",
        Family::Softmax,
        dim,
        (y, g),
        TauTensor::Fixed(tau),
        Target::Input,
    )
}

/// ReinMax's backward pass alone, on the tensors' device, for a one-hot that need not have been drawn.
pub fn reinmax_gradient(
    logits: &Tensor,
    drawn: &Tensor,
    g: &Tensor,
    tau: f64,
    dim: usize,
) -> Result<Tensor> {
    crate::reinmax::gradient(logits, drawn, g, tau, dim)
}

/// The backward pass of [`binary_concrete`](crate::binary_concrete), or of [`hard_concrete`](crate::hard_concrete) where it is
/// given a stretch, alone: of a result in f32 or f64, which it starts from there.
pub fn gate_gradient(
    result: &Tensor,
    g: &Tensor,
    tau: f64,
    stretch: Option<crate::Stretch>,
) -> Result<Tensor> {
    crate::binary_concrete::gradient(result, g, tau, stretch)
}

/// Gumbel-Rao's backward pass alone, on the tensors' device, for a one-hot that need not have been drawn.
pub fn gumbel_rao_gradient(
    logits: &Tensor,
    drawn: &Tensor,
    g: &Tensor,
    (tau, samples): (f64, u32),
    dim: usize,
    key: Key,
) -> Result<Tensor> {
    crate::gumbel_rao::gradient(logits, drawn, g, (tau, samples), dim, key.into())
}

/// How many of the f32 Gumbel variates of elements `start .. start + n` lie above each threshold.
pub fn count_gumbel_above(key: Key, start: u64, n: u64, thresholds: &[f32]) -> Vec<u64> {
    count::<Gumbel>(key, start, n, thresholds, |x, t| x > t)
}

/// The same of exponential variates.
pub fn count_exponential_above(key: Key, start: u64, n: u64, thresholds: &[f32]) -> Vec<u64> {
    count::<Exponential>(key, start, n, thresholds, |x, t| x > t)
}

/// How many of the f32 exponential variates lie below each threshold.
pub fn count_exponential_below(key: Key, start: u64, n: u64, thresholds: &[f32]) -> Vec<u64> {
    count::<Exponential>(key, start, n, thresholds, |x, t| x < t)
}

/// How many of the f32 logistic variates lie above each threshold.
pub fn count_logistic_above(key: Key, start: u64, n: u64, thresholds: &[f32]) -> Vec<u64> {
    count::<Logistic>(key, start, n, thresholds, |x, t| x > t)
}

/// How many of them lie below each threshold.
pub fn count_logistic_below(key: Key, start: u64, n: u64, thresholds: &[f32]) -> Vec<u64> {
    count::<Logistic>(key, start, n, thresholds, |x, t| x < t)
}

fn count<N: Noise>(
    key: Key,
    start: u64,
    n: u64,
    thresholds: &[f32],
    is_beyond: impl Fn(f32, f32) -> bool + Copy + Sync,
) -> Vec<u64> {
    const BLOCK: u64 = 1 << 12;
    struct Count<'a, N, F> {
        stream: Stream,
        start: u64,
        n: usize,
        buffer: &'a mut [f32],
        thresholds: &'a [f32],
        is_beyond: F,
        noise: PhantomData<N>,
    }
    impl<N: Noise, F: Fn(f32, f32) -> bool> Kernel for Count<'_, N, F> {
        type Output = Vec<u64>;
        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<u64> {
            let offset = rng::fill::<S, f32, N>(&self.stream, self.start, self.n, self.buffer);
            let noise = &self.buffer[offset..offset + self.n];
            let mut counts = Vec::with_capacity(self.thresholds.len());
            for &t in self.thresholds {
                let mut sum = 0;
                for &x in noise {
                    sum += u32::from((self.is_beyond)(x, t));
                }
                counts.push(sum.into());
            }
            counts
        }
    }
    let stream = Stream::new(key);
    let counts = parallel(
        n.div_ceil(BLOCK) as usize,
        n as usize,
        1 << 20,
        || vec![0.0; BLOCK as usize + FILL_SLACK],
        |buffer, i| {
            let at = i as u64 * BLOCK;
            dispatch(Count {
                stream,
                start: start + at,
                n: BLOCK.min(n - at) as usize,
                buffer,
                thresholds,
                is_beyond,
                noise: PhantomData::<N>,
            })
        },
    );
    let mut total = vec![0; thresholds.len()];
    for counts in counts {
        for (total, count) in total.iter_mut().zip(counts) {
            *total += count;
        }
    }
    total
}

/// The softmax backward kernel alone, into a buffer that is there already: rows of `len`, `y` and `g` of its size.
pub struct SoftmaxBackward {
    y: CpuStorage,
    g: CpuStorage,
    layout: Layout,
    rows: Rows,
}

impl SoftmaxBackward {
    pub fn new(y: Vec<f32>, g: Vec<f32>, len: usize) -> Self {
        assert!(y.len() == g.len() && y.len().is_multiple_of(len));
        let rows = Rows {
            outer: y.len() / len,
            len,
            inner: 1,
        };
        Self {
            layout: Layout::contiguous(Shape::from(y.len())),
            y: CpuStorage::F32(y),
            g: CpuStorage::F32(g),
            rows,
        }
    }

    pub fn run(&self, tau: f64, out: &mut [f32]) -> Result<()> {
        let y = Source::<f32>::new(&self.y, &self.layout)?;
        let g = Source::<f32>::new(&self.g, &self.layout)?;
        gradient_into(
            SoftmaxGradient,
            Some(&y),
            out,
            &g,
            &Tau::Fixed(tau),
            self.rows,
        );
        Ok(())
    }
}

/// The PTX of every kernel file, for every dtype.
#[cfg(feature = "cuda")]
pub fn cuda_modules() -> Vec<(&'static str, candle_core::DType, &'static str)> {
    crate::launch::modules()
}
