//! What is drawn: moments, frequencies, identities between ops and distributions, and the contract of keys.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, Logistic,
    LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli, RelaxedOneHotCategorical,
    Reparameterized,
};
use candle_reparam::{
    DeviceKey, Key, categorical, gaussian, gumbel, gumbel_softmax, gumbel_softmax_st, logistic,
    normal,
};

use super::{s, t, value};
use crate::support::data::{self, assert_same};
use crate::support::statistics::{chi_square, ks, mean, poisson_p, variance};

const KEY: Key = Key::new(11, 3);
const N: usize = 200_000;

#[track_caller]
fn moments(p: &impl Distribution) {
    let x = data::values(&p.sample_n(N, KEY).unwrap());
    let (m, v) = (value(p.mean()), value(p.variance()));
    let error = (v / N as f64).sqrt();
    assert!((mean(&x) - m).abs() < 4.0 * error, "{} {m}", mean(&x));
    assert!(
        (variance(&x) / v - 1.0).abs() < 0.03,
        "{} {v}",
        variance(&x)
    );
}

#[test]
fn samples_have_the_moments() {
    moments(&Normal::new(&s(0.4), &s(1.3)).unwrap());
    moments(&Normal::from_log_var(&s(-0.4), &s(1.3)).unwrap());
    moments(&Gumbel::new(&s(0.4), &s(1.3)).unwrap());
    moments(&Logistic::new(&s(0.4), &s(1.3)).unwrap());
    moments(&LogitRelaxedBernoulli::from_logits(&s(0.4), 1.3).unwrap());
    moments(&Bernoulli::from_logits(&s(0.4)).unwrap());
    moments(&Bernoulli::from_probs(&s(0.03)).unwrap());
}

#[test]
fn samples_have_the_distribution() {
    let x = Gumbel::new(&s(0.4), &s(1.3))
        .unwrap()
        .sample_n(N, KEY)
        .unwrap();
    let p = ks(data::values(&x), |x| (-(-(x - 0.4) / 1.3).exp()).exp());
    assert!(p > 1e-3, "{p}");
    let x = Logistic::new(&s(0.4), &s(1.3))
        .unwrap()
        .sample_n(N, KEY)
        .unwrap();
    let p = ks(data::values(&x), |x| 1.0 / (1.0 + (-(x - 0.4) / 1.3).exp()));
    assert!(p > 1e-3, "{p}");
    let y = RelaxedBernoulli::from_logits(&s(0.4), 0.7)
        .unwrap()
        .sample_n(N, KEY)
        .unwrap();
    let p = ks(data::values(&y), |y| {
        1.0 / (1.0 + (0.4 - 0.7 * (y / (1.0 - y)).ln()).exp())
    });
    assert!(p > 1e-3, "{p}");
}

#[test]
fn classes_are_drawn_in_proportion() {
    let weights = [1.0, 0.0, 3.0, 0.5, 5.5];
    let probabilities = weights.map(|w| w / 10.0);
    let index = Categorical::from_probs(&t(&weights, &[5])).unwrap();
    let mut counts = [0_u64; 5];
    for i in data::indices(&index.sample_n(N, KEY).unwrap()) {
        counts[i] += 1;
    }
    assert!(chi_square(&counts, &probabilities) > 1e-3, "{counts:?}");
    let one_hot = OneHotCategorical::from_probs(&t(&weights, &[5])).unwrap();
    let x = one_hot.sample_n(N, KEY).unwrap();
    let counts: Vec<u64> = data::values(&x.sum(0).unwrap())
        .iter()
        .map(|c| *c as u64)
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), N as u64);
    assert!(chi_square(&counts, &probabilities) > 1e-3, "{counts:?}");
}

