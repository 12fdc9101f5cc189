//! `binary_concrete`, `binary_concrete_st`, `hard_concrete` and `hard_concrete_l0`.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, KeySource, Stretch, Temperature, binary_concrete, binary_concrete_st, bits, hard_concrete,
    hard_concrete_l0, logistic,
};

use crate::gumbel_softmax::SHAPES;
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::gradcheck::{self, central};
use crate::support::oracle::Rows;
use crate::support::statistics::{ks, poisson_p};
use crate::support::{layouts, oracle, philox, refused};

const KEY: Key = Key::new(4, 9);
const STRETCH: (f64, f64) = (-0.1, 1.1);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    Relaxed,
    StraightThrough,
    Hard,
    Open,
}

impl Gate {
    pub const ALL: [Gate; 4] = [Gate::Relaxed, Gate::StraightThrough, Gate::Hard, Gate::Open];

    pub fn name(self) -> &'static str {
        match self {
            Gate::Relaxed => "binary_concrete",
            Gate::StraightThrough => "binary_concrete_st",
            Gate::Hard => "hard_concrete",
            Gate::Open => "hard_concrete_l0",
        }
    }

    pub fn apply(
        self,
        x: &Tensor,
        tau: impl Into<Temperature>,
        key: impl Into<KeySource>,
    ) -> Result<Tensor> {
        match self {
            Gate::Relaxed => binary_concrete(x, tau, key),
            Gate::StraightThrough => binary_concrete_st(x, tau, key),
            Gate::Hard => hard_concrete(x, tau, STRETCH, key),
            Gate::Open => hard_concrete_l0(x, tau, STRETCH),
        }
    }

    /// The argument of the sigmoid.
    fn v(self, a: f64, l: f64, tau: f64) -> f64 {
        match self {
            Gate::Open => a - tau * (-STRETCH.0 / STRETCH.1).ln(),
            _ => (a + l) / tau,
        }
    }

    fn forward(self, a: f64, l: f64, tau: f64) -> f64 {
        let y = sigmoid(self.v(a, l, tau));
        match self {
            Gate::Relaxed | Gate::Open => y,
            Gate::StraightThrough => f64::from(u8::from(a + l > 0.0)),
            Gate::Hard => (STRETCH.0 + (STRETCH.1 - STRETCH.0) * y).clamp(0.0, 1.0),
        }
    }

    /// What the gradient is the derivative of.
    fn relaxed(self, a: f64, l: f64, tau: f64) -> f64 {
        match self {
            Gate::StraightThrough => Gate::Relaxed.forward(a, l, tau),
            _ => self.forward(a, l, tau),
        }
    }

    /// The derivatives by the logit and by the temperature.
    fn slopes(self, a: f64, l: f64, tau: f64) -> (f64, f64) {
        let v = self.v(a, l, tau);
        let e = (-v.abs()).exp();
        let slope = e / (1.0 + e).powi(2);
        match self {
            Gate::Open => (slope, -slope * (-STRETCH.0 / STRETCH.1).ln()),
            Gate::Relaxed | Gate::StraightThrough => (slope / tau, -slope * v / tau),
            Gate::Hard => {
                let width = STRETCH.1 - STRETCH.0;
                let z = STRETCH.0 + width * sigmoid(v);
                let inside = f64::from(u8::from(z > 0.0 && z < 1.0));
                let slope = inside * width * slope;
                (slope / tau, -slope * v / tau)
            }
        }
    }

    /// Whether rounding may decide if this element is clamped.
    fn at_an_edge(self, a: f64, l: f64, tau: f64) -> bool {
        let z = STRETCH.0 + (STRETCH.1 - STRETCH.0) * sigmoid(self.v(a, l, tau));
        self == Gate::Hard && (z.abs() < 1e-5 || (z - 1.0).abs() < 1e-5)
    }
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 {
        x.exp() / (1.0 + x.exp())
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// The noise of the key, in the dtype the crate computes in.
fn noise(x: &Tensor, key: Key) -> Vec<f64> {
    data::values(&logistic(x.shape(), data::compute(x.dtype()), x.device(), key).unwrap())
}

fn base(dtype: DType) -> f64 {
    if dtype == DType::F64 { 4e-16 } else { 2e-7 }
}

fn rounding(dtype: DType, value: f64) -> f64 {
    if matches!(dtype, DType::F16 | DType::BF16) {
        data::half_ulp(dtype, value) * 1.001
    } else {
        0.0
    }
}

#[track_caller]
fn check_forward(gate: Gate, x: &Tensor, taus: &[f64], got: &Tensor, label: &str) {
    assert_eq!((got.dims(), got.dtype()), (x.dims(), x.dtype()), "{label}");
    assert!(got.is_contiguous());
    let (got, a, l) = (data::values(got), data::values(x), noise(x, KEY));
    for i in 0..got.len() {
        let tau = taus[i % taus.len()];
        let want = gate.forward(a[i], l[i], tau);
        let v = gate.v(a[i], l[i], tau);
        // the offset of the open gates is added to the logit, and may cancel
        let scale = if gate == Gate::Open {
            a[i].abs() + 3.0 * tau
        } else {
            v.abs()
        };
        let fine = base(x.dtype()) * (3.0 + scale);
        let fine = if gate == Gate::Hard {
            5.0 * base(x.dtype())
        } else {
            fine * want
        };
        // below the smallest normal number digits go
        let allowed = fine + rounding(x.dtype(), want) + 1e-44;
        assert!(
            (got[i] - want).abs() <= allowed,
            "{gate:?} {label} {:?} {i}: {:e}, not {want:e} at v = {v}",
            x.dtype(),
            got[i]
        );
    }
}

#[test]
fn samples_are_the_formula_at_the_noise_of_the_key() {
    for device in devices() {
        for dtype in FLOATS {
            for gate in Gate::ALL {
                for (i, shape) in SHAPES.into_iter().enumerate() {
                    let tau = [0.1, 0.5, 2.0 / 3.0, 1.0, 5.0][i % 5];
                    let x = data::random(shape, 1, 3.0, dtype, &device);
                    let got = gate.apply(&x, tau, KEY).unwrap();
                    check_forward(gate, &x, &[tau], &got, &format!("{shape:?}"));
                }
                for n in (1..40).chain([255, 257, 4095, 4097, 100_003]) {
                    let x = data::random(n, 2, 10.0, dtype, &device);
                    let got = gate.apply(&x, 0.4, KEY).unwrap();
                    check_forward(gate, &x, &[0.4], &got, &format!("{n}"));
                }
            }
        }
    }
}

#[test]
fn a_tensor_of_temperatures_broadcasts() {
    // every dtype holds these
    let taus: Vec<f64> = (0..60).map(|i| 0.25 + f64::from(i % 8) * 0.25).collect();
    for device in devices() {
        for dtype in FLOATS {
            let x = data::random((3, 4, 5), 1, 2.0, dtype, &device);
            for gate in Gate::ALL {
                for shape in [
                    &[][..],
                    &[1],
                    &[5],
                    &[4, 1],
                    &[4, 5],
                    &[3, 1, 1],
                    &[1, 4, 1],
                    &[3, 4, 5],
                    &[1, 1, 1, 1],
                ] {
                    let n: usize = shape.iter().product();
                    let tau = data::tensor(&taus[..n], shape, dtype, &device);
                    let each = if n == 1 {
                        vec![taus[0]; 60]
                    } else {
                        data::values(&tau.broadcast_as((3, 4, 5)).unwrap())
                    };
                    let got = gate.apply(&x, &tau, KEY).unwrap();
                    check_forward(gate, &x, &each, &got, &format!("tau {shape:?}"));
                    // in any layout
                    for (name, view) in layouts::variants(&tau) {
                        let got = gate.apply(&x, &view, KEY).unwrap();
                        let want = gate
                            .apply(&x, view.force_contiguous().unwrap(), KEY)
                            .unwrap();
                        data::assert_same(&got, &want, || format!("{gate:?} {shape:?} {name}"));
                    }
                }
                // a number and a tensor that holds it
                let a = gate.apply(&x, 0.75, KEY).unwrap();
                let b = data::tensor(&[0.75], (), dtype, &device);
                let b = gate.apply(&x, &b, KEY).unwrap();
                for (a, b) in data::values(&a).into_iter().zip(data::values(&b)) {
                    assert!(
                        (a - b).abs() <= 8.0 * base(dtype) + rounding(dtype, a) * 2.0,
                        "{a} {b}"
                    );
                }
            }
        }
    }
}

#[test]
fn it_is_the_sigmoid_of_the_logits_plus_noise() {
    for dtype in [DType::F32, DType::F64] {
        let x = data::random((30, 40), 1, 2.0, dtype, &Device::Cpu);
        let l = logistic(x.shape(), dtype, x.device(), KEY).unwrap();
        let composed = candle_nn::ops::sigmoid(&((&x + l).unwrap() / 0.3).unwrap()).unwrap();
        let got = binary_concrete(&x, 0.3, KEY).unwrap();
        for (g, w) in data::values(&got).into_iter().zip(data::values(&composed)) {
            assert!((g - w).abs() <= 10.0 * base(dtype), "{g} {w}");
        }
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in [&[9][..], &[5, 12], &[3, 4, 5], &[2, 1, 3, 4], &[40, 300]] {
            for dtype in FLOATS {
                let x = data::random(shape, 1, 2.0, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for gate in Gate::ALL {
                        let got = gate.apply(&view, 0.7, KEY).unwrap();
                        let want = gate.apply(&copy, 0.7, KEY).unwrap();
                        data::assert_same(&got, &want, || format!("{gate:?} {shape:?} {name}"));
                    }
                }
            }
        }
    }
}

// ---- gradients

/// Gradients of `sum(w f(x, tau))` to both.
fn gradients(gate: Gate, x: &Tensor, tau: &Tensor, w: &Tensor) -> (Tensor, Tensor) {
    let (x, tau) = (Var::from_tensor(x).unwrap(), Var::from_tensor(tau).unwrap());
    let y = gate.apply(x.as_tensor(), tau.as_tensor(), KEY).unwrap();
    let store = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| store.get(v.as_tensor()).expect("a gradient").clone();
    (of(&x), of(&tau))
}

/// The gradient to the logits with a number for a temperature.
fn fixed_gradient(gate: Gate, x: &Tensor, tau: f64, w: &Tensor) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let y = gate.apply(x.as_tensor(), tau, KEY).unwrap();
    let store = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
    store.get(x.as_tensor()).expect("a gradient").clone()
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-9,
        DType::F32 => 2e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    }
}

