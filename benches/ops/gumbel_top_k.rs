use anyhow::ensure;
use candle_core::{DType, Tensor};
use candle_reparam::{Key, gumbel, gumbel_top_k};

use crate::support::{
    DIM, INDEX, logits,
    op::{Op, Pass},
    plain,
    shapes::{S1X128256, S64X32000, S4096X256},
    suite::Suite,
};

/// The draw that is verified.
const KEY: Key = Key::new(7, 11);

/// Tokens of a beam, and members of a small subset.
const MANY: Op = op::<50>();
const FEW: Op = op::<8>();

const fn op<const K: usize>() -> Op {
    Op {
        name: "gumbel_top_k",
        baseline: "rand, log, neg, log, add, arg_sort, narrow",
        inputs: |shape| Ok(vec![logits(shape)?]),
        fused: |x, key| gumbel_top_k(&x[0], K, DIM, key),
        plain: |x| plain::gumbel_top_k(&x[0], K),
        forward: Pass {
            moves: |shape, size| shape.elements() * size + shape.rows as u64 * K as u64 * INDEX,
            verify: |x| verify(&x[0], K),
        },
        backward: None,
    }
}

fn verify(x: &Tensor, k: usize) -> anyhow::Result<()> {
    let got = gumbel_top_k(x, k, DIM, KEY)?.to_vec2::<u32>()?;
    let noise = gumbel(x.shape(), DType::F32, x.device(), KEY)?;
    let scores = (x.to_dtype(DType::F32)? + noise)?.to_vec2::<f32>()?;
    for (row, (got, scores)) in got.iter().zip(scores).enumerate() {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
        ensure!(
            *got == order[..k],
            "row {row}: not the {k} largest of logits + noise"
        );
    }
    Ok(())
}

pub fn bench(suite: &mut Suite) {
    MANY.bench(suite, &[S64X32000, S1X128256]);
    FEW.bench(suite, &[S4096X256]);
}
