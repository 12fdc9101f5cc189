//! The same bits for every number of threads and on every instruction set that the machine has.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, bits, categorical, exponential, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_rao,
    gumbel_softmax, gumbel_softmax_st, gumbel_top_k, logistic, normal, reinmax, relaxed_top_k,
    tempered_log_softmax, tempered_softmax, uniform,
};
use rayon::ThreadPoolBuilder;

use crate::binary_concrete::Gate;
use crate::support::data;

const KEY: Key = Key::new(99, 12);

/// Shapes that are cut into pieces in every way: many short rows, long rows, one row, a dim that is not last.
const SHAPES: [(&[usize], usize); 8] = [
    (&[30_001, 3], 1),
    (&[9000, 10], 1),
    (&[700, 257], 1),
    (&[33, 4097], 1),
    (&[1, 200_003], 1),
    (&[3, 3000, 17], 1),
    (&[5000, 33], 0),
    (&[40, 8, 300], 1),
];

fn gradients(y: &Tensor, args: &[&Var], seed: u64) -> Result<Vec<Vec<u64>>> {
    let w = data::random(y.shape(), seed, 1.0, y.dtype(), y.device());
    let store = (y * w)?.sum_all()?.backward()?;
    Ok(args
        .iter()
        .map(|a| data::bits(store.get(a.as_tensor()).expect("a gradient")))
        .collect())
}

/// Everything the crate computes, as bits, for one shape and dtype; each entry with its name.
fn everything(shape: &[usize], dim: usize, dtype: DType) -> Result<Vec<(&'static str, Vec<u64>)>> {
    let device = Device::Cpu;
    let x = Var::from_tensor(&data::random(shape, 1, 2.0, dtype, &device))?;
    let l = Var::from_tensor(&data::random(shape, 2, 1.0, dtype, &device))?;
    let tau = Var::from_tensor(&data::tensor(&[0.6], (), dtype, &device))?;
    let mut out = vec![
        ("uniform", data::bits(&uniform(shape, dtype, &device, KEY)?)),
        ("gumbel", data::bits(&gumbel(shape, dtype, &device, KEY)?)),
        ("normal", data::bits(&normal(shape, dtype, &device, KEY)?)),
        (
            "exponential",
            data::bits(&exponential(shape, dtype, &device, KEY)?),
        ),
        (
            "logistic",
            data::bits(&logistic(shape, dtype, &device, KEY)?),
        ),
        (
            "gumbel_max",
            data::bits(&gumbel_max(x.as_tensor(), dim, KEY)?),
        ),
        (
            "categorical",
            data::bits(&categorical(x.as_tensor(), dim, KEY)?),
        ),
        (
            "gumbel_top_k",
            data::bits(&gumbel_top_k(x.as_tensor(), shape[dim].min(9), dim, KEY)?),
        ),
    ];
    let relaxed = [
        (
            "tempered_softmax",
            tempered_softmax(x.as_tensor(), tau.as_tensor(), dim)?,
        ),
        (
            "tempered_log_softmax",
            tempered_log_softmax(x.as_tensor(), tau.as_tensor(), dim)?,
        ),
        (
            "gumbel_softmax",
            gumbel_softmax(x.as_tensor(), tau.as_tensor(), dim, KEY)?,
        ),
        (
            "gumbel_softmax_st",
            gumbel_softmax_st(x.as_tensor(), tau.as_tensor(), dim, KEY)?,
        ),
    ];
    for (name, y) in relaxed {
        out.push((name, data::bits(&y)));
        out.extend(
            gradients(&y, &[&x, &tau], 5)?
                .into_iter()
                .map(|g| (name, g)),
        );
    }
    let estimators = [
        ("reinmax", reinmax(x.as_tensor(), 1.6, dim, KEY)?),
        ("gumbel_rao", gumbel_rao(x.as_tensor(), 0.6, 2, dim, KEY)?),
    ];
    for (name, y) in estimators {
        out.push((name, data::bits(&y)));
        out.extend(gradients(&y, &[&x], 7)?.into_iter().map(|g| (name, g)));
    }
    let pairs = [
        ("gaussian", gaussian(x.as_tensor(), l.as_tensor(), KEY)?),
        (
            "gaussian_kl",
            gaussian_kl(x.as_tensor(), l.as_tensor(), dim)?,
        ),
    ];
    for (name, y) in pairs {
        out.push((name, data::bits(&y)));
        out.extend(gradients(&y, &[&x, &l], 6)?.into_iter().map(|g| (name, g)));
    }
    let taus = data::tensor(&[0.6], vec![1; shape.len()], dtype, &device);
    let taus = Var::from_tensor(&taus.broadcast_as(shape)?.contiguous()?)?;
    for gate in Gate::ALL {
        let y = gate.apply(x.as_tensor(), 0.6, KEY)?;
        out.push((gate.name(), data::bits(&y)));
        let gradient = gradients(&y, &[&x], 7)?;
        out.extend(gradient.into_iter().map(|g| (gate.name(), g)));
        let y = gate.apply(x.as_tensor(), taus.as_tensor(), KEY)?;
        let gradient = gradients(&y, &[&x, &taus], 7)?;
        out.extend(gradient.into_iter().map(|g| (gate.name(), g)));
    }
    let y = relaxed_top_k(x.as_tensor(), shape[dim].min(3), tau.as_tensor(), dim, KEY)?;
    out.push(("relaxed_top_k", data::bits(&y)));
    let all = gradients(&y, &[&x, &tau], 7)?;
    out.extend(all.into_iter().map(|g| ("relaxed_top_k", g)));
    // the same rows as a view, whose loads go another way
    let turned = x.as_tensor().transpose(0, shape.len() - 1)?;
    let turned_dim = match dim {
        0 => shape.len() - 1,
        d if d == shape.len() - 1 => 0,
        d => d,
    };
    out.push((
        "gumbel_softmax of a view",
        data::bits(&gumbel_softmax(&turned, 0.6, turned_dim, KEY)?),
    ));
    out.push((
        "categorical of a view",
        data::bits(&categorical(&turned, turned_dim, KEY)?),
    ));
    Ok(out)
}

