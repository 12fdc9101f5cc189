//! The relaxed k-hot of a sample without replacement, and its straight-through form.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod iterate;

use crate::check;
#[cfg(feature = "cuda")]
use crate::launch::Tau;
use crate::op::TauArg;
use crate::rng::KeySource;
use crate::temperature::Temperature;
use crate::tempered::{
    Gradients, Target, TauTensor, Tempered, TemperedPair, apply, apply_pair, gradients,
};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// A relaxed sample of `k` classes without replacement, as a k-hot: the sum of `k` softmaxes over `dim`, each of which
/// leaves little of the class that it chose to those after it.
///
/// * **Formula**: `w = logits + gumbel(logits.shape(), key)`; then `k` times `a = softmax(w / tau)`, `y += a`,
///   `w += ln(1 - a)`, at fixed noise. No floor is needed under `ln(1 - a)`: for the largest class it is taken from the sum
///   of the others, counted from the second largest, and so stays exact where `1 - a` underflows.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: not negative, of sum `k`; within 2e-6 (f32) or 1e-14 (f64) of the row's largest value for each
///   iteration, given `logits + g` rounded to the dtype it is computed in. As `tau` falls it tends to the k-hot of
///   [`gumbel_top_k`](crate::gumbel_top_k) under the same key; for `tau` near 1 and above, a class far ahead of the others may
///   be chosen more than once, and its entry exceed 1: that is the formula's own. With `k` of 1 it is
///   [`gumbel_softmax`](crate::gumbel_softmax). A logit of -inf is a mask: 0, gradient 0. A row with fewer than `k` others, or
///   with NaN or +inf, is NaN, and no other row is.
/// * **Gradient**: through the iterations, at fixed noise, to the logits and to a `tau` tensor; each is a pass of its own over
///   the iterations, which are drawn and computed again. Nothing is kept for it. Scratch: `k + 5` values for each element of
///   the rows that are at work: on the CPU, one for each thread, or some thousand elements of shorter ones; on a CUDA device,
///   as many as 256 MiB hold, and one block's at least. Time: `k` softmaxes forward, about half as much again backward.
/// * **Errors**: `k` of 0 or above the size of `dim`; `tau` not finite or not above 0, or of a shape, dtype or device that
///   does not fit; a dtype that is not listed; `dim` out of range or empty; a key whose stream is not below 2^63.
/// * **Source**: Xie, Ermon, "Reparameterizable subset sampling via continuous relaxations", arXiv 1901.10517.
/// * **PyTorch**: `SubsetOperator(k, tau)` of the paper's code, with a floor of 1.2e-38 under `1 - a` there.
///
/// ```
/// use candle_reparam::{Rng, relaxed_top_k};
/// use candle_core::{D, DType, Device, Var};
/// let rng = Rng::new(42);
/// let logits = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let y = relaxed_top_k(&logits, 5, 0.1, D::Minus1, rng.next_key())?;
/// let sums = y.sum(D::Minus1)?.to_vec1::<f32>()?;
/// assert!(sums.iter().all(|sum| (sum - 5.0).abs() < 1e-4));
/// assert!(y.sqr()?.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relaxed_top_k(
    logits: &Tensor,
    k: usize,
    tau: impl Into<Temperature>,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let name = "relaxed_top_k";
    run(name, false, logits, k, tau.into(), dim, key.into())
}

