//! Functions with gradients by formula, and the elementary functions that candle lacks or rounds badly.
//!
//! A density is computed from detached arguments and handed to [`with_gradient`] together with its derivatives in closed
//! form. Candle's own differentiation of the composed expression would go wrong in places: a mask makes `0 * inf`, the
//! kinks of `relu` and `abs` take slope 1, `exp` overflows in a branch that `where_cond` did not choose.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};
use std::sync::{Mutex, PoisonError};

/// The gradient of the argument with this index, given the gradient of the value.
type Gradient = Box<dyn Fn(usize, &Tensor) -> Result<Tensor> + Send + Sync>;

/// `value`, which was computed from `args` without tracking, as a function of `args` whose gradients are
/// `gradient(index, grad)`, of that argument's shape and dtype. Gradients are asked for where an argument tracks one
/// only.
///
/// Without an argument that tracks, `value` is returned as it is; else it is copied once, since candle has no way to
/// give a tensor that exists another history.
pub(super) fn with_gradient(
    name: &'static str,
    args: &[&Tensor],
    value: Tensor,
    gradient: impl Fn(usize, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !args.iter().any(|arg| arg.track_op()) {
        return Ok(value);
    }
    let value = match value.layout().contiguous_offsets() {
        Some((0, _)) => value,
        _ => value.force_contiguous()?,
    };
    let formula = Formula {
        name,
        value: Mutex::new(Some(value)),
        gradient: Box::new(gradient),
    };
    match args {
        [a] => a.apply_op1(formula),
        [a, b] => a.apply_op2(b, formula),
        [a, b, c] => a.apply_op3(b, c, formula),
        _ => bail!("{name}: {} arguments, expected 1 to 3", args.len()),
    }
}

struct Formula {
    name: &'static str,
    /// Taken by the forward pass, so that no second copy lives on.
    value: Mutex<Option<Tensor>>,
    gradient: Gradient,
}

impl Formula {
    fn value(&self) -> Result<Tensor> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        match value.take() {
            Some(value) => Ok(value),
            None => bail!("{}: applied twice", self.name),
        }
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.value()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => bail!("{}: the value is not where its arguments are", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.value()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => bail!("{}: the value is not where its arguments are", self.name),
        }
    }

    fn gradient(&self, index: usize, arg: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.detach();
        arg.track_op()
            .then(|| (self.gradient)(index, &grad))
            .transpose()
    }
}

impl CustomOp1 for Formula {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(0, arg, grad)
    }
}

impl CustomOp2 for Formula {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0, a, grad)?, self.gradient(1, b, grad)?))
    }
}

impl CustomOp3 for Formula {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((
            self.gradient(0, a, grad)?,
            self.gradient(1, b, grad)?,
            self.gradient(2, c, grad)?,
        ))
    }
}

/// A tensor like `t` that holds `value` everywhere.
pub(super) fn full(t: &Tensor, value: f64) -> Result<Tensor> {
    // Not through `t` itself, whose infinities would come along.
    t.zeros_like()?.affine(1.0, value)
}

/// `if condition { a } else { value }`, without gradient through the choice.
pub(super) fn or(condition: &Tensor, a: &Tensor, value: f64) -> Result<Tensor> {
    condition.where_cond(a, &full(a, value)?)
}

/// `ln(1 + y)` for `y > -1`, with the digits of a small `y` (Kahan): what rounding made of `1 + y` is in the quotient
/// too.
pub(super) fn log1p(y: &Tensor) -> Result<Tensor> {
    let u = y.affine(1.0, 1.0)?;
    let quotient = y.div(&u.affine(1.0, -1.0)?)?;
    let value = u.log()?.mul(&quotient)?;
    u.eq(&full(&u, 1.0)?)?.where_cond(y, &value)
}

/// `ln(1 + exp(x))`: neither overflows for a large `x` nor loses the digits of a very negative one.
pub(super) fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()?.add(&log1p(&x.abs()?.neg()?.exp()?)?)
}

/// `1 / (1 + exp(-x))`, with the digits of a very negative `x`.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

/// [`sigmoid`] as a function of `x`, with its gradient: `s(x) s(-x)`, which keeps its digits at both ends.
pub(super) fn sigmoid_of(name: &'static str, x: &Tensor) -> Result<Tensor> {
    let x_ = x.detach();
    with_gradient(name, &[x], sigmoid(&x_)?, move |_, grad| {
        grad.mul(&sigmoid(&x_)?.mul(&sigmoid(&x_.neg()?)?)?)
    })
}

