//! Gumbel-Sinkhorn: relaxed and straight-through samples of permutations.

mod assignment;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod passes;
mod solver;
mod sums;

use crate::check;
#[cfg(feature = "cuda")]
use crate::launch::Tau;
use crate::op::TauArg;
use crate::rng::{Key, KeySource};
use crate::temperature::Temperature;
use crate::tempered::{
    Gradients, Target, TauTensor, Tempered, TemperedPair, apply, apply_pair, gradients,
};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// More are refused: each keeps scales for the backward pass.
const MOST_ITERATIONS: usize = 1 << 20;

/// A relaxed sample of a permutation: Sinkhorn's normalisation of `exp((scores + g) / tau)`, with `g` standard Gumbel noise.
///
/// * **Formula**: `x = (scores + gumbel(scores.shape(), key)) / tau`, then `iterations` times `x -= logsumexp(x)` over each row and
///   `x -= logsumexp(x)` over each column; the result is `exp(x)`. It is exact in log space at any temperature, though exponentials
///   are taken only where the potentials of rows and columns have moved far.
/// * **Shapes**: `(..., n, n)`, any layout; the result has the shape, dtype and device of `scores`. Entry `(i, j)` is the
///   weight with which row `i` goes to column `j`.
/// * **Dtypes**: f32, f64; f16 and bf16 are computed in f32, noise included, and rounded once.
/// * **Range and precision**: `[0, 1]`. Columns, which are normalised last, sum to 1 within 2e-6 (f32); rows do as the
///   iteration converges: 20 iterations do for `tau` around 1, more are needed as it falls. Entries are within 2e-6 (f32) or
///   1e-13 (f64) of the row's largest, given `scores + g` rounded to the dtype it is computed in; where the iteration hardly
///   converges the roundings of its steps add up, to 4e-6 and 1e-11 after 40 of them at `tau` 0.02. As `tau` falls the sample nears
///   the permutation of [`gumbel_sinkhorn_st`]. A score of -inf forbids its entry: 0, gradient 0. A matrix with NaN, +inf, or a
///   row or column that is all -inf is NaN, and no other is.
/// * **Gradient**: at fixed noise, through every iteration, to the scores and to a `tau` tensor, which has one element or one for each
///   matrix (shape `(..., 1, 1)`). Nothing is kept for it: backward draws the noise and runs the iteration anew, with scratch of
///   `O(iterations n)` a matrix beside a few matrices of room, and goes back by matrix-vector products.
/// * **Errors**: scores that are not square matrices, or empty ones; `iterations` 0 or above 2^20; `tau` not finite or not above 0, or of a shape,
///   dtype or device that does not fit; a dtype that is not listed; a key whose stream is not below 2^63.
/// * **Source**: Mena, Belanger, Linderman, Snoek, "Learning latent permutations with Gumbel-Sinkhorn networks", arXiv 1802.08665;
///   Sinkhorn, Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", 1967. Scales between exponentials:
///   Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport problems", arXiv 1610.06519.
/// * **PyTorch**: none; composed, `for _ in range(iterations): x = x.log_softmax(-1).log_softmax(-2)` and `x.exp()`.
///
/// ```
/// use candle_reparam::{Rng, gumbel_sinkhorn};
/// use candle_core::{DType, Device, Var};
/// let rng = Rng::new(42);
/// let scores = Var::zeros((64, 10, 10), DType::F32, &Device::Cpu)?;
/// let p = gumbel_sinkhorn(&scores, 1.0, 20, rng.next_key())?;
/// let columns = p.sum(1)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!(columns.iter().all(|sum| (sum - 1.0).abs() < 2e-6));
/// let grads = p.sqr()?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&scores).unwrap().dims(), [64, 10, 10]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_sinkhorn(
    scores: &Tensor,
    tau: impl Into<Temperature>,
    iterations: usize,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let key = Some(key.into());
    run(
        "gumbel_sinkhorn",
        false,
        scores,
        tau.into(),
        iterations,
        key,
    )
}

