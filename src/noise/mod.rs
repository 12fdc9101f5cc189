//! Noise tensors: uniform, Gumbel, exponential, logistic and normal.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::op::{by_dtype, tensor};
use crate::rng::{Exponential, Gumbel, KeySource, Logistic, Noise, Normal, Uniform};
use candle_core::{DType, Device, Result, Shape, Tensor};

/// Uniform noise on the open unit interval.
///
/// * **Formula**: `v = (w + 1/2) 2^-32` for the element's word `w` (see [`Key`](crate::Key)); where `w < 256`, and always in f64, a
///   second word refines it: `v = (w + (w2 + 1/2) 2^-32) 2^-32`.
/// * **Shapes and dtypes**: any shape, a scalar and zero elements included; f32, f64; f16 and bf16 are the f32 draw
///   rounded once, then kept inside the interval.
/// * **Range and precision**: never 0 and never 1, so that both `ln v` and `ln(1 - v)` are finite: from 2^-65 to 1 - 2^-24
///   (f32), 1 - 2^-53 (f64), 1 - 2^-8 (bf16), and from 2^-24 to 1 - 2^-11 (f16).
/// * **Gradient**: none.
/// * **Errors**: a dtype that is not listed; a key whose stream is not below 2^63; a device without kernels.
/// * **Source**: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10).
/// * **PyTorch**: `torch.rand(shape, generator=generator)`, whose interval includes 0.
///
/// ```
/// use candle_reparam::{Key, uniform};
/// use candle_core::{DType, Device};
/// let v = uniform((2, 3), DType::F32, &Device::Cpu, Key::new(42, 0))?;
/// assert!(v.flatten_all()?.to_vec1::<f32>()?.iter().all(|&v| 0.0 < v && v < 1.0));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn uniform(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    draw::<Uniform>("uniform", shape.into(), dtype, device, key.into())
}

/// Standard Gumbel noise: location 0, scale 1.
///
/// * **Formula**: `g = -ln(-ln(1 - v))` of the uniform `v` of the same key; the two logarithms are evaluated together, in
///   IEEE operations alone, so that the noise is the same on every device.
/// * **Shapes and dtypes**: any shape; f32, f64; f16 and bf16 are the f32 draw rounded once.
/// * **Range and precision**: about -2.81 to 45.1 (f32), -3.61 to 45.1 (f64), with the right frequency up to the end of
///   the range; error below 3e-7 (f32) or 1e-15 (f64) times `max(1, |g|)` of the formula at `v`. Mean 0.5772, variance
///   pi^2 / 6.
/// * **Gradient**: none.
/// * **Errors**: as for [`uniform`].
/// * **Source**: Gumbel, "Statistical theory of extreme values", 1954.
/// * **PyTorch**: `torch.distributions.Gumbel(0, 1).sample(shape)`.
///
/// ```
/// use candle_reparam::{Key, gumbel};
/// use candle_core::{DType, Device};
/// let g = gumbel(100_000, DType::F64, &Device::Cpu, Key::new(42, 0))?;
/// assert!((g.mean_all()?.to_scalar::<f64>()? - 0.5772).abs() < 0.02);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    draw::<Gumbel>("gumbel", shape.into(), dtype, device, key.into())
}

/// Standard exponential noise: rate 1.
///
/// * **Formula**: `E = -ln(1 - v)` of the uniform `v` of the same key, in IEEE operations alone, so that the noise is the
///   same on every device. It is the exponential race behind the Gumbel: `gumbel = -ln E` at the same key, and `argmin E /
///   p` draws a class with probabilities `p`, as `argmax ln p + gumbel` does.
/// * **Shapes and dtypes**: any shape; f32, f64; f16 and bf16 are the f32 draw rounded once, f16 then kept above 0.
/// * **Range and precision**: both tails exact, from 2^-65 (2.7e-20) to 65 ln 2 (45.05) in f32 and f64, with the right
///   frequency up to either end: above `v = 1/2`, `1 - v` is counted down from the largest word, and refined by the second
///   word where fewer than 256 are left. Relative error below 2e-7 (f32) or 1e-15 (f64). Never 0: in f16 the least is 2^-24.
///   In f32 [`gumbel`] resolves a large `E`, its own lower end, more coarsely: above 10 the identities are approximate.
/// * **Gradient**: none.
/// * **Errors**: as for [`uniform`].
/// * **Source**: Devroye, "Non-Uniform Random Variate Generation", 1986, chapter II.2 (inversion).
/// * **PyTorch**: `torch.empty(shape).exponential_(generator=generator)`.
///
/// ```
/// use candle_reparam::{Key, exponential};
/// use candle_core::{DType, Device};
/// let e = exponential(100_000, DType::F32, &Device::Cpu, Key::new(42, 0))?;
/// assert!((e.mean_all()?.to_scalar::<f32>()? - 1.0).abs() < 0.02);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn exponential(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    draw::<Exponential>("exponential", shape.into(), dtype, device, key.into())
}

