//! The Gaussian reparameterization trick, and the divergence that goes with it.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
use crate::element::Element;
use crate::elementwise::Elementwise;
use crate::op::{by_dtype, dtype, rows_of, without};
use crate::rng::KeySource;
use crate::rowwise::Source;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// A sample of `N(mean, exp(log_var))`, differentiable in both: the reparameterization trick of the VAE.
///
/// * **Formula**: `z = mean + exp(log_var / 2) eps`, `eps = normal(mean.shape(), key)`, in one pass.
/// * **Shapes**: `mean` and `log_var` of one shape, any layout; the result has it too.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: error below 1e-6 (f32) or 4e-15 (f64) of `|mean| + exp(log_var / 2) |eps|`, while `|log_var|`
///   is below 160 (f32); a `log_var` of -inf gives `mean` exactly.
/// * **Gradient**: `g` to `mean`, `g exp(log_var / 2) eps / 2` to `log_var`, with `eps` drawn again from the key; nothing is
///   kept for it, and nothing computed for an argument that tracks no gradient.
/// * **Errors**: shapes, dtypes or devices that differ; a dtype that is not listed; a key whose stream is not below 2^63.
/// * **Source**: Kingma, Welling, arXiv 1312.6114.
/// * **PyTorch**: `torch.distributions.Normal(mean, (log_var / 2).exp()).rsample()`.
///
/// ```
/// use candle_reparam::{Key, gaussian};
/// use candle_core::{DType, Device, Var};
/// let mean = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let log_var = Var::zeros((64, 20), DType::F32, &Device::Cpu)?;
/// let z = gaussian(&mean, &log_var, Key::new(42, 0))?;
/// let grads = z.sqr()?.sum_all()?.backward()?;
/// assert!(grads.get(&mean).is_some() && grads.get(&log_var).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gaussian(mean: &Tensor, log_var: &Tensor, key: impl Into<KeySource>) -> Result<Tensor> {
    let (name, key) = ("gaussian", key.into());
    check::alike(name, ("mean", mean), ("log_var", log_var))?;
    check::key_source(name, &key, mean.device())?;
    Elementwise::keyed(name, cpu::Sample, key).apply([mean, log_var])
}

/// `KL(N(mean, exp(log_var)) || N(0, 1))` summed over `dim`: the VAE's regulariser, fused.
///
/// * **Formula**: `1/2 sum (mean^2 + exp(log_var) - 1 - log_var)`.
/// * **Shapes**: `mean` and `log_var` of one shape, any layout; the result is without `dim`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32 and rounded once.
/// * **Range and precision**: at least 0; relative error below 2e-6 (f32) or 1e-14 (f64), near the prior too, where
///   `exp(log_var) - 1 - log_var` is evaluated without cancellation.
/// * **Gradient**: `g mean` to `mean`, `g expm1(log_var) / 2` to `log_var`, each in one pass.
/// * **Errors**: shapes, dtypes or devices that differ; a dtype that is not listed; `dim` out of range or empty.
/// * **Source**: Kingma, Welling, arXiv 1312.6114, appendix B.
/// * **PyTorch**: `torch.distributions.kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0, 1)).sum(dim)`.
///
/// ```
/// use candle_reparam::gaussian_kl;
/// use candle_core::{D, Device, Tensor};
/// let mean = Tensor::new(&[[1f32, 0., 2.]], &Device::Cpu)?;
/// let kl = gaussian_kl(&mean, &mean.zeros_like()?, D::Minus1)?;
/// assert_eq!(kl.to_vec1::<f32>()?, [2.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gaussian_kl(mean: &Tensor, log_var: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let name = "gaussian_kl";
    check::alike(name, ("mean", mean), ("log_var", log_var))?;
    let (_, dim) = check::rows(name, mean, dim)?;
    mean.apply_op2(log_var, Divergence { name, dim })
}

struct Divergence {
    name: &'static str,
    dim: usize,
}

impl CustomOp2 for Divergence {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name, dtype(s1), E => {
            let (mean, log_var) = (Source::<E>::new(s1, l1)?, Source::<E>::new(s2, l2)?);
            let out = cpu::divergence(&mean, &log_var, rows_of(l1, self.dim));
            Ok((E::storage(out), without(l1, self.dim)))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::divergence(self.name, self.dim, (s1, l1), (s2, l2))
    }

    fn bwd(
        &self,
        mean: &Tensor,
        log_var: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // A view: each row's gradient stands for all of its elements.
        let grad = grad
            .detach()
            .unsqueeze(self.dim)?
            .broadcast_as(mean.shape())?;
        let op = Elementwise::new(self.name, cpu::MeanGradient);
        let to_mean = || op.gradient([mean, &grad]);
        let to_log_var = || op.with(cpu::LogVarGradient).gradient([log_var, &grad]);
        Ok((
            mean.track_op().then(to_mean).transpose()?,
            log_var.track_op().then(to_log_var).transpose()?,
        ))
    }
}
