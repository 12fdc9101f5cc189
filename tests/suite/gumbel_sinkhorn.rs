//! `gumbel_sinkhorn`, `gumbel_sinkhorn_st`, `sinkhorn` and `sinkhorn_st`.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_reparam::{
    DeviceKey, Key, Temperature, bits, gumbel, gumbel_sinkhorn, gumbel_sinkhorn_st, sinkhorn,
    sinkhorn_st,
};
use rayon::ThreadPoolBuilder;

use crate::support::data::{self, FLOATS, assert_same};
use crate::support::devices::devices;
use crate::support::gradcheck::central;
use crate::support::{layouts, refused, statistics};

const KEY: Key = Key::new(17, 5);

/// Sizes around every number of lanes and of rows of a chain.
const SHAPES: [&[usize]; 12] = [
    &[1, 1],
    &[5, 2, 2],
    &[3, 3],
    &[2, 3, 5, 5],
    &[1, 8, 8],
    &[2, 10, 10],
    &[3, 15, 15],
    &[2, 16, 16],
    &[3, 17, 17],
    &[1, 33, 33],
    &[1, 64, 64],
    &[1, 100, 100],
];

/// `scores + g`, rounded to what is computed in, in f64.
fn noisy(x: &Tensor, key: Key) -> Tensor {
    let wide = data::compute(x.dtype());
    let g = gumbel(x.shape(), wide, x.device(), key).unwrap();
    (x.to_dtype(wide).unwrap() + g)
        .and_then(|z| z.to_dtype(DType::F64))
        .and_then(|z| z.to_device(&Device::Cpu))
        .unwrap()
}

fn sample(
    hard: bool,
    x: &Tensor,
    tau: impl Into<Temperature>,
    iterations: usize,
) -> Result<Tensor> {
    if hard {
        gumbel_sinkhorn_st(x, tau, iterations, KEY)
    } else {
        gumbel_sinkhorn(x, tau, iterations, KEY)
    }
}

fn lse(x: &Tensor, dim: D) -> Result<Tensor> {
    let max = x.max_keepdim(dim)?.detach();
    let sum = x.broadcast_sub(&max)?.exp()?.sum_keepdim(dim)?;
    sum.log()? + max
}

/// The iteration as it is written, of plain candle operations: `z` in f64, `tau` of a shape that broadcasts.
fn composed(z: &Tensor, tau: &Tensor, iterations: usize) -> Result<Tensor> {
    let mut x = z.broadcast_div(tau)?;
    for _ in 0..iterations {
        x = x.broadcast_sub(&lse(&x, D::Minus1)?)?;
        x = x.broadcast_sub(&lse(&x, D::Minus2)?)?;
    }
    x.exp()
}

fn scalar(tau: f64, dtype: DType, device: &Device) -> Tensor {
    data::tensor(&[tau], (), dtype, device)
}

fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1.0 / 2048.0,
        DType::BF16 => 1.0 / 256.0,
        _ => 0.0,
    }
}

/// The largest error relative to the row's largest element, of elements with a rounding of their own.
fn row_error(got: &Tensor, want: &Tensor, n: usize) -> f64 {
    let rounding = rounding(got.dtype());
    let (got, want) = (data::values(got), data::values(want));
    assert_eq!(got.len(), want.len());
    let mut worst: f64 = 0.0;
    for (got, want) in got.chunks(n).zip(want.chunks(n)) {
        let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
        assert!(largest > 0.0, "the reference has a row of zeros");
        for (g, w) in got.iter().zip(want) {
            assert!(!g.is_nan(), "NaN, not {w:e}");
            // Subnormal halves are a fixed step apart.
            let free = rounding * w.abs() + if rounding > 0.0 { 6e-8 } else { 0.0 };
            worst = worst.max(((g - w).abs() - free).max(0.0) / largest);
        }
    }
    worst
}

fn forward_tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-13 } else { 2e-6 }
}

#[test]
fn samples_are_those_of_the_composed_iteration() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for (tau, iterations, scale) in [
                    (1.0, 20, 1.0),
                    (1.0, 1, 3.0),
                    (0.3, 2, 1.0),
                    (0.3, 30, 2.0),
                    (4.0, 5, 10.0),
                ] {
                    let x = data::random(shape, 3, scale, dtype, &device);
                    let got = gumbel_sinkhorn(&x, tau, iterations, KEY).unwrap();
                    assert_eq!((got.dims(), got.dtype()), (x.dims(), dtype));
                    let t = scalar(tau, DType::F64, &Device::Cpu);
                    let want = composed(&noisy(&x, KEY), &t, iterations).unwrap();
                    let error = row_error(&got, &want, shape[shape.len() - 1]);
                    assert!(
                        error <= forward_tolerance(dtype),
                        "{shape:?} {dtype:?} tau {tau}, {iterations} iterations: {error:e}"
                    );
                    let got = sinkhorn(&x, tau, iterations).unwrap();
                    let z = x.to_dtype(DType::F64).unwrap();
                    let z = z.to_device(&Device::Cpu).unwrap();
                    let want = composed(&z, &t, iterations).unwrap();
                    let error = row_error(&got, &want, shape[shape.len() - 1]);
                    assert!(error <= forward_tolerance(dtype), "{shape:?} {error:e}");
                }
            }
        }
    }
}

