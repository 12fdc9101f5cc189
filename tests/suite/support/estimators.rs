//! One harness for the estimators of a drawn one-hot: each has the forward draw of `gumbel_softmax_st`, and a gradient whose
//! reference is computed here in double precision, in the order of the textbooks.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, decoupled_st, exponential, gumbel, gumbel_rao, gumbel_softmax_st, reinmax,
};

use super::devices::devices;
use super::oracle::{self, Kind, Rows};
use super::{data, gradcheck, layouts, relaxed};
use data::FLOATS;

/// An estimator and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimator {
    ReinMax { tau: f64 },
    Rao { tau: f64, samples: usize },
    Decoupled { forward: f64, backward: f64 },
}

/// What is folded into Gumbel-Rao's key for its noise, as its documentation has it.
const SAMPLES: u64 = 0x4775_6D62_656C_5261;

impl Estimator {
    pub fn apply(self, x: &Tensor, dim: usize, key: Key) -> Result<Tensor> {
        match self {
            Estimator::ReinMax { tau } => reinmax(x, tau, dim, key),
            Estimator::Rao { tau, samples } => gumbel_rao(x, tau, samples, dim, key),
            Estimator::Decoupled { forward, backward } => {
                decoupled_st(x, forward, backward, dim, key)
            }
        }
    }

    /// The one-hot that the estimator draws, by other means.
    pub fn drawn(self, x: &Tensor, dim: usize, key: Key) -> Result<Tensor> {
        match self {
            Estimator::Decoupled { forward, .. } => {
                let wide = x.to_dtype(data::compute(x.dtype()))?;
                gumbel_softmax_st(&(wide / forward)?, 1.0, dim, key)?.to_dtype(x.dtype())
            }
            _ => gumbel_softmax_st(x, 1.0, dim, key),
        }
    }

    /// The gradient of `sum(w * one-hot)` in double precision.
    pub fn reference(self, x: &Tensor, drawn: &[f64], w: &[f64], dim: usize, key: Key) -> Vec<f64> {
        let rows = Rows::of(x, dim);
        let logits = data::values(x);
        match self {
            Estimator::ReinMax { tau } => rows.map(&logits, |row, z| {
                reinmax_row(z, &rows.row(drawn, row), &rows.row(w, row), tau)
            }),
            Estimator::Rao { tau, samples } => {
                let noise = rao_noise(x, samples, key);
                rows.map(&logits, |row, z| {
                    let hot = oracle::argmax(&rows.row(drawn, row));
                    let e: Vec<_> = noise.iter().map(|e| rows.row(e, row)).collect();
                    rao_row(z, hot, &rows.row(w, row), tau, &e)
                })
            }
            Estimator::Decoupled { backward, .. } => {
                let wide = data::compute(x.dtype());
                let g = gumbel(x.shape(), wide, &Device::Cpu, key).unwrap();
                let g = data::values(&g);
                rows.map(&logits, |row, z| {
                    let noise = rows.row(&g, row);
                    let z: Vec<f64> = z.iter().zip(noise).map(|(z, g)| z / backward + g).collect();
                    let y = Kind::Softmax.forward(&z, 1.0);
                    let d = jacobian_times(&y, &rows.row(w, row));
                    d.into_iter().map(|d| d / backward).collect()
                })
            }
        }
    }
}

/// `J(p) g`, each pair of classes on its own, so that nothing cancels.
fn jacobian_times(p: &[f64], g: &[f64]) -> Vec<f64> {
    if p.len() > 600 {
        let top = oracle::argmax(p);
        let h: Vec<f64> = g.iter().map(|v| v - g[top]).collect();
        let mean = oracle::dot(p, &h);
        return p.iter().zip(&h).map(|(p, h)| p * (h - mean)).collect();
    }
    let pull = |i: usize| oracle::sum((0..p.len()).map(|j| p[j] * (g[i] - g[j])));
    (0..p.len()).map(|i| p[i] * pull(i)).collect()
}

/// `2 J(s) g - J(pi) g / 2`.
pub fn reinmax_row(z: &[f64], drawn: &[f64], g: &[f64], tau: f64) -> Vec<f64> {
    let pi = Kind::Softmax.forward(z, 1.0);
    let q = Kind::Softmax.forward(z, tau);
    let s: Vec<f64> = q.iter().zip(drawn).map(|(q, d)| (q + d) / 2.0).collect();
    let (first, second) = (jacobian_times(&s, g), jacobian_times(&pi, g));
    first
        .iter()
        .zip(second)
        .map(|(a, b)| 2.0 * a - b / 2.0)
        .collect()
}

/// The key of each sample's noise.
pub fn rao_key(key: Key, k: usize) -> Key {
    let folded = key.fold_in(SAMPLES);
    let stream = folded.stream.wrapping_add(k as u64) & (u64::MAX >> 1);
    Key::new(folded.seed, stream)
}

