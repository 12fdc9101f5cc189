//! `relaxed_top_k` and `gumbel_top_k_st`.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_reparam::{Key, gumbel, gumbel_softmax, gumbel_top_k, gumbel_top_k_st, relaxed_top_k};

use crate::gumbel_softmax::SHAPES;
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::gradcheck::{central, compare};
use crate::support::oracle::{self, Rows};
use crate::support::{layouts, refused};

const KEY: Key = Key::new(21, 4);

/// A row's relaxed k-hot in double precision. The share that the largest class leaves is the sum of the others'
/// exponentials, in logarithms: it may be far below the smallest number.
fn reference(z: &[f64], k: usize, tau: f64) -> Vec<f64> {
    let mut w = z.to_vec();
    let mut y = vec![0.0; z.len()];
    for _ in 0..k {
        let u: Vec<f64> = w.iter().map(|w| w / tau).collect();
        let top = oracle::argmax(&u);
        let others: Vec<f64> = u
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != top)
            .map(|(_, u)| *u)
            .collect();
        let rest = oracle::log_sum_exp(&others);
        let all = oracle::log_sum_exp(&u);
        for i in 0..z.len() {
            let a = (u[i] - all).exp();
            y[i] += a;
            w[i] += if i == top { rest - all } else { (-a).ln_1p() };
        }
    }
    y
}

/// Logits plus noise as the op sees them, in f64.
fn perturbed(x: &Tensor, key: Key) -> Vec<f64> {
    let wide = data::compute(x.dtype());
    let noise = gumbel(x.shape(), wide, x.device(), key).unwrap();
    data::values(&(x.to_dtype(wide).unwrap() + noise).unwrap())
}

/// What a row's values may be off by, relative to its largest.
fn tolerance(dtype: DType, k: usize) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 2e-6 * (1.0 + k as f64 / 8.0),
        DType::F16 => 1.2e-3,
        _ => 9e-3,
    }
}

#[track_caller]
fn check(x: &Tensor, k: usize, tau: f64, dim: usize, key: Key) {
    let y = relaxed_top_k(x, k, tau, dim, key).unwrap();
    assert_eq!((y.dims(), y.dtype()), (x.dims(), x.dtype()));
    let rows = Rows::of(x, dim);
    let want = rows.map(&perturbed(x, key), |_, z| reference(z, k, tau));
    let label = format!("{:?} {:?} dim {dim} k {k} tau {tau}", x.dims(), x.dtype());
    compare(
        &data::values(&y),
        &want,
        &rows,
        tolerance(x.dtype(), k),
        1e-9,
    )
    .unwrap_or_else(|e| panic!("{label}: {e}"));
}

#[test]
fn the_sum_of_softmaxes_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    let x = data::random(shape, 3, 2.0, dtype, &device);
                    let len = shape[dim];
                    for (k, tau) in [
                        (1, 1.0),
                        (len.min(2), 0.5),
                        (len.div_ceil(2), 0.2),
                        (len.min(3), 2.0),
                    ] {
                        check(&x, k, tau, dim, KEY);
                    }
                }
            }
        }
    }
}

#[test]
fn the_sum_of_softmaxes_for_every_row_length_and_inner_size() {
    for device in devices() {
        for len in [2, 7, 16, 17, 33, 100, 257, 1000, 1025, 4100] {
            for inner in [1, 3, 40] {
                let outer = (2000 / (len * inner)).clamp(1, 10);
                for dtype in FLOATS {
                    if len * inner > 10_000 && dtype != DType::F32 {
                        continue;
                    }
                    let x = data::random((outer, len, inner), len as u64, 2.0, dtype, &device);
                    check(&x, len.min(5), 0.3, 1, KEY);
                }
            }
        }
        check(
            &data::random((1, 20_000), 1, 2.0, DType::F32, &device),
            3,
            0.5,
            1,
            KEY,
        );
    }
}

#[test]
fn one_draw_is_gumbel_softmax() {
    for dtype in [DType::F32, DType::F64] {
        let x = data::random((30, 40), 1, 3.0, dtype, &Device::Cpu);
        for tau in [0.1, 1.0, 4.0] {
            let a = relaxed_top_k(&x, 1, tau, 1, KEY).unwrap();
            let b = gumbel_softmax(&x, tau, 1, KEY).unwrap();
            let rows = Rows::of(&x, 1);
            compare(
                &data::values(&a),
                &data::values(&b),
                &rows,
                tolerance(dtype, 1),
                1e-9,
            )
            .unwrap();
        }
    }
}

