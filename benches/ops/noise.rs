use anyhow::ensure;
use candle_core::{DType, Tensor};
use candle_reparam::{Key, exponential, gumbel, logistic, normal, uniform};

use crate::support::{
    op::{Op, Pass},
    plain,
    shapes::{SHAPES, Shape},
    suite::Suite,
    verify,
};

/// The draw that is verified.
const KEY: Key = Key::new(7, 6);

const UNIFORM: Op = Op {
    name: "uniform",
    baseline: "rand_like",
    inputs: like,
    fused: |x, key| uniform(x[0].shape(), x[0].dtype(), x[0].device(), key),
    plain: |x| plain::uniform_like(&x[0]),
    forward: Pass {
        moves: written,
        verify: |x| {
            let u = (UNIFORM.fused)(x, KEY)?.flatten_all()?;
            let end = |end: Tensor| end.to_dtype(DType::F32)?.to_scalar::<f32>();
            let (low, high) = (end(u.min(0)?)?, end(u.max(0)?)?);
            ensure!(
                low > 0. && high < 1.,
                "{low:e} to {high} is not within (0, 1)"
            );
            verify::moments(&u, 0.5, 1. / 12., 1.8)
        },
    },
    backward: None,
};

const GUMBEL: Op = Op {
    name: "gumbel",
    baseline: "rand_like, log, neg, log, neg",
    inputs: like,
    fused: |x, key| gumbel(x[0].shape(), x[0].dtype(), x[0].device(), key),
    plain: |x| plain::gumbel_like(&x[0]),
    forward: Pass {
        moves: written,
        verify: |x| {
            let g = (GUMBEL.fused)(x, KEY)?;
            let variance = std::f64::consts::PI.powi(2) / 6.;
            verify::moments(&g, std::f64::consts::EULER_GAMMA, variance, 5.4)
        },
    },
    backward: None,
};

const EXPONENTIAL: Op = Op {
    name: "exponential",
    baseline: "rand_like, log, neg",
    inputs: like,
    fused: |x, key| exponential(x[0].shape(), x[0].dtype(), x[0].device(), key),
    plain: |x| plain::exponential_like(&x[0]),
    forward: Pass {
        moves: written,
        verify: |x| verify::moments(&(EXPONENTIAL.fused)(x, KEY)?, 1., 1., 9.),
    },
    backward: None,
};

const LOGISTIC: Op = Op {
    name: "logistic",
    baseline: "rand_like, log, 1 - rand, log, minus",
    inputs: like,
    fused: |x, key| logistic(x[0].shape(), x[0].dtype(), x[0].device(), key),
    plain: |x| plain::logistic_like(&x[0]),
    forward: Pass {
        moves: written,
        verify: |x| {
            let variance = std::f64::consts::PI.powi(2) / 3.;
            verify::moments(&(LOGISTIC.fused)(x, KEY)?, 0., variance, 4.2)
        },
    },
    backward: None,
};

const NORMAL: Op = Op {
    name: "normal",
    baseline: "randn_like",
    inputs: like,
    fused: |x, key| normal(x[0].shape(), x[0].dtype(), x[0].device(), key),
    plain: |x| plain::normal_like(&x[0]),
    forward: Pass {
        moves: written,
        verify: |x| verify::moments(&(NORMAL.fused)(x, KEY)?, 0., 1., 3.),
    },
    backward: None,
};

fn written(shape: Shape, size: u64) -> u64 {
    shape.elements() * size
}

/// Only its shape, dtype and device matter.
fn like(shape: Shape) -> anyhow::Result<Vec<Tensor>> {
    let device = candle_core::Device::Cpu;
    Ok(vec![Tensor::zeros(shape.dims(), DType::F32, &device)?])
}

pub fn bench(suite: &mut Suite) {
    UNIFORM.bench(suite, &SHAPES);
    GUMBEL.bench(suite, &SHAPES);
    EXPONENTIAL.bench(suite, &SHAPES);
    LOGISTIC.bench(suite, &SHAPES);
    NORMAL.bench(suite, &SHAPES);
}
