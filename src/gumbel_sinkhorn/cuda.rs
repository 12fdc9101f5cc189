use super::{Sinkhorn, matrices_of, tau_shape};
use crate::launch::{Context, Grid, KeyArg, KeyStorage, Tau};
use crate::tempered::Target;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, bail};

const MODULE: &str = "gumbel_sinkhorn";
/// Vectors of a side that the kernels work with, as there.
const VECTORS: usize = 10;

fn context(op: &Sinkhorn, (storage, layout): (&CudaStorage, &Layout)) -> Context {
    let (dtype, device) = (storage.dtype(), storage.device());
    Context::new(op.name, MODULE, dtype, layout.shape(), device)
}

fn key(op: &Sinkhorn) -> Result<KeyStorage<'_>> {
    match &op.key {
        Some(key) => KeyStorage::new(op.name, key),
        None => Ok(KeyStorage::Value(KeyArg::default())),
    }
}

/// How the matrices of a launch are worked on.
struct Plan {
    count: usize,
    n: usize,
    /// Whether a block holds its matrices in shared memory.
    shared: bool,
    /// Values of scratch for each matrix.
    room: usize,
}

impl Plan {
    fn new(op: &Sinkhorn, context: &Context, layout: &Layout, back: bool) -> Result<Self> {
        let (count, n) = matrices_of(layout);
        // Elements of a matrix are counted in 32 bits.
        if n > 0xFFFF {
            bail!(
                "{}: shape {:?} is too large, the CUDA kernels take matrices of up to 65535 rows",
                op.name,
                layout.dims()
            )
        }
        let side = if context.wide() == DType::F64 { 48 } else { 64 };
        let shared = n <= side;
        // The scores, which are all that the assignment keeps here, and what shared memory has no room for.
        let mut room = n * n;
        let iterates = back || !op.hard;
        if iterates && !shared {
            room += VECTORS * n + n * n;
        }
        if back {
            room += n * n + if shared { 0 } else { n * n };
            room += 2 * op.iterations * (n + 5 * n + 1);
        }
        Ok(Self {
            count,
            n,
            shared,
            room,
        })
    }

    fn scratch(&self, op: &Sinkhorn, context: &Context) -> Result<CudaStorage> {
        let fits = self.count.checked_mul(self.room);
        let Some(values) = fits.filter(|v| *v < isize::MAX as usize / 8) else {
            bail!(
                "{}: {} matrices of {} rows over {} iterations need more scratch than can be addressed",
                op.name,
                self.count,
                self.n,
                op.iterations
            )
        };
        context.output(context.wide(), values)
    }

    /// By the size of a matrix and nothing else, so that a matrix's result does not depend on how many others there are.
    fn grid(&self) -> Grid {
        let x = match self.n {
            0..=8 => 32,
            9..=16 => 64,
            17..=32 => 128,
            _ => 256,
        };
        Grid {
            blocks: self.count,
            x,
            y: 1,
        }
    }

    fn suffix(&self) -> &'static str {
        if self.shared { "shared" } else { "global" }
    }
}

pub(super) fn forward(
    op: &Sinkhorn,
    input: (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let context = context(op, input);
    let (layout, shape) = (input.1, input.1.shape().clone());
    let mut out = context.output(input.0.dtype(), shape.elem_count())?;
    let plan = Plan::new(op, &context, layout, false)?;
    if plan.count == 0 {
        return Ok((out, shape));
    }
    let mut scratch = plan.scratch(op, &context)?;
    let mut vectors = None;
    if op.hard {
        vectors = Some(context.scratch(plan.count * 5 * plan.n)?);
    }
    let key = key(op)?;
    let mut args = context.args();
    args.input(input, None)?;
    args.output(&mut scratch)?;
    if let Some(vectors) = &mut vectors {
        args.output(vectors)?;
    }
    args.output(&mut out)?;
    args.number(plan.n)?;
    args.number(op.iterations)?;
    args.number(usize::from(op.key.is_some()))?;
    args.count(plan.room);
    if op.hard {
        args.key(&key)?;
        args.launch("gumbel_sinkhorn_st", plan.grid())?;
    } else {
        args.tau(tau, shape.rank() - 1)?;
        args.key(&key)?;
        let name = format!("gumbel_sinkhorn_{}", plan.suffix());
        args.launch(&name, plan.grid())?;
    }
    Ok((out, shape))
}

pub(super) fn gradient(
    op: &Sinkhorn,
    target: Target,
    input: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let context = context(op, input);
    let layout = input.1;
    let plan = Plan::new(op, &context, layout, true)?;
    let (name, mut out, shape) = match target {
        Target::Input => {
            let out = context.output(input.0.dtype(), layout.shape().elem_count())?;
            ("gradient", out, layout.shape().clone())
        }
        Target::Tau => {
            let out = context.output(context.wide(), plan.count)?;
            ("tau", out, tau_shape(layout))
        }
    };
    if plan.count == 0 {
        return Ok((out, shape));
    }
    let mut scratch = plan.scratch(op, &context)?;
    let key = key(op)?;
    let mut args = context.args();
    args.input(input, None)?;
    args.input(grad, None)?;
    args.output(&mut scratch)?;
    args.output(&mut out)?;
    args.number(plan.n)?;
    args.number(op.iterations)?;
    args.number(usize::from(op.key.is_some()))?;
    args.count(plan.room);
    args.tau(tau, layout.shape().rank() - 1)?;
    args.key(&key)?;
    let name = format!("gumbel_sinkhorn_{name}_{}", plan.suffix());
    args.launch(&name, plan.grid())?;
    Ok((out, shape))
}
