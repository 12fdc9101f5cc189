use candle_core::{DType, Tensor};
use candle_reparam::{Key, gaussian, gaussian_kl, normal};

use crate::support::{
    DIM, input,
    op::{Op, Pass},
    plain,
    shapes::{S1024X4096, SHAPES, Shape},
    suite::Suite,
    verify,
};

/// The draw that is verified.
const KEY: Key = Key::new(7, 5);

const GAUSSIAN: Op = Op {
    name: "gaussian",
    baseline: "mean + exp(log_var / 2) * randn_like",
    inputs: mean_and_log_var,
    fused: |x, key| gaussian(&x[0], &x[1], key),
    plain: |x| plain::gaussian(&x[0], &x[1]),
    forward: Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let got = gaussian(&x[0], &x[1], KEY)?;
            verify::forward(&got, &[x[0].clone(), x[1].clone(), noise(x)?], composed)
        },
    },
    backward: Some(Pass {
        // Gradient and log-variance in, the log-variance's gradient out; the mean's gradient is the incoming one.
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| gaussian(&x[0], &x[1], KEY);
            verify::gradient(x, &[noise(x)?], op, composed)
        },
    }),
};

const KL: Op = Op {
    name: "gaussian_kl",
    baseline: "(mean^2 + exp(log_var) - log_var - 1) / 2, sum",
    inputs: mean_and_log_var,
    fused: |x, _| gaussian_kl(&x[0], &x[1], DIM),
    plain: |x| plain::gaussian_kl(&x[0], &x[1]),
    forward: Pass {
        moves: |shape, size| (2 * shape.elements() + shape.rows as u64) * size,
        verify: |x| verify::forward(&gaussian_kl(&x[0], &x[1], DIM)?, x, KL.plain),
    },
    backward: Some(Pass {
        moves: |shape, size| (4 * shape.elements() + shape.rows as u64) * size,
        verify: |x| {
            let op = |x: &[Tensor]| gaussian_kl(&x[0], &x[1], DIM);
            verify::gradient(x, &[], op, KL.plain)
        },
    }),
};

fn mean_and_log_var(shape: Shape) -> anyhow::Result<Vec<Tensor>> {
    Ok(vec![input(shape, 0)?, input(shape, 1)?])
}

/// As the op draws it: rounded to a narrower dtype only with its result.
fn noise(x: &[Tensor]) -> candle_core::Result<Tensor> {
    normal(x[0].shape(), DType::F32, x[0].device(), KEY)
}

fn composed(x: &[Tensor]) -> candle_core::Result<Tensor> {
    plain::gaussian_with(&x[0], &x[1], &x[2])
}

pub fn bench(suite: &mut Suite) {
    let mut shapes = SHAPES.to_vec();
    shapes.push(S1024X4096);
    GAUSSIAN.bench(suite, &shapes);
    KL.bench(suite, &shapes);
}
