use crate::backward::Family;
use crate::launch::{Context, Forward, KeyStorage, Operand, Tau, gradient, held_path, softmax};
use crate::rng::KeySource;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

const MODULE: &str = "gumbel_softmax";
const KERNELS: Forward = Forward {
    name: "gumbel_softmax",
    pieces: "gumbel_softmax_pieces",
    threads: 512,
};

fn context(name: &'static str, (storage, layout): (&CudaStorage, &Layout)) -> Context {
    let (dtype, device) = (storage.dtype(), storage.device());
    Context::new(name, MODULE, dtype, layout.shape(), device)
}

pub(super) fn relaxed(
    name: &'static str,
    dim: usize,
    key: &KeySource,
    input: (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let key = KeyStorage::new(name, key)?;
    let out = softmax(&context(name, input), KERNELS, input, dim, tau, Some(&key))?;
    Ok((out, input.1.shape().clone()))
}

/// The gradient of the relaxed sample. Rows that a block holds are drawn and finished in registers; for others the sample is
/// drawn into the output and replaced there.
pub(super) fn straight_through(
    name: &'static str,
    dim: usize,
    key: &KeySource,
    input: (&CudaStorage, &Layout),
    grad: (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let context = context(name, input);
    let key = KeyStorage::new(name, key)?;
    let shape = input.1.shape().clone();
    let Some((path, rows)) = held_path(&context, KERNELS, &shape, dim) else {
        let drawn = softmax(&context, KERNELS, input, dim, tau, Some(&key))?;
        let result = Operand::InOutput(drawn, input.1);
        let out = gradient(&context, Family::Softmax, result, grad, dim, tau)?;
        return Ok((out, shape));
    };
    let mut out = context.output(input.0.dtype(), rows.elements())?;
    let mut args = context.args();
    args.input(input, Some(dim))?;
    args.input(grad, Some(dim))?;
    args.output(&mut out)?;
    args.rows(rows);
    args.tau(tau, dim)?;
    args.key(&key)?;
    let grid = path.grid(rows, context.group());
    args.finish("gumbel_softmax_st_gradient", path, grid)?;
    Ok((out, shape))
}
