use anyhow::{Result, ensure};
use candle_core::Tensor;
use candle_reparam::{Key, gumbel, gumbel_softmax, gumbel_softmax_st};

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::SHAPES,
    suite::Suite,
    verify,
};

const TAU: f64 = 0.7;
/// The draw that is verified.
const KEY: Key = Key::new(7, 3);

const RELAXED: Op = Op {
    name: "gumbel_softmax",
    baseline: "rand, log, neg, log, ops::softmax",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_softmax(&x[0], TAU, DIM, key),
    plain: |x| plain::gumbel_softmax(&x[0], TAU),
    forward: Pass {
        moves: |shape| 2 * shape.elements(),
        verify: |x| {
            let got = gumbel_softmax(&x[0], TAU, DIM, KEY)?;
            verify::forward(&got, &[noisy(&x[0])?], |x| {
                plain::tempered_softmax(&x[0], TAU)
            })
        },
    },
    backward: Some(Pass {
        moves: |shape| 3 * shape.elements(),
        verify: |x| verify_gradient(x, |x| gumbel_softmax(&x[0], TAU, DIM, KEY)),
    }),
};

const STRAIGHT_THROUGH: Op = Op {
    name: "gumbel_softmax_st",
    baseline: "the same, arg-max, scatter",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_softmax_st(&x[0], TAU, DIM, key),
    plain: |x| plain::gumbel_softmax_st(&x[0], TAU),
    forward: Pass {
        moves: |shape| 2 * shape.elements(),
        verify: |x| {
            let got = gumbel_softmax_st(&x[0], TAU, DIM, KEY)?.to_vec2::<f32>()?;
            let want = verify::argmax(&noisy(&x[0])?)?;
            for (row, (got, want)) in got.iter().zip(want).enumerate() {
                for (i, y) in got.iter().enumerate() {
                    let want = if i == want as usize { 1. } else { 0. };
                    ensure!(*y == want, "row {row}, element {i} is {y}, not {want}");
                }
            }
            Ok(())
        },
    },
    backward: Some(Pass {
        // Reads logits and gradient twice (the row's sum of exponentials, then the gradient), writes the gradient;
        // counted is what cannot be avoided: each once.
        moves: |shape| 3 * shape.elements(),
        verify: |x| verify_gradient(x, |x| gumbel_softmax_st(&x[0], TAU, DIM, KEY)),
    }),
};

/// logits + noise, with the noise of [`KEY`].
fn noisy(logits: &Tensor) -> candle_core::Result<Tensor> {
    logits + gumbel(logits.shape(), logits.dtype(), logits.device(), KEY)?
}

/// Both estimators have the gradient of the relaxed sample at the same noise.
fn verify_gradient(
    inputs: &[Tensor],
    op: fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let x = &inputs[0];
    let noise = gumbel(x.shape(), x.dtype(), x.device(), KEY)?;
    verify::gradient(inputs, &[noise], op, |x| {
        plain::tempered_softmax(&(&x[0] + &x[1])?, TAU)
    })
}

pub fn bench(suite: &mut Suite) {
    RELAXED.bench(suite, &SHAPES);
    STRAIGHT_THROUGH.bench(suite, &SHAPES);
}
