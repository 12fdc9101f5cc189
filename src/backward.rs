//! The backward pass of the softmax family: from a result, its gradient and the temperatures to the
//! gradients of logits and temperatures.

use crate::element::Element;
#[cfg(feature = "cuda")]
use crate::launch::{self, Operand, Tau};
use crate::op::{TauArg, by_dtype, dtype, rows_of};
use crate::rowwise::{
    Gradient, LogSoftmaxGradient, SoftmaxGradient, Source, gradient, tau_gradient,
};
use crate::tempered::{Target, TauTensor, TemperedPair, apply_pair};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// Which member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Softmax,
    LogSoftmax,
}

#[derive(Clone, Copy, Debug)]
struct Backward {
    name: &'static str,
    family: Family,
    target: Target,
    dim: usize,
}

/// The gradient of the logits, or of the temperature of each row. `result` and `grad` are the forward's and that of its
/// gradient.
pub(crate) fn softmax_gradient(
    name: &'static str,
    family: Family,
    dim: usize,
    (result, grad): (&Tensor, &Tensor),
    tau: TauTensor,
    target: Target,
) -> Result<Tensor> {
    let op = Backward {
        name,
        family,
        target,
        dim,
    };
    apply_pair(result, grad, tau, op)
}

impl Backward {
    fn typed<G: Gradient>(
        &self,
        formulas: G,
        (result, result_layout): (&CpuStorage, &Layout),
        (grad, grad_layout): (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        let rows = rows_of(result_layout, self.dim);
        by_dtype!(self.name, dtype(result), E => {
            let a = Source::<E>::new(result, result_layout)?;
            let g = Source::<E>::new(grad, grad_layout)?;
            let tau = tau.typed::<E>()?;
            Ok(match self.target {
                Target::Input => {
                    let out = gradient(formulas, &a, &g, &tau, rows);
                    (E::storage(out), result_layout.shape().clone())
                }
                Target::Tau => {
                    let out = tau_gradient(formulas, &a, &g, &tau, rows);
                    (<E as Element>::Wide::storage(out), self.tau_shape(result_layout))
                }
            })
        })
    }

    /// One element a row.
    fn tau_shape(&self, layout: &Layout) -> Shape {
        let mut shape = layout.dims().to_vec();
        shape[self.dim] = 1;
        shape.into()
    }
}

impl TemperedPair for Backward {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu(
        &self,
        (result, result_layout): (&CpuStorage, &Layout),
        (grad, grad_layout): (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        match self.family {
            Family::Softmax => self.typed(
                SoftmaxGradient,
                (result, result_layout),
                (grad, grad_layout),
                tau,
            ),
            Family::LogSoftmax => self.typed(
                LogSoftmaxGradient,
                (result, result_layout),
                (grad, grad_layout),
                tau,
            ),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        result: (&CudaStorage, &Layout),
        grad: (&CudaStorage, &Layout),
        tau: Tau,
    ) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = result;
        let (dtype, device) = (storage.dtype(), storage.device());
        let module = "softmax_gradient";
        let context = launch::Context::new(self.name, module, dtype, layout.shape(), device);
        match self.target {
            Target::Input => {
                let operand = Operand::Tensor(storage, layout);
                let out = launch::gradient(&context, self.family, operand, grad, self.dim, tau)?;
                Ok((out, layout.shape().clone()))
            }
            Target::Tau => {
                let out = launch::tau_gradient(&context, self.family, result, grad, self.dim, tau)?;
                Ok((out, self.tau_shape(layout)))
            }
        }
    }
}
