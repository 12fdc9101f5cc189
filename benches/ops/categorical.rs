use candle_reparam::categorical;

use crate::support::{
    DIM, INDEX, logits,
    op::{Op, Pass},
    plain,
    shapes::SHAPES,
    suite::Suite,
    verify,
};

const CATEGORICAL: Op = Op {
    name: "categorical",
    baseline: "candle_nn::sampling::gumbel_softmax",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| categorical(&x[0], DIM, key),
    plain: |x| plain::sampler(&x[0]),
    forward: Pass {
        moves: |shape, size| shape.elements() * size + shape.rows as u64 * INDEX,
        verify: |x| verify::follows_softmax(&x[0], |key| categorical(&x[0], DIM, key)),
    },
    backward: None,
};

pub fn bench(suite: &mut Suite) {
    CATEGORICAL.bench(suite, &SHAPES);
}
