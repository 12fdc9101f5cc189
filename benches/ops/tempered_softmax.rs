use candle_reparam::{tempered_log_softmax, tempered_softmax};

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::SHAPES,
    suite::Suite,
    verify,
};

const TAU: f64 = 0.7;

const SOFTMAX: Op = Op {
    name: "tempered_softmax",
    baseline: "ops::softmax(x / tau)",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, _| tempered_softmax(&x[0], TAU, DIM),
    plain: |x| plain::tempered_softmax(&x[0], TAU),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| verify::forward(&tempered_softmax(&x[0], TAU, DIM)?, x, SOFTMAX.plain),
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[_]| tempered_softmax(&x[0], TAU, DIM);
            verify::gradient(x, &[], op, SOFTMAX.plain)
        },
    }),
};

const LOG_SOFTMAX: Op = Op {
    name: "tempered_log_softmax",
    baseline: "ops::log_softmax(x / tau)",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, _| tempered_log_softmax(&x[0], TAU, DIM),
    plain: |x| plain::tempered_log_softmax(&x[0], TAU),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            verify::forward(
                &tempered_log_softmax(&x[0], TAU, DIM)?,
                x,
                LOG_SOFTMAX.plain,
            )
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[_]| tempered_log_softmax(&x[0], TAU, DIM);
            verify::gradient(x, &[], op, LOG_SOFTMAX.plain)
        },
    }),
};

pub fn bench(suite: &mut Suite) {
    SOFTMAX.bench(suite, &SHAPES);
    LOG_SOFTMAX.bench(suite, &SHAPES);
}