/// What part of the largest gradient an element's is compared with at least: the relaxed gate's own is from a sample that is
/// rounded where the dtype is wide.
fn floor(gate: Gate, dtype: DType, otherwise: f64) -> f64 {
    match (gate, dtype) {
        (Gate::Relaxed, DType::F32 | DType::F64) => 0.3,
        _ => otherwise,
    }
}

/// Every element is a row of its own here, so each is compared relative to itself; `floor` is where that ends.
#[track_caller]
fn elementwise(
    got: &Tensor,
    want: &[f64],
    edges: &[bool],
    tolerance: f64,
    floor: f64,
    label: &str,
) {
    let got = data::values(got);
    let keep = |v: &[f64]| -> Vec<f64> {
        let kept = v.iter().zip(edges).filter(|(_, edge)| !**edge);
        kept.map(|(v, _)| *v).collect()
    };
    let (got, want) = (keep(&got), keep(want));
    let rows = Rows {
        outer: 1,
        len: want.len(),
        inner: 1,
    };
    gradcheck::compare(&got, &want, &rows, 1.0, floor).unwrap_or_else(|e| panic!("{label}: {e}"));
    let largest = want.iter().fold(0.0_f64, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * (w.abs() + floor * largest),
            "{label} {i}: {g:e}, not {w:e}"
        );
    }
}

