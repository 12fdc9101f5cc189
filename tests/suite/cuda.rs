//! The CUDA device against the CPU: noise and indices bit for bit, relaxed samples and gradients within their tolerance, by
//! every path that the kernels have. Without a device these tests have nothing to compare.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_reparam::{
    DeviceKey, DeviceRng, Key, KeySource, Philox4x32, Rng, binary_concrete_st, categorical,
    exponential, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_softmax,
    gumbel_softmax_st, gumbel_top_k, gumbel_top_k_st, improper_rows, logistic, normal, reinmax,
    relaxed_top_k, tempered_log_softmax, tempered_softmax, uniform,
};

use crate::binary_concrete::Gate;
use crate::support::data::{self, FLOATS, assert_same};
use crate::support::devices::cuda;
use crate::support::layouts;
use crate::support::relaxed::Op;

/// Shapes and dims that between them take every path: lanes of a warp of every number, a block for a row of every size,
/// rows of several blocks, columns in groups and one by one, few lines and many, each with rows that begin inside a group.
const ROWS: [(&[usize], usize); 22] = [
    (&[5, 1], 1),
    (&[7, 3], 1),
    (&[33, 10], 1),
    (&[9, 32], 1),
    (&[3, 61], 1),
    (&[4, 125], 1),
    (&[3, 128], 1),
    (&[3, 129], 1),
    (&[2, 1000], 1),
    (&[3, 1024], 1),
    (&[2, 4097], 1),
    (&[2, 8192], 1),
    (&[3, 8203], 1),
    (&[2, 20001], 1),
    (&[1, 40000], 1),
    (&[5, 7, 3], 1),
    (&[2, 40, 17], 1),
    (&[3, 9, 64], 1),
    (&[2, 300, 8], 1),
    (&[1, 2500, 3], 1),
    (&[2, 1100, 16], 1),
    (&[4, 3, 5, 2], 0),
];

fn logits(shape: &[usize], dtype: DType) -> Tensor {
    data::random(shape, shape.len() as u64 + 5, 2.0, dtype, &Device::Cpu)
}

/// Runs `f` on the CPU and on the device, where there is one.
fn both(f: impl Fn(&Device) -> Result<Tensor>) -> Option<(Tensor, Tensor)> {
    let device = cuda()?;
    Some((f(&Device::Cpu).unwrap(), f(&device).unwrap()))
}

#[track_caller]
pub fn same(label: &str, f: impl Fn(&Device) -> Result<Tensor>) {
    if let Some((want, got)) = both(f) {
        assert_same(&got, &want, || label.to_string());
    }
}

/// Within `tolerance` of the largest magnitude in the row, or without a dim in the tensor, and one rounding of a half type; not a
/// number where the CPU says so.
#[track_caller]
pub fn close(
    label: &str,
    dim: Option<usize>,
    tolerance: f64,
    f: impl Fn(&Device) -> Result<Tensor>,
) {
    let Some((want, got)) = both(f) else { return };
    assert_eq!(
        (got.dims(), got.dtype()),
        (want.dims(), want.dtype()),
        "{label}"
    );
    let dtype = want.dtype();
    let half = matches!(dtype, DType::F16 | DType::BF16);
    // Rows last, so that each is a run.
    let (want, got) = match dim {
        Some(dim) => {
            let last = want.rank() - 1;
            let rows = |t: &Tensor| t.transpose(dim, last).unwrap().contiguous().unwrap();
            (rows(&want), rows(&got))
        }
        None => (want, got),
    };
    let len = match dim {
        Some(_) => want.dims()[want.rank() - 1],
        None => want.elem_count(),
    };
    let (want, got) = (data::values(&want), data::values(&got));
    for (row, (want, got)) in want.chunks(len).zip(got.chunks(len)).enumerate() {
        let largest = want
            .iter()
            .filter(|v| v.is_finite())
            .fold(0.0, |m: f64, v| m.max(v.abs()));
        for (k, (w, g)) in want.iter().zip(got).enumerate() {
            let rounding = if half {
                2.1 * data::half_ulp(dtype, *w)
            } else {
                0.0
            };
            let fine = (w - g).abs() <= tolerance * largest + rounding
                || w == g
                || (w.is_nan() && g.is_nan());
            assert!(
                fine,
                "{label} {dtype:?}: row {row} entry {k}: {g:e}, not {w:e}, largest {largest:e}"
            );
        }
    }
}

fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 4e-14 } else { 4e-6 }
}

