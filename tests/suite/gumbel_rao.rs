//! `gumbel_rao`.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{DeviceKey, Key, bits, gumbel_rao, gumbel_softmax_st};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::estimators::{self, Estimator, check_gradient, gradient, off};
use crate::support::oracle::{self, Rows};
use crate::support::{refused, relaxed, statistics};

const PLAIN: Estimator = Estimator::Rao {
    tau: 1.0,
    samples: 3,
};
const SHARP: Estimator = Estimator::Rao {
    tau: 0.4,
    samples: 2,
};

#[test]
fn the_draw_is_that_of_gumbel_softmax_st() {
    let shapes: Vec<&[usize]> = SHAPES
        .into_iter()
        .chain([&[6, 4097][..], &[3, 300, 17]])
        .collect();
    estimators::check_forward(SHARP, &shapes);
}

#[test]
fn gradients_match_double_precision() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in (0..shape.len()).filter(|d| shape[*d] > 1) {
                    for (tau, samples, scale) in [(1.0, 1, 1.0), (0.3, 4, 1.0), (2.5, 2, 3.0)] {
                        let x = data::random(shape, 12, scale, dtype, &device);
                        let est = Estimator::Rao { tau, samples };
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
                if len * inner > 100_000 {
                    continue;
                }
                let outer = (4000 / (len * inner)).clamp(1, 40);
                let x = data::random((outer, len, inner), len as u64, 2.0, DType::F32, &device);
                for est in [PLAIN, SHARP] {
                    check_gradient(est, &x, 1, Key::new(15, inner as u64));
                }
            }
        }
    }
}

#[test]
fn classes_however_improbable_keep_their_weight() {
    // Ratios beyond the range of f32, which a high temperature brings back to a weight near 1.
    for device in devices() {
        for (tau, spread) in [(5.0, 60.0), (30.0, 200.0), (300.0, 2000.0), (1e4, 1e4)] {
            for len in [9, 300, 5000] {
                for dtype in [DType::F32, DType::F64] {
                    let mut v = data::normals(4 * len, 3, 1.0);
                    for row in 0..4 {
                        v[row * len + row] += spread;
                        v[row * len + 5] -= spread;
                        v[row * len + 6] = f64::NEG_INFINITY;
                    }
                    let x = data::tensor(&v, (4, len), dtype, &device);
                    let est = Estimator::Rao { tau, samples: 2 };
                    check_gradient(est, &x, 1, Key::new(2, 2));
                }
            }
        }
    }
}

#[test]
fn no_row_feels_how_its_neighbours_are_computed() {
    // Short rows are worked on side by side; one whose ratios are beyond the range of f32 goes by their logarithms.
    for device in devices() {
        for (shape, dim) in [(&[40, 9][..], 1), (&[40, 40], 1), (&[9, 40], 0)] {
            let calm = data::normals(shape.iter().product(), 3, 1.0);
            let mut wild = calm.clone();
            let len = shape[dim];
            let place = |row: usize, k: usize| {
                if dim == 1 {
                    row * len + k
                } else {
                    k * 40 + row
                }
            };
            for row in [3, 17, 39] {
                wild[place(row, 1)] += 200.0;
                wild[place(row, 5)] -= 200.0;
            }
            let w = relaxed::weights(shape, 7, DType::F32, &device);
            let of = |v: &[f64]| {
                let x = data::tensor(v, shape, DType::F32, &device);
                data::values(&gradient(|x| SHARP.apply(x, dim, Key::new(5, 6)), &x, &w))
            };
            let (calm, wild) = (of(&calm), of(&wild));
            for row in 0..40 {
                let differs = (0..len).any(|k| calm[place(row, k)] != wild[place(row, k)]);
                assert_eq!(differs, [3, 17, 39].contains(&row), "{shape:?} row {row}");
            }
        }
    }
}

#[test]
fn every_layout_has_the_bits_of_its_contiguous_copy() {
    for est in [PLAIN, SHARP] {
        estimators::check_layouts(est);
    }
}

#[test]
fn masks_broken_rows_and_small_things() {
    for est in [PLAIN, SHARP] {
        estimators::check_masks_and_broken_rows(est);
        estimators::check_small_things(est);
    }
}

