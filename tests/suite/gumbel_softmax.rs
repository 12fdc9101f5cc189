//! `gumbel_softmax` and `gumbel_softmax_st`.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::ops;
use candle_reparam::{
    Key, gumbel, gumbel_max, gumbel_softmax, gumbel_softmax_st, tempered_softmax,
};

use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::layouts;
use crate::support::oracle::{self, Rows};
use crate::support::relaxed::{
    GradientCase, Op, check_composed, check_forward, check_gradients, gradients, weights,
};

/// How far a relaxed sample may be from double precision, relative to the row's largest value.
fn base(dtype: DType) -> f64 {
    if dtype == DType::F64 { 2e-14 } else { 2e-6 }
}

/// Shapes of every rank; the row length stays long enough for a gradient to say something.
pub const SHAPES: [&[usize]; 9] = [
    &[7],
    &[3, 5],
    &[33, 10],
    &[2, 3, 4],
    &[4, 1, 9],
    &[2, 3, 4, 5],
    &[1, 8, 3, 3],
    &[2, 1, 3, 2, 5],
    &[2, 3, 1, 2, 2, 3],
];

/// Row lengths around every power of two that a lane, a tile or a piece may have.
pub const LENGTHS: [usize; 23] = [
    1, 2, 3, 7, 8, 10, 15, 16, 17, 31, 32, 33, 64, 255, 256, 257, 1000, 4095, 4096, 4097, 5000,
    9000, 40000,
];

pub const INNER: [usize; 7] = [1, 2, 3, 16, 17, 49, 300];

#[test]
fn identity_for_every_rank_dim_and_dtype() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    for (seed, tau, scale) in [(1, 1.0, 1.0), (2, 0.4, 5.0), (3, 3.7, 20.0)] {
                        let x = data::random(shape, seed, scale, dtype, &device);
                        check_forward(
                            Op::Gumbel,
                            &x,
                            tau,
                            dim,
                            Key::new(seed, dim as u64),
                            base(dtype),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn identity_for_every_row_length_and_inner_size() {
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
                    check_forward(Op::Gumbel, &x, 0.8, 1, Key::new(9, len as u64), base(dtype));
                }
            }
        }
    }
}

