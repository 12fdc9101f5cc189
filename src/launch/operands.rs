//! Backward passes over rows of three operands, as kernels/include/operands.cuh has them.

use super::plan::{self, Path};
use super::{Args, Context};
use crate::rowwise::Rows;
use candle_core::{CudaStorage, Layout, Result};

type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// The operands: logits, the one-hot that was drawn from them, and its gradient.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a>(pub(crate) [Operand<'a>; 3]);

impl<'a> Operands<'a> {
    /// The path of an op whose threads hold one `part`-th of the elements of each operand that others do, `threads` to a
    /// block at most; and the rows.
    pub(crate) fn path(
        &self,
        context: &Context,
        dim: usize,
        part: usize,
        threads: usize,
    ) -> Result<(Path, Rows)> {
        let rows = Rows::new(self.0[0].1.shape(), dim);
        let mut vector = true;
        for operand in self.0 {
            vector &= context.args().input(operand, Some(dim))?;
        }
        let held = context.share() / part;
        let path = plan::held(rows, context.group(), held, threads, vector);
        Ok((path, rows))
    }
}

impl<'a> Args<'a> {
    /// The operands, each with its view.
    pub(crate) fn operands(&mut self, operands: Operands<'a>, dim: usize) -> Result<()> {
        for operand in operands.0 {
            self.input(operand, Some(dim))?;
        }
        Ok(())
    }
}
