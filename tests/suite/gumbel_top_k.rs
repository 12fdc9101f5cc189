//! `gumbel_top_k`.

use candle_core::{DType, Device, Tensor, Var};
use candle_reparam::{Key, gumbel, gumbel_max, gumbel_top_k};

use crate::gumbel_softmax::SHAPES;
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::oracle::{self, Rows};
use crate::support::statistics::{chi_square, poisson_p};
use crate::support::{layouts, refused};

/// Row lengths around those that a lane, a warp's team, a block's step or a tile may have.
const LENGTHS: [usize; 19] = [
    1, 2, 3, 7, 8, 16, 17, 31, 33, 64, 127, 129, 255, 513, 1000, 4096, 4097, 5000, 9000,
];
const INNER: [usize; 5] = [1, 2, 17, 70, 300];

/// A stable sort of logits plus noise, from the crate's noise and an addition in the dtype it computes in: of shape
/// (outer, k, inner).
fn expected(x: &Tensor, k: usize, dim: usize, key: Key) -> Vec<usize> {
    let wide = data::compute(x.dtype());
    let z =
        (x.to_dtype(wide).unwrap() + gumbel(x.shape(), wide, x.device(), key).unwrap()).unwrap();
    let (z, rows) = (data::values(&z), Rows::of(x, dim));
    let drawn = Rows { len: k, ..rows };
    let mut out = vec![0; rows.count() * k];
    for r in 0..rows.count() {
        let row = rows.row(&z, r);
        let mut order: Vec<usize> = (0..rows.len).collect();
        order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap());
        for (j, i) in order.into_iter().take(k).enumerate() {
            out[drawn.at(r, j)] = i;
        }
    }
    out
}

#[track_caller]
fn check(x: &Tensor, k: usize, dim: usize, key: Key) {
    let got = gumbel_top_k(x, k, dim, key).unwrap();
    let mut dims = x.dims().to_vec();
    dims[dim] = k;
    assert_eq!((got.dims(), got.dtype()), (&dims[..], DType::U32));
    let (got, want) = (data::indices(&got), expected(x, k, dim, key));
    if let Some(i) = got.iter().zip(&want).position(|(a, b)| a != b) {
        panic!(
            "{:?} {:?} dim {dim} k {k}: element {i} is {}, not {}",
            x.dims(),
            x.dtype(),
            got[i],
            want[i]
        );
    }
}

