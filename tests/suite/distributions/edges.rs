//! The ends of the range, where PyTorch overflows; masks and certainties; and every refusal.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::Key;
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence,
    Logistic, LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli,
    RelaxedOneHotCategorical, Validation,
};

use super::{near, s, s32, t, value};
use crate::support::data;
use crate::support::refused;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn t32(values: &[f64], shape: &[usize]) -> Tensor {
    data::tensor(values, shape, DType::F32, &Device::Cpu)
}

/// A function's value, and its gradient at the variable.
fn with_gradient(x: &[f64], f: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
    let var = Var::from_tensor(&t32(x, &[x.len()])).unwrap();
    let y = f(&var).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    (data::values(&y), data::values(grads.get(&var).unwrap()))
}

#[test]
fn logits_of_ten_thousand() {
    let one = s32(1.0);
    let (l, g) = with_gradient(&[1e4, -1e4, 100.0, -100.0], |x| {
        Bernoulli::from_logits(x)?.log_prob(&one)
    });
    assert_eq!(l[..2], [0.0, -1e4]);
    assert_eq!((l[3], g[3]), (-100.0, 1.0));
    assert_eq!(g[..2], [0.0, 1.0]);
    let (h, g) = with_gradient(&[1e4, -1e4], |x| Bernoulli::from_logits(x)?.entropy());
    assert_eq!((h, g), (vec![0.0; 2], vec![0.0; 2]));
    let (kl, g) = with_gradient(&[1e4, -1e4], |x| {
        Bernoulli::from_logits(x)?.kl_divergence(&Bernoulli::from_logits(&s32(0.0))?)
    });
    assert!(
        kl.iter().all(|kl| (kl - 2f64.ln()).abs() < 1e-6) && g == [0.0; 2],
        "{kl:?} {g:?}"
    );
    let classes = [1e4, 0.0, -1e4];
    let (h, g) = with_gradient(&classes, |x| Categorical::from_logits(x)?.entropy());
    assert_eq!((h, g), (vec![0.0], vec![0.0; 3]));
    let index = Tensor::new(2_u32, &Device::Cpu).unwrap();
    let (l, g) = with_gradient(&classes, |x| Categorical::from_logits(x)?.log_prob(&index));
    assert_eq!((l, g), (vec![-2e4], vec![-1.0, 0.0, 1.0]));
}

#[test]
fn binary_densities_beyond_the_range_of_exp() {
    // torch: log(tau) + d - 2 log1p(exp(d)), which is -inf where exp(d) overflows
    let zero = s32(0.0);
    let (l, g) = with_gradient(&[89.0, 200.0, -200.0, 1e4], |x| {
        LogitRelaxedBernoulli::from_logits(x, 1.0)?.log_prob(&zero)
    });
    assert_eq!(l, [-89.0, -200.0, -200.0, -1e4]);
    assert_eq!(g, [-1.0, -1.0, 1.0, -1.0]);
    let (l, g) = with_gradient(&[500.0, -500.0, 0.0], |x| {
        Logistic::new(&s32(0.0), &s32(1.0))?.log_prob(x)
    });
    assert_eq!(l[..2], [-500.0, -500.0]);
    // the density is level at its top, where |z| has a kink
    assert_eq!(g, [-1.0, 1.0, 0.0]);
    // 0 and 1 are numbers that were rounded away
    for y in [0.0, 1.0] {
        let (l, g) = with_gradient(&[y], |y| {
            RelaxedBernoulli::from_logits(&s32(0.3), 0.1)?.log_prob(y)
        });
        assert!(l[0].is_finite() && g[0] == 0.0, "{l:?} {g:?}");
    }
}