#[test]
fn small_temperatures_and_wide_scores_keep_their_digits() {
    // Potentials move by hundreds of units of tau: many frames, in which f32 potentials alone would lose four digits.
    for device in devices() {
        for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::F64, 1e-11)] {
            for (n, tau, scale, iterations) in [
                (6, 0.02, 3.0, 40),
                (17, 0.01, 1.0, 20),
                (10, 1.0, 300.0, 25),
                (10, 0.1, 30.0, 1),
                (40, 0.05, 2.0, 15),
            ] {
                let x = data::random((2, n, n), n as u64, scale, dtype, &device);
                let got = gumbel_sinkhorn(&x, tau, iterations, KEY).unwrap();
                let t = scalar(tau, DType::F64, &Device::Cpu);
                let want = composed(&noisy(&x, KEY), &t, iterations).unwrap();
                let error = row_error(&got, &want, n);
                assert!(error <= tolerance, "{n} {tau} {scale} {dtype:?}: {error:e}");
            }
        }
    }
}

#[test]
fn a_frame_made_by_the_last_half_step_keeps_the_digits_of_large_potentials() {
    // Rows a thousand apart, where an f32 has steps of 6e-5, and a column so far down that the only column step needs a frame.
    for device in devices() {
        let n = 10;
        let mut v = data::normals(n * n, 12, 1.0);
        for (at, v) in v.iter_mut().enumerate() {
            *v += 1000.0 + 37.0 * (at / n) as f64 - if at % n == 3 { 60.0 } else { 0.0 };
        }
        for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::F64, 1e-11)] {
            let x = data::tensor(&v, (1, n, n), dtype, &device);
            let got = sinkhorn(&x, 1.0, 1).unwrap();
            let z = x
                .to_device(&Device::Cpu)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap();
            let want = composed(&z, &scalar(1.0, DType::F64, &Device::Cpu), 1).unwrap();
            let error = row_error(&got, &want, n);
            assert!(error <= tolerance, "{dtype:?}: {error:e}");
        }
    }
}

#[test]
fn columns_sum_to_one_and_rows_as_the_iteration_converges() {
    for device in devices() {
        for n in [2, 10, 31, 64] {
            for dtype in [DType::F32, DType::F64] {
                let x = data::random((4, n, n), 8, 1.0, dtype, &device);
                let mut last = f64::INFINITY;
                for iterations in [1, 4, 16, 64] {
                    let p = gumbel_sinkhorn(&x, 1.0, iterations, KEY).unwrap();
                    let p = p.to_dtype(DType::F64).unwrap();
                    let off = |dim: usize| {
                        data::values(&p.sum(dim).unwrap())
                            .iter()
                            .fold(0.0, |m: f64, s| m.max((s - 1.0).abs()))
                    };
                    let tight = if dtype == DType::F64 { 1e-14 } else { 2e-6 };
                    assert!(off(1) <= tight, "columns of {n}: {:e}", off(1));
                    assert!(off(2) <= last.max(tight), "rows of {n}: {:e}", off(2));
                    last = off(2);
                }
                // Not so at the start, so that the check above says something; converged at the end.
                let once = gumbel_sinkhorn(&x, 1.0, 1, KEY).unwrap().sum(2).unwrap();
                assert!(data::values(&once).iter().any(|s| (s - 1.0).abs() > 1e-2));
                // Two rows converge slowest where both prefer one column.
                let tight = if dtype == DType::F64 { 1e-6 } else { 4e-6 };
                assert!(last <= tight, "{n}: {last:e}");
            }
        }
    }
}

#[test]
fn permuted_scores_give_the_permuted_result() {
    let rows = Tensor::new(&[3u32, 0, 6, 2, 5, 1, 4], &Device::Cpu).unwrap();
    let columns = Tensor::new(&[1u32, 4, 2, 6, 0, 3, 5], &Device::Cpu).unwrap();
    for device in devices() {
        let (rows, columns) = (
            rows.to_device(&device).unwrap(),
            columns.to_device(&device).unwrap(),
        );
        let permute = |t: &Tensor| {
            t.index_select(&rows, 1)
                .and_then(|t| t.index_select(&columns, 2))
                .unwrap()
        };
        let x = data::random((2, 7, 7), 4, 2.0, DType::F32, &device);
        let want = permute(&sinkhorn(&x, 0.5, 20).unwrap());
        let got = sinkhorn(&permute(&x), 0.5, 20).unwrap();
        let error = row_error(&got, &want, 7);
        assert!(error < 2e-6, "{error:e}");
        let want = permute(&sinkhorn_st(&x, 0.5, 20).unwrap());
        let got = sinkhorn_st(&permute(&x), 0.5, 20).unwrap();
        assert_same(&got, &want, || "hard".to_string());
    }
}

// ---- the assignment

fn best(n: usize, z: &[f64], row: usize, used: u32) -> (f64, Vec<usize>) {
    if row == n {
        return (0.0, vec![]);
    }
    let mut top = (f64::NEG_INFINITY, vec![]);
    for j in (0..n).filter(|j| used >> j & 1 == 0) {
        let (rest, mut columns) = best(n, z, row + 1, used | 1 << j);
        if z[row * n + j] + rest > top.0 {
            columns.insert(0, j);
            top = (z[row * n + j] + rest, columns);
        }
    }
    top
}

#[test]
fn the_hard_sample_is_the_best_of_all_permutations() {
    for device in devices() {
        for dtype in FLOATS {
            for n in 1..=6 {
                let x = data::random((12, n, n), n as u64, 1.5, dtype, &device);
                let p = gumbel_sinkhorn_st(&x, 1.0, 20, KEY).unwrap();
                assert_eq!((p.dims(), p.dtype()), (x.dims(), dtype));
                let (p, z) = (data::values(&p), data::values(&noisy(&x, KEY)));
                for (p, z) in p.chunks(n * n).zip(z.chunks(n * n)) {
                    let (_, columns) = best(n, z, 0, 0);
                    for (i, row) in p.chunks(n).enumerate() {
                        for (j, v) in row.iter().enumerate() {
                            assert_eq!(*v, f64::from(u8::from(columns[i] == j)), "{n} {dtype:?}");
                        }
                    }
                }
            }
        }
    }
}

