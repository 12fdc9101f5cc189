//! Which rows have nothing to draw from.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::shape::Dim;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Which rows over `dim` have nothing to draw from: 1 where a row is all -inf or holds NaN or +inf, else 0.
///
/// On the CPU, [`gumbel_max`](crate::gumbel_max) and [`categorical`](crate::categorical) return an error for such a row. On a
/// CUDA device they return the index 0 for it, since an error would make every call wait for the device; this function finds
/// such rows there, when it suits the program.
///
/// * **Formula**: `!(-inf < max x < +inf)`, with a NaN counted as +inf.
/// * **Shapes**: any rank from 1, any layout; the result is u8, without `dim`.
/// * **Dtypes**: f32, f64, f16 and bf16.
/// * **Gradient**: none.
/// * **Errors**: a dtype that is not listed; `dim` out of range or empty.
/// * **PyTorch**: `~torch.isfinite(logits.amax(dim))`.
///
/// ```
/// use candle_reparam::improper_rows;
/// use candle_core::{D, Device, Tensor};
/// let (mask, nan) = (f32::NEG_INFINITY, f32::NAN);
/// let logits = Tensor::new(&[[0., mask], [mask, mask], [nan, 0.]], &Device::Cpu)?;
/// assert_eq!(improper_rows(&logits, D::Minus1)?.to_vec1::<u8>()?, [0, 1, 1]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn improper_rows(logits: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let name = "improper_rows";
    check::tensor(name, "logits", logits)?;
    let (_, dim) = check::rows(name, logits, dim)?;
    logits.apply_op1_no_bwd(&ImproperRows { name, dim })
}

struct ImproperRows {
    name: &'static str,
    dim: usize,
}

impl CustomOp1 for ImproperRows {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu::forward(self.name, self.dim, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self.name, self.dim, storage, layout)
    }
}