/// The exponential variates of every sample, those of the public op.
pub fn rao_noise(x: &Tensor, samples: usize, key: Key) -> Vec<Vec<f64>> {
    (0..samples)
        .map(|k| {
            let wide = data::compute(x.dtype());
            let e = exponential(x.shape(), wide, &Device::Cpu, rao_key(key, k)).unwrap();
            data::values(&e)
        })
        .collect()
}

/// Scores given that `hot` is the largest, from exponential variates.
pub fn conditional_scores(z: &[f64], hot: usize, e: &[f64]) -> Vec<f64> {
    let log_z = oracle::log_sum_exp(z);
    let ceiling = e[hot].ln() - log_z;
    (0..z.len())
        .map(|j| {
            if j == hot {
                return -ceiling;
            }
            let own = e[j].ln() - z[j];
            let (high, low) = (own.max(ceiling), own.min(ceiling));
            -(high + (low - high).exp().ln_1p())
        })
        .collect()
}

fn rao_row(z: &[f64], hot: usize, g: &[f64], tau: f64, noise: &[Vec<f64>]) -> Vec<f64> {
    let mut total = vec![0.0; z.len()];
    for e in noise {
        let y = Kind::Softmax.forward(&conditional_scores(z, hot, e), tau);
        for (total, d) in total.iter_mut().zip(jacobian_times(&y, g)) {
            *total += d / (tau * noise.len() as f64);
        }
    }
    total
}

/// The gradient of `sum(w * estimator(x))`.
pub fn gradient(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor, w: &Tensor) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let y = f(x.as_tensor()).unwrap();
    let store = (y * w).unwrap().sum_all().unwrap().backward().unwrap();
    store.get(x.as_tensor()).expect("a gradient").clone()
}

/// How far a gradient may be from double precision, relative to the row's largest entry.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 4e-6,
        DType::F16 => 1.1e-3,
        _ => 8.1e-3,
    }
}

/// The estimator's gradient against the reference.
#[track_caller]
pub fn check_gradient(est: Estimator, x: &Tensor, dim: usize, key: Key) {
    let w = relaxed::weights(x.dims(), 7, x.dtype(), x.device());
    let got = gradient(|x| est.apply(x, dim, key), x, &w);
    assert_eq!((got.dims(), got.dtype()), (x.dims(), x.dtype()));
    let drawn = data::values(&est.drawn(x, dim, key).unwrap());
    let want = est.reference(x, &drawn, &data::values(&w), dim, key);
    let rows = Rows::of(x, dim);
    let label = format!("{est:?} {:?} {:?} dim {dim}", x.dims(), x.dtype());
    // What a half type cannot hold is lost to it.
    let floor = if x.dtype() == DType::F16 { 1e-4 } else { 1e-9 };
    let compare = |got: &[f64]| gradcheck::compare(got, &want, &rows, tolerance(x.dtype()), floor);
    if let Err(e) = compare(&data::values(&got)) {
        panic!("{label}: {e}");
    }
    assert!(
        compare(&vec![0.0; want.len()]).is_err(),
        "{label}: zeros would pass"
    );
}

/// The forward result has the bits of `gumbel_softmax_st`, for every dtype and dim.
pub fn check_forward(est: Estimator, shapes: &[&[usize]]) {
    for device in devices() {
        for &shape in shapes {
            for dtype in FLOATS {
                for dim in 0..shape.len() {
                    let x = data::random(shape, 8, 2.0, dtype, &device);
                    let key = Key::new(31, dim as u64);
                    let got = est.apply(&x, dim, key).unwrap();
                    let want = est.drawn(&x, dim, key).unwrap();
                    data::assert_same(&got, &want, || format!("{est:?} {shape:?} {dtype:?}"));
                }
            }
        }
    }
}

/// Forward and backward of every layout have the bits of its contiguous copy.
pub fn check_layouts(est: Estimator) {
    let key = Key::new(21, 3);
    for device in devices() {
        for shape in [
            &[3, 5][..],
            &[2, 3, 4],
            &[5, 130, 7],
            &[2, 4100],
            &[4, 33, 66],
        ] {
            for dtype in FLOATS {
                let x = data::random(shape, 4, 2.0, dtype, &device);
                let w = relaxed::weights(shape, 2, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    let copy = view.force_contiguous().unwrap();
                    for dim in 0..shape.len() {
                        let label = || format!("{est:?} {shape:?} {dtype:?} {name} dim {dim}");
                        let grad = |x: &Tensor, w: &Tensor| {
                            let d = est.apply(x, dim, key).unwrap();
                            match est {
                                // It has no kernel of its own: through autograd, of a view of a variable.
                                Estimator::Decoupled { .. } => Ok(d),
                                Estimator::ReinMax { tau } => {
                                    candle_reparam::bits::reinmax_gradient(x, &d, w, tau, dim)
                                }
                                Estimator::Rao { tau, samples } => {
                                    let how = (tau, samples as u32);
                                    candle_reparam::bits::gumbel_rao_gradient(
                                        x, &d, w, how, dim, key,
                                    )
                                }
                            }
                            .unwrap()
                        };
                        let want = grad(&copy, &w);
                        data::assert_same(&grad(&view, &w), &want, label);
                        // The gradient that arrives may lie in memory in another way, too.
                        let turned = w.t().unwrap().force_contiguous().unwrap().t().unwrap();
                        data::assert_same(&grad(&copy, &turned), &want, label);
                    }
                }
            }
        }
    }
}

