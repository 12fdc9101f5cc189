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

pub const INF: f64 = f64::INFINITY;

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
pub fn inputs(kinks: &[f64], dtype: DType) -> Vec<f64> {
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
pub fn rounded(values: &[f64], dtype: DType) -> Vec<f64> {
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
pub fn agree(got: f64, want: f64, precision: f64, dtype: DType, label: &str) {
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
            // of two that are equal, the first
            let flipped = data::tensor(&[0.0, -0.0], 2, dtype, &device);
            assert_eq!(signs(maximum(&zeros, &flipped, None)), kept);
            assert_eq!(signs(minimum(&zeros, &flipped, None)), kept);
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
