//! Functions with kinks, and the slope of your choice there.
//!
//! At a kink a function has no derivative, but every number between the slopes on its two sides is a subgradient, and a library
//! has to take one. Which one it takes decides whether a unit whose input is exactly 0 (padding, a bias that starts at 0, a
//! sparse or quantised input) ever learns. Here it is an argument, `at_kink`, in every function:
//!
//! * a number: the slope at the kink, or at both of them where there are two. One that lies outside the slopes on either side is
//!   an error;
//! * `None`: the subgradient of least magnitude, which is 0 wherever 0 is one. It is what PyTorch takes for `relu`, `abs`,
//!   `leaky_relu` (of a slope from 0 to 1), `hardtanh` and `hardsigmoid`.
//!
//! | at the kink | None here | PyTorch | JAX | candle 0.11.1 |
//! |---|---|---|---|---|
//! | [`relu`] | 0 | 0 | 0 (`jax.nn.relu`) | 1 |
//! | [`abs`] | 0 | 0 | 1 | 1 |
//! | [`leaky_relu`] of slope s, 0 to 1 | s | s | 1 | (1 + s) / 2 (`candle_nn`) |
//! | [`clamp`] | 0 | 1 | 1/2 (`jnp.clip`) | 1/2 |
//! | [`hard_tanh`] | 0 | 0 | 1 | 1/2 (as a clamp) |
//! | [`hard_sigmoid`] | 0 | 0 | 0 | 1/12 (`candle_nn`) |
//! | [`maximum`], [`minimum`] | 1/2 each | 1/2 each | 1/2 each | 1/2 each |
//! | [`max`], [`min`] of a dim | one unit, shared evenly | `amax`: the same; `max`: all to one index | shared evenly | one unit to each |
//!
//! In all of them a NaN stays one, in the gradient too, and where the slope is 0 the gradient is exactly 0, even if the one that
//! arrives is infinite or NaN. f16 and bf16 are computed in f32, with kinks in f32, and rounded once.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::elementwise::Elementwise;
use crate::piecewise::Linear;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use cpu::{Hinge, Larger};

/// The rectifier, `max(x, 0)`.
///
/// * **Formula**: `x` above 0, 0 below; a zero keeps its sign.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact.
/// * **Gradient**: `g` above 0, 0 below, `at_kink g` at 0.
/// * **At the kink**: `at_kink` from 0 to 1, `None` for 0. PyTorch and `jax.nn.relu` take 0, candle 0.11.1 takes 1.
/// * **Errors**: an `at_kink` outside [0, 1]; a dtype that is not listed.
/// * **Source**: Bertoin et al., "Numerical influence of ReLU'(0) on backpropagation", arXiv 2106.12915.
/// * **PyTorch**: `torch.relu(x)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[-1f32, 0., 2.], &Device::Cpu)?;
/// let grads = subgradient::relu(&x, None)?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0., 0., 1.]);
/// let grads = subgradient::relu(&x, 0.5)?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0., 0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relu(x: &Tensor, at_kink: impl Into<Option<f64>>) -> Result<Tensor> {
    bent("relu", x, [0.0, 1.0], [0.0, -0.0], at_kink.into())
}

/// The leaky rectifier.
///
/// * **Formula**: `x` above 0, `negative_slope x` below; a zero keeps its sign.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: one rounding.
/// * **Gradient**: `g` above 0, `negative_slope g` below, `at_kink g` at 0.
/// * **At the kink**: `at_kink` between `negative_slope` and 1, `None` for the one of them of least magnitude, or 0 where that is
///   between them. PyTorch takes `negative_slope`, JAX takes 1, `candle_nn` the mean of the two.
/// * **Errors**: a `negative_slope` that is not finite; an `at_kink` that is not between it and 1; a dtype that is not listed.
/// * **Source**: Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.
/// * **PyTorch**: `torch.nn.functional.leaky_relu(x, negative_slope)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-4f32, 0., 2.], &Device::Cpu)?;
/// assert_eq!(subgradient::leaky_relu(&x, 0.25, None)?.to_vec1::<f32>()?, [-1., 0., 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn leaky_relu(
    x: &Tensor,
    negative_slope: f64,
    at_kink: impl Into<Option<f64>>,
) -> Result<Tensor> {
    let name = "leaky_relu";
    check::finite(name, "negative_slope", negative_slope)?;
    let slopes = [negative_slope, 1.0];
    let left = if negative_slope == 0.0 { 0.0 } else { -0.0 };
    bent(name, x, slopes, [left, -0.0], at_kink.into())
}