#[test]
fn densities_of_samples_at_low_temperatures() {
    let logits = data::random((50, 6), 1, 3.0, DType::F32, &Device::Cpu);
    for dtype in data::FLOATS {
        let logits = logits.to_dtype(dtype).unwrap();
        let relaxed = RelaxedOneHotCategorical::new(&logits, 0.02).unwrap();
        let y = relaxed.sample_n(20, Key::new(1, 2)).unwrap();
        let zeros = data::values(&y).iter().filter(|y| **y == 0.0).count();
        assert!(zeros > 10, "only {zeros} entries were rounded away");
        // half types round the density itself beyond their range at times
        if matches!(dtype, DType::F32 | DType::F64) {
            assert!(
                data::values(&relaxed.log_prob(&y).unwrap())
                    .iter()
                    .all(|l| l.is_finite())
            );
        }
        let logs = ExpRelaxedOneHotCategorical::new(&logits, 0.02).unwrap();
        let x = logs.sample_n(20, Key::new(1, 2)).unwrap();
        assert!(
            data::values(&logs.log_prob(&x).unwrap())
                .iter()
                .all(|l| l.is_finite())
        );
    }
    let y = [0.0, 1.0, 0.0];
    let (l, g) = with_gradient(&y, |y| {
        RelaxedOneHotCategorical::new(&t32(&[0.1, 0.2, 0.3], &[3]), 0.5)?.log_prob(y)
    });
    assert!(
        l[0].is_finite() && g[0] == 0.0 && g[2] == 0.0 && g[1] != 0.0,
        "{l:?} {g:?}"
    );
}

#[test]
fn log_variances_whose_scale_underflows() {
    for log_var in [-250.0, -1e4, 1e4] {
        let (l, g) = with_gradient(&[log_var], |v| {
            Normal::from_log_var(&s32(0.5), v)?.log_prob(&s32(0.5))
        });
        near(
            l[0],
            -0.5 * log_var - 0.5 * std::f64::consts::TAU.ln(),
            1e-6,
        );
        assert_eq!(g, [-0.5]);
    }
    // two that are narrower than the dtype has scales for: (exp(1) - 1 - 1) / 2
    let one = Normal::from_log_var(&s32(0.5), &s32(-250.0)).unwrap();
    let (kl, g) = with_gradient(&[-251.0], |v| {
        one.kl_divergence(&Normal::from_log_var(&s32(0.5), v)?)
    });
    near(kl[0], (1f64.exp() - 2.0) / 2.0, 1e-5);
    near(g[0], -1f64.exp_m1() / 2.0, 1e-5);
}

#[test]
fn masks_are_left_out() {
    let masked = [0.0, -INF, 0.0, -INF];
    let uniform = [0.0; 4];
    for k in 0..4_u32 {
        let index = Tensor::new(k, &Device::Cpu).unwrap();
        let (l, g) = with_gradient(&masked, |x| Categorical::from_logits(x)?.log_prob(&index));
        if k % 2 == 0 {
            near(l[0], -2f64.ln(), 1e-6);
            assert!(
                g.iter().all(|g| g.is_finite()) && g[k as usize] == 0.5,
                "{g:?}"
            );
        } else {
            assert_eq!(l[0], -INF);
        }
    }
    let (h, g) = with_gradient(&masked, |x| OneHotCategorical::from_logits(x)?.entropy());
    near(h[0], 2f64.ln(), 1e-6);
    assert!(g.iter().all(|g| g.abs() < 1e-6), "{g:?}");
    let other = Categorical::from_logits(&t32(&uniform, &[4])).unwrap();
    let (kl, g) = with_gradient(&masked, |x| {
        Categorical::from_logits(x)?.kl_divergence(&other)
    });
    near(kl[0], 2f64.ln(), 1e-6);
    assert!(g.iter().all(|g| g.abs() < 1e-6), "{g:?}");
    let narrow = Categorical::from_logits(&t32(&masked, &[4])).unwrap();
    let (kl, g) = with_gradient(&masked, |x| {
        Categorical::from_logits(x)?.kl_divergence(&narrow)
    });
    assert!(
        kl[0].abs() < 1e-6 && g.iter().all(|g| g.abs() < 1e-6),
        "{kl:?} {g:?}"
    );
    // mass on what is impossible under the other
    let (kl, _) = with_gradient(&uniform, |x| {
        Categorical::from_logits(x)?.kl_divergence(&narrow)
    });
    assert_eq!(kl[0], INF);
    let hot = t32(&[1.0, 0.0, 0.0, 0.0], &[4]);
    let (l, g) = with_gradient(&masked, |x| {
        OneHotCategorical::from_logits(x)?.log_prob(&hot)
    });
    near(l[0], -2f64.ln(), 1e-6);
    assert_eq!((g[0], g[1], g[3]), (0.5, 0.0, 0.0));
    let (l, g) = with_gradient(&[1.0, 0.0, 3.0], |p| {
        OneHotCategorical::from_probs(p)?.log_prob(&t32(&[1.0, 0.0, 0.0], &[3]))
    });
    near(l[0], 0.25f64.ln(), 1e-6);
    assert!((g[0] - 0.75).abs() < 1e-6 && g[1] == 0.0, "{g:?}");
}

