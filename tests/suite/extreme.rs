//! The largest element of a row: `subgradient::{max, min}` and `straight_through::one_hot`.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits;
use candle_reparam::straight_through::one_hot;
use candle_reparam::subgradient::{max, min};

use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::layouts;
use crate::support::oracle::Rows;
use crate::support::refused;

/// Shapes and dims that between them take every path on both devices.
const ROWS: [(&[usize], usize); 22] = [
    (&[1], 0),
    (&[7], 0),
    (&[5, 1], 1),
    (&[7, 3], 1),
    (&[33, 10], 1),
    (&[9, 32], 1),
    (&[3, 61], 1),
    (&[3, 129], 1),
    (&[2, 1023], 1),
    (&[2, 1030], 1),
    (&[2, 4097], 1),
    (&[1, 9001], 1),
    (&[5, 3], 0),
    (&[40, 64], 0),
    (&[4, 9, 7], 1),
    (&[2, 33, 16], 1),
    (&[2, 300, 17], 1),
    (&[3, 5, 40], 1),
    (&[2, 3, 4, 5], 2),
    (&[1000, 3], 0),
    (&[1, 4, 3000], 1),
    (&[300, 1, 2], 1),
];

fn gradient(x: &Tensor, w: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let loss = (f(x.as_tensor()).unwrap() * w).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    grads.get(x.as_tensor()).expect("a gradient").clone()
}

/// Whole numbers, so that many tie, and in some rows infinities or one NaN.
fn tied(shape: &[usize], dim: usize, dtype: DType) -> Vec<f64> {
    let n: usize = shape.iter().product();
    let mut x: Vec<f64> = data::normals(n, 9, 2.0)
        .into_iter()
        .map(f64::round)
        .collect();
    let rows = Rows::new(shape, dim);
    for row in 0..rows.count() {
        match row % 9 {
            2 => (0..rows.len).for_each(|k| x[rows.at(row, k)] = f64::NEG_INFINITY),
            4 => x[rows.at(row, rows.len / 2)] = f64::NAN,
            5 => {
                x[rows.at(row, rows.len - 1)] = f64::INFINITY;
                x[rows.at(row, 0)] = f64::INFINITY;
            }
            6 => {
                for k in 0..rows.len {
                    x[rows.at(row, k)] = if k % 2 == 0 { 0.0 } else { -0.0 };
                }
            }
            7 => x[rows.at(row, rows.len / 3)] = f64::NEG_INFINITY,
            _ => {}
        }
    }
    data::values(&data::tensor(&x, n, dtype, &Device::Cpu))
}

/// Largest element (or NaN), how many there are, and the first.
fn reference(row: &[f64], sign: f64) -> (f64, f64, usize) {
    if row.iter().any(|x| x.is_nan()) {
        return (f64::NAN, 0.0, 0);
    }
    let best = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(sign * x));
    let ties = row.iter().filter(|&&x| sign * x == best).count();
    let first = row.iter().position(|&x| sign * x == best).unwrap();
    (sign * best, ties as f64, first)
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

