use candle_core::{DType, Tensor};
use candle_reparam::{Key, gumbel, relaxed_top_k};

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::{S64X32000, S4096X32, S4096X256},
    suite::Suite,
    verify,
};

const K: usize = 8;
const TAU: f64 = 0.5;
/// The draw that is verified.
const KEY: Key = Key::new(7, 12);

const RELAXED: Op = Op {
    name: "relaxed_top_k",
    baseline: "rand, log, neg, log, 8 times softmax, add, log of 1 - a, add",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| relaxed_top_k(&x[0], K, TAU, DIM, key),
    plain: |x| plain::relaxed_top_k(&x[0], K, TAU),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            let got = relaxed_top_k(&x[0], K, TAU, DIM, KEY)?;
            let noisy = (x[0].to_dtype(DType::F32)? + noise(&x[0])?)?;
            verify::forward(&got, &[noisy], |x| plain::k_hot_of_scores(&x[0], K, TAU))
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| relaxed_top_k(&x[0], K, TAU, DIM, KEY);
            verify::gradient(x, &[noise(&x[0])?], op, |x| {
                plain::k_hot_of_scores(&(&x[0] + &x[1])?, K, TAU)
            })
        },
    }),
};

fn noise(logits: &Tensor) -> candle_core::Result<Tensor> {
    gumbel(logits.shape(), DType::F32, logits.device(), KEY)
}

pub fn bench(suite: &mut Suite) {
    RELAXED.bench(suite, &[S4096X32, S4096X256, S64X32000]);
}