/// Standard logistic noise: location 0, scale 1, the difference of two Gumbels.
///
/// * **Formula**: `l = ln v - ln(1 - v)` of the uniform `v` of the same key, in IEEE operations alone, so that the noise is
///   the same on every device.
/// * **Shapes and dtypes**: any shape; f32, f64; f16 and bf16 are the f32 draw rounded once.
/// * **Range and precision**: both tails alike, to |l| = 65 ln 2 (45.05) in f32 and f64, with the right frequency up to
///   either end, so that `a + l > 0` draws from `Bernoulli(sigmoid(a))` exactly for probabilities down to 1e-19 on both
///   sides. The sign is the top bit of the element's word, and `|l|` that of `min(v, 1 - v)`, counted from its own end and
///   refined by the second word where fewer than 256 are left. Relative error below 3e-7 (f32) or 1.5e-15 (f64), at the centre
///   too: the least |l| is 2^-31 (f32), and it is never 0 but by rounding to f16. Variance pi^2 / 3.
/// * **Gradient**: none.
/// * **Errors**: as for [`uniform`].
/// * **Source**: Maddison, Mnih, Teh, arXiv 1611.00712, appendix B (the noise of the binary Concrete distribution).
/// * **PyTorch**: `torch.rand(shape, generator=generator).logit()`.
///
/// ```
/// use candle_reparam::{Key, logistic};
/// use candle_core::{DType, Device};
/// let l = logistic(100_000, DType::F32, &Device::Cpu, Key::new(42, 0))?;
/// let ones = l.gt(-2.0)?.to_dtype(DType::F32)?; // draws from Bernoulli(sigmoid(2))
/// assert!((ones.mean_all()?.to_scalar::<f32>()? - 0.8808).abs() < 0.01);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn logistic(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    draw::<Logistic>("logistic", shape.into(), dtype, device, key.into())
}

/// Standard normal noise: mean 0, variance 1.
///
/// * **Formula**: by inversion: the sign is the top bit of the element's word, and `|z|` the two-sided quantile of
///   `t = (m + 1/2) 2^-31`, `m` the other 31 bits (in f64 refined by the second word): `|z| = sqrt(2) erfinv(1 - t)`.
/// * **Shapes and dtypes**: any shape; f32, f64; f16 and bf16 are the f32 draw rounded once.
/// * **Range and precision**: both tails alike, to |z| = 6.34 (f32) or 9.2 (f64); relative error below 5e-7 (f32) or 2e-15
///   (f64) of the quantile.
/// * **Gradient**: none.
/// * **Errors**: as for [`uniform`].
/// * **Source**: the polynomials have the form of Giles, "Approximating the erfinv function", GPU Computing Gems, 2012.
/// * **PyTorch**: `torch.randn(shape, generator=generator)`.
///
/// ```
/// use candle_reparam::{Key, normal};
/// use candle_core::{DType, Device};
/// let z = normal(100_000, DType::F32, &Device::Cpu, Key::new(42, 0))?;
/// assert!((z.sqr()?.mean_all()?.to_scalar::<f32>()? - 1.0).abs() < 0.02);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn normal(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    draw::<Normal>("normal", shape.into(), dtype, device, key.into())
}

fn draw<N: Noise>(
    name: &'static str,
    shape: Shape,
    dtype: DType,
    device: &Device,
    key: KeySource,
) -> Result<Tensor> {
    check::dtype(name, "the result", dtype)?;
    check::device(name, "the result", device)?;
    check::size(name, "the result", shape.dims(), dtype)?;
    check::key_source(name, &key, device)?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::draw(name, shape, dtype, device, &key);
    }
    let key = key.now()?;
    by_dtype!(name, dtype, E => Ok(tensor(cpu::draw::<E, N>(shape.elem_count(), key), shape)))
}
