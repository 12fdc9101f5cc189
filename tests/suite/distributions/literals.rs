//! Numbers computed independently, with 50 digits, by mpmath.

use candle_core::{DType, Tensor};
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence,
    Logistic, LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli,
    RelaxedOneHotCategorical,
};

use super::{near, s, s32, t, value};
use crate::support::data;

const EXACT: f64 = 1e-14;

fn normal(loc: f64, scale: f64) -> Normal {
    Normal::new(&s(loc), &s(scale)).unwrap()
}

fn coin(logit: f64) -> Bernoulli {
    Bernoulli::from_logits(&s(logit)).unwrap()
}

fn gumbel(loc: f64, scale: f64) -> Gumbel {
    Gumbel::new(&s(loc), &s(scale)).unwrap()
}

#[test]
fn normal_densities_and_entropy() {
    let p = normal(0.3, 0.7);
    near(value(p.log_prob(&s(-1.2))), -2.858_181_956_612_879, EXACT);
    near(value(p.entropy()), 1.062_263_589_265_940_4, EXACT);
    let from_log_var = |log_var| Normal::from_log_var(&s(0.3), &s(log_var)).unwrap();
    near(
        value(from_log_var(-3.1).log_prob(&s(0.25))),
        0.603_314_027_693_525_2,
        EXACT,
    );
    near(
        value(from_log_var(-600.0).log_prob(&s(0.3))),
        299.081_061_466_795_3,
        EXACT,
    );
    near(value(p.mean()), 0.3, 0.0);
    near(value(p.mode()), 0.3, 0.0);
    near(value(p.variance()), 0.49, EXACT);
    near(value(p.stddev()), 0.7, 0.0);
    near(value(from_log_var(4f64.ln()).stddev()), 2.0, EXACT);
}

#[test]
fn normal_divergence_keeps_its_digits_where_the_two_are_close() {
    let far = normal(0.3, 0.7).kl_divergence(&normal(-1.0, 1.9));
    near(value(far), 0.800_467_888_282_872_3, EXACT);
    let scale = 1.25;
    let close = normal(0.5, scale).kl_divergence(&normal(0.5, scale * (1.0 + 2f64.powi(-20))));
    // Written out term by term, it would have no digit right.
    near(value(close), 9.094_932_561_718_919e-13, 1e-9);
    let log_var = |log_var: f64| Normal::from_log_var(&s(0.5), &s(log_var)).unwrap();
    let mixed = normal(0.3, 0.7)
        .kl_divergence(&Normal::from_log_var(&s(-1.0), &s(2.0 * 1.9f64.ln())).unwrap());
    near(value(mixed), 0.800_467_888_282_872_3, EXACT);
    let both = log_var(1e-3).kl_divergence(&log_var(0.0));
    near(value(both), (1e-3f64.exp_m1() - 1e-3) / 2.0, 1e-9);
}

#[test]
fn bernoulli_densities_entropy_and_divergence() {
    near(
        value(coin(0.8).log_prob(&s(1.0))),
        -0.371_100_665_947_777_7,
        EXACT,
    );
    near(
        value(coin(0.8).log_prob(&s(0.0))),
        -1.171_100_665_947_777_7,
        EXACT,
    );
    near(
        value(coin(30.0).log_prob(&s(1.0))),
        -9.357_622_968_839_737e-14,
        EXACT,
    );
    near(
        value(coin(-30.0).log_prob(&s(1.0))),
        -30.000_000_000_000_093,
        EXACT,
    );
    near(value(coin(0.8).entropy()), 0.619_121_081_045_687_8, EXACT);
    near(
        value(coin(-40.0).entropy()),
        1.741_825_244_669_551_5e-16,
        EXACT,
    );
    let kl = |a: f64, b: f64| value(coin(a).kl_divergence(&coin(b)));
    near(kl(0.8, -1.5), 0.617_253_918_628_483_3, EXACT);
    near(kl(100.0, -100.0), 100.0, EXACT);
    near(kl(-100.0, 100.0), 100.0, EXACT);
    near(kl(-30.0, -20.0), 2.060_124_281_787_808_4e-9, 1e-10);
    near(
        kl(0.75, 0.75 + 2f64.powi(-12)),
        6.493_587_461_529_816e-9,
        1e-10,
    );
    assert_eq!(kl(0.75, 0.75), 0.0);
    near(value(coin(0.8).variance()), 0.213_909_696_520_294_4, 1e-12);
    // in f32 the small ones keep their digits too
    let single = Bernoulli::from_logits(&s32(30.0)).unwrap();
    near(value(single.log_prob(&s32(1.0))), -9.357_623e-14, 1e-6);
    let single = Bernoulli::from_logits(&s32(-40.0)).unwrap();
    near(value(single.entropy()), 1.741_825_2e-16, 1e-6);
}

