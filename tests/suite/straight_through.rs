//! `straight_through`: the steps, and what passes through them.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits;
use candle_reparam::straight_through::{
    Surrogate, binarize, ceil, floor, one_hot, quantize, round, sign,
};

use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::layouts;
use crate::support::neighbours::{around, specials};
use crate::support::refused;

type Apply = fn(&Tensor, Surrogate) -> Result<Tensor>;
type Plain = fn(&Tensor) -> Result<Tensor>;
type Step = (&'static str, Apply, fn(f64) -> f64, &'static [f64]);

/// Name, op, the same in f64, and where it steps.
const STEPS: [Step; 8] = [
    (
        "round",
        round,
        f64::round_ties_even,
        &[0.5, 1.5, 2.5, -0.5, -1.5, 8.5, 1.0],
    ),
    ("floor", floor, f64::floor, &[1.0, -1.0, 0.0, 2.0, -8.0]),
    ("ceil", ceil, f64::ceil, &[1.0, -1.0, 0.0, 2.0, -8.0]),
    (
        "sign",
        sign,
        |x| if x == 0.0 { 0.0 } else { x.signum() },
        &[0.0],
    ),
    (
        "binarize",
        |x, s| binarize(x, 0.5, s),
        |x| f64::from(x > 0.5),
        &[0.5],
    ),
    (
        "binarize",
        |x, s| binarize(x, -2.0, s),
        |x| f64::from(x > -2.0),
        &[-2.0],
    ),
    (
        "quantize",
        |x, s| quantize(x, -1.0, 1.0, 5, s),
        |x| (x.clamp(-1.0, 1.0) * 2.0).round_ties_even() / 2.0,
        &[-1.0, 1.0, -0.75, 0.25, 0.5],
    ),
    (
        "quantize",
        |x, s| quantize(x, 0.0, 6.0, 4, s),
        |x| (x.clamp(0.0, 6.0) / 2.0).round_ties_even() * 2.0,
        &[0.0, 6.0, 1.0, 3.0, 5.0],
    ),
];

fn inputs(steps: &[f64], dtype: DType) -> Vec<f64> {
    let mut x = specials(dtype);
    steps.iter().for_each(|&at| x.extend(around(dtype, at)));
    x.extend(data::values(&data::random(
        500,
        3,
        3.0,
        dtype,
        &Device::Cpu,
    )));
    // whole numbers, halves, and where every number is whole
    x.extend((-40..40).map(|i| f64::from(i) / 2.0));
    x.extend([
        1024.5,
        2047.0,
        8_388_607.5,
        16_777_217.0,
        4_503_599_627_370_495.5,
    ]);
    data::values(&data::tensor(&x, x.len(), dtype, &Device::Cpu))
}