#[test]
fn identity_for_many_short_rows() {
    // enough rows for every thread to hold several, and a count that no tile divides
    for device in devices() {
        for len in [2, 3, 8, 10, 64, 100] {
            let x = data::random((10_007, len), len as u64, 2.0, DType::F32, &device);
            check_forward(Op::Gumbel, &x, 0.5, 1, Key::new(11, 5), base(DType::F32));
        }
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    let key = Key::new(21, 3);
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
                        for op in [Op::Gumbel, Op::StraightThrough] {
                            let got = op.apply(&view, 0.7, dim, key).unwrap();
                            let want = op.apply(&copy, 0.7, dim, key).unwrap();
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
fn a_leading_part_of_a_batch_gives_the_same_rows() {
    // element i of the tensor takes word i, so the first rows do not know how many follow
    for device in devices() {
        for len in [3, 10, 257, 4100] {
            let x = data::random((37, len), 5, 2.0, DType::F32, &device);
            let key = Key::new(2, 2);
            let whole = gumbel_softmax(&x, 0.9, 1, key).unwrap();
            for rows in [1, 2, 36] {
                let part = gumbel_softmax(&x.narrow(0, 0, rows).unwrap(), 0.9, 1, key).unwrap();
                assert_eq!(
                    data::bits(&part),
                    data::bits(&whole.narrow(0, 0, rows).unwrap()),
                    "{len} {rows}"
                );
            }
        }
    }
}

#[test]
fn one_call_is_one_sample_and_another_key_another() {
    let x = data::random((64, 10), 6, 1.0, DType::F32, &Device::Cpu);
    let a = gumbel_softmax(&x, 1.0, 1, Key::new(1, 1)).unwrap();
    assert_eq!(
        data::bits(&a),
        data::bits(&gumbel_softmax(&x, 1.0, 1, Key::new(1, 1)).unwrap())
    );
    for other in [Key::new(1, 2), Key::new(2, 1), Key::new(1, 1).fold_in(0)] {
        let b = data::bits(&gumbel_softmax(&x, 1.0, 1, other).unwrap());
        let same = data::bits(&a)
            .iter()
            .zip(&b)
            .filter(|(a, b)| a == b)
            .count();
        assert!(same < 8, "{other:?}: {same} of 640 equal");
    }
}

#[test]
fn a_negative_dim_counts_from_the_end() {
    use candle_core::D;
    let x = data::random((4, 5, 6), 6, 1.0, DType::F32, &Device::Cpu);
    let key = Key::new(1, 1);
    for (named, plain) in [(D::Minus1, 2), (D::Minus2, 1)] {
        assert_eq!(
            data::bits(&gumbel_softmax(&x, 1.0, named, key).unwrap()),
            data::bits(&gumbel_softmax(&x, 1.0, plain, key).unwrap()),
        );
    }
}

#[test]
fn straight_through_is_one_hot_at_the_index_of_gumbel_max() {
    let key = Key::new(31, 4);
    for device in devices() {
        for shape in SHAPES.into_iter().chain([&[6, 4097][..], &[3, 300, 17]]) {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    // a large temperature leaves ties in a half-precision softmax, but none in the scores
                    for tau in [0.5, 100.0] {
                        let x = data::random(shape, 8, 2.0, dtype, &device);
                        let rows = Rows::of(&x, dim);
                        let hot = gumbel_softmax_st(&x, tau, dim, key).unwrap();
                        assert_eq!((hot.dims(), hot.dtype()), (x.dims(), dtype));
                        let hot = data::values(&hot);
                        let picked = data::indices(&gumbel_max(&x, dim, key).unwrap());
                        let scores = data::values(&Op::StraightThrough.perturbed(&x, key));
                        for row in 0..rows.count() {
                            let best = oracle::argmax(&rows.row(&scores, row));
                            assert_eq!(picked[row], best);
                            for (k, v) in rows.row(&hot, row).into_iter().enumerate() {
                                assert_eq!(
                                    v,
                                    if k == best { 1.0 } else { 0.0 },
                                    "{shape:?} {dtype:?} row {row} entry {k}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

// ---- gradients

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
                    for op in [Op::Gumbel, Op::StraightThrough] {
                        check_gradients(&GradientCase {
                            op,
                            x: &data::random(shape, 12, scale, dtype, &device),
                            tau: &data::tensor(&[tau], (), dtype, &device),
                            dim,
                            key: Key::new(5, 6),
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
                for op in [Op::Gumbel, Op::StraightThrough] {
                    check_gradients(&GradientCase {
                        op,
                        x: &data::random((outer, len, inner), len as u64, 2.0, DType::F32, &device),
                        tau: &data::tensor(&[0.75], 1, DType::F32, &device),
                        dim: 1,
                        key: Key::new(15, inner as u64),
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
                for op in [Op::Gumbel, Op::StraightThrough] {
                    check_composed(op, &x, 0.6, dim, Key::new(77, 1), tolerance);
                }
            }
        }
    }
}

#[test]
fn half_precision_gradients() {
    // the relaxed op keeps y in the half type, which costs its digits once; a zero gradient is far outside
    for device in devices() {
        for (dtype, tolerance) in [(DType::F16, 4e-3), (DType::BF16, 3e-2)] {
            for op in [Op::Gumbel, Op::StraightThrough] {
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
                        key: Key::new(1, 9),
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
                for op in [Op::Gumbel, Op::StraightThrough] {
                    check_gradients(&GradientCase {
                        op,
                        x: &data::random((3, 6, 4), 41, 2.0, dtype, &device),
                        tau: &data::tensor(&values, tau_shape, dtype, &device),
                        dim: 1,
                        key: Key::new(3, 1),
                        tolerance,
                        central: true,
                    });
                }
            }
        }
    }
}

#[test]
fn a_temperature_per_row_gives_each_row_its_own() {
    let x = data::random((4, 9), 1, 2.0, DType::F32, &Device::Cpu);
    let tau = [0.25, 0.5, 1.0, 4.0];
    let key = Key::new(8, 8);
    let all = gumbel_softmax(
        &x,
        data::tensor(&tau, (4, 1), DType::F32, &Device::Cpu),
        1,
        key,
    )
    .unwrap();
    for (row, t) in tau.into_iter().enumerate() {
        // powers of two: their reciprocals are exact, so bits must agree
        let one = gumbel_softmax(&x, t, 1, key).unwrap();
        assert_eq!(
            data::bits(&all.get(row).unwrap()),
            data::bits(&one.get(row).unwrap())
        );
    }
    // and in any layout of the temperature
    let wide = data::tensor(
        &[0.25, 9.0, 0.5, 9.0, 1.0, 9.0, 4.0, 9.0],
        (4, 2),
        DType::F32,
        &Device::Cpu,
    );
    let view = wide.narrow(1, 0, 1).unwrap();
    assert_eq!(
        data::bits(&all),
        data::bits(&gumbel_softmax(&x, &view, 1, key).unwrap())
    );
}

#[test]
fn backward_twice_gives_the_same_gradient() {
    for op in Op::ALL {
        let x = Var::from_tensor(&data::random((5, 33), 1, 2.0, DType::F32, &Device::Cpu)).unwrap();
        let tau = Var::from_tensor(&data::tensor(&[0.7], (), DType::F32, &Device::Cpu)).unwrap();
        let w = weights(&[5, 33], 1, DType::F32, &Device::Cpu);
        let y = op
            .apply(x.as_tensor(), tau.as_tensor(), 1, Key::new(4, 4))
            .unwrap();
        let loss = (y * w).unwrap().sum_all().unwrap();
        let (a, b) = (loss.backward().unwrap(), loss.backward().unwrap());
        for v in [x.as_tensor(), tau.as_tensor()] {
            assert_eq!(
                data::bits(a.get(v).unwrap()),
                data::bits(b.get(v).unwrap()),
                "{op:?}"
            );
            assert!(
                data::values(a.get(v).unwrap()).iter().any(|g| *g != 0.0),
                "{op:?}"
            );
        }
    }
}

#[test]
fn gradients_reach_only_what_tracks_one() {
    let x = data::random((5, 8), 1, 2.0, DType::F32, &Device::Cpu);
    // a power of two, so that a number and a tensor are the same temperature
    let tau = data::tensor(&[0.5], (), DType::F32, &Device::Cpu);
    let w = weights(&[5, 8], 7, DType::F32, &Device::Cpu);
    let key = Key::new(4, 4);
    for op in Op::ALL {
        let both = gradients(|x, t| op.apply(x, t, 1, key), &x, &tau, &w);

        let xv = Var::from_tensor(&x).unwrap();
        let y = op.apply(xv.as_tensor(), &tau, 1, key).unwrap();
        let store = (y * &w).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(
            data::bits(store.get(xv.as_tensor()).unwrap()),
            data::bits(&both.x),
            "{op:?}"
        );
        assert!(
            store.get(&tau).is_none(),
            "{op:?}: a temperature that tracks nothing got a gradient"
        );

        let tv = Var::from_tensor(&tau).unwrap();
        let y = op.apply(&x, tv.as_tensor(), 1, key).unwrap();
        let store = (y * &w).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(
            data::bits(store.get(tv.as_tensor()).unwrap()),
            data::bits(&both.tau),
            "{op:?}"
        );
        assert!(
            store.get(&x).is_none(),
            "{op:?}: logits that track nothing got a gradient"
        );

        let y = op.apply(&x, &tau, 1, key).unwrap();
        assert!(
            !y.track_op(),
            "{op:?}: a result of constants tracks a gradient"
        );

        let y = op.apply(xv.as_tensor(), 0.5, 1, key).unwrap();
        let store = (y * &w).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(
            data::bits(store.get(xv.as_tensor()).unwrap()),
            data::bits(&both.x),
            "{op:?}: tau as a number"
        );
    }
}

#[test]
fn gradients_flow_through_what_stands_before_the_op() {
    // arguments that are results themselves, in layouts that only views have
    let device = Device::Cpu;
    let key = Key::new(6, 2);
    let w = weights(&[4, 6], 1, DType::F64, &device);
    type View = fn(&Tensor) -> candle_core::Result<Tensor>;
    let views: [(&str, &[usize], View); 5] = [
        ("doubled", &[4, 6], |t| t * 2.0),
        ("transposed", &[6, 4], |t| t.t()),
        ("expanded", &[1, 6], |t| t.broadcast_as((4, 6))),
        ("narrowed", &[4, 9], |t| t.narrow(1, 2, 6)),
        ("narrowed, transposed and squared", &[6, 7], |t| {
            t.narrow(1, 1, 4)?.t()?.sqr()
        }),
    ];
    for op in Op::ALL {
        for (name, shape, view) in views {
            let x = data::random(shape, 5, 1.5, DType::F64, &device);
            let tau = data::tensor(&[0.45], 1, DType::F64, &device);
            let got = gradients(
                |x, t| op.apply(&view(x)?, &(t * 2.0)?, 1, key),
                &x,
                &tau,
                &w,
            );
            let want = gradients(
                |x, t| op.composed(&view(x)?, &(t * 2.0)?, 1, key),
                &x,
                &tau,
                &w,
            );
            let rows = Rows::new(shape, 1);
            crate::support::gradcheck::compare(
                &data::values(&got.x),
                &data::values(&want.x),
                &rows,
                1e-11,
                1e-6,
            )
            .unwrap_or_else(|e| panic!("{op:?} {name}: {e}"));
            let (a, b) = (data::values(&got.tau)[0], data::values(&want.tau)[0]);
            assert!(
                (a - b).abs() <= 1e-10 * (1.0 + b.abs()),
                "{op:?} {name} tau: {a:e}, not {b:e}"
            );
        }
    }
}

#[test]
fn one_variable_as_logits_and_as_temperature() {
    let device = Device::Cpu;
    let w = weights(&[3, 5], 1, DType::F64, &device);
    let v = Var::from_tensor(&data::tensor(
        &[0.5, 0.8, 1.3, 0.9, 0.7],
        (1, 5),
        DType::F64,
        &device,
    ))
    .unwrap();
    let key = Key::new(1, 0);
    for op in Op::ALL {
        let grad = |composed: bool| {
            let x = v.broadcast_as((3, 5)).unwrap();
            let tau = v.narrow(1, 1, 1).unwrap();
            let y = if composed {
                op.composed(&x, &tau, 1, key)
            } else {
                op.apply(&x, &tau, 1, key)
            };
            let store = (y.unwrap() * &w)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            data::values(store.get(v.as_tensor()).unwrap())
        };
        let (got, want) = (grad(false), grad(true));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-11, "{op:?}: {got:?}, not {want:?}");
        }
    }
}

#[test]
fn a_peaked_row_keeps_its_small_gradients() {
    // one class holds all but about 1e-6: its rivals' gradients are far below any absolute tolerance
    for dtype in [DType::F32, DType::F64] {
        let mut z = data::normals(4 * 10, 3, 0.5);
        for row in 0..4 {
            z[row * 10 + row] += 14.0;
        }
        let x = data::tensor(&z, (4, 10), dtype, &Device::Cpu);
        let tau = data::tensor(&[1.0], (), dtype, &Device::Cpu);
        for op in [Op::Tempered, Op::Gumbel, Op::StraightThrough] {
            let w = weights(&[4, 10], 7, dtype, &Device::Cpu);
            let got = gradients(|x, t| op.apply(x, t, 1, Key::new(2, 7)), &x, &tau, &w);
            let rows = Rows::of(&x, 1);
            let z = data::values(&op.perturbed(&x, Key::new(2, 7)));
            let w = data::values(&w);
            let want =
                crate::support::gradcheck::closed_rows(op.kind(), &z, &[1.0; 4], &w, &rows).dz;
            let got = data::values(&got.x);
            for row in 0..4 {
                for k in 0..10 {
                    if k == row {
                        // the winner's own is a difference of nearly equal numbers: y (w - <y, w>)
                        continue;
                    }
                    let (g, want) = (got[rows.at(row, k)], want[rows.at(row, k)]);
                    let allowed = if dtype == DType::F32 { 2e-5 } else { 1e-12 };
                    assert!(
                        (g - want).abs() <= allowed * want.abs(),
                        "{op:?} {dtype:?} {row} {k}: {g:e}, not {want:e}"
                    );
                }
            }
        }
    }
}

// ---- rows that are masked, broken or extreme

/// A batch with healthy rows around those that are not.
fn rows_with(
    device: &Device,
    dtype: DType,
    broken: &[(usize, Vec<f64>)],
    n: usize,
    len: usize,
) -> Tensor {
    let mut v = data::normals(n * len, 17, 1.0);
    for (row, values) in broken {
        v[row * len..][..len].copy_from_slice(values);
    }
    data::tensor(&v, (n, len), dtype, device)
}

#[test]
fn masked_classes_have_no_probability_and_no_gradient() {
    for device in devices() {
        for dtype in FLOATS {
            for (outer, len, inner) in [(6, 11, 1), (2, 300, 1), (3, 11, 4), (2, 9, 17)] {
                let mut v = data::normals(outer * len * inner, 3, 1.0);
                let mask = |i: usize| (i / inner) % 3 == 1;
                for (i, v) in v.iter_mut().enumerate() {
                    if mask(i) {
                        *v = f64::NEG_INFINITY;
                    }
                }
                let x = data::tensor(&v, (outer, len, inner), dtype, &device);
                let w = weights(x.dims(), 4, dtype, &device);
                let tau = data::tensor(&[0.5], (), dtype, &device);
                for op in [Op::Tempered, Op::Gumbel, Op::StraightThrough] {
                    let y = data::values(&op.apply(&x, 0.5, 1, Key::new(9, 9)).unwrap());
                    let g = gradients(|x, t| op.apply(x, t, 1, Key::new(9, 9)), &x, &tau, &w);
                    let gx = data::values(&g.x);
                    for i in 0..y.len() {
                        assert!(y[i].is_finite() && gx[i].is_finite());
                        if mask(i) {
                            assert_eq!((y[i], gx[i]), (0.0, 0.0), "{op:?} {dtype:?} {i}");
                        }
                    }
                    assert!(gx.iter().any(|g| *g != 0.0));
                    assert!(data::values(&g.tau)[0].is_finite(), "{op:?} {dtype:?}");
                    check_forward(
                        if op == Op::StraightThrough {
                            Op::Gumbel
                        } else {
                            op
                        },
                        &x,
                        0.5,
                        1,
                        Key::new(9, 9),
                        base(dtype),
                    );
                }
                if dtype == DType::F32 || dtype == DType::F64 {
                    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-11 };
                    for op in [Op::Tempered, Op::Gumbel, Op::StraightThrough] {
                        check_gradients(&GradientCase {
                            op,
                            x: &x,
                            tau: &tau,
                            dim: 1,
                            key: Key::new(9, 9),
                            tolerance,
                            central: false,
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn a_single_class_left_has_probability_one() {
    let ninf = f64::NEG_INFINITY;
    for dtype in FLOATS {
        let x = data::tensor(
            &[ninf, ninf, -3.0, ninf, 1.0, ninf, ninf, ninf],
            (2, 4),
            dtype,
            &Device::Cpu,
        );
        for op in [Op::Tempered, Op::Gumbel, Op::StraightThrough] {
            let y = data::values(&op.apply(&x, 0.3, 1, Key::new(1, 2)).unwrap());
            assert_eq!(
                y,
                [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0],
                "{op:?} {dtype:?}"
            );
        }
    }
}

#[test]
fn a_broken_row_is_nan_and_its_neighbours_do_not_notice() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for device in devices() {
        for dtype in FLOATS {
            for len in [3, 10, 33, 4100] {
                for at in [0, len / 2, len - 1] {
                    let with = |v: f64| {
                        let mut row = data::normals(len, 2, 1.0);
                        row[at] = v;
                        row
                    };
                    let mut both = with(inf);
                    both[(at + 1) % len] = f64::NEG_INFINITY;
                    let mut two = with(inf);
                    two[(at + 1) % len] = inf;
                    let broken = [
                        (1, vec![f64::NEG_INFINITY; len]),
                        (3, with(nan)),
                        (4, with(inf)),
                        (6, both),
                        (7, two),
                        (9, vec![nan; len]),
                    ];
                    let bad: Vec<usize> = broken.iter().map(|(r, _)| *r).collect();
                    let x = rows_with(&device, dtype, &broken, 11, len);
                    let clean = rows_with(&device, dtype, &[], 11, len);
                    let w = weights(&[11, len], 4, dtype, &device);
                    let tau = data::tensor(&[0.5; 11], (11, 1), dtype, &device);
                    let key = Key::new(1, 1);
                    for op in Op::ALL {
                        let (y, healthy) = (
                            op.apply(&x, 0.5, 1, key).unwrap(),
                            op.apply(&clean, 0.5, 1, key).unwrap(),
                        );
                        let g = gradients(|x, t| op.apply(x, t, 1, key), &x, &tau, &w);
                        let h = gradients(|x, t| op.apply(x, t, 1, key), &clean, &tau, &w);
                        for row in 0..11 {
                            let one = |t: &Tensor| t.get(row).unwrap();
                            if bad.contains(&row) {
                                for t in [&y, &g.x, &g.tau] {
                                    let v = data::values(&one(t));
                                    assert!(
                                        v.iter().all(|v| v.is_nan()),
                                        "{op:?} {dtype:?} len {len} row {row}: {v:?}"
                                    );
                                }
                            } else {
                                assert_eq!(
                                    data::bits(&one(&y)),
                                    data::bits(&one(&healthy)),
                                    "{op:?} {dtype:?} row {row}"
                                );
                                assert_eq!(
                                    data::bits(&one(&g.x)),
                                    data::bits(&one(&h.x)),
                                    "{op:?} {dtype:?} row {row}"
                                );
                                assert_eq!(
                                    data::bits(&one(&g.tau)),
                                    data::bits(&one(&h.tau)),
                                    "{op:?} {dtype:?} row {row}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_broken_row_of_an_inner_dim_is_nan_alone() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for inner in [2, 16, 17, 49] {
            let (outer, len) = (3, 12);
            let mut v = data::normals(outer * len * inner, 5, 1.0);
            let rows = Rows { outer, len, inner };
            let count = rows.count();
            let broken = [
                (1, f64::NAN),
                (inner, f64::INFINITY),
                (count - 1, f64::NEG_INFINITY),
            ];
            for (row, value) in broken {
                for k in 0..len {
                    if value == f64::NEG_INFINITY || k == 5 {
                        v[rows.at(row, k)] = value;
                    }
                }
            }
            let x = data::tensor(&v, (outer, len, inner), dtype, &Device::Cpu);
            let w = weights(&[outer, len, inner], 4, dtype, &Device::Cpu);
            let tau = data::tensor(&vec![0.5; count], (outer, 1, inner), dtype, &Device::Cpu);
            for op in Op::ALL {
                let y = data::values(&op.apply(&x, 0.5, 1, Key::new(3, 3)).unwrap());
                let g = gradients(|x, t| op.apply(x, t, 1, Key::new(3, 3)), &x, &tau, &w);
                let (gx, gt) = (data::values(&g.x), data::values(&g.tau));
                for row in 0..count {
                    let bad = broken.iter().any(|(r, _)| *r == row);
                    for t in [&y, &gx] {
                        assert!(
                            rows.row(t, row).iter().all(|v| v.is_nan() == bad),
                            "{op:?} {dtype:?} inner {inner} row {row}"
                        );
                    }
                    assert_eq!(
                        gt[row].is_nan(),
                        bad,
                        "{op:?} {dtype:?} inner {inner} row {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn extreme_temperatures_and_logits_stay_finite() {
    for device in devices() {
        for (shape, dim) in [(&[4, 50][..], 1), (&[3, 10, 5], 1)] {
            for tau in [1e-30, 1e-6, 1e6, 1e30] {
                for scale in [1.0, 1e4, 1e30] {
                    for dtype in [DType::F32, DType::F64, DType::BF16] {
                        let x = data::random(shape, 3, scale, dtype, &device);
                        let key = Key::new(1, 5);
                        check_forward(Op::Gumbel, &x, tau, dim, key, base(dtype));
                        check_forward(Op::Tempered, &x, tau, dim, key, base(dtype));
                        let rows = Rows::of(&x, dim);
                        let y = data::values(&gumbel_softmax(&x, tau, dim, key).unwrap());
                        let digits = if dtype == DType::BF16 { 2e-2 } else { 1e-5 };
                        for row in 0..rows.count() {
                            let total = oracle::sum(rows.row(&y, row));
                            assert!(
                                (total - 1.0).abs() < digits,
                                "{dtype:?} tau {tau} scale {scale}: sum {total}"
                            );
                        }
                        let t = data::tensor(&[tau], (), dtype, &device);
                        let w = weights(shape, 3, dtype, &device);
                        for op in [Op::Gumbel, Op::Tempered, Op::StraightThrough] {
                            let g = gradients(|x, t| op.apply(x, t, dim, key), &x, &t, &w);
                            let gx = data::values(&g.x);
                            assert!(
                                gx.iter().all(|g| !g.is_nan()),
                                "{op:?} {dtype:?} tau {tau} scale {scale}"
                            );
                            assert!(
                                !data::values(&g.tau)[0].is_nan(),
                                "{op:?} {dtype:?} tau {tau} scale {scale}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_tiny_temperature_gives_the_arg_max() {
    let x = data::random((200, 17), 3, 1.0, DType::F32, &Device::Cpu);
    let key = Key::new(12, 1);
    let soft = data::bits(&gumbel_softmax(&x, 1e-30, 1, key).unwrap());
    let hard = data::bits(&gumbel_softmax_st(&x, 1.0, 1, key).unwrap());
    assert_eq!(soft, hard);
}

#[test]
fn no_noise_left_at_a_huge_temperature() {
    let x = data::random((200, 16), 3, 1.0, DType::F32, &Device::Cpu);
    let y = data::values(&gumbel_softmax(&x, 1e30, 1, Key::new(12, 1)).unwrap());
    assert!(y.iter().all(|y| (y - 1.0 / 16.0).abs() < 1e-7));
}

#[test]
fn zero_elements_give_zero_elements() {
    for dtype in FLOATS {
        for (shape, dim) in [
            (&[0, 4][..], 1),
            (&[4, 0], 0),
            (&[3, 0, 4], 2),
            (&[3, 0, 4], 0),
            (&[0, 0, 2], 2),
        ] {
            let x = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
            for op in Op::ALL {
                let y = op.apply(&x, 1.0, dim, Key::new(1, 1)).unwrap();
                assert_eq!((y.dims(), y.dtype()), (shape, dtype), "{op:?}");
                let tau = data::tensor(&[1.0], (), dtype, &Device::Cpu);
                let g = gradients(|x, t| op.apply(x, t, dim, Key::new(1, 1)), &x, &tau, &x);
                assert_eq!(g.x.dims(), shape, "{op:?}");
                assert_eq!(data::values(&g.tau), [0.0], "{op:?}");
            }
        }
    }
}

#[test]
fn the_relaxed_sample_is_fair() {
    // E[argmax] over many draws is softmax(x), whatever the temperature; here through the relaxed sample's own argmax
    let logits = [0.0, 1.0, -1.0, 2.0, -4.0];
    let p = oracle::probabilities(&logits);
    let x = data::tensor(&logits, (1, 5), DType::F32, &Device::Cpu)
        .broadcast_as((200_000, 5))
        .unwrap();
    let y = gumbel_softmax(&x, 0.5, 1, Key::new(4, 0)).unwrap();
    let mut counts = [0_u64; 5];
    for row in data::values(&y).chunks(5) {
        counts[oracle::argmax(row)] += 1;
    }
    let fit = crate::support::statistics::chi_square(&counts, &p);
    assert!(fit > 1e-3, "{counts:?}: p = {fit:e}");
}

#[test]
fn the_drop_in_expression_agrees() {
    // what a user would write, in candle's own ops
    let x = data::random((64, 32), 1, 1.0, DType::F32, &Device::Cpu);
    let key = Key::new(10, 0);
    let z =
        ((&x + gumbel(x.shape(), DType::F32, x.device(), key).unwrap()).unwrap() / 0.8).unwrap();
    let want = data::values(&ops::softmax(&z, 1).unwrap());
    let got = data::values(&gumbel_softmax(&x, 0.8, 1, key).unwrap());
    let plain = data::values(&tempered_softmax(&x, 0.8, 1).unwrap());
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-6));
    assert!(
        plain.iter().zip(&want).any(|(g, w)| (g - w).abs() > 0.1),
        "the noise does nothing"
    );
}
