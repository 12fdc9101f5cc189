use anyhow::Result;
use candle_core::{D, Tensor};
use candle_nn::ops;
use candle_reparam::{Key, gumbel, gumbel_max, reinmax};

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::{S64X32000, S512X4096, S4096X10, S4096X32, S4096X256, Shape},
    suite::Suite,
    verify,
};

const TAU: f64 = 1.0;
/// The draw that is verified.
const KEY: Key = Key::new(7, 11);
const SHAPES: [Shape; 5] = [S4096X10, S4096X32, S4096X256, S512X4096, S64X32000];

const REINMAX: Op = Op {
    name: "reinmax",
    baseline: "rand, arg-max, scatter, two softmaxes",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| reinmax(&x[0], TAU, DIM, key),
    plain: |x| {
        let drawn = plain::drawn_one_hot(&x[0], &plain::gumbel_like(&x[0])?)?;
        composed(&x[0], &drawn)
    },
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| verify_draw(&x[0]),
    },
    backward: Some(Pass {
        // Logits, one-hot and gradient in, the logits' gradient out.
        moves: |shape, size| 4 * shape.elements() * size,
        verify: |x| {
            let drawn = plain::drawn_one_hot(&x[0], &noise(&x[0])?)?;
            let op = |x: &[Tensor]| reinmax(&x[0], TAU, DIM, KEY);
            verify::gradient(x, &[drawn], op, |x| composed(&x[0], &x[1]))
        },
    }),
};

/// As in the authors' own PyTorch code: a surrogate whose gradient is ReinMax's and whose value is the one-hot.
fn composed(logits: &Tensor, drawn: &Tensor) -> candle_core::Result<Tensor> {
    let pi = ops::softmax(logits, D::Minus1)?;
    let q = plain::tempered_softmax(logits, TAU)?;
    let s = ((q + drawn)? / 2.)?.detach();
    // softmax(ln s + logits - detach(logits)) is s, with the Jacobian of s.
    let shifted = (s.log()? + (logits - logits.detach())?)?;
    let first = (ops::softmax(&shifted, D::Minus1)? * 2.)?;
    let surrogate = (first - (pi * 0.5)?)?;
    (&surrogate - surrogate.detach())? + drawn
}

/// The noise of [`KEY`], as the op draws it.
fn noise(logits: &Tensor) -> candle_core::Result<Tensor> {
    gumbel(
        logits.shape(),
        candle_core::DType::F32,
        logits.device(),
        KEY,
    )?
    .to_dtype(logits.dtype())
}

fn verify_draw(x: &Tensor) -> Result<()> {
    let hot = reinmax(x, TAU, DIM, KEY)?.argmax(DIM)?.to_vec1::<u32>()?;
    let want = gumbel_max(x, DIM, KEY)?.to_vec1::<u32>()?;
    anyhow::ensure!(hot == want, "the one-hot is not that of gumbel_max");
    Ok(())
}

pub fn bench(suite: &mut Suite) {
    REINMAX.bench(suite, &SHAPES);
}
