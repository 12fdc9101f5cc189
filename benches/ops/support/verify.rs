//! Checks that a result is right before it is timed: a fast wrong answer is worth nothing.
//!
//! The references are the composed candle expressions in f64, on the tensors' own device, in pieces of rows so that a
//! wide shape does not need gigabytes. Each check says what it saw, and refuses a reference that is zero where everything would agree with it.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use candle_reparam::Key;

use super::{DIM, input, op::vars, shapes::Shape};

/// Of a forward result, relative to the row's largest entry: f32 rounding of arguments and exponentials.
const FORWARD: f64 = 1e-5;
/// Of a gradient, relative to the row's largest entry plus a hundredth of the tensor's: in a row that is nearly
/// one-hot the gradient is a difference of numbers that agree in most of their digits.
const GRADIENT: f64 = 2e-4;
/// Of results that are rounded to 16 bits (bf16 keeps 8 of them), relative to the row's largest entry.
const FORWARD_16: f64 = 4e-3;
/// Of their gradients, relative to the row's largest entry plus the tensor's: they are computed from a rounded result.
const GRADIENT_16: f64 = 1.6e-2;

/// Of a tensor too large to be checked whole in little time, this many pieces, from the first to the last.
const PIECES: usize = 16;
const PIECE: usize = 1 << 20;

/// A function of an op's arguments, written in plain candle.
pub type Composed = fn(&[Tensor]) -> candle_core::Result<Tensor>;

/// The forward result of `got`, against the composed expression of `inputs` in f64.
pub fn forward(got: &Tensor, inputs: &[Tensor], composed: Composed) -> Result<()> {
    for piece in pieces(&inputs[0])? {
        let want = composed(&piece.of_all(inputs)?)?;
        let tolerance = if is_short(got) { FORWARD_16 } else { FORWARD };
        rows_agree("forward", &piece.of(got)?, &want, tolerance, 0.)?;
    }
    Ok(())
}

/// What a backward kernel made of `inputs`, against the composed expression of them in f64.
#[cfg(feature = "cuda")]
pub fn backward_kernel(got: &Tensor, inputs: &[Tensor], composed: Composed) -> Result<()> {
    for piece in pieces(&inputs[0])? {
        let want = composed(&piece.of_all(inputs)?)?;
        gradients_agree("gradient", &piece.of(got)?, &want, is_short(got))?;
    }
    Ok(())
}

/// The gradients that reach `inputs` through `op`, against those through the composed expression in f64, both for a loss
/// that weighs every output differently (the plain sum of a softmax has no gradient at all).
///
/// `noise` is passed to the composed expression behind the inputs, as a constant.
pub fn gradient(
    inputs: &[Tensor],
    noise: &[Tensor],
    op: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
    composed: Composed,
) -> Result<()> {
    let tracked = vars(inputs)?;
    let output = op(&tracked)?;
    let weights = weights(&output)?;
    let grads = (&output * &weights)?.sum_all()?.backward()?;
    for piece in pieces(&inputs[0])? {
        let reference_vars = vars(&piece.of_all(inputs)?)?;
        let mut arguments = reference_vars.clone();
        arguments.extend(piece.of_all(noise)?);
        let loss = (composed(&arguments)? * piece.of(&weights)?)?;
        let want = loss.sum_all()?.backward()?;
        for (i, (var, reference)) in tracked.iter().zip(&reference_vars).enumerate() {
            let got = grads.get(var);
            ensure!(got.is_some(), "argument {i} got no gradient");
            let want = want.get(reference);
            ensure!(
                want.is_some(),
                "the reference gave argument {i} no gradient"
            );
            let (Some(got), Some(want)) = (got, want) else {
                unreachable!()
            };
            let what = format!("gradient of argument {i}");
            gradients_agree(&what, &piece.of(got)?, want, is_short(got))?;
        }
    }
    Ok(())
}