/// The magnitude.
///
/// * **Formula**: `|x|`.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact; never -0.
/// * **Gradient**: `g` above 0, `-g` below, `at_kink g` at 0.
/// * **At the kink**: `at_kink` from -1 to 1, `None` for 0. PyTorch takes 0, JAX and candle 0.11.1 take 1.
/// * **Errors**: an `at_kink` outside [-1, 1]; a dtype that is not listed.
/// * **PyTorch**: `torch.abs(x)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[-3f32, 0., 2.], &Device::Cpu)?;
/// let y = subgradient::abs(&x, None)?;
/// assert_eq!(y.to_vec1::<f32>()?, [3., 0., 2.]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [-1., 0., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn abs(x: &Tensor, at_kink: impl Into<Option<f64>>) -> Result<Tensor> {
    let name = "abs";
    let at_kink = slope_at(name, at_kink.into(), [-1.0, 1.0])?;
    let linear = Linear {
        kinks: [0.0; 2],
        slopes: [-1.0, 1.0, 1.0],
        values: [0.0; 3],
        anchor: 0.0,
        at_kinks: [at_kink; 2],
    };
    apply(name, x, linear)
}

/// `x`, kept between two bounds.
///
/// * **Formula**: `min(max(x, low), high)`; either bound may be infinite.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16; the bounds are rounded to the dtype that is computed in.
/// * **Range and precision**: exact.
/// * **Gradient**: `g` between the bounds, 0 outside, `at_kink g` where `x` is one of them.
/// * **At the kinks**: `at_kink` from 0 to 1 at both (0 alone where the bounds are equal), `None` for 0. PyTorch takes 1, JAX and
///   candle 0.11.1 take 1/2.
/// * **Errors**: a bound that is NaN; `low` above `high`; an `at_kink` outside [0, 1]; a dtype that is not listed.
/// * **PyTorch**: `torch.clamp(x, low, high)`, whose gradient is that of an `at_kink` of 1.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor, Var};
/// let x = Var::new(&[-2f32, 0., 0.5, 1.], &Device::Cpu)?;
/// let y = subgradient::clamp(&x, 0.0, 1.0, 1.0)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0., 0., 0.5, 1.]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f32>()?, [0., 1., 1., 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn clamp(x: &Tensor, low: f64, high: f64, at_kink: impl Into<Option<f64>>) -> Result<Tensor> {
    between("clamp", x, [low, high], at_kink.into())
}

/// `x`, kept between -1 and 1.
///
/// * **Formula**: `min(max(x, -1), 1)`.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact.
/// * **Gradient**: `g` inside, 0 outside, `at_kink g` at -1 and 1.
/// * **At the kinks**: `at_kink` from 0 to 1 at both, `None` for 0, as in PyTorch; candle 0.11.1 has no such op, and gives 1/2 for
///   the clamp.
/// * **Errors**: an `at_kink` outside [0, 1]; a dtype that is not listed.
/// * **Source**: Courbariaux et al., arXiv 1602.02830, where it stands for the gradient of a sign.
/// * **PyTorch**: `torch.nn.functional.hardtanh(x)`; for other bounds see [`clamp`].
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-3f32, 0.5, 1.5], &Device::Cpu)?;
/// assert_eq!(subgradient::hard_tanh(&x, None)?.to_vec1::<f32>()?, [-1., 0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_tanh(x: &Tensor, at_kink: impl Into<Option<f64>>) -> Result<Tensor> {
    between("hard_tanh", x, [-1.0, 1.0], at_kink.into())
}

