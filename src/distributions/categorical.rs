//! A class for each element of the batch, as an index.

use super::formula::{divergence_terms, full, log_of, or, with_gradient};
use super::frame::{Frame, LOGIT, WEIGHT, over};
use super::{Distribution, KlDivergence, framed};
use crate::{KeySource, categorical, tempered_log_softmax};
use candle_core::{D, DType, Result, Shape, Tensor, bail};

/// A class from `softmax(logits)` over the last dim, as its index.
///
/// * **Shapes**: logits `(batch.., K)`; a single draw is a number, so the event shape is empty.
/// * **log_prob**: `log_softmax(logits)` at the index, a tensor of dtype u8, u32 or i64. On a CUDA device, where
///   [`Validation::Auto`](super::Validation) does not look at values, an index of `K` or above has log-probability -inf.
/// * **sample**: u32, through [`categorical`]: exact, one pass over the logits.
/// * **mean** and **variance** are errors: the values are labels.
/// * **Masks**: a logit of -inf is a class of probability 0, log-probability -inf and gradient 0; it adds nothing to
///   entropy and divergence.
/// * **PyTorch**: `torch.distributions.Categorical`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_reparam::Key;
/// use candle_reparam::distributions::{Categorical, Distribution};
/// let logits = Tensor::new(&[[1f32, 1., f32::NEG_INFINITY], [0., -1e4, -1e4]], &Device::Cpu)?;
/// let classes = Categorical::from_logits(&logits)?;
/// let index = classes.sample_n(5, Key::new(42, 0))?; // (5, 2)
/// assert_eq!(classes.log_prob(&index)?.to_vec2::<f32>()?, [[-2f32.ln(), 0.0]; 5]);
/// assert_eq!(classes.entropy()?.to_vec1::<f32>()?, [2f32.ln(), 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Categorical {
    frame: Frame,
    classes: Classes,
}

impl Categorical {
    /// From logits, unnormalised log-probabilities, over the last dim.
    ///
    /// Errors: no dim, or an empty last one; a dtype that is not supported; a logit that is NaN or +inf, or a row of
    /// masks alone.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_reparam::distributions::{Categorical, Distribution};
    /// let classes = Categorical::from_logits(&Tensor::zeros((64, 10), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!((classes.batch_shape(), classes.event_shape()), (&[64][..], &[][..]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_logits(logits: &Tensor) -> Result<Self> {
        let (frame, classes) = Classes::from_logits("Categorical", logits)?;
        Self::over_classes(frame, classes)
    }

    /// From probabilities over the last dim, normalised here. A class of probability 0 is a mask, with gradient 0.
    ///
    /// Errors: no dim, or an empty last one; a dtype that is not supported; a negative or infinite probability, or a row
    /// that sums to 0.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Categorical;
    /// let classes = Categorical::from_probs(&Tensor::new(&[1f64, 0., 3.], &Device::Cpu)?)?;
    /// assert_eq!(classes.probs()?.to_vec1::<f64>()?, [0.25, 0.0, 0.75]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_probs(probs: &Tensor) -> Result<Self> {
        let (frame, classes) = Classes::from_probs("Categorical", probs)?;
        Self::over_classes(frame, classes)
    }

    /// The probabilities, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Categorical;
    /// let classes = Categorical::from_logits(&Tensor::new(&[0f32, 3f32.ln()], &Device::Cpu)?)?;
    /// assert_eq!(classes.probs()?.to_vec1::<f32>()?, [0.25, 0.75]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn probs(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.probs()?)
    }

    /// The log-probabilities, normalised, with gradient.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_reparam::distributions::Categorical;
    /// let classes = Categorical::from_logits(&Tensor::new(&[7f32, 7.], &Device::Cpu)?)?;
    /// assert_eq!(classes.log_probs()?.to_vec1::<f32>()?, [-2f32.ln(); 2]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn log_probs(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.log_probs()?)
    }

    fn over_classes(mut frame: Frame, classes: Classes) -> Result<Self> {
        // A draw is an index: the classes' dim is no dim of the event.
        frame.event.clear();
        Ok(Self { frame, classes })
    }

    fn check(&self) -> Result<()> {
        self.classes.check(&self.frame)
    }
}

impl Distribution for Categorical {
    framed!();

    fn draw(&self, sample_shape: &[usize], key: KeySource) -> Result<Tensor> {
        let mut dims = self.frame.sample_dims(sample_shape)?;
        dims.push(self.classes.count()?);
        let logits = over(&self.classes.logits.detach(), &dims)?;
        categorical(&logits, D::Minus1, key)
    }

