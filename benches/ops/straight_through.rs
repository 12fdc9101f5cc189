use anyhow::ensure;
use candle_core::{D, DType, Tensor};
use candle_reparam::straight_through::{Surrogate, one_hot, quantize, round, sign};

use crate::support::{
    DIM, input,
    op::{Op, Pass},
    shapes::{S64X32000, S1024X4096, S4096X32, S4096X256, Shape},
    suite::Suite,
    verify,
};

const SHAPES: [Shape; 3] = [S4096X32, S4096X256, S1024X4096];
const ROWS: [Shape; 3] = [S4096X32, S4096X256, S64X32000];
const WINDOW: Surrogate = Surrogate::Clipped { low: -1., high: 1. };

/// `y` forward, the gradient of `through` backward.
fn pass(through: &Tensor, y: Tensor) -> candle_core::Result<Tensor> {
    through + (y - through)?.detach()
}

fn plain_round(x: &[Tensor]) -> candle_core::Result<Tensor> {
    pass(&x[0], x[0].round()?)
}

/// Halves to the even integer, where candle takes them away from zero.
fn rounded_to_even(x: &[Tensor]) -> candle_core::Result<Tensor> {
    let values = x[0].to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let even: Vec<f64> = values.into_iter().map(f64::round_ties_even).collect();
    let even = Tensor::from_vec(even, x[0].shape(), x[0].device())?;
    pass(&x[0], even.to_dtype(x[0].dtype())?)
}

const ROUND: Op = Op {
    name: "round",
    baseline: "x + (x.round() - x).detach()",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| round(&x[0], Surrogate::Identity),
    plain: plain_round,
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| verify::forward(&round(&x[0], Surrogate::Identity)?, x, rounded_to_even),
    },
    backward: Some(Pass {
        // The gradient is the one that arrives.
        moves: |_, _| 0,
        verify: |x| verify::gradient(x, &[], |x| round(&x[0], Surrogate::Identity), plain_round),
    }),
};

/// The gradient of the closed window, where a clamp has half of it at the ends.
fn windowed(x: &Tensor, y: Tensor) -> candle_core::Result<Tensor> {
    let inside = x.abs()?.le(1.)?.to_dtype(x.dtype())?;
    pass(&(x * inside)?, y)
}

fn plain_sign(x: &[Tensor]) -> candle_core::Result<Tensor> {
    pass(&x[0].clamp(-1., 1.)?, x[0].sign()?)
}

const SIGN: Op = Op {
    name: "sign",
    baseline: "y = x.clamp(-1, 1); y + (x.sign() - y).detach()",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| sign(&x[0], WINDOW),
    plain: plain_sign,
    forward: Pass {
        moves: ROUND.forward.moves,
        verify: |x| verify::forward(&sign(&x[0], WINDOW)?, x, plain_sign),
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            verify::gradient(
                x,
                &[],
                |x| sign(&x[0], WINDOW),
                |x| windowed(&x[0], x[0].sign()?),
            )
        },
    }),
};

fn plain_quantize(x: &[Tensor]) -> candle_core::Result<Tensor> {
    let y = x[0].clamp(-1., 1.)?;
    let level = ((&y + 1.)? * 127.5)?.round()?;
    pass(&y, ((level / 127.5)? - 1.)?)
}

const QUANTIZE: Op = Op {
    name: "quantize",
    baseline: "y = x.clamp(-1, 1); y + (((y + 1) * 127.5).round() / 127.5 - 1 - y).detach()",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| quantize(&x[0], -1., 1., 256, WINDOW),
    plain: plain_quantize,
    forward: Pass {
        moves: ROUND.forward.moves,
        verify: |x| {
            // Next to halfway, either level is right: a few elements may be one off.
            let got = quantize(&x[0], -1., 1., 256, WINDOW)?.to_dtype(DType::F64)?;
            let want = plain_quantize(&[x[0].to_dtype(DType::F64)?])?;
            let off = (got - want)?.abs()?.flatten_all()?.to_vec1::<f64>()?;
            let worst = off.iter().fold(0f64, |a, &b| a.max(b));
            let count = off.iter().filter(|&&d| d > 1e-6).count();
            ensure!(worst < 1.01 / 127.5, "off by {worst}");
            ensure!(
                1_000 * count <= off.len(),
                "{count} elements are a level off"
            );
            Ok(())
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            verify::gradient(
                x,
                &[],
                |x| quantize(&x[0], -1., 1., 256, WINDOW),
                |x| windowed(&x[0], x[0].round()?),
            )
        },
    }),
};

fn plain_one_hot(x: &[Tensor]) -> candle_core::Result<Tensor> {
    let index = x[0].argmax_keepdim(D::Minus1)?;
    let one = Tensor::ones(index.shape(), x[0].dtype(), x[0].device())?;
    pass(&x[0], x[0].zeros_like()?.scatter_add(&index, &one, DIM)?)
}

const ONE_HOT: Op = Op {
    name: "one_hot",
    baseline: "x + (zeros.scatter_add(argmax, 1) - x).detach()",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| one_hot(&x[0], DIM),
    plain: plain_one_hot,
    forward: Pass {
        moves: ROUND.forward.moves,
        verify: |x| verify::forward(&one_hot(&x[0], DIM)?, x, plain_one_hot),
    },
    backward: Some(Pass {
        moves: |_, _| 0,
        verify: |x| verify::gradient(x, &[], |x| one_hot(&x[0], DIM), plain_one_hot),
    }),
};

pub fn bench(suite: &mut Suite) {
    for op in [ROUND, SIGN, QUANTIZE] {
        op.bench(suite, &SHAPES);
    }
    ONE_HOT.bench(suite, &ROWS);
}