fn same(a: &[(&str, Vec<u64>)], b: &[(&str, Vec<u64>)], label: &str) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let first = a.iter().zip(b).position(|(a, b)| a != b);
        assert!(
            a.len() == b.len() && first.is_none(),
            "{name} differs at {first:?} of {}: {label}",
            a.len()
        );
    }
}

#[test]
fn one_two_and_seven_threads() {
    for (shape, dim) in SHAPES {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let run = |threads| {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| everything(shape, dim, dtype)).unwrap()
            };
            let one = run(1);
            for threads in [2, 7] {
                same(
                    &run(threads),
                    &one,
                    &format!("{shape:?} {dtype:?} {threads} threads"),
                );
            }
        }
    }
}

#[test]
fn every_instruction_set() {
    let levels = bits::levels();
    assert!(levels.contains(&"portable"), "{levels:?}");
    println!("instruction sets: {levels:?}");
    for (shape, dim) in SHAPES {
        for dtype in data::FLOATS {
            let portable = bits::with_level("portable", || everything(shape, dim, dtype)).unwrap();
            for level in levels.iter().copied().filter(|l| *l != "portable") {
                let got = bits::with_level(level, || everything(shape, dim, dtype)).unwrap();
                same(&got, &portable, &format!("{shape:?} {dtype:?} {level}"));
            }
        }
    }
}

#[test]
fn every_instruction_set_at_every_remainder() {
    // lengths that leave every number of lanes over
    for n in 1..=49 {
        for (shape, dim) in [(&[3, n][..], 1), (&[n, 3], 0), (&[2, 5, n], 1)] {
            let portable =
                bits::with_level("portable", || everything(shape, dim, DType::F32)).unwrap();
            for level in bits::levels() {
                let got = bits::with_level(level, || everything(shape, dim, DType::F32)).unwrap();
                same(&got, &portable, &format!("{shape:?} {level}"));
            }
        }
    }
}

