//! The backward pass of the softmax family as custom ops: from a result, its gradient and the temperatures to the
//! gradients of logits and temperatures.

use crate::element::Element;
#[cfg(feature = "cuda")]
use crate::launch::{self, Operand, Tau};
use crate::op::{TauArg, by_dtype, dtype, rows_of};
use crate::rowwise::{
    Gradient, LogSoftmaxGradient, SoftmaxGradient, Source, gradient, tau_gradient,
};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// Which member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Softmax,
    LogSoftmax,
}

/// The temperatures of a backward pass.
#[derive(Clone, Copy)]
pub(crate) enum TauTensor<'a> {
    Fixed(f64),
    Rows(&'a Tensor),
}

/// What a backward kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Logits,
    Tau,
}

#[derive(Clone, Copy, Debug)]
struct Backward {
    name: &'static str,
    family: Family,
    target: Target,
    dim: usize,
    /// Not looked at where the temperatures are a third argument.
    tau: f64,
}

/// The gradient of the logits. `result` and `grad` are the forward's and that of its gradient.
pub(crate) fn logits_gradient(
    name: &'static str,
    family: Family,
    dim: usize,
    (result, grad): (&Tensor, &Tensor),
    tau: TauTensor,
) -> Result<Tensor> {
    run(name, family, Target::Logits, dim, (result, grad), tau)
}

/// The gradient of the temperature of each row.
pub(crate) fn rows_tau_gradient(
    name: &'static str,
    family: Family,
    dim: usize,
    (result, grad): (&Tensor, &Tensor),
    tau: &Tensor,
) -> Result<Tensor> {
    run(
        name,
        family,
        Target::Tau,
        dim,
        (result, grad),
        TauTensor::Rows(tau),
    )
}

fn run(
    name: &'static str,
    family: Family,
    target: Target,
    dim: usize,
    (result, grad): (&Tensor, &Tensor),
    tau: TauTensor,
) -> Result<Tensor> {
    let op = |tau| Backward {
        name,
        family,
        target,
        dim,
        tau,
    };
    match tau {
        TauTensor::Fixed(tau) => result.apply_op2_no_bwd(grad, &op(tau)),
        TauTensor::Rows(tau) => result.apply_op3_no_bwd(grad, tau, &op(f64::NAN)),
    }
}

impl Backward {
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
                Target::Logits => {
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
            Target::Logits => {
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

impl CustomOp2 for Backward {
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
        self.cpu((s1, l1), (s2, l2), TauArg::Fixed(self.tau))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda((s1, l1), (s2, l2), Tau::Fixed(self.tau))
    }
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu((s1, l1), (s2, l2), TauArg::Rows(s3, l3))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda((s1, l1), (s2, l2), Tau::Rows(s3, l3))
    }
}
