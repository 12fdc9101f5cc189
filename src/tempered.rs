//! Ops with a temperature: a number that they are applied with, or a tensor that candle hands over as one more argument. What
//! such an op computes is written once for both.

#[cfg(feature = "cuda")]
use crate::launch::Tau;
use crate::op::TauArg;
use crate::temperature::Checked;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// The temperatures of a backward pass.
#[derive(Clone, Copy)]
pub(crate) enum TauTensor<'a> {
    Fixed(f64),
    Rows(&'a Tensor),
}

impl TauTensor<'_> {
    pub(crate) fn is_tracked(self) -> bool {
        matches!(self, Self::Rows(tau) if tau.track_op())
    }
}

/// What a gradient is taken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The logits or scores.
    Input,
    Tau,
}

/// The gradients of the input and of the temperatures.
pub(crate) type Gradients = (Option<Tensor>, Option<Tensor>);

/// An op of one input and its temperatures.
pub(crate) trait Tempered: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    fn cpu(&self, input: (&CpuStorage, &Layout), tau: TauArg) -> Result<(CpuStorage, Shape)>;

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: (&CudaStorage, &Layout), tau: Tau) -> Result<(CudaStorage, Shape)>;

    /// The gradients of what tracks one.
    fn backward(
        &self,
        input: &Tensor,
        tau: TauTensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients>;
}

/// An op of two inputs and temperatures, without a gradient of its own: a backward pass.
pub(crate) trait TemperedPair: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    fn cpu(
        &self,
        a: (&CpuStorage, &Layout),
        b: (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)>;

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        a: (&CudaStorage, &Layout),
        b: (&CudaStorage, &Layout),
        tau: Tau,
    ) -> Result<(CudaStorage, Shape)>;
}

pub(crate) fn apply(input: &Tensor, tau: &Checked, op: impl Tempered) -> Result<Tensor> {
    match tau {
        Checked::Fixed(tau) => input.apply_op1(One { op, tau: *tau }),
        Checked::Rows(tau) => input.apply_op2(tau, One { op, tau: f64::NAN }),
    }
}

/// The op's result without its place in a graph.
pub(crate) fn apply_untracked(input: &Tensor, tau: TauTensor, op: impl Tempered) -> Result<Tensor> {
    match tau {
        TauTensor::Fixed(tau) => input.apply_op1_no_bwd(&One { op, tau }),
        TauTensor::Rows(tau) => input.apply_op2_no_bwd(tau, &One { op, tau: f64::NAN }),
    }
}

pub(crate) fn apply_pair(
    a: &Tensor,
    b: &Tensor,
    tau: TauTensor,
    op: impl TemperedPair,
) -> Result<Tensor> {
    match tau {
        TauTensor::Fixed(tau) => a.apply_op2_no_bwd(b, &Two { op, tau }),
        TauTensor::Rows(tau) => a.apply_op3_no_bwd(b, tau, &Two { op, tau: f64::NAN }),
    }
}

/// A pass for each target that tracks a gradient.
pub(crate) fn gradients(
    input: &Tensor,
    tau: TauTensor,
    to: impl Fn(Target) -> Result<Tensor>,
) -> Result<Gradients> {
    let wanted = |tracked: bool, target| tracked.then(|| to(target)).transpose();
    Ok((
        wanted(input.track_op(), Target::Input)?,
        wanted(tau.is_tracked(), Target::Tau)?,
    ))
}

struct One<O> {
    op: O,
    /// Not looked at where the temperatures are an argument.
    tau: f64,
}

impl<O: Tempered> CustomOp1 for One<O> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.op.cpu((storage, layout), TauArg::Fixed(self.tau))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.op.cuda((storage, layout), Tau::Fixed(self.tau))
    }

    fn bwd(&self, input: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let tau = TauTensor::Fixed(self.tau);
        Ok(self.op.backward(input, tau, res, grad)?.0)
    }
}

impl<O: Tempered> CustomOp2 for One<O> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.op.cpu((s1, l1), TauArg::Rows(s2, l2))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.op.cuda((s1, l1), Tau::Rows(s2, l2))
    }

    fn bwd(&self, input: &Tensor, tau: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Gradients> {
        self.op.backward(input, TauTensor::Rows(tau), res, grad)
    }
}

struct Two<O> {
    op: O,
    /// Not looked at where the temperatures are an argument.
    tau: f64,
}

impl<O: TemperedPair> CustomOp2 for Two<O> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.op.cpu((s1, l1), (s2, l2), TauArg::Fixed(self.tau))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.op.cuda((s1, l1), (s2, l2), Tau::Fixed(self.tau))
    }
}

impl<O: TemperedPair> CustomOp3 for Two<O> {
    fn name(&self) -> &'static str {
        self.op.name()
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
        self.op.cpu((s1, l1), (s2, l2), TauArg::Rows(s3, l3))
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
        self.op.cuda((s1, l1), (s2, l2), Tau::Rows(s3, l3))
    }
}
