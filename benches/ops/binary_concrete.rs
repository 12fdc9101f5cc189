use candle_core::{DType, Tensor};
use candle_reparam::{
    Key, Stretch, binary_concrete, binary_concrete_st, hard_concrete, hard_concrete_l0, logistic,
};

use crate::support::{
    logits,
    op::{Op, Pass},
    plain,
    shapes::{S1024X4096, S4096X256, Shape},
    suite::Suite,
    verify,
};

/// The draw that is verified.
const KEY: Key = Key::new(7, 8);
/// One whose samples are further from the clamp than rounding is, on either side of which the gradient is another.
const HARD_KEY: Key = Key::new(7, 9);
const TAU: f64 = 0.5;
const STRETCH: (f64, f64) = (-0.1, 1.1);

const RELAXED: Op = Op {
    name: "binary_concrete",
    baseline: "sigmoid((logits + logit(rand_like)) / tau)",
    inputs: one,
    fused: |x, key| binary_concrete(&x[0], TAU, key),
    plain: |x| plain::binary_concrete(&x[0], TAU),
    forward: Pass {
        moves: read_and_written,
        verify: |x| {
            let got = binary_concrete(&x[0], TAU, KEY)?;
            verify::forward(&got, &[x[0].clone(), noise(x, KEY)?], relaxed)
        },
    },
    backward: Some(Pass {
        // Logits and gradient in, the logits' gradient out.
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| binary_concrete(&x[0], TAU, KEY);
            verify::gradient(x, &[noise(x, KEY)?], op, relaxed)
        },
    }),
};

const STRAIGHT_THROUGH: Op = Op {
    name: "binary_concrete_st",
    baseline: "relaxed, ge, minus its own, plus",
    inputs: one,
    fused: |x, key| binary_concrete_st(&x[0], TAU, key),
    plain: |x| plain::binary_concrete_st(&x[0], TAU),
    forward: Pass {
        moves: read_and_written,
        verify: |x| {
            let got = binary_concrete_st(&x[0], TAU, KEY)?;
            verify::forward(&got, &[x[0].clone(), noise(x, KEY)?], |x| {
                (&x[0] + &x[1])?.gt(0f64)?.to_dtype(DType::F64)
            })
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| binary_concrete_st(&x[0], TAU, KEY);
            verify::gradient(x, &[noise(x, KEY)?], op, relaxed)
        },
    }),
};

const HARD: Op = Op {
    name: "hard_concrete",
    baseline: "relaxed, affine, clamp",
    inputs: one,
    fused: |x, key| hard_concrete(&x[0], TAU, STRETCH, key),
    plain: |x| plain::hard_concrete(&plain::binary_concrete(&x[0], TAU)?, STRETCH),
    forward: Pass {
        moves: read_and_written,
        verify: |x| {
            let got = hard_concrete(&x[0], TAU, STRETCH, HARD_KEY)?;
            verify::forward(&got, &[x[0].clone(), noise(x, HARD_KEY)?], hard)
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| hard_concrete(&x[0], TAU, STRETCH, HARD_KEY);
            verify::gradient(x, &[noise(x, HARD_KEY)?], op, hard)
        },
    }),
};

const L0: Op = Op {
    name: "hard_concrete_l0",
    baseline: "sigmoid(logits - tau ln(-low / high))",
    inputs: one,
    fused: |x, _| hard_concrete_l0(&x[0], TAU, Stretch::from(STRETCH)),
    plain: |x| plain::hard_concrete_l0(&x[0], TAU, STRETCH),
    forward: Pass {
        moves: read_and_written,
        verify: |x| {
            let got = hard_concrete_l0(&x[0], TAU, STRETCH)?;
            verify::forward(&got, x, L0.plain)
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| hard_concrete_l0(&x[0], TAU, STRETCH);
            verify::gradient(x, &[], op, L0.plain)
        },
    }),
};

fn one(shape: Shape) -> anyhow::Result<Vec<Tensor>> {
    Ok(vec![logits(shape)?])
}

fn read_and_written(shape: Shape, size: u64) -> u64 {
    2 * shape.elements() * size
}

/// As the op draws it: rounded to a narrower dtype only with its result.
fn noise(x: &[Tensor], key: Key) -> candle_core::Result<Tensor> {
    logistic(x[0].shape(), DType::F32, x[0].device(), key)
}

fn relaxed(x: &[Tensor]) -> candle_core::Result<Tensor> {
    plain::binary_concrete_with(&x[0], TAU, &x[1])
}

fn hard(x: &[Tensor]) -> candle_core::Result<Tensor> {
    plain::hard_concrete(&relaxed(x)?, STRETCH)
}

pub fn bench(suite: &mut Suite) {
    for op in [RELAXED, STRAIGHT_THROUGH, HARD, L0] {
        op.bench(suite, &[S4096X256, S1024X4096]);
    }
}
