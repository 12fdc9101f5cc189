use anyhow::ensure;
use candle_core::DType;
use candle_reparam::{Key, gumbel, gumbel_max};

use crate::support::{
    DIM, INDEX, logits,
    op::{Op, Pass},
    plain,
    shapes::SHAPES,
    suite::Suite,
    verify,
};

/// The draw that is verified.
const KEY: Key = Key::new(7, 4);

const GUMBEL_MAX: Op = Op {
    name: "gumbel_max",
    baseline: "candle_nn::sampling::gumbel_softmax",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_max(&x[0], DIM, key),
    plain: |x| plain::sampler(&x[0]),
    forward: Pass {
        moves: |shape, size| shape.elements() * size + shape.rows as u64 * INDEX,
        verify: |x| {
            let got = gumbel_max(&x[0], DIM, KEY)?.to_vec1::<u32>()?;
            let noise = gumbel(x[0].shape(), DType::F32, x[0].device(), KEY)?;
            let want = verify::argmax(&(x[0].to_dtype(DType::F32)? + noise)?)?;
            ensure!(got == want, "not the arg-max of logits + noise");
            Ok(())
        },
    },
    backward: None,
};

pub fn bench(suite: &mut Suite) {
    GUMBEL_MAX.bench(suite, &SHAPES);
}
