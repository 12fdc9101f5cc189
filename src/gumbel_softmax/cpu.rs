use crate::element::Element;
use crate::op::{TauArg, by_dtype, dtype, rows_of};
use crate::rng::{Key, Stream};
use crate::rowwise::{Form, Perturbed, SoftmaxGradient, Source, gradient_into, softmax};
use candle_core::{CpuStorage, Layout, Result, Shape};

fn perturbed<'a, E: Element>(
    key: Key,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<Perturbed<'a, E>> {
    Ok(Perturbed {
        logits: Source::new(storage, layout)?,
        stream: Stream::new(key),
    })
}

pub(super) fn relaxed(
    name: &str,
    dim: usize,
    key: Key,
    storage: &CpuStorage,
    layout: &Layout,
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let scores = perturbed::<E>(key, storage, layout)?;
        let rows = rows_of(layout, dim);
        let out = softmax(&scores, &tau.typed::<E>()?, rows, Form::Softmax);
        Ok((E::storage(out), layout.shape().clone()))
    })
}

/// The gradient of the relaxed sample, which is drawn into the output and replaced there.
pub(super) fn straight_through(
    name: &str,
    dim: usize,
    key: Key,
    (logits, layout): (&CpuStorage, &Layout),
    (grad, grad_layout): (&CpuStorage, &Layout),
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(logits), E => {
        let scores = perturbed::<E>(key, logits, layout)?;
        let (rows, tau) = (rows_of(layout, dim), tau.typed::<E>()?);
        let grad = Source::<E>::new(grad, grad_layout)?;
        let mut out = softmax(&scores, &tau, rows, Form::Softmax);
        gradient_into(SoftmaxGradient, None, &mut out, &grad, &tau, rows);
        Ok((E::storage(out), layout.shape().clone()))
    })
}
