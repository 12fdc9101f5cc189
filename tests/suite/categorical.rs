//! `categorical`.

use candle_core::{DType, Device, Tensor, Var};
use candle_reparam::{Key, categorical};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::oracle;
use crate::support::statistics::{chi_square, poisson_p};
use crate::support::{layouts, philox, refused};

#[test]
fn shapes_and_ranges_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    let x = data::random(shape, 1, 2.0, dtype, &device);
                    let got = categorical(&x, dim, Key::new(2, 8)).unwrap();
                    let mut dims = shape.to_vec();
                    dims.remove(dim);
                    assert_eq!((got.dims(), got.dtype()), (&dims[..], DType::U32));
                    assert!(data::indices(&got).iter().all(|i| *i < shape[dim]));
                    let again = categorical(&x, dim, Key::new(2, 8)).unwrap();
                    assert_eq!(data::indices(&got), data::indices(&again));
                }
            }
        }
    }
}

#[test]
fn a_certain_class_is_found_at_any_place_of_any_row() {
    // one class 200 above the rest: its neighbours' probability is zero in every dtype
    for device in devices() {
        for len in LENGTHS {
            for inner in INNER {
                if len * inner > 300_000 {
                    continue;
                }
                let outer = (6000 / (len * inner)).clamp(1, 40);
                let rows = oracle::Rows { outer, len, inner };
                let mut v = data::normals(outer * len * inner, len as u64, 1.0);
                let place = |row: usize| (row * 7919 + len / 2) % len;
                for row in 0..rows.count() {
                    v[rows.at(row, place(row))] = 200.0;
                }
                let want: Vec<usize> = (0..rows.count()).map(place).collect();
                for dtype in FLOATS {
                    let x = data::tensor(&v, (outer, len, inner), dtype, &device);
                    let got = data::indices(&categorical(&x, 1, Key::new(1, 2)).unwrap());
                    assert_eq!(got, want, "{dtype:?} {len} {inner}");
                }
            }
        }
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
                            categorical(&view, dim, Key::new(3, 3)).unwrap(),
                            categorical(&copy, dim, Key::new(3, 3)).unwrap(),
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
fn a_row_is_drawn_alike_in_every_memory_order() {
    // the same rows over the last dim and over the first: the row's number, not its place in memory, names the draw
    for (n, len) in [(50, 10), (17, 300), (3, 5000)] {
        let x = data::random((n, len), 3, 1.0, DType::F32, &Device::Cpu);
        let last = data::indices(&categorical(&x, 1, Key::new(5, 1)).unwrap());
        let first = data::indices(
            &categorical(&x.t().unwrap().contiguous().unwrap(), 0, Key::new(5, 1)).unwrap(),
        );
        assert_eq!(last, first);
    }
}

#[test]
fn a_leading_part_of_a_batch_is_drawn_alike() {
    for len in [3, 10, 257, 5000] {
        let x = data::random((29, len), 5, 1.0, DType::F32, &Device::Cpu);
        let whole = data::indices(&categorical(&x, 1, Key::new(6, 6)).unwrap());
        for rows in [1, 2, 28] {
            let part = data::indices(
                &categorical(&x.narrow(0, 0, rows).unwrap(), 1, Key::new(6, 6)).unwrap(),
            );
            assert_eq!(part, whole[..rows], "{len} {rows}");
        }
    }
}

#[test]
fn a_neighbouring_row_does_not_move_the_draw() {
    let a = data::random((6, 40), 5, 1.0, DType::F32, &Device::Cpu);
    let b = data::random((6, 40), 6, 9.0, DType::F32, &Device::Cpu);
    let mixed = Tensor::cat(&[b.narrow(0, 0, 3).unwrap(), a.narrow(0, 3, 3).unwrap()], 0).unwrap();
    let (x, y) = (
        categorical(&a, 1, Key::new(1, 1)).unwrap(),
        categorical(&mixed, 1, Key::new(1, 1)).unwrap(),
    );
    assert_eq!(data::indices(&x)[3..], data::indices(&y)[3..]);
}

#[test]
fn masked_classes_are_never_drawn() {
    for device in devices() {
        for dtype in FLOATS {
            for (outer, len, inner) in [
                (2000, 7, 1),
                (200, 300, 1),
                (50, 9000, 1),
                (40, 9, 17),
                (3, 500, 60),
            ] {
                // masks at both ends, between, and over whole stretches
                let masked =
                    |k: usize| k == 0 || k == len - 1 || k % 3 == 2 || (len > 4000 && k < 4500);
                let mut v = data::normals(outer * len * inner, 3, 1.0);
                for (i, v) in v.iter_mut().enumerate() {
                    if masked(i / inner % len) {
                        *v = f64::NEG_INFINITY;
                    }
                }
                let x = data::tensor(&v, (outer, len, inner), dtype, &device);
                for stream in 0..4 {
                    let got = data::indices(&categorical(&x, 1, Key::new(3, stream)).unwrap());
                    assert!(
                        got.iter().all(|k| *k < len && !masked(*k)),
                        "{dtype:?} {len} {inner}"
                    );
                }
            }
        }
    }
    // one class left, at every place
    for len in [2, 33, 5000] {
        for at in [0, 1, len / 2, len - 1] {
            let mut v = vec![f64::NEG_INFINITY; len];
            v[at] = -80.0;
            let x = data::tensor(&v, (1, len), DType::F32, &Device::Cpu)
                .broadcast_as((64, len))
                .unwrap();
            assert_eq!(
                data::indices(&categorical(&x, 1, Key::new(1, 1)).unwrap()),
                [at; 64]
            );
        }
    }
}

#[test]
fn very_low_and_very_high_finite_logits_are_not_masks() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for value in [-3.0e38, -1e30, 1e30, 3.0e38] {
            let x = data::tensor(
                &[f64::NEG_INFINITY, value, f64::NEG_INFINITY],
                (1, 3),
                dtype,
                &Device::Cpu,
            );
            assert_eq!(
                data::indices(&categorical(&x, 1, Key::new(1, 1)).unwrap()),
                [1],
                "{dtype:?} {value}"
            );
            // equal classes stay equally likely at any height
            let x = data::tensor(&[value; 4], (1, 4), dtype, &Device::Cpu)
                .broadcast_as((4000, 4))
                .unwrap();
            let got = counts(
                &data::indices(&categorical(&x, 1, Key::new(4, 1)).unwrap()),
                4,
            );
            assert!(
                chi_square(&got, &[0.25; 4]) > 1e-4,
                "{dtype:?} {value}: {got:?}"
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
                        categorical(&x, 1, Key::new(1, 1)),
                        "categorical",
                        &["row", &row.to_string()],
                    );
                    let turned = x.t().unwrap();
                    refused(
                        categorical(&turned, 0, Key::new(1, 1)),
                        "categorical",
                        &["row", &row.to_string()],
                    );
                    let turned = turned.contiguous().unwrap();
                    refused(
                        categorical(&turned, 0, Key::new(1, 1)),
                        "categorical",
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
    let i = categorical(x.as_tensor(), 1, Key::new(1, 1)).unwrap();
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
        let i = categorical(&x, dim, Key::new(1, 1)).unwrap();
        assert_eq!((i.dims(), i.dtype()), (left, DType::U32));
    }
}

// ---- the stream: row r takes words 2 r (which tile of 1,024) and 2 r + 1 (which element), each with its second word

/// The 64 bits of a word and its second word, as a number in [0, 1).
fn unit((word, second): (u32, u32)) -> f64 {
    (f64::from(word) + f64::from(second) / 4_294_967_296.0) / 4_294_967_296.0
}

/// Whether inversion at `u` may give `index`: the weights of the crate are those of f32 exponentials, good to a few units
/// in their last place.
fn inverts(weights: &[f64], u: f64, index: usize) -> bool {
    let total = oracle::sum(weights.iter().copied());
    let below = oracle::sum(weights[..index].iter().copied());
    let above = oracle::sum(weights[index + 1..].iter().copied());
    // both distances are taken from their own end, so that a small probability at either is held to its own size
    below <= u * total * (1.0 + 1e-6) && above <= (1.0 - u) * total * (1.0 + 1e-6)
}

#[test]
fn a_draw_is_the_inversion_of_its_words() {
    const TILE: usize = 1024;
    let key = Key::new(77, 5);
    for dtype in [DType::F32, DType::F64] {
        for (len, rows) in [
            (2, 300),
            (10, 300),
            (33, 100),
            (1000, 50),
            (1024, 50),
            (1025, 50),
            (5000, 40),
            (40_001, 10),
        ] {
            let x = data::random((rows, len), len as u64, 2.0, dtype, &Device::Cpu);
            let got = data::indices(&categorical(&x, 1, key).unwrap());
            let turned = x.t().unwrap().contiguous().unwrap();
            assert_eq!(data::indices(&categorical(&turned, 0, key).unwrap()), got);
            let values = data::values(&x);
            for (row, &index) in got.iter().enumerate() {
                let weights = oracle::probabilities(&values[row * len..][..len]);
                let tiles: Vec<f64> = weights
                    .chunks(TILE)
                    .map(|t| oracle::sum(t.iter().copied()))
                    .collect();
                let tile = index / TILE;
                let [first, second] =
                    [0, 1].map(|i| unit(philox::words(key.seed, key.stream, 2 * row as u64 + i)));
                assert!(
                    inverts(&tiles, first, tile),
                    "{dtype:?} {len} row {row}: tile {tile}"
                );
                let of_tile = &weights[tile * TILE..len.min((tile + 1) * TILE)];
                assert!(
                    inverts(of_tile, second, index % TILE),
                    "{dtype:?} {len} row {row}: index {index}"
                );
            }
        }
    }
}

#[test]
fn a_rare_word_draws_the_class_at_the_end_and_only_from_its_probability_on() {
    // probabilities of 1e-10 to 6e-8 at either end of the row, a thousandth more and less than the word asks for
    for (stream, index, _) in
        philox::rare().filter(|(_, index, word)| index % 2 == 1 && word % (1 << 31) > 0)
    {
        let words = philox::words(philox::RARE_SEED, stream, index);
        let (u, row) = (unit(words), (index / 2) as usize);
        let key = Key::new(philox::RARE_SEED, stream);
        let (p, last) = if u < 0.5 { (u, false) } else { (1.0 - u, true) };
        if p > 1e-6 {
            continue;
        }
        for dtype in [DType::F32, DType::F64] {
            for (factor, drawn) in [(1.001, true), (0.999, false)] {
                let gap = (1.0 / (p * factor)).ln();
                let logits = if last {
                    [gap, gap, 0.0]
                } else {
                    [0.0, gap, f64::NEG_INFINITY]
                };
                let gap_of_two = if last { std::f64::consts::LN_2 } else { 0.0 };
                let logits = logits.map(|l| if l > 0.0 { l - gap_of_two } else { l });
                let x = data::tensor(&logits, (1, 3), dtype, &Device::Cpu)
                    .broadcast_as((row + 1, 3))
                    .unwrap();
                let got = data::indices(&categorical(&x, 1, key).unwrap())[row];
                let end = if last { 2 } else { 0 };
                assert_eq!(
                    got == end,
                    drawn,
                    "{dtype:?} stream {stream} word {:#x}: drew {got} at {factor}",
                    words.0
                );
            }
        }
    }
}

// ---- distribution

fn draw(logits: &[f64], n: usize, dtype: DType, key: Key) -> Vec<usize> {
    let x = data::tensor(logits, (1, logits.len()), dtype, &Device::Cpu)
        .broadcast_as((n, logits.len()))
        .unwrap();
    data::indices(&categorical(&x, 1, key).unwrap())
}

fn counts(draws: &[usize], k: usize) -> Vec<u64> {
    let mut counts = vec![0; k];
    draws.iter().for_each(|i| counts[*i] += 1);
    counts
}

#[test]
fn draws_follow_the_softmax() {
    for dtype in FLOATS {
        let sizes = [
            (2, 400_000),
            (3, 400_000),
            (10, 400_000),
            (100, 200_000),
            (1000, 100_000),
            (10_000, 60_000),
        ];
        for (k, n) in sizes {
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
fn flat_logits_give_flat_draws_across_every_tile() {
    // where tiles meet, and in a last one that is not full
    for (k, n) in [
        (31, 100_000),
        (64, 100_000),
        (257, 100_000),
        (1025, 100_000),
        (4100, 50_000),
        (9000, 30_000),
        (40_001, 20_000),
    ] {
        let draws = draw(&vec![0.0; k], n, DType::F32, Key::new(4, k as u64));
        let cells = k.min(97);
        let mut got = vec![0; cells];
        draws.iter().for_each(|i| got[i * cells / k] += 1);
        let p: Vec<f64> = (0..cells)
            .map(|c| (0..k).filter(|i| i * cells / k == c).count() as f64 / k as f64)
            .collect();
        let fit = chi_square(&got, &p);
        assert!(fit > 1e-4, "K = {k}: p = {fit:e}");
    }
}

#[test]
fn the_place_within_a_tile_does_not_depend_on_the_tile() {
    // one uniform per level: a reused one would tie the element to its tile. Joint counts of (sixteenth of the row,
    // place modulo 8)
    let (k, n) = (16_384, 60_000);
    let draws = draw(&vec![0.0; k], n, DType::F32, Key::new(14, 0));
    for stride in [1, 16, 64, 128] {
        let mut joint = vec![0; 128];
        draws
            .iter()
            .for_each(|i| joint[i * 16 / k * 8 + i / stride % 8] += 1);
        let fit = chi_square(&joint, &[1.0 / 128.0; 128]);
        assert!(fit > 1e-4, "stride {stride}: p = {fit:e}");
    }
}

#[test]
fn draws_over_a_dim_that_is_not_last_follow_the_softmax() {
    for (k, n) in [(12, 300_000), (700, 100_000)] {
        let logits: Vec<f64> = data::normals(k, 7, 1.0)
            .into_iter()
            .map(|v| (v * 8.0).round() / 8.0)
            .collect();
        let x = data::tensor(&logits, (k, 1), DType::F32, &Device::Cpu)
            .broadcast_as((k, n))
            .unwrap();
        let got = counts(
            &data::indices(&categorical(&x, 0, Key::new(3, 1)).unwrap()),
            k,
        );
        let p = chi_square(&got, &oracle::probabilities(&logits));
        assert!(p > 1e-4, "K = {k}: p = {p:e}");
    }
}

#[test]
fn a_zipf_vocabulary_keeps_its_tail() {
    let k = 32_000;
    let logits: Vec<f64> = (0..k).map(|i| f64::from(-((i + 1) as f32).ln())).collect();
    let n = 60_000;
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
    let (k, n, head) = (200_000, 30_000, 131_071);
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
    let mut parts = [0; 8];
    tail.iter().for_each(|i| parts[i * 8 / k] += 1);
    let fit = chi_square(&parts, &[1.0 / 8.0; 8]);
    assert!(fit > 1e-4, "{parts:?}");
}

#[test]
fn a_rare_class_is_drawn_as_often_as_it_should_be() {
    // 3e-7 first and last in the row: the ends of a uniform
    let (rows, pieces, gap) = (1 << 24, 4, 15.0);

    for at in [0, 2] {
        let mut logits = [gap - 40.0, gap, gap - 40.0];
        logits[at] = 0.0;
        let p = oracle::probabilities(&logits)[at];
        let mut seen = 0;
        for piece in 0..pieces {
            seen += draw(&logits, rows, DType::F32, Key::new(7, piece))
                .iter()
                .filter(|i| **i == at)
                .count() as u64;
        }
        let mean = rows as f64 * pieces as f64 * p;
        let fit = poisson_p(seen, mean);
        println!("class {at}: {seen} draws, expected {mean:.1}, p = {fit:.3}");
        assert!(
            fit > 1e-4,
            "class {at}: {seen} draws, expected {mean}: p = {fit:e}"
        );
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
    check("second row", &a[..n - 2], &a[2..]);
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