#[test]
fn many_samples_are_the_mean_of_single_ones() {
    // Sample k of a key is sample 0 of the key that stands k streams further.
    let n = 6;
    let x = data::random((8, n), 3, 1.0, DType::F64, &Device::Cpu);
    let w = relaxed::weights(&[8, n], 5, DType::F64, &Device::Cpu);
    let key = Key::new(6, 2);
    let d = gumbel_softmax_st(&x, 1.0, 1, key).unwrap();
    let many = bits::gumbel_rao_gradient(&x, &d, &w, (0.7, 40), 1, key).unwrap();
    let rows = Rows::of(&x, 1);
    let drawn = data::values(&d);
    let want = Estimator::Rao {
        tau: 0.7,
        samples: 40,
    };
    let want = want.reference(&x, &drawn, &data::values(&w), 1, key);
    let one = Estimator::Rao {
        tau: 0.7,
        samples: 1,
    };
    let one = one.reference(&x, &drawn, &data::values(&w), 1, key);
    assert!(off(&data::values(&many), &want) < 1e-13);
    assert!(off(&one, &want) > 1e-2, "all samples are alike");
    assert_eq!(rows.count(), 8);
}

/// Of every row the scores that its gradient's own kernel drew, relative to the noise of the class drawn: from the entries of
/// `J(y)` at a temperature of 1, `y_a y_b` in each.
fn scores_of_the_kernel(x: &Tensor, key: Key, device: &Device) -> Vec<f64> {
    let (count, n) = x.dims2().unwrap();
    assert!(n >= 3);
    let x = x.to_device(device).unwrap();
    let drawn = gumbel_softmax_st(&x, 1.0, 1, key).unwrap();
    let hot: Vec<usize> = data::values(&drawn).chunks(n).map(oracle::argmax).collect();
    // g is one-hot at a class of each row.
    let column = |class: &dyn Fn(usize) -> usize| {
        let mut g = vec![0.0; count * n];
        (0..count).for_each(|row| g[row * n + class(row)] = 1.0);
        let g = data::tensor(&g, (count, n), DType::F64, device);
        data::values(&bits::gumbel_rao_gradient(&x, &drawn, &g, (1.0, 1), 1, key).unwrap())
    };
    let (a, b) = (
        |row: usize| (hot[row] + 1) % n,
        |row: usize| (hot[row] + 2) % n,
    );
    let (by_hot, by_a) = (column(&|row| hot[row]), column(&a));
    let x = data::values(&x);
    let noise = &estimators::rao_noise(
        &data::tensor(&x, (count, n), DType::F64, &Device::Cpu),
        1,
        key,
    )[0];
    let mut scores = vec![0.0; count * n];
    for row in 0..count {
        let at = |k: usize| row * n + k;
        let (h, a, b) = (hot[row], a(row), b(row));
        // (y_h y_a) (y_h y_b) / (y_a y_b)
        let own = (-by_hot[at(a)] * by_hot[at(b)] / by_a[at(b)]).sqrt();
        let top = oracle::log_sum_exp(&x[at(0)..at(n)]) - noise[at(h)].ln();
        for k in 0..n {
            scores[at(k)] = if k == h {
                top
            } else {
                top + (-by_hot[at(k)] / (own * own)).ln()
            };
        }
    }
    scores
}

#[test]
fn conditional_scores_are_gumbel_and_their_arg_max_is_the_class_drawn() {
    for device in devices() {
        let logits = [0.3, -1.2, 1.1, -3.0];
        let (count, n) = (if device.is_cpu() { 60_000 } else { 4000 }, 4);
        let x = data::tensor(&logits, (1, n), DType::F64, &Device::Cpu);
        let x = x.broadcast_as((count, n)).unwrap().contiguous().unwrap();
        let key = Key::new(12, 5);
        let drawn = data::values(&gumbel_softmax_st(&x, 1.0, 1, key).unwrap());
        let scores = scores_of_the_kernel(&x, key, &device);
        for (scores, drawn) in scores.chunks(n).zip(drawn.chunks(n)) {
            assert_eq!(oracle::argmax(scores), oracle::argmax(drawn), "{scores:?}");
        }
        // Over the classes drawn, each score is its logit plus standard Gumbel noise.
        for (class, logit) in logits.into_iter().enumerate() {
            let noise: Vec<f64> = scores.chunks(n).map(|s| s[class] - logit).collect();
            let fit = statistics::ks(noise.clone(), |x| (-(-x).exp()).exp());
            assert!(fit > 1e-3, "class {class}: p = {fit:e}");
            for t in [4.0, 6.0, -1.8_f64] {
                let beyond = noise
                    .iter()
                    .filter(|x| if t > 0.0 { **x > t } else { **x < t });
                let below = (-(-t).exp()).exp();
                let p = if t > 0.0 { 1.0 - below } else { below };
                let fit = statistics::poisson_p(beyond.count() as u64, p * count as f64);
                assert!(fit > 1e-4, "class {class} beyond {t}: p = {fit:e}");
            }
        }
        // Scores of different classes know nothing of each other.
        for (a, b) in [(0, 1), (0, 2), (1, 3)] {
            let of = |k: usize| scores.chunks(n).map(|s| s[k]).collect::<Vec<_>>();
            let z = statistics::correlation_z(&of(a), &of(b));
            assert!(z.abs() < 4.5, "classes {a} and {b}: {z}");
        }
    }
}