#[test]
fn a_coin_is_as_rare_as_it_should_be_on_both_sides() {
    let n = 4_000_000;
    for logit in [-13.0, 13.0] {
        let coin =
            Bernoulli::from_logits(&data::tensor(&[logit], (), DType::F32, &Device::Cpu)).unwrap();
        let ones = value(
            coin.sample_n(n, KEY)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap()
                .sum_all(),
        );
        let rare = if logit < 0.0 { ones } else { n as f64 - ones };
        let expected = n as f64 / (1.0 + 13f64.exp());
        assert!(expected > 5.0);
        assert!(
            poisson_p(rare as u64, expected) > 1e-3,
            "{logit}: {rare}, {expected}"
        );
    }
    let certain =
        Bernoulli::from_logits(&t(&[f64::INFINITY, f64::NEG_INFINITY, 800.0, -800.0], &[4]))
            .unwrap();
    let drawn = certain.sample_n(100, KEY).unwrap();
    assert_eq!(data::values(&drawn.mean(0).unwrap()), [1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn samples_are_those_of_the_ops() {
    for dtype in [DType::F32, DType::F64] {
        let device = Device::Cpu;
        let a = data::random((2, 5), 1, 1.0, dtype, &device);
        let b = data::random((2, 5), 2, 0.3, dtype, &device).exp().unwrap();
        let wide = a.broadcast_as((3, 2, 5)).unwrap();
        let scaled = |noise: &Tensor| noise.broadcast_mul(&b).unwrap().broadcast_add(&a).unwrap();
        let same = |got: candle_core::Result<Tensor>, want: &Tensor, label: &str| {
            assert_same(&got.unwrap(), want, || format!("{label} {dtype:?}"));
        };
        let dims = (3, 2, 5);
        let noise = normal(dims, dtype, &device, KEY).unwrap();
        same(
            Normal::new(&a, &b).unwrap().sample_n(3, KEY),
            &scaled(&noise),
            "normal",
        );
        let want = gaussian(&wide, &b.broadcast_as(dims).unwrap(), KEY).unwrap();
        same(
            Normal::from_log_var(&a, &b).unwrap().sample_n(3, KEY),
            &want,
            "gaussian",
        );
        let noise = gumbel(dims, dtype, &device, KEY).unwrap();
        same(
            Gumbel::new(&a, &b).unwrap().sample_n(3, KEY),
            &scaled(&noise),
            "gumbel",
        );
        let noise = logistic(dims, dtype, &device, KEY).unwrap();
        same(
            Logistic::new(&a, &b).unwrap().sample_n(3, KEY),
            &scaled(&noise),
            "logistic",
        );
        let want = categorical(&wide, D::Minus1, KEY).unwrap();
        same(
            Categorical::from_logits(&a).unwrap().sample_n(3, KEY),
            &want,
            "categorical",
        );
        let want = gumbel_softmax_st(&wide, 1.0, D::Minus1, KEY).unwrap();
        let one_hot = OneHotCategorical::from_logits(&a).unwrap();
        same(one_hot.sample_n(3, KEY), &want, "one-hot");
        same(
            one_hot.straight_through(3, 0.3, KEY),
            &want,
            "straight-through",
        );
        let want = gumbel_softmax(&wide, 0.3, D::Minus1, KEY).unwrap();
        let relaxed = RelaxedOneHotCategorical::new(&a, 0.3).unwrap();
        same(relaxed.sample_n(3, KEY), &want, "concrete");
        same(relaxed.rsample_n(3, KEY), &want, "concrete");
    }
}

#[test]
fn straight_through_has_the_gradient_of_the_relaxed_sample() {
    let logits = data::random((2, 5), 1, 1.0, DType::F64, &Device::Cpu);
    let w = data::random((3, 2, 5), 2, 1.0, DType::F64, &Device::Cpu);
    let gradient = |relaxed: bool| {
        let logits = Var::from_tensor(&logits).unwrap();
        let y = if relaxed {
            let p = RelaxedOneHotCategorical::new(&logits, 0.3).unwrap();
            p.rsample_n(3, KEY)
        } else {
            let p = OneHotCategorical::from_logits(&logits).unwrap();
            p.straight_through(3, 0.3, KEY)
        };
        let grads = y.unwrap().mul(&w).unwrap().sum_all().unwrap().backward();
        data::values(grads.unwrap().get(&logits).unwrap())
    };
    let (got, want) = (gradient(false), gradient(true));
    let largest = want.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
    assert!(largest > 1e-2);
    assert!(
        got.iter()
            .zip(&want)
            .all(|(a, b)| (a - b).abs() < 1e-12 * largest)
    );
}

#[test]
fn hard_and_relaxed_draws_of_one_key_agree() {
    let logits = data::random((50, 7), 1, 2.0, DType::F64, &Device::Cpu);
    let key = Key::new(4, 4);
    let hard = OneHotCategorical::from_logits(&logits)
        .unwrap()
        .sample_n(20, key)
        .unwrap();
    let soft = RelaxedOneHotCategorical::new(&logits, 0.7)
        .unwrap()
        .sample_n(20, key)
        .unwrap();
    let logs = ExpRelaxedOneHotCategorical::new(&logits, 0.7)
        .unwrap()
        .sample_n(20, key)
        .unwrap();
    let argmax = |t: &Tensor| data::indices(&t.argmax(D::Minus1).unwrap());
    assert_eq!(argmax(&hard), argmax(&soft));
    let (soft, logs) = (data::values(&soft), data::values(&logs.exp().unwrap()));
    assert!(soft.iter().zip(&logs).all(|(a, b)| (a - b).abs() < 1e-14));
    let coin = Bernoulli::from_logits(&logits)
        .unwrap()
        .sample_n(20, key)
        .unwrap();
    for tau in [0.1, 1.0, 3.0] {
        let y = RelaxedBernoulli::from_logits(&logits, tau)
            .unwrap()
            .sample_n(20, key)
            .unwrap();
        let v = LogitRelaxedBernoulli::from_logits(&logits, tau)
            .unwrap()
            .sample_n(20, key)
            .unwrap();
        let (y, v, x) = (data::values(&y), data::values(&v), data::values(&coin));
        assert!((0..x.len()).all(|i| (y[i] > 0.5) == (x[i] == 1.0)));
        assert!((0..x.len()).all(|i| (1.0 / (1.0 + (-v[i]).exp()) - y[i]).abs() < 1e-14));
    }
}

#[test]
fn keys_in_memory_draw_what_plain_keys_do() {
    let there = DeviceKey::new(KEY, &Device::Cpu).unwrap();
    let p = Logistic::new(&s(0.4), &s(1.3)).unwrap();
    let (a, b) = (p.sample_n(9, KEY).unwrap(), p.sample_n(9, &there).unwrap());
    assert_same(&a, &b, || "logistic".into());
    let c = p.sample_n(9, Key::new(11, 4)).unwrap();
    assert_ne!(data::bits(&a), data::bits(&c));
}

#[test]
fn a_sample_tracks_nothing_and_an_rsample_does() {
    let loc = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let p = Normal::from_log_var(&loc, &loc).unwrap();
    assert!(!p.sample(KEY).unwrap().track_op());
    assert!(p.rsample(KEY).unwrap().track_op());
    let p = RelaxedBernoulli::from_logits(&loc, 0.5).unwrap();
    assert!(!p.sample(KEY).unwrap().track_op());
    assert!(p.rsample(KEY).unwrap().track_op());
    let p = Bernoulli::from_logits(&loc).unwrap();
    assert!(!p.sample(KEY).unwrap().track_op() && !p.mode().unwrap().track_op());
}