    fn log_prob(&self, value: &Tensor) -> Result<Tensor> {
        let (name, classes) = (self.frame.name, self.classes.count()?);
        match value.dtype() {
            DType::U8 | DType::U32 | DType::I64 => {}
            other => bail!(
                "{name}: the value has dtype {other:?}, expected the index of a class, of dtype u8, u32 or i64"
            ),
        }
        let dims = self.frame.value_dims(value)?;
        let expected = format!("the index of a class, 0 to {}", classes - 1);
        let ok = |x: f64| (0.0..classes as f64).contains(&x);
        self.frame.require("the value", value, (&expected, ok))?;
        let index = over(&value.to_dtype(DType::I64)?, &dims)?.contiguous()?;
        let zero = index.zeros_like()?;
        let inside = index
            .ge(&zero)?
            .mul(&index.lt(&zero.affine(0.0, classes as f64)?)?)?;
        let index = index.to_dtype(DType::U32)?;
        // The device's gather stops the program at an index that is out of range.
        let index = inside.where_cond(&index, &index.zeros_like()?)?;
        let log_probs = self.classes.log_probs()?;
        let chosen = gather(&log_probs, &index, &self.frame.batch, classes)?;
        let chosen = or(&inside, &chosen, f64::NEG_INFINITY)?;
        self.frame.rounded(&chosen)
    }

    fn entropy(&self) -> Result<Tensor> {
        self.frame.rounded(&self.classes.entropy()?)
    }

    fn mean(&self) -> Result<Tensor> {
        bail!("Categorical: there is no mean of labels; see OneHotCategorical")
    }

    fn variance(&self) -> Result<Tensor> {
        bail!("Categorical: there is no variance of labels; see OneHotCategorical")
    }

    /// The index of the likeliest class, u32; where several tie, one of them.
    fn mode(&self) -> Result<Tensor> {
        likeliest(&self.classes.logits)?.squeeze(D::Minus1)
    }

    fn expand(&self, batch_shape: impl Into<Shape>) -> Result<Self> {
        let frame = self.frame.expanded(batch_shape.into().dims())?;
        let classes = self.classes.expanded(&frame.batch)?;
        Ok(Self { frame, classes })
    }
}

impl KlDivergence for Categorical {
    fn kl_divergence(&self, other: &Self) -> Result<Tensor> {
        self.frame.common(&other.frame)?;
        let divergence = self.classes.divergence("Categorical", &other.classes)?;
        self.frame.rounded(&divergence)
    }
}

/// The index of the largest over the last dim, which is kept; of no rows, none, which candle's own refuses.
pub(crate) fn likeliest(logits: &Tensor) -> Result<Tensor> {
    if logits.elem_count() > 0 {
        return logits.detach().argmax_keepdim(D::Minus1);
    }
    let mut dims = logits.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = 1;
    }
    Tensor::zeros(dims, DType::U32, logits.device())
}

/// The one-hot of [`likeliest`], u8.
pub(crate) fn likeliest_one_hot(logits: &Tensor) -> Result<Tensor> {
    let classes = logits.dim(D::Minus1)? as u32;
    let classes = Tensor::arange(0, classes, logits.device())?;
    likeliest(logits)?.broadcast_eq(&classes)
}

/// `log_probs` (batch.., K) at indices (sample.., batch..).
fn gather(log_probs: &Tensor, index: &Tensor, batch: &[usize], classes: usize) -> Result<Tensor> {
    let dims = index.dims().to_vec();
    let samples = dims.len() - batch.len();
    if dims[samples..] != *batch {
        // The value broadens the batch itself.
        let full = [&dims[..], &[classes]].concat();
        let rows = over(log_probs, &full)?.contiguous()?;
        let last = dims.len();
        return rows.gather(&index.unsqueeze(last)?, last)?.squeeze(last);
    }
    // One row for all of its samples: rows (B, K), indices (B, S).
    let of_batch: usize = batch.iter().product();
    let of_samples: usize = dims[..samples].iter().product();
    let rows = log_probs.reshape((of_batch, classes))?;
    let index = index.reshape((of_samples, of_batch))?.t()?.contiguous()?;
    rows.gather(&index, 1)?.t()?.reshape(dims)
}

/// Logits over the last dim, wide: what the distributions over classes share.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    pub(super) logits: Tensor,
}

impl Classes {
    pub(super) fn from_logits(name: &'static str, logits: &Tensor) -> Result<(Frame, Self)> {
        let (frame, [logits]) = Frame::new(name, [("logits", logits)], 1)?;
        let classes = Self { logits };
        classes.check(&frame)?;
        Ok((frame, classes))
    }