#[test]
fn noise_has_the_bits_of_the_cpu() {
    for dtype in FLOATS {
        for n in [1, 2, 3, 4, 5, 7, 8, 9, 1000, 4099] {
            for key in [
                Key::new(0, 0),
                Key::new(u64::MAX, (1 << 63) - 1),
                Key::new(42, 1 << 32),
            ] {
                let label = format!("{dtype:?} {n} {key:?}");
                same(&label, |d| uniform(n, dtype, d, key));
                same(&label, |d| gumbel(n, dtype, d, key));
                same(&label, |d| normal(n, dtype, d, key));
                same(&label, |d| exponential(n, dtype, d, key));
                same(&label, |d| logistic(n, dtype, d, key));
            }
        }
        let key = Key::new(1, 2);
        same("many", |d| gumbel((70, 1001), dtype, d, key));
        same("many", |d| exponential((70, 1001), dtype, d, key));
        same("many", |d| logistic((70, 1001), dtype, d, key));
    }
}

#[test]
fn small_words_are_refined_on_the_device_too() {
    if cuda().is_none() {
        return;
    }
    // One word in 16 million is that small: the first block of one stream in 4 million.
    let mut found = 0;
    for stream in 0_u64..60_000_000 {
        let words = Philox4x32::block([0, 0, stream as u32, (stream >> 32) as u32], [7, 0]);
        let Some(at) = words.iter().position(|w| *w < 256) else {
            continue;
        };
        found += 1;
        let key = Key::new(7, stream);
        for dtype in FLOATS {
            same("uniform", |d| uniform(4, dtype, d, key));
            same("gumbel", |d| gumbel(4, dtype, d, key));
            same("exponential", |d| exponential(4, dtype, d, key));
            same("logistic", |d| logistic(4, dtype, d, key));
        }
        // The variate that it makes, about 17, wins every race that it takes part in.
        for (shape, dim) in [
            (&[1, 4][..], 1),
            (&[1, 600], 1),
            (&[4, 1], 0),
            (&[2, 2], 0),
            (&[1, 4, 1], 1),
        ] {
            same("race", |d| {
                gumbel_max(&Tensor::zeros(shape, DType::F32, d)?, dim, key)
            });
        }
        let one = gumbel_max(
            &Tensor::zeros((1, 4), DType::F32, &cuda().unwrap()).unwrap(),
            1,
            key,
        );
        assert_eq!(data::indices(&one.unwrap()), [at]);
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn words_at_either_end_and_at_the_centre_are_those_of_the_cpu() {
    for (stream, index, _) in crate::support::philox::rare() {
        let key = Key::new(crate::support::philox::RARE_SEED, stream);
        for dtype in FLOATS {
            let n = index as usize + 1;
            same("exponential", |d| exponential(n, dtype, d, key));
            same("logistic", |d| logistic(n, dtype, d, key));
        }
    }
}

#[test]
fn indices_are_those_of_the_cpu_by_every_path() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            let key = Key::new(3, shape[0] as u64);
            let label = format!("{shape:?} {dtype:?}");
            same(&label, |d| gumbel_max(&x.to_device(d)?, dim, key));
            let len = x.dims()[dim];
            // Those that lanes draw and those that they do not, and so many that a row is sorted.
            for k in [1, 8.min(len), 65.min(len), 1025.min(len)] {
                same(&label, |d| gumbel_top_k(&x.to_device(d)?, k, dim, key));
            }
            same(&label, |d| {
                gumbel_top_k_st(&x.to_device(d)?, len.div_ceil(2), 0.7, dim, key)
            });
            same(&label, |d| {
                gumbel_softmax_st(&x.to_device(d)?, 0.7, dim, key)
            });
            for stream in 0..4 {
                same(&label, |d| {
                    categorical(&x.to_device(d)?, dim, Key::new(5, stream))
                });
            }
        }
    }
}

#[test]
fn one_row_of_many_elements_takes_many_blocks() {
    for dtype in [DType::F32, DType::BF16] {
        let x = logits(&[1, 150_001], dtype);
        same("one", |d| gumbel_max(&x.to_device(d)?, 1, Key::new(3, 3)));
        same("one", |d| {
            gumbel_softmax_st(&x.to_device(d)?, 1.0, 1, Key::new(3, 3))
        });
        same("one", |d| categorical(&x.to_device(d)?, 1, Key::new(3, 3)));
        for k in [50, 1000, 5000] {
            let key = Key::new(3, 3);
            same("one", |d| gumbel_top_k(&x.to_device(d)?, k, 1, key));
        }
    }
}

#[test]
fn a_word_at_the_boundary_of_two_tiles_chooses_as_on_the_cpu() {
    let Some(device) = cuda() else { return };
    // Tiles of equal weight whose boundaries lie at multiples of 1/16: a word within rounding of one must be decided by sums
    // in the CPU's order. Streams whose first word is that near to a multiple of 2^28 are sought.
    let x = Tensor::zeros((1, 16 * 1024), DType::F32, &Device::Cpu).unwrap();
    let there = x.to_device(&device).unwrap();
    let mut tried = 0;
    for stream in 0_u64..30_000_000 {
        let word = Philox4x32::block([0, 0, stream as u32, 0], [9, 0])[0];
        let off = word.wrapping_add(1 << 27) % (1 << 28);
        if off.abs_diff(1 << 27) < 60 {
            tried += 1;
            let key = Key::new(9, stream);
            assert_same(
                &categorical(&there, 1, key).unwrap(),
                &categorical(&x, 1, key).unwrap(),
                || format!("stream {stream}, word {word:#x}"),
            );
        }
    }
    assert!(tried >= 5, "{tried}");
}

