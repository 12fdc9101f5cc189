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
    // An entry of 0 counts as the smallest number of its dtype; from mpmath.
    for (dtype, want, tolerance) in [
        (DType::F16, 8.123_814_108_455_197, 1e-3),
        (DType::BF16, 43.475_125_194_716_61, 1e-2),
        (DType::F32, 43.475_125_194_716_61, 1e-6),
        (DType::F64, 354.005_062_085_572_1, 1e-14),
    ] {
        let make = |values: &[f64]| data::tensor(values, 2, dtype, &Device::Cpu);
        let p = RelaxedOneHotCategorical::new(&make(&[0.0, 0.5]), 0.5).unwrap();
        near(value(p.log_prob(&make(&[0.0, 1.0]))), want, tolerance);
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
    // Away from the mean, where 1 / scale itself would overflow; from mpmath.
    let narrow = Normal::from_log_var(&s32(0.0), &s32(-180.0)).unwrap();
    let l = value(narrow.log_prob(&s32(2f64.powi(-130))));
    near(l, 88.679_106_060_506_37, 1e-6);
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
    let (_, g) = with_gradient(&[1.0, 0.0, 0.0, 0.0], |hot| {
        OneHotCategorical::from_logits(&t32(&masked, &[4]))?.log_prob(hot)
    });
    near(g[0], -2f64.ln(), 1e-6);
    assert_eq!((g[1], g[3]), (0.0, 0.0));
    let (l, g) = with_gradient(&[1.0, 0.0, 3.0], |p| {
        OneHotCategorical::from_probs(p)?.log_prob(&t32(&[1.0, 0.0, 0.0], &[3]))
    });
    near(l[0], 0.25f64.ln(), 1e-6);
    assert!((g[0] - 0.75).abs() < 1e-6 && g[1] == 0.0, "{g:?}");
}

#[test]
fn a_divergence_of_infinity_has_no_gradient() {
    // It is +inf for all logits nearby: a mask, or a certainty, stays one.
    let check = |label: &str, a: &[f64], b: &[f64], f: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
        let dims = [2, a.len() / 2];
        let a = Var::from_tensor(&t32(a, &dims)).unwrap();
        let b = Var::from_tensor(&t32(b, &dims)).unwrap();
        let kl = f(&a, &b).flatten_all().unwrap();
        let values = data::values(&kl);
        let half = values.len() / 2;
        assert!(
            values[..half].iter().all(|kl| *kl == INF),
            "{label}: {values:?}"
        );
        assert!(
            values[half..].iter().all(|kl| kl.is_finite()),
            "{label}: {values:?}"
        );
        let grads = kl.sum_all().unwrap().backward().unwrap();
        for var in [&a, &b] {
            let g = data::values(grads.get(var).unwrap());
            let (infinite, finite) = g.split_at(g.len() / 2);
            assert!(infinite.iter().all(|g| *g == 0.0), "{label}: {g:?}");
            assert!(
                finite.iter().all(|g| g.is_finite()) && finite.iter().any(|g| *g != 0.0),
                "{label}: {g:?}"
            );
        }
    };
    let a = [0.0, 1.0, -INF, 0.5, 0.0, 1.0, -INF, 0.5];
    let b = [0.0, -INF, -INF, 0.5, 1.0, 0.0, -INF, 0.5];
    check("categorical", &a, &b, &|a, b| {
        let (p, q) = (Categorical::from_logits(a), Categorical::from_logits(b));
        p.unwrap().kl_divergence(&q.unwrap()).unwrap()
    });
    check("one-hot", &a, &b, &|a, b| {
        let (p, q) = (
            OneHotCategorical::from_logits(a),
            OneHotCategorical::from_logits(b),
        );
        p.unwrap().kl_divergence(&q.unwrap()).unwrap()
    });
    let (a, b) = ([0.3, -0.4, 0.3, -0.4], [INF, -INF, 0.5, 0.0]);
    check("bernoulli", &a, &b, &|a, b| {
        let (p, q) = (Bernoulli::from_logits(a), Bernoulli::from_logits(b));
        p.unwrap().kl_divergence(&q.unwrap()).unwrap()
    });
}

#[test]
fn the_divergence_of_coins_keeps_the_digits_of_its_gradient_on_both_sides() {
    // sigmoid(q) - sigmoid(p), from mpmath
    for (p, q, want) in [
        (30.0, 20.0, -2.061_060_041_960_515e-9),
        (-30.0, -20.0, 2.061_060_041_960_515e-9),
    ] {
        let (kl, g) = with_gradient(&[q], |q| {
            Bernoulli::from_logits(&s32(p))?.kl_divergence(&Bernoulli::from_logits(q)?)
        });
        near(kl[0], 2.060_124_281_787_808_4e-9, 1e-5);
        near(g[0], want, 1e-6);
    }
}