#[test]
fn every_instruction_set_on_special_values() {
    let special = [
        0.0,
        -0.0,
        f64::NEG_INFINITY,
        f64::INFINITY,
        f64::NAN,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        88.0,
        -104.0,
        1e-8,
        -150.0,
        1e4,
    ];
    let mut v = data::normals(64 * 24, 1, 1.0);
    for (i, s) in special.into_iter().cycle().take(60).enumerate() {
        v[i * 24 + i % 24] = s;
    }
    for dtype in data::FLOATS {
        let x = data::tensor(&v, (64, 24), dtype, &Device::Cpu);
        let run = |level| {
            bits::with_level(level, || {
                let tensors = [
                    tempered_softmax(&x, 0.7, 1)?,
                    tempered_log_softmax(&x, 0.7, 1)?,
                    gumbel_softmax(&x, 0.7, 1, KEY)?,
                    gumbel_softmax_st(&x, 0.7, 1, KEY)?,
                    gaussian(&x, &x, KEY)?,
                    gaussian_kl(&x, &x, 1)?,
                ];
                // a NaN's payload is not part of the contract, so values are compared
                Ok::<_, candle_core::Error>(tensors.map(|t| data::values(&t)))
            })
            .unwrap()
        };
        let portable = run("portable");
        for level in bits::levels() {
            for (op, (got, want)) in run(level).iter().zip(&portable).enumerate() {
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    assert!(
                        g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()),
                        "op {op} {dtype:?} {level} {i}: {g:e} and {w:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_raw_maps_on_every_instruction_set() {
    // every word that is a multiple of 4,099, the refined ones, and both ends
    let n = 1 << 20;
    let w: Vec<u32> = (0..n)
        .map(|i: u32| i.wrapping_mul(4099))
        .chain(0..600)
        .chain(u32::MAX - 600..=u32::MAX)
        .collect();
    let w2: Vec<u32> = w
        .iter()
        .map(|w| w.wrapping_mul(2_654_435_761).wrapping_add(77))
        .collect();
    let run = |level| {
        bits::with_level(level, || {
            let mut narrow = [(); 4].map(|()| vec![0.0; w.len()]);
            bits::gumbel_f32_slice(&w, &w2, &mut narrow[0]);
            bits::normal_f32_slice(&w, &w2, &mut narrow[1]);
            bits::exponential_f32_slice(&w, &w2, &mut narrow[2]);
            bits::logistic_f32_slice(&w, &w2, &mut narrow[3]);
            let counts = bits::count_gumbel_above(KEY, 3, 1_000_001, &[0.0, 2.0, 8.0]);
            let wide: Vec<u64> = (0..w.len())
                .step_by(101)
                .flat_map(|i| {
                    [
                        bits::gumbel_f64(w[i], w2[i]).to_bits(),
                        bits::normal_f64(w[i], w2[i]).to_bits(),
                        bits::exponential_f64(w[i], w2[i]).to_bits(),
                        bits::logistic_f64(w[i], w2[i]).to_bits(),
                    ]
                })
                .collect();
            let bits = |v: Vec<f32>| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            (narrow.map(bits), counts, wide)
        })
    };
    let portable = run("portable");
    for level in bits::levels() {
        assert!(run(level) == portable, "{level}");
    }
}

#[test]
fn many_callers_at_once() {
    // ops called from plain threads, not from the pool, while others do the same
    let x = data::random((300, 100), 1, 1.0, DType::F32, &Device::Cpu);
    let want = data::bits(&gumbel_softmax(&x, 0.5, 1, KEY).unwrap());
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(data::bits(&gumbel_softmax(&x, 0.5, 1, KEY).unwrap()), want);
                }
            });
        }
    });
}