#[test]
fn rows_of_every_length_with_ties() {
    for device in devices() {
        for dtype in FLOATS {
            for (shape, dim) in ROWS {
                let x = tied(shape, dim, dtype);
                let xt = data::tensor(&x, shape, dtype, &device);
                let rows = Rows::new(shape, dim);
                let mut reduced = shape.to_vec();
                reduced.remove(dim);
                let g = data::random(&reduced[..], 4, 1.0, dtype, &device);
                let gv = data::values(&g);
                for (sign, op) in [
                    (1.0, max as fn(&Tensor, usize) -> Result<Tensor>),
                    (-1.0, min),
                ] {
                    let label = format!("{shape:?} {dim} {dtype:?} {sign}");
                    let y = op(&xt, dim).unwrap();
                    assert_eq!((y.dims(), y.dtype()), (&reduced[..], dtype), "{label}");
                    let y = data::values(&y);
                    let d = gradient(&xt, &g, |x| op(x, dim));
                    assert_eq!((d.dims(), d.dtype()), (shape, dtype), "{label}");
                    let d = data::values(&d);
                    for row in 0..rows.count() {
                        let values = rows.row(&x, row);
                        let (best, ties, _) = reference(&values, sign);
                        assert!(
                            same(y[row], best),
                            "{label} row {row}: {:e}, not {best:e}",
                            y[row]
                        );
                        assert!(
                            y[row] != 0.0 || y[row].is_sign_positive(),
                            "{label} row {row}"
                        );
                        // as the op divides: in f32, or in f64
                        let share = if dtype == DType::F64 {
                            gv[row] / ties
                        } else {
                            f64::from(gv[row] as f32 / ties as f32)
                        };
                        let share =
                            data::values(&data::tensor(&[share], 1, dtype, &Device::Cpu))[0];
                        for k in 0..rows.len {
                            let want = if best.is_nan() {
                                best
                            } else if values[k] == best {
                                share
                            } else {
                                0.0
                            };
                            let got = d[rows.at(row, k)];
                            assert!(
                                same(got, want),
                                "{label} row {row} entry {k}: {got:e}, not {want:e}"
                            );
                        }
                    }
                }
                let y = data::values(&one_hot(&xt, dim).unwrap());
                for row in 0..rows.count() {
                    let (best, _, first) = reference(&rows.row(&x, row), 1.0);
                    for k in 0..rows.len {
                        let want = if best.is_nan() {
                            best
                        } else {
                            f64::from(k == first)
                        };
                        assert!(
                            same(y[rows.at(row, k)], want),
                            "one_hot {shape:?} {dim} {dtype:?} row {row} entry {k}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn without_ties_the_gradient_is_candles() {
    for device in devices() {
        for (shape, dim) in ROWS {
            let x = data::random(shape, 3, 1.0, DType::F64, &device);
            let mut reduced = shape.to_vec();
            reduced.remove(dim);
            let g = data::random(&reduced[..], 4, 1.0, DType::F64, &device);
            data::assert_same(&max(&x, dim).unwrap(), &x.max(dim).unwrap(), || {
                format!("{shape:?}")
            });
            data::assert_same(&min(&x, dim).unwrap(), &x.min(dim).unwrap(), || {
                format!("{shape:?}")
            });
            let (got, want) = (
                gradient(&x, &g, |x| max(x, dim)),
                gradient(&x, &g, |x| x.max(dim)),
            );
            assert_eq!(data::values(&got), data::values(&want), "{shape:?}");
            let (got, want) = (
                gradient(&x, &g, |x| min(x, dim)),
                gradient(&x, &g, |x| x.min(dim)),
            );
            assert_eq!(data::values(&got), data::values(&want), "{shape:?}");
        }
    }
}

#[test]
fn one_unit_of_gradient_a_row_however_many_tie() {
    let x = Tensor::zeros((3, 1000), DType::F64, &Device::Cpu).unwrap();
    let w = Tensor::new(&[1f64, 2.0, -3.0], &Device::Cpu).unwrap();
    let mass = gradient(&x, &w, |x| max(x, 1))
        .sum(1)
        .unwrap()
        .to_vec1::<f64>()
        .unwrap();
    for (mass, w) in mass.iter().zip([1.0, 2.0, -3.0]) {
        assert!((mass - w).abs() < 1e-12);
    }
    // where candle's grows with their number
    let theirs = gradient(&x, &w, |x| x.max(1))
        .sum(1)
        .unwrap()
        .to_vec1::<f64>()
        .unwrap();
    assert_eq!(theirs, [1000.0, 2000.0, -3000.0]);
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy() {
    for device in devices() {
        for shape in [&[9][..], &[5, 12], &[3, 4, 5], &[2, 300, 17], &[3, 4100]] {
            for dtype in FLOATS {
                let x = tied(shape, shape.len() - 1, dtype);
                let x = data::tensor(&x, shape, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        let label = || format!("{shape:?} {dtype:?} {name} {dim}");
                        data::assert_same(
                            &max(&view, dim).unwrap(),
                            &max(&copy, dim).unwrap(),
                            label,
                        );
                        data::assert_same(
                            &min(&view, dim).unwrap(),
                            &min(&copy, dim).unwrap(),
                            label,
                        );
                        data::assert_same(
                            &one_hot(&view, dim).unwrap(),
                            &one_hot(&copy, dim).unwrap(),
                            label,
                        );
                    }
                }
                // the argument and the gradient as views
                let last = shape.len() - 1;
                let v = Var::from_tensor(&x).unwrap();
                let y = max(&v.transpose(0, last).unwrap(), 0).unwrap();
                let w = data::random(1, 3, 1.0, dtype, &device);
                let w = w.broadcast_as((1, y.elem_count())).unwrap();
                let w = w.reshape(y.shape()).unwrap();
                let loss = (&y * &w).unwrap().sum_all().unwrap();
                let got = loss.backward().unwrap();
                let copy = x.transpose(0, last).unwrap().force_contiguous().unwrap();
                let want = gradient(&copy, &w, |x| max(x, 0));
                let got = got.get(v.as_tensor()).unwrap().transpose(0, last).unwrap();
                data::assert_same(&got.force_contiguous().unwrap(), &want, || {
                    format!("{shape:?} {dtype:?}")
                });
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = data::tensor(&tied(shape, dim, dtype), shape, dtype, &Device::Cpu);
            let all = || {
                let g = max(&x, dim).unwrap().ones_like().unwrap();
                let d = gradient(&x, &g, |x| min(x, dim));
                [max(&x, dim).unwrap(), one_hot(&x, dim).unwrap(), d].map(|t| data::bits(&t))
            };
            let levels = bits::levels();
            let want = bits::with_level(levels[0], all);
            for level in levels {
                assert!(
                    bits::with_level(level, all) == want,
                    "{shape:?} {dtype:?} {level}"
                );
            }
        }
    }
}

#[test]
fn empty_rows_are_refused_and_empty_tensors_are_not() {
    for dtype in FLOATS {
        let x = Tensor::zeros((0, 4), dtype, &Device::Cpu).unwrap();
        assert_eq!(max(&x, 1).unwrap().dims(), [0]);
        assert_eq!(
            gradient(
                &x,
                &Tensor::zeros(0, dtype, &Device::Cpu).unwrap(),
                |x| min(x, 1)
            )
            .dims(),
            [0, 4]
        );
        refused(max(&x, 0), "max", &["dim 0", "empty"]);
        refused(min(&x, 0), "min", &["dim 0", "empty"]);
        refused(max(&x, 2), "max", &["2"]);
    }
}
