//! The temperature argument: a number, or a tensor that receives its gradient.

use crate::check;
use candle_core::{DType, Result, Tensor, Var, bail};
use std::ops::Range;

/// The temperature `tau` of a relaxed op: a number, or a tensor that then receives its gradient.
///
/// A tensor has one element, or is broadcastable over the logits with size 1 in the dim that the op reduces over: for
/// logits of shape (B, T, K) and the last dim, (1), (T, 1), (B, 1, 1) and (B, T, 1) will do. It has the logits' dtype and
/// device. Every value must be finite and above 0, which the ops check. In ops of single elements, such as
/// [`binary_concrete`](crate::binary_concrete), a tensor may have any shape that broadcasts to that of the logits.
///
/// ```
/// use candle_reparam::{Key, gumbel_softmax};
/// use candle_core::{D, DType, Device, Tensor, Var};
/// let logits = Tensor::zeros((4, 10), DType::F32, &Device::Cpu)?;
/// gumbel_softmax(&logits, 0.5, D::Minus1, Key::new(1, 0))?;
/// let tau = Var::new(&[[0.5f32], [1.0], [2.0], [4.0]], &Device::Cpu)?; // one temperature a row, learned
/// let y = gumbel_softmax(&logits, &tau, D::Minus1, Key::new(1, 0))?;
/// let grads = y.sqr()?.sum_all()?.backward()?;
/// assert_eq!(grads.get(&tau).unwrap().dims(), [4, 1]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Temperature(Value);

#[derive(Clone, Debug)]
enum Value {
    Fixed(f64),
    Learned(Tensor),
}

impl From<f64> for Temperature {
    fn from(tau: f64) -> Self {
        Self(Value::Fixed(tau))
    }
}

impl From<f32> for Temperature {
    fn from(tau: f32) -> Self {
        Self(Value::Fixed(f64::from(tau)))
    }
}

impl From<&Tensor> for Temperature {
    fn from(tau: &Tensor) -> Self {
        Self(Value::Learned(tau.clone()))
    }
}

impl From<Tensor> for Temperature {
    fn from(tau: Tensor) -> Self {
        Self(Value::Learned(tau))
    }
}

impl From<&Var> for Temperature {
    fn from(tau: &Var) -> Self {
        Self(Value::Learned(tau.as_tensor().clone()))
    }
}

/// A temperature that was checked against its logits.
pub(crate) enum Checked {
    Fixed(f64),
    /// One value a row, in the logits' shape with 1 in the row dim; in an op of single elements, any shape that broadcasts.
    Rows(Tensor),
}

impl Temperature {
    /// The same temperature with its tensor seen in another shape.
    pub(crate) fn reshaped(self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self(match self.0 {
            Value::Fixed(tau) => Value::Fixed(tau),
            Value::Learned(tau) => Value::Learned(f(&tau)?),
        }))
    }

    /// Checks the values, and brings a tensor to one element a row; candle's own backward then sums its gradient back.
    pub(crate) fn check(self, op: &str, logits: &Tensor, dim: usize) -> Result<Checked> {
        self.check_over(op, ("logits", logits), "row", dim..dim + 1)
    }

    /// The same for an op that reduces over several dims: one element a block of them, called `block` in messages.
    pub(crate) fn check_over(
        self,
        op: &str,
        input: (&str, &Tensor),
        block: &str,
        dims: Range<usize>,
    ) -> Result<Checked> {
        let mut row_shape = input.1.dims().to_vec();
        row_shape[dims].fill(1);
        let what = format!("one value a {block} of the {}", input.0);
        let tau = match self.fitting(op, input, &row_shape, &what)? {
            Value::Fixed(tau) => return Ok(Checked::Fixed(tau)),
            Value::Learned(tau) => tau,
        };
        // Its gradient is summed over rows, which a half type is too coarse for; the cast brings it back at the end.
        let tau = match tau.dtype() {
            DType::F16 | DType::BF16 => tau.to_dtype(DType::F32)?,
            _ => tau,
        };
        Ok(Checked::Rows(tau.broadcast_as(row_shape)?))
    }

    /// The same for an op of single elements: a tensor keeps a shape of its own that broadcasts to that of the logits.
    pub(crate) fn check_elements(self, op: &str, logits: &Tensor) -> Result<Checked> {
        Ok(
            match self.fitting(op, ("logits", logits), logits.dims(), "that of the logits")? {
                Value::Fixed(tau) => Checked::Fixed(tau),
                Value::Learned(tau) => Checked::Rows(tau),
            },
        )
    }

    /// Checks the values, and that a tensor broadcasts to `shape`; one of more dims becomes a scalar.
    fn fitting(
        self,
        op: &str,
        input: (&str, &Tensor),
        shape: &[usize],
        what: &str,
    ) -> Result<Value> {
        let tau = match self.0 {
            Value::Fixed(tau) => {
                check::tau(op, tau)?;
                return Ok(Value::Fixed(tau));
            }
            Value::Learned(tau) => tau,
        };
        check::placed_alike(op, ("tau", &tau), (input.0, input.1))?;
        let fits = tau.rank() <= shape.len()
            && tau
                .dims()
                .iter()
                .rev()
                .zip(shape.iter().rev())
                .all(|(&t, &r)| t == r || t == 1);
        if tau.elem_count() != 1 && !fits {
            bail!(
                "{op}: tau has shape {:?}, expected one element or a shape that broadcasts to {shape:?}, {what}",
                tau.dims()
            )
        }
        let values = tau.detach().to_dtype(DType::F64)?.flatten_all()?;
        for value in values.to_vec1::<f64>()? {
            check::tau(op, value)?;
        }
        Ok(Value::Learned(if fits { tau } else { tau.reshape(())? }))
    }
}