/// A k-hot sample of `k` classes without replacement with the gradient of its relaxation: straight-through Gumbel-top-k.
///
/// * **Formula**: forward, the k-hot of `gumbel_top_k(logits, k, dim, key)`, an exact sample without replacement; backward,
///   the gradient of `relaxed_top_k(logits, k, tau, dim, key)`: the same noise, drawn again from the key.
/// * **Shapes**: any rank from 1, any layout; the result has the shape, dtype and device of `logits`.
/// * **Dtypes**: f32, f64, f16 and bf16.
/// * **Range and precision**: exactly 0 and 1, `k` ones a row, at the indices of [`gumbel_top_k`](crate::gumbel_top_k). A logit
///   of -inf is never drawn. A row with fewer than `k` others, or with NaN or +inf, is NaN, and no other row is.
/// * **Gradient**: that of [`relaxed_top_k`] at the same noise, bit for bit, to the logits and to a `tau` tensor; biased with
///   respect to the k-hot's own expectation, the less so the smaller `tau`. Nothing is kept for it.
/// * **Errors**: as for [`relaxed_top_k`].
/// * **Source**: Xie, Ermon, arXiv 1901.10517; Bengio, Léonard, Courville, arXiv 1308.3432.
/// * **PyTorch**: `SubsetOperator(k, tau, hard=True)` of the former's code.
///
/// ```
/// use candle_reparam::{Key, gumbel_top_k_st};
/// use candle_core::{D, DType, Device, Var};
/// let logits = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let k_hot = gumbel_top_k_st(&logits, 5, 0.5, D::Minus1, Key::new(42, 0))?;
/// assert_eq!(k_hot.sum(D::Minus1)?.to_vec1::<f32>()?, [5.0; 64]);
/// assert!(k_hot.sum_all()?.backward()?.get(&logits).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_top_k_st(
    logits: &Tensor,
    k: usize,
    tau: impl Into<Temperature>,
    dim: impl Dim,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let name = "gumbel_top_k_st";
    run(name, true, logits, k, tau.into(), dim, key.into())
}

fn run(
    name: &'static str,
    hard: bool,
    logits: &Tensor,
    k: usize,
    tau: Temperature,
    dim: impl Dim,
    key: KeySource,
) -> Result<Tensor> {
    check::tensor(name, "logits", logits)?;
    check::key_source(name, &key, logits.device())?;
    let (_, dim) = check::drawn_rows(name, logits, k, dim)?;
    let tau = tau.check(name, logits, dim)?;
    let op = RelaxedTopK {
        name,
        hard,
        k,
        dim,
        key,
    };
    apply(logits, &tau, op)
}

#[derive(Clone)]
struct RelaxedTopK {
    name: &'static str,
    /// Whether the forward result is the k-hot.
    hard: bool,
    k: usize,
    dim: usize,
    key: KeySource,
}

impl Tempered for RelaxedTopK {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu(&self, input: (&CpuStorage, &Layout), tau: TauArg) -> Result<(CpuStorage, Shape)> {
        let (size, key) = ((self.k, self.dim), self.key.now()?);
        if self.hard {
            cpu::k_hot(self.name, size, key, input)
        } else {
            cpu::relaxed(self.name, size, key, input, tau)
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: (&CudaStorage, &Layout), tau: Tau) -> Result<(CudaStorage, Shape)> {
        let size = (self.k, self.dim);
        if self.hard {
            cuda::k_hot(self.name, size, &self.key, input)
        } else {
            cuda::relaxed(self.name, size, &self.key, input, tau)
        }
    }

    fn backward(
        &self,
        logits: &Tensor,
        tau: TauTensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        gradients(logits, tau, |target| {
            let op = self.clone();
            apply_pair(logits, grad, tau, Backward { op, target })
        })
    }
}

/// The gradient of the logits, or of each row's temperature: from the logits, their noise and the result's gradient.
struct Backward {
    op: RelaxedTopK,
    target: Target,
}

impl TemperedPair for Backward {
    fn name(&self) -> &'static str {
        self.op.name
    }

    fn cpu(
        &self,
        input: (&CpuStorage, &Layout),
        grad: (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        let RelaxedTopK { name, k, dim, .. } = self.op;
        let key = self.op.key.now()?;
        let to_tau = self.target == Target::Tau;
        cpu::gradient(name, (k, dim), key, input, grad, tau, to_tau)
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        input: (&CudaStorage, &Layout),
        grad: (&CudaStorage, &Layout),
        tau: Tau,
    ) -> Result<(CudaStorage, Shape)> {
        let RelaxedTopK { name, k, dim, .. } = self.op;
        let to_tau = self.target == Target::Tau;
        cuda::gradient(name, (k, dim), &self.op.key, input, grad, tau, to_tau)
    }
}
