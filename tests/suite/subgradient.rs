//! `subgradient`: at, and around, every kink.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits;
use candle_reparam::subgradient::{
    abs, clamp, hard_sigmoid, hard_tanh, hinge, leaky_relu, max, maximum, minimum, relu,
};

use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::layouts;
use crate::support::neighbours::{around, specials};
use crate::support::refused;

/// A function of one element as the tests see it: its value, and its slope but at the kinks.
struct Unary {
    name: &'static str,
    apply: fn(&Tensor, Option<f64>) -> Result<Tensor>,
    value: fn(f64) -> f64,
    slope: fn(f64) -> f64,
    kinks: &'static [f64],
    /// The subgradients: from, to, and what `None` stands for.
    from: f64,
    to: f64,
    none: f64,
    /// Relative to the value.
    precision: f64,
}

const INF: f64 = f64::INFINITY;

const EXACT: Unary = Unary {
    name: "relu",
    apply: |x, k| relu(x, k),
    value: |x| if x > 0.0 { x } else { 0.0 },
    slope: |x| f64::from(x > 0.0),
    kinks: &[0.0],
    from: 0.0,
    to: 1.0,
    none: 0.0,
    precision: 0.0,
};

const UNARY: [Unary; 11] = [
    EXACT,
    Unary {
        name: "leaky_relu",
        apply: |x, k| leaky_relu(x, 0.25, k),
        value: |x| if x > 0.0 { x } else { 0.25 * x },
        slope: |x| if x > 0.0 { 1.0 } else { 0.25 },
        from: 0.25,
        none: 0.25,
        ..EXACT
    },
    Unary {
        name: "leaky_relu",
        apply: |x, k| leaky_relu(x, -0.5, k),
        value: |x| if x > 0.0 { x } else { -0.5 * x },
        slope: |x| if x > 0.0 { 1.0 } else { -0.5 },
        from: -0.5,
        ..EXACT
    },
    Unary {
        name: "leaky_relu",
        apply: |x, k| leaky_relu(x, 2.0, k),
        value: |x| if x > 0.0 { x } else { 2.0 * x },
        slope: |x| if x > 0.0 { 1.0 } else { 2.0 },
        from: 1.0,
        to: 2.0,
        none: 1.0,
        ..EXACT
    },
    Unary {
        name: "abs",
        apply: |x, k| abs(x, k),
        value: f64::abs,
        slope: f64::signum,
        from: -1.0,
        ..EXACT
    },
    Unary {
        name: "clamp",
        apply: |x, k| clamp(x, -0.5, 2.0, k),
        value: |x| x.clamp(-0.5, 2.0),
        slope: |x| f64::from(-0.5 < x && x < 2.0),
        kinks: &[-0.5, 2.0],
        ..EXACT
    },
    Unary {
        name: "clamp",
        apply: |x, k| clamp(x, f64::NEG_INFINITY, 1.0, k),
        value: |x| x.min(1.0),
        slope: |x| f64::from(x < 1.0),
        kinks: &[1.0],
        ..EXACT
    },
    Unary {
        name: "clamp",
        apply: |x, k| clamp(x, 0.0, INF, k),
        value: |x| if x > 0.0 { x } else { 0.0 },
        slope: |x| f64::from(x > 0.0),
        ..EXACT
    },
    Unary {
        name: "clamp",
        apply: |x, k| clamp(x, 1.5, 1.5, k),
        value: |_| 1.5,
        slope: |_| 0.0,
        kinks: &[1.5],
        to: 0.0,
        ..EXACT
    },
    Unary {
        name: "hard_tanh",
        apply: |x, k| hard_tanh(x, k),
        value: |x| x.clamp(-1.0, 1.0),
        slope: |x| f64::from(-1.0 < x && x < 1.0),
        kinks: &[-1.0, 1.0],
        ..EXACT
    },
    Unary {
        name: "hard_sigmoid",
        apply: |x, k| hard_sigmoid(x, k),
        value: |x| (x + 3.0).clamp(0.0, 6.0) / 6.0,
        slope: |x| f64::from(-3.0 < x && x < 3.0) / 6.0,
        kinks: &[-3.0, 3.0],
        to: 1.0 / 6.0,
        precision: 1.2e-7,
        ..EXACT
    },
];