/// A sigmoid of three straight pieces.
///
/// * **Formula**: `(x + 3) / 6` from -3 to 3, 0 below and 1 above.
/// * **Shapes**: any, any layout; the result has `x`'s shape.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: from 0 to 1; relative error below 1.2e-7 (f32) or 2.3e-16 (f64), near -3 too.
/// * **Gradient**: `g / 6` inside, 0 outside, `at_kink g` at -3 and 3.
/// * **At the kinks**: `at_kink` from 0 to 1/6 at both, `None` for 0, as in PyTorch and JAX; `candle_nn` takes 1/12.
/// * **Errors**: an `at_kink` outside [0, 1/6]; a dtype that is not listed.
/// * **Source**: Howard et al., "Searching for MobileNetV3", arXiv 1905.02244.
/// * **PyTorch**: `torch.nn.functional.hardsigmoid(x)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[-3f32, 0., 4.], &Device::Cpu)?;
/// assert_eq!(subgradient::hard_sigmoid(&x, None)?.to_vec1::<f32>()?, [0., 0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_sigmoid(x: &Tensor, at_kink: impl Into<Option<f64>>) -> Result<Tensor> {
    let name = "hard_sigmoid";
    let slope = 1.0 / 6.0;
    let at_kink = slope_at(name, at_kink.into(), [0.0, slope])?;
    let linear = Linear {
        kinks: [-3.0, 3.0],
        slopes: [0.0, slope, 0.0],
        values: [0.0, 0.0, 1.0],
        anchor: -3.0,
        at_kinks: [at_kink; 2],
    };
    apply(name, x, linear)
}

/// The hinge of a scored example: how far its score falls short of the margin.
///
/// * **Formula**: `max(0, margin - target input)`, element by element; `target` is 1 or -1 (any other number scales the score).
/// * **Shapes**: `input` and `target` of shapes that broadcast to one, any layout; the result has that shape. Sum or average it for
///   a loss.
/// * **Dtypes**: f32, f64, f16, bf16, both alike.
/// * **Range and precision**: at least 0; one rounding.
/// * **Gradient**: `-target g` to `input` and `-input g` to `target` where the score is short, 0 where it is beyond, `at_kink` of the
///   former where it is at the margin; summed to each argument's shape, in f32 where that is a half type.
/// * **At the kink**: `at_kink` from 0 to 1, `None` for 0. PyTorch's `margin_ranking_loss` and `hinge_embedding_loss` take 1 (a
///   `clamp_min`), its `multi_margin_loss` takes 0; candle 0.11.1 has no hinge, and gives 1 for the composition with `relu`.
/// * **Errors**: shapes that do not broadcast; dtypes or devices that differ; a `margin` that is not finite; an `at_kink` outside
///   [0, 1]; a dtype that is not listed.
/// * **Source**: Cortes, Vapnik, "Support-vector networks", 1995.
/// * **PyTorch**: `(margin - target * input).clamp_min(0)`, the element of `margin_ranking_loss` for scores `input = x1 - x2`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let score = Tensor::new(&[2f32, 0.25, -1.], &Device::Cpu)?;
/// let target = Tensor::new(&[1f32, 1., 1.], &Device::Cpu)?;
/// let loss = subgradient::hinge(&score, &target, 1.0, None)?;
/// assert_eq!(loss.to_vec1::<f32>()?, [0., 0.75, 2.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hinge(
    input: &Tensor,
    target: &Tensor,
    margin: f64,
    at_kink: impl Into<Option<f64>>,
) -> Result<Tensor> {
    let name = "hinge";
    check::finite(name, "margin", margin)?;
    let at_kink = slope_at(name, at_kink.into(), [0.0, 1.0])?;
    let [view, _] = check::broadcast(name, ("input", input), ("target", target))?;
    let hinge = Elementwise::new(name, Hinge { margin, at_kink });
    hinge.apply_broadcast([input, target], view.shape())
}

