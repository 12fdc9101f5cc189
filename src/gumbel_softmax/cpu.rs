use crate::element::Element;
use crate::op::{TauArg, by_dtype, dtype, rows_of};
use crate::rng::{Key, Stream};
use crate::rowwise::{
    Form, Perturbed, Rows, SoftmaxGradient, Source, argmax, gradient_into, softmax,
};
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

pub(super) fn one_hot(
    name: &str,
    dim: usize,
    key: Key,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let rows = rows_of(layout, dim);
        let winners = argmax(&perturbed::<E>(key, storage, layout)?, rows);
        Ok((E::storage(scatter::<E>(&winners, rows)), layout.shape().clone()))
    })
}

/// The one-hots of the rows; NaN in a row without a winner.
fn scatter<E: Element>(winners: &[Option<u32>], rows: Rows) -> Vec<E> {
    let Rows { len, inner, .. } = rows;
    let mut out = vec![E::default(); rows.elements()];
    for (row, winner) in winners.iter().enumerate() {
        let first = row / inner * len * inner + row % inner;
        match winner {
            Some(index) => out[first + *index as usize * inner] = E::round(1.0),
            None => (0..len).for_each(|k| out[first + k * inner] = E::round(f64::NAN)),
        }
    }
    out
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