/// Sinkhorn's normalisation of `exp(scores / tau)`, without noise: the relaxed permutation of given scores.
///
/// * **Formula**: [`gumbel_sinkhorn`] with `g = 0`. In the limit of many iterations it is the doubly stochastic matrix `P` that
///   maximises `<P, scores> + tau entropy(P)`: the transport plan of entropy-regularised optimal transport between uniform
///   weights.
/// * **Shapes, dtypes, range and precision, gradient, errors**: as for [`gumbel_sinkhorn`].
/// * **Source**: Cuturi, "Sinkhorn distances", arXiv 1306.0895; Mena et al., arXiv 1802.08665.
/// * **PyTorch**: none; composed, `for _ in range(iterations): x = x.log_softmax(-1).log_softmax(-2)` and `x.exp()`.
///
/// ```
/// use candle_reparam::sinkhorn;
/// use candle_core::{Device, Tensor};
/// let scores = Tensor::new(&[[5f32, 0.0, 0.0], [0.0, 0.0, 5.0], [0.0, 5.0, 0.0]], &Device::Cpu)?;
/// let p = sinkhorn(&scores, 0.5, 20)?;
/// assert!(p.to_vec2::<f32>()?[1][2] > 0.99);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sinkhorn(scores: &Tensor, tau: impl Into<Temperature>, iterations: usize) -> Result<Tensor> {
    run("sinkhorn", false, scores, tau.into(), iterations, None)
}

/// A sample of a permutation with the gradient of its relaxation: straight-through Gumbel-Sinkhorn.
///
/// * **Formula**: forward, the permutation matrix `P` that maximises `<P, scores + gumbel(scores.shape(), key)>`; backward, the
///   gradient of `gumbel_sinkhorn(scores, tau, iterations, key)`: the same noise, drawn again from the key.
/// * **Shapes**: `(..., n, n)`, any layout; the result has the shape, dtype and device of `scores`.
/// * **Dtypes**: f32, f64, f16 and bf16.
/// * **Range and precision**: exactly 0 and 1, one 1 in each row and each column. The assignment is exact (Jonker-Volgenant, `O(n^3)`),
///   computed in f64 from the scores before any rounding to a half type, on the tensor's own device and in one order of operations, so that all
///   devices choose the same permutation. A score of -inf is never chosen. A matrix with NaN or +inf, or of whose permutations each
///   has an entry of -inf, is NaN, and no other is.
/// * **Gradient**: that of the relaxed sample at the same noise, bit for bit, to the scores and to a `tau` tensor; biased with
///   respect to the permutation's own expectation, the less so the smaller `tau`. `tau` and `iterations` matter to it alone.
/// * **Errors**: as for [`gumbel_sinkhorn`].
/// * **Source**: Mena et al., arXiv 1802.08665; Jonker, Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
///   assignment problems", 1987; Bengio, Léonard, Courville, arXiv 1308.3432.
/// * **PyTorch**: none; composed, `scipy.optimize.linear_sum_assignment(noisy, maximize=True)` for each matrix, on the host.
///
/// ```
/// use candle_reparam::{Key, gumbel_sinkhorn_st};
/// use candle_core::{DType, Device, Tensor, Var};
/// let scores = Var::zeros((8, 5, 5), DType::F32, &Device::Cpu)?;
/// let p = gumbel_sinkhorn_st(&scores, 1.0, 20, Key::new(42, 0))?;
/// assert_eq!(p.sum(2)?.flatten_all()?.to_vec1::<f32>()?, [1.0; 40]);
/// let weights = Tensor::arange(0f32, 25.0, &Device::Cpu)?.sin()?.reshape((1, 5, 5))?;
/// assert!(p.broadcast_mul(&weights)?.sum_all()?.backward()?.get(&scores).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gumbel_sinkhorn_st(
    scores: &Tensor,
    tau: impl Into<Temperature>,
    iterations: usize,
    key: impl Into<KeySource>,
) -> Result<Tensor> {
    let key = Some(key.into());
    run(
        "gumbel_sinkhorn_st",
        true,
        scores,
        tau.into(),
        iterations,
        key,
    )
}

/// The permutation with the largest sum of scores, with the gradient of `sinkhorn`: [`gumbel_sinkhorn_st`] without noise, for
/// evaluation and for models that choose the best permutation rather than draw one.
///
/// * **Formula**: forward, the permutation matrix `P` that maximises `<P, scores>`, the limit of [`sinkhorn`] as `tau` falls to 0 and the iterations
///   grow; backward, the gradient of `sinkhorn(scores, tau, iterations)`.
/// * **Shapes, dtypes, range and precision, gradient, errors, source**: as for [`gumbel_sinkhorn_st`]. Where several permutations have
///   the largest sum, one of them, the same on every device.
/// * **PyTorch**: none; `scipy.optimize.linear_sum_assignment(scores, maximize=True)` for each matrix, on the host.
///
/// ```
/// use candle_reparam::sinkhorn_st;
/// use candle_core::{Device, Tensor};
/// // Each row's best entry is in column 0; together they do best to share.
/// let scores = Tensor::new(&[[2f32, 1.0, 0.0], [3.0, 0.0, 0.0], [4.0, 3.0, 0.0]], &Device::Cpu)?;
/// let p = sinkhorn_st(&scores, 1.0, 20)?;
/// assert_eq!(p.to_vec2::<f32>()?, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sinkhorn_st(
    scores: &Tensor,
    tau: impl Into<Temperature>,
    iterations: usize,
) -> Result<Tensor> {
    run("sinkhorn_st", true, scores, tau.into(), iterations, None)
}

