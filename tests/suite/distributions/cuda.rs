//! The CUDA device against the CPU. Without a device there is nothing to compare.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::Key;
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence,
    Logistic, LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli,
    RelaxedOneHotCategorical, Reparameterized, Validation,
};

use crate::support::data::{self, FLOATS};
use crate::support::devices::cuda;
use crate::support::refused;

const KEY: Key = Key::new(8, 9);

/// Of candle's own ops: `candle_nn`'s has no CUDA kernel in this build.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

/// The results of `f` on both devices, and its gradients to `a` and `b`: within `1e-5` of the largest.
#[track_caller]
fn close(label: &str, dtype: DType, f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) {
    let Some(device) = cuda() else { return };
    let run = |device: &Device| -> Result<Vec<Tensor>> {
        let a = Var::from_tensor(&data::random((2, 3, 4), 1, 1.0, dtype, device))?;
        let b = Var::from_tensor(&data::random((3, 4), 2, 0.4, dtype, device).exp()?)?;
        let y = f(&a, &b)?;
        let mut all = vec![y.clone()];
        if y.track_op() {
            let grads = y.sum_all()?.backward()?;
            all.extend([&a, &b].into_iter().filter_map(|v| grads.get(v).cloned()));
        }
        Ok(all)
    };
    let (want, got) = (run(&Device::Cpu).unwrap(), run(&device).unwrap());
    assert_eq!(want.len(), got.len(), "{label}: gradients");
    for (which, (want, got)) in want.iter().zip(&got).enumerate() {
        assert!(got.device().is_cuda(), "{label}");
        assert_eq!(
            (got.dims(), got.dtype()),
            (want.dims(), want.dtype()),
            "{label}"
        );
        let (want, got) = (data::values(want), data::values(got));
        let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let rounding = match dtype {
            DType::F16 => 2e-3,
            DType::BF16 => 2e-2,
            _ => 1e-5,
        };
        for i in 0..want.len() {
            assert!(
                (got[i] - want[i]).abs() <= rounding * largest || got[i] == want[i],
                "{label} {dtype:?}, result {which}, entry {i}: {:e}, not {:e}",
                got[i],
                want[i]
            );
        }
    }
}

#[test]
fn densities_and_their_gradients() {
    for dtype in FLOATS {
        close("normal", dtype, |a, b| {
            Normal::new(a, b)?.log_prob(&a.affine(0.5, 0.1)?)
        });
        close("gaussian", dtype, |a, b| {
            Normal::from_log_var(a, b)?.log_prob(&a.affine(0.5, 0.1)?)
        });
        close("gumbel", dtype, |a, b| {
            Gumbel::new(a, b)?.log_prob(&a.affine(0.5, 0.1)?)
        });
        close("logistic", dtype, |a, b| {
            Logistic::new(a, b)?.log_prob(&a.affine(0.5, 0.1)?)
        });
        close("bernoulli", dtype, |a, _| {
            let x = a.detach().gt(&a.zeros_like()?)?.to_dtype(dtype)?;
            Bernoulli::from_logits(a)?.log_prob(&x)
        });
        close("bernoulli from probs", dtype, |a, b| {
            let p = sigmoid(b)?;
            let x = a.detach().gt(&a.zeros_like()?)?.to_dtype(dtype)?;
            Bernoulli::from_probs(&p)?.log_prob(&x)
        });
        close("categorical", dtype, |a, _| {
            let p = Categorical::from_logits(a)?;
            p.log_prob(&p.sample_n(5, KEY)?)
        });
        close("categorical from probs", dtype, |_, b| {
            let p = Categorical::from_probs(b)?;
            p.log_prob(&p.sample_n(5, KEY)?)
        });
        close("one-hot", dtype, |a, _| {
            let p = OneHotCategorical::from_logits(a)?;
            p.log_prob(&p.sample_n(5, KEY)?)
        });
        close("concrete in logs", dtype, |a, b| {
            let x = candle_reparam::tempered_log_softmax(&a.detach(), 1.0, 2)?;
            ExpRelaxedOneHotCategorical::new(a, &b.narrow(1, 0, 1)?)?.log_prob(&x)
        });
        close("concrete", dtype, |a, b| {
            let y = candle_reparam::tempered_softmax(&a.detach(), 1.0, 2)?;
            RelaxedOneHotCategorical::new(a, &b.narrow(1, 0, 1)?)?.log_prob(&y)
        });
        close("relaxed bernoulli", dtype, |a, b| {
            let y = sigmoid(&a.detach())?;
            RelaxedBernoulli::from_logits(a, b)?.log_prob(&y)
        });
        close("its logit", dtype, |a, b| {
            LogitRelaxedBernoulli::from_logits(a, b)?.log_prob(&a.affine(0.5, 0.1)?)
        });
    }
}

