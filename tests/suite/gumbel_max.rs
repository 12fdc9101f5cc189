//! `gumbel_max`.

use candle_core::{DType, Device, Tensor, Var};
use candle_reparam::{Key, gumbel, gumbel_max};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::oracle::{self, Rows};
use crate::support::statistics::{chi_square, correlation_z, mean, poisson_p, variance};
use crate::support::{layouts, refused};

/// Arg-max of logits plus noise, from the crate's noise and an addition in the dtype it computes in.
fn expected(x: &Tensor, dim: usize, key: Key) -> Vec<usize> {
    let wide = data::compute(x.dtype());
    let z =
        (x.to_dtype(wide).unwrap() + gumbel(x.shape(), wide, x.device(), key).unwrap()).unwrap();
    let (z, rows) = (data::values(&z), Rows::of(x, dim));
    (0..rows.count())
        .map(|r| oracle::argmax(&rows.row(&z, r)))
        .collect()
}

#[track_caller]
fn check(x: &Tensor, dim: usize, key: Key) {
    let got = gumbel_max(x, dim, key).unwrap();
    let mut dims = x.dims().to_vec();
    dims.remove(dim);
    assert_eq!((got.dims(), got.dtype()), (&dims[..], DType::U32));
    assert_eq!(
        data::indices(&got),
        expected(x, dim, key),
        "{:?} {:?} dim {dim}",
        x.dims(),
        x.dtype()
    );
}