fn run(
    name: &'static str,
    hard: bool,
    scores: &Tensor,
    tau: Temperature,
    iterations: usize,
    key: Option<KeySource>,
) -> Result<Tensor> {
    check::tensor(name, "scores", scores)?;
    if let Some(key) = &key {
        check::key_source(name, key, scores.device())?;
    }
    match *scores.dims() {
        [.., 0, 0] => bail!(
            "{name}: scores have shape {:?}; their matrices are empty, there is nothing to permute",
            scores.dims()
        ),
        [.., rows, columns] if rows == columns => {}
        _ => bail!(
            "{name}: scores have shape {:?}, expected square matrices (..., n, n)",
            scores.dims()
        ),
    }
    if iterations == 0 || iterations > MOST_ITERATIONS {
        bail!("{name}: iterations is {iterations}, expected 1 to {MOST_ITERATIONS}")
    }
    let rank = scores.rank();
    let tau = tau.check_over(name, ("scores", scores), "matrix", rank - 2..rank)?;
    let op = Sinkhorn {
        name,
        hard,
        iterations,
        key,
    };
    apply(scores, &tau, op)
}

/// The number of a tensor's matrices, and their size.
fn matrices_of(layout: &Layout) -> (usize, usize) {
    let dims = layout.dims();
    let batch = &dims[..dims.len() - 2];
    (batch.iter().product(), dims[dims.len() - 1])
}

/// One element a matrix.
fn tau_shape(layout: &Layout) -> Shape {
    let mut dims = layout.dims().to_vec();
    let rank = dims.len();
    dims[rank - 2..].fill(1);
    dims.into()
}

#[derive(Clone)]
struct Sinkhorn {
    name: &'static str,
    /// Whether the forward result is the permutation.
    hard: bool,
    iterations: usize,
    /// None without noise.
    key: Option<KeySource>,
}

impl Sinkhorn {
    fn key_now(&self) -> Result<Option<Key>> {
        self.key.as_ref().map(KeySource::now).transpose()
    }
}

impl Tempered for Sinkhorn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu(&self, input: (&CpuStorage, &Layout), tau: TauArg) -> Result<(CpuStorage, Shape)> {
        let key = self.key_now()?;
        cpu::forward(self.name, self.hard, self.iterations, key, input, tau)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, input: (&CudaStorage, &Layout), tau: Tau) -> Result<(CudaStorage, Shape)> {
        cuda::forward(self, input, tau)
    }

    fn backward(
        &self,
        scores: &Tensor,
        tau: TauTensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<Gradients> {
        // A pass for each: the gradients of the temperatures are not rounded to a half type, those of the scores are.
        gradients(scores, tau, |target| {
            let op = self.clone();
            apply_pair(scores, grad, tau, Gradient { op, target })
        })
    }
}

/// The backward pass, relaxed and straight-through: of scores, the result's gradient and perhaps temperatures.
struct Gradient {
    op: Sinkhorn,
    target: Target,
}

impl TemperedPair for Gradient {
    fn name(&self) -> &'static str {
        self.op.name
    }

    fn cpu(
        &self,
        scores: (&CpuStorage, &Layout),
        grad: (&CpuStorage, &Layout),
        tau: TauArg,
    ) -> Result<(CpuStorage, Shape)> {
        let (name, iterations, key) = (self.op.name, self.op.iterations, self.op.key_now()?);
        cpu::gradient(name, self.target, iterations, key, scores, grad, tau)
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        scores: (&CudaStorage, &Layout),
        grad: (&CudaStorage, &Layout),
        tau: Tau,
    ) -> Result<(CudaStorage, Shape)> {
        cuda::gradient(&self.op, self.target, scores, grad, tau)
    }
}