/// The larger of two elements.
///
/// * **Formula**: `max(a, b)`, element by element; NaN where one of them is.
/// * **Shapes**: any that broadcast to one, any layout; the result has that shape.
/// * **Dtypes**: f32, f64, f16, bf16, both alike.
/// * **Range and precision**: exact; of two zeros, `a`'s.
/// * **Gradient**: `g` to the larger, 0 to the other; where they are equal `first g` to `a` and `(1 - first) g` to `b`: one unit
///   of gradient in all. Summed to each argument's shape, in f32 where that is a half type.
/// * **At a tie**: `first` from 0 to 1, `None` for 1/2, as in PyTorch, JAX and candle 0.11.1.
/// * **Errors**: shapes that do not broadcast; dtypes or devices that differ; a `first` outside [0, 1]; a dtype that is not
///   listed.
/// * **PyTorch**: `torch.maximum(a, b)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Var};
/// let (a, b) = (Var::new(&[1f32, 2.], &Device::Cpu)?, Var::new(&[1f32, 3.], &Device::Cpu)?);
/// let grads = subgradient::maximum(&a, &b, None)?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&a).unwrap().to_vec1::<f32>()?, [0.5, 0.]);
/// assert_eq!(grads.get(&b).unwrap().to_vec1::<f32>()?, [0.5, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn maximum(a: &Tensor, b: &Tensor, first: impl Into<Option<f64>>) -> Result<Tensor> {
    larger("maximum", a, b, 1.0, first.into())
}

/// The smaller of two elements.
///
/// As [`maximum`], of `min(a, b)`.
///
/// * **PyTorch**: `torch.minimum(a, b)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let a = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let b = Tensor::new(&[2f32, 3.], &Device::Cpu)?;
/// let y = subgradient::minimum(&a, &b, None)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 2.], [2., 3.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn minimum(a: &Tensor, b: &Tensor, first: impl Into<Option<f64>>) -> Result<Tensor> {
    larger("minimum", a, b, -1.0, first.into())
}

/// The largest element of each row over `dim`.
///
/// * **Formula**: `max_i x_i`; NaN in a row that holds one, and in that row alone.
/// * **Shapes**: any rank from 1, any layout; the result is without `dim`.
/// * **Dtypes**: f32, f64, f16, bf16.
/// * **Range and precision**: exact; a zero is +0.
/// * **Gradient**: the row's `g`, shared evenly among the elements that are largest, infinite ones included; 0 to the others. One
///   unit of gradient a row, however many tie: candle 0.11.1 gives `g` to each of them, so that a row of padding counts as often
///   as it is long. NaN in a row that holds one.
/// * **Errors**: `dim` out of range or empty; a dtype that is not listed.
/// * **PyTorch**: `torch.amax(x, dim)`, in its gradient too; `torch.max(x, dim)` gives it all to the index that it returns.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{D, Device, Var};
/// let x = Var::new(&[[1f32, 3., 3.]], &Device::Cpu)?;
/// let y = subgradient::max(&x, D::Minus1)?;
/// assert_eq!(y.to_vec1::<f32>()?, [3.]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec2::<f32>()?, [[0., 0.5, 0.5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn max(x: &Tensor, dim: impl Dim) -> Result<Tensor> {
    extreme("max", x, dim, false)
}

/// The smallest element of each row over `dim`.
///
/// As [`max`], of `min_i x_i`.
///
/// * **PyTorch**: `torch.amin(x, dim)`.
///
/// ```
/// use candle_reparam::subgradient;
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 3.], [2., 0.]], &Device::Cpu)?;
/// assert_eq!(subgradient::min(&x, 0)?.to_vec1::<f32>()?, [1., 0.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn min(x: &Tensor, dim: impl Dim) -> Result<Tensor> {
    extreme("min", x, dim, true)
}