fn gradients_agree(what: &str, got: &Tensor, want: &Tensor, short: bool) -> Result<()> {
    let largest = max_abs(want)?;
    if short {
        rows_agree(what, got, want, GRADIENT_16, largest)
    } else {
        rows_agree(what, got, want, GRADIENT, 0.01 * largest)
    }
}

fn is_short(tensor: &Tensor) -> bool {
    tensor.dtype().size_in_bytes() == 2
}

/// Weights of the loss: normal, like the output.
fn weights(output: &Tensor) -> Result<Tensor> {
    let dims = output.dims();
    let shape = Shape {
        rows: dims[0],
        len: dims[1..].iter().product(),
    };
    let weights = input(shape, 100)?.reshape(dims)?;
    Ok(weights
        .to_dtype(output.dtype())?
        .to_device(output.device())?)
}

/// Some rows of every tensor of a case.
struct Piece {
    start: usize,
    rows: usize,
}

fn pieces(like: &Tensor) -> Result<Vec<Piece>> {
    let (rows, len) = like.dims2()?;
    let step = PIECE.div_ceil(len);
    let all = rows.div_ceil(step);
    let picked = all.min(PIECES);
    Ok((0..picked)
        .map(|i| {
            // The first and the last are always among them.
            let start = step * (i * (all - 1) / (picked - 1).max(1));
            Piece {
                start,
                rows: step.min(rows - start),
            }
        })
        .collect())
}

impl Piece {
    fn of(&self, tensor: &Tensor) -> Result<Tensor> {
        let rows = tensor.narrow(0, self.start, self.rows)?;
        Ok(rows.to_dtype(DType::F64)?)
    }

    fn of_all(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        tensors.iter().map(|t| self.of(t)).collect()
    }
}

fn max_abs(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// Panics nowhere, passes nothing by default: a NaN, a row of zeros in the reference or a difference above
/// `tolerance * (largest |want| of the row + floor)` is an error that names the row.
pub fn rows_agree(
    what: &str,
    got: &Tensor,
    want: &Tensor,
    tolerance: f64,
    floor: f64,
) -> Result<()> {
    ensure!(
        got.shape() == want.shape(),
        "{what}: shape {:?}, not {:?}",
        got.shape(),
        want.shape()
    );
    let rows = got.dim(0)?;
    let got = host(got)?;
    let want = host(want)?;
    let len = got.len() / rows;
    for (row, (got, want)) in got.chunks(len).zip(want.chunks(len)).enumerate() {
        let largest = want.iter().fold(0f64, |m, x| m.max(x.abs()));
        ensure!(
            largest > 0.,
            "{what}: row {row} of the reference is zero, so comparing with it shows nothing"
        );
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            // Written so that a NaN fails it.
            ensure!(
                (g - w).abs() <= tolerance * (largest + floor),
                "{what}: row {row}, element {i} is {g:e}, not {w:e} (largest of the row {largest:e})"
            );
        }
    }
    Ok(())
}

fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Lowest index of the row's largest entry, per row of the f32 `scores`.
pub fn argmax(scores: &Tensor) -> Result<Vec<u32>> {
    let len = scores.dim(DIM)?;
    let scores = scores.flatten_all()?.to_vec1::<f32>()?;
    Ok(scores
        .chunks(len)
        .map(|row| {
            let mut best = 0;
            for (i, x) in row.iter().enumerate() {
                if *x > row[best] {
                    best = i;
                }
            }
            best as u32
        })
        .collect())
}