#[test]
fn certainties_are_exact() {
    let probs = [0.0, 1.0];
    let (l, g) = with_gradient(&probs, |p| Bernoulli::from_probs(p)?.log_prob(p));
    assert_eq!(l, [0.0, 0.0]);
    assert!(g.iter().all(|g| !g.is_nan()), "{g:?}");
    let (l, _) = with_gradient(&probs, |p| {
        Bernoulli::from_probs(p)?.log_prob(&p.detach().affine(-1.0, 1.0)?)
    });
    assert_eq!(l, [-INF, -INF]);
    let (h, g) = with_gradient(&probs, |p| Bernoulli::from_probs(p)?.entropy());
    assert_eq!((h, g), (vec![0.0; 2], vec![0.0; 2]));
    let certain = Bernoulli::from_probs(&t32(&probs, &[2])).unwrap();
    let (kl, _) = with_gradient(&probs, |p| {
        Bernoulli::from_probs(p)?.kl_divergence(&certain)
    });
    assert_eq!(kl, [0.0, 0.0]);
    let (kl, _) = with_gradient(&[0.3, 0.7], |p| {
        Bernoulli::from_probs(p)?.kl_divergence(&certain)
    });
    assert_eq!(kl, [INF, INF]);
}

#[test]
fn densities_of_images_are_the_cross_entropy() {
    // grey values between 0 and 1 are no refusal: the reconstruction loss of a VAE
    let x = [0.0, 0.25, 0.8, 1.0];
    let p = Bernoulli::from_logits(&t(&[0.4, -2.0, 30.0, -800.0], &[4])).unwrap();
    let l = data::values(&p.log_prob(&t(&x, &[4])).unwrap());
    let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
    for (i, z) in [0.4, -2.0, 30.0, -800.0].into_iter().enumerate() {
        near(
            l[i],
            -(x[i] * softplus(-z) + (1.0 - x[i]) * softplus(z)),
            1e-14,
        );
    }
}