#[test]
fn the_index_of_the_largest_score_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    for (seed, scale) in [(1, 0.0), (2, 1.0), (3, 10.0)] {
                        check(
                            &data::random(shape, seed, scale, dtype, &device),
                            dim,
                            Key::new(seed, 8),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_index_for_every_row_length_and_inner_size() {
    for device in devices() {
        for len in LENGTHS {
            for inner in INNER {
                let outer = (6000 / (len * inner)).clamp(1, 40);
                let dtypes: &[DType] = if len * inner > 300_000 {
                    &FLOATS[..1]
                } else {
                    &FLOATS
                };
                for &dtype in dtypes {
                    check(
                        &data::random((outer, len, inner), len as u64, 2.0, dtype, &device),
                        1,
                        Key::new(4, inner as u64),
                    );
                }
            }
        }
        // one row longer than any piece
        check(
            &data::random((1, 300_001), 1, 1.0, DType::F32, &device),
            1,
            Key::new(1, 1),
        );
    }
}

#[test]
fn every_layout_gives_the_same_index() {
    for device in devices() {
        for shape in SHAPES.into_iter().chain([&[5, 300, 7][..], &[3, 4100]]) {
            for dtype in FLOATS {
                for (name, view) in layouts::variants(&data::random(shape, 4, 1.0, dtype, &device))
                {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        let (a, b) = (
                            gumbel_max(&view, dim, Key::new(3, 3)).unwrap(),
                            gumbel_max(&copy, dim, Key::new(3, 3)).unwrap(),
                        );
                        assert_eq!(
                            data::indices(&a),
                            data::indices(&b),
                            "{shape:?} {dtype:?} {name} dim {dim}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn tied_scores_go_to_the_lowest_index() {
    // logits so large that the noise vanishes in the addition: all scores of the large ones are equal
    for device in devices() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for len in [4, 33, 300, 5000] {
                let big = if dtype == DType::F64 {
                    1e20
                } else {
                    2.0_f64.powi(40)
                };
                for first in [0, 1, len / 2, len - 1] {
                    let mut v = vec![0.0; 3 * len];
                    for row in 0..3 {
                        for k in first..len {
                            if (k - first) % 3 == 0 {
                                v[row * len + k] = big;
                            }
                        }
                    }
                    let x = data::tensor(&v, (3, len), dtype, &device);
                    assert_eq!(
                        data::indices(&gumbel_max(&x, 1, Key::new(9, 1)).unwrap()),
                        [first; 3],
                        "{dtype:?} {len}"
                    );
                    let x = x.t().unwrap().contiguous().unwrap();
                    assert_eq!(
                        data::indices(&gumbel_max(&x, 0, Key::new(9, 1)).unwrap()),
                        [first; 3],
                        "{dtype:?} {len} inner"
                    );
                }
            }
        }
    }
    // equal logits alone are no tie: the noise decides, and every class wins
    let x = Tensor::zeros((4000, 4), DType::F32, &Device::Cpu).unwrap();
    let mut counts = [0; 4];
    data::indices(&gumbel_max(&x, 1, Key::new(1, 1)).unwrap())
        .into_iter()
        .for_each(|i| counts[i] += 1);
    assert!(counts.iter().all(|c| *c > 850), "{counts:?}");
}

#[test]
fn masked_classes_are_never_drawn() {
    for device in devices() {
        for dtype in FLOATS {
            for (outer, len, inner) in [(500, 7, 1), (20, 300, 1), (5, 4100, 1), (40, 9, 17)] {
                let mut v = data::normals(outer * len * inner, 3, 1.0);
                let masked = |k: usize| k % 3 != 1;
                for (i, v) in v.iter_mut().enumerate() {
                    if masked(i / inner % len) {
                        *v = f64::NEG_INFINITY;
                    }
                }
                let x = data::tensor(&v, (outer, len, inner), dtype, &device);
                let got = data::indices(&gumbel_max(&x, 1, Key::new(3, 0)).unwrap());
                assert!(
                    got.iter().all(|k| *k < len && !masked(*k)),
                    "{dtype:?} {len} {inner}"
                );
                check(&x, 1, Key::new(3, 0));
            }
        }
    }
}

#[test]
fn very_low_and_very_high_finite_logits_are_not_masks() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        // all the row's classes are at the bottom of the range, yet one must be drawn
        let lowest = -3.0e38;
        let x = data::tensor(
            &[f64::NEG_INFINITY, lowest, f64::NEG_INFINITY],
            (1, 3),
            dtype,
            &Device::Cpu,
        );
        assert_eq!(
            data::indices(&gumbel_max(&x, 1, Key::new(1, 1)).unwrap()),
            [1],
            "{dtype:?}"
        );
        for scale in [1e4, 1e30] {
            check(
                &data::random((30, 40), 5, scale, dtype, &Device::Cpu),
                1,
                Key::new(2, 2),
            );
        }
    }
}

#[test]
fn broken_rows_are_refused_by_number() {
    let (nan, inf, ninf) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    for dtype in FLOATS {
        for len in [3, 10, 33, 4100] {
            for row in [0, 4, 6] {
                for (at, value) in [(0, nan), (len - 1, nan), (len / 2, inf), (len, ninf)] {
                    let mut v = data::normals(7 * len, 1, 1.0);
                    if at == len {
                        v[row * len..(row + 1) * len].fill(ninf);
                    } else {
                        v[row * len + at] = value;
                    }
                    let x = data::tensor(&v, (7, len), dtype, &Device::Cpu);
                    refused(
                        gumbel_max(&x, 1, Key::new(1, 1)),
                        "gumbel_max",
                        &["row", &row.to_string()],
                    );
                    let turned = x.t().unwrap();
                    refused(
                        gumbel_max(&turned, 0, Key::new(1, 1)),
                        "gumbel_max",
                        &["row", &row.to_string()],
                    );
                    let turned = turned.contiguous().unwrap();
                    refused(
                        gumbel_max(&turned, 0, Key::new(1, 1)),
                        "gumbel_max",
                        &["row", &row.to_string()],
                    );
                }
            }
        }
    }
}

#[test]
fn indices_keep_no_graph() {
    let x = Var::from_tensor(&data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu)).unwrap();
    let i = gumbel_max(x.as_tensor(), 1, Key::new(1, 1)).unwrap();
    assert!(!i.track_op());
}

#[test]
fn zero_elements() {
    for (shape, dim, left) in [
        (&[0, 4][..], 1, &[0][..]),
        (&[4, 0], 0, &[0]),
        (&[3, 0, 4], 2, &[3, 0]),
    ] {
        let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let i = gumbel_max(&x, dim, Key::new(1, 1)).unwrap();
        assert_eq!((i.dims(), i.dtype()), (left, DType::U32));
    }
}

// ---- distribution

/// `n` draws from one row of logits: the row is expanded, so that no batch is stored.
fn draw(logits: &[f64], n: usize, dtype: DType, key: Key) -> Vec<usize> {
    let x = data::tensor(logits, (1, logits.len()), dtype, &Device::Cpu)
        .broadcast_as((n, logits.len()))
        .unwrap();
    data::indices(&gumbel_max(&x, 1, key).unwrap())
}

fn counts(draws: &[usize], k: usize) -> Vec<u64> {
    let mut counts = vec![0; k];
    draws.iter().for_each(|i| counts[*i] += 1);
    counts
}

#[test]
fn draws_follow_the_softmax() {
    for dtype in FLOATS {
        for (k, n) in [
            (2, 400_000),
            (3, 400_000),
            (10, 400_000),
            (100, 100_000),
            (1000, 60_000),
        ] {
            // logits that the dtype holds exactly, so that the probabilities are those
            let logits: Vec<f64> = data::normals(k, k as u64, 1.5)
                .into_iter()
                .map(|v| (v * 8.0).round() / 8.0)
                .collect();
            let got = counts(&draw(&logits, n, dtype, Key::new(100, k as u64)), k);
            let p = chi_square(&got, &oracle::probabilities(&logits));
            assert!(p > 1e-4, "{dtype:?} K = {k}: p = {p:e}");
        }
    }
}

#[test]
fn draws_over_a_dim_that_is_not_last_follow_the_softmax() {
    let logits: Vec<f64> = data::normals(12, 7, 1.0)
        .into_iter()
        .map(|v| (v * 8.0).round() / 8.0)
        .collect();
    let n = 300_000;
    let x = data::tensor(&logits, (12, 1), DType::F32, &Device::Cpu)
        .broadcast_as((12, n))
        .unwrap();
    let got = counts(
        &data::indices(&gumbel_max(&x, 0, Key::new(3, 1)).unwrap()),
        12,
    );
    let p = chi_square(&got, &oracle::probabilities(&logits));
    assert!(p > 1e-4, "p = {p:e}");
}

#[test]
fn a_zipf_vocabulary_keeps_its_tail() {
    let k = 32_000;
    let logits: Vec<f64> = (0..k).map(|i| f64::from(-((i + 1) as f32).ln())).collect();
    let n = 20_000;
    let got = counts(&draw(&logits, n, DType::F32, Key::new(5, 0)), k);
    let p = oracle::probabilities(&logits);
    let fit = chi_square(&got, &p);
    assert!(fit > 1e-4, "p = {fit:e}");
    let tail: f64 = p[1024..].iter().sum();
    let seen: u64 = got[1024..].iter().sum();
    let z = (seen as f64 - n as f64 * tail) / (n as f64 * tail * (1.0 - tail)).sqrt();
    assert!(
        z.abs() < 4.0,
        "tail mass {} of {tail}",
        seen as f64 / n as f64
    );
}

#[test]
fn a_head_far_above_a_wide_tail_and_indices_past_2_to_the_32() {
    // 200,000 classes, one of them 18 above the rest: the tail holds 0.3 % of the mass, each class 1.5e-8. The batch has
    // 4.4e9 elements, none stored: element indices leave 32 bits in its last rows
    let (k, n, head) = (200_000, 22_000, 131_071);
    let mut logits = vec![0.0; k];
    logits[head] = 18.0;
    let p = oracle::probabilities(&logits);
    let got = draw(&logits, n, DType::F32, Key::new(6, 0));
    let tail: Vec<usize> = got.iter().copied().filter(|i| *i != head).collect();
    let expected = n as f64 * (1.0 - p[head]);
    let fit = poisson_p(tail.len() as u64, expected);
    println!(
        "{} draws of the tail, expected {expected:.1}, p = {fit:.3}",
        tail.len()
    );
    assert!(
        fit > 1e-4,
        "{} draws of the tail, expected {expected}",
        tail.len()
    );
    // spread evenly over the vocabulary, in eight parts
    let mut parts = [0; 8];
    tail.iter().for_each(|i| parts[i * 8 / k] += 1);
    let fit = chi_square(&parts, &[1.0 / 8.0; 8]);
    assert!(fit > 1e-4, "{parts:?}");

    // the rows past 2^32 hold what the noise at those indices says, from the scalar generator
    let row = n - 1;
    let first = (row * k) as u64;
    assert!(first > 1 << 32);
    let mut best = (f32::NEG_INFINITY, 0);
    for i in 0..k {
        let (w, w2) = crate::support::philox::words(6, 0, first + i as u64);
        let score = logits[i] as f32 + candle_reparam::bits::gumbel_f32(w, w2);
        if score > best.0 {
            best = (score, i);
        }
    }
    assert_eq!(got[row], best.1);
}

#[test]
fn a_rare_class_is_drawn_as_often_as_it_should_be() {
    // two classes 16 apart: 1.1e-7, over 2^28 draws about 30
    let (rows, pieces, gap) = (1 << 24, 16, 16.0);
    let p = oracle::probabilities(&[0.0, gap])[0];
    let mut seen = 0;
    for piece in 0..pieces {
        seen += draw(&[0.0, gap], rows, DType::F32, Key::new(7, piece))
            .iter()
            .filter(|i| **i == 0)
            .count() as u64;
    }
    let mean = rows as f64 * pieces as f64 * p;
    let fit = poisson_p(seen, mean);
    println!("{seen} draws, expected {mean:.1}, p = {fit:.3}");
    assert!(fit > 1e-4, "{seen} draws, expected {mean}: p = {fit:e}");
}

#[test]
fn the_largest_score_is_gumbel_and_independent_of_its_index() {
    // max(theta + G) ~ Gumbel(logsumexp theta), independent of the arg-max
    let logits: Vec<f64> = data::normals(20, 2, 1.0)
        .into_iter()
        .map(|v| (v * 8.0).round() / 8.0)
        .collect();
    let n = 300_000;
    let key = Key::new(8, 8);
    let x = data::tensor(&logits, (1, 20), DType::F32, &Device::Cpu)
        .broadcast_as((n, 20))
        .unwrap();
    let z = data::values(&(&x + gumbel((n, 20), DType::F32, &Device::Cpu, key).unwrap()).unwrap());
    let picked = data::indices(&gumbel_max(&x, 1, key).unwrap());
    let max: Vec<f64> = z.chunks(20).zip(&picked).map(|(z, i)| z[*i]).collect();
    let shift = oracle::log_sum_exp(&logits);
    let var = std::f64::consts::PI.powi(2) / 6.0;
    assert!((mean(&max) - shift - 0.577_215_664_9).abs() < 4.5 * (var / n as f64).sqrt());
    assert!((variance(&max) - var).abs() < 4.5 * var * (4.4 / n as f64).sqrt());
    for class in 0..20 {
        let hit: Vec<f64> = picked
            .iter()
            .map(|i| f64::from(u8::from(*i == class)))
            .collect();
        let z = correlation_z(&max, &hit);
        assert!(z.abs() < 4.5, "class {class}: {z:.2} standard errors");
    }
}

#[test]
fn draws_of_neighbouring_rows_and_keys_are_independent() {
    let n = 200_000;
    let logits = [0.0, 0.5, -0.5];
    let a = draw(&logits, n, DType::F32, Key::new(1, 0));
    let p = oracle::probabilities(&logits);
    let pairs: Vec<f64> = p
        .iter()
        .flat_map(|a| p.iter().map(move |b| a * b))
        .collect();
    let check = |name: &str, a: &[usize], b: &[usize]| {
        let joint: Vec<usize> = a.iter().zip(b).map(|(a, b)| a * 3 + b).collect();
        let fit = chi_square(&counts(&joint, 9), &pairs);
        assert!(fit > 1e-4, "{name}: p = {fit:e}");
    };
    check("next row", &a[..n - 1], &a[1..]);
    check("fourth row", &a[..n - 4], &a[4..]);
    check(
        "next stream",
        &a,
        &draw(&logits, n, DType::F32, Key::new(1, 1)),
    );
    check(
        "next seed",
        &a,
        &draw(&logits, n, DType::F32, Key::new(2, 0)),
    );
}