#[test]
fn gumbel_and_logistic() {
    let p = gumbel(0.3, 1.7);
    near(value(p.log_prob(&s(-0.4))), -1.628_342_768_138_520_2, EXACT);
    near(value(p.entropy()), 2.107_843_915_963_703_3, EXACT);
    near(value(p.mean()), 0.3 + 1.7 * 0.577_215_664_901_532_9, EXACT);
    near(
        value(p.variance()),
        1.7 * 1.7 * 1.644_934_066_848_226_4,
        EXACT,
    );
    near(value(p.mode()), 0.3, 0.0);
    near(
        value(p.kl_divergence(&gumbel(-0.5, 0.6))),
        1.638_092_453_580_425,
        EXACT,
    );
    near(
        value(gumbel(0.3, 0.05).kl_divergence(&gumbel(-0.5, 2.0))),
        3.187_146_357_211_628,
        EXACT,
    );
    let (a, b) = (
        Gumbel::new(&s32(0.25), &s32(1.5)).unwrap(),
        Gumbel::new(&s32(0.25 + 2f64.powi(-10)), &s32(1.5)).unwrap(),
    );
    near(value(a.kl_divergence(&b)), 2.119_736_245_928_360_6e-7, 1e-6);
    let p = Logistic::new(&s(0.3), &s(1.7)).unwrap();
    near(value(p.log_prob(&s(-0.4))), -1.959_014_046_627_032, EXACT);
    near(value(p.entropy()), 1.7f64.ln() + 2.0, EXACT);
    near(
        value(p.variance()),
        1.7 * 1.7 * 3.289_868_133_696_453,
        EXACT,
    );
}

#[test]
fn categorical_densities_entropy_and_divergence() {
    let logits = [1.0, 2.0, 0.5, -1.0];
    let log_probs = [
        -1.495_181_898_085_856,
        -0.495_181_898_085_856_05,
        -1.995_181_898_085_856,
        -3.495_181_898_085_856,
    ];
    let entropy = 1.014_402_775_502_564_1;
    let index = Categorical::from_logits(&t(&logits, &[4])).unwrap();
    let one_hot = OneHotCategorical::from_logits(&t(&logits, &[4])).unwrap();
    for k in 0..4 {
        let at = Tensor::new(k as u32, &candle_core::Device::Cpu).unwrap();
        near(value(index.log_prob(&at)), log_probs[k], EXACT);
        let mut hot = [0.0; 4];
        hot[k] = 1.0;
        near(value(one_hot.log_prob(&t(&hot, &[4]))), log_probs[k], EXACT);
    }
    near(value(index.entropy()), entropy, EXACT);
    near(value(one_hot.entropy()), entropy, EXACT);
    for (other, want, tolerance) in [
        ([0.0, -0.5, 1.0, 2.0], 1.554_425_359_541_387_6, EXACT),
        (
            [1.0 + 2f64.powi(-12), 2.0, 0.5, -1.0],
            5.184_009_078_277_483e-9,
            1e-10,
        ),
        (logits, 0.0, 0.0),
    ] {
        let q = Categorical::from_logits(&t(&other, &[4])).unwrap();
        near(value(index.kl_divergence(&q)), want, tolerance);
        let q = OneHotCategorical::from_logits(&t(&other, &[4])).unwrap();
        near(value(one_hot.kl_divergence(&q)), want, tolerance);
    }
    let p = OneHotCategorical::from_probs(&t(&[1.0, 0.0, 3.0], &[3])).unwrap();
    assert_eq!(data::values(&p.mean().unwrap()), [0.25, 0.0, 0.75]);
    assert_eq!(data::values(&p.variance().unwrap()), [0.1875, 0.0, 0.1875]);
    assert_eq!(data::values(&p.mode().unwrap()), [0.0, 0.0, 1.0]);
    assert_eq!(value(index.mode()), 1.0);
}

