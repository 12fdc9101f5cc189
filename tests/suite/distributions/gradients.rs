//! Gradients to every argument against central differences in f64.

use candle_core::{Result, Tensor, Var};
use candle_reparam::Key;
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence,
    Logistic, LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli,
    RelaxedOneHotCategorical, Reparameterized, Validation,
};

use super::t;
use crate::support::data;
use crate::support::gradcheck::central;

/// `f`'s gradients to all `args`, weighed differently for each element of the result. Every argument must have an entry above
/// 1e-3, and every entry be within `1e-8` of the argument's largest.
#[track_caller]
fn check(label: &str, args: &[&Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let weighed = |args: &[Tensor]| -> Result<Tensor> {
        let y = f(args)?;
        let n = y.elem_count();
        let w = data::normals(n, 77, 1.0);
        y.flatten_all()?.mul(&t(&w, &[n]))?.sum_all()
    };
    let vars: Vec<Var> = args.iter().map(|a| Var::from_tensor(a).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = weighed(&tensors).unwrap().backward().unwrap();
    for (which, var) in vars.iter().enumerate() {
        let grad = grads
            .get(var)
            .unwrap_or_else(|| panic!("{label}: no gradient to argument {which}"));
        assert_eq!(
            (grad.dims(), grad.dtype()),
            (var.dims(), var.dtype()),
            "{label}"
        );
        let got = data::values(grad);
        let at = data::values(args[which]);
        let want: Vec<f64> = (0..at.len())
            .map(|i| {
                central(1e-3 * at[i].abs().clamp(0.05, 1.0), |d| {
                    let mut moved = at.clone();
                    moved[i] += d;
                    let mut all: Vec<Tensor> = args.iter().map(|a| (*a).clone()).collect();
                    all[which] = t(&moved, args[which].dims());
                    data::values(&weighed(&all).unwrap())[0]
                })
            })
            .collect();
        let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(
            largest > 1e-3,
            "{label}: the gradient to argument {which} says nothing"
        );
        for i in 0..at.len() {
            assert!(
                (got[i] - want[i]).abs() <= 1e-8 * largest,
                "{label}: argument {which}, entry {i}: {:e}, not {:e} (largest {largest:e})",
                got[i],
                want[i]
            );
        }
        // Only asked for where it is tracked: alone it is the same.
        let mut alone: Vec<Tensor> = args.iter().map(|a| (*a).clone()).collect();
        alone[which] = var.as_tensor().clone();
        let grads = weighed(&alone).unwrap().backward().unwrap();
        assert_eq!(data::values(grads.get(var).unwrap()), got, "{label} alone");
    }
}

fn random(seed: u64, shape: &[usize], scale: f64) -> Tensor {
    t(&data::normals(shape.iter().product(), seed, scale), shape)
}

fn positive(seed: u64, shape: &[usize]) -> Tensor {
    random(seed, shape, 0.5).exp().unwrap()
}

fn in_unit(seed: u64, shape: &[usize]) -> Tensor {
    candle_nn::ops::sigmoid(&random(seed, shape, 1.0)).unwrap()
}

fn on_simplex(seed: u64, shape: &[usize]) -> Tensor {
    candle_nn::ops::softmax(&random(seed, shape, 1.0), shape.len() - 1).unwrap()
}

/// Values are moved off the simplex or away from 0 and 1 by the differences.
fn free<P: Distribution>(p: Result<P>) -> Result<P> {
    p?.with_validation(Validation::Never)
}

#[test]
fn log_prob_on_the_line() {
    // Broadcast against each other, so that gradients have to be summed back.
    let (x, loc, scale) = (
        random(1, &[4, 2, 3], 2.0),
        random(2, &[2, 1], 1.0),
        positive(3, &[3]),
    );
    let log_var = random(4, &[3], 1.0);
    check("normal", &[&x, &loc, &scale], |a| {
        Normal::new(&a[1], &a[2])?.log_prob(&a[0])
    });
    check("normal from log-variance", &[&x, &loc, &log_var], |a| {
        Normal::from_log_var(&a[1], &a[2])?.log_prob(&a[0])
    });
    check("gumbel", &[&x, &loc, &scale], |a| {
        Gumbel::new(&a[1], &a[2])?.log_prob(&a[0])
    });
    check("logistic", &[&x, &loc, &scale], |a| {
        Logistic::new(&a[1], &a[2])?.log_prob(&a[0])
    });
}

#[test]
fn log_prob_of_coins() {
    let (x, logits) = (in_unit(1, &[4, 2, 3]), random(2, &[2, 3], 2.0));
    check("bernoulli", &[&x, &logits], |a| {
        free(Bernoulli::from_logits(&a[1]))?.log_prob(&a[0])
    });
    let probs = in_unit(3, &[2, 3]);
    check("bernoulli from probs", &[&x, &probs], |a| {
        Bernoulli::from_probs(&a[1])?.log_prob(&a[0])
    });
    // one temperature for all, one a column, one each
    for shape in [&[][..], &[1], &[3], &[2, 1], &[2, 3]] {
        let tau = positive(4, shape);
        check("relaxed bernoulli", &[&x, &logits, &tau], |a| {
            RelaxedBernoulli::from_logits(&a[1], &a[2])?.log_prob(&a[0])
        });
        check("relaxed bernoulli from probs", &[&x, &probs, &tau], |a| {
            RelaxedBernoulli::from_probs(&a[1], &a[2])?.log_prob(&a[0])
        });
        let v = random(5, &[4, 2, 3], 2.0);
        check("logit relaxed bernoulli", &[&v, &logits, &tau], |a| {
            LogitRelaxedBernoulli::from_logits(&a[1], &a[2])?.log_prob(&a[0])
        });
    }
}

#[test]
fn log_prob_of_classes() {
    let (logits, probs) = (random(1, &[2, 3, 5], 2.0), positive(2, &[2, 3, 5]));
    let index = Tensor::new(
        &[[[0_u32, 4, 2], [1, 1, 3]], [[2, 2, 2], [4, 0, 1]]],
        &candle_core::Device::Cpu,
    )
    .unwrap();
    check("categorical", &[&logits], |a| {
        Categorical::from_logits(&a[0])?.log_prob(&index)
    });
    check("categorical from probs", &[&probs], |a| {
        Categorical::from_probs(&a[0])?.log_prob(&index)
    });
    // the value broadens the batch
    let few = random(3, &[3, 5], 2.0);
    check("categorical, broader value", &[&few], |a| {
        Categorical::from_logits(&a[0])?.log_prob(&index)
    });
    let one = random(4, &[1, 5], 2.0);
    check("categorical, batch of one", &[&one], |a| {
        Categorical::from_logits(&a[0])?.log_prob(&index)
    });
    let soft = on_simplex(5, &[4, 2, 3, 5]);
    check("one-hot", &[&soft, &logits], |a| {
        free(OneHotCategorical::from_logits(&a[1]))?.log_prob(&a[0])
    });
    check("one-hot from probs", &[&probs], |a| {
        free(OneHotCategorical::from_probs(&a[0]))?.log_prob(&soft)
    });
}

#[test]
fn log_prob_on_the_simplex() {
    let (y, logits) = (on_simplex(1, &[4, 2, 3, 5]), random(2, &[2, 3, 5], 1.0));
    for shape in [&[][..], &[1], &[3, 1], &[2, 1, 1], &[2, 3, 1]] {
        let tau = positive(3, shape);
        check("concrete", &[&y, &logits, &tau], |a| {
            free(RelaxedOneHotCategorical::new(&a[1], &a[2]))?.log_prob(&a[0])
        });
        let x = y.log().unwrap();
        check("concrete in logs", &[&x, &logits, &tau], |a| {
            ExpRelaxedOneHotCategorical::new(&a[1], &a[2])?.log_prob(&a[0])
        });
    }
    check("concrete, fixed temperature", &[&y, &logits], |a| {
        free(RelaxedOneHotCategorical::new(&a[1], 0.4))?.log_prob(&a[0])
    });
}

#[test]
fn entropies_means_and_variances() {
    type Of = fn(&dyn Distribution) -> Result<Tensor>;
    let (loc, scale) = (random(2, &[2, 1], 1.0), positive(3, &[3]));
    let log_var = random(4, &[3], 1.0);
    let of: [(&str, Of); 3] = [
        ("entropy", |p| p.entropy()),
        ("mean", |p| p.mean()),
        ("variance", |p| p.variance()),
    ];
    for (label, of) in of {
        // location and scale together, so that none is without a part
        let with_mean = |p: &dyn Distribution| of(p)?.add(&p.mean()?.sqr()?);
        let both = [&loc, &scale];
        check(label, &both, |a| with_mean(&Gumbel::new(&a[0], &a[1])?));
        if label != "mean" {
            check(label, &both, |a| with_mean(&Normal::new(&a[0], &a[1])?));
            check(label, &both, |a| with_mean(&Logistic::new(&a[0], &a[1])?));
            check(label, &[&loc, &log_var], |a| {
                with_mean(&Normal::from_log_var(&a[0], &a[1])?)
            });
            check(label, &both, |a| {
                with_mean(&LogitRelaxedBernoulli::from_logits(
                    &a[0].broadcast_as((2, 3))?,
                    &a[1],
                )?)
            });
        }
        check(label, &[&loc], |a| of(&Bernoulli::from_logits(&a[0])?));
        let classes = random(5, &[2, 4], 2.0);
        check(label, &[&classes], |a| {
            of(&OneHotCategorical::from_logits(&a[0])?)
        });
    }
    let classes = random(5, &[2, 4], 2.0);
    check("entropy", &[&classes], |a| {
        Categorical::from_logits(&a[0])?.entropy()
    });
    check("stddev", &[&log_var], |a| {
        Normal::from_log_var(&a[0], &a[0])?.stddev()
    });
}

#[test]
fn divergences() {
    let (m1, s1, m2, s2) = (
        random(1, &[4, 1], 1.0),
        positive(2, &[3]),
        random(3, &[1], 1.0),
        positive(4, &[4, 3]),
    );
    check("normal", &[&m1, &s1, &m2, &s2], |a| {
        Normal::new(&a[0], &a[1])?.kl_divergence(&Normal::new(&a[2], &a[3])?)
    });
    check("normal from log-variance", &[&m1, &s1, &m2, &s2], |a| {
        Normal::from_log_var(&a[0], &a[1])?.kl_divergence(&Normal::from_log_var(&a[2], &a[3])?)
    });
    check("normal, mixed", &[&m1, &s1, &m2, &s2], |a| {
        Normal::from_log_var(&a[0], &a[1])?.kl_divergence(&Normal::new(&a[2], &a[3])?)
    });
    check("gumbel", &[&m1, &s1, &m2, &s2], |a| {
        Gumbel::new(&a[0], &a[1])?.kl_divergence(&Gumbel::new(&a[2], &a[3])?)
    });
    check("bernoulli", &[&m1, &s2], |a| {
        Bernoulli::from_logits(&a[0])?.kl_divergence(&Bernoulli::from_logits(&a[1])?)
    });
    let (p, q) = (random(5, &[2, 1, 4], 2.0), random(6, &[3, 4], 2.0));
    check("categorical", &[&p, &q], |a| {
        Categorical::from_logits(&a[0])?.kl_divergence(&Categorical::from_logits(&a[1])?)
    });
    check("one-hot", &[&p, &q], |a| {
        OneHotCategorical::from_logits(&a[0])?
            .kl_divergence(&OneHotCategorical::from_logits(&a[1])?)
    });
}

#[test]
fn samples_at_fixed_noise() {
    let key = Key::new(5, 6);
    let (loc, scale) = (random(2, &[2, 1], 1.0), positive(3, &[3]));
    check("normal", &[&loc, &scale], |a| {
        Normal::new(&a[0], &a[1])?.rsample_n(4, key)
    });
    check("normal from log-variance", &[&loc, &scale], |a| {
        Normal::from_log_var(&a[0], &a[1])?.rsample_n(4, key)
    });
    check("gumbel", &[&loc, &scale], |a| {
        Gumbel::new(&a[0], &a[1])?.rsample_n(4, key)
    });
    check("logistic", &[&loc, &scale], |a| {
        Logistic::new(&a[0], &a[1])?.rsample_n(4, key)
    });
    let coins = random(4, &[2, 3], 1.0);
    check("relaxed bernoulli", &[&coins, &scale], |a| {
        RelaxedBernoulli::from_logits(&a[0], &a[1])?.rsample_n(4, key)
    });
    check("its logit", &[&coins, &scale], |a| {
        LogitRelaxedBernoulli::from_logits(&a[0], &a[1])?.rsample_n(4, key)
    });
    let (classes, tau) = (random(5, &[2, 3, 5], 1.0), positive(6, &[3, 1]));
    check("concrete", &[&classes, &tau], |a| {
        RelaxedOneHotCategorical::new(&a[0], &a[1])?.rsample_n(4, key)
    });
    check("concrete in logs", &[&classes, &tau], |a| {
        ExpRelaxedOneHotCategorical::new(&a[0], &a[1])?.rsample_n(4, key)
    });
    // a density at another's sample, through both: what a variational bound needs
    check("concrete, another's density", &[&classes, &tau], |a| {
        let p = ExpRelaxedOneHotCategorical::new(&a[0], &a[1])?;
        let q = ExpRelaxedOneHotCategorical::new(&a[0].affine(0.5, 0.1)?, &a[1].sqr()?)?;
        q.log_prob(&p.rsample_n(4, key)?)
    });
}
