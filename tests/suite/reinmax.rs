//! `reinmax`.

use candle_core::{D, DType, Device, Tensor};
use candle_reparam::{DeviceKey, Key, bits, gumbel_max, reinmax};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::estimators::{self, Estimator, check_gradient, gradient, off};
use crate::support::oracle::{self, Rows};
use crate::support::{refused, relaxed, statistics};

const EXACT: Estimator = Estimator::ReinMax { tau: 1.0 };
const SMOOTH: Estimator = Estimator::ReinMax { tau: 1.7 };

#[test]
fn the_draw_is_that_of_gumbel_softmax_st() {
    let shapes: Vec<&[usize]> = SHAPES
        .into_iter()
        .chain([&[6, 4097][..], &[3, 300, 17]])
        .collect();
    estimators::check_forward(EXACT, &shapes);
    // and so that of gumbel_max
    let x = data::random((40, 9), 3, 2.0, DType::F32, &Device::Cpu);
    let key = Key::new(8, 1);
    let hot = reinmax(&x, 1.0, 1, key).unwrap().argmax(D::Minus1).unwrap();
    let picked = gumbel_max(&x, 1, key).unwrap();
    assert_eq!(data::indices(&hot), data::indices(&picked));
}

#[test]
fn classes_are_drawn_as_often_as_softmax_says() {
    let logits = [0.0, 1.0, -1.0, 2.0, -4.0];
    let x = data::tensor(&logits, (1, 5), DType::F32, &Device::Cpu);
    let x = x.broadcast_as((100_000, 5)).unwrap();
    let counts = reinmax(&x, 1.5, 1, Key::new(4, 0)).unwrap().sum(0).unwrap();
    let counts: Vec<u64> = data::values(&counts).iter().map(|c| *c as u64).collect();
    let fit = statistics::chi_square(&counts, &oracle::probabilities(&logits));
    assert!(fit > 1e-3, "{counts:?}: p = {fit:e}");
}