/// The formula of the documentation in candle's own operations.
fn composed(z: &Tensor, k: usize, tau: &Tensor) -> Result<Tensor> {
    let mut w = z.clone();
    let mut y = z.zeros_like()?;
    for _ in 0..k {
        let u = w.broadcast_div(tau)?;
        let e = u
            .broadcast_sub(&u.max_keepdim(D::Minus1)?.detach())?
            .exp()?;
        let a = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
        y = (y + &a)?;
        w = (w + (1.0 - a)?.log()?)?;
    }
    Ok(y)
}

/// Gradients of `sum(weights f)` to logits and temperatures.
fn gradients(
    x: &Tensor,
    tau: &Tensor,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> (Tensor, Tensor) {
    let (x, tau) = (Var::from_tensor(x).unwrap(), Var::from_tensor(tau).unwrap());
    let y = f(x.as_tensor(), tau.as_tensor()).unwrap();
    let w = data::random(y.shape(), 99, 1.0, y.dtype(), y.device());
    let grads = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| grads.get(v.as_tensor()).expect("a gradient").clone();
    (of(&x), of(&tau))
}

#[test]
fn values_and_gradients_are_those_of_the_composed_expression() {
    for device in devices() {
        for (rows, len, k) in [(6, 5, 2), (4, 12, 4), (3, 40, 7), (2, 300, 3)] {
            for tau in [0.5, 1.0, 2.5] {
                let x = data::random((rows, len), 5, 1.0, DType::F64, &device);
                let taus: Vec<f64> = (0..rows).map(|i| tau * (1.0 + 0.1 * i as f64)).collect();
                let taus = data::tensor(&taus, (rows, 1), DType::F64, &device);
                let noise = gumbel(x.shape(), DType::F64, &device, KEY).unwrap();
                let f = |x: &Tensor, tau: &Tensor| relaxed_top_k(x, k, tau, 1, KEY);
                let g = |x: &Tensor, tau: &Tensor| composed(&(x + &noise)?, k, tau);
                let label = format!("{rows}x{len} k {k} tau {tau}");
                let shape = Rows::of(&x, 1);
                let values = |t: Result<Tensor>| data::values(&t.unwrap());
                // the composed one loses digits of 1 - a
                compare(
                    &values(f(&x, &taus)),
                    &values(g(&x, &taus)),
                    &shape,
                    1e-11,
                    1e-9,
                )
                .unwrap_or_else(|e| panic!("{label}: {e}"));
                let (got, want) = (gradients(&x, &taus, f), gradients(&x, &taus, g));
                compare(
                    &data::values(&got.0),
                    &data::values(&want.0),
                    &shape,
                    1e-9,
                    1e-9,
                )
                .unwrap_or_else(|e| panic!("logits, {label}: {e}"));
                let shape = Rows::of(&got.1, 1);
                compare(
                    &data::values(&got.1),
                    &data::values(&want.1),
                    &shape,
                    1e-8,
                    1e-9,
                )
                .unwrap_or_else(|e| panic!("tau, {label}: {e}"));
            }
        }
    }
}

/// Central differences of `sum(w y)` of every row.
fn differences(z: &[f64], k: usize, tau: f64, w: &[f64]) -> (Vec<f64>, f64) {
    let loss = |z: &[f64], tau: f64| oracle::dot(&reference(z, k, tau), w);
    let dz = (0..z.len())
        .map(|i| {
            central(1e-3 * tau, |d| {
                let mut moved = z.to_vec();
                moved[i] += d;
                loss(&moved, tau)
            })
        })
        .collect();
    (dz, central(1e-4 * tau, |d| loss(z, tau + d)))
}

#[test]
fn gradients_are_central_differences_for_every_dim_and_dtype() {
    for device in devices() {
        for (shape, dim, k) in [
            (&[5, 6][..], 1, 3),
            (&[6, 5], 0, 2),
            (&[2, 9, 4], 1, 4),
            (&[3, 2, 20], 2, 5),
            (&[2, 70], 1, 6),
        ] {
            for dtype in FLOATS {
                for tau in [0.2, 0.7, 2.0] {
                    let x = data::random(shape, 8, 1.5, dtype, &device);
                    let rows = Rows::of(&x, dim);
                    let mut tau_shape = shape.to_vec();
                    tau_shape[dim] = 1;
                    let taus = data::tensor(&vec![tau; rows.count()], tau_shape, dtype, &device);
                    let tau = data::values(&taus)[0];
                    let f = |x: &Tensor, tau: &Tensor| relaxed_top_k(x, k, tau, dim, KEY);
                    let (got, got_tau) = gradients(&x, &taus, f);
                    let w = data::values(&data::random(shape, 99, 1.0, dtype, &device));
                    let z = perturbed(&x, KEY);
                    let mut want_tau = vec![];
                    let want = rows.map(&z, |row, z| {
                        let (dz, dtau) = differences(z, k, tau, &rows.row(&w, row));
                        want_tau.push(dtau);
                        dz
                    });
                    let label = format!("{shape:?} {dtype:?} dim {dim} tau {tau}");
                    let t = match dtype {
                        DType::F64 => 2e-8,
                        DType::F32 => 3e-5,
                        DType::F16 => 2e-3,
                        _ => 1e-2,
                    };
                    compare(&data::values(&got), &want, &rows, t, 1e-6)
                        .unwrap_or_else(|e| panic!("{label}: {e}"));
                    // a row's temperature sums up terms of both signs
                    let one = Rows::new(&[1, rows.count()], 1);
                    compare(&data::values(&got_tau), &want_tau, &one, 4.0 * t, 1e-6)
                        .unwrap_or_else(|e| panic!("tau, {label}: {e}"));
                }
            }
        }
    }
}

#[test]
fn peaked_rows_where_one_minus_a_underflows() {
    // gaps of hundreds of temperatures: 1 - a is far below the smallest number, and still the next class follows
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            let v = [0.0, 40.0, 20.0, 60.0, -50.0, 41.0, 10.0, 59.0];
            let x = data::tensor(&v, (1, 8), dtype, &device);
            for tau in [0.02, 0.1, 0.5] {
                for k in [2, 5, 7] {
                    check(&x, k, tau, 1, KEY);
                    let taus = data::tensor(&[tau], (1, 1), dtype, &device);
                    let f = |x: &Tensor, tau: &Tensor| relaxed_top_k(x, k, tau, 1, KEY);
                    let (dx, dtau) = gradients(&x, &taus, f);
                    for g in data::values(&dx).into_iter().chain(data::values(&dtau)) {
                        assert!(g.is_finite(), "{dtype:?} tau {tau} k {k}: {g}");
                    }
                }
            }
            // so far apart that ln(1 - a) is beyond the logarithm of the smallest number, short of which the first class
            // would be chosen again
            let v = [0.0, 400.0, 200.0, -200.0];
            let x = data::tensor(&v, (1, 4), dtype, &device);
            for tau in [0.1, 0.5] {
                let y = data::values(&relaxed_top_k(&x, 2, tau, 1, KEY).unwrap());
                for (y, want) in y.into_iter().zip([0.0, 1.0, 1.0, 0.0]) {
                    assert!((y - want).abs() < 1e-6, "{dtype:?} {tau}: {y}, not {want}");
                }
            }
            // and one whose gradient is large there: two near ties far above the rest
            let v = [0.0, 100.0, 100.25, 50.0, 50.25, -3.0];
            let x = data::tensor(&v, (1, 6), dtype, &device);
            let z = perturbed(&x, KEY);
            let w = data::values(&data::random((1, 6), 99, 1.0, dtype, &device));
            for (k, tau) in [(1, 1.0), (3, 1.0), (3, 0.3)] {
                let taus = data::tensor(&[tau], (1, 1), dtype, &device);
                let f = |x: &Tensor, tau: &Tensor| relaxed_top_k(x, k, tau, 1, KEY);
                let (dx, _) = gradients(&x, &taus, f);
                let (want, _) = differences(&z, k, data::values(&taus)[0], &w);
                let t = if dtype == DType::F64 { 1e-7 } else { 3e-4 };
                compare(&data::values(&dx), &want, &Rows::new(&[1, 6], 1), t, 1e-6)
                    .unwrap_or_else(|e| panic!("{dtype:?} k {k} tau {tau}: {e}"));
            }
        }
    }
}