#[test]
fn gradients_match_central_differences() {
    for device in devices() {
        for dtype in FLOATS {
            for gate in Gate::ALL {
                for shape in [&[40][..], &[9, 12], &[3, 17, 5], &[4099]] {
                    let x = data::random(shape, 1, 2.0, dtype, &device);
                    let w = data::random(shape, 3, 1.0, dtype, &device);
                    let label = format!("{gate:?} {shape:?} {dtype:?}");
                    let (a, l, wv) = (data::values(&x), noise(&x, KEY), data::values(&w));
                    let taus: Vec<f64> =
                        (0..a.len()).map(|i| 0.5 + (i % 7) as f64 * 0.25).collect();
                    let tau = data::tensor(&taus, shape, dtype, &device);
                    let (dx, dtau) = gradients(gate, &x, &tau, &w);
                    assert_eq!((dx.dims(), dx.dtype()), (shape, dtype), "{label}");
                    assert_eq!((dtau.dims(), dtau.dtype()), (shape, dtype), "{label}");
                    let edges: Vec<bool> = (0..a.len())
                        .map(|i| gate.at_an_edge(a[i], l[i], taus[i]))
                        .collect();
                    assert!(edges.iter().filter(|e| **e).count() <= a.len() / 100);
                    let by = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).collect::<Vec<f64>>();
                    // a central difference across the clamp is no derivative
                    let near = |i: usize| {
                        [-0.01, 0.01].map(|d| gate.slopes(a[i] + d, l[i], taus[i]).0 == 0.0)
                    };
                    let edges: Vec<bool> = (0..a.len())
                        .map(|i| gate == Gate::Hard && near(i)[0] != near(i)[1] || edges[i])
                        .collect();
                    let want =
                        by(&|i| central(1e-3, |d| wv[i] * gate.relaxed(a[i] + d, l[i], taus[i])));
                    elementwise(
                        &dx,
                        &want,
                        &edges,
                        tolerance(dtype),
                        floor(gate, dtype, 1e-2),
                        &label,
                    );
                    let near = |i: usize| {
                        [-0.01, 0.01].map(|d| gate.slopes(a[i], l[i], taus[i] + d).0 == 0.0)
                    };
                    let edges: Vec<bool> = (0..a.len())
                        .map(|i| gate == Gate::Hard && near(i)[0] != near(i)[1] || edges[i])
                        .collect();
                    let want =
                        by(&|i| central(1e-3, |d| wv[i] * gate.relaxed(a[i], l[i], taus[i] + d)));
                    elementwise(
                        &dtau,
                        &want,
                        &edges,
                        tolerance(dtype),
                        1e-2,
                        &format!("{label} tau"),
                    );
                    let dx = fixed_gradient(gate, &x, 0.8, &w);
                    let edges: Vec<bool> = (0..a.len())
                        .map(|i| gate.at_an_edge(a[i], l[i], 0.8))
                        .collect();
                    let want = by(&|i| wv[i] * gate.slopes(a[i], l[i], 0.8).0);
                    elementwise(
                        &dx,
                        &want,
                        &edges,
                        tolerance(dtype),
                        floor(gate, dtype, 1e-3),
                        &format!("{label} fixed"),
                    );
                }
            }
        }
    }
}