/// `draw` must follow softmax(logits): over at least 4,096 draws, the mean log-probability of what was drawn and the
/// mean position within the cumulative distribution lie within six standard errors of their expectations.
///
/// The first catches draws that are too likely or too unlikely (an arg-max, a uniform draw), the second catches draws
/// shifted along the row.
pub fn follows_softmax(
    logits: &Tensor,
    draw: impl Fn(Key) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let (rows, len) = logits.dims2()?;
    let looked_at = rows.min((PIECES * PIECE).div_ceil(len));
    let distributions: Vec<Row> = host(&logits.narrow(0, 0, looked_at)?)?
        .chunks(len)
        .map(Row::new)
        .collect();
    let (mut log_p, mut position) = (Mean::default(), Mean::default());
    for repeat in 0..4096_usize.div_ceil(looked_at) {
        let index = draw(Key::new(0x0d4a, repeat as u64))?.to_vec1::<u32>()?;
        ensure!(index.len() == rows, "{} draws for {rows} rows", index.len());
        for (row, index) in distributions.iter().zip(index) {
            let i = index as usize;
            ensure!(i < len, "index {i} drawn from a row of {len}");
            log_p.add(row.log_p(i), row.log_p_mean, row.log_p_variance);
            position.add(row.position(i), 0.5, row.position_variance);
        }
    }
    log_p.check("mean log-probability of the draws")?;
    position.check("mean position of the draws in the cumulative distribution")
}

/// One row's distribution, in f64.
struct Row {
    cumulative: Vec<f64>,
    log_p_mean: f64,
    log_p_variance: f64,
    position_variance: f64,
}

impl Row {
    fn new(logits: &[f64]) -> Self {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut cumulative = Vec::with_capacity(logits.len() + 1);
        cumulative.push(0.);
        let mut sum = 0.;
        for x in logits {
            sum += (x - max).exp();
            cumulative.push(sum);
        }
        cumulative.iter_mut().for_each(|c| *c /= sum);
        let mut row = Self {
            cumulative,
            log_p_mean: 0.,
            log_p_variance: 0.,
            position_variance: 0.,
        };
        let p = |i: usize| row.cumulative[i + 1] - row.cumulative[i];
        let expect = |f: &dyn Fn(usize) -> f64| -> f64 {
            (0..logits.len())
                .filter(|&i| p(i) > 0.)
                .map(|i| p(i) * f(i))
                .sum()
        };
        let log_p_mean = expect(&|i| row.log_p(i));
        let log_p_variance = expect(&|i| (row.log_p(i) - log_p_mean).powi(2));
        let position_variance = expect(&|i| (row.position(i) - 0.5).powi(2));
        row.log_p_mean = log_p_mean;
        row.log_p_variance = log_p_variance;
        row.position_variance = position_variance;
        row
    }

    fn log_p(&self, i: usize) -> f64 {
        (self.cumulative[i + 1] - self.cumulative[i]).ln()
    }

    /// Middle of the element's interval of the cumulative distribution.
    fn position(&self, i: usize) -> f64 {
        0.5 * (self.cumulative[i + 1] + self.cumulative[i])
    }
}

/// The sum of independent terms beside the mean and variance that it should have.
#[derive(Default)]
pub struct Mean {
    sum: f64,
    expected: f64,
    variance: f64,
}

impl Mean {
    pub fn add(&mut self, value: f64, expected: f64, variance: f64) {
        self.sum += value;
        self.expected += expected;
        self.variance += variance;
    }

    pub fn check(&self, what: &str) -> Result<()> {
        let z = (self.sum - self.expected) / self.variance.sqrt();
        ensure!(z.abs() < 6., "{what} is {z:.1} standard errors away");
        Ok(())
    }
}

/// The mean and the variance of `draws` lie within six standard errors of a distribution with these moments.
/// `kurtosis` is the fourth central moment over the squared variance.
pub fn moments(draws: &Tensor, mean: f64, variance: f64, kurtosis: f64) -> Result<()> {
    let (mut first, mut second) = (Mean::default(), Mean::default());
    let draws = draws.flatten_all()?;
    for x in host(&draws.narrow(0, 0, draws.dim(0)?.min(PIECES * PIECE))?)? {
        first.add(x, mean, variance);
        let squared = (x - mean).powi(2);
        second.add(squared, variance, (kurtosis - 1.) * variance * variance);
    }
    first.check("mean of the noise")?;
    second.check("variance of the noise")
}