#[test]
fn parameters_that_are_none_are_refused_by_name_value_and_place() {
    let bad = |v: f64| t32(&[1.0, 2.0, v], &[3]);
    let one = t32(&[1.0], &[1]);
    for (v, shown) in [(0.0, "0"), (-1.5, "-1.5"), (NAN, "NaN"), (INF, "inf")] {
        let parts = ["scale", shown, "[2]"];
        refused(Normal::new(&one, &bad(v)), "Normal", &parts);
        refused(Gumbel::new(&one, &bad(v)), "Gumbel", &parts);
        refused(Logistic::new(&one, &bad(v)), "Logistic", &parts);
    }
    for (v, shown) in [(NAN, "NaN"), (INF, "inf"), (-INF, "-inf")] {
        refused(Normal::new(&bad(v), &one), "Normal", &["loc", shown, "[2]"]);
        refused(
            Normal::from_log_var(&bad(v), &one),
            "Normal",
            &["mean", shown],
        );
        refused(
            Normal::from_log_var(&one, &bad(v)),
            "Normal",
            &["log_var", shown],
        );
        refused(Gumbel::new(&bad(v), &one), "Gumbel", &["loc", shown]);
        refused(Logistic::new(&bad(v), &one), "Logistic", &["loc", shown]);
        let name = "RelaxedOneHotCategorical";
        refused(
            RelaxedOneHotCategorical::new(&bad(v), 1.0),
            name,
            &["logits", shown],
        );
        let name = "ExpRelaxedOneHotCategorical";
        refused(
            ExpRelaxedOneHotCategorical::new(&bad(v), 1.0),
            name,
            &["logits", shown],
        );
        let name = "RelaxedBernoulli";
        refused(
            RelaxedBernoulli::from_logits(&bad(v), 1.0),
            name,
            &["logits", shown],
        );
    }
    refused(
        Bernoulli::from_logits(&bad(NAN)),
        "Bernoulli",
        &["logits", "NaN"],
    );
    for (v, shown) in [(NAN, "NaN"), (1.5, "1.5"), (-0.5, "-0.5")] {
        let probs = t32(&[1.0, 0.5, v], &[3]);
        refused(
            Bernoulli::from_probs(&probs),
            "Bernoulli",
            &["probs", shown, "[2]"],
        );
        let name = "RelaxedBernoulli";
        refused(
            RelaxedBernoulli::from_probs(&t32(&[v], &[1]), 1.0),
            name,
            &["probs", shown],
        );
    }
    for (v, shown) in [(NAN, "NaN"), (INF, "inf")] {
        refused(
            Categorical::from_logits(&bad(v)),
            "Categorical",
            &["logits", shown],
        );
        refused(
            OneHotCategorical::from_logits(&bad(v)),
            "OneHotCategorical",
            &["logits", shown],
        );
    }
    let masks = t32(&[0.0, 1.0, -INF, -INF], &[2, 2]);
    refused(
        Categorical::from_logits(&masks),
        "Categorical",
        &["logits", "[1]", "0"],
    );
    refused(
        Categorical::from_probs(&t32(&[0.0, 0.0], &[2])),
        "Categorical",
        &["probs", "sums to 0"],
    );
    refused(
        Categorical::from_probs(&t32(&[-1.0, 2.0], &[2])),
        "Categorical",
        &["probs", "-1"],
    );
    for tau in [0.0, -1.0, NAN, INF] {
        let name = "RelaxedOneHotCategorical";
        refused(RelaxedOneHotCategorical::new(&one, tau), name, &["tau"]);
        refused(
            RelaxedBernoulli::from_logits(&one, tau),
            "RelaxedBernoulli",
            &["tau"],
        );
        refused(
            RelaxedBernoulli::from_logits(&one, t32(&[tau], &[1])),
            "RelaxedBernoulli",
            &["tau"],
        );
    }
}

#[test]
fn values_outside_of_the_support_are_refused() {
    let one = t32(&[1.0], &[1]);
    let nan = t32(&[NAN], &[1]);
    let name = "Normal";
    refused(
        Normal::new(&one, &one).unwrap().log_prob(&nan),
        name,
        &["the value", "NaN", "[0]"],
    );
    let coin = Bernoulli::from_logits(&one).unwrap();
    for (v, shown) in [(NAN, "NaN"), (1.5, "1.5"), (-0.5, "-0.5")] {
        refused(
            coin.log_prob(&t32(&[v], &[1])),
            "Bernoulli",
            &["the value", shown],
        );
    }
    let classes = Categorical::from_logits(&t32(&[0.0; 4], &[2, 2])).unwrap();
    let index = Tensor::new(&[1_u32, 2], &Device::Cpu).unwrap();
    refused(
        classes.log_prob(&index),
        "Categorical",
        &["the value", "2", "[1]", "0 to 1"],
    );
    let index = Tensor::new(&[-1_i64, 0], &Device::Cpu).unwrap();
    refused(
        classes.log_prob(&index),
        "Categorical",
        &["the value", "-1", "[0]"],
    );
    let lenient = classes.clone().with_validation(Validation::Never).unwrap();
    assert_eq!(data::values(&lenient.log_prob(&index).unwrap())[0], -INF);
    let float = t32(&[1.0, 0.0], &[2]);
    refused(classes.log_prob(&float), "Categorical", &["F32", "index"]);
    let hot = OneHotCategorical::from_logits(&t32(&[0.0; 4], &[2, 2])).unwrap();
    for (rows, shown) in [([1.0, 1.0], "2"), ([0.0, 0.0], "0"), ([0.5, 0.5], "0.5")] {
        refused(
            hot.log_prob(&t32(&rows, &[2])),
            "OneHotCategorical",
            &["the value", shown],
        );
    }
    let relaxed = RelaxedOneHotCategorical::new(&t32(&[0.0; 2], &[2]), 1.0).unwrap();
    let name = "RelaxedOneHotCategorical";
    refused(
        relaxed.log_prob(&t32(&[0.5, 0.6], &[2])),
        name,
        &["the value", "1.1"],
    );
    refused(
        relaxed.log_prob(&t32(&[1.5, -0.5], &[2])),
        name,
        &["the value", "1.5"],
    );
}

