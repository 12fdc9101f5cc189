//! Layers that sample, on `candle_nn`'s conventions: weights come from a `VarBuilder`, by the names that published
//! checkpoints have, and the layers are `candle_nn::ModuleT`: they draw in training, and are deterministic in evaluation.
//!
//! Where a layer draws, it takes a key, or takes the next one of the [`Rng`](crate::Rng) that it was made with. Two
//! layers made with clones of one `Rng` never share a key.
//!
//! | layer | training | evaluation |
//! |---|---|---|
//! | [`GumbelVectorQuantizer`] | a code for every group, drawn by straight-through Gumbel-softmax | the likeliest codes |
//! | [`GaussianHead`] | a sample of a diagonal Gaussian | its mean |

mod gaussian_head;
mod gumbel_vector_quantizer;

pub use gaussian_head::{GaussianHead, GaussianParameters};
pub use gumbel_vector_quantizer::{GumbelVectorQuantizer, Quantized, QuantizerConfig};

use candle_core::{Result, Tensor, bail};

/// Input (.., `dim`) as rows (N, `dim`), and its leading dims.
fn as_rows(name: &str, xs: &Tensor, dim: usize) -> Result<(Tensor, Vec<usize>)> {
    match xs.dims().split_last() {
        Some((&last, leading)) if last == dim => {
            let rows = leading.iter().product::<usize>();
            Ok((xs.reshape((rows, dim))?, leading.to_vec()))
        }
        _ => bail!(
            "{name}: the input has shape {:?}, expected a last dim of {dim}",
            xs.dims()
        ),
    }
}
