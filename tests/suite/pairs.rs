//! Kinks of two operands: `subgradient::{hinge, maximum, minimum}`.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::subgradient::{hinge, maximum, minimum};

use crate::subgradient::{agree, inputs, rounded};
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;

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
fn the_gradient_of_a_broadcast_half_is_summed_in_full_precision() {
    // A sum of ones in f16 ends at 2048, one in bf16 at 256.
    let n = 8192;
    for device in devices() {
        for dtype in FLOATS {
            let one = data::tensor(&[3.0], (1, 1), dtype, &device);
            let many = data::random((n, 1), 1, 0.1, dtype, &device);
            let ones = many.ones_like().unwrap();
            let [da, db] = gradients(&many, &one, &ones, |a, b| maximum(a, b, None));
            assert_eq!((da, db), (vec![0.0; n], vec![n as f64]), "{dtype:?}");
            let [da, db] = gradients(&one, &many, &ones, |a, b| minimum(a, b, 0.25));
            assert_eq!((da, db), (vec![0.0], vec![1.0; n]), "{dtype:?}");
            let [da, db] = gradients(&one, &ones, &ones, |a, b| hinge(a, b, 5.0, None));
            assert_eq!((da, db), (vec![-(n as f64)], vec![-3.0; n]), "{dtype:?}");
            // One that tracks nothing changes nothing for the other.
            let v = Var::from_tensor(&one).unwrap();
            let grads = maximum(&many, &v, None)
                .and_then(|y| y.sum_all()?.backward())
                .unwrap();
            assert_eq!(data::values(grads.get(&v).unwrap()), [n as f64]);
            // Nothing at all.
            let none = Tensor::zeros((0, 1), dtype, &device).unwrap();
            let [da, db] = gradients(&none, &one, &none, |a, b| maximum(a, b, None));
            assert_eq!((da, db), (vec![], vec![0.0]), "{dtype:?}");
        }
    }
}