/// `ln p` of a probability as a function of `p`, in which 0 is a mask: -inf, and gradient 0 where none arrives.
pub(super) fn log_of(name: &'static str, p: &Tensor) -> Result<Tensor> {
    let p_ = p.detach();
    with_gradient(name, &[p], p_.log()?, move |_, grad| {
        let none = grad.eq(&grad.zeros_like()?)?;
        none.where_cond(&grad.zeros_like()?, &grad.div(&p_)?)
    })
}

/// The log-density of the standard logistic at `z`: `-|z| - 2 ln(1 + exp(-|z|))`, finite for every finite `z`; its
/// derivative is `-tanh(z / 2)`.
pub(super) fn log_logistic_density(name: &'static str, z: &Tensor) -> Result<Tensor> {
    let z_ = z.detach();
    let a = z_.abs()?;
    let value = log1p(&a.neg()?.exp()?)?.affine(-2.0, 0.0)?.sub(&a)?;
    with_gradient(name, &[z], value, move |_, grad| {
        grad.mul(&z_.affine(0.5, 0.0)?.tanh()?.neg()?)
    })
}

/// The terms `p_k ln(p_k / q_k)` of a divergence, plus `q_k - p_k`, which sum to 0: each term is then at least 0, and
/// near `p = q`, where it is of second order, nothing cancels. From `p`, `q` and `d = ln q - ln p`.
pub(super) fn divergence_terms(p: &Tensor, q: &Tensor, d: &Tensor) -> Result<Tensor> {
    let last = d.rank();
    let d_column = d.unsqueeze(last)?;
    // (exp(d) - 1 - d) / 2, evaluated without cancellation.
    let half = crate::gaussian_kl(&d_column.zeros_like()?, &d_column, last)?;
    let near = p.mul(&half)?.affine(2.0, 0.0)?;
    // exp(d) may overflow where p is as small as that.
    let far = q.sub(p)?.sub(&p.mul(d)?)?;
    let terms = d.gt(&full(d, 1.0)?)?.where_cond(&far, &near)?;
    let none = p.eq(&p.zeros_like()?)?;
    none.where_cond(q, &terms)
}

/// `ln Gamma(1 + r)` for `r > 0` in f64, as a function of `r`: Stirling's series after seven steps of the recurrence.
pub(super) fn ln_gamma_1p(name: &'static str, r: &Tensor) -> Result<Tensor> {
    let r_ = r.detach();
    let (value, slope) = ln_gamma_1p_and_digamma(&r_)?;
    with_gradient(name, &[r], value, move |_, grad| grad.mul(&slope))
}

fn ln_gamma_1p_and_digamma(r: &Tensor) -> Result<(Tensor, Tensor)> {
    // The first terms of the series at 8 and above: the next are below 1e-15.
    const LN_GAMMA: [f64; 7] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
    ];
    const STEPS: u32 = 7;
    let y = r.affine(1.0, 1.0 + f64::from(STEPS))?;
    let inverse = y.recip()?;
    let square = inverse.sqr()?;
    let mut series = y.zeros_like()?;
    let mut slopes = y.zeros_like()?;
    for (n, c) in LN_GAMMA.iter().enumerate().rev() {
        // c y^-(2n + 1), whose derivative is -(2n + 1) c y^-(2n + 2)
        series = series.mul(&square)?.affine(1.0, *c)?;
        slopes = slopes
            .mul(&square)?
            .affine(1.0, -((2 * n + 1) as f64) * c)?;
    }
    let ln_y = y.log()?;
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    let mut value = y
        .affine(1.0, -0.5)?
        .mul(&ln_y)?
        .sub(&y)?
        .add(&series.mul(&inverse)?)?
        .affine(1.0, half_ln_tau)?;
    let mut slope = ln_y
        .sub(&inverse.affine(0.5, 0.0)?)?
        .add(&slopes.mul(&square)?)?;
    for step in 1..=STEPS {
        let x = r.affine(1.0, f64::from(step))?;
        value = value.sub(&x.log()?)?;
        slope = slope.sub(&x.recip()?)?;
    }
    Ok((value, slope))
}

/// `ln((n - 1)!)`.
pub(super) fn ln_gamma_of_count(n: usize) -> f64 {
    if n <= 64 {
        return (2..n).map(|k| (k as f64).ln()).sum();
    }
    let x = n as f64;
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    (x - 0.5) * x.ln() - x
        + half_ln_tau
        + (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * x * x)) / (x * x)) / x
}