#[test]
fn relaxed_samples_are_near_those_of_the_cpu_by_every_path() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            let key = Key::new(4, 4);
            let label = format!("{shape:?}");
            let t = tolerance(dtype);
            for tau in [0.3, 1.0, 5.0] {
                close(&label, Some(dim), t, |d| {
                    gumbel_softmax(&x.to_device(d)?, tau, dim, key)
                });
                close(&label, Some(dim), t, |d| {
                    tempered_softmax(&x.to_device(d)?, tau, dim)
                });
                close(&label, Some(dim), t, |d| {
                    tempered_log_softmax(&x.to_device(d)?, tau, dim)
                });
            }
        }
    }
}

/// Gradients of `sum(w f(x, tau))` to both, on a device.
fn gradients(op: Op, x: &Tensor, dim: usize, d: &Device, to_tau: bool) -> Result<Tensor> {
    let x = Var::from_tensor(&x.to_device(d)?)?;
    let mut shape = x.dims().to_vec();
    shape[dim] = 1;
    let rows: usize = shape.iter().product();
    let taus: Vec<f64> = (0..rows).map(|i| 0.5 + (i % 7) as f64 * 0.25).collect();
    let tau = Var::from_tensor(&data::tensor(&taus, shape, x.dtype(), d))?;
    let w = data::random(x.shape(), 99, 1.0, x.dtype(), &Device::Cpu).to_device(d)?;
    let key = Key::new(8, 1);
    let y = if to_tau {
        op.apply(x.as_tensor(), tau.as_tensor(), dim, key)?
    } else {
        op.apply(x.as_tensor(), 0.6, dim, key)?
    };
    let grads = (y * w)?.sum_all()?.backward()?;
    let of = if to_tau { &tau } else { &x };
    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
}

#[test]
fn gradients_are_near_those_of_the_cpu_by_every_path() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            for op in Op::ALL {
                let label = format!("{op:?} {shape:?}");
                // A result that differs in its last digit is differentiated as it is.
                let t = match dtype {
                    DType::F64 => 1e-12,
                    DType::F32 => 1e-5,
                    DType::F16 => 4e-3,
                    _ => 3e-2,
                };
                close(&label, Some(dim), t, |d| gradients(op, &x, dim, d, false));
                let label = format!("{label} tau");
                close(&label, None, 20.0 * t, |d| gradients(op, &x, dim, d, true));
            }
        }
    }
}

#[test]
fn gradients_of_the_estimators_are_near_those_of_the_cpu_by_every_path() {
    type Estimator = fn(&Tensor, usize) -> Result<Tensor>;
    let key = Key::new(8, 2);
    let estimators: [(&str, Estimator); 4] = [
        ("reinmax", |x, dim| reinmax(x, 1.0, dim, Key::new(8, 2))),
        ("reinmax at 2", |x, dim| {
            reinmax(x, 2.0, dim, Key::new(8, 2))
        }),
        ("gumbel_rao", |x, dim| {
            gumbel_rao(x, 1.0, 3, dim, Key::new(8, 2))
        }),
        ("gumbel_rao at 0.4", |x, dim| {
            gumbel_rao(x, 0.4, 2, dim, Key::new(8, 2))
        }),
    ];
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            for (name, op) in estimators {
                let label = format!("{name} {shape:?}");
                same(&label, |d| {
                    let drawn = op(&x.to_device(d)?, dim)?;
                    let st = gumbel_softmax_st(&x.to_device(d)?, 1.0, dim, key)?;
                    assert_same(&drawn, &st, || label.clone());
                    Ok(drawn)
                });
                close(&label, Some(dim), tolerance(dtype), |d| {
                    let x = Var::from_tensor(&x.to_device(d)?)?;
                    let w = data::random(x.shape(), 9, 1.0, dtype, &Device::Cpu).to_device(d)?;
                    let grads = (op(x.as_tensor(), dim)? * w)?.sum_all()?.backward()?;
                    Ok(grads.get(x.as_tensor()).expect("a gradient").clone())
                });
            }
        }
    }
}

