use crate::backward::Family;
use crate::launch::{Context, Forward, Tau, softmax};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &'static str,
    family: Family,
    dim: usize,
    (storage, layout): (&CudaStorage, &Layout),
    tau: Tau,
) -> Result<(CudaStorage, Shape)> {
    let context = Context::new(
        name,
        "tempered_softmax",
        storage.dtype(),
        layout.shape(),
        storage.device(),
    );
    let kernels = Forward {
        name: match family {
            Family::Softmax => "tempered_softmax",
            Family::LogSoftmax => "tempered_log_softmax",
        },
        pieces: "tempered_softmax_pieces",
        threads: 1024,
    };
    let out = softmax(&context, kernels, (storage, layout), dim, tau, None)?;
    Ok((out, layout.shape().clone()))
}