#[test]
fn a_temperature_that_is_broadcast_gets_the_sum() {
    for device in devices() {
        for (dtype, tolerance) in [
            (DType::F64, 1e-12),
            (DType::F32, 1e-5),
            (DType::F16, 2e-3),
            (DType::BF16, 1.2e-2),
        ] {
            let shape = [3, 4, 50];
            let x = data::random(&shape[..], 1, 1.0, dtype, &device);
            let w = data::random(&shape[..], 2, 1.0, dtype, &device);
            let (a, l, wv) = (data::values(&x), noise(&x, KEY), data::values(&w));
            for gate in Gate::ALL {
                for tau_shape in [
                    &[][..],
                    &[1],
                    &[50],
                    &[4, 1],
                    &[3, 1, 1],
                    &[1, 4, 50],
                    &[1, 1, 1, 1],
                ] {
                    let n: usize = tau_shape.iter().product();
                    let taus: Vec<f64> = (0..n).map(|i| 0.5 + (i % 8) as f64 * 0.125).collect();
                    let tau = data::tensor(&taus, tau_shape, dtype, &device);
                    let (_, got) = gradients(gate, &x, &tau, &w);
                    assert_eq!((got.dims(), got.dtype()), (tau_shape, dtype));
                    // a row of one element each: the entry that it uses
                    let aligned = if tau_shape.len() > 3 {
                        &[][..]
                    } else {
                        tau_shape
                    };
                    let entry = entries(aligned, &shape);
                    let (mut want, mut size) = (vec![0.0; n], vec![0.0; n]);
                    for i in 0..a.len() {
                        let slope = wv[i] * gate.slopes(a[i], l[i], taus[entry[i]]).1;
                        want[entry[i]] += slope;
                        size[entry[i]] += slope.abs();
                    }
                    let weighty = size.iter().filter(|s| **s > 0.05).count();
                    assert!(
                        2 * weighty >= n,
                        "{gate:?} {tau_shape:?}: a reference of zeros"
                    );
                    for (k, got) in data::values(&got).into_iter().enumerate() {
                        assert!(
                            (got - want[k]).abs() <= tolerance * size[k],
                            "{gate:?} {dtype:?} {tau_shape:?} {k}: {got:e}, not {:e} of {:e}",
                            want[k],
                            size[k]
                        );
                    }
                }
            }
        }
    }
}

/// For each element of `dims`, the entry of a tensor of shape `small` that is broadcast to it.
fn entries(small: &[usize], dims: &[usize]) -> Vec<usize> {
    let n: usize = dims.iter().product();
    let shift = dims.len() - small.len();
    (0..n)
        .map(|flat| {
            let (mut rest, mut coordinates) = (flat, vec![0; dims.len()]);
            for d in (0..dims.len()).rev() {
                coordinates[d] = rest % dims[d];
                rest /= dims[d];
            }
            small.iter().enumerate().fold(0, |at, (d, &size)| {
                at * size + if size == 1 { 0 } else { coordinates[d + shift] }
            })
        })
        .collect()
}

#[test]
fn one_temperature_of_many_elements_is_summed_in_full_precision() {
    let n = 1 << 18;
    let x = data::random(n, 1, 1.0, DType::F32, &Device::Cpu)
        .to_dtype(DType::BF16)
        .unwrap();
    for (dtype, tolerance) in [
        (DType::F64, 1e-12),
        (DType::F32, 2e-6),
        (DType::F16, 6e-4),
        (DType::BF16, 4e-3),
    ] {
        let x = x.to_dtype(dtype).unwrap();
        let (a, l) = (data::values(&x), noise(&x, KEY));
        let slope = |i: usize| Gate::Relaxed.slopes(a[i], l[i], 0.5).1;
        let want = oracle::sum((0..n).map(|i| slope(i).abs()));
        // signs that leave nothing to cancel
        let signs: Vec<f64> = (0..n).map(|i| slope(i).signum()).collect();
        let w = (data::tensor(&signs, n, DType::F64, &Device::Cpu) / 64.0)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();

        let tau = data::tensor(&[0.5], (), dtype, &Device::Cpu);
        let (_, got) = gradients(Gate::Relaxed, &x, &tau, &w);
        let got = data::values(&got)[0] * 64.0;
        assert!(
            (got - want).abs() <= tolerance * want,
            "{dtype:?}: {got}, not {want}"
        );
    }
}

#[test]
fn a_straight_through_gate_has_the_gradient_of_the_relaxed_one() {
    for device in devices() {
        for dtype in FLOATS {
            let x = data::random((13, 37), 1, 2.0, dtype, &device);
            let w = data::random((13, 37), 2, 1.0, dtype, &device);
            let tau = data::tensor(&[0.75], 1, dtype, &device);
            let hot = gradients(Gate::StraightThrough, &x, &tau, &w);
            let relaxed = gradients(Gate::Relaxed, &x, &tau, &w);
            data::assert_same(&hot.1, &relaxed.1, || format!("{dtype:?} tau"));
            let fixed = fixed_gradient(Gate::StraightThrough, &x, 0.75, &w);
            let relaxed_fixed = fixed_gradient(Gate::Relaxed, &x, 0.75, &w);
            for (hot, relaxed) in [(&hot.0, &relaxed.0), (&fixed, &relaxed_fixed)] {
                if matches!(dtype, DType::F16 | DType::BF16) {
                    data::assert_same(hot, relaxed, || format!("{dtype:?}"));
                    continue;
                }
                // The one from the noise, the other from a rounded sample.
                let want = data::values(hot);
                elementwise(
                    relaxed,
                    &want,
                    &vec![false; want.len()],
                    tolerance(dtype),
                    floor(Gate::Relaxed, dtype, 0.0),
                    "relaxed",
                );
            }
        }
    }
}