/// Values at and around the kinks, at the ends of the dtype, and random ones.
fn inputs(kinks: &[f64], dtype: DType) -> Vec<f64> {
    let mut x = specials(dtype);
    for &kink in kinks {
        x.extend(around(dtype, kink));
    }
    x.extend(data::values(&data::random(
        400,
        3,
        2.0,
        dtype,
        &Device::Cpu,
    )));
    x
}

/// What `t` is rounded to.
fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
    data::values(&data::tensor(values, values.len(), dtype, &Device::Cpu))
}

/// The gradient of `sum(w f(x))`.
fn gradient(x: &Tensor, w: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let loss = (f(x.as_tensor()).unwrap() * w).unwrap().sum_all().unwrap();
    let gradient = loss.backward().unwrap().get(x.as_tensor()).cloned();
    gradient.expect("a gradient")
}

#[track_caller]
fn agree(got: f64, want: f64, precision: f64, dtype: DType, label: &str) {
    let rounding = match dtype {
        // One rounding more to a half.
        _ if precision == 0.0 => 0.0,
        DType::F16 | DType::BF16 => 1.01 * data::half_ulp(dtype, want),
        DType::F64 => 2.3e-16 / 1.2e-7 * precision * want.abs() + data::half_ulp(dtype, 0.0),
        _ => precision * want.abs() + data::half_ulp(dtype, 0.0),
    };
    let same = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= rounding;
    assert!(same, "{label}: {got:e}, not {want:e}");
}

#[test]
fn values_at_and_around_every_kink() {
    for device in devices() {
        for dtype in FLOATS {
            for op in &UNARY {
                let x = inputs(op.kinks, dtype);
                let y = (op.apply)(&data::tensor(&x, x.len(), dtype, &device), None).unwrap();
                assert_eq!((y.dims(), y.dtype()), (&[x.len()][..], dtype));
                let want: Vec<f64> = x
                    .iter()
                    .map(|&x| if x.is_nan() { x } else { (op.value)(x) })
                    .collect();
                let want = if op.precision == 0.0 {
                    rounded(&want, dtype)
                } else {
                    want
                };
                for ((x, got), want) in x.iter().zip(data::values(&y)).zip(want) {
                    let label = format!("{} {dtype:?} at {x:e}", op.name);
                    agree(got, want, op.precision, dtype, &label);
                }
            }
        }
    }
}

#[test]
fn slopes_at_and_around_every_kink() {
    for device in devices() {
        for dtype in FLOATS {
            for op in &UNARY {
                let x = inputs(op.kinks, dtype);
                let n = x.len();
                let g = data::values(&data::random(n, 5, 1.0, dtype, &Device::Cpu));
                let middle = (op.from + op.to) / 2.0;
                for at_kink in [None, Some(op.from), Some(op.to), Some(middle)] {
                    let got = gradient(
                        &data::tensor(&x, n, dtype, &device),
                        &data::tensor(&g, n, dtype, &device),
                        |x| (op.apply)(x, at_kink),
                    );
                    let got = data::values(&got);
                    for i in 0..n {
                        let slope = if op.kinks.contains(&x[i]) {
                            at_kink.unwrap_or(op.none)
                        } else if x[i].is_nan() {
                            f64::NAN
                        } else {
                            (op.slope)(x[i])
                        };
                        let label = format!(
                            "{} {dtype:?} {at_kink:?} at {:e}: {:e}",
                            op.name, x[i], g[i]
                        );
                        let want = rounded(&[slope * g[i]], dtype)[0];
                        // a sixth is rounded to the dtype that is computed in, and then times g
                        let precision = if op.precision > 0.0 { 1.3e-7 } else { 0.0 };
                        agree(got[i], want, precision, dtype, &label);
                    }
                }
            }
        }
    }
}

