use crate::backward::Family;
use crate::element::Element;
use crate::op::{TauArg, by_dtype, dtype, rows_of};
use crate::rowwise::{Form, Plain, Source, softmax};
use candle_core::{CpuStorage, Layout, Result, Shape};

pub(super) fn forward(
    name: &str,
    family: Family,
    dim: usize,
    storage: &CpuStorage,
    layout: &Layout,
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    let form = match family {
        Family::Softmax => Form::Softmax,
        Family::LogSoftmax => Form::LogSoftmax,
    };
    by_dtype!(name, dtype(storage), E => {
        let scores = Plain(Source::<E>::new(storage, layout)?);
        let out = softmax(&scores, &tau.typed::<E>()?, rows_of(layout, dim), form);
        Ok((E::storage(out), layout.shape().clone()))
    })
}
