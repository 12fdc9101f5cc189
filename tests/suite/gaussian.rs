//! `gaussian` and `gaussian_kl`.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{Key, gaussian, gaussian_kl, normal};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::gradcheck::{self, central};
use crate::support::layouts;
use crate::support::oracle::{self, Rows};
use crate::support::statistics::{ks, mean, variance};

/// Relative error of a value computed in the dtype the crate computes in.
fn base(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-14 } else { 1e-6 }
}

fn rounding(dtype: DType, value: f64) -> f64 {
    if matches!(dtype, DType::F16 | DType::BF16) {
        data::half_ulp(dtype, value) * 1.001
    } else {
        0.0
    }
}

/// Standard normals of the key, in the dtype the crate computes in.
fn noise(x: &Tensor, key: Key) -> Vec<f64> {
    data::values(&normal(x.shape(), data::compute(x.dtype()), x.device(), key).unwrap())
}

#[track_caller]
fn check_forward(mean: &Tensor, log_var: &Tensor, key: Key) {
    let got = gaussian(mean, log_var, key).unwrap();
    assert_eq!((got.dims(), got.dtype()), (mean.dims(), mean.dtype()));
    assert!(got.is_contiguous());
    let (got, m, l, eps) = (
        data::values(&got),
        data::values(mean),
        data::values(log_var),
        noise(mean, key),
    );
    for i in 0..got.len() {
        let spread = (l[i] / 2.0).exp() * eps[i];
        let want = m[i] + spread;
        let allowed =
            base(mean.dtype()) * (m[i].abs() + spread.abs()) + rounding(mean.dtype(), want);
        assert!(
            (got[i] - want).abs() <= allowed,
            "{:?} {:?} {i}: {:e}, not {want:e}",
            mean.dims(),
            mean.dtype(),
            got[i]
        );
    }
}

#[test]
fn samples_are_mean_plus_deviation_times_noise() {
    for device in devices() {
        for dtype in FLOATS {
            for shape in SHAPES {
                let (m, l) = (
                    data::random(shape, 1, 2.0, dtype, &device),
                    data::random(shape, 2, 1.5, dtype, &device),
                );
                check_forward(&m, &l, Key::new(4, 4));
            }
            for n in (1..40).chain([255, 257, 4095, 4097, 100_003]) {
                let (m, l) = (
                    data::random(n, 3, 1.0, dtype, &device),
                    data::random(n, 4, 3.0, dtype, &device),
                );
                check_forward(&m, &l, Key::new(5, n as u64));
            }
        }
    }
}

