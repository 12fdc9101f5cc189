use crate::check;
use crate::launch::{Context, KeyStorage, over_groups};
use crate::rng::KeySource;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Result, Shape, Storage, Tensor};

pub(super) fn draw(
    name: &'static str,
    shape: Shape,
    dtype: DType,
    device: &CudaDevice,
    key: &KeySource,
) -> Result<Tensor> {
    check::dtype(name, "the result", dtype)?;
    let context = Context::new(name, "noise", dtype, &shape, device);
    let n = shape.elem_count();
    let mut out = context.output(dtype, n)?;
    if n > 0 {
        let key = KeyStorage::new(name, key)?;
        let mut args = context.args();
        args.output(&mut out)?;
        args.count(n);
        args.key(&key)?;
        args.launch(name, over_groups(n, context.group(), context.processors()?))?;
    }
    let storage = Storage::Cuda(out);
    Ok(Tensor::from_storage(
        storage,
        shape,
        BackpropOp::none(),
        false,
    ))
}