#[test]
fn the_gradient_of_a_gate_takes_views() {
    for device in devices() {
        for dtype in [DType::F64, DType::F32] {
            let y = data::random((37, 13), 1, 0.2, dtype, &device);
            let y = (y.abs().unwrap() + 0.1).unwrap().t().unwrap();
            let g = data::random((37, 13), 2, 1.0, dtype, &device).t().unwrap();
            let copies = [y.contiguous().unwrap(), g.contiguous().unwrap()];
            for stretch in [None, Some(Stretch::default())] {
                let of = |y: &Tensor, g: &Tensor| bits::gate_gradient(y, g, 0.6, stretch).unwrap();
                let want = of(&copies[0], &copies[1]);
                data::assert_same(&of(&y, &g), &want, || format!("{dtype:?} {stretch:?}"));
                let (low, width) = if stretch.is_some() {
                    (-0.1, 1.2)
                } else {
                    (0.0, 1.0)
                };
                let (want, ys, gs) = (data::values(&want), data::values(&y), data::values(&g));
                for ((got, z), g) in want.into_iter().zip(ys).zip(gs) {
                    let u = (z - low) / width;
                    let inside = stretch.is_none() || (z > 0.0 && z < 1.0);
                    let exact = if inside {
                        u * (1.0 - u) * width * g / 0.6
                    } else {
                        0.0
                    };
                    let off = (got - exact).abs();
                    assert!(
                        off <= tolerance(dtype) * exact.abs() + 1e-9,
                        "{got:e}, not {exact:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn saturated_gates_keep_the_digits_of_their_gradient() {
    // v near +100 and -100, where y rounds to 1, or is 4e-44; a relaxed gate's gradient by its logit is from y, all others from v
    for device in devices() {
        for (dtype, bound, ulp) in [(DType::F64, 1e-12, 1.2e-16), (DType::F32, 1e-4, 6e-8)] {
            let cases = [Gate::Relaxed, Gate::StraightThrough]
                .into_iter()
                .flat_map(|gate| [100.0, -100.0, 60.0, -60.0, 50.0].map(|a| (gate, a)));
            for (gate, a) in cases {
                let from_y = gate == Gate::Relaxed && a > 0.0;
                let slack = if from_y { ulp } else { 0.0 };
                let x = data::tensor(&vec![a; 64], 64, dtype, &device);
                let l = noise(&x, KEY);
                let w = x.ones_like().unwrap();
                // large enough for f32 to have all its digits
                let w = (w * 1e20).unwrap();
                let tau = x.ones_like().unwrap();
                let y = data::values(&binary_concrete(&x, 1.0, KEY).unwrap());
                let (dx, dtau) = gradients(gate, &x, &tau, &w);
                let fixed = data::values(&fixed_gradient(gate, &x, 1.0, &w));
                for (i, (dx, dtau)) in data::values(&dx)
                    .into_iter()
                    .zip(data::values(&dtau))
                    .enumerate()
                {
                    let (want, want_tau) = Gate::Relaxed.slopes(a, l[i], 1.0);
                    let e = (-(a + l[i]).abs()).exp();
                    // f32 has digits down to 1e-38, and something down to 1e-45
                    if e < 1e-36 && dtype == DType::F32 {
                        assert!(
                            (dx / 1e20 - want).abs() <= 1.5e-45 + slack && dx >= 0.0,
                            "{a} {i}: {dx:e} {want:e}"
                        );
                        continue;
                    }
                    assert!(
                        want > 0.0 && (dx / 1e20 - want).abs() <= bound * want + slack,
                        "{a} {i}: {dx:e} {want:e}"
                    );
                    assert!(
                        (fixed[i] / 1e20 - want).abs() <= bound * want + slack,
                        "{a} {i} fixed"
                    );
                    assert!(
                        (dtau / 1e20 - want_tau).abs() <= bound * want_tau.abs(),
                        "{a} {i} tau: {dtau:e}"
                    );
                    let (got, want) = if a > 0.0 {
                        (1.0 - y[i], 0.0)
                    } else {
                        (y[i], e / (1.0 + e))
                    };
                    assert!(
                        (got - want).abs() <= bound * want + 1e-15,
                        "{a} {i}: {got:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn infinities_are_certain_and_what_is_no_number_stays_alone() {
    let special = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
    for device in devices() {
        for dtype in FLOATS {
            let mut v = data::normals(100, 1, 1.0);
            let clean = data::tensor(&v, 100, dtype, &device);
            for (i, s) in special.into_iter().enumerate() {
                v[30 + 20 * i] = s;
            }
            let x = data::tensor(&v, 100, dtype, &device);
            let w = data::random(100, 2, 1.0, dtype, &device);
            for gate in Gate::ALL {
                for tau in [1e-300, 1e-30, 0.5, 1e30, 1e300] {
                    let (got, want) = (
                        gate.apply(&x, tau, KEY).unwrap(),
                        gate.apply(&clean, tau, KEY).unwrap(),
                    );
                    let (got, want) = (data::values(&got), data::values(&want));
                    for i in 0..100 {
                        match i {
                            30 => assert_eq!(got[i], 0.0, "{gate:?} {dtype:?} {tau}"),
                            50 => assert_eq!(got[i], 1.0, "{gate:?} {dtype:?} {tau}"),
                            70 => assert!(got[i].is_nan(), "{gate:?} {dtype:?} {tau}"),
                            _ => assert_eq!(got[i], want[i], "{gate:?} {dtype:?} {tau}"),
                        }
                    }
                }
                let tau = data::tensor(&vec![0.5; 100], 100, dtype, &device);
                let (dx, dtau) = gradients(gate, &x, &tau, &w);
                let fixed = fixed_gradient(gate, &x, 0.5, &w);
                for (name, d) in [("logits", dx), ("tau", dtau), ("fixed", fixed)] {
                    let d = data::values(&d);
                    assert!(d[70].is_nan(), "{gate:?} {dtype:?} {name}");
                    assert_eq!((d[30], d[50]), (0.0, 0.0), "{gate:?} {dtype:?} {name}");
                    assert!(
                        d.iter().enumerate().all(|(i, d)| i == 70 || d.is_finite()),
                        "{gate:?} {name}"
                    );
                    assert!(
                        d.iter().filter(|d| **d != 0.0).count() > 40,
                        "{gate:?} {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn temperatures_at_the_ends_of_the_range() {
    for dtype in [DType::F32, DType::F64] {
        let x = data::random(200, 1, 1.0, dtype, &Device::Cpu);
        let hot = data::values(&binary_concrete_st(&x, 1.0, KEY).unwrap());
        for tau in [1e-300, 1e-60, 1e-45] {
            assert_eq!(
                data::values(&binary_concrete(&x, tau, KEY).unwrap()),
                hot,
                "{tau:e}"
            );
        }
        for tau in [1e60, 1e300] {
            let y = data::values(&binary_concrete(&x, tau, KEY).unwrap());
            assert!(y.iter().all(|y| *y == 0.5), "{tau:e}");
        }
        let tau = data::tensor(&[1e-38, 1e38], 2, dtype, &Device::Cpu);
        let y = binary_concrete(&x.reshape((100, 2)).unwrap(), &tau, KEY).unwrap();
        for (i, y) in data::values(&y).into_iter().enumerate() {
            assert_eq!(y, if i % 2 == 0 { hot[i] } else { 0.5 }, "{i}");
        }
    }
}

#[test]
fn backward_twice_partial_tracking_and_views() {
    let x = data::random((5, 6), 1, 1.0, DType::F64, &Device::Cpu);
    let tau = data::tensor(&[0.5], (), DType::F64, &Device::Cpu);
    let (xv, tv) = (
        Var::from_tensor(&x).unwrap(),
        Var::from_tensor(&tau).unwrap(),
    );
    for gate in Gate::ALL {
        let loss = |x: &Tensor, tau: &Tensor| {
            // the square of a 0 has no slope, so a shifted one
            let y = gate.apply(x, tau, KEY).unwrap();
            (y + 1.0).unwrap().sqr().unwrap().sum_all().unwrap()
        };
        let both = loss(xv.as_tensor(), tv.as_tensor());
        let (a, b) = (both.backward().unwrap(), both.backward().unwrap());
        for v in [&xv, &tv] {
            let (a, b) = (a.get(v.as_tensor()).unwrap(), b.get(v.as_tensor()).unwrap());
            assert_eq!(data::bits(a), data::bits(b));
        }
        let only = loss(xv.as_tensor(), &tau).backward().unwrap();
        data::assert_same(
            only.get(xv.as_tensor()).unwrap(),
            a.get(xv.as_tensor()).unwrap(),
            || "x".into(),
        );
        assert!(only.get(&tau).is_none());
        let only = loss(&x, tv.as_tensor()).backward().unwrap();
        data::assert_same(
            only.get(tv.as_tensor()).unwrap(),
            a.get(tv.as_tensor()).unwrap(),
            || "tau".into(),
        );
        assert!(only.get(&x).is_none());
        assert!(!gate.apply(&x, &tau, KEY).unwrap().track_op());
        // through views and broadcasts, of logits and of the gradient that arrives
        let w = data::random((6, 5), 3, 1.0, DType::F64, &Device::Cpu);
        let turned = (gate.apply(&xv.as_tensor().t().unwrap(), 0.5, KEY).unwrap() * &w).unwrap();
        let turned = turned.sum_all().unwrap().backward().unwrap();
        let copy = fixed_gradient(gate, &x.t().unwrap().contiguous().unwrap(), 0.5, &w);
        data::assert_same(
            turned.get(xv.as_tensor()).unwrap(),
            &copy.t().unwrap(),
            || "turned".into(),
        );
        let spread = xv
            .as_tensor()
            .narrow(0, 1, 1)
            .unwrap()
            .broadcast_as((6, 6))
            .unwrap();
        let y = gate
            .apply(&spread, 0.5, KEY)
            .unwrap()
            .sum(0)
            .unwrap()
            .sum_all()
            .unwrap();
        let got = data::values(y.backward().unwrap().get(xv.as_tensor()).unwrap());
        let (a, l) = (data::values(&spread), noise(&spread, KEY));
        for j in 0..6 {
            let want = (0..6)
                .map(|i| gate.slopes(a[6 * i + j], l[6 * i + j], 0.5).0)
                .sum::<f64>();
            assert!(
                (got[6 + j] - want).abs() < 1e-12,
                "{gate:?} {j}: {} {want}",
                got[6 + j]
            );
        }
    }
}

#[test]
fn zero_elements() {
    for device in devices() {
        for dtype in FLOATS {
            for gate in Gate::ALL {
                let x = Tensor::zeros((0, 4), dtype, &device).unwrap();
                let tau = Tensor::ones(4, dtype, &device).unwrap();
                let y = gate.apply(&x, 0.5, KEY).unwrap();
                assert_eq!((y.dims(), y.dtype()), (&[0, 4][..], dtype));
                let y = gate.apply(&x, &tau, KEY).unwrap();
                assert_eq!((y.dims(), y.dtype()), (&[0, 4][..], dtype));
            }
        }
    }
}

// ---- distributions

#[test]
fn a_relaxed_gate_has_the_concrete_distribution() {
    let n = 400_000;
    for (k, (a, tau)) in [(0.0, 0.5), (1.5, 0.7), (-2.0, 1.0), (0.3, 4.0)]
        .into_iter()
        .enumerate()
    {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::full(a, n, &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap();
            let y = data::values(&binary_concrete(&x, tau, Key::new(8, k as u64)).unwrap());
            let p = ks(y, |t| {
                if t >= 1.0 {
                    1.0
                } else {
                    sigmoid(tau * (t.ln() - (-t).ln_1p()) - a)
                }
            });
            assert!(p > 1e-4, "{a} {tau} {dtype:?}: p = {p:e}");
        }
    }
}

/// Two-sided p-value of a count of `n` draws of probability `p`.
fn binomial_p(count: u64, n: f64, p: f64) -> f64 {
    let z = (count as f64 - n * p) / (n * p * (1.0 - p)).sqrt();
    oracle::erfc(z.abs() / std::f64::consts::SQRT_2)
}

#[test]
fn a_straight_through_gate_is_open_as_often_as_it_should_be() {
    let n = 1 << 20;
    for device in devices() {
        for dtype in FLOATS {
            for (k, a) in [-4.0, -1.0, 0.0, 0.5, 3.0].into_iter().enumerate() {
                let x = data::tensor(&[a], 1, dtype, &device)
                    .broadcast_as(n)
                    .unwrap();
                let b = data::values(&binary_concrete_st(&x, 0.5, Key::new(9, k as u64)).unwrap());
                assert!(b.iter().all(|b| *b == 0.0 || *b == 1.0));
                let count = b.iter().filter(|b| **b == 1.0).count() as u64;
                let p = binomial_p(count, n as f64, sigmoid(a));
                assert!(p > 1e-4, "{dtype:?} {a}: {count} of {n}, p = {p:e}");
            }
        }
    }
}

#[test]
fn both_tails_are_drawn_as_often_as_they_should_be() {
    // 2^28 draws of probability 1e-7 on either side: 27 of each; a uniform of 24 bits would give 16 of the one, or 32
    let a = 1e-7_f64.ln() - (-1e-7_f64).ln_1p();
    let (pieces, n) = (16_u64, 1_usize << 24);
    let mut counts = [0_u64; 2];
    for (side, a) in [a, -a].into_iter().enumerate() {
        let x = Tensor::new(&[a as f32], &Device::Cpu)
            .unwrap()
            .broadcast_as(n)
            .unwrap();
        for piece in 0..pieces {
            let b = binary_concrete_st(&x, 1.0, Key::new(77, piece)).unwrap();
            let ones = b.sum_all().unwrap().to_dtype(DType::F64).unwrap();
            if side == 0 {
                counts[0] += ones.to_scalar::<f64>().unwrap() as u64;
            } else {
                // counted as zeros: a sum of 2^24 ones is exact, but not one more
                let shut = b
                    .eq(0_f32)
                    .unwrap()
                    .to_dtype(DType::F32)
                    .unwrap()
                    .sum_all()
                    .unwrap();
                counts[1] += shut.to_scalar::<f32>().unwrap() as u64;
            }
        }
    }
    let mean = pieces as f64 * n as f64 * 1e-7;
    for (side, count) in ["open", "shut"].into_iter().zip(counts) {
        let p = poisson_p(count, mean);
        println!("{side}: {count}, expected {mean:.1}, p = {p:.3}");
        assert!(p > 1e-3, "{side}: {count}, expected {mean:.1}: p = {p:e}");
    }
}

#[test]
fn the_rarest_words_open_and_shut_gates_of_probability_1e_10() {
    // words 0 and 0xFFFFFFFE are 33 and 21.5 units of log-odds out
    for device in devices() {
        for (stream, index, word) in philox::rare() {
            let key = Key::new(philox::RARE_SEED, stream);
            let at = |a: f32| {
                let x = Tensor::full(a, index as usize + 1, &device).unwrap();
                let b = data::values(&binary_concrete_st(&x, 1.0, key).unwrap());
                b[index as usize]
            };
            match word {
                0 => assert_eq!((at(22.0), at(64.0 * 0.694)), (0.0, 1.0)),
                0xFFFF_FFFE => assert_eq!((at(-21.0), at(-65.0 * 0.694)), (1.0, 0.0)),
                0x8000_0000 => assert_eq!((at(0.0), at(-1e-3)), (1.0, 0.0)),
                0x7FFF_FFFF => assert_eq!((at(0.0), at(1e-3)), (0.0, 1.0)),
                _ => assert_eq!(at(9.0), 0.0),
            }
        }
    }
}

#[test]
fn hard_gates_are_shut_and_open_as_often_as_they_should_be() {
    let n = 1 << 20;
    for (k, (a, tau, stretch)) in [
        (0.0, 2.0 / 3.0, STRETCH),
        (-1.5, 0.5, STRETCH),
        (2.0, 1.0, (-0.3, 1.2)),
    ]
    .into_iter()
    .enumerate()
    {
        let x = Tensor::full(a as f32, n, &Device::Cpu).unwrap();
        let z = data::values(&hard_concrete(&x, tau, stretch, Key::new(5, k as u64)).unwrap());
        let open = hard_concrete_l0(&x.narrow(0, 0, 1).unwrap(), tau, stretch).unwrap();
        let open = data::values(&open)[0];
        let count = z.iter().filter(|z| **z > 0.0).count() as u64;
        let p = binomial_p(count, n as f64, open);
        assert!(
            p > 1e-4,
            "{a}: {count} open of {n}, expected {open}: p = {p:e}"
        );
        // z = 1 where y is above (1 - low) / (high - low)
        let (low, high): (f64, f64) = stretch;
        let t = (1.0 - low) / (high - low);
        let full = sigmoid(a - tau * (t.ln() - (-t).ln_1p()));
        let count = z.iter().filter(|z| **z == 1.0).count() as u64;
        let p = binomial_p(count, n as f64, full);
        assert!(
            p > 1e-4,
            "{a}: {count} of {n} at 1, expected {full}: p = {p:e}"
        );
    }
}

#[test]
fn a_hard_gate_has_no_gradient_where_it_is_clamped() {
    let x = data::random(4000, 1, 2.0, DType::F32, &Device::Cpu);
    let w = x.ones_like().unwrap();
    let z = data::values(&Gate::Hard.apply(&x, 0.5, KEY).unwrap());
    let d = data::values(&fixed_gradient(Gate::Hard, &x, 0.5, &w));
    let clamped = z.iter().filter(|z| **z == 0.0 || **z == 1.0).count();
    assert!((500..3500).contains(&clamped), "{clamped}");
    for (z, d) in z.into_iter().zip(d) {
        assert_eq!(d == 0.0, z == 0.0 || z == 1.0, "{z} {d:e}");
    }
}

// ---- refusals

#[test]
fn bad_arguments_are_refused_by_name() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    for gate in Gate::ALL {
        let name = gate.name();
        for (tau, shown) in [
            (0.0, "0"),
            (-1.5, "-1.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            refused(gate.apply(&x, tau, KEY), name, &["tau", shown]);
            let t = data::tensor(&[1.0, 2.0, tau, 1.0], 4, DType::F32, &Device::Cpu);
            refused(gate.apply(&x, &t, KEY), name, &["tau", shown]);
        }
        for shape in [&[3][..], &[2, 4], &[3, 4, 1], &[2, 3, 4], &[0]] {
            let t = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            refused(
                gate.apply(&x, &t, KEY),
                name,
                &["tau", &format!("{shape:?}"), "[3, 4]"],
            );
        }
        let t = Tensor::ones((), DType::F64, &Device::Cpu).unwrap();
        refused(gate.apply(&x, &t, KEY), name, &["tau", "F64", "F32"]);
        for dtype in [DType::U32, DType::I64, DType::U8] {
            let x = Tensor::zeros((3, 4), dtype, &Device::Cpu).unwrap();
            refused(
                gate.apply(&x, 1.0, KEY),
                name,
                &["logits", &format!("{dtype:?}")],
            );
        }
        if gate != Gate::Open {
            let key = Key::new(1, 1 << 63);
            refused(
                gate.apply(&x, 1.0, key),
                name,
                &["stream", "9223372036854775808"],
            );
        }
    }
    let limits = [
        (0.0, 1.1),
        (0.1, 1.1),
        (-0.1, 1.0),
        (-0.1, 0.9),
        (f64::NAN, 1.1),
        (-0.1, f64::NAN),
        (f64::NEG_INFINITY, 1.1),
        (-0.1, f64::INFINITY),
        (-1e308, 1e308),
        (-1e39, 1e39),
    ];
    for stretch in limits {
        let shown = [stretch.0.to_string(), stretch.1.to_string()];
        let parts = ["stretch", &shown[0], &shown[1]];
        refused(
            hard_concrete(&x, 1.0, stretch, KEY),
            "hard_concrete",
            &parts,
        );
        refused(
            hard_concrete_l0(&x, 1.0, Stretch::from(stretch)),
            "hard_concrete_l0",
            &parts,
        );
    }
}