#[test]
fn concrete_densities() {
    let logits = t(&[0.3, -1.1, 0.8, 0.0], &[4]);
    let y = t(&[0.2, 0.5, 0.25, 0.05], &[4]);
    let in_logs = ExpRelaxedOneHotCategorical::new(&logits, 0.4).unwrap();
    near(
        value(in_logs.log_prob(&y.log().unwrap())),
        -7.572_127_052_411_974,
        EXACT,
    );
    let on_simplex = RelaxedOneHotCategorical::new(&logits, 0.4).unwrap();
    near(
        value(on_simplex.log_prob(&y)),
        -0.887_515_324_744_046_3,
        1e-13,
    );
    let in_logits = LogitRelaxedBernoulli::from_logits(&s(0.3), 0.4).unwrap();
    near(
        value(in_logits.log_prob(&s(-1.7))),
        -2.533_650_650_348_420_6,
        EXACT,
    );
    let on_interval = RelaxedBernoulli::from_logits(&s(0.3), 0.4).unwrap();
    near(
        value(on_interval.log_prob(&s(0.13))),
        -0.391_945_639_056_087_5,
        1e-13,
    );
    let probability = 1.0 / (1.0 + (-0.3f64).exp());
    let from_probs = RelaxedBernoulli::from_probs(&s(probability), 0.4).unwrap();
    near(
        value(from_probs.log_prob(&s(0.13))),
        -0.391_945_639_056_087_5,
        1e-13,
    );
}

#[test]
fn the_count_in_the_concrete_density_is_a_factorial() {
    // At the uniform point, with uniform logits and temperature 1, the density is (K - 1)!.
    for (classes, want) in [
        (1, 0.0),
        (2, 0.0),
        (65, 205.168_199_482_641_2),
        (1000, 5_905.220_423_209_181),
    ] {
        let zeros = t(&vec![0.0; classes], &[classes]);
        let y = t(&vec![1.0 / classes as f64; classes], &[classes]);
        let p = RelaxedOneHotCategorical::new(&zeros, 1.0).unwrap();
        near(value(p.log_prob(&y)), want, 1e-12);
    }
}

#[test]
fn every_dtype_agrees_with_f64_to_its_rounding() {
    for dtype in data::FLOATS {
        let device = candle_core::Device::Cpu;
        let make = |v: f64| data::tensor(&[v], (), dtype, &device);
        let exact = |v: f64| data::values(&make(v))[0];
        let (loc, scale, x) = (exact(0.3), exact(0.7), exact(-1.2));
        let got = Normal::new(&make(0.3), &make(0.7))
            .unwrap()
            .log_prob(&make(-1.2));
        let got = got.unwrap();
        assert_eq!(got.dtype(), dtype);
        let want = value(normal(loc, scale).log_prob(&s(x)));
        let slack = if dtype == DType::F64 { 1e-15 } else { 1e-6 };
        let allowed = data::half_ulp(dtype, want) + slack * want.abs();
        let got = data::values(&got)[0];
        assert!((got - want).abs() <= allowed, "{dtype:?}: {got} {want}");
    }
}