/// The sum of every permutation.
fn sums(n: usize, z: &[f64], row: usize, used: u32, sum: f64, out: &mut Vec<f64>) {
    if row == n {
        out.push(sum);
    }
    for j in (0..n).filter(|j| row < n && used >> j & 1 == 0) {
        sums(n, z, row + 1, used | 1 << j, sum + z[row * n + j], out);
    }
}

#[test]
fn the_relaxed_sample_nears_the_hard_one_as_tau_falls() {
    for device in devices() {
        for n in [2, 3, 5, 6] {
            let count = 12;
            let x = data::random((count, n, n), 40 + n as u64, 1.0, DType::F32, &device);
            let z = data::values(&noisy(&x, KEY));
            let hard = data::values(&gumbel_sinkhorn_st(&x, 1.0, 20, KEY).unwrap());
            let cold = data::values(&gumbel_sinkhorn(&x, 0.02, 1000, KEY).unwrap());
            let warm = data::values(&gumbel_sinkhorn(&x, 2.0, 20, KEY).unwrap());
            let distance = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()))
            };
            assert!(distance(&warm, &hard) > 0.3);
            let mut clear = 0;
            for m in 0..count {
                let at = |v: &[f64]| v[m * n * n..][..n * n].to_vec();
                let mut all = vec![];
                sums(n, &at(&z), 0, 0, 0.0, &mut all);
                all.sort_by(f64::total_cmp);
                // Of two permutations that differ in two rows, the entries of the worse one are e^(-gap / 2 tau).
                if all[all.len() - 1] - all[all.len() - 2] > 0.4 {
                    clear += 1;
                    // Where two rows prefer one column, the distance falls as one in two iterations only.
                    let off = distance(&at(&cold), &at(&hard));
                    assert!(off < 1e-2, "{n}, matrix {m}: {off}");
                }
            }
            assert!(clear >= count / 4, "{n}: {clear}");
        }
    }
}

#[test]
fn of_two_permutations_each_is_drawn_with_its_probability() {
    // The first wins where g11 + g22 - g12 - g21 > -d. A difference of two Gumbels is logistic, so the probability is that
    // two independent logistics have a sum below d.
    let probability = |d: f64| {
        let (steps, range) = (200_000, 60.0);
        let h = 2.0 * range / f64::from(steps);
        (0..steps)
            .map(|i| {
                let x = -range + (f64::from(i) + 0.5) * h;
                let density = 0.25 / (x / 2.0).cosh().powi(2);
                h * density / (1.0 + (x - d).exp())
            })
            .sum::<f64>()
    };
    assert!((probability(0.0) - 0.5).abs() < 1e-9);
    let draws = 40_000;
    for (at, d) in [0.0, 1.0, -2.5, 6.0].into_iter().enumerate() {
        // Spread over the entries: only the sums of the two diagonals count.
        let one = [0.75 * d, 0.25, -0.5, 0.25 * d - 0.25];
        let x = data::tensor(&one, (1, 2, 2), DType::F32, &Device::Cpu);
        let x = x.broadcast_as((draws, 2, 2)).unwrap();
        let p = gumbel_sinkhorn_st(&x, 1.0, 1, Key::new(3, at as u64)).unwrap();
        let first = data::values(&p).chunks(4).filter(|p| p[0] == 1.0).count() as u64;
        let p = probability(d);
        let fit = statistics::chi_square(&[first, draws as u64 - first], &[p, 1.0 - p]);
        assert!(
            fit > 1e-3,
            "d {d}: {first} of {draws}, expected {p}: {fit:e}"
        );
    }
}

#[test]
fn an_assignment_of_many_rows_beats_every_exchange_of_two() {
    for device in devices() {
        let n = 45;
        let x = data::random((1, n, n), 77, 1.0, DType::F64, &device);
        let p = data::values(&sinkhorn_st(&x, 1.0, 20).unwrap());
        let z = data::values(&x);
        let columns: Vec<usize> = p
            .chunks(n)
            .map(|row| row.iter().position(|v| *v == 1.0).unwrap())
            .collect();
        let mut seen = columns.clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..n).collect::<Vec<_>>());
        let at = |i: usize, k: usize| z[i * n + columns[k]];
        for i in 0..n {
            for k in 0..i {
                assert!(at(i, i) + at(k, k) >= at(i, k) + at(k, i), "{i} {k}");
                for l in 0..k {
                    let now = at(i, i) + at(k, k) + at(l, l);
                    assert!(now >= at(i, k) + at(k, l) + at(l, i), "{i} {k} {l}");
                    assert!(now >= at(i, l) + at(k, i) + at(l, k), "{i} {k} {l}");
                }
            }
        }
    }
}

// ---- gradients