#[test]
fn zeros_keep_their_signs_as_in_pytorch() {
    for device in devices() {
        for dtype in FLOATS {
            let zeros = data::tensor(&[-0.0, 0.0], 2, dtype, &device);
            let signs = |y: Result<Tensor>| {
                let signs = data::values(&y.unwrap())
                    .into_iter()
                    .map(f64::is_sign_negative);
                signs.collect::<Vec<_>>()
            };
            let kept = [true, false];
            assert_eq!(signs(relu(&zeros, None)), kept);
            assert_eq!(signs(leaky_relu(&zeros, 0.1, None)), kept);
            assert_eq!(signs(clamp(&zeros, -1.0, 1.0, None)), kept);
            assert_eq!(signs(clamp(&zeros, 0.0, 1.0, None)), kept);
            assert_eq!(signs(hard_tanh(&zeros, None)), kept);
            assert_eq!(signs(abs(&zeros, None)), [false; 2]);
            // what is rectified is +0
            let below = data::tensor(&[-1.0, f64::NEG_INFINITY], 2, dtype, &device);
            assert_eq!(signs(relu(&below, None)), [false; 2]);
        }
    }
}

#[test]
fn a_slope_of_zero_stops_every_gradient() {
    for device in devices() {
        for dtype in FLOATS {
            let x = data::tensor(&[-4.0, -4.0, -4.0, 0.0], 4, dtype, &device);
            let g = data::tensor(&[INF, f64::NAN, -INF, f64::NAN], 4, dtype, &device);
            for op in UNARY
                .iter()
                .filter(|op| op.kinks == [0.0] && (op.slope)(-1.0) == 0.0)
            {
                assert_eq!(
                    data::values(&gradient(&x, &g, |x| (op.apply)(x, None))),
                    [0.0; 4]
                );
            }
        }
    }
}

#[test]
fn what_is_no_subgradient_is_refused() {
    let x = data::random(4, 1, 1.0, DType::F32, &Device::Cpu);
    for op in &UNARY {
        for bad in [op.from - 1e-6, op.to + 1e-6, f64::NAN, INF, -INF] {
            refused(
                (op.apply)(&x, Some(bad)),
                op.name,
                &["at_kink", &bad.to_string()],
            );
        }
        for good in [op.from, op.to] {
            (op.apply)(&x, Some(good)).unwrap();
        }
    }
    refused(hinge(&x, &x, 1.0, 1.5), "hinge", &["at_kink", "1.5"]);
    refused(hinge(&x, &x, INF, None), "hinge", &["margin", "inf"]);
    refused(
        leaky_relu(&x, f64::NAN, None),
        "leaky_relu",
        &["negative_slope", "NaN"],
    );
    refused(clamp(&x, 1.0, 0.5, None), "clamp", &["1", "0.5"]);
    refused(clamp(&x, f64::NAN, 0.5, None), "clamp", &["NaN"]);
    refused(clamp(&x, INF, INF, None), "clamp", &["inf"]);
    refused(maximum(&x, &x, -0.1), "maximum", &["first", "-0.1"]);
    refused(minimum(&x, &x, f64::NAN), "minimum", &["first", "NaN"]);
    let y = data::random(3, 1, 1.0, DType::F32, &Device::Cpu);
    refused(maximum(&x, &y, None), "maximum", &["[4]", "[3]"]);
    refused(hinge(&x, &y, 1.0, None), "hinge", &["[4]", "[3]"]);
    let y = data::random(4, 1, 1.0, DType::F64, &Device::Cpu);
    refused(minimum(&x, &y, None), "minimum", &["F32", "F64"]);
    let ints = Tensor::zeros(4, DType::U32, &Device::Cpu).unwrap();
    refused(relu(&ints, None), "relu", &["U32"]);
    refused(max(&ints, 0), "max", &["U32"]);
    refused(hinge(&ints, &ints, 1.0, None), "hinge", &["U32"]);
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in [&[9][..], &[5, 12], &[3, 4, 5], &[2, 1, 3, 4], &[40, 300]] {
            for dtype in FLOATS {
                let x = data::random(shape, 1, 1.0, dtype, &device);
                let g = data::random(shape, 2, 1.0, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    let label = || format!("{shape:?} {dtype:?} {name}");
                    for op in [&UNARY[1], &UNARY[5], &UNARY[10]] {
                        let of = |x: &Tensor| (op.apply)(x, None).unwrap();
                        data::assert_same(&of(&view), &of(&copy), label);
                        // backward: the view itself reaches the kernel
                        let through = |x: &Tensor, as_view: bool| {
                            let v = Var::from_tensor(x).unwrap();
                            let y = if as_view {
                                v.t()
                            } else {
                                v.t().and_then(|v| v.force_contiguous())
                            };
                            let y = (op.apply)(&y.unwrap(), None).unwrap();
                            let w = g.t().unwrap();
                            let grads = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
                            grads.get(v.as_tensor()).unwrap().clone()
                        };
                        if shape.len() > 1 {
                            data::assert_same(&through(&copy, true), &through(&copy, false), label);
                        }
                    }
                    for (other, w) in layouts::variants(&g).into_iter().take(4) {
                        let label = || format!("{shape:?} {dtype:?} {name} {other}");
                        let wc = w.force_contiguous().unwrap();
                        let of = |a: &Tensor, b: &Tensor| hinge(a, b, 0.5, None).unwrap();
                        data::assert_same(&of(&view, &w), &of(&copy, &wc), label);
                        let of = |a: &Tensor, b: &Tensor| maximum(a, b, None).unwrap();
                        data::assert_same(&of(&view, &w), &of(&copy, &wc), label);
                    }
                }
            }
        }
    }
}