#[test]
fn relaxed_k_hots_and_their_gradients_are_near_those_of_the_cpu_by_every_path() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            let (key, k) = (Key::new(4, 4), x.dims()[dim].min(3));
            let label = format!("{shape:?}");
            for tau in [0.3, 1.0] {
                close(&label, Some(dim), 2.0 * tolerance(dtype), |d| {
                    relaxed_top_k(&x.to_device(d)?, k, tau, dim, key)
                });
            }
            // Half types are computed in f32 from the same logits: one rounding of the result apart.
            let t = if dtype == DType::F64 { 1e-12 } else { 4e-5 };
            let gradient = |d: &Device, to_tau: bool| {
                let x = Var::from_tensor(&x.to_device(d)?)?;
                let mut rows = x.dims().to_vec();
                rows[dim] = 1;
                let taus: Vec<f64> = (0..rows.iter().product())
                    .map(|i: usize| 0.5 + (i % 7) as f64 * 0.25)
                    .collect();
                let tau = Var::from_tensor(&data::tensor(&taus, rows, dtype, d))?;
                let y = relaxed_top_k(x.as_tensor(), k, tau.as_tensor(), dim, key)?;
                let w = data::random(x.shape(), 99, 1.0, dtype, &Device::Cpu).to_device(d)?;
                let grads = (y * w)?.sum_all()?.backward()?;
                let of = if to_tau { &tau } else { &x };
                Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
            };
            close(&label, Some(dim), t, |d| gradient(d, false));
            close(&label, None, 20.0 * t, |d| gradient(d, true));
        }
    }
}

#[test]
fn the_one_hots_gradient_is_that_of_the_relaxed_sample_bit_for_bit() {
    let Some(device) = cuda() else { return };
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            let hot = gradients(Op::StraightThrough, &x, dim, &device, false).unwrap();
            let relaxed = gradients(Op::Gumbel, &x, dim, &device, false).unwrap();
            assert_same(&hot, &relaxed, || format!("{shape:?} {dtype:?}"));
        }
    }
}

#[test]
fn gaussians_are_near_those_of_the_cpu() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let mean = logits(shape, dtype);
            let log_var = data::random(shape, 77, 1.5, dtype, &Device::Cpu);
            let key = Key::new(6, 6);
            let label = format!("{shape:?}");
            let t = tolerance(dtype);
            let at = |d: &Device| {
                Ok::<_, candle_core::Error>((mean.to_device(d)?, log_var.to_device(d)?))
            };
            close(&label, Some(dim), t, |d| {
                at(d).and_then(|(m, l)| gaussian(&m, &l, key))
            });
            close(&label, None, t, |d| {
                at(d).and_then(|(m, l)| gaussian_kl(&m, &l, dim))
            });
            for which in 0..4 {
                let label = format!("{label} gradient {which}");
                close(&label, Some(dim), 2.0 * t, |d| {
                    let (m, l) = at(d)?;
                    let (m, l) = (Var::from_tensor(&m)?, Var::from_tensor(&l)?);
                    let y = match which {
                        0 | 1 => gaussian(m.as_tensor(), l.as_tensor(), key)?,
                        _ => gaussian_kl(m.as_tensor(), l.as_tensor(), dim)?,
                    };
                    let w = data::random(y.shape(), 5, 1.0, dtype, &Device::Cpu).to_device(d)?;
                    let grads = (y * w)?.sum_all()?.backward()?;
                    let of = if which % 2 == 0 { &m } else { &l };
                    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
                });
            }
        }
    }
}

/// The gradient to `x` of a weighed sum of what `f` makes of it.
fn weighed(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = Var::from_tensor(x)?;
    let y = f(x.as_tensor())?;
    let w = data::random(y.shape(), 5, 1.0, y.dtype(), &Device::Cpu).to_device(y.device())?;
    let grads = (y * w)?.sum_all()?.backward()?;
    Ok(grads.get(x.as_tensor()).expect("a gradient").clone())
}

#[test]
fn kinks_and_steps_have_the_bits_of_the_cpu() {
    use candle_reparam::straight_through::{Surrogate, one_hot, quantize, round};
    use candle_reparam::subgradient::{hard_sigmoid, hinge, leaky_relu, max, maximum, min};
    type Op = fn(&Tensor) -> Result<Tensor>;
    let window = |x: &Tensor| {
        quantize(
            x,
            -0.7,
            1.3,
            11,
            Surrogate::Clipped {
                low: -0.7,
                high: 1.3,
            },
        )
    };
    let elementwise: [(&str, Op); 6] = [
        ("hard_sigmoid", |x| hard_sigmoid(x, 0.1)),
        ("leaky_relu", |x| leaky_relu(x, 0.3, None)),
        ("hinge", |x| hinge(x, &x.flip(&[0])?, 0.3, 0.5)),
        ("maximum", |x| maximum(x, &x.flip(&[0])?, 0.3)),
        ("quantize", window),
        ("round", |x| round(x, Surrogate::Identity)),
    ];
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            // coarse, so that there are ties, and not so coarse that there are few values
            let x = ((logits(shape, dtype) * 8.0).unwrap().round().unwrap() * 0.0625).unwrap();
            for (name, op) in elementwise {
                let label = format!("{name} {shape:?}");
                same(&label, |d| op(&x.to_device(d)?));
                same(&format!("gradient of {label}"), |d| {
                    weighed(&x.to_device(d)?, op)
                });
            }
            let label = format!("{shape:?} {dim}");
            same(&format!("max {label}"), |d| max(&x.to_device(d)?, dim));
            same(&format!("min {label}"), |d| min(&x.to_device(d)?, dim));
            same(&format!("one_hot {label}"), |d| {
                one_hot(&x.to_device(d)?, dim)
            });
            same(&format!("gradient of max {label}"), |d| {
                weighed(&x.to_device(d)?, |x| max(x, dim))
            });
        }
    }
}