/// Masks have no part, broken rows are NaN alone.
pub fn check_masks_and_broken_rows(est: Estimator) {
    let ninf = f64::NEG_INFINITY;
    let key = Key::new(9, 9);
    for device in devices() {
        for dtype in FLOATS {
            for (outer, len, inner) in [
                (7, 11, 1),
                (6, 300, 1),
                (6, 4200, 1),
                (5, 11, 4),
                (5, 90, 17),
            ] {
                let rows = Rows { outer, len, inner };
                let mut v = data::normals(outer * len * inner, 3, 1.0);
                let mask = |i: usize| (i / inner) % 3 == 1;
                for (i, v) in v.iter_mut().enumerate() {
                    if mask(i) {
                        *v = ninf;
                    }
                }
                let shape = (outer, len, inner);
                let clean = data::tensor(&v, shape, dtype, &device);
                check_gradient(est, &clean, 1, key);
                let broken = [(0, ninf), (1, f64::NAN), (rows.count() - 1, f64::INFINITY)];
                for (row, value) in broken {
                    for k in 0..len {
                        if value == ninf || k == len / 2 {
                            v[rows.at(row, k)] = value;
                        }
                    }
                }
                let x = data::tensor(&v, shape, dtype, &device);
                let w = relaxed::weights(x.dims(), 4, dtype, &device);
                let y = data::values(&est.apply(&x, 1, key).unwrap());
                let g = data::values(&gradient(|x| est.apply(x, 1, key), &x, &w));
                let healthy = data::values(&gradient(|x| est.apply(x, 1, key), &clean, &w));
                for row in 0..rows.count() {
                    let bad = broken.iter().any(|(r, _)| *r == row);
                    for k in 0..len {
                        let at = rows.at(row, k);
                        let label = format!("{est:?} {dtype:?} {shape:?} row {row} entry {k}");
                        if bad {
                            assert!(y[at].is_nan() && g[at].is_nan(), "{label}");
                        } else {
                            assert_eq!(g[at], healthy[at], "{label}");
                            if mask(at) {
                                assert_eq!((y[at], g[at]), (0.0, 0.0), "{label}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Zero elements, one class, and results that nothing learns.
pub fn check_small_things(est: Estimator) {
    let key = Key::new(1, 1);
    for device in devices() {
        for dtype in FLOATS {
            for (shape, dim) in [(&[0, 4][..], 1), (&[4, 0], 0), (&[3, 0, 4], 2)] {
                let x = Tensor::zeros(shape, dtype, &device).unwrap();
                let g = gradient(|x| est.apply(x, dim, key), &x, &x);
                assert_eq!((g.dims(), g.dtype()), (shape, dtype));
            }
            let x = data::random((5, 1), 1, 1.0, dtype, &device);
            let w = relaxed::weights(&[5, 1], 1, dtype, &device);
            let y = data::values(&est.apply(&x, 1, key).unwrap());
            let g = data::values(&gradient(|x| est.apply(x, 1, key), &x, &w));
            assert_eq!((y, g), (vec![1.0; 5], vec![0.0; 5]), "{est:?} {dtype:?}");
        }
    }
    let x = data::random((5, 8), 1, 1.0, DType::F32, &Device::Cpu);
    assert!(!est.apply(&x, 1, key).unwrap().track_op());
}

/// `E_D [ estimate ]` over the classes, each with its probability, for a loss with gradient `g(D)`.
pub fn expected(
    z: &[f64],
    g: impl Fn(&[f64]) -> Vec<f64>,
    estimate: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
) -> Vec<f64> {
    let n = z.len();
    let pi = oracle::probabilities(z);
    let mut total = vec![0.0; n];
    for hot in 0..n {
        let mut d = vec![0.0; n];
        d[hot] = 1.0;
        let t = |v: &[f64]| data::tensor(v, (1, n), DType::F64, &Device::Cpu);
        let e = data::values(&estimate(&t(z), &t(&d), &t(&g(&d))));
        for (total, e) in total.iter_mut().zip(e) {
            *total += pi[hot] * e;
        }
    }
    total
}

/// The gradient of `E_D f(D)` to the logits: `J(pi)` times the losses of the classes.
pub fn true_gradient(z: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let n = z.len();
    let losses: Vec<f64> = (0..n)
        .map(|hot| {
            let mut d = vec![0.0; n];
            d[hot] = 1.0;
            f(&d)
        })
        .collect();
    jacobian_times(&oracle::probabilities(z), &losses)
}

/// The largest difference, relative to the largest entry.
pub fn off(got: &[f64], want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0);
    let worst = got
        .iter()
        .zip(want)
        .fold(0.0_f64, |m, (g, w)| m.max((g - w).abs()));
    worst / largest
}
