//! `tempered_softmax` and `tempered_log_softmax`. Tests that hold for every relaxed op stand in `gumbel_softmax`.

use candle_core::{DType, Device, Tensor, Var};
use candle_reparam::{Key, tempered_log_softmax, tempered_softmax};

use crate::gumbel_softmax::{INNER, LENGTHS, SHAPES};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::oracle::{self, Rows};
use crate::support::relaxed::{GradientCase, Op, check_composed, check_forward, check_gradients};
use crate::support::{gradcheck, layouts};

const OPS: [Op; 2] = [Op::Tempered, Op::TemperedLog];
const NO_KEY: Key = Key::new(0, 0);

fn base(dtype: DType) -> f64 {
    if dtype == DType::F64 { 2e-14 } else { 2e-6 }
}

#[test]
fn values_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    for (seed, tau, scale) in [(1, 1.0, 1.0), (2, 0.4, 5.0), (3, 3.7, 20.0)] {
                        let x = data::random(shape, seed, scale, dtype, &device);
                        for op in OPS {
                            check_forward(op, &x, tau, dim, NO_KEY, base(dtype));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn values_for_every_row_length_and_inner_size() {
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
                    let x = data::random(
                        (outer, len, inner),
                        (len + inner) as u64,
                        3.0,
                        dtype,
                        &device,
                    );
                    for op in OPS {
                        check_forward(op, &x, 0.8, 1, NO_KEY, base(dtype));
                    }
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in SHAPES
            .into_iter()
            .chain([&[5, 300, 7][..], &[3, 4100], &[4, 33, 18]])
        {
            for dtype in FLOATS {
                let x = data::random(shape, 4, 3.0, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        for op in OPS {
                            let got = op.apply(&view, 0.7, dim, NO_KEY).unwrap();
                            let want = op.apply(&copy, 0.7, dim, NO_KEY).unwrap();
                            data::assert_same(&got, &want, || {
                                format!("{op:?} {shape:?} {dtype:?} {name} dim {dim}")
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    for device in devices() {
        for (shape, dim) in [
            (&[7][..], 0),
            (&[5, 12], 1),
            (&[12, 5], 0),
            (&[3, 10, 4], 1),
            (&[2, 3, 17, 2], 2),
            (&[2, 64], 1),
        ] {
            for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 4e-6)] {
                for (tau, scale) in [(1.0, 1.0), (0.5, 4.0), (3.0, 1.0)] {
                    for op in OPS {
                        check_gradients(&GradientCase {
                            op,
                            x: &data::random(shape, 12, scale, dtype, &device),
                            tau: &data::tensor(&[tau], (), dtype, &device),
                            dim,
                            key: NO_KEY,
                            tolerance,
                            central: true,
                        });
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
                for op in OPS {
                    check_gradients(&GradientCase {
                        op,
                        x: &data::random((outer, len, inner), len as u64, 2.0, DType::F32, &device),
                        tau: &data::tensor(&[0.75], 1, DType::F32, &device),
                        dim: 1,
                        key: NO_KEY,
                        tolerance: 4e-6,
                        central: false,
                    });
                }
            }
        }
    }
}

#[test]
fn gradients_match_the_composed_expression() {
    for device in devices() {
        for (shape, dim) in [(&[6, 10][..], 1), (&[10, 6], 0), (&[3, 16, 5], 1)] {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                let x = data::random(shape, 22, 2.0, dtype, &device);
                for op in OPS {
                    check_composed(op, &x, 0.6, dim, NO_KEY, tolerance);
                }
            }
        }
    }
}

#[test]
fn half_precision_gradients() {
    for device in devices() {
        for (dtype, tolerance) in [(DType::F16, 4e-3), (DType::BF16, 3e-2)] {
            for op in OPS {
                for (shape, dim, tau) in [
                    (&[9, 10][..], 1, [9, 1]),
                    (&[10, 9], 0, [1, 9]),
                    (&[5, 33], 1, [5, 1]),
                ] {
                    check_gradients(&GradientCase {
                        op,
                        x: &data::random(shape, 2, 0.7, dtype, &device),
                        tau: &data::tensor(&vec![1.5; tau[0] * tau[1]], &tau[..], dtype, &device),
                        dim,
                        key: NO_KEY,
                        tolerance,
                        central: false,
                    });
                }
            }
        }
    }
}

#[test]
fn gradient_to_a_temperature_of_every_shape() {
    for device in devices() {
        let shapes: [&[usize]; 9] = [
            &[],
            &[1],
            &[1, 1, 1],
            &[3, 1, 1],
            &[3, 1, 4],
            &[1, 1, 4],
            &[1, 4],
            &[4],
            &[1, 1],
        ];
        for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 5e-6)] {
            for tau_shape in shapes {
                let n: usize = tau_shape.iter().product();
                let values: Vec<f64> = (0..n).map(|i| 0.4 + 0.15 * i as f64).collect();
                for op in OPS {
                    check_gradients(&GradientCase {
                        op,
                        x: &data::random((3, 6, 4), 43, 2.0, dtype, &device),
                        tau: &data::tensor(&values, tau_shape, dtype, &device),
                        dim: 1,
                        key: NO_KEY,
                        tolerance,
                        central: true,
                    });
                }
            }
        }
    }
}

#[test]
fn shifting_a_row_changes_nothing() {
    // quarters below 64, shifted by a multiple of them: every sum is exact, so the bits must stay
    let device = Device::Cpu;
    let v: Vec<f64> = data::normals(12 * 65, 1, 8.0)
        .into_iter()
        .map(|v| (v * 4.0).round() / 4.0)
        .collect();
    let x = data::tensor(&v, (12, 65), DType::F32, &device);
    let shifted = (&x + 256.0).unwrap();
    for op in OPS {
        let (a, b) = (
            op.apply(&x, 0.5, 1, NO_KEY).unwrap(),
            op.apply(&shifted, 0.5, 1, NO_KEY).unwrap(),
        );
        data::assert_same(&a, &b, || format!("{op:?}"));
    }
}

#[test]
fn rows_sum_to_one_and_logs_exponentiate_to_them() {
    for len in [2, 10, 33, 4097] {
        let x = data::random((9, len), 4, 3.0, DType::F32, &Device::Cpu);
        let (y, l) = (
            tempered_softmax(&x, 0.6, 1).unwrap(),
            tempered_log_softmax(&x, 0.6, 1).unwrap(),
        );
        let (y, l) = (data::values(&y), data::values(&l));
        for (y, l) in y.chunks(len).zip(l.chunks(len)) {
            assert!((oracle::sum(y.iter().copied()) - 1.0).abs() < 1e-5);
            for (y, l) in y.iter().zip(l) {
                assert!((l.exp() - y).abs() <= 1e-6 * y.max(1e-3), "{y:e} {l}");
                assert!(*l <= 1e-6);
            }
        }
    }
}

#[test]
fn a_log_keeps_digits_where_the_softmax_underflows() {
    let x = data::tensor(&[0.0, -300.0, -20.0], (1, 3), DType::F32, &Device::Cpu);
    let y = data::values(&tempered_softmax(&x, 0.5, 1).unwrap());
    let l = data::values(&tempered_log_softmax(&x, 0.5, 1).unwrap());
    assert_eq!(y[1], 0.0);
    assert!(
        (l[1] + 600.0).abs() < 1e-4 && (l[2] + 40.0).abs() < 1e-5,
        "{l:?}"
    );
}

#[test]
fn a_masked_log_is_minus_infinity_and_its_gradient_harms_no_other() {
    let ninf = f64::NEG_INFINITY;
    for dtype in FLOATS {
        let v = [0.5, ninf, -1.0, 2.0, 1.0, 0.0, ninf, ninf];
        let x = data::tensor(&v, (2, 4), dtype, &Device::Cpu);
        check_forward_masked(&x, dtype);
        // the loss reads the classes that are left
        let w = data::tensor(
            &[1.0, 0.0, 2.0, -0.5, 0.25, 1.5, 0.0, 0.0],
            (2, 4),
            dtype,
            &Device::Cpu,
        );
        let var = Var::from_tensor(&x).unwrap();
        let tau = Var::from_tensor(&data::tensor(&[0.5], (), dtype, &Device::Cpu)).unwrap();
        let l = tempered_log_softmax(var.as_tensor(), tau.as_tensor(), 1).unwrap();
        let kept = x
            .ge(-1e4)
            .unwrap()
            .where_cond(&l, &l.zeros_like().unwrap())
            .unwrap();
        let store = (kept * &w).unwrap().sum_all().unwrap().backward().unwrap();
        let got = data::values(store.get(var.as_tensor()).unwrap());
        let rows = Rows::of(&x, 1);
        let want = gradcheck::closed_rows(
            oracle::Kind::LogSoftmax,
            &v,
            &[0.5; 2],
            &data::values(&w),
            &rows,
        );
        let tolerance = match dtype {
            DType::F64 => 1e-12,
            DType::F32 => 2e-6,
            DType::F16 => 5e-3,
            _ => 4e-2,
        };
        gradcheck::compare(&got, &want.dz, &rows, tolerance, 1e-6)
            .unwrap_or_else(|e| panic!("{dtype:?}: {e}"));
        for i in [1, 6, 7] {
            assert_eq!(got[i], 0.0, "{dtype:?} {i}");
        }
        let t = data::values(store.get(tau.as_tensor()).unwrap())[0];
        let (sum, terms) = (
            want.dtau[0] + want.dtau[1],
            want.tau_terms[0] + want.tau_terms[1],
        );
        assert!(
            (t - sum).abs() <= 2.0 * tolerance * terms,
            "{dtype:?}: {t}, not {sum}"
        );
    }
}

fn check_forward_masked(x: &Tensor, dtype: DType) {
    let l = data::values(&tempered_log_softmax(x, 0.5, 1).unwrap());
    for (i, v) in data::values(x).into_iter().enumerate() {
        assert_eq!(
            l[i] == f64::NEG_INFINITY,
            v == f64::NEG_INFINITY,
            "{dtype:?}: {l:?}"
        );
        assert!(!l[i].is_nan());
    }
}

#[test]
fn negative_dims_and_named_dims() {
    use candle_core::D;
    let x = data::random((4, 5, 6), 6, 1.0, DType::F32, &Device::Cpu);
    let a = tempered_softmax(&x, 1.0, D::Minus1).unwrap();
    assert_eq!(
        data::bits(&a),
        data::bits(&tempered_softmax(&x, 1.0, 2).unwrap())
    );
    let a = tempered_log_softmax(&x, 1.0, D::Minus(3)).unwrap();
    assert_eq!(
        data::bits(&a),
        data::bits(&tempered_log_softmax(&x, 1.0, 0).unwrap())
    );
}

#[test]
fn temperatures_that_f32_cannot_hold() {
    // valid as f64: either the right limit or a refusal that names the value, never NaN
    let x = data::tensor(&[1.0, 3.0, -2.0, 3.5], (1, 4), DType::F32, &Device::Cpu);
    for (tau, limit) in [
        (5e-324, [0.0, 0.0, 0.0, 1.0]),
        (1e-300, [0.0, 0.0, 0.0, 1.0]),
        (1e-40, [0.0, 0.0, 0.0, 1.0]),
        (1e300, [0.25; 4]),
    ] {
        match tempered_softmax(&x, tau, 1) {
            Ok(y) => assert_eq!(data::values(&y), limit, "tau {tau:e}"),
            Err(e) => {
                let message = e.to_string();
                let shown = [format!("{tau}"), format!("{tau:?}"), format!("{tau:e}")];
                assert!(
                    message.contains("tempered_softmax")
                        && shown.iter().any(|s| message.contains(s)),
                    "{message}"
                );
            }
        }
    }
}