#[test]
fn pairs_of_views_are_near_those_of_the_cpu() {
    for dtype in FLOATS {
        let a = data::random(&[5, 11], 21, 2.0, dtype, &Device::Cpu);
        let b = data::random(&[5, 11], 22, 2.0, dtype, &Device::Cpu);
        for hinge in [false, true] {
            for second in [false, true] {
                let label = format!("hinge {hinge} of views, gradient of the second {second}");
                close(&label, None, 4.0 * tolerance(dtype), |d| {
                    let a = Var::from_tensor(&a.to_device(d)?)?;
                    let b = Var::from_tensor(&b.to_device(d)?)?;
                    let (x, y) = (a.as_tensor().t()?, b.as_tensor().t()?);
                    let z = match hinge {
                        true => candle_reparam::subgradient::hinge(&x, &y, 1.0, None)?,
                        false => candle_reparam::subgradient::maximum(&x, &y, None)?,
                    };
                    let w = data::random(z.shape(), 5, 1.0, dtype, &Device::Cpu);
                    let grads = (z * w.to_device(d)?)?.sum_all()?.backward()?;
                    let of = if second { &b } else { &a };
                    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
                });
            }
        }
    }
}

#[test]
fn gates_of_views_are_near_those_of_the_cpu() {
    for dtype in FLOATS {
        let x = data::random(&[5, 11], 21, 2.0, dtype, &Device::Cpu);
        let tau = (data::random(&[5, 11], 22, 1.0, dtype, &Device::Cpu)
            .abs()
            .unwrap()
            + 0.5)
            .unwrap();
        for gate in Gate::ALL {
            for which in 0..3 {
                let label = format!("{gate:?} of a view, gradient {which}");
                close(&label, None, 4.0 * tolerance(dtype), |d| {
                    let x = Var::from_tensor(&x.to_device(d)?)?;
                    let tau = Var::from_tensor(&tau.to_device(d)?)?;
                    let (xs, taus) = (x.as_tensor().t()?, tau.as_tensor().t()?);
                    let y = match which {
                        0 => gate.apply(&xs, 0.7, Key::new(6, 8))?,
                        _ => gate.apply(&xs, &taus, Key::new(6, 8))?,
                    };
                    let w = data::random(y.shape(), 5, 1.0, dtype, &Device::Cpu);
                    let grads = (y * w.to_device(d)?)?.sum_all()?.backward()?;
                    let of = if which == 2 { &tau } else { &x };
                    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
                });
            }
        }
    }
}

