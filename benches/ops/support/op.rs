//! An op as a bench sees it, and the cases that every op has.

use std::hint::black_box;

use anyhow::Result;
use candle_core::{Tensor, Var};
use candle_reparam::{Key, Rng};

use super::{
    duel::Duel,
    shapes::Shape,
    suite::{Case, Direction, Suite},
};

/// The CPU's benches are of f32.
const SIZE: u64 = size_of::<f32>() as u64;

pub struct Op {
    pub name: &'static str,
    pub baseline: &'static str,
    pub inputs: fn(Shape) -> Result<Vec<Tensor>>,
    pub fused: fn(&[Tensor], Key) -> candle_core::Result<Tensor>,
    pub plain: fn(&[Tensor]) -> candle_core::Result<Tensor>,
    pub forward: Pass,
    /// None for an op without a gradient.
    pub backward: Option<Pass>,
}

pub struct Pass {
    /// Bytes that the op's own kernel cannot avoid to move, for elements of so many bytes: each argument read once, each
    /// result written once. What candle moves around the kernel is not counted, though its time is.
    pub moves: fn(Shape, u64) -> u64,
    /// An error where the op's result on these inputs is wrong.
    pub verify: fn(&[Tensor]) -> Result<()>,
}

impl Op {
    /// Forward, and forward + `backward()` of the output where the op has a gradient; on the card too, where there is one.
    pub fn bench(&self, suite: &mut Suite, shapes: &[Shape]) {
        self.bench_on_cpu(suite, shapes);
        #[cfg(feature = "cuda")]
        super::cuda::bench(self, suite, shapes);
    }

    fn bench_on_cpu(&self, suite: &mut Suite, shapes: &[Shape]) {
        for &shape in shapes {
            suite.run(self.case(Direction::Forward, shape, SIZE), || {
                let inputs = (self.inputs)(shape)?;
                (self.forward.verify)(&inputs)?;
                let (fused, plain) = (self.fused, self.plain);
                let (fused_inputs, keys) = (inputs.clone(), Rng::new(1));
                Ok(Duel::new(
                    move || {
                        black_box(fused(&fused_inputs, keys.next_key())?);
                        Ok(())
                    },
                    move || {
                        black_box(plain(&inputs)?);
                        Ok(())
                    },
                ))
            });
            let Some(backward) = &self.backward else {
                continue;
            };
            suite.run(self.case(Direction::ForwardBackward, shape, SIZE), || {
                let inputs = (self.inputs)(shape)?;
                (backward.verify)(&inputs)?;
                let (fused, plain) = (self.fused, self.plain);
                let (fused_vars, keys) = (vars(&inputs)?, Rng::new(1));
                let plain_vars = vars(&inputs)?;
                Ok(Duel::new(
                    move || {
                        black_box(fused(&fused_vars, keys.next_key())?.backward()?);
                        Ok(())
                    },
                    move || {
                        black_box(plain(&plain_vars)?.backward()?);
                        Ok(())
                    },
                ))
            });
        }
    }

    /// The case of these inputs, with elements of `size` bytes.
    pub fn case(&self, direction: Direction, shape: Shape, size: u64) -> Case {
        let forward = (self.forward.moves)(shape, size);
        let backward = self.backward.as_ref().map_or(0, |b| (b.moves)(shape, size));
        Case {
            op: self.name,
            direction,
            shape,
            bytes: match direction {
                Direction::Forward | Direction::BackwardKernel => forward,
                #[cfg(feature = "cuda")]
                Direction::Backward => backward,
                Direction::ForwardBackward => forward + backward,
            },
            baseline: self.baseline,
        }
    }
}

/// The tensors as variables: what is computed from them is tracked.
pub fn vars(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    tensors
        .iter()
        .map(|t| Ok(Var::from_tensor(t)?.into_inner()))
        .collect()
}