/// Gradients of `sum(w y)` to scores and temperature.
fn gradients(
    x: &Tensor,
    tau: &Tensor,
    w: &Tensor,
    op: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> (Tensor, Tensor) {
    let x = Var::from_tensor(x).unwrap();
    let tau = Var::from_tensor(tau).unwrap();
    let y = op(x.as_tensor(), tau.as_tensor()).unwrap();
    let grads = (y * w).and_then(|l| l.sum_all()?.backward()).unwrap();
    let of = |v: &Var| grads.get(v.as_tensor()).expect("a gradient").clone();
    (of(&x), of(&tau))
}

/// The error relative to the largest entry of the matrix.
fn gradient_error(got: &Tensor, want: &Tensor, n: usize) -> f64 {
    assert_eq!((got.dims(), got.rank()), (want.dims(), want.rank()));
    let rounding = rounding(got.dtype());
    let (got, want) = (data::values(got), data::values(want));
    let (mut worst, mut meaningful, mut all): (f64, usize, usize) = (0.0, 0, 0);
    for (got, want) in got.chunks(n * n).zip(want.chunks(n * n)) {
        let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
        (meaningful, all) = (meaningful + usize::from(largest > 1e-2), all + 1);
        let largest = largest.max(1e-2);
        for (g, w) in got.iter().zip(want) {
            assert!(!g.is_nan());
            let error = ((g - w).abs() - rounding * largest).max(0.0);
            worst = worst.max(error / largest);
        }
    }
    assert!(
        n == 1 || 2 * meaningful >= all,
        "gradients of zeros say nothing"
    );
    worst
}

fn check_gradients(
    shape: &[usize],
    dtype: DType,
    device: &Device,
    case: (f64, usize, f64),
    tolerance: f64,
) {
    let (tau, iterations, scale) = case;
    let n = shape[shape.len() - 1];
    let x = data::random(shape, 5, scale, dtype, device);
    let w = data::random(shape, 6, 1.0, dtype, device);
    let cpu = |t: &Tensor| {
        t.to_device(&Device::Cpu)
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
    };
    let (want_x, want_tau) = gradients(
        &noisy(&x, KEY),
        &scalar(tau, DType::F64, &Device::Cpu),
        &cpu(&w),
        |z, t| composed(z, t, iterations),
    );
    let t = scalar(tau, dtype, device);
    let (got_x, got_tau) = gradients(&x, &t, &w, |x, t| gumbel_sinkhorn(x, t, iterations, KEY));
    assert_eq!((got_x.dtype(), got_tau.dtype()), (dtype, dtype));
    let label = format!("{shape:?} {dtype:?} tau {tau}, {iterations} iterations");
    let error = gradient_error(&got_x, &want_x, n);
    assert!(error <= tolerance, "{label}: {error:e}");
    // The sum of many terms that cancel: relative to what they would be without.
    let terms: f64 = data::values(&want_x)
        .iter()
        .zip(data::values(&noisy(&x, KEY)))
        .map(|(d, z)| (d * z / tau).abs())
        .sum();
    let (got, want) = (data::values(&got_tau)[0], data::values(&want_tau)[0]);
    let free = rounding(dtype) * want.abs();
    assert!(
        (got - want).abs() <= tolerance * terms + free,
        "{label}: tau {got:e}, not {want:e}"
    );
    assert!(n == 1 || want != 0.0);
    // With a number for a temperature, and straight through: the same bits.
    if dtype == DType::F64 {
        let v = Var::from_tensor(&x).unwrap();
        let y = gumbel_sinkhorn(v.as_tensor(), tau, iterations, KEY).unwrap();
        let grads = (y * &w).and_then(|l| l.sum_all()?.backward()).unwrap();
        let number = grads.get(v.as_tensor()).unwrap();
        assert_same(number, &got_x, || format!("{label} number"));
    }
    let hard = gradients(&x, &t, &w, |x, t| gumbel_sinkhorn_st(x, t, iterations, KEY));
    assert_same(&hard.0, &got_x, || format!("{label} straight-through"));
    assert_same(&hard.1, &got_tau, || format!("{label} straight-through"));
}

#[test]
fn gradients_are_those_of_the_composed_iteration() {
    for device in devices() {
        for shape in SHAPES {
            for (dtype, tolerance) in [
                (DType::F32, 4e-6),
                (DType::F64, 1e-12),
                (DType::F16, 4e-6),
                (DType::BF16, 4e-6),
            ] {
                for case in [(1.0, 20, 1.0), (0.5, 3, 1.0), (2.0, 1, 2.0)] {
                    check_gradients(shape, dtype, &device, case, tolerance);
                }
            }
        }
    }
}

#[test]
fn gradients_pass_through_many_frames() {
    for device in devices() {
        for (shape, case) in [
            (&[2, 6, 6][..], (0.1, 40, 3.0)),
            (&[2, 10, 10], (1.0, 20, 60.0)),
            (&[1, 20, 20], (0.1, 5, 2.0)),
        ] {
            check_gradients(shape, DType::F64, &device, case, 1e-8);
            check_gradients(shape, DType::F32, &device, case, 2e-4);
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    for device in devices() {
        let (n, iterations, tau) = (4, 6, 0.7);
        let x = data::random((2, n, n), 9, 1.0, DType::F64, &device);
        let w = data::random((2, n, n), 10, 1.0, DType::F64, &device);
        let (dx, dtau) = gradients(&x, &scalar(tau, DType::F64, &device), &w, |x, t| {
            gumbel_sinkhorn(x, t, iterations, KEY)
        });
        let (values, weights) = (data::values(&x), data::values(&w));
        let loss = |values: &[f64], tau: f64| {
            let x = data::tensor(values, (2, n, n), DType::F64, &device);
            let y = data::values(&gumbel_sinkhorn(&x, tau, iterations, KEY).unwrap());
            y.iter().zip(&weights).map(|(y, w)| y * w).sum::<f64>()
        };
        for (at, got) in data::values(&dx).into_iter().enumerate() {
            let want = central(1e-3, |h| {
                let mut moved = values.clone();
                moved[at] += h;
                loss(&moved, tau)
            });
            assert!((got - want).abs() < 1e-9, "{at}: {got:e}, not {want:e}");
        }
        let want = central(1e-3, |h| loss(&values, tau + h));
        let got = data::values(&dtau)[0];
        assert!(
            (got - want).abs() < 1e-9 && want.abs() > 1e-2,
            "{got:e}, not {want:e}"
        );
    }
}

#[test]
fn a_temperature_for_each_matrix() {
    for device in devices() {
        for dtype in FLOATS {
            let taus = [0.25, 0.5, 1.0, 2.0, 4.0, 0.5];
            let x = data::random((2, 3, 6, 6), 1, 1.0, dtype, &device);
            let w = data::random((2, 3, 6, 6), 2, 1.0, dtype, &device);
            let t = data::tensor(&taus, (2, 3, 1, 1), dtype, &device);
            let op = |x: &Tensor, t: &Tensor| gumbel_sinkhorn(x, t, 10, KEY);
            let (dx, dtau) = gradients(&x, &t, &w, op);
            assert_eq!(dtau.dims(), [2, 3, 1, 1]);
            for (i, &tau) in taus.iter().enumerate() {
                // All others at another temperature: this one's matrix, and its gradients, do not know.
                let mut others = [3.0; 6];
                others[i] = tau;
                let t = data::tensor(&others, (2, 3, 1, 1), dtype, &device);
                let (one, one_tau) = gradients(&x, &t, &w, op);
                let at = |t: &Tensor| t.flatten(0, 1).and_then(|t| t.get(i)).unwrap();
                assert_same(&at(&one), &at(&dx), || format!("{dtype:?} {i}"));
                assert_same(&at(&one_tau), &at(&dtau), || format!("{dtype:?} {i} tau"));
            }
            // One temperature gets the sum.
            let one = scalar(0.5, dtype, &device);
            let each = data::tensor(&[0.5; 6], (2, 3, 1, 1), dtype, &device);
            let sum: f64 = data::values(&gradients(&x, &each, &w, op).1).iter().sum();
            let got = data::values(&gradients(&x, &one, &w, op).1)[0];
            let free = 6.0 * rounding(dtype) * sum.abs().max(1.0) + 1e-5;
            assert!((got - sum).abs() <= free, "{dtype:?} {got:e}, not {sum:e}");
        }
    }
}

#[test]
fn gradients_reach_only_what_tracks_one() {
    let x = data::random((2, 4, 4), 1, 1.0, DType::F32, &Device::Cpu);
    let tau = scalar(0.5, DType::F32, &Device::Cpu);
    let w = data::random((2, 4, 4), 2, 1.0, DType::F32, &Device::Cpu);
    let both = gradients(&x, &tau, &w, |x, t| gumbel_sinkhorn(x, t, 5, KEY));
    for track_scores in [true, false] {
        let v = Var::from_tensor(if track_scores { &x } else { &tau }).unwrap();
        let (x, tau) = if track_scores {
            (v.as_tensor(), &tau)
        } else {
            (&x, v.as_tensor())
        };
        let y = gumbel_sinkhorn(x, tau, 5, KEY).unwrap();
        let grads = (y * &w).and_then(|l| l.sum_all()?.backward()).unwrap();
        let want = if track_scores { &both.0 } else { &both.1 };
        assert_same(grads.get(v.as_tensor()).unwrap(), want, || {
            "one".to_string()
        });
        let other = if track_scores { tau } else { x };
        assert!(grads.get(other).is_none());
    }
}

// ---- layouts, threads, instruction sets

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for dtype in FLOATS {
            for shape in [&[5, 5][..], &[3, 6, 6], &[2, 3, 17, 17]] {
                let x = data::random(shape, 4, 1.0, dtype, &device);
                let w = data::random(shape, 7, 1.0, dtype, &device);
                let tau = scalar(0.5, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    let label = || format!("{shape:?} {dtype:?} {name}");
                    for hard in [false, true] {
                        let got = sample(hard, &view, 0.5, 4).unwrap();
                        assert_same(&got, &sample(hard, &copy, 0.5, 4).unwrap(), label);
                    }
                    // The gradient's layout is that of the weights.
                    let gradient = |w: &Tensor| {
                        gradients(&copy, &tau, w, |x, t| gumbel_sinkhorn(x, t, 4, KEY)).0
                    };
                    if !name.starts_with("broadcast") {
                        let (_, view) = layouts::variants(&w)
                            .into_iter()
                            .find(|(other, _)| *other == name)
                            .unwrap();
                        assert_same(&gradient(&view), &gradient(&w), label);
                    }
                }
            }
        }
    }
}

#[test]
fn a_view_has_the_gradient_of_its_copy() {
    for device in devices() {
        let x = Var::from_tensor(&data::random((4, 3, 4), 4, 1.0, DType::F64, &device)).unwrap();
        let w = data::random((3, 4, 4), 7, 1.0, DType::F64, &device);
        let run = |copy: bool| {
            let view = x.as_tensor().transpose(0, 1).unwrap();
            let view = if copy {
                view.contiguous().unwrap()
            } else {
                view
            };
            let y = gumbel_sinkhorn(&view, 0.5, 4, KEY).unwrap();
            let grads = (y * &w).and_then(|l| l.sum_all()?.backward()).unwrap();
            grads.get(x.as_tensor()).unwrap().clone()
        };
        assert_same(&run(false), &run(true), || "view".to_string());
    }
}

fn everything(shape: &[usize], dtype: DType) -> Vec<Vec<u64>> {
    let x = data::random(shape, 4, 1.5, dtype, &Device::Cpu);
    let w = data::random(shape, 7, 1.0, dtype, &Device::Cpu);
    let tau = scalar(0.3, dtype, &Device::Cpu);
    let (dx, dtau) = gradients(&x, &tau, &w, |x, t| gumbel_sinkhorn(x, t, 7, KEY));
    [
        gumbel_sinkhorn(&x, 0.3, 7, KEY).unwrap(),
        sinkhorn(&x, 0.3, 7).unwrap(),
        gumbel_sinkhorn_st(&x, 0.3, 7, KEY).unwrap(),
        dx,
        dtau,
    ]
    .iter()
    .map(data::bits)
    .collect()
}

/// Many small matrices, and one large one, whose rows are shared out.
const PARALLEL: [&[usize]; 4] = [&[999, 5, 5], &[40, 33, 33], &[1, 520, 520], &[2, 70, 70]];

#[test]
fn one_two_and_seven_threads_give_the_same_bits() {
    for shape in PARALLEL {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let run = |threads| {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| everything(shape, dtype))
            };
            let one = run(1);
            for threads in [2, 7] {
                assert!(run(threads) == one, "{shape:?} {dtype:?} {threads} threads");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for n in (1..=18).chain([31, 32, 33, 64, 65, 100]) {
        for dtype in FLOATS {
            let portable = bits::with_level("portable", || everything(&[2, n, n], dtype));
            for level in bits::levels() {
                let got = bits::with_level(level, || everything(&[2, n, n], dtype));
                assert!(got == portable, "{n} {dtype:?} {level}");
            }
        }
    }
}

#[test]
fn a_leading_part_of_a_batch_gives_the_same_matrices() {
    for device in devices() {
        let x = data::random((9, 6, 6), 5, 1.0, DType::F32, &device);
        let whole = gumbel_sinkhorn(&x, 0.5, 9, KEY).unwrap();
        for count in [1, 2, 8] {
            let part = x.narrow(0, 0, count).unwrap();
            let part = gumbel_sinkhorn(&part, 0.5, 9, KEY).unwrap();
            assert_same(&part, &whole.narrow(0, 0, count).unwrap(), || {
                format!("{count}")
            });
        }
    }
}

// ---- masks and bad matrices

#[test]
fn a_forbidden_entry_is_never_taken() {
    let (count, n) = (8, 6);
    for device in devices() {
        for dtype in FLOATS {
            let mut v = data::values(&data::random((count, n, n), 3, 1.0, dtype, &Device::Cpu));
            let mut far = v.clone();
            for m in 0..count {
                for i in 0..n {
                    // A band of three, over the ends.
                    for j in (0..n).filter(|j| (j + n - i) % n > 2) {
                        v[(m * n + i) * n + j] = f64::NEG_INFINITY;
                        far[(m * n + i) * n + j] = -1e4;
                    }
                }
            }
            let x = data::tensor(&v, (count, n, n), dtype, &device);
            let w = data::random((count, n, n), 8, 1.0, dtype, &device);
            let tau = scalar(0.5, dtype, &device);
            let op = |x: &Tensor, t: &Tensor| gumbel_sinkhorn(x, t, 25, KEY);
            let y = op(&x, &tau).unwrap();
            let (dx, dtau) = gradients(&x, &tau, &w, op);
            let hard = data::values(&gumbel_sinkhorn_st(&x, 0.5, 25, KEY).unwrap());
            for ((v, y), (d, h)) in v
                .iter()
                .zip(data::values(&y))
                .zip(data::values(&dx).into_iter().zip(&hard))
            {
                if *v == f64::NEG_INFINITY {
                    assert_eq!((y, d, *h), (0.0, 0.0, 0.0));
                }
            }
            assert_eq!(hard.iter().sum::<f64>(), (count * n) as f64);
            // In double precision, a score so low is as good as -inf.
            let far = data::tensor(&far, (count, n, n), DType::F64, &Device::Cpu);
            let g = gumbel(x.shape(), data::compute(dtype), &Device::Cpu, KEY).unwrap();
            let z = if dtype == DType::F64 {
                (&far + g).unwrap()
            } else {
                (far.to_dtype(DType::F32).unwrap() + g)
                    .unwrap()
                    .to_dtype(DType::F64)
                    .unwrap()
            };
            let w = w
                .to_device(&Device::Cpu)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap();
            let t = scalar(0.5, DType::F64, &Device::Cpu);
            let want = composed(&z, &t, 25).unwrap();
            let error = row_error(&y, &want, n);
            assert!(error < 4e-6, "{dtype:?} {error:e}");
            let (want, want_tau) = gradients(&z, &t, &w, |z, t| composed(z, t, 25));
            let error = gradient_error(&dx, &want, n);
            assert!(error < 2e-5, "{dtype:?} {error:e}");
            let (got, want) = (data::values(&dtau)[0], data::values(&want_tau)[0]);
            let free = 1e-4 + rounding(dtype) * want.abs();
            assert!(
                (got - want).abs() < free && want != 0.0,
                "{dtype:?} {got:e} {want:e}"
            );
        }
    }
}

#[test]
fn a_bad_matrix_is_nan_and_no_other() {
    let (inf, n) = (f64::INFINITY, 5);
    let bad: [&dyn Fn(usize, usize) -> Option<f64>; 5] = [
        &|i, j| (i == 2 && j == 3).then_some(f64::NAN),
        &|i, j| (i == 4 && j == 0).then_some(inf),
        &|i, _| (i == 1).then_some(-inf),
        &|_, j| (j == 4).then_some(-inf),
        &|_, _| Some(-inf),
    ];
    for device in devices() {
        for dtype in FLOATS {
            let good = data::random((6, n, n), 3, 1.0, dtype, &device);
            let mut v = data::values(&good);
            for (m, bad) in bad.iter().enumerate() {
                for i in 0..n {
                    for j in 0..n {
                        if let Some(value) = bad(i, j) {
                            v[(m * n + i) * n + j] = value;
                        }
                    }
                }
            }
            let x = data::tensor(&v, (6, n, n), dtype, &device);
            let w = data::random((6, n, n), 8, 1.0, dtype, &device);
            let tau = data::tensor(&[0.5; 6], (6, 1, 1), dtype, &device);
            for hard in [false, true] {
                let op = |x: &Tensor, t: &Tensor| sample(hard, x, t, 8);
                let (got, want) = (op(&x, &tau).unwrap(), op(&good, &tau).unwrap());
                let (dx, dtau) = gradients(&x, &tau, &w, op);
                let (want_dx, want_dtau) = gradients(&good, &tau, &w, op);
                for (got, want) in [(got, want), (dx, want_dx), (dtau, want_dtau)] {
                    for m in 0..6 {
                        let (got, want) = (got.get(m).unwrap(), want.get(m).unwrap());
                        if m < bad.len() {
                            let all = data::values(&got).iter().all(|v| v.is_nan());
                            assert!(all, "{dtype:?} hard {hard} matrix {m}: {got}");
                        } else {
                            assert_same(&got, &want, || format!("{dtype:?} matrix {m}"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_mask_that_leaves_no_permutation() {
    // Two rows that may take one and the same column alone: no permutation, though no row and no column is empty.
    let inf = f64::INFINITY;
    let v = [0.5, -inf, -inf, 1.0, -inf, -inf, 0.0, 0.25, -0.5];
    for device in devices() {
        for dtype in FLOATS {
            let x = data::tensor(&v, (1, 3, 3), dtype, &device);
            let hard = gumbel_sinkhorn_st(&x, 1.0, 20, KEY).unwrap();
            assert!(data::values(&hard).iter().all(|v| v.is_nan()));
            // The iteration itself is defined, step by step.
            let relaxed = gumbel_sinkhorn(&x, 1.0, 500, KEY).unwrap();
            let columns = data::values(&relaxed.to_dtype(DType::F64).unwrap().sum(1).unwrap());
            assert!(
                columns.iter().all(|s| (s - 1.0).abs() < 1e-2),
                "{columns:?}"
            );
        }
    }
}

#[test]
fn extreme_temperatures_and_scores() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            for tau in [1e-30, 1e-6, 1e-3, 1e6, 1e30] {
                for scale in [1e-30, 1.0, 1e4, 1e30] {
                    let x = data::random((2, 6, 6), 3, scale, dtype, &device);
                    let y = gumbel_sinkhorn(&x, tau, 10, KEY).unwrap();
                    let columns = data::values(&y.sum(1).unwrap());
                    let fine = columns.iter().all(|s| (s - 1.0).abs() < 2e-6);
                    assert!(fine, "{dtype:?} tau {tau:e} scale {scale:e}: {y}");
                    if tau == 1e30 && scale <= 1.0 {
                        let even = data::values(&y)
                            .iter()
                            .all(|v| (v - 1.0 / 6.0).abs() < 1e-6);
                        assert!(even, "{y}");
                    }
                    let w = data::random((2, 6, 6), 8, 1.0, dtype, &device);
                    let t = scalar(tau, dtype, &device);
                    let (dx, _) = gradients(&x, &t, &w, |x, t| gumbel_sinkhorn(x, t, 10, KEY));
                    let fine = data::values(&dx).iter().all(|d| !d.is_nan());
                    assert!(fine, "{dtype:?} tau {tau:e} scale {scale:e}: {dx}");
                }
            }
        }
    }
}

#[test]
fn a_matrix_of_one_and_a_batch_of_none() {
    for device in devices() {
        for dtype in FLOATS {
            let x = data::random((3, 1, 1), 3, 5.0, dtype, &device);
            for y in [
                gumbel_sinkhorn(&x, 0.1, 3, KEY).unwrap(),
                gumbel_sinkhorn_st(&x, 0.1, 3, KEY).unwrap(),
            ] {
                assert_eq!(data::values(&y), [1.0; 3]);
            }
            let none = Tensor::zeros((0, 4, 4), dtype, &device).unwrap();
            let tau = scalar(1.0, dtype, &device);
            for hard in [false, true] {
                assert_eq!(sample(hard, &none, &tau, 3).unwrap().dims(), [0, 4, 4]);
                let (dx, dtau) = gradients(&none, &tau, &none, |x, t| sample(hard, x, t, 3));
                assert_eq!(dx.dims(), [0, 4, 4]);
                assert_eq!(data::values(&dtau), [0.0]);
            }
        }
    }
}

#[test]
fn refusals_name_the_op_and_the_value() {
    let device = Device::Cpu;
    let make = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &device).unwrap();
    let square = make(&[2, 3, 3]);
    type Call = dyn Fn(&Tensor, Temperature, usize, Key) -> Result<Tensor>;
    let ops: [(&str, &Call); 4] = [
        ("gumbel_sinkhorn", &|x, t, i, k| gumbel_sinkhorn(x, t, i, k)),
        ("gumbel_sinkhorn_st", &|x, t, i, k| {
            gumbel_sinkhorn_st(x, t, i, k)
        }),
        ("sinkhorn", &|x, t, i, _| sinkhorn(x, t, i)),
        ("sinkhorn_st", &|x, t, i, _| sinkhorn_st(x, t, i)),
    ];
    for (name, op) in ops {
        let call = |x: &Tensor| op(x, 1.0.into(), 3, KEY);
        refused(call(&make(&[2, 3, 4])), name, &["[2, 3, 4]", "square"]);
        refused(call(&make(&[3])), name, &["[3]", "square"]);
        refused(call(&make(&[])), name, &["[]", "square"]);
        refused(call(&make(&[2, 0, 0])), name, &["[2, 0, 0]", "empty"]);
        refused(op(&square, 1.0.into(), 0, KEY), name, &["iterations is 0"]);
        refused(
            op(&square, 1.0.into(), usize::MAX, KEY),
            name,
            &["iterations is 1844"],
        );
        for (tau, shown) in [
            (0.0, "0"),
            (-1.5, "-1.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            refused(op(&square, tau.into(), 3, KEY), name, &["tau", shown]);
            let t = scalar(tau, DType::F32, &device);
            refused(op(&square, t.into(), 3, KEY), name, &["tau", shown]);
        }
        for shape in [&[3][..], &[3, 1], &[2, 3, 1], &[2, 2, 1, 1]] {
            let tau = Tensor::ones(shape, DType::F32, &device).unwrap();
            let parts = [
                &format!("{shape:?}")[..],
                "[2, 1, 1]",
                "matrix of the scores",
            ];
            refused(op(&square, tau.into(), 3, KEY), name, &parts);
        }
        let wide = scalar(1.0, DType::F64, &device);
        refused(
            op(&square, wide.into(), 3, KEY),
            name,
            &["tau", "F64", "F32"],
        );
        let whole = Tensor::zeros((3, 3), DType::U32, &device).unwrap();
        refused(op(&whole, 1.0.into(), 3, KEY), name, &["scores", "U32"]);
        if name.starts_with("gumbel") {
            let key = Key::new(1, 1 << 63);
            refused(op(&square, 1.0.into(), 3, key), name, &["stream"]);
        }
    }
}

// ---- the device against the CPU

/// A NaN's payload is not part of the contract.
fn same(got: &Tensor, want: &Tensor, label: &str) {
    let (got, want) = (data::values(got), data::values(want));
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            g == w || (g.is_nan() && w.is_nan()),
            "{label}: {i}: {g}, not {w}"
        );
    }
}

#[test]
fn a_key_in_device_memory_draws_what_its_value_does() {
    for device in devices() {
        for key in [KEY, Key::new(u64::MAX, (1 << 63) - 1)] {
            let there = DeviceKey::new(key, &device).unwrap();
            // The latter past what shared memory has room for.
            for shape in [&[3, 7, 7][..], &[1, 66, 66]] {
                let x = data::random(shape, 1, 1.0, DType::F32, &device);
                let w = data::random(shape, 2, 1.0, DType::F32, &device);
                let tau = scalar(0.5, DType::F32, &device);
                let both = |hard: bool, label: &str| {
                    let of = |key: candle_reparam::KeySource| {
                        let op = |x: &Tensor, tau: &Tensor| match hard {
                            true => gumbel_sinkhorn_st(x, tau, 3, key.clone()),
                            false => gumbel_sinkhorn(x, tau, 3, key.clone()),
                        };
                        (op(&x, &tau).unwrap(), gradients(&x, &tau, &w, op))
                    };
                    let (y, (to_x, to_tau)) = of((&there).into());
                    let (want, (want_x, want_tau)) = of(key.into());
                    for (got, want) in [(y, want), (to_x, want_x), (to_tau, want_tau)] {
                        assert_same(&got, &want, || format!("{label} {shape:?}"));
                    }
                };
                both(false, "gumbel_sinkhorn");
                both(true, "gumbel_sinkhorn_st");
            }
            // Written again, it draws afresh.
            let x = data::random((3, 7, 7), 1, 1.0, DType::F32, &device);
            let first = gumbel_sinkhorn(&x, 1.0, 3, &there).unwrap();
            there.set(Key::new(3, 3)).unwrap();
            let next = gumbel_sinkhorn(&x, 1.0, 3, &there).unwrap();
            assert_ne!(data::values(&first), data::values(&next));
            let want = gumbel_sinkhorn(&x, 1.0, 3, Key::new(3, 3)).unwrap();
            assert_same(&next, &want, || "set".into());
        }
    }
}

#[test]
fn a_device_chooses_the_permutations_of_the_cpu() {
    for device in devices().into_iter().skip(1) {
        for dtype in FLOATS {
            for n in [1, 2, 3, 7, 10, 16, 33] {
                let count = (300 / (n * n)).max(1);
                let mut v = data::normals(count * n * n, n as u64, 1.0);
                for dims in [0, 1, 2] {
                    match dims {
                        // Ties, and forbidden entries.
                        1 => v.iter_mut().for_each(|v| *v = v.round()),
                        2 => v.iter_mut().step_by(3).for_each(|v| *v = f64::NEG_INFINITY),
                        _ => {}
                    }
                    let x = data::tensor(&v, (count, n, n), dtype, &Device::Cpu);
                    let there = x.to_device(&device).unwrap();
                    let label = format!("{n} {dtype:?} {dims}");
                    let run = |x: &Tensor| gumbel_sinkhorn_st(x, 1.0, 3, KEY).unwrap();
                    same(&run(&there), &run(&x), &label);
                    let run = |x: &Tensor| sinkhorn_st(x, 1.0, 3).unwrap();
                    same(&run(&there), &run(&x), &label);
                }
            }
        }
    }
}

#[test]
fn matrices_that_no_block_holds_are_those_of_the_cpu() {
    // Past what shared memory has room for, in both directions.
    for device in devices().into_iter().skip(1) {
        for (dtype, n) in [
            (DType::F32, 65),
            (DType::F32, 130),
            (DType::F64, 49),
            (DType::BF16, 70),
        ] {
            let x = data::random((1, n, n), 5, 1.0, dtype, &Device::Cpu);
            let w = data::random((1, n, n), 6, 1.0, dtype, &Device::Cpu);
            let tau = scalar(0.5, dtype, &Device::Cpu);
            let there = |t: &Tensor| t.to_device(&device).unwrap();
            let op = |x: &Tensor, t: &Tensor| gumbel_sinkhorn(x, t, 2, KEY);
            let want = op(&x, &tau).unwrap();
            let got = op(&there(&x), &there(&tau)).unwrap();
            let error = row_error(&got, &want, n);
            assert!(
                error <= 2.0 * forward_tolerance(dtype),
                "{n} {dtype:?} {error:e}"
            );
            let (want, want_tau) = gradients(&x, &tau, &w, op);
            let (got, got_tau) = gradients(&there(&x), &there(&tau), &there(&w), op);
            let error = gradient_error(&got, &want, n);
            assert!(error <= 8e-6, "{n} {dtype:?} {error:e}");
            let (got, want) = (data::values(&got_tau)[0], data::values(&want_tau)[0]);
            let free = (2.0 * rounding(dtype) + 1e-3) * want.abs();
            assert!(
                (got - want).abs() <= free && want != 0.0,
                "{n} {got:e} {want:e}"
            );
        }
    }
}