/// The subgradient asked for at a kink between two slopes, or the one of least magnitude.
fn slope_at(name: &str, at_kink: Option<f64>, slopes: [f64; 2]) -> Result<f64> {
    let (low, high) = (slopes[0].min(slopes[1]), slopes[0].max(slopes[1]));
    match at_kink {
        None => Ok(0f64.clamp(low, high)),
        Some(slope) if (low..=high).contains(&slope) => Ok(slope),
        Some(slope) => bail!(
            "{name}: at_kink is {slope}, expected a slope from {low} to {high}: no other is a subgradient"
        ),
    }
}

fn apply(name: &'static str, x: &Tensor, linear: Linear) -> Result<Tensor> {
    check::tensor(name, "x", x)?;
    Elementwise::new(name, linear).apply([x])
}

/// Two slopes that meet at 0.
fn bent(
    name: &'static str,
    x: &Tensor,
    [left, right]: [f64; 2],
    [left_value, value]: [f64; 2],
    at_kink: Option<f64>,
) -> Result<Tensor> {
    let at_kink = slope_at(name, at_kink, [left, right])?;
    let linear = Linear {
        kinks: [0.0; 2],
        slopes: [left, right, right],
        values: [left_value, value, value],
        anchor: 0.0,
        at_kinks: [at_kink; 2],
    };
    apply(name, x, linear)
}

/// The identity between two bounds.
fn between(
    name: &'static str,
    x: &Tensor,
    [low, high]: [f64; 2],
    at_kink: Option<f64>,
) -> Result<Tensor> {
    check::interval(name, low, high)?;
    // Between equal bounds there is no slope but 0.
    let at_kink = slope_at(name, at_kink, [0.0, if low < high { 1.0 } else { 0.0 }])?;
    // An infinite bound is no kink.
    let at = |bound: f64| if bound.is_finite() { at_kink } else { 1.0 };
    let linear = Linear {
        kinks: [low, high],
        slopes: [0.0, 1.0, 0.0],
        values: [low, -0.0, high],
        anchor: 0.0,
        at_kinks: [at(low), at(high)],
    };
    apply(name, x, linear)
}

fn larger(
    name: &'static str,
    a: &Tensor,
    b: &Tensor,
    sign: f64,
    first: Option<f64>,
) -> Result<Tensor> {
    let first = first.unwrap_or(0.5);
    if !(0.0..=1.0).contains(&first) {
        bail!("{name}: first is {first}, expected the first operand's share at a tie, from 0 to 1")
    }
    let [view, _] = check::broadcast(name, ("a", a), ("b", b))?;
    let larger = Elementwise::new(name, Larger { sign, first });
    larger.apply_broadcast([a, b], view.shape())
}

fn extreme(name: &'static str, x: &Tensor, dim: impl Dim, negated: bool) -> Result<Tensor> {
    check::tensor(name, "x", x)?;
    let (_, dim) = check::rows(name, x, dim)?;
    x.apply_op1(Extreme { name, dim, negated })
}

/// The largest element of each row, or of each row's negation.
#[derive(Clone, Copy)]
struct Extreme {
    name: &'static str,
    dim: usize,
    negated: bool,
}

/// Its gradient: of the argument and the result's gradient.
struct ExtremeGradient(Extreme);

impl CustomOp1 for Extreme {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu::largest(self.name, self.dim, self.negated, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::largest(self.name, self.dim, self.negated, storage, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(grad, &ExtremeGradient(*self)).map(Some)
    }
}

impl CustomOp2 for ExtremeGradient {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Extreme { name, dim, negated } = self.0;
        cpu::shares(name, dim, negated, (s1, l1), (s2, l2))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Extreme { name, dim, negated } = self.0;
        cuda::shares(name, dim, negated, (s1, l1), (s2, l2))
    }
}
