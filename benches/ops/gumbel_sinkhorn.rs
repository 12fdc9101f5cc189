use anyhow::ensure;
use candle_core::{D, DType, Tensor};
use candle_reparam::{Key, gumbel, gumbel_sinkhorn, gumbel_sinkhorn_st};

use crate::support::{
    logits,
    op::{Op, Pass},
    plain,
    shapes::Shape,
    suite::Suite,
    verify,
};

const TAU: f64 = 1.0;
const ITERATIONS: usize = 20;
/// The draw that is verified.
const KEY: Key = Key::new(7, 3);

/// A matrix a row: sets of 10, of 64, and one of 256.
const SHAPES: [Shape; 3] = [
    Shape::new(64, 10 * 10),
    Shape::new(16, 64 * 64),
    Shape::new(1, 256 * 256),
];

const RELAXED: Op = Op {
    name: "gumbel_sinkhorn",
    baseline: "rand, log, neg, log; 20 times a log-sum-exp of rows and of columns; exp",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| flat(&gumbel_sinkhorn(&square(&x[0])?, TAU, ITERATIONS, key)?),
    plain: |x| composed(&(&x[0] + plain::gumbel_like(&x[0])?)?),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            let got = flat(&gumbel_sinkhorn(&square(&x[0])?, TAU, ITERATIONS, KEY)?)?;
            verify::forward(
                &got,
                &[(&x[0].to_dtype(DType::F32)? + noise(&x[0])?)?],
                |x| composed(&x[0]),
            )
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let op = |x: &[Tensor]| flat(&gumbel_sinkhorn(&square(&x[0])?, TAU, ITERATIONS, KEY)?);
            verify::gradient(x, &[noise(&x[0])?], op, |x| composed(&(&x[0] + &x[1])?))
        },
    }),
};

/// Against plain candle's relaxed sample: candle has no assignment.
const HARD: Op = Op {
    name: "gumbel_sinkhorn_st",
    baseline: "the same (the relaxed sample; there is no assignment)",
    fused: |x, key| flat(&gumbel_sinkhorn_st(&square(&x[0])?, TAU, ITERATIONS, key)?),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            let p = gumbel_sinkhorn_st(&square(&x[0])?, TAU, ITERATIONS, KEY)?;
            let p = p.to_dtype(DType::F32)?;
            for dim in [1, 2] {
                let sums = p.sum(dim)?.flatten_all()?.to_vec1::<f32>()?;
                ensure!(sums.iter().all(|s| *s == 1.), "not a permutation: {sums:?}");
            }
            Ok(())
        },
    },
    backward: None,
    ..RELAXED
};

fn noise(logits: &Tensor) -> candle_core::Result<Tensor> {
    gumbel(logits.shape(), DType::F32, logits.device(), KEY)
}

/// Rows as matrices, and back: views.
fn square(x: &Tensor) -> candle_core::Result<Tensor> {
    let (count, len) = x.dims2()?;
    x.reshape((count, len.isqrt(), len.isqrt()))
}

fn flat(x: &Tensor) -> candle_core::Result<Tensor> {
    x.flatten_from(1)
}

fn composed(noisy: &Tensor) -> candle_core::Result<Tensor> {
    let mut x = (square(noisy)? / TAU)?;
    for _ in 0..ITERATIONS {
        for dim in [D::Minus1, D::Minus2] {
            let max = x.max_keepdim(dim)?.detach();
            let sum = x.broadcast_sub(&max)?.exp()?.sum_keepdim(dim)?;
            x = x.broadcast_sub(&(sum.log()? + max)?)?;
        }
    }
    flat(&x.exp()?)
}

pub fn bench(suite: &mut Suite) {
    RELAXED.bench(suite, &SHAPES);
    HARD.bench(suite, &SHAPES);
}