#[test]
fn samples_and_their_gradients() {
    for dtype in FLOATS {
        close("normal", dtype, |a, b| Normal::new(a, b)?.rsample_n(3, KEY));
        close("gaussian", dtype, |a, b| {
            Normal::from_log_var(a, b)?.rsample_n(3, KEY)
        });
        close("gumbel", dtype, |a, b| Gumbel::new(a, b)?.rsample_n(3, KEY));
        close("logistic", dtype, |a, b| {
            Logistic::new(a, b)?.rsample_n(3, KEY)
        });
        close("coin", dtype, |a, _| {
            Bernoulli::from_logits(a)?.sample_n(3, KEY)
        });
        close("classes", dtype, |a, _| {
            Categorical::from_logits(a)?.sample_n(3, KEY)
        });
        close("one-hot", dtype, |a, _| {
            OneHotCategorical::from_logits(a)?.straight_through(3, 0.7, KEY)
        });
        close("concrete", dtype, |a, b| {
            RelaxedOneHotCategorical::new(a, &b.narrow(1, 0, 1)?)?.rsample_n(3, KEY)
        });
        close("concrete in logs", dtype, |a, b| {
            ExpRelaxedOneHotCategorical::new(a, &b.narrow(1, 0, 1)?)?.rsample_n(3, KEY)
        });
        close("relaxed coin", dtype, |a, b| {
            RelaxedBernoulli::from_logits(a, b)?.rsample_n(3, KEY)
        });
        close("its logit", dtype, |a, b| {
            LogitRelaxedBernoulli::from_logits(a, b)?.rsample_n(3, KEY)
        });
    }
}

#[test]
fn entropies_divergences_and_moments() {
    for dtype in [DType::F32, DType::BF16] {
        close("normal", dtype, |a, b| {
            Normal::new(a, b)?.kl_divergence(&Normal::new(b, b)?)
        });
        close("gaussian", dtype, |a, b| {
            Normal::from_log_var(a, b)?.kl_divergence(&Normal::from_log_var(b, a)?)
        });
        close("gumbel", dtype, |a, b| {
            Gumbel::new(a, b)?.kl_divergence(&Gumbel::new(b, b)?)
        });
        close("coin", dtype, |a, b| {
            Bernoulli::from_logits(a)?.kl_divergence(&Bernoulli::from_logits(b)?)
        });
        close("classes", dtype, |a, b| {
            Categorical::from_logits(a)?.kl_divergence(&Categorical::from_logits(b)?)
        });
        close("entropy of coins", dtype, |a, _| {
            Bernoulli::from_logits(a)?.entropy()
        });
        close("entropy of classes", dtype, |a, _| {
            Categorical::from_logits(a)?.entropy()
        });
        close("entropy", dtype, |a, b| Normal::new(a, b)?.entropy());
        close("mode of classes", dtype, |a, _| {
            Categorical::from_logits(a)?.mode()
        });
        close("mode", dtype, |a, _| {
            OneHotCategorical::from_logits(a)?.mode()
        });
        close("mode of coins", dtype, |a, _| {
            Bernoulli::from_logits(a)?.mode()
        });
        close("variance", dtype, |a, _| {
            Bernoulli::from_logits(a)?.variance()
        });
        close("variance of one-hots", dtype, |a, _| {
            OneHotCategorical::from_logits(a)?.variance()
        });
    }
}

#[test]
fn values_are_looked_at_where_asked_for() {
    let Some(device) = cuda() else { return };
    let make = |v: f64| data::tensor(&[0.5, v], 2, DType::F32, &device);
    // by default the program does not wait for the device
    let p = Normal::new(&make(0.0), &make(-1.0)).unwrap();
    refused(
        p.clone().with_validation(Validation::Always),
        "Normal",
        &["scale", "-1", "[1]"],
    );
    assert!(data::values(&p.log_prob(&make(1.0)).unwrap())[1].is_nan());
    let classes = Categorical::from_logits(&make(0.0)).unwrap();
    let index = Tensor::new(&[0_u32, 7, u32::MAX], &device).unwrap();
    let l = data::values(&classes.log_prob(&index).unwrap());
    assert!(
        l[0].is_finite() && l[1..] == [f64::NEG_INFINITY; 2],
        "{l:?}"
    );
    let checked = classes.with_validation(Validation::Always).unwrap();
    refused(
        checked.log_prob(&index),
        "Categorical",
        &["the value", "7", "[1]"],
    );
}
