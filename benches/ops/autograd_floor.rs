//! What candle's `backward()` does around every op with one argument, whatever the op: it fills the output's gradient
//! with ones and the argument's with zeros, and adds to these what the op's backward pass returns. No fused kernel can
//! make forward + backward faster than this.

use std::hint::black_box;

use anyhow::ensure;
#[cfg(feature = "cuda")]
use candle_reparam::Key;

use crate::support::{
    copy::CopyBuffers,
    duel::Duel,
    input,
    shapes::SHAPES,
    suite::{Case, Direction, Suite},
};
#[cfg(feature = "cuda")]
use crate::support::{
    cuda,
    op::{Op, Pass},
    verify,
};

/// The same on the card.
#[cfg(feature = "cuda")]
const ON_CARD: Op = Op {
    name: "autograd_floor",
    baseline: "",
    inputs: |shape| Ok(vec![input(shape, 0)?]),
    fused: |x, _| {
        black_box(x[0].ones_like()?);
        x[0].zeros_like()?.add(&x[0])
    },
    plain: |_| candle_core::bail!("this is plain candle"),
    forward: Pass {
        moves: |shape, size| 5 * shape.elements() * size,
        verify: |x| {
            verify::forward(
                &(ON_CARD.fused)(x, Key::new(0, 0))?,
                x,
                |x| Ok(x[0].clone()),
            )
        },
    },
    backward: None,
};

pub fn bench(suite: &mut Suite) {
    #[cfg(feature = "cuda")]
    cuda::bench_as(&ON_CARD, suite, &SHAPES, Direction::BackwardKernel);
    for shape in SHAPES {
        // Ones and zeros written, two tensors read and their sum written.
        let bytes = 5 * shape.elements() * size_of::<f32>() as u64;
        let case = Case {
            op: "autograd_floor",
            direction: Direction::BackwardKernel,
            shape,
            bytes,
            baseline: "copy of as many bytes on all threads",
        };
        suite.run(case, || {
            let gradient = input(shape, 0)?;
            let floor = move || {
                black_box(gradient.ones_like()?);
                gradient.zeros_like()?.add(&gradient)
            };
            let mut buffers = CopyBuffers::moving(bytes);
            ensure!(
                floor()?.to_vec2::<f32>()? == input(shape, 0)?.to_vec2::<f32>()?,
                "0 + x is not x"
            );
            Ok(Duel::new(
                move || {
                    black_box(floor()?);
                    Ok(())
                },
                move || {
                    buffers.copy();
                    Ok(())
                },
            ))
        });
    }
}