fn gradient(x: &Tensor, w: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Option<Tensor> {
    let x = Var::from_tensor(x).unwrap();
    let loss = (f(x.as_tensor()).unwrap() * w).unwrap().sum_all().unwrap();
    loss.backward().unwrap().get(x.as_tensor()).cloned()
}

#[test]
fn every_step_at_and_around_its_edges() {
    for device in devices() {
        for dtype in FLOATS {
            for (name, op, want, edges) in STEPS {
                let x = inputs(edges, dtype);
                let n = x.len();
                let y = op(&data::tensor(&x, n, dtype, &device), Surrogate::Identity).unwrap();
                assert_eq!((y.dims(), y.dtype()), (&[n][..], dtype));
                let want: Vec<f64> = x
                    .iter()
                    .map(|&x| if x.is_nan() { x } else { want(x) })
                    .collect();
                let want = data::values(&data::tensor(&want, n, dtype, &Device::Cpu));
                for ((x, got), want) in x.iter().zip(data::values(&y)).zip(want) {
                    // next to halfway between two levels, but not on it, either is right
                    let near = edges
                        .iter()
                        .any(|e| x != e && (x - e).abs() <= 4e-7 * e.abs());
                    if name == "quantize" && near {
                        assert!((got - want).abs() <= 2.0, "{dtype:?} {x:e}: {got:e}");
                        continue;
                    }
                    let same = got == want || (got.is_nan() && want.is_nan());
                    assert!(same, "{name} {dtype:?} of {x:e}: {got:e}, not {want:e}");
                    // of a zero too, as in PyTorch
                    if matches!(name, "round" | "floor" | "ceil") && !x.is_nan() {
                        assert_eq!(
                            got.is_sign_negative(),
                            want.is_sign_negative(),
                            "{name} {dtype:?} of {x:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn halves_go_to_the_even_integer() {
    let x = Tensor::new(&[-2.5f32, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], &Device::Cpu).unwrap();
    let y = round(&x, Surrogate::Identity)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert_eq!(y, [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0, 4.0]);
}

#[test]
fn gradients_pass_straight_through_or_through_a_window() {
    for device in devices() {
        for dtype in FLOATS {
            for (name, op, _, edges) in STEPS {
                let mut x = inputs(edges, dtype);
                let bounds = [
                    (-1.0, 1.0),
                    (0.5, 0.5),
                    (f64::NEG_INFINITY, 2.0),
                    (-2.0, f64::INFINITY),
                ];
                bounds.iter().for_each(|&(low, high)| {
                    for bound in [low, high].into_iter().filter(|b| b.is_finite()) {
                        x.extend(around(dtype, bound));
                    }
                });
                let n = x.len();
                let g = data::random(n, 7, 1.0, dtype, &device);
                let xt = data::tensor(&x, n, dtype, &device);
                let got = gradient(&xt, &g, |x| op(x, Surrogate::Identity)).expect("a gradient");
                data::assert_same(&got, &g, || format!("{name} {dtype:?}"));
                let g_values = data::values(&g);
                for (low, high) in bounds {
                    let clipped = Surrogate::Clipped { low, high };
                    let got = gradient(&xt, &g, |x| op(x, clipped)).expect("a gradient");
                    assert_eq!((got.dims(), got.dtype()), (&[n][..], dtype));
                    for (i, got) in data::values(&got).into_iter().enumerate() {
                        let want = if (low..=high).contains(&x[i]) {
                            g_values[i]
                        } else {
                            0.0
                        };
                        let same = got == want || (got.is_nan() && x[i].is_nan());
                        assert!(
                            same,
                            "{name} {dtype:?} {low} {high} at {:e}: {got:e}, not {want:e}",
                            x[i]
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn candle_itself_gives_no_gradient_and_this_does() {
    let x = data::random(40, 1, 2.0, DType::F32, &Device::Cpu);
    let w = x.ones_like().unwrap();
    let pairs: [(Plain, Apply); 4] = [
        (|x| x.round(), round),
        (|x| x.floor(), floor),
        (|x| x.ceil(), ceil),
        (|x| x.sign(), sign),
    ];
    for (theirs, ours) in pairs {
        assert!(gradient(&x, &w, theirs).is_none());
        let got = gradient(&x, &w, |x| ours(x, Surrogate::Identity)).expect("a gradient");
        assert_eq!(data::values(&got), [1.0; 40]);
    }
    // and an arg-max has none to give
    assert!(
        gradient(&x, &w, |x| x
            .argmax(0)?
            .to_dtype(DType::F32)?
            .broadcast_as(40))
        .is_none()
    );
    assert!(gradient(&x, &w, |x| one_hot(x, 0)).is_some());
}

#[test]
fn quantized_values_are_levels_and_the_ends_are_the_bounds() {
    for device in devices() {
        for dtype in FLOATS {
            for (low, high, levels) in [
                (-1.0, 1.0, 3),
                (-1.0, 1.0, 15),
                (0.0, 1.0, 256),
                (-0.7, 0.9, 17),
                (0.1, 0.3, 2),
                (-3.0, 5.0, 16),
            ] {
                let x = data::random(2000, 5, 1.5, dtype, &device);
                let y =
                    data::values(&quantize(&x, low, high, levels, Surrogate::Identity).unwrap());
                let step = (high - low) / (levels - 1) as f64;
                let unit = if dtype == DType::F64 { 1e-14 } else { 1e-6 };
                for (x, y) in data::values(&x).into_iter().zip(&y) {
                    let level = ((y - low) / step).round();
                    let slack = unit * (low.abs() + high.abs())
                        + if unit > 1e-7 {
                            1.01 * data::half_ulp(dtype, *y)
                        } else {
                            0.0
                        };
                    assert!((0.0..levels as f64).contains(&level));
                    assert!(
                        (low + level * step - y).abs() <= slack,
                        "{dtype:?} {low} {high} {levels}: {y:e}"
                    );
                    assert!(
                        (x.clamp(low, high) - y).abs() <= step / 2.0 + slack,
                        "{dtype:?} {x:e}: {y:e}"
                    );
                }
                if low == -high && levels % 2 == 1 {
                    let zeros = data::tensor(&[0.0, -0.0, step / 3.0], 3, dtype, &device);
                    let zeros = quantize(&zeros, low, high, levels, Surrogate::Identity).unwrap();
                    assert_eq!(data::values(&zeros), [0.0; 3], "{dtype:?} {levels}");
                }
                let ends = data::tensor(
                    &[f64::NEG_INFINITY, -9.0, 9.0, f64::INFINITY],
                    4,
                    dtype,
                    &device,
                );
                let ends =
                    data::values(&quantize(&ends, low, high, levels, Surrogate::Identity).unwrap());
                let want = data::values(&data::tensor(
                    &[low, low, high, high],
                    4,
                    dtype,
                    &Device::Cpu,
                ));
                assert_eq!(ends, want, "{dtype:?}");
                let mut seen: Vec<u64> = y.iter().map(|y| y.to_bits()).collect();
                seen.sort_unstable();
                seen.dedup();
                assert!(
                    seen.len() <= levels && seen.len() >= levels.min(9),
                    "{}",
                    seen.len()
                );
            }
        }
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in [&[9][..], &[5, 12], &[3, 4, 5], &[40, 300]] {
            for dtype in FLOATS {
                let x = data::random(shape, 1, 2.0, dtype, &device);
                let g = data::random(shape, 2, 1.0, dtype, &device);
                let window = Surrogate::Clipped {
                    low: -1.0,
                    high: 1.0,
                };
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for (op, apply, ..) in STEPS {
                        let of = |x: &Tensor| apply(x, window).unwrap();
                        data::assert_same(&of(&view), &of(&copy), || {
                            format!("{op} {shape:?} {dtype:?} {name}")
                        });
                    }
                }
                let v = Var::from_tensor(&x).unwrap();
                let (last, wt) = (shape.len() - 1, g.transpose(0, shape.len() - 1).unwrap());
                let y = round(&v.transpose(0, last).unwrap(), window).unwrap();
                let grads = (y * wt).unwrap().sum_all().unwrap().backward().unwrap();
                let want = gradient(&x, &g, |x| round(x, window)).unwrap();
                data::assert_same(grads.get(v.as_tensor()).unwrap(), &want, || {
                    format!("{shape:?} {dtype:?}")
                });
            }
        }
    }
}

#[test]
fn bad_arguments_are_refused() {
    let x = data::random(4, 1, 1.0, DType::F32, &Device::Cpu);
    for (name, op, ..) in STEPS {
        for (low, high) in [
            (1.0, 0.0),
            (f64::NAN, 1.0),
            (0.0, f64::NAN),
            (f64::INFINITY, f64::INFINITY),
        ] {
            let shown = format!("low is {low} and high is {high}");
            refused(op(&x, Surrogate::Clipped { low, high }), name, &[&shown]);
        }
        let ints = Tensor::zeros(4, DType::I64, &Device::Cpu).unwrap();
        refused(op(&ints, Surrogate::Identity), name, &["I64"]);
        let none = Tensor::zeros((3, 0), DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(op(&none, Surrogate::Identity).unwrap().dims(), [3, 0]);
        assert!(!op(&x, Surrogate::Identity).unwrap().track_op());
    }
    let id = Surrogate::default();
    refused(
        binarize(&x, f64::NAN, id),
        "binarize",
        &["threshold", "NaN"],
    );
    refused(
        quantize(&x, 1.0, 1.0, 4, id),
        "quantize",
        &["low is 1", "high is 1"],
    );
    refused(
        quantize(&x, -f64::MAX, f64::MAX, 4, id),
        "quantize",
        &["low"],
    );
    refused(
        quantize(&x, 0.0, f64::INFINITY, 4, id),
        "quantize",
        &["high", "inf"],
    );
    // What the dtype cannot hold would make every level infinite, or NaN.
    for (low, high) in [(-3e38, 3e38), (0.0, 1e-40), (1e39, 2e39), (-1e300, 1e300)] {
        let shown = format!("low is {low} and high is {high}");
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let x = data::random(4, 1, 1.0, dtype, &Device::Cpu);
            refused(quantize(&x, low, high, 5, id), "quantize", &[&shown]);
        }
        let x = data::tensor(&[low, high], 2, DType::F64, &Device::Cpu);
        let y = data::values(&quantize(&x, low, high, 5, id).unwrap());
        assert_eq!(y, [low, high]);
    }
    for levels in [0, 1, (1 << 24) + 1, usize::MAX] {
        refused(
            quantize(&x, 0.0, 1.0, levels, id),
            "quantize",
            &["levels", &levels.to_string()],
        );
    }
    quantize(&x, 0.0, 1.0, 1 << 24, id).unwrap();
    refused(one_hot(&x, 1), "one_hot", &["1"]);
    let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
    refused(one_hot(&empty, 1), "one_hot", &["dim 1", "empty"]);
    assert_eq!(one_hot(&empty, 0).unwrap().dims(), [3, 0]);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for dtype in FLOATS {
        let x = inputs(&[0.5, 1.0], dtype);
        let x = data::tensor(&x, x.len(), dtype, &Device::Cpu);
        let all = || STEPS.map(|(_, op, ..)| data::bits(&op(&x, Surrogate::Identity).unwrap()));
        let levels = bits::levels();
        let want = bits::with_level(levels[0], all);
        for level in levels {
            assert!(bits::with_level(level, all) == want, "{dtype:?} {level}");
        }
    }
}