#[test]
fn scales_that_are_far_apart_have_a_divergence() {
    // From mpmath; the difference of the two scales has little of the smaller one left, or nothing.
    for (p, q, want) in [
        (-40, 0, 27.225_887_222_397_812),
        (-14, 0, 9.204_060_529_701_879),
        (-20, 3, 15.442_385_152_879_199),
        (1, 0, 0.806_852_819_440_054_7),
        (-1, 0, 0.318_147_180_559_945_3),
        (-70, -71, 0.806_852_819_440_054_7),
    ] {
        let (p, q) = (2f64.powi(p), 2f64.powi(q));
        let ratio = p / q;
        let (kl, g) = with_gradient(&[p], |p| {
            Normal::new(&s32(0.5), p)?.kl_divergence(&Normal::new(&s32(0.5), &s32(q))?)
        });
        near(kl[0], want, 1e-6);
        near(g[0], (ratio * ratio - 1.0) / p, 1e-6);
        let (kl, g) = with_gradient(&[q], |q| {
            Normal::new(&s32(0.5), &s32(p))?.kl_divergence(&Normal::new(&s32(0.5), q)?)
        });
        near(kl[0], want, 1e-6);
        near(g[0], (1.0 - ratio * ratio) / q, 1e-6);
    }
}

#[test]
fn at_infinity_the_densities_on_the_line_are_0() {
    let ends = t32(&[INF, -INF], &[2]);
    let (loc, scale) = (s32(0.5), s32(2.0));
    let densities = [
        Normal::new(&loc, &scale).unwrap().log_prob(&ends),
        Normal::from_log_var(&loc, &scale).unwrap().log_prob(&ends),
        Gumbel::new(&loc, &scale).unwrap().log_prob(&ends),
        Logistic::new(&loc, &scale).unwrap().log_prob(&ends),
    ];
    for (i, density) in densities.into_iter().enumerate() {
        assert_eq!(data::values(&density.unwrap()), [-INF; 2], "{i}");
    }
}

#[test]
fn at_a_tie_a_mode_is_one_of_the_likeliest() {
    let coins = Bernoulli::from_logits(&t32(&[-0.1, 0.0, 0.1, INF, -INF], &[5])).unwrap();
    assert_eq!(
        data::values(&coins.mode().unwrap()),
        [0.0, 0.0, 1.0, 1.0, 0.0]
    );
    let logits = t32(&[0.0, 2.0, 2.0, -INF], &[4]);
    let index = Categorical::from_logits(&logits).unwrap().mode().unwrap();
    let index = data::indices(&index)[0];
    assert!([1, 2].contains(&index), "{index}");
    let hot = OneHotCategorical::from_logits(&logits)
        .unwrap()
        .mode()
        .unwrap();
    let want: Vec<f64> = (0..4).map(|i| f64::from(u8::from(i == index))).collect();
    assert_eq!(data::values(&hot), want);
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
fn an_index_of_64_bits_is_not_wrapped() {
    let classes = Categorical::from_logits(&t32(&[0.0; 4], &[2, 2])).unwrap();
    let lenient = classes.with_validation(Validation::Never).unwrap();
    // which in 32 bits would be 1
    let index = Tensor::new(&[(1_i64 << 32) + 1, 1], &Device::Cpu).unwrap();
    let l = data::values(&lenient.log_prob(&index).unwrap());
    assert!(l[0] == -INF && l[1].is_finite(), "{l:?}");
}

#[test]
fn rows_of_half_types_sum_to_one_within_their_rounding() {
    let name = "RelaxedOneHotCategorical";
    // In half types a row's sum is off by the rounding of its entries, however many there are, and by no more.
    for dtype in data::FLOATS {
        let logits = Tensor::zeros(20_000, dtype, &Device::Cpu).unwrap();
        let wide = RelaxedOneHotCategorical::new(&logits, 1.0).unwrap();
        let y = wide.sample_n(3, Key::new(1, 1)).unwrap();
        assert!(wide.log_prob(&y).is_ok(), "{dtype:?}");
        refused(wide.log_prob(&y.affine(0.95, 0.0).unwrap()), name, &["0.9"]);
        refused(wide.log_prob(&logits), name, &["the value", "sums to 0"]);
    }
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

#[test]
fn an_expanded_distribution_checks_as_far_as_the_one_it_was() {
    let (one, two) = (t32(&[1.0], &[1]), t32(&[0.1, 0.2], &[2]));
    fn check<P: Distribution>(p: P, bad: &Tensor) {
        let name = p.name();
        let expanded = p.expand(3).unwrap();
        refused(expanded.log_prob(bad), name, &["the value"]);
        let p = expanded.with_validation(Validation::Never).unwrap();
        let twice = p.expand((2, 3)).unwrap();
        assert!(twice.log_prob(bad).is_ok(), "{name}");
    }
    let bad = s32(NAN);
    check(Normal::new(&one, &one).unwrap(), &bad);
    check(Gumbel::new(&one, &one).unwrap(), &bad);
    check(Logistic::new(&one, &one).unwrap(), &bad);
    check(Bernoulli::from_logits(&one).unwrap(), &bad);
    check(RelaxedBernoulli::from_logits(&one, 0.5).unwrap(), &bad);
    check(LogitRelaxedBernoulli::from_logits(&one, 0.5).unwrap(), &bad);
    let bad = t32(&[NAN, 1.0], &[2]);
    check(
        OneHotCategorical::from_logits(&two)
            .unwrap()
            .expand(1)
            .unwrap(),
        &bad,
    );
    check(
        RelaxedOneHotCategorical::new(&two, 0.5)
            .unwrap()
            .expand(1)
            .unwrap(),
        &bad,
    );
    check(
        ExpRelaxedOneHotCategorical::new(&two, 0.5)
            .unwrap()
            .expand(1)
            .unwrap(),
        &bad,
    );
    let index = Tensor::new(7_u32, &Device::Cpu).unwrap();
    check(
        Categorical::from_logits(&two).unwrap().expand(1).unwrap(),
        &index,
    );
}