type Binary = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn gradients(
    a: &Tensor,
    b: &Tensor,
    g: &Tensor,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> [Vec<f64>; 2] {
    let (a, b) = (Var::from_tensor(a).unwrap(), Var::from_tensor(b).unwrap());
    let loss = (f(a.as_tensor(), b.as_tensor()).unwrap() * g)
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = loss.backward().unwrap();
    [&a, &b].map(|v| {
        let gradient = grads.get(v.as_tensor()).expect("a gradient");
        assert_eq!((gradient.dims(), gradient.dtype()), (v.dims(), v.dtype()));
        data::values(gradient)
    })
}

#[test]
fn hinges_at_and_around_the_margin() {
    for device in devices() {
        for dtype in FLOATS {
            let mut x = inputs(&[1.0, -1.0, 0.0], dtype);
            let n = x.len();
            x.extend(x.clone());
            let t: Vec<f64> = (0..2 * n).map(|i| if i < n { 1.0 } else { -1.0 }).collect();
            let g = data::values(&data::random(2 * n, 5, 1.0, dtype, &Device::Cpu));
            let [xt, tt, gt] = [&x, &t, &g].map(|v| data::tensor(v, 2 * n, dtype, &device));
            for at_kink in [None, Some(0.25), Some(1.0)] {
                let y = data::values(&hinge(&xt, &tt, 1.0, at_kink).unwrap());
                let [dx, dt] = gradients(&xt, &tt, &gt, |x, t| hinge(x, t, 1.0, at_kink));
                for i in 0..2 * n {
                    // in f32 for the halves, rounded as the op rounds
                    let excess = if dtype == DType::F64 {
                        1.0 - t[i] * x[i]
                    } else {
                        f64::from((1.0 - t[i] * x[i]) as f32)
                    };
                    let label = format!("{dtype:?} {at_kink:?} at {:e} target {}", x[i], t[i]);
                    let want = if x[i].is_nan() { x[i] } else { excess.max(0.0) };
                    agree(y[i], rounded(&[want], dtype)[0], 0.0, dtype, &label);
                    let slope = match excess {
                        e if e.is_nan() => e,
                        e if e > 0.0 => 1.0,
                        e if e < 0.0 => 0.0,
                        _ => at_kink.unwrap_or(0.0),
                    };
                    let times = |other: f64| {
                        if slope == 0.0 {
                            0.0
                        } else {
                            -other * g[i] * slope
                        }
                    };
                    agree(
                        dx[i],
                        rounded(&[times(t[i])], dtype)[0],
                        0.0,
                        dtype,
                        &format!("{label} input"),
                    );
                    // a product of two in f32, then rounded
                    let precision = if dtype == DType::F64 { 3e-7 } else { 2e-7 };
                    agree(
                        dt[i],
                        times(x[i]),
                        precision,
                        dtype,
                        &format!("{label} target"),
                    );
                }
            }
        }
    }
}

#[test]
fn ties_of_two_share_one_unit() {
    let ops: [(Binary, f64); 2] = [
        (|a, b| maximum(a, b, None), 1.0),
        (|a, b| minimum(a, b, None), -1.0),
    ];
    for device in devices() {
        for dtype in FLOATS {
            let x = inputs(&[1.0], dtype);
            // against itself, a neighbour, and a constant
            let mut shifted = x.clone();
            shifted.rotate_left(1);
            let a = [x.clone(), x.clone(), x.clone()].concat();
            let b = [x.clone(), shifted, vec![1.0; x.len()]].concat();
            let n = a.len();
            let g = data::values(&data::random(n, 5, 1.0, dtype, &Device::Cpu));
            let [at, bt, gt] = [&a, &b, &g].map(|v| data::tensor(v, n, dtype, &device));
            for (which, (op, sign)) in ops.iter().enumerate() {
                let y = data::values(&op(&at, &bt).unwrap());
                for share in [None, Some(0.0), Some(0.25), Some(1.0)] {
                    let [da, db] = gradients(&at, &bt, &gt, |a, b| match which {
                        0 => maximum(a, b, share),
                        _ => minimum(a, b, share),
                    });
                    for i in 0..n {
                        let label =
                            format!("{dtype:?} {sign} {share:?} of {:e} and {:e}", a[i], b[i]);
                        let nan = a[i].is_nan() || b[i].is_nan();
                        let want = if nan {
                            f64::NAN
                        } else if sign * a[i] < sign * b[i] {
                            b[i]
                        } else {
                            a[i]
                        };
                        agree(y[i], want, 0.0, dtype, &label);
                        let part = if nan {
                            f64::NAN
                        } else if a[i] == b[i] {
                            share.unwrap_or(0.5)
                        } else {
                            f64::from(sign * a[i] > sign * b[i])
                        };
                        agree(
                            da[i],
                            rounded(&[part * g[i]], dtype)[0],
                            0.0,
                            dtype,
                            &format!("{label}: a"),
                        );
                        agree(
                            db[i],
                            rounded(&[(1.0 - part) * g[i]], dtype)[0],
                            0.0,
                            dtype,
                            &format!("{label}: b"),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn broadcast_operands_get_gradients_of_their_own_shapes() {
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[3, 4], &[4]),
        (&[3, 4], &[3, 1]),
        (&[3, 1], &[1, 4]),
        (&[2, 3, 5], &[]),
        (&[1, 1, 1], &[7]),
        (&[2, 1, 70], &[33, 1]),
    ];
    for device in devices() {
        for (sa, sb) in shapes {
            let a = data::random(sa, 1, 1.0, DType::F64, &device);
            let b = data::random(sb, 2, 1.0, DType::F64, &device);
            let plain = a.broadcast_maximum(&b).unwrap();
            let g = data::random(plain.shape(), 3, 1.0, DType::F64, &device);
            let pairs: [(Binary, Binary); 3] = [
                (|a, b| maximum(a, b, None), |a, b| a.broadcast_maximum(b)),
                (|a, b| minimum(a, b, None), |a, b| a.broadcast_minimum(b)),
                (
                    |a, b| hinge(a, b, 0.5, None),
                    |a, b| (0.5 - a.broadcast_mul(b)?)?.relu(),
                ),
            ];
            for (which, (ours, theirs)) in pairs.into_iter().enumerate() {
                let y = ours(&a, &b).unwrap();
                assert_eq!(y.dims(), plain.dims());
                for (got, want) in data::values(&y)
                    .iter()
                    .zip(data::values(&theirs(&a, &b).unwrap()))
                {
                    assert!((got - want).abs() < 1e-15, "{which} {sa:?} {sb:?}");
                }
                let (got, want) = (gradients(&a, &b, &g, ours), gradients(&a, &b, &g, theirs));
                for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
                    assert!(
                        (got - want).abs() <= 1e-13 * (1.0 + want.abs()),
                        "{which} {sa:?} {sb:?}: {got} {want}"
                    );
                }
                assert!(want.iter().flatten().any(|w| w.abs() > 0.1));
            }
        }
    }
}

#[test]
fn no_gradient_is_computed_for_what_tracks_none() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    let v = Var::from_tensor(&x).unwrap();
    for op in [
        |a: &Tensor, b: &Tensor| maximum(a, b, None),
        |a: &Tensor, b: &Tensor| hinge(a, b, 1.0, None),
    ] {
        let one = op(v.as_tensor(), &x)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert!(one.get(v.as_tensor()).is_some() && one.get(&x).is_none());
        let other = op(&x, v.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        assert!(other.get(v.as_tensor()).is_some() && other.get(&x).is_none());
        assert!(!op(&x, &x).unwrap().track_op());
    }
    for op in &UNARY {
        assert!(!(op.apply)(&x, None).unwrap().track_op());
        let y = (op.apply)(v.as_tensor(), None).unwrap().sum_all().unwrap();
        let [a, b] = [0; 2].map(|_| data::bits(y.backward().unwrap().get(v.as_tensor()).unwrap()));
        assert_eq!(a, b);
    }
}

#[test]
fn scalars_and_nothing_at_all() {
    for device in devices() {
        for dtype in FLOATS {
            for op in &UNARY {
                let none = Tensor::zeros((0, 3), dtype, &device).unwrap();
                let y = (op.apply)(&none, None).unwrap();
                assert_eq!((y.dims(), y.dtype()), (&[0, 3][..], dtype));
                let one = data::tensor(&[0.75], (), dtype, &device);
                assert_eq!((op.apply)(&one, None).unwrap().rank(), 0);
                let g = gradient(&none, &none, |x| (op.apply)(x, None));
                assert_eq!((g.dims(), g.dtype()), (&[0, 3][..], dtype));
            }
            let (a, b) = (
                Tensor::zeros((0, 3), dtype, &device).unwrap(),
                Tensor::zeros(3, dtype, &device).unwrap(),
            );
            assert_eq!(maximum(&a, &b, None).unwrap().dims(), [0, 3]);
            assert_eq!(hinge(&a, &b, 1.0, None).unwrap().dims(), [0, 3]);
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for dtype in FLOATS {
        let x = inputs(&[0.0, 1.0, 2.0, -0.5], dtype);
        let x = data::tensor(&x, x.len(), dtype, &Device::Cpu);
        let all = |_: &str| {
            let w = (&x * 0.5).unwrap();
            let mut out: Vec<Vec<u64>> = UNARY
                .iter()
                .map(|op| data::bits(&(op.apply)(&x, None).unwrap()))
                .collect();
            out.extend(
                UNARY
                    .iter()
                    .map(|op| data::bits(&gradient(&x, &w, |x| (op.apply)(x, None)))),
            );
            out.push(data::bits(&hinge(&x, &w, 1.0, None).unwrap()));
            out.push(data::bits(&maximum(&x, &w, None).unwrap()));
            out.push(data::bits(&gradient(&x, &w, |x| hinge(x, &w, 1.0, None))));
            out.push(data::bits(&gradient(&x, &w, |x| minimum(x, &w, None))));
            out
        };
        let levels = bits::levels();
        let want = bits::with_level(levels[0], || all(levels[0]));
        for level in levels {
            assert!(
                bits::with_level(level, || all(level)) == want,
                "{dtype:?} {level}"
            );
        }
    }
}

#[test]
fn what_candle_takes_at_its_kinks() {
    // the reason for this module: if candle changes, its documentation has to
    let x = Tensor::new(&[0f64, 1.0], &Device::Cpu).unwrap();
    let one = x.ones_like().unwrap();
    let slope = |f: fn(&Tensor) -> Result<Tensor>| data::values(&gradient(&x, &one, f))[0];
    assert_eq!(slope(|x| x.relu()), 1.0);
    assert_eq!(slope(|x| x.abs()), 1.0);
    assert_eq!(slope(|x| x.clamp(0.0, 2.0)), 0.5);
    assert_eq!(slope(|x| candle_nn::ops::leaky_relu(x, 0.5)), 0.75);
    assert_eq!(
        slope(|x| candle_nn::ops::hard_sigmoid(&(x - 3.0)?)),
        0.5 / 6.0
    );
    assert_eq!(slope(|x| relu(x, None)), 0.0);
    assert_eq!(slope(|x| abs(x, None)), 0.0);
    let tied = Tensor::new(&[[2f64, 2., 1.]], &Device::Cpu).unwrap();
    let one = Tensor::ones(1, DType::F64, &Device::Cpu).unwrap();
    assert_eq!(
        data::values(&gradient(&tied, &one, |x| x.max(1))),
        [1.0, 1.0, 0.0]
    );
    assert_eq!(
        data::values(&gradient(&tied, &one, |x| max(x, 1))),
        [0.5, 0.5, 0.0]
    );
}