/// Gradients of many rows of the same logits, each with its own draw.
fn many(est: impl Fn(&Tensor) -> Tensor, z: &[f64], g: &[f64], count: usize) -> Vec<Vec<f64>> {
    let n = z.len();
    let spread = |v: &[f64]| {
        let t = data::tensor(v, (1, n), DType::F64, &Device::Cpu);
        t.broadcast_as((count, n)).unwrap().contiguous().unwrap()
    };
    let grads = gradient(|x| Ok(est(x)), &spread(z), &spread(g));
    let grads = data::values(&grads);
    (0..n)
        .map(|k| grads.iter().skip(k).step_by(n).copied().collect())
        .collect()
}

#[test]
fn the_mean_is_that_of_straight_through_gumbel_and_the_variance_falls() {
    let z = [0.4, -0.8, 1.3, 0.0];
    let g = [1.0, -0.5, 0.25, 2.0];
    for tau in [0.5, 1.0] {
        let count = 40_000;
        let key = Key::new(14, 3);
        let st = many(
            |x| gumbel_softmax_st(x, tau, 1, key).unwrap(),
            &z,
            &g,
            count,
        );
        let mut variances = vec![st.iter().map(|v| statistics::variance(v)).sum::<f64>()];
        for (i, samples) in [1, 4, 64].into_iter().enumerate() {
            let key = Key::new(15, i as u64);
            let rao = many(
                |x| gumbel_rao(x, tau, samples, 1, key).unwrap(),
                &z,
                &g,
                count,
            );
            for (k, (a, b)) in rao.iter().zip(&st).enumerate() {
                let (va, vb) = (statistics::variance(a), statistics::variance(b));
                let error = ((va + vb) / count as f64).sqrt();
                let z = (statistics::mean(a) - statistics::mean(b)) / error;
                assert!(
                    z.abs() < 4.0,
                    "tau {tau}, {samples} samples, class {k}: {z}"
                );
                // the test can tell: the means are not zero
                assert!(
                    statistics::mean(b).abs() > 10.0 * error || k == 1,
                    "class {k}"
                );
            }
            variances.push(rao.iter().map(|v| statistics::variance(v)).sum());
        }
        // One sample has the variance of straight-through itself; of what the noise adds, four leave a quarter.
        let [st, one, four, most] = variances[..] else {
            panic!()
        };
        assert!((one / st - 1.0).abs() < 0.05, "{variances:?}");
        let quarter = (four - most) / (one - most);
        assert!((0.2..0.3).contains(&quarter), "{variances:?}: {quarter}");
        assert!(most < 0.9 * one, "{variances:?}");
    }
}

#[test]
fn classes_are_drawn_as_often_as_softmax_says() {
    let logits = [0.0, 1.0, -1.0, 2.0, -4.0];
    let x = data::tensor(&logits, (1, 5), DType::F32, &Device::Cpu);
    let x = x.broadcast_as((100_000, 5)).unwrap();
    let counts = gumbel_rao(&x, 1.5, 2, 1, Key::new(6, 0))
        .unwrap()
        .sum(0)
        .unwrap();
    let counts: Vec<u64> = data::values(&counts).iter().map(|c| *c as u64).collect();
    let fit = statistics::chi_square(&counts, &oracle::probabilities(&logits));
    assert!(fit > 1e-3, "{counts:?}: p = {fit:e}");
}