/// The numbers of draws worth a look for a row of so many classes.
fn counts_of(len: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = [1, 2, 5, 50, len / 2, len.saturating_sub(1), len]
        .into_iter()
        .filter(|k| (1..=len).contains(k))
        .collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

#[test]
fn the_indices_of_a_stable_sort_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    for (seed, scale) in [(1, 0.0), (2, 1.0), (3, 10.0)] {
                        let x = data::random(shape, seed, scale, dtype, &device);
                        for k in counts_of(shape[dim]) {
                            check(&x, k, dim, Key::new(seed, 8));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_indices_for_every_row_length_and_inner_size() {
    for device in devices() {
        for len in LENGTHS {
            for inner in INNER {
                if len * inner > 400_000 {
                    continue;
                }
                let outer = (4000 / (len * inner)).clamp(1, 20);
                let dtypes: &[DType] = if len * inner > 40_000 {
                    &FLOATS[..1]
                } else {
                    &FLOATS
                };
                for &dtype in dtypes {
                    let x = data::random((outer, len, inner), len as u64, 2.0, dtype, &device);
                    let mut counts = counts_of(len);
                    if !device.is_cpu() && len > 600 {
                        // a simulated device takes minutes for all: one for the lanes or the block, one for the sort
                        counts.retain(|k| *k == 50 || (*k == len && inner == 1));
                    }
                    for k in counts {
                        check(&x, k, 1, Key::new(4, inner as u64));
                    }
                }
            }
        }
        // rows longer than any piece, lazily and not
        for dtype in [DType::F32, DType::F64] {
            let x = data::random((1, 100_001), 1, 1.0, dtype, &device);
            for k in if device.is_cpu() {
                &[1, 50, 2000][..]
            } else {
                &[50]
            } {
                let k = *k;
                check(&x, k, 1, Key::new(1, 1));
            }
        }
        if device.is_cpu() {
            let x = data::random((2, 20_000), 1, 1.0, DType::F32, &device);
            check(&x, 20_000, 1, Key::new(1, 1));
        }
    }
}

#[test]
fn rows_whose_best_scores_come_last_first_or_together() {
    // rising logits raise the bar at every element, falling ones never; a comb puts all that matter into one thread's share
    for device in devices() {
        for len in [300, 2048, 20_000] {
            let rising: Vec<f64> = (0..len).map(|i| i as f64 * 0.01).collect();
            let falling: Vec<f64> = rising.iter().rev().copied().collect();
            for period in [4, 512, 1024] {
                let comb: Vec<f64> = (0..len)
                    .map(|i| if i % period < 4 { 40.0 } else { 0.0 })
                    .collect();
                let x = data::tensor(&comb, (1, len), DType::F32, &device);
                for k in [8, 50, 200] {
                    check(&x, k, 1, Key::new(3, 3));
                }
            }
            for v in [rising, falling] {
                let x = data::tensor(&v, (1, len), DType::F32, &device);
                for k in [1, 50, 200] {
                    check(&x, k, 1, Key::new(3, 3));
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_the_same_indices() {
    for device in devices() {
        for shape in SHAPES.into_iter().chain([&[5, 300, 7][..], &[3, 4100]]) {
            for dtype in FLOATS {
                for (name, view) in layouts::variants(&data::random(shape, 4, 1.0, dtype, &device))
                {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        let k = shape[dim].min(9);
                        let (a, b) = (
                            gumbel_top_k(&view, k, dim, Key::new(3, 3)).unwrap(),
                            gumbel_top_k(&copy, k, dim, Key::new(3, 3)).unwrap(),
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
fn the_first_is_gumbel_max_and_fewer_are_a_prefix() {
    for device in devices() {
        for (shape, dim) in [(&[40, 33][..], 1), (&[3, 5000], 1), (&[4, 60, 9], 1)] {
            for dtype in FLOATS {
                let x = data::random(shape, 4, 2.0, dtype, &device);
                let key = Key::new(11, 2);
                let draw = |k| gumbel_top_k(&x, k, dim, key).unwrap();
                let all = draw(20);
                for k in [1, 2, 7] {
                    let prefix = all.narrow(dim, 0, k).unwrap();
                    assert_eq!(data::indices(&draw(k)), data::indices(&prefix));
                }
                let first = gumbel_max(&x, dim, key).unwrap();
                assert_eq!(data::indices(&draw(1)), data::indices(&first));
            }
        }
    }
}

#[test]
fn tied_scores_come_in_the_order_of_their_indices() {
    // logits so large that the noise vanishes in the addition: scores of the large ones are equal
    for device in devices() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for len in [7, 33, 300, 5000] {
                let big = if dtype == DType::F64 {
                    1e20
                } else {
                    2f64.powi(40)
                };
                let v: Vec<f64> = (0..len)
                    .map(|k| if k % 3 == 1 { big } else { 0.0 })
                    .collect();
                let (k, hot) = (len / 3, (0..len).filter(|k| k % 3 == 1));
                let want: Vec<usize> = hot.take(k).collect();
                let x = data::tensor(&v, (1, len), dtype, &device);
                let got = gumbel_top_k(&x, k, 1, Key::new(9, 1)).unwrap();
                assert_eq!(data::indices(&got), want, "{dtype:?} {len}");
                let got = gumbel_top_k(&x.t().unwrap(), k, 0, Key::new(9, 1)).unwrap();
                assert_eq!(data::indices(&got), want, "{dtype:?} {len} turned");
            }
        }
    }
}

#[test]
fn masked_classes_are_never_drawn() {
    for device in devices() {
        for dtype in FLOATS {
            for (outer, len, inner) in [(200, 9, 1), (20, 300, 1), (3, 4100, 1), (40, 9, 17)] {
                let mut v = data::normals(outer * len * inner, 3, 1.0);
                let masked = |k: usize| k % 3 != 1;
                for (i, v) in v.iter_mut().enumerate() {
                    if masked(i / inner % len) {
                        *v = f64::NEG_INFINITY;
                    }
                }
                let x = data::tensor(&v, (outer, len, inner), dtype, &device);
                let drawable = (0..len).filter(|k| !masked(*k)).count();
                let got = data::indices(&gumbel_top_k(&x, drawable, 1, Key::new(3, 0)).unwrap());
                assert!(got.iter().all(|k| *k < len && !masked(*k)), "{dtype:?}");
                check(&x, drawable, 1, Key::new(3, 0));
                check(&x, 2, 1, Key::new(3, 0));
            }
        }
    }
}

#[test]
fn broken_rows_are_refused_by_number() {
    let (nan, inf, ninf) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    for dtype in FLOATS {
        for (len, k) in [(3, 2), (10, 9), (33, 2), (4100, 40)] {
            for row in [0, 4, 6] {
                for (at, value) in [(0, nan), (len - 1, nan), (len / 2, inf), (len, ninf)] {
                    let mut v = data::normals(7 * len, 1, 1.0);
                    let mut parts = vec![format!("row {row}"), format!("k = {k}")];
                    if at == len {
                        // one class fewer than asked for
                        v[row * len + k - 1..(row + 1) * len].fill(ninf);
                        parts.push(format!("{} classes", k - 1));
                    } else {
                        v[row * len + at] = value;
                        parts.push("NaN or +inf".into());
                    }
                    let parts: Vec<&str> = parts.iter().map(|p| &**p).collect();
                    let x = data::tensor(&v, (7, len), dtype, &Device::Cpu);
                    let turned = x.t().unwrap();
                    for (x, dim) in [(&x, 1), (&turned, 0), (&turned.contiguous().unwrap(), 0)] {
                        let drawn = gumbel_top_k(x, k, dim, Key::new(1, 1));
                        refused(drawn, "gumbel_top_k", &parts);
                    }
                }
            }
        }
    }
    // and one long row, whose parts are shared out
    let mut v = data::normals(40_000, 1, 1.0);
    v[39_999] = nan;
    let x = data::tensor(&v, (1, 40_000), DType::F32, &Device::Cpu);
    refused(
        gumbel_top_k(&x, 5, 1, Key::new(1, 1)),
        "gumbel_top_k",
        &["row 0"],
    );
}

#[test]
fn on_a_device_rows_without_enough_classes_are_filled_up_in_range() {
    let Some(device) = crate::support::devices::cuda() else {
        return;
    };
    let (nan, inf, ninf) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    for dtype in FLOATS {
        for (len, inner) in [
            (6, 1),
            (40, 1),
            (400, 1),
            (3000, 1),
            (40_000, 1),
            (6, 5),
            (700, 3),
        ] {
            for k in counts_of(len) {
                if k < 3 {
                    continue;
                }
                // rows: proper; only 5 and 3 (5 the higher) above -inf; all masked; a NaN; +inf
                let mut v = vec![0.0; 5 * len * inner];
                for j in 0..inner {
                    for i in 0..len {
                        v[(len + i) * inner + j] = ninf;
                        v[(2 * len + i) * inner + j] = ninf;
                    }
                    v[(len + 3) * inner + j] = 0.0;
                    v[(len + 5) * inner + j] = 100.0;
                    v[(3 * len + len - 1) * inner + j] = nan;
                    v[(4 * len + len / 2) * inner + j] = inf;
                }
                let x = data::tensor(&v, (5, len, inner), dtype, &device);
                let drawn = gumbel_top_k(&x, k, 1, Key::new(1, 1)).unwrap();
                let rows = Rows {
                    outer: 5,
                    len: k,
                    inner,
                };
                let got: Vec<f64> = data::indices(&drawn).iter().map(|i| *i as f64).collect();
                let counting: Vec<f64> = (0..k).map(|i| i as f64).collect();
                let rest = (0..len).filter(|i| *i != 3 && *i != 5).map(|i| i as f64);
                let few: Vec<f64> = [5.0, 3.0].into_iter().chain(rest).take(k).collect();
                for j in 0..inner {
                    let row = |r: usize| rows.row(&got, r * inner + j);
                    let label = format!("{dtype:?} {len} {inner} k {k}");
                    assert_eq!(row(1), few, "{label}");
                    for r in 2..5 {
                        assert_eq!(row(r), counting, "{label} row {r}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_number_of_draws_is_checked() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    for (k, dim, size) in [(0, 1, "4"), (5, 1, "4"), (4, 0, "3"), (usize::MAX, 1, "4")] {
        let drawn = gumbel_top_k(&x, k, dim, Key::new(1, 1));
        let shown = format!("k is {k}");
        refused(drawn, "gumbel_top_k", &[&shown, size, "[3, 4]"]);
    }
}

#[test]
fn indices_keep_no_graph() {
    let x = Var::from_tensor(&data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu)).unwrap();
    let i = gumbel_top_k(x.as_tensor(), 2, 1, Key::new(1, 1)).unwrap();
    assert!(!i.track_op());
}

#[test]
fn zero_elements() {
    for device in devices() {
        for (shape, dim, left) in [
            (&[0, 4][..], 1, &[0, 2][..]),
            (&[4, 0], 0, &[2, 0]),
            (&[3, 0, 4], 2, &[3, 0, 2]),
        ] {
            let x = Tensor::zeros(shape, DType::F32, &device).unwrap();
            let i = gumbel_top_k(&x, 2, dim, Key::new(1, 1)).unwrap();
            assert_eq!((i.dims(), i.dtype()), (left, DType::U32));
        }
    }
}

// ---- distribution

/// `n` draws of `k` from one row of logits: the row is expanded, so that no batch is stored.
fn draw(logits: &[f64], k: usize, n: usize, dtype: DType, key: Key) -> Vec<usize> {
    let x = data::tensor(logits, (1, logits.len()), dtype, &Device::Cpu)
        .broadcast_as((n, logits.len()))
        .unwrap();
    data::indices(&gumbel_top_k(&x, k, 1, key).unwrap())
}

/// Every ordered choice of `k` classes with its Plackett-Luce probability.
fn plackett_luce(p: &[f64], k: usize) -> Vec<(Vec<usize>, f64)> {
    if k == 0 {
        return vec![(vec![], 1.0)];
    }
    let shorter = plackett_luce(p, k - 1);
    let mut out = vec![];
    for (chosen, probability) in shorter {
        let left: f64 = 1.0 - chosen.iter().map(|i: &usize| p[*i]).sum::<f64>();
        for next in (0..p.len()).filter(|i| !chosen.contains(i)) {
            let mut order = chosen.clone();
            order.push(next);
            out.push((order, probability * p[next] / left));
        }
    }
    out
}

#[test]
fn ordered_draws_and_inclusions_follow_plackett_luce() {
    for dtype in FLOATS {
        for (classes, k, n) in [
            (3, 2, 300_000),
            (5, 3, 300_000),
            (6, 5, 300_000),
            (4, 4, 300_000),
        ] {
            // logits that the dtype holds exactly, so that the probabilities are those
            let logits: Vec<f64> = data::normals(classes, 3 + classes as u64, 1.2)
                .into_iter()
                .map(|v| (v * 8.0).round() / 8.0)
                .collect();
            let p = oracle::probabilities(&logits);
            let orders = plackett_luce(&p, k);
            let total: f64 = orders.iter().map(|(_, q)| q).sum();
            assert!((total - 1.0).abs() < 1e-12);
            let code = |order: &[usize]| order.iter().fold(0, |code, i| code * classes + i);
            let mut cell = vec![usize::MAX; classes.pow(k as u32)];
            for (i, (order, _)) in orders.iter().enumerate() {
                cell[code(order)] = i;
            }
            let mut counts = vec![0; orders.len()];
            let mut included = vec![0_u64; classes];
            for drawn in draw(&logits, k, n, dtype, Key::new(77, classes as u64)).chunks(k) {
                counts[cell[code(drawn)]] += 1;
                drawn.iter().for_each(|i| included[*i] += 1);
            }
            let probabilities: Vec<f64> = orders.iter().map(|(_, q)| *q).collect();
            let fit = chi_square(&counts, &probabilities);
            assert!(fit > 1e-4, "{dtype:?} {k} of {classes}: p = {fit:e}");
            for (class, &seen) in included.iter().enumerate() {
                let q: f64 = orders
                    .iter()
                    .filter(|(o, _)| o.contains(&class))
                    .map(|(_, q)| q)
                    .sum();
                let z = (seen as f64 - n as f64 * q) / (n as f64 * q * (1.0 - q)).sqrt().max(1.0);
                assert!(
                    z.abs() < 4.5,
                    "{dtype:?} class {class} of {classes}: {z:.2} errors"
                );
            }
        }
    }
}

#[test]
fn a_long_row_draws_lazily_what_it_should() {
    // 4,096 equal classes but for eight, lazily raced: how many of the eight are among the first 20
    let mut logits = vec![0.0; 4096];
    for i in 0..8 {
        logits[i * 500 + 3] = 4.0;
    }
    let (n, k) = (4000, 20);
    let p = oracle::probabilities(&logits);
    let heavy: f64 = (0..8).map(|i| p[i * 500 + 3]).sum();
    let drawn = draw(&logits, k, n, DType::F32, Key::new(5, 5));
    let first = drawn.chunks(k).filter(|d| logits[d[0]] > 0.0).count() as f64;
    let z = (first - n as f64 * heavy) / (n as f64 * heavy * (1.0 - heavy)).sqrt();
    assert!(z.abs() < 4.0, "{z:.2} standard errors");
    // the light ones are alike, wherever in the row they are
    let mut parts = [0; 16];
    for i in drawn.iter().filter(|i| logits[**i] == 0.0) {
        parts[i / 256] += 1;
    }
    let light = |part: usize| {
        (part * 256..(part + 1) * 256)
            .filter(|i| logits[*i] == 0.0)
            .count()
    };
    let shares: Vec<f64> = (0..16).map(|part| light(part) as f64 / 4088.0).collect();
    let fit = chi_square(&parts, &shares);
    assert!(fit > 1e-4, "{parts:?}: p = {fit:e}");
}

#[test]
fn a_rare_class_is_among_the_first_as_often_as_it_should_be() {
    // probability about 1e-6, beside three others: the exact inclusion in two draws, over 2^25 rows
    let logits = [0.0, 13.0, 12.5, 11.0];
    let p = oracle::probabilities(&logits);
    assert!(p[0] > 5e-7 && p[0] < 2e-6);
    let orders = plackett_luce(&p, 2);
    let q: f64 = orders
        .iter()
        .filter(|(o, _)| o.contains(&0))
        .map(|(_, q)| q)
        .sum();
    let (rows, pieces) = (1 << 22, 8);
    let mut seen = 0;
    for piece in 0..pieces {
        let drawn = draw(&logits, 2, rows, DType::F32, Key::new(7, piece));
        seen += drawn.iter().filter(|i| **i == 0).count() as u64;
    }
    let mean = rows as f64 * pieces as f64 * q;
    let fit = poisson_p(seen, mean);
    println!("{seen} draws, expected {mean:.1}, p = {fit:.3}");
    assert!(
        mean > 20.0 && fit > 1e-4,
        "{seen} draws, expected {mean}: p = {fit:e}"
    );
}