#[test]
fn every_pair_of_layouts_gives_the_bits_of_the_contiguous_copies() {
    let key = Key::new(2, 6);
    for device in devices() {
        for shape in [&[9][..], &[5, 12], &[3, 4, 5], &[2, 1, 3, 4], &[40, 300]] {
            for dtype in FLOATS {
                let (m, l) = (
                    data::random(shape, 1, 1.0, dtype, &device),
                    data::random(shape, 2, 1.0, dtype, &device),
                );
                for (m_name, mv) in layouts::variants(&m) {
                    for (l_name, lv) in layouts::variants(&l) {
                        let got = gaussian(&mv, &lv, key).unwrap();
                        let want = gaussian(
                            &mv.force_contiguous().unwrap(),
                            &lv.force_contiguous().unwrap(),
                            key,
                        )
                        .unwrap();
                        data::assert_same(&got, &want, || {
                            format!("{shape:?} {dtype:?} {m_name} {l_name}")
                        });
                        for dim in 0..shape.len() {
                            let got = gaussian_kl(&mv, &lv, dim).unwrap();
                            let want = gaussian_kl(
                                &mv.force_contiguous().unwrap(),
                                &lv.force_contiguous().unwrap(),
                                dim,
                            )
                            .unwrap();
                            data::assert_same(&got, &want, || {
                                format!("kl {shape:?} {dtype:?} {m_name} {l_name} {dim}")
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_sample_has_the_distribution() {
    let n = 400_000;
    let m = Tensor::full(-1.5_f32, n, &Device::Cpu).unwrap();
    let l = Tensor::full(4.0_f32.ln(), n, &Device::Cpu).unwrap();
    let z = data::values(&gaussian(&m, &l, Key::new(1, 1)).unwrap());
    assert!((mean(&z) + 1.5).abs() < 4.5 * 2.0 / (n as f64).sqrt());
    assert!((variance(&z) - 4.0).abs() < 4.5 * 4.0 * (2.0 / n as f64).sqrt());
    let p = ks(z, |z| oracle::normal_cdf((z + 1.5) / 2.0));
    assert!(p > 1e-4, "{p:e}");
}

#[test]
fn a_zero_variance_gives_the_mean_and_no_gradient_to_it() {
    for dtype in FLOATS {
        let m = data::random(50, 1, 1.0, dtype, &Device::Cpu);
        let l = data::tensor(&[f64::NEG_INFINITY; 50], 50, dtype, &Device::Cpu);
        assert_eq!(
            data::values(&gaussian(&m, &l, Key::new(1, 1)).unwrap()),
            data::values(&m),
            "{dtype:?}"
        );
        let (gm, gl) = gradients(
            &m,
            &l,
            |m, l| gaussian(m, l, Key::new(1, 1)),
            &m.ones_like().unwrap(),
        );
        assert!(
            data::values(&gm).iter().all(|g| *g == 1.0)
                && data::values(&gl).iter().all(|g| *g == 0.0)
        );
    }
}

#[test]
fn a_broken_element_stays_alone() {
    let mut m = data::normals(100, 1, 1.0);
    let l = data::random(100, 2, 1.0, DType::F32, &Device::Cpu);
    let clean = gaussian(
        &data::tensor(&m, 100, DType::F32, &Device::Cpu),
        &l,
        Key::new(1, 1),
    )
    .unwrap();
    m[37] = f64::NAN;
    let got = data::bits(
        &gaussian(
            &data::tensor(&m, 100, DType::F32, &Device::Cpu),
            &l,
            Key::new(1, 1),
        )
        .unwrap(),
    );
    for (i, (a, b)) in got.iter().zip(data::bits(&clean)).enumerate() {
        assert_eq!(*a == b, i != 37);
    }
    assert!(f32::from_bits(got[37] as u32).is_nan());
}

fn gradients(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    w: &Tensor,
) -> (Tensor, Tensor) {
    let (a, b) = (Var::from_tensor(a).unwrap(), Var::from_tensor(b).unwrap());
    let loss = (f(a.as_tensor(), b.as_tensor()).unwrap() * w)
        .unwrap()
        .sum_all()
        .unwrap();
    let store = loss.backward().unwrap();
    (
        store.get(a.as_tensor()).unwrap().clone(),
        store.get(b.as_tensor()).unwrap().clone(),
    )
}

/// Every element is a row of its own here, so each is compared relative to itself; `floor` is where that ends.
fn elementwise(got: &Tensor, want: &[f64], tolerance: f64, label: &str) {
    let rows = Rows {
        outer: want.len(),
        len: 1,
        inner: 1,
    };
    gradcheck::compare(&data::values(got), want, &rows, tolerance, 1e-3)
        .unwrap_or_else(|e| panic!("{label}: {e}"));
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-9,
        DType::F32 => 2e-6,
        DType::F16 => 2e-3,
        _ => 1e-2,
    }
}

#[test]
fn gradients_match_central_differences() {
    for device in devices() {
        for dtype in FLOATS {
            for shape in [&[40][..], &[9, 12], &[3, 17, 5], &[4099]] {
                let (m, l) = (
                    data::random(shape, 1, 1.0, dtype, &device),
                    data::random(shape, 2, 1.0, dtype, &device),
                );
                let w = data::random(shape, 3, 1.0, dtype, &device);
                let key = Key::new(3, 3);
                let (gm, gl) = gradients(&m, &l, |m, l| gaussian(m, l, key), &w);
                assert_eq!(
                    (gm.dims(), gm.dtype(), gl.dims(), gl.dtype()),
                    (shape, dtype, shape, dtype)
                );
                let (l, w, eps) = (data::values(&l), data::values(&w), noise(&m, key));
                assert_eq!(
                    data::values(&gm),
                    w,
                    "the gradient to the mean is the upstream gradient"
                );
                let want: Vec<f64> = (0..w.len())
                    .map(|i| central(1e-3, |d| w[i] * ((l[i] + d) / 2.0).exp() * eps[i]))
                    .collect();
                elementwise(
                    &gl,
                    &want,
                    tolerance(dtype),
                    &format!("{shape:?} {dtype:?}"),
                );
            }
        }
    }
}

fn composed(m: &Tensor, l: &Tensor, key: Key) -> Result<Tensor> {
    let eps = normal(m.shape(), m.dtype(), m.device(), key)?;
    m + ((l / 2.0)?.exp()? * eps)?
}

fn composed_kl(m: &Tensor, l: &Tensor, dim: usize) -> Result<Tensor> {
    (((m.sqr()? + l.exp()?)? - l)? - 1.0)?.sum(dim)? / 2.0
}

#[test]
fn gradients_match_the_composed_expressions() {
    let device = Device::Cpu;
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        let (m, l) = (
            data::random((6, 15), 1, 1.0, dtype, &device),
            data::random((6, 15), 2, 1.0, dtype, &device),
        );
        let w = data::random((6, 15), 3, 1.0, dtype, &device);
        let key = Key::new(9, 0);
        let got = gradients(&m, &l, |m, l| gaussian(m, l, key), &w);
        let want = gradients(&m, &l, |m, l| composed(m, l, key), &w);
        elementwise(&got.0, &data::values(&want.0), tolerance, "mean");
        elementwise(&got.1, &data::values(&want.1), tolerance, "log_var");
        for dim in 0..2 {
            let w = data::random(if dim == 0 { 15 } else { 6 }, 4, 1.0, dtype, &device);
            let got = gradients(&m, &l, |m, l| gaussian_kl(m, l, dim), &w);
            let want = gradients(&m, &l, |m, l| composed_kl(m, l, dim), &w);
            elementwise(&got.0, &data::values(&want.0), tolerance, "kl mean");
            // the composed gradient (exp(l) - 1) / 2 cancels near 0, in candle: allow its own error
            elementwise(
                &got.1,
                &data::values(&want.1),
                tolerance.max(1e-12) * 50.0,
                "kl log_var",
            );
        }
    }
}

#[test]
fn backward_twice_and_partial_tracking() {
    let (m, l) = (
        data::random((5, 6), 1, 1.0, DType::F32, &Device::Cpu),
        data::random((5, 6), 2, 1.0, DType::F32, &Device::Cpu),
    );
    let (mv, lv) = (Var::from_tensor(&m).unwrap(), Var::from_tensor(&l).unwrap());
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let ops: [(&str, Op); 2] = [
        ("gaussian", |m, l| gaussian(m, l, Key::new(1, 2))),
        ("gaussian_kl", |m, l| gaussian_kl(m, l, 1)),
    ];
    for (name, op) in ops {
        let loss = op(mv.as_tensor(), lv.as_tensor())
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap();
        let (a, b) = (loss.backward().unwrap(), loss.backward().unwrap());
        for v in [&mv, &lv] {
            assert_eq!(
                data::bits(a.get(v.as_tensor()).unwrap()),
                data::bits(b.get(v.as_tensor()).unwrap()),
                "{name}"
            );
        }
        let only_m = op(mv.as_tensor(), &l)
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert_eq!(
            data::bits(only_m.get(mv.as_tensor()).unwrap()),
            data::bits(a.get(mv.as_tensor()).unwrap()),
            "{name}"
        );
        assert!(only_m.get(&l).is_none(), "{name}");
        let only_l = op(&m, lv.as_tensor())
            .unwrap()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert_eq!(
            data::bits(only_l.get(lv.as_tensor()).unwrap()),
            data::bits(a.get(lv.as_tensor()).unwrap()),
            "{name}"
        );
        assert!(only_l.get(&m).is_none(), "{name}");
        assert!(!op(&m, &l).unwrap().track_op(), "{name}");
    }
}

#[test]
fn gradients_flow_through_views_and_one_variable_for_both() {
    let device = Device::Cpu;
    let key = Key::new(2, 1);
    let a = data::random((7, 4), 1, 0.8, DType::F64, &device);
    let b = data::random((1, 7), 2, 0.8, DType::F64, &device);
    let w = data::random((4, 7), 3, 1.0, DType::F64, &device);
    let views = |m: &Tensor, l: &Tensor| -> Result<(Tensor, Tensor)> {
        Ok(((m.t()? * 2.0)?, l.broadcast_as((4, 7))?))
    };
    let got = gradients(
        &a,
        &b,
        |m, l| views(m, l).and_then(|(m, l)| gaussian(&m, &l, key)),
        &w,
    );
    let want = gradients(
        &a,
        &b,
        |m, l| views(m, l).and_then(|(m, l)| composed(&m, &l, key)),
        &w,
    );
    elementwise(&got.0, &data::values(&want.0), 1e-12, "mean");
    elementwise(&got.1, &data::values(&want.1), 1e-11, "log_var");
    let row = w.narrow(1, 0, 1).unwrap().flatten_all().unwrap();
    let got = gradients(
        &a,
        &b,
        |m, l| views(m, l).and_then(|(m, l)| gaussian_kl(&m, &l, 1)),
        &row,
    );
    let want = gradients(
        &a,
        &b,
        |m, l| views(m, l).and_then(|(m, l)| composed_kl(&m, &l, 1)),
        &row,
    );
    elementwise(&got.0, &data::values(&want.0), 1e-12, "kl mean");
    elementwise(&got.1, &data::values(&want.1), 1e-11, "kl log_var");

    let v = Var::from_tensor(&data::random((4, 7), 5, 0.5, DType::F64, &device)).unwrap();
    let grad = |y: Result<Tensor>| {
        let store = (y.unwrap() * &w)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        store.get(v.as_tensor()).unwrap().clone()
    };
    let (got, want) = (
        grad(gaussian(v.as_tensor(), v.as_tensor(), key)),
        grad(composed(v.as_tensor(), v.as_tensor(), key)),
    );
    elementwise(&got, &data::values(&want), 1e-11, "one variable");
}

// ---- the KL divergence

/// Terms of one row and the sum of their parts' magnitudes.
fn kl(m: &[f64], l: &[f64]) -> (f64, f64) {
    let total = oracle::sum(
        m.iter()
            .zip(l)
            .map(|(m, l)| 0.5 * (m * m + (l.exp_m1() - l))),
    );
    let parts = oracle::sum(
        m.iter()
            .zip(l)
            .map(|(m, l)| 0.5 * (m * m + l.exp_m1().abs() + l.abs())),
    );
    (total, parts)
}

#[track_caller]
fn check_kl(m: &Tensor, l: &Tensor, dim: usize) {
    let got = gaussian_kl(m, l, dim).unwrap();
    let mut dims = m.dims().to_vec();
    dims.remove(dim);
    assert_eq!((got.dims(), got.dtype()), (&dims[..], m.dtype()));
    let rows = Rows::of(m, dim);
    let (got, mv, lv) = (data::values(&got), data::values(m), data::values(l));
    for row in 0..rows.count() {
        let (want, parts) = kl(&rows.row(&mv, row), &rows.row(&lv, row));
        let allowed = base(m.dtype()) * parts + rounding(m.dtype(), want);
        assert!(
            (got[row] - want).abs() <= allowed,
            "{:?} {:?} dim {dim} row {row}: {:e}, not {want:e} (allowed {allowed:e})",
            m.dims(),
            m.dtype(),
            got[row]
        );
    }
}

#[test]
fn the_divergence_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    let (m, l) = (
                        data::random(shape, 1, 1.0, dtype, &device),
                        data::random(shape, 2, 1.5, dtype, &device),
                    );
                    check_kl(&m, &l, dim);
                }
            }
        }
        for len in LENGTHS {
            for inner in INNER {
                let outer = (6000 / (len * inner)).clamp(1, 40);
                let dtypes: &[DType] = if len * inner > 300_000 {
                    &FLOATS[..1]
                } else {
                    &FLOATS
                };
                for &dtype in dtypes {
                    if dtype == DType::F16 && len > 30_000 {
                        continue; // the sum leaves the range of f16
                    }
                    let shape = (outer, len, inner);
                    check_kl(
                        &data::random(shape, 5, 1.0, dtype, &device),
                        &data::random(shape, 6, 1.0, dtype, &device),
                        1,
                    );
                }
            }
        }
    }
}

#[test]
fn the_divergence_near_the_prior_keeps_its_digits() {
    // log_var near 0: expm1(l) - l is about l^2 / 2, and exp(l) - 1 - l in f32 would be noise of either sign
    for dtype in [DType::F32, DType::F64] {
        let l = data::random((40, 8), 2, 1e-3, dtype, &Device::Cpu);
        let m = l.zeros_like().unwrap();
        let got = data::values(&gaussian_kl(&m, &l, 1).unwrap());
        let lv = data::values(&l);
        for (row, got) in got.iter().enumerate() {
            let (want, _) = kl(&[0.0; 8], &lv[row * 8..][..8]);
            assert!(
                *got >= 0.0 && (got - want).abs() <= 0.05 * want,
                "{dtype:?} row {row}: {got:e}, not {want:e}"
            );
        }
    }
    let zero = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        data::values(&gaussian_kl(&zero, &zero, 1).unwrap()),
        [0.0; 3]
    );
}

#[test]
fn gradients_of_the_divergence_match_central_differences() {
    for device in devices() {
        for dtype in FLOATS {
            for (shape, dim) in [
                (&[40][..], 0),
                (&[9, 12], 1),
                (&[9, 12], 0),
                (&[3, 17, 5], 1),
                (&[2, 4099], 1),
                (&[2, 300, 17], 1),
            ] {
                let (m, l) = (
                    data::random(shape, 1, 1.0, dtype, &device),
                    data::random(shape, 2, 1.0, dtype, &device),
                );
                let mut dims = shape.to_vec();
                dims.remove(dim);
                let w = data::random(&dims[..], 3, 1.0, dtype, &device);
                let (gm, gl) = gradients(&m, &l, |m, l| gaussian_kl(m, l, dim), &w);
                assert_eq!(
                    (gm.dims(), gm.dtype(), gl.dims(), gl.dtype()),
                    (shape, dtype, shape, dtype)
                );
                let rows = Rows::of(&m, dim);
                let (m, l, w) = (data::values(&m), data::values(&l), data::values(&w));
                let (mut want_m, mut want_l) = (vec![0.0; m.len()], vec![0.0; m.len()]);
                for row in 0..rows.count() {
                    for k in 0..rows.len {
                        let i = rows.at(row, k);
                        // the other terms are constants
                        want_m[i] = central(1e-3, |d| w[row] * kl(&[m[i] + d], &[l[i]]).0);
                        want_l[i] = central(1e-3, |d| w[row] * kl(&[m[i]], &[l[i] + d]).0);
                    }
                }
                let label = format!("{shape:?} {dtype:?} dim {dim}");
                elementwise(&gm, &want_m, tolerance(dtype), &format!("{label} mean"));
                elementwise(&gl, &want_l, tolerance(dtype), &format!("{label} log_var"));
            }
        }
    }
}

#[test]
fn the_divergence_is_what_samples_say() {
    // KL = E[log q(z) - log p(z)] under q, by the op's own samples
    let n = 400_000;
    let (m, l) = (0.7_f64, -0.8_f64);
    let mean_t = Tensor::full(m as f32, n, &Device::Cpu).unwrap();
    let log_var_t = Tensor::full(l as f32, n, &Device::Cpu).unwrap();
    let z = data::values(&gaussian(&mean_t, &log_var_t, Key::new(6, 1)).unwrap());
    let gap: Vec<f64> = z
        .iter()
        .map(|z| 0.5 * (z * z - (z - m).powi(2) / l.exp() - l))
        .collect();
    let one = gaussian_kl(
        &mean_t.narrow(0, 0, 1).unwrap(),
        &log_var_t.narrow(0, 0, 1).unwrap(),
        0,
    )
    .unwrap();
    let want = data::values(&one)[0];
    assert!(
        (mean(&gap) - want).abs() < 4.5 * (variance(&gap) / n as f64).sqrt(),
        "{} and {want}",
        mean(&gap)
    );
}

#[test]
fn a_broken_row_of_the_divergence_stays_alone() {
    for inner in [1, 5, 17] {
        let (outer, len) = (4, 9);
        let rows = Rows { outer, len, inner };
        let mut m = data::normals(outer * len * inner, 1, 1.0);
        m[rows.at(2, 3)] = f64::NAN;
        let l = data::random((outer, len, inner), 2, 1.0, DType::F32, &Device::Cpu);
        let got = data::values(
            &gaussian_kl(
                &data::tensor(&m, (outer, len, inner), DType::F32, &Device::Cpu),
                &l,
                1,
            )
            .unwrap(),
        );
        for (row, v) in got.iter().enumerate() {
            assert_eq!(v.is_nan(), row == 2, "inner {inner} row {row}");
        }
    }
}

#[test]
fn zero_elements() {
    for dtype in FLOATS {
        let x = Tensor::zeros((0, 4), dtype, &Device::Cpu).unwrap();
        let z = gaussian(&x, &x, Key::new(1, 1)).unwrap();
        assert_eq!((z.dims(), z.dtype()), (&[0, 4][..], dtype));
        let k = gaussian_kl(&x, &x, 1).unwrap();
        assert_eq!((k.dims(), k.dtype()), (&[0][..], dtype));
    }
}