#[test]
fn peaked_rows_keep_their_digits() {
    for device in devices() {
        for gap in [10.0, 16.0, 20.0, 30.0, 1e4] {
            for tau in [0.5, 1.0, 3.0] {
                for hot in 0..5 {
                    let z = [0.5, gap, 0.0, -1.0, 0.25];
                    let w = [-1.0, 3.0, 2.0, 0.25, -0.75];
                    let mut d = [0.0; 5];
                    d[hot] = 1.0;
                    let t = |v: &[f64]| data::tensor(v, (1, 5), DType::F32, &device);
                    let key = Key::new(3, 4);
                    let how = (tau, 5);
                    let got = bits::gumbel_rao_gradient(&t(&z), &t(&d), &t(&w), how, 1, key);
                    let est = Estimator::Rao { tau, samples: 5 };
                    let want = est.reference(&t(&z), &d, &w, 1, key);
                    // Where all weights but that of the class drawn are 0 in f32, so is the gradient.
                    let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
                    if largest < 1e-30 {
                        continue;
                    }
                    let off = off(&data::values(&got.unwrap()), &want);
                    assert!(off < 2e-6, "gap {gap} tau {tau} hot {hot}: off by {off:e}");
                }
            }
        }
    }
}

#[test]
fn extreme_logits_and_temperatures_stay_finite() {
    for device in devices() {
        for (shape, dim) in [(&[4, 50][..], 1), (&[3, 10, 5], 1)] {
            for tau in [1e-30, 1e-6, 1.0, 1e6, 1e30] {
                for scale in [1.0, 1e4, 1e30] {
                    for dtype in [DType::F32, DType::F64, DType::BF16] {
                        let x = data::random(shape, 3, scale, dtype, &device);
                        let w = relaxed::weights(shape, 3, dtype, &device);
                        let est = Estimator::Rao { tau, samples: 3 };
                        let g = gradient(|x| est.apply(x, dim, Key::new(1, 5)), &x, &w);
                        let g = data::values(&g);
                        assert!(g.iter().all(|g| !g.is_nan()), "{dtype:?} {tau} {scale}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_key_in_device_memory_draws_what_its_value_does() {
    for device in devices() {
        for key in [Key::new(77, 1), Key::new(u64::MAX, (1 << 63) - 1)] {
            let there = DeviceKey::new(key, &device).unwrap();
            for shape in [&[6, 50][..], &[3, 700], &[2, 9, 5], &[1, 20_000]] {
                let x = data::random(shape, 1, 1.0, DType::F32, &device);
                let w = relaxed::weights(shape, 3, DType::F32, &device);
                let a = gradient(|x| gumbel_rao(x, 0.5, 3, 1, &there), &x, &w);
                let b = gradient(|x| gumbel_rao(x, 0.5, 3, 1, key), &x, &w);
                data::assert_same(&a, &b, || format!("{shape:?}"));
            }
        }
    }
}

#[test]
fn what_it_cannot_work_with_is_refused() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    let key = Key::new(1, 1);
    for (tau, shown) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        refused(
            gumbel_rao(&x, tau, 1, 1, key),
            "gumbel_rao",
            &["tau", shown],
        );
    }
    refused(
        gumbel_rao(&x, 1.0, 0, 1, key),
        "gumbel_rao",
        &["samples", "0"],
    );
    refused(
        gumbel_rao(&x, 1.0, 1 << 32, 1, key),
        "gumbel_rao",
        &["samples", "4294967296"],
    );
    let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
    refused(
        gumbel_rao(&empty, 1.0, 1, 1, key),
        "gumbel_rao",
        &["empty", "[3, 0]"],
    );
    refused(gumbel_rao(&x, 1.0, 1, 2, key), "gumbel_rao", &["2"]);
    refused(
        gumbel_rao(&x, 1.0, 1, 1, Key::new(1, 1 << 63)),
        "gumbel_rao",
        &["stream"],
    );
    let whole = Tensor::zeros((3, 4), DType::U32, &Device::Cpu).unwrap();
    refused(gumbel_rao(&whole, 1.0, 1, 1, key), "gumbel_rao", &["U32"]);
}
