use candle_core::Tensor;
use candle_reparam::subgradient::{clamp, hard_sigmoid, hinge, max, maximum, relu};

use crate::support::{
    DIM, input,
    op::{Op, Pass},
    shapes::{S64X32000, S1024X4096, S4096X32, S4096X256, Shape},
    suite::Suite,
    verify,
};

const SHAPES: [Shape; 3] = [S4096X32, S4096X256, S1024X4096];
const ROWS: [Shape; 3] = [S4096X32, S4096X256, S64X32000];

/// One tensor in, one out; backward another one in.
const ONE: Op = Op {
    name: "relu",
    baseline: "x.relu()",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| relu(&x[0], None),
    plain: |x| x[0].relu(),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| verify::forward(&relu(&x[0], None)?, x, |x| x[0].relu()),
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify::gradient(x, &[], |x| relu(&x[0], None), |x| x[0].relu()),
    }),
};

/// Of a million numbers, one may well be a bound: the kinks have candle's slopes here.
fn plain_clamp(x: &[Tensor]) -> candle_core::Result<Tensor> {
    x[0].clamp(-1., 1.)
}

const CLAMP: Op = Op {
    name: "clamp",
    baseline: "x.clamp(-1, 1)",
    fused: |x, _| clamp(&x[0], -1., 1., 0.5),
    plain: plain_clamp,
    forward: Pass {
        moves: ONE.forward.moves,
        verify: |x| verify::forward(&clamp(&x[0], -1., 1., 0.5)?, x, plain_clamp),
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify::gradient(x, &[], |x| clamp(&x[0], -1., 1., 0.5), plain_clamp),
    }),
    ..ONE
};

fn plain_hard_sigmoid(x: &[Tensor]) -> candle_core::Result<Tensor> {
    ((&x[0] / 6.)? + 0.5)?.clamp(0., 1.)
}

const HARD_SIGMOID: Op = Op {
    name: "hard_sigmoid",
    baseline: "(x / 6 + 1/2).clamp(0, 1)",
    fused: |x, _| hard_sigmoid(&x[0], 1. / 12.),
    plain: plain_hard_sigmoid,
    forward: Pass {
        moves: ONE.forward.moves,
        verify: |x| verify::forward(&hard_sigmoid(&x[0], 1. / 12.)?, x, plain_hard_sigmoid),
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            verify::gradient(
                x,
                &[],
                |x| hard_sigmoid(&x[0], 1. / 12.),
                plain_hard_sigmoid,
            )
        },
    }),
    ..ONE
};

fn two(shape: Shape) -> anyhow::Result<Vec<Tensor>> {
    Ok(vec![input(shape, 0)?, input(shape, 1)?])
}

fn plain_maximum(x: &[Tensor]) -> candle_core::Result<Tensor> {
    x[0].maximum(&x[1])
}

const MAXIMUM: Op = Op {
    name: "maximum",
    baseline: "a.maximum(b)",
    inputs: two,
    fused: |x, _| maximum(&x[0], &x[1], None),
    plain: plain_maximum,
    forward: Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify::forward(&maximum(&x[0], &x[1], None)?, x, plain_maximum),
    },
    backward: Some(Pass {
        // Both arguments and the gradient in, a gradient out, for each of the two.
        moves: |shape, size| 8 * shape.elements() * size,
        verify: |x| verify::gradient(x, &[], |x| maximum(&x[0], &x[1], None), plain_maximum),
    }),
};

fn plain_hinge(x: &[Tensor]) -> candle_core::Result<Tensor> {
    (1. - (&x[0] * &x[1])?)?.relu()
}

const HINGE: Op = Op {
    name: "hinge",
    baseline: "(1 - input * target).relu()",
    inputs: two,
    fused: |x, _| hinge(&x[0], &x[1], 1., 1.),
    plain: plain_hinge,
    forward: Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify::forward(&hinge(&x[0], &x[1], 1., 1.)?, x, plain_hinge),
    },
    backward: Some(Pass {
        moves: |shape, size| 8 * shape.elements() * size,
        verify: |x| verify::gradient(x, &[], |x| hinge(&x[0], &x[1], 1., 1.), plain_hinge),
    }),
};

fn plain_max(x: &[Tensor]) -> candle_core::Result<Tensor> {
    x[0].max(DIM)
}

const MAX: Op = Op {
    name: "max",
    baseline: "x.max(dim)",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| max(&x[0], DIM),
    plain: plain_max,
    forward: Pass {
        moves: |shape, size| (shape.elements() + shape.rows as u64) * size,
        verify: |x| {
            verify::forward(&max(&x[0], DIM)?.unsqueeze(1)?, x, |x| {
                x[0].max_keepdim(DIM)
            })
        },
    },
    backward: Some(Pass {
        moves: |shape, size| (2 * shape.elements() + shape.rows as u64) * size,
        verify: |x| verify::gradient(x, &[], |x| max(&x[0], DIM), plain_max),
    }),
};

pub fn bench(suite: &mut Suite) {
    for op in [ONE, CLAMP, HARD_SIGMOID, MAXIMUM, HINGE] {
        op.bench(suite, &SHAPES);
    }
    MAX.bench(suite, &ROWS);
}
