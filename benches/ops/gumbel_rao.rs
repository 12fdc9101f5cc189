use anyhow::Result;
use candle_core::{D, DType, Tensor};
use candle_nn::ops;
use candle_reparam::{Key, gumbel_max, gumbel_rao, uniform};

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::{S512X4096, S4096X10, S4096X32, S4096X256, Shape},
    suite::Suite,
    verify,
};

const TAU: f64 = 0.7;
const SAMPLES: usize = 10;
/// The draw that is verified.
const KEY: Key = Key::new(7, 13);
const SHAPES: [Shape; 4] = [S4096X10, S4096X32, S4096X256, S512X4096];

const RAO: Op = Op {
    name: "gumbel_rao",
    baseline: "rand, arg-max, scatter, and 10 conditional samples",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_rao(&x[0], TAU, SAMPLES, DIM, key),
    plain: |x| {
        let drawn = plain::drawn_one_hot(&x[0], &plain::gumbel_like(&x[0])?)?;
        let draw = |_| x[0].rand_like(0., 1.)?.log()?.neg();
        composed(&x[0], &drawn, draw)
    },
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| verify_draw(&x[0]),
    },
    backward: Some(Pass {
        // Logits, one-hot and gradient in, the logits' gradient out; the noise is drawn in the kernel.
        moves: |shape, size| 4 * shape.elements() * size,
        verify: |x| {
            let wide = x[0].to_dtype(DType::F32)?;
            let drawn = gumbel_rao(&x[0], TAU, SAMPLES, DIM, KEY)?;
            let mut constants = vec![drawn];
            for k in 0..SAMPLES as u64 {
                let folded = KEY.fold_in(0x4775_6D62_656C_5261);
                let key = Key::new(folded.seed, (folded.stream + k) & (u64::MAX >> 1));
                constants.push(uniform(wide.shape(), DType::F32, wide.device(), key)?);
            }
            let op = |x: &[Tensor]| gumbel_rao(&x[0], TAU, SAMPLES, DIM, KEY);
            verify::gradient(x, &constants, op, |x| {
                composed(&x[0], &x[1], |k| x[2 + k].affine(-1., 1.)?.log()?.neg())
            })
        },
    }),
};

/// The mean of relaxed samples at conditional scores, the noise a constant; its value is the one-hot.
fn composed(
    logits: &Tensor,
    drawn: &Tensor,
    exponentials: impl Fn(usize) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Tensor> {
    let fixed = logits.detach();
    let log_z = fixed.log_sum_exp(D::Minus1)?.unsqueeze(DIM)?;
    let rest = drawn.affine(-1., 1.)?;
    let mut mean: Option<Tensor> = None;
    for k in 0..SAMPLES {
        let e = exponentials(k)?;
        let own = (&e * drawn)?.sum_keepdim(D::Minus1)?;
        // ln(E_j / exp(logit_j)) and ln(E_D / Z), joined in log space.
        let a = (e.log()? - &fixed)?;
        let b = own.log()?.broadcast_sub(&log_z)?;
        let high = a.broadcast_maximum(&b)?;
        let low = a.broadcast_minimum(&b)?;
        let joined = (&high + ((low - &high)?.exp()? + 1.)?.log()?)?;
        let scores = ((joined * &rest)?.neg()? - drawn.broadcast_mul(&b)?)?;
        // The noise is what leads from the logits to the scores: a constant.
        let scores = ((scores - &fixed)?.detach() + logits)?;
        let y = ops::softmax(&(scores / TAU)?, D::Minus1)?;
        mean = Some(match mean {
            Some(sum) => (sum + y)?,
            None => y,
        });
    }
    let mean = (mean.expect("samples") / SAMPLES as f64)?;
    (&mean - mean.detach())? + drawn
}

fn verify_draw(x: &Tensor) -> Result<()> {
    let hot = gumbel_rao(x, TAU, SAMPLES, DIM, KEY)?.argmax(DIM)?;
    let want = gumbel_max(x, DIM, KEY)?.to_vec1::<u32>()?;
    anyhow::ensure!(
        hot.to_vec1::<u32>()? == want,
        "the one-hot is not that of gumbel_max"
    );
    Ok(())
}

pub fn bench(suite: &mut Suite) {
    RAO.bench(suite, &SHAPES);
}
