use std::hint::black_box;

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use candle_reparam::{Key, bits::SoftmaxBackward, gumbel, gumbel_softmax, gumbel_softmax_st};

use crate::support::{
    DIM,
    copy::CopyBuffers,
    duel::Duel,
    logits,
    op::{Op, Pass},
    plain,
    shapes::{SHAPES, Shape},
    suite::{Case, Direction, Suite},
    verify,
};
#[cfg(feature = "cuda")]
use crate::support::{cuda, input};

const TAU: f64 = 0.7;
/// The draw that is verified.
const KEY: Key = Key::new(7, 3);

const RELAXED: Op = Op {
    name: "gumbel_softmax",
    baseline: "rand, log, neg, log, ops::softmax",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_softmax(&x[0], TAU, DIM, key),
    plain: |x| plain::gumbel_softmax(&x[0], TAU),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            let got = gumbel_softmax(&x[0], TAU, DIM, KEY)?;
            verify::forward(&got, &[noisy(&x[0])?], |x| {
                plain::tempered_softmax(&x[0], TAU)
            })
        },
    },
    backward: Some(Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify_gradient(x, |x| gumbel_softmax(&x[0], TAU, DIM, KEY)),
    }),
};

const STRAIGHT_THROUGH: Op = Op {
    name: "gumbel_softmax_st",
    baseline: "the same, arg-max, scatter",
    inputs: |shape| Ok(vec![logits(shape)?]),
    fused: |x, key| gumbel_softmax_st(&x[0], TAU, DIM, key),
    plain: |x| plain::gumbel_softmax_st(&x[0], TAU),
    forward: Pass {
        moves: |shape, size| 2 * shape.elements() * size,
        verify: |x| {
            let got = gumbel_softmax_st(&x[0], TAU, DIM, KEY)?.to_dtype(DType::F32)?;
            let got = got.to_vec2::<f32>()?;
            let want = verify::argmax(&noisy(&x[0])?)?;
            for (row, (got, want)) in got.iter().zip(want).enumerate() {
                for (i, y) in got.iter().enumerate() {
                    let want = if i == want as usize { 1. } else { 0. };
                    ensure!(*y == want, "row {row}, element {i} is {y}, not {want}");
                }
            }
            Ok(())
        },
    },
    backward: Some(Pass {
        // Reads logits and gradient twice (the row's sum of exponentials, then the gradient), writes the gradient;
        // counted is what cannot be avoided: each once.
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| verify_gradient(x, |x| gumbel_softmax_st(&x[0], TAU, DIM, KEY)),
    }),
};

/// The noise of [`KEY`], as the ops draw it: rounded to a narrower dtype only with their result.
fn noise(logits: &Tensor) -> candle_core::Result<Tensor> {
    gumbel(logits.shape(), DType::F32, logits.device(), KEY)
}

/// The backward kernel alone, on the card: result and gradient in, gradient of the logits out.
#[cfg(feature = "cuda")]
const BACKWARD_KERNEL: Op = Op {
    name: "gumbel_softmax",
    baseline: "y * (g - sum(y * g)) / tau",
    inputs: |shape| {
        let y = gumbel_softmax(&logits(shape)?, TAU, DIM, KEY)?;
        Ok(vec![y, input(shape, 1)?])
    },
    fused: |x, _| candle_reparam::bits::softmax_gradient(&x[0], &x[1], TAU, DIM),
    plain: |x| plain::softmax_gradient(&x[0], &x[1], TAU),
    forward: Pass {
        moves: |shape, size| 3 * shape.elements() * size,
        verify: |x| {
            let got = (BACKWARD_KERNEL.fused)(x, KEY)?;
            verify::backward_kernel(&got, x, BACKWARD_KERNEL.plain)
        },
    },
    backward: None,
};

/// logits + noise, in f32.
fn noisy(logits: &Tensor) -> candle_core::Result<Tensor> {
    logits.to_dtype(DType::F32)? + noise(logits)?
}

/// Both estimators have the gradient of the relaxed sample at the same noise.
fn verify_gradient(
    inputs: &[Tensor],
    op: fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let x = &inputs[0];
    verify::gradient(inputs, &[noise(x)?], op, |x| {
        plain::tempered_softmax(&(&x[0] + &x[1])?, TAU)
    })
}

pub fn bench(suite: &mut Suite) {
    RELAXED.bench(suite, &SHAPES);
    STRAIGHT_THROUGH.bench(suite, &SHAPES);
    for shape in SHAPES {
        backward_kernel(suite, shape);
    }
    #[cfg(feature = "cuda")]
    cuda::bench_as(&BACKWARD_KERNEL, suite, &SHAPES, Direction::BackwardKernel);
}

/// The backward kernel alone, without what candle does around it: result and gradient in, gradient of the logits out,
/// in buffers that are there already, beside a copy that moves as many bytes between such buffers.
fn backward_kernel(suite: &mut Suite, shape: Shape) {
    let bytes = 3 * shape.elements() * size_of::<f32>() as u64;
    let case = Case {
        op: "gumbel_softmax",
        direction: Direction::BackwardKernel,
        shape,
        bytes,
        baseline: "copy of as many bytes on all threads",
    };
    suite.run(case, || {
        let x = logits(shape)?;
        let y = gumbel_softmax(&x, TAU, DIM, KEY)?;
        let kernel = SoftmaxBackward::new(
            y.flatten_all()?.to_vec1()?,
            x.flatten_all()?.to_vec1()?,
            y.dim(DIM)?,
        );
        let mut out = vec![1f32; shape.elements() as usize];
        kernel.run(TAU, &mut out)?;
        // The same gradient from candle's own operations, with the logits for g. In f64 from the start: of the rounded y
        // even the sum of a long row is off by more than the kernel is.
        let y = plain::tempered_softmax(&noisy(&x)?.to_dtype(DType::F64)?, TAU)?;
        let x = x.to_dtype(DType::F64)?;
        let want = plain::softmax_gradient(&y, &x, TAU)?;
        let got = Tensor::from_slice(&out, x.shape(), x.device())?.to_dtype(DType::F64)?;
        let error = (got - &want)?.abs()?.max_all()?.to_scalar::<f64>()?;
        let largest = want.abs()?.max_all()?.to_scalar::<f64>()?;
        ensure!(
            // The sum of a long row's rounded probabilities is off 1 by some 1e-7, which the two do not share.
            largest > 0. && error <= 5e-6 * largest,
            "the gradient is off by {error:e}, its largest element is {largest:e}"
        );
        let mut buffers = CopyBuffers::moving(bytes);
        Ok(Duel::new(
            move || {
                kernel.run(TAU, &mut out)?;
                black_box(&out);
                Ok(())
            },
            move || {
                buffers.copy();
                Ok(())
            },
        ))
    });
}