    pub(super) fn from_probs(name: &'static str, probs: &Tensor) -> Result<(Frame, Self)> {
        let (frame, [probs]) = Frame::new(name, [("probs", probs)], 1)?;
        frame.require("probs", &probs, WEIGHT)?;
        frame.require_rows(
            "probs",
            || probs.detach().sum(D::Minus1),
            ("a finite number above 0", |sum| {
                sum > 0.0 && sum.is_finite()
            }),
        )?;
        let logits = log_of(name, &probs)?;
        Ok((frame, Self { logits }))
    }

    pub(super) fn check(&self, frame: &Frame) -> Result<()> {
        frame.require("logits", &self.logits, LOGIT)?;
        let proper = |sum: f64| sum > 0.0;
        frame.require_rows(
            "exp(logits - max)",
            || {
                let improper = crate::improper_rows(&self.logits.detach(), D::Minus1)?;
                improper.to_dtype(DType::F32)?.affine(-1.0, 1.0)
            },
            ("a number above 0, a class that is not masked", proper),
        )
    }

    pub(super) fn count(&self) -> Result<usize> {
        self.logits.dim(D::Minus1)
    }

    pub(super) fn log_probs(&self) -> Result<Tensor> {
        tempered_log_softmax(&self.logits, 1.0, D::Minus1)
    }

    pub(super) fn probs(&self) -> Result<Tensor> {
        crate::tempered_softmax(&self.logits, 1.0, D::Minus1)
    }

    pub(super) fn expanded(&self, batch: &[usize]) -> Result<Self> {
        let dims = [batch, &[self.count()?]].concat();
        Ok(Self {
            logits: over(&self.logits, &dims)?,
        })
    }

    pub(super) fn entropy(&self) -> Result<Tensor> {
        let logits = self.logits.detach();
        let l = tempered_log_softmax(&logits, 1.0, D::Minus1)?;
        let p = l.exp()?;
        // A class of probability 0 adds nothing, be its logarithm -inf.
        let none = p.eq(&p.zeros_like()?)?;
        let l = none.where_cond(&p, &l)?;
        let entropy = p.mul(&l)?.sum(D::Minus1)?.neg()?;
        let value = entropy.clone();
        with_gradient("entropy", &[&self.logits], value, move |_, grad| {
            let last = l.rank() - 1;
            let slope = l.broadcast_add(&entropy.unsqueeze(last)?)?.mul(&p)?.neg()?;
            slope.broadcast_mul(&grad.unsqueeze(last)?)
        })
    }

    /// `sum p (ln p - ln q)`, over the batch that the two broadcast to.
    pub(super) fn divergence(&self, name: &str, other: &Self) -> Result<Tensor> {
        let dims = super::frame::broadcast(self.logits.dims(), other.logits.dims());
        let dims = match dims {
            Some(dims) if self.count()? == other.count()? => dims,
            _ => bail!(
                "{name}: kl_divergence between logits of shapes {:?} and {:?}; expected batches that broadcast together \
                 and the same number of classes",
                self.logits.dims(),
                other.logits.dims()
            ),
        };
        let last = dims.len() - 1;
        let (a, b) = (over(&self.logits, &dims)?, over(&other.logits, &dims)?);
        let (ln_p, ln_q) = (
            tempered_log_softmax(&a.detach(), 1.0, last)?,
            tempered_log_softmax(&b.detach(), 1.0, last)?,
        );
        let (p, q, d) = (ln_p.exp()?, ln_q.exp()?, ln_q.sub(&ln_p)?);
        let divergence = divergence_terms(&p, &q, &d)?.sum(last)?;
        let infinite = divergence.eq(&full(&divergence, f64::INFINITY)?)?;
        let infinite = over(&infinite.unsqueeze(last)?, &dims)?;
        let value = divergence.clone();
        with_gradient("kl_divergence", &[&a, &b], value, move |argument, grad| {
            let grad = grad.unsqueeze(last)?;
            let slope = match argument {
                0 => {
                    let none = p.eq(&full(&p, 0.0)?)?;
                    let slope = d
                        .broadcast_add(&divergence.unsqueeze(last)?)?
                        .mul(&p)?
                        .neg()?;
                    none.where_cond(&p, &slope)?
                }
                _ => q.sub(&p)?,
            };
            // A mask stays one whatever the other logits do: it is +inf all around.
            let slope = infinite.where_cond(&slope.zeros_like()?, &slope)?;
            slope.broadcast_mul(&grad)
        })
    }
}