#[test]
fn shapes_dtypes_and_devices_that_do_not_fit_are_refused() {
    let (a, b) = (t32(&[1.0; 2], &[2]), t32(&[1.0; 3], &[3]));
    refused(
        Normal::new(&a, &b),
        "Normal",
        &["loc", "scale", "[2]", "[3]"],
    );
    refused(Normal::new(&a, &s(1.0)), "Normal", &["F32", "F64"]);
    let p = Normal::new(&a, &a).unwrap();
    refused(p.log_prob(&b), "Normal", &["the value", "[3]", "[2]"]);
    refused(p.log_prob(&s(1.0)), "Normal", &["the value", "F64", "F32"]);
    let q = Normal::new(&b, &b).unwrap();
    refused(
        p.kl_divergence(&q),
        "Normal",
        &["kl_divergence", "[2]", "[3]"],
    );
    let double = Normal::new(&s(0.0), &s(1.0)).unwrap();
    refused(
        p.kl_divergence(&double),
        "Normal",
        &["kl_divergence", "F32", "F64"],
    );
    let (two, three) = (
        Categorical::from_logits(&a).unwrap(),
        Categorical::from_logits(&b).unwrap(),
    );
    refused(
        two.kl_divergence(&three),
        "Categorical",
        &["kl_divergence", "[2]", "[3]"],
    );
    refused(
        Categorical::from_logits(&s32(0.0)),
        "Categorical",
        &["logits", "[]"],
    );
    let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
    refused(
        OneHotCategorical::from_logits(&empty),
        "OneHotCategorical",
        &["[3, 0]", "empty"],
    );
    let integers = Tensor::zeros(3, DType::U32, &Device::Cpu).unwrap();
    refused(Bernoulli::from_logits(&integers), "Bernoulli", &["U32"]);
    refused(
        Normal::standard(3, DType::U8, &Device::Cpu),
        "Normal",
        &["U8"],
    );
    refused(
        p.sample_n(usize::MAX, Key::new(1, 1)),
        "Normal",
        &["addressed"],
    );
    refused(p.expand(usize::MAX), "Normal", &["broadcast"]);
    let huge = Normal::standard(1, DType::F32, &Device::Cpu).unwrap();
    refused(huge.expand((usize::MAX, 2)), "Normal", &["addressed"]);
    refused(p.sample(Key::new(1, u64::MAX)), "normal", &["stream"]);
    let tau = t32(&[1.0; 3], &[3]);
    refused(
        RelaxedOneHotCategorical::new(&b, &tau),
        "RelaxedOneHotCategorical",
        &["tau", "[3]"],
    );
    refused(
        RelaxedBernoulli::from_logits(&a, &tau),
        "RelaxedBernoulli",
        &["tau"],
    );
}

#[test]
fn without_checks_nothing_is_looked_at() {
    let p = Bernoulli::from_logits(&s32(0.5))
        .unwrap()
        .with_validation(Validation::Never)
        .unwrap();
    assert!(value(p.log_prob(&s32(NAN))).is_nan());
    let checked = p.with_validation(Validation::Always).unwrap();
    refused(checked.log_prob(&s32(NAN)), "Bernoulli", &["NaN"]);
}