#[test]
fn a_small_temperature_gives_the_k_hot() {
    for device in devices() {
        for dtype in FLOATS {
            for (shape, dim, k) in [
                (&[50, 12][..], 1, 4),
                (&[3, 600], 1, 20),
                (&[9, 4, 11], 0, 3),
            ] {
                let x = data::random(shape, 2, 2.0, dtype, &device);
                let hard = data::values(&gumbel_top_k_st(&x, k, 1.0, dim, KEY).unwrap());
                for tau in [1e-4, 1e-30] {
                    let soft = data::values(&relaxed_top_k(&x, k, tau, dim, KEY).unwrap());
                    // classes nearer to each other than tau share: a few in 600, where tau is not tiny
                    let off = soft
                        .iter()
                        .zip(&hard)
                        .filter(|(s, h)| (**s - **h).abs() > 1e-3)
                        .count();
                    assert!(
                        off <= if tau > 1e-10 { 4 } else { 0 },
                        "{dtype:?} {shape:?} {tau}: {off}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_k_hot_is_at_the_indices_of_gumbel_top_k() {
    for device in devices() {
        for shape in SHAPES.into_iter().chain([&[5, 300, 7][..], &[3, 4100]]) {
            for dtype in FLOATS {
                let x = data::random(shape, 4, 1.0, dtype, &device);
                for dim in 0..shape.len() {
                    let k = shape[dim].min(3);
                    let hot = gumbel_top_k_st(&x, k, 1.0, dim, KEY).unwrap();
                    let index = data::indices(&gumbel_top_k(&x, k, dim, KEY).unwrap());
                    let (rows, drawn) = (Rows::of(&x, dim), Rows::of(&x, dim));
                    let drawn = Rows { len: k, ..drawn };
                    let mut want = vec![0.0; x.elem_count()];
                    for row in 0..rows.count() {
                        for j in 0..k {
                            want[rows.at(row, index[drawn.at(row, j)])] = 1.0;
                        }
                    }
                    assert_eq!(data::values(&hot), want, "{shape:?} {dtype:?} dim {dim}");
                }
            }
        }
    }
}

#[test]
fn the_k_hots_gradient_is_that_of_the_relaxed_one_bit_for_bit() {
    for device in devices() {
        for (shape, dim) in [(&[5, 9][..], 1), (&[9, 5], 0), (&[2, 300], 1)] {
            for dtype in FLOATS {
                let x = data::random(shape, 4, 1.0, dtype, &device);
                let mut tau_shape = shape.to_vec();
                tau_shape[dim] = 1;
                let taus = Tensor::full(0.6, tau_shape, &device)
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap();
                let hard = gradients(&x, &taus, |x, tau| gumbel_top_k_st(x, 3, tau, dim, KEY));
                let soft = gradients(&x, &taus, |x, tau| relaxed_top_k(x, 3, tau, dim, KEY));
                data::assert_same(&hard.0, &soft.0, || format!("{shape:?} {dtype:?}"));
                data::assert_same(&hard.1, &soft.1, || format!("{shape:?} {dtype:?} tau"));
                assert!(data::values(&soft.0).iter().any(|g| g.abs() > 1e-3));
                // a number and a tensor of it are one temperature
                let x = Var::from_tensor(&x).unwrap();
                let tau = data::values(&taus)[0];
                let y = gumbel_top_k_st(x.as_tensor(), 3, tau, dim, KEY).unwrap();
                let w = data::random(y.shape(), 99, 1.0, dtype, &device);
                let grads = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
                data::assert_same(grads.get(x.as_tensor()).unwrap(), &soft.0, || {
                    "number".into()
                });
            }
        }
    }
}

#[test]
fn an_argument_that_tracks_nothing_gets_no_gradient() {
    let x = data::random((3, 5), 4, 1.0, DType::F32, &Device::Cpu);
    let (var, tau) = (
        Var::from_tensor(&x).unwrap(),
        Var::from_slice(&[0.5f32], 1, &Device::Cpu).unwrap(),
    );
    type F = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let ops: [F; 2] = [
        |x, tau| relaxed_top_k(x, 2, tau, 1, KEY),
        |x, tau| gumbel_top_k_st(x, 2, tau, 1, KEY),
    ];
    for f in ops {
        let grads = f(&x, tau.as_tensor())
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert!(grads.get(&x).is_none() && grads.get(tau.as_tensor()).is_some());
        let fixed = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
        let grads = f(var.as_tensor(), &fixed)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert!(grads.get(var.as_tensor()).is_some() && grads.get(&fixed).is_none());
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in [&[3, 5][..], &[2, 3, 4], &[5, 40, 7]] {
            for dtype in [DType::F32, DType::BF16] {
                let x = data::random(shape, 4, 1.0, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        let f = |x: &Tensor| {
                            relaxed_top_k(x, 2.min(shape[dim]), 0.5, dim, KEY).unwrap()
                        };
                        data::assert_same(&f(&view), &f(&copy), || {
                            format!("{shape:?} {name} dim {dim}")
                        });
                        let gradient = |x: &Tensor| {
                            let x = Var::from_tensor(x).unwrap();
                            // the gradient arrives as a view
                            let y = f(x.as_tensor()).sqr().unwrap().transpose(0, 1).unwrap();
                            let w = data::random(y.shape(), 9, 1.0, dtype, &device);
                            let grads = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
                            grads.get(x.as_tensor()).unwrap().clone()
                        };
                        data::assert_same(&gradient(&view), &gradient(&copy), || {
                            format!("gradient {name}")
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn masks_get_nothing_and_broken_rows_are_nan_alone() {
    let (nan, inf, ninf) = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    for device in devices() {
        for dtype in FLOATS {
            for (len, inner) in [(5, 1), (40, 1), (1500, 1), (6, 4)] {
                // rows: half masked; two classes left for two draws; one; none; NaN; +inf; proper; NaN alone
                let mut v = data::normals(8 * len * inner, 6, 1.0);
                let mut set = |row: usize, k: usize, value: f64| {
                    (0..inner).for_each(|j| v[(row * len + k) * inner + j] = value);
                };
                (0..len)
                    .filter(|k| k % 2 == 0)
                    .for_each(|k| set(0, k, ninf));
                (2..len).for_each(|k| set(1, k, ninf));
                (1..len).for_each(|k| set(2, k, ninf));
                (0..len).for_each(|k| set(3, k, ninf));
                set(4, len / 2, nan);
                set(5, len - 1, inf);
                (0..len).for_each(|k| set(7, k, nan));
                let x = data::tensor(&v, (8, len, inner), dtype, &device);
                let rows = Rows {
                    outer: 8,
                    len,
                    inner,
                };
                for hard in [false, true] {
                    let var = Var::from_tensor(&x).unwrap();
                    let y = if hard {
                        gumbel_top_k_st(var.as_tensor(), 2, 0.5, 1, KEY).unwrap()
                    } else {
                        relaxed_top_k(var.as_tensor(), 2, 0.5, 1, KEY).unwrap()
                    };
                    let w = data::random(x.shape(), 99, 1.0, dtype, &device);
                    let grads = (&y * w).unwrap().sum_all().unwrap().backward().unwrap();
                    let (y, g) = (
                        data::values(&y),
                        data::values(grads.get(var.as_tensor()).unwrap()),
                    );
                    for row in 0..rows.count() {
                        let (y, g) = (rows.row(&y, row), rows.row(&g, row));
                        let label = format!("{dtype:?} {len} {inner} row {row} hard {hard}");
                        match row / inner {
                            2..=5 | 7 => {
                                assert!(y.iter().all(|y| y.is_nan()), "{label}: {y:?}");
                                assert!(g.iter().all(|g| g.is_nan()), "{label}: {g:?}");
                            }
                            n => {
                                let sum: f64 = y.iter().sum();
                                assert!((sum - 2.0).abs() < 0.02, "{label}: {sum}");
                                assert!(g.iter().all(|g| g.is_finite()), "{label}: {g:?}");
                                for k in 0..len {
                                    let masked = (n == 0 && k % 2 == 0) || (n == 1 && k >= 2);
                                    assert!(!masked || (y[k] == 0.0 && g[k] == 0.0), "{label} {k}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn fewer_classes_than_draws_are_nan_at_any_temperature() {
    // At a high temperature an iteration leaves something of every class, so that two of them would last for three draws.
    for (device, dtype) in devices()
        .into_iter()
        .flat_map(|d| FLOATS.map(|t| (d.clone(), t)))
    {
        for (len, inner, left) in [(5, 1, 2), (40, 1, 3), (9, 4, 5)] {
            let mut v = data::normals(2 * len * inner, 6, 1.0);
            (left * inner..len * inner).for_each(|i| v[i] = f64::NEG_INFINITY);
            let x = data::tensor(&v, (2, len, inner), dtype, &device);
            let w = data::random(x.shape(), 99, 1.0, dtype, &device);
            for tau in [0.01, 1.0, 20.0] {
                for hard in [false, true] {
                    let x = Var::from_tensor(&x).unwrap();
                    let t = vec![tau; 2 * inner];
                    let t = data::tensor(&t, (2, 1, inner), dtype, &device);
                    let t = Var::from_tensor(&t).unwrap();
                    let y = if hard {
                        gumbel_top_k_st(&x, left + 1, &t, 1, KEY).unwrap()
                    } else {
                        relaxed_top_k(&x, left + 1, &t, 1, KEY).unwrap()
                    };
                    let grads = (&y * &w).unwrap().sum_all().unwrap().backward().unwrap();
                    let label = format!("{dtype:?} {len} {inner} tau {tau} hard {hard}");
                    for part in [&y, grads.get(&x).unwrap(), grads.get(&t).unwrap()] {
                        let part = data::values(part);
                        let (broken, proper) = part.split_at(part.len() / 2);
                        assert!(broken.iter().all(|v| v.is_nan()), "{label}: {broken:?}");
                        assert!(proper.iter().all(|v| v.is_finite()), "{label}: {proper:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn entries_sum_up_to_k() {
    for dtype in [DType::F32, DType::F64] {
        let x = data::random((40, 64), 3, 3.0, dtype, &Device::Cpu);
        for tau in [0.05, 0.5, 3.0] {
            for k in [1, 6, 30] {
                let y = data::values(&relaxed_top_k(&x, k, tau, 1, KEY).unwrap());
                for row in y.chunks(64) {
                    let sum: f64 = row.iter().sum();
                    assert!((sum - k as f64).abs() < 1e-5 * k as f64, "{sum} {k}");
                    assert!(row.iter().all(|y| *y >= 0.0));
                }
            }
        }
    }
}

#[test]
fn bad_arguments_are_refused_by_name() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    type F = fn(&Tensor, usize, f64, usize, Key) -> Result<Tensor>;
    let ops: [(&str, F); 2] = [
        ("relaxed_top_k", |x, k, tau, dim, key| {
            relaxed_top_k(x, k, tau, dim, key)
        }),
        ("gumbel_top_k_st", |x, k, tau, dim, key| {
            gumbel_top_k_st(x, k, tau, dim, key)
        }),
    ];
    for (name, f) in ops {
        refused(f(&x, 0, 1.0, 1, KEY), name, &["k is 0", "4"]);
        refused(f(&x, 5, 1.0, 1, KEY), name, &["k is 5", "4"]);
        refused(f(&x, 2, 0.0, 1, KEY), name, &["tau", "0"]);
        refused(f(&x, 2, f64::NAN, 1, KEY), name, &["tau", "NaN"]);
        refused(f(&x, 2, 1.0, 2, KEY), name, &["2"]);
        refused(
            f(&x, 2, 1.0, 1, Key::new(1, 1 << 63)),
            name,
            &["stream", "2^63"],
        );
        let ints = Tensor::zeros((3, 4), DType::U32, &Device::Cpu).unwrap();
        refused(f(&ints, 2, 1.0, 1, KEY), name, &["U32"]);
        let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
        refused(f(&empty, 1, 1.0, 1, KEY), name, &["empty"]);
        let none = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(f(&none, 2, 1.0, 1, KEY).unwrap().dims(), [0, 4]);
    }
}