#[test]
fn gradients_match_double_precision() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in (0..shape.len()).filter(|d| shape[*d] > 1) {
                    for (tau, scale) in [(1.0, 1.0), (1.0, 6.0), (2.5, 3.0), (40.0, 1.0)] {
                        let x = data::random(shape, 12, scale, dtype, &device);
                        let est = Estimator::ReinMax { tau };
                        check_gradient(est, &x, dim, Key::new(5, dim as u64));
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_for_every_row_length_and_inner_size() {
    for device in devices() {
        for len in LENGTHS.into_iter().filter(|l| *l > 1) {
            for inner in INNER {
                if len * inner > 300_000 {
                    continue;
                }
                let outer = (6000 / (len * inner)).clamp(1, 40);
                let x = data::random((outer, len, inner), len as u64, 2.0, DType::F32, &device);
                check_gradient(SMOOTH, &x, 1, Key::new(15, inner as u64));
            }
        }
    }
}

#[test]
fn every_layout_has_the_bits_of_its_contiguous_copy() {
    estimators::check_layouts(SMOOTH);
}

#[test]
fn masks_broken_rows_and_small_things() {
    for est in [EXACT, SMOOTH] {
        estimators::check_masks_and_broken_rows(est);
        estimators::check_small_things(est);
    }
}

/// Losses of a one-hot with their gradients.
fn quadratic(m: &[f64], b: &[f64], d: &[f64]) -> f64 {
    let n = b.len();
    let of = |i: usize| oracle::sum((0..n).map(|j| m[i * n + j] * d[j])) / 2.0 + b[i];
    oracle::sum((0..n).map(|i| d[i] * of(i)))
}

fn quadratic_gradient(m: &[f64], b: &[f64], d: &[f64]) -> Vec<f64> {
    let n = b.len();
    (0..n)
        .map(|i| b[i] + oracle::sum((0..n).map(|j| (m[i * n + j] + m[j * n + i]) * d[j])) / 2.0)
        .collect()
}

#[test]
fn the_expectation_is_exact_for_a_quadratic_loss_at_a_temperature_of_1() {
    for (seed, scale) in [(1, 0.5), (2, 2.0), (3, 5.0)] {
        let n = 7;
        let z = data::normals(n, seed, scale);
        let (m, b) = (
            data::normals(n * n, seed + 10, 1.0),
            data::normals(n, seed + 20, 1.0),
        );
        let want = estimators::true_gradient(&z, |d| quadratic(&m, &b, d));
        let mean = |tau: f64| {
            estimators::expected(
                &z,
                |d| quadratic_gradient(&m, &b, d),
                |x, d, g| bits::reinmax_gradient(x, d, g, tau, 1).unwrap(),
            )
        };
        let exact = off(&mean(1.0), &want);
        assert!(exact < 1e-12, "scale {scale}: off by {exact:e}");
        // the test can tell: another temperature is biased
        let biased = off(&mean(2.0), &want);
        assert!(biased > 1e-2, "scale {scale}: off by {biased:e}");
    }
}

#[test]
fn a_loss_that_is_not_quadratic_has_less_bias_than_with_straight_through() {
    let n = 5;
    let (mut ours, mut theirs) = (0.0, 0.0);
    for seed in 0..20 {
        let z = data::normals(n, seed, 1.0);
        let c = data::normals(n, seed + 100, 1.0);
        // A square, and something of a cube.
        let f = |d: &[f64]| oracle::dot(&c, d).powi(2) + 0.1 * oracle::dot(&c, d).powi(3);
        let g = |d: &[f64]| {
            let s = 2.0 * oracle::dot(&c, d) + 0.3 * oracle::dot(&c, d).powi(2);
            c.iter().map(|c| c * s).collect::<Vec<_>>()
        };
        let want = estimators::true_gradient(&z, f);
        let reinmax = estimators::expected(&z, g, |x, d, g| {
            bits::reinmax_gradient(x, d, g, 1.0, 1).unwrap()
        });
        // Straight-through is J(pi) g.
        let through = estimators::expected(&z, g, |x, _, g| {
            let p = candle_nn::ops::softmax(x, 1).unwrap();
            let mean = (&p * g).unwrap().sum_keepdim(1).unwrap();
            (p * g.broadcast_sub(&mean).unwrap()).unwrap()
        });
        ours += off(&reinmax, &want);
        theirs += off(&through, &want);
    }
    assert!(
        1e-6 < ours && ours < 0.5 * theirs,
        "{ours:e} and {theirs:e}"
    );
}

#[test]
fn peaked_rows_keep_their_digits() {
    for device in devices() {
        for tau in [1.0, 1.01, 3.0, 1e6] {
            for gap in [10.0, 16.0, 17.0, 20.0, 30.0, 80.0, 1e4] {
                // Hot where the mass is, hot elsewhere, two that share it.
                for hot in 0..5 {
                    for second in [0.0, gap - 0.25] {
                        let z = [0.5, gap, second, -1.0, f64::from(hot as u32) * 0.1];
                        let w = [-1.0, 3.0, 2.0, 0.25, -0.75];
                        let mut d = [0.0; 5];
                        d[hot] = 1.0;
                        let t = |v: &[f64]| data::tensor(v, (1, 5), DType::F32, &device);
                        let got = bits::reinmax_gradient(&t(&z), &t(&d), &t(&w), tau, 1).unwrap();
                        let want = estimators::reinmax_row(&data::values(&t(&z)), &d, &w, tau);
                        // With all of the mass where it is hot, nothing is left in f32.
                        if want.iter().all(|w| w.abs() < 1e-30) {
                            continue;
                        }
                        let off = off(&data::values(&got), &want);
                        assert!(
                            off < 2e-6,
                            "tau {tau} gap {gap} hot {hot} second {second}: off by {off:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_small_gradient_beside_a_peak_keeps_its_digits() {
    // Nearly all mass at the first class, another drawn, and a high temperature: where the gradient of the class drawn is the
    // mean of all, the row's largest entry is some thousandth, and the peak's own a difference of numbers near 1.
    let n = 1000;
    for (seed, peak) in [(3, 14.0), (5, 16.0), (7, 18.0)] {
        let mut z = data::normals(n, seed, 0.1);
        z[0] = peak;
        let mut w = data::normals(n, seed + 1, 1.0);
        (w[0], w[1]) = (1.3, 0.0);
        w[1] = oracle::sum(w.iter().copied()) / (n - 1) as f64;
        let mut d = vec![0.0; n];
        d[1] = 1.0;
        for device in devices() {
            let t = |v: &[f64]| data::tensor(v, (1, n), DType::F32, &device);
            let got = bits::reinmax_gradient(&t(&z), &t(&d), &t(&w), 1e6, 1).unwrap();
            let (z, w) = (data::values(&t(&z)), data::values(&t(&w)));
            let want = estimators::reinmax_row(&z, &d, &w, 1e6);
            let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            assert!(largest < 1e-2, "the largest is {largest:e}");
            let off = off(&data::values(&got), &want);
            assert!(off < 5e-6, "peak {peak}: off by {off:e}");
        }
    }
}

#[test]
fn a_common_offset_of_the_gradient_changes_nothing_and_no_sum_is_left() {
    let x = data::random((50, 12), 3, 2.0, DType::F64, &Device::Cpu);
    let w = relaxed::weights(&[50, 12], 1, DType::F64, &Device::Cpu);
    let key = Key::new(3, 3);
    let a = data::values(&gradient(|x| SMOOTH.apply(x, 1, key), &x, &w));
    let b = data::values(&gradient(
        |x| SMOOTH.apply(x, 1, key),
        &x,
        &(w + 100.0).unwrap(),
    ));
    assert!(off(&b, &a) < 1e-12);
    let rows = Rows::of(&x, 1);
    for row in 0..rows.count() {
        assert!(oracle::sum(rows.row(&a, row)).abs() < 1e-14, "{row}");
    }
}

#[test]
fn extreme_logits_and_temperatures_stay_finite() {
    for device in devices() {
        for (shape, dim) in [(&[4, 50][..], 1), (&[3, 10, 5], 1)] {
            for tau in [1.0, 1e6, 1e30] {
                for scale in [1e4, 1e30] {
                    for dtype in [DType::F32, DType::F64, DType::BF16] {
                        let x = data::random(shape, 3, scale, dtype, &device);
                        let w = relaxed::weights(shape, 3, dtype, &device);
                        let est = Estimator::ReinMax { tau };
                        let g =
                            data::values(&gradient(|x| est.apply(x, dim, Key::new(1, 5)), &x, &w));
                        assert!(g.iter().all(|g| g.is_finite()), "{dtype:?} {tau} {scale}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_key_in_device_memory_draws_what_its_value_does() {
    for device in devices() {
        let key = Key::new(77, 1);
        let there = DeviceKey::new(key, &device).unwrap();
        let x = data::random((6, 50), 1, 1.0, DType::F32, &device);
        let a = reinmax(&x, 1.0, 1, &there).unwrap();
        data::assert_same(&a, &reinmax(&x, 1.0, 1, key).unwrap(), || "key".into());
    }
}

#[test]
fn a_temperature_below_1_is_refused() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    for (tau, shown) in [
        (0.999, "0.999"),
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        refused(
            reinmax(&x, tau, 1, Key::new(1, 1)),
            "reinmax",
            &["tau", shown],
        );
    }
    let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
    refused(
        reinmax(&empty, 1.0, 1, Key::new(1, 1)),
        "reinmax",
        &["empty", "[3, 0]"],
    );
    refused(reinmax(&x, 1.0, 2, Key::new(1, 1)), "reinmax", &["2"]);
    refused(
        reinmax(&x, 1.0, 1, Key::new(1, 1 << 63)),
        "reinmax",
        &["stream"],
    );
    let whole = Tensor::zeros((3, 4), DType::U32, &Device::Cpu).unwrap();
    refused(reinmax(&whole, 1.0, 1, Key::new(1, 1)), "reinmax", &["U32"]);
}