#[test]
fn gates_are_near_those_of_the_cpu_and_drawn_ones_have_their_bits() {
    for dtype in FLOATS {
        for (shape, dim) in ROWS {
            let x = logits(shape, dtype);
            let tau = logits(shape, dtype).abs().unwrap();
            let tau = (tau + 0.5).unwrap();
            let mut row = vec![1; shape.len()];
            row[shape.len() - 1] = shape[shape.len() - 1];
            let tau_row = tau
                .flatten_all()
                .unwrap()
                .narrow(0, 0, row[shape.len() - 1]);
            let tau_row = tau_row.unwrap().reshape(&row[..]).unwrap();
            let key = Key::new(6, 7);
            let t = tolerance(dtype);
            same("drawn", |d| binary_concrete_st(&x.to_device(d)?, 0.7, key));
            for gate in Gate::ALL {
                let label = format!("{gate:?} {shape:?}");
                close(&label, Some(dim), t, |d| {
                    gate.apply(&x.to_device(d)?, 0.7, key)
                });
                for tau in [&tau, &tau_row] {
                    close(&label, Some(dim), t, |d| {
                        gate.apply(&x.to_device(d)?, &tau.to_device(d)?, key)
                    });
                }
                for which in 0..5 {
                    // A clamp that falls on the other side of a rounding is not a wrong gradient: few are that near.
                    let label = format!("{label} gradient {which}");
                    close(&label, Some(dim), 4.0 * t, |d| {
                        let x = Var::from_tensor(&x.to_device(d)?)?;
                        let tau = if which < 3 { &tau } else { &tau_row };
                        let tau = Var::from_tensor(&tau.to_device(d)?)?;
                        let y = match which {
                            0 => gate.apply(x.as_tensor(), 0.7, key)?,
                            _ => gate.apply(x.as_tensor(), tau.as_tensor(), key)?,
                        };
                        let w = data::random(y.shape(), 5, 1.0, dtype, &Device::Cpu);
                        let grads = (y * w.to_device(d)?)?.sum_all()?.backward()?;
                        let of = if matches!(which, 2 | 4) { &tau } else { &x };
                        let grad = grads.get(of.as_tensor()).expect("a gradient").clone();
                        // A sum over rows rounds in its own order.
                        if which == 4 {
                            grad.broadcast_as(shape)?.contiguous()
                        } else {
                            Ok(grad)
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn gates_of_improper_logits_are_those_of_the_cpu() {
    let special = [
        f64::NEG_INFINITY,
        f64::INFINITY,
        f64::NAN,
        100.0,
        -100.0,
        3e4,
        -3e4,
    ];
    let v: Vec<f64> = (0..70).map(|i| special[i % 7]).collect();
    for dtype in FLOATS {
        let x = data::tensor(&v, 70, dtype, &Device::Cpu);
        for gate in Gate::ALL {
            // Also those whose inverse is no finite f32, or 0.
            for tau in [1e-300, 1e-30, 1.0, 1e30, 1e300] {
                let label = format!("{gate:?} {tau:e}");
                let key = Key::new(3, 1);
                close(&label, None, tolerance(dtype), |d| {
                    gate.apply(&x.to_device(d)?, tau, key)
                });
                close(
                    &format!("gradient of {label}"),
                    None,
                    tolerance(dtype),
                    |d| weighed(&x.to_device(d)?, |x| gate.apply(x, tau, key)),
                );
            }
            close("gradient", None, tolerance(dtype), |d| {
                let x = Var::from_tensor(&x.to_device(d)?)?;
                let tau = Var::from_tensor(&x.ones_like()?)?;
                let y = gate.apply(x.as_tensor(), tau.as_tensor(), Key::new(3, 1))?;
                let grads = y.backward()?;
                let of = |v: &Var| grads.get(v.as_tensor()).expect("a gradient").clone();
                Tensor::cat(&[of(&x), of(&tau)], 0)
            });
        }
    }
}

#[test]
fn gradients_pass_through_views() {
    // A transposed view reaches the backward kernels as it lies.
    for dtype in FLOATS {
        for (rows, columns) in [(7, 5), (33, 64), (1, 300)] {
            let (m, l) = (
                logits(&[rows, columns], dtype),
                logits(&[columns, rows], dtype),
            );
            let l = l.t().unwrap().contiguous().unwrap();
            for which in 0..2 {
                close("views", Some(1), 2.0 * tolerance(dtype), |d| {
                    let (m, l) = (
                        Var::from_tensor(&m.to_device(d)?)?,
                        Var::from_tensor(&l.to_device(d)?)?,
                    );
                    let z = gaussian(&m.t()?, &l.t()?, Key::new(2, 2))?;
                    let w = data::random(z.shape(), 6, 1.0, dtype, &Device::Cpu).to_device(d)?;
                    let grads = (z * w)?.sum_all()?.backward()?;
                    let of = if which == 0 { &m } else { &l };
                    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
                });
            }
        }
    }
}

#[test]
fn every_layout_gives_the_bits_of_its_contiguous_copy_on_the_device() {
    let Some(device) = cuda() else { return };
    let key = Key::new(2, 9);
    for shape in [
        &[3, 5][..],
        &[2, 3, 4],
        &[5, 300, 7],
        &[3, 4100],
        &[4, 33, 16],
    ] {
        for dtype in FLOATS {
            let x = data::random(shape, 4, 1.0, dtype, &device);
            for (name, view) in layouts::variants(&x) {
                let copy = view.force_contiguous().unwrap();
                let check = |what: &str, f: &dyn Fn(&Tensor) -> Result<Tensor>| {
                    assert_same(&f(&view).unwrap(), &f(&copy).unwrap(), || {
                        format!("{what} {shape:?} {dtype:?} {name}")
                    });
                };
                for dim in 0..shape.len() {
                    check("gumbel_max", &|x| gumbel_max(x, dim, key));
                    check("st", &|x| gumbel_softmax_st(x, 1.0, dim, key));
                    check("gumbel_softmax", &|x| gumbel_softmax(x, 0.7, dim, key));
                    check("tempered", &|x| tempered_softmax(x, 0.7, dim));
                    check("log", &|x| tempered_log_softmax(x, 0.7, dim));
                    check("categorical", &|x| categorical(x, dim, key));
                    let k = shape[dim].min(3);
                    check("top k", &|x| gumbel_top_k(x, k, dim, key));
                    check("top k st", &|x| gumbel_top_k_st(x, k, 1.0, dim, key));
                    check("relaxed top k", &|x| relaxed_top_k(x, k, 0.7, dim, key));
                    check("kl", &|x| gaussian_kl(x, x, dim));
                    check("improper", &|x| improper_rows(x, dim));
                }
                check("gaussian", &|x| gaussian(x, x, key));
                for gate in Gate::ALL {
                    check(gate.name(), &|x| gate.apply(x, 0.7, key));
                    let tau = (x.abs().unwrap() + 0.5).unwrap();
                    check(gate.name(), &|x| gate.apply(x, &tau, key));
                }
            }
        }
    }
}

#[test]
fn improper_rows_are_found_and_touch_no_other() {
    let (mask, nan, top) = (f64::NEG_INFINITY, f64::NAN, f64::INFINITY);
    for (len, inner) in [(3, 1), (40, 1), (1500, 1), (9000, 1), (5, 6), (1100, 4)] {
        let rows = 6;
        let mut v = vec![0.25; rows * len * inner];
        for j in 0..inner {
            for k in 0..len {
                v[(len + k) * inner + j] = mask;
            }
            v[(2 * len + len / 2) * inner + j] = nan;
            v[(3 * len + len - 1) * inner + j] = top;
            v[(4 * len) * inner + j] = mask;
        }
        for dtype in FLOATS {
            let x = data::tensor(&v, (rows, len, inner), dtype, &Device::Cpu);
            let label = format!("{len} {inner}");
            same(&label, |d| improper_rows(&x.to_device(d)?, 1));
            let flags = improper_rows(&x, 1)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<u8>()
                .unwrap();
            let want = [0, 1, 1, 1, 0, 0].map(|f| vec![f; inner]).concat();
            assert_eq!(flags, want, "{label} {dtype:?}");
            let t = tolerance(dtype);
            close(&label, Some(1), t, |d| {
                gumbel_softmax(&x.to_device(d)?, 1.0, 1, Key::new(1, 1))
            });
            close(&label, Some(1), t, |d| {
                tempered_log_softmax(&x.to_device(d)?, 1.0, 1)
            });
            close(&label, Some(1), t, |d| {
                gumbel_softmax_st(&x.to_device(d)?, 1.0, 1, Key::new(1, 1))
            });
            // An index is in range, and 0 where there is nothing to draw.
            let Some(device) = cuda() else { continue };
            let there = x.to_device(&device).unwrap();
            for drawn in [
                gumbel_max(&there, 1, Key::new(1, 1)).unwrap(),
                categorical(&there, 1, Key::new(1, 1)).unwrap(),
            ] {
                for (i, flag) in data::indices(&drawn).into_iter().zip(&flags) {
                    assert!(i < len && (*flag == 0 || i == 0), "{label} {dtype:?}: {i}");
                }
            }
        }
    }
}

#[test]
fn a_key_in_device_memory_draws_what_its_value_does() {
    type Noise = fn(usize, DType, &Device, KeySource) -> Result<Tensor>;
    let key = Key::new(0xFEDC_BA98_7654_3210, 0x0123_4567_89AB_CDEF);
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        let there = DeviceKey::new(key, &device).unwrap();
        let x = data::random((6, 50), 1, 1.0, DType::F32, &device);
        let pairs = |a: Result<Tensor>, b: Result<Tensor>| {
            assert_same(&a.unwrap(), &b.unwrap(), || "key".into());
        };
        pairs(
            gumbel(9, DType::F32, &device, &there),
            gumbel(9, DType::F32, &device, key),
        );
        pairs(gumbel_max(&x, 1, &there), gumbel_max(&x, 1, key));
        pairs(categorical(&x, 1, &there), categorical(&x, 1, key));
        pairs(gumbel_top_k(&x, 5, 1, &there), gumbel_top_k(&x, 5, 1, key));
        pairs(
            relaxed_top_k(&x, 5, 0.5, 1, &there),
            relaxed_top_k(&x, 5, 0.5, 1, key),
        );
        pairs(
            gumbel_top_k_st(&x, 5, 0.5, 1, &there),
            gumbel_top_k_st(&x, 5, 0.5, 1, key),
        );
        pairs(
            gumbel_softmax(&x, 0.5, 1, &there),
            gumbel_softmax(&x, 0.5, 1, key),
        );
        pairs(
            gumbel_softmax_st(&x, 0.5, 0, &there),
            gumbel_softmax_st(&x, 0.5, 0, key),
        );
        pairs(gaussian(&x, &x, &there), gaussian(&x, &x, key));
        let noises: [Noise; 5] = [uniform, gumbel, normal, exponential, logistic];
        for noise in noises {
            let of = |key: KeySource| noise(9, DType::F32, &device, key);
            pairs(of((&there).into()), of(key.into()));
        }
        // By the kernels that take one row apart, and by those that sort.
        let long = data::random((1, 20_001), 1, 1.0, DType::F32, &device);
        for k in [5, 2000] {
            pairs(
                gumbel_top_k(&long, k, 1, &there),
                gumbel_top_k(&long, k, 1, key),
            );
        }
        let gradient = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let x = Var::from_tensor(&x)?;
            let grads = (f(x.as_tensor())? * x.as_tensor().detach())?
                .sum_all()?
                .backward()?;
            Ok(grads.get(x.as_tensor()).expect("a gradient").clone())
        };
        pairs(
            gradient(&|x| relaxed_top_k(x, 5, 0.5, 1, &there)),
            gradient(&|x| relaxed_top_k(x, 5, 0.5, 1, key)),
        );
        for gate in Gate::ALL {
            pairs(gate.apply(&x, 0.5, &there), gate.apply(&x, 0.5, key));
            pairs(
                gradient(&|x| gate.apply(x, 0.5, &there)),
                gradient(&|x| gate.apply(x, 0.5, key)),
            );
        }
        // Written again, it draws afresh: what a replayed recording does.
        there.set(Key::new(1, 1)).unwrap();
        pairs(
            gumbel(9, DType::F32, &device, &there),
            gumbel(9, DType::F32, &device, Key::new(1, 1)),
        );

        let (rng, plain) = (DeviceRng::new(3, &device).unwrap(), Rng::new(3));
        for _ in 0..3 {
            let (taken, expected) = (rng.next_key().unwrap(), plain.next_key());
            assert_eq!(taken.get().unwrap(), expected);
            // Backward after further keys were taken still sees the forward pass's noise.
            let logits = Var::from_tensor(&x).unwrap();
            let gradient = |key: KeySource| {
                let y = gumbel_softmax_st(logits.as_tensor(), 0.5, D::Minus1, key).unwrap();
                rng.next_key().unwrap();
                plain.next_key();
                let grads = (y * &x).unwrap().sum_all().unwrap().backward().unwrap();
                grads.get(logits.as_tensor()).unwrap().clone()
            };
            let a = gradient((&taken).into());
            let b = gradient(expected.into());
            assert_same(&a, &b, || "gradient".into());
        }
    }
}

#[test]
fn a_key_on_another_device_is_refused() {
    use crate::support::refused;
    let Some(device) = cuda() else { return };
    let key = DeviceKey::new(Key::new(1, 1), &Device::Cpu).unwrap();
    let x = Tensor::zeros((2, 3), DType::F32, &device).unwrap();
    refused(
        gumbel_max(&x, 1, &key),
        "gumbel_max",
        &["key", "same device"],
    );
    refused(
        gumbel(3, DType::F32, &device, &key),
        "gumbel",
        &["key", "same device"],
    );
    let out_of_range = Key::new(1, 1 << 63);
    refused(
        DeviceKey::new(out_of_range, &device).map(|_| ()),
        "DeviceKey::new",
        &["2^63"],
    );
}

#[test]
fn empty_tensors_launch_nothing() {
    let Some(device) = cuda() else { return };
    let x = Tensor::zeros((0, 5), DType::F32, &device).unwrap();
    let key = Key::new(1, 1);
    assert_eq!(gumbel_softmax(&x, 1.0, 1, key).unwrap().dims(), [0, 5]);
    assert_eq!(gumbel_softmax_st(&x, 1.0, 1, key).unwrap().dims(), [0, 5]);
    assert_eq!(gumbel_max(&x, 1, key).unwrap().dims(), [0]);
    assert_eq!(categorical(&x, 1, key).unwrap().dims(), [0]);
    assert_eq!(gumbel_top_k(&x, 2, 1, key).unwrap().dims(), [0, 2]);
    assert_eq!(relaxed_top_k(&x, 2, 1.0, 1, key).unwrap().dims(), [0, 5]);
    assert_eq!(gumbel_top_k_st(&x, 2, 1.0, 1, key).unwrap().dims(), [0, 5]);
    assert_eq!(tempered_softmax(&x, 1.0, 1).unwrap().dims(), [0, 5]);
    assert_eq!(gaussian(&x, &x, key).unwrap().dims(), [0, 5]);
    assert_eq!(gaussian_kl(&x, &x, 1).unwrap().dims(), [0]);
    assert_eq!(gumbel(0, DType::F32, &device, key).unwrap().dims(), [0]);
    for gate in Gate::ALL {
        assert_eq!(gate.apply(&x, 1.0, key).unwrap().dims(), [0, 5]);
    }
    assert_eq!(improper_rows(&x, 1).unwrap().dims(), [0]);
}
