//! The layers against a direct computation, on every device of the build.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder, VarMap};
use candle_reparam::distributions::Distribution;
use candle_reparam::modules::{GaussianHead, GumbelVectorQuantizer, QuantizerConfig};
use candle_reparam::schedules::Exponential;
use candle_reparam::{Key, Rng, gaussian, gaussian_kl, gumbel_max, normal, uniform};
use std::collections::HashMap;

use crate::support::data::{self, FLOATS, assert_same};
use crate::support::devices::devices;
use crate::support::refused;

const KEY: Key = Key::new(3, 1);

fn config(combine_groups: bool) -> QuantizerConfig {
    QuantizerConfig {
        input_dim: 6,
        groups: 3,
        codes: 5,
        codevector_dim: 12,
        combine_groups,
        temperature: Exponential::new(2.0, 0.9, 0.5).unwrap(),
    }
}

/// A quantizer with random weights that are variables, those by name, and an input (2, 4, 6).
fn quantizer(
    combine_groups: bool,
    dtype: DType,
    device: &Device,
) -> (GumbelVectorQuantizer, HashMap<String, Var>, Tensor) {
    let config = config(combine_groups);
    let books = if combine_groups { 1 } else { 3 };
    let weights = [
        (
            "codevectors",
            data::random((1, books * 5, 4), 1, 1.0, dtype, device),
        ),
        (
            "weight_proj.weight",
            data::random((15, 6), 2, 1.0, dtype, device),
        ),
        ("weight_proj.bias", data::random(15, 3, 1.0, dtype, device)),
    ];
    let vars: HashMap<String, Var> = weights
        .into_iter()
        .map(|(name, t)| (name.to_string(), Var::from_tensor(&t).unwrap()))
        .collect();
    let tensors = vars
        .iter()
        .map(|(name, var)| (format!("quantizer.{name}"), var.as_tensor().clone()))
        .collect();
    let vb = VarBuilder::from_tensors(tensors, dtype, device).pp("quantizer");
    let made = GumbelVectorQuantizer::new(config, vb, Rng::new(9)).unwrap();
    (made, vars, data::random((2, 4, 6), 4, 1.0, dtype, device))
}

/// Logits [row][group][code] in double precision.
fn logits(vars: &HashMap<String, Var>, xs: &Tensor) -> Vec<Vec<Vec<f64>>> {
    let (x, w, b) = (
        data::values(xs),
        data::values(&vars["weight_proj.weight"]),
        data::values(&vars["weight_proj.bias"]),
    );
    (0..8)
        .map(|row| {
            (0..3)
                .map(|group| {
                    (0..5)
                        .map(|code| {
                            let out = group * 5 + code;
                            let dot: f64 = (0..6).map(|i| x[row * 6 + i] * w[out * 6 + i]).sum();
                            dot + b[out]
                        })
                        .collect()
                })
                .collect()
        })
        .collect()
}

fn argmax(z: &[f64]) -> usize {
    (0..z.len()).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap()
}

/// `sum_groups exp(-sum p ln(p + 1e-7))` of choices [row][group][code], over the rows that count.
fn perplexity(choices: &[Vec<Vec<f64>>], counted: &[bool]) -> f64 {
    let rows: Vec<_> = choices.iter().zip(counted).filter(|(_, c)| **c).collect();
    (0..3)
        .map(|group| {
            let entropy: f64 = (0..5)
                .map(|code| {
                    let p: f64 =
                        rows.iter().map(|(r, _)| r[group][code]).sum::<f64>() / rows.len() as f64;
                    -p * (p + 1e-7).ln()
                })
                .sum();
            entropy.exp()
        })
        .sum()
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let total: f64 = z.iter().map(|v| v.exp()).sum();
    z.iter().map(|v| v.exp() / total).collect()
}

#[test]
fn codes_vectors_and_perplexities_are_those_of_a_direct_computation() {
    for device in devices() {
        for combined in [false, true] {
            let (quantizer, vars, xs) = quantizer(combined, DType::F64, &device);
            let z = logits(&vars, &xs);
            let book = data::values(&vars["codevectors"]);
            let check = |indices: &[usize], vectors: &Tensor| {
                assert_eq!(vectors.dims(), [2, 4, 12]);
                let v = data::values(vectors);
                for row in 0..8 {
                    for group in 0..3 {
                        let first = if combined { 0 } else { group * 5 };
                        let code = first + indices[row * 3 + group];
                        assert_eq!(v[row * 12 + group * 4..][..4], book[code * 4..][..4]);
                    }
                }
            };
            let eval = quantizer.eval(&xs).unwrap();
            assert_eq!(eval.indices().dims(), [2, 4, 3]);
            let likeliest: Vec<usize> = z.iter().flatten().map(|z| argmax(z)).collect();
            assert_eq!(data::indices(eval.indices()), likeliest);
            check(&likeliest, eval.vectors());
            let train = quantizer.train(&xs, KEY).unwrap();
            let flat: Vec<f64> = z.iter().flatten().flatten().copied().collect();
            let flat = data::tensor(&flat, (8, 3, 5), DType::F64, &device);
            let drawn = data::indices(&gumbel_max(&flat, D::Minus1, KEY).unwrap());
            assert_ne!(drawn, likeliest);
            assert_eq!(data::indices(train.indices()), drawn);
            check(&drawn, train.vectors());

            let soft: Vec<Vec<Vec<f64>>> = z
                .iter()
                .map(|row| row.iter().map(|z| softmax(z)).collect())
                .collect();
            let hard: Vec<Vec<Vec<f64>>> = z
                .iter()
                .map(|row| {
                    row.iter()
                        .map(|z| {
                            (0..5)
                                .map(|k| f64::from(u8::from(k == argmax(z))))
                                .collect()
                        })
                        .collect()
                })
                .collect();
            let counted = [true, false, true, true, false, false, true, false];
            let mask: Vec<u8> = counted.iter().map(|c| u8::from(*c) * 3).collect();
            let mask = Tensor::from_vec(mask, (2, 4), &device).unwrap();
            for quantized in [&eval, &train] {
                for (mask, counted) in [(None, &[true; 8]), (Some(&mask), &counted)] {
                    let close = |got: Tensor, want: f64| {
                        assert_eq!((got.dims(), got.dtype()), (&[][..], DType::F32));
                        let got = data::values(&got)[0];
                        assert!((got / want - 1.0).abs() < 1e-5, "{got} {want}");
                    };
                    let spread = perplexity(&soft, counted);
                    close(quantized.prob_perplexity(mask).unwrap(), spread);
                    close(
                        quantized.code_perplexity(mask).unwrap(),
                        perplexity(&hard, counted),
                    );
                    close(
                        quantized.diversity_loss(mask).unwrap(),
                        (15.0 - spread) / 15.0,
                    );
                }
            }
            let none = Tensor::zeros((2, 4), DType::U8, &device).unwrap();
            let of_none = eval.prob_perplexity(Some(&none)).unwrap();
            assert!(data::values(&of_none)[0].is_nan());
            assert!(perplexity(&soft, &counted) < 14.0 && perplexity(&hard, &[true; 8]) > 4.0);
        }
    }
}

#[test]
fn a_gradient_reaches_every_variable() {
    for device in devices() {
        for combined in [false, true] {
            let (quantizer, vars, xs) = quantizer(combined, DType::F32, &device);
            let xs = Var::from_tensor(&xs).unwrap();
            let reached = |loss: Tensor, names: &[&str]| {
                let grads = loss.backward().unwrap();
                for name in names {
                    let var = if *name == "input" { &xs } else { &vars[*name] };
                    let grad = grads
                        .get(var)
                        .unwrap_or_else(|| panic!("no gradient to {name}"));
                    assert_eq!(grad.dims(), var.dims());
                    let largest = data::values(grad)
                        .iter()
                        .fold(0.0_f64, |m, g| m.max(g.abs()));
                    assert!(largest > 1e-4 && largest.is_finite(), "{name}: {largest}");
                }
            };
            let all = [
                "input",
                "codevectors",
                "weight_proj.weight",
                "weight_proj.bias",
            ];
            let train = quantizer.train(&xs, KEY).unwrap();
            reached(train.vectors().sqr().unwrap().sum_all().unwrap(), &all);
            reached(
                train.diversity_loss(None).unwrap(),
                &["input", all[2], all[3]],
            );
            let eval = quantizer.eval(&xs).unwrap();
            reached(
                eval.vectors().sqr().unwrap().sum_all().unwrap(),
                &["codevectors"],
            );
            let tau = Var::new(0.7f32, &device).unwrap();
            let learned = quantizer.train_at(&xs, &tau, KEY).unwrap();
            let loss = learned.vectors().sqr().unwrap().sum_all().unwrap();
            assert!(loss.backward().unwrap().get(&tau).is_some());
        }
    }
}

#[test]
fn the_straight_through_gradient_is_that_of_the_relaxed_vectors() {
    // d loss / d codebook = one-hot^T g; the logits' gradient that of the relaxed sample at the same noise
    let (quantizer, vars, xs) = quantizer(false, DType::F64, &Device::Cpu);
    let w = data::random((2, 4, 12), 8, 1.0, DType::F64, &Device::Cpu);
    let loss = quantizer
        .train_at(&xs, 0.8, KEY)
        .unwrap()
        .vectors()
        .mul(&w)
        .unwrap();
    let got = loss.sum_all().unwrap().backward().unwrap();
    let (weight, bias) = (&vars["weight_proj.weight"], &vars["weight_proj.bias"]);
    let z = xs
        .reshape((8, 6))
        .unwrap()
        .matmul(&weight.t().unwrap())
        .unwrap();
    let z = z.broadcast_add(bias).unwrap().reshape((8, 3, 5)).unwrap();
    let y = candle_reparam::gumbel_softmax(&z, 0.8, 2, KEY).unwrap();
    let book = vars["codevectors"].reshape((3, 5, 4)).unwrap();
    let vectors: Vec<Tensor> = (0..3)
        .map(|g| {
            let (y, book) = (
                y.narrow(1, g, 1).unwrap().squeeze(1).unwrap(),
                book.get(g).unwrap(),
            );
            y.contiguous().unwrap().matmul(&book).unwrap()
        })
        .collect();
    let vectors = Tensor::cat(&vectors, 1)
        .unwrap()
        .reshape((2, 4, 12))
        .unwrap();
    let want = vectors
        .mul(&w)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for var in [weight, bias] {
        let (got, want) = (
            data::values(got.get(var).unwrap()),
            data::values(want.get(var).unwrap()),
        );
        let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(largest > 0.1);
        assert!(
            got.iter()
                .zip(&want)
                .all(|(a, b)| (a - b).abs() < 1e-12 * largest)
        );
    }
}

#[test]
fn evaluation_is_deterministic_and_training_takes_keys_in_order() {
    for device in devices() {
        let (quantizer, _, xs) = quantizer(false, DType::F32, &device);
        let once = quantizer.forward_t(&xs, false).unwrap();
        quantizer.set_step(1000);
        assert_same(&quantizer.forward_t(&xs, false).unwrap(), &once, || {
            "eval".into()
        });
        assert_same(quantizer.eval(&xs).unwrap().vectors(), &once, || {
            "eval".into()
        });
        let rng = Rng::new(9); // as the quantizer's
        for _ in 0..3 {
            let want = quantizer.train(&xs, rng.next_key()).unwrap();
            assert_same(
                &quantizer.forward_t(&xs, true).unwrap(),
                want.vectors(),
                || "train".into(),
            );
        }
    }
}

#[test]
fn every_dtype_is_quantized() {
    for dtype in FLOATS {
        let (quantizer, _, xs) = quantizer(false, dtype, &Device::Cpu);
        let quantized = quantizer.train(&xs, KEY).unwrap();
        assert_eq!(quantized.vectors().dtype(), dtype);
        assert_eq!(quantized.prob_perplexity(None).unwrap().dtype(), DType::F32);
    }
}

#[test]
fn the_temperature_falls_to_its_floor() {
    let (quantizer, _, xs) = quantizer(false, DType::F32, &Device::Cpu);
    assert_eq!(quantizer.temperature(), 2.0);
    let clone = quantizer.clone();
    quantizer.set_step(3);
    assert_eq!(quantizer.temperature(), 2.0 * 0.9f64.powf(3.0));
    assert_eq!(clone.temperature(), quantizer.temperature());
    quantizer.set_step(14);
    assert_eq!(quantizer.temperature(), 0.5);
    quantizer.set_step(u64::MAX);
    assert_eq!(quantizer.temperature(), 0.5);
    // and it is the temperature of the gradient
    let gradient = |tau: Option<f64>| {
        let xs = Var::from_tensor(&xs).unwrap();
        let quantized = match tau {
            Some(tau) => quantizer.train_at(&xs, tau, KEY).unwrap(),
            None => quantizer.train(&xs, KEY).unwrap(),
        };
        let grads = quantized
            .vectors()
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        data::values(grads.get(&xs).unwrap())
    };
    assert_eq!(gradient(None), gradient(Some(0.5)));
    assert_ne!(gradient(None), gradient(Some(2.0)));
}

#[test]
fn weights_have_the_names_and_shapes_of_checkpoints() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let config = QuantizerConfig::wav2vec2(512).unwrap();
    GumbelVectorQuantizer::new(config, vb.pp("quantizer"), Rng::new(1)).unwrap();
    let shapes = |vars: &VarMap| {
        let mut shapes: Vec<(String, Vec<usize>)> = vars
            .data()
            .lock()
            .unwrap()
            .iter()
            .map(|(name, var)| (name.clone(), var.dims().to_vec()))
            .collect();
        shapes.sort();
        shapes
    };
    // facebook/wav2vec2-base
    let expected = [
        ("quantizer.codevectors", vec![1, 640, 128]),
        ("quantizer.weight_proj.bias", vec![640]),
        ("quantizer.weight_proj.weight", vec![640, 512]),
    ]
    .map(|(name, shape)| (name.to_string(), shape));
    assert_eq!(shapes(&vars), expected);
    let data = vars.data().lock().unwrap();
    let spread = |name: &str| {
        let v = data::values(&data[name]);
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let largest = v.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        (
            mean,
            v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64,
            largest,
        )
    };
    let (mean, variance, largest) = spread("quantizer.codevectors");
    assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 2e-3 && largest <= 1.0);
    let (mean, variance, _) = spread("quantizer.weight_proj.weight");
    assert!(
        mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02,
        "{mean} {variance}"
    );
    assert_eq!(spread("quantizer.weight_proj.bias"), (0.0, 0.0, 0.0));
    drop(data);

    let weights = |key| {
        GumbelVectorQuantizer::initial_weights(&config, DType::F32, &Device::Cpu, key).unwrap()
    };
    let (a, b) = (weights(KEY), weights(KEY));
    for (name, shape) in &expected {
        let name = name.trim_start_matches("quantizer.");
        assert_eq!(a[name].dims(), shape);
        assert_same(&a[name], &b[name], || name.into());
    }
    assert_ne!(
        data::bits(&a["codevectors"]),
        data::bits(&weights(Key::new(4, 1))["codevectors"])
    );
    // From keys of their own, derived from the one given: a part of what a version promises.
    let drawn = uniform((1, 640, 128), DType::F32, &Device::Cpu, KEY.fold_in(0)).unwrap();
    assert_same(&a["codevectors"], &drawn, || "codevectors".into());
    let drawn = normal((640, 512), DType::F32, &Device::Cpu, KEY.fold_in(1)).unwrap();
    assert_same(&a["weight_proj.weight"], &drawn, || "weight".into());
}

#[test]
fn weights_survive_a_file() {
    let make = |vars: &VarMap| {
        let vb = VarBuilder::from_varmap(vars, DType::F32, &Device::Cpu).pp("quantizer");
        GumbelVectorQuantizer::new(config(false), vb, Rng::new(9)).unwrap()
    };
    let vars = VarMap::new();
    let first = make(&vars);
    let path = std::env::temp_dir().join(format!(
        "reparam-quantizer-{}.safetensors",
        std::process::id()
    ));
    vars.save(&path).unwrap();
    let mut again = VarMap::new();
    let second = make(&again);
    let xs = data::random((2, 4, 6), 4, 1.0, DType::F32, &Device::Cpu);
    let of = |q: &GumbelVectorQuantizer| q.eval(&xs).unwrap().vectors().clone();
    assert_ne!(data::bits(&of(&first)), data::bits(&of(&second)));
    again.load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_same(&of(&second), &of(&first), || "loaded".into());
}

#[test]
fn a_gaussian_head_samples_in_training_and_is_its_mean_in_evaluation() {
    for device in devices() {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &device);
        let head = GaussianHead::new(6, 3, vb, Rng::new(9)).unwrap();
        let mut names: Vec<String> = vars.data().lock().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(
            names,
            ["log_var.bias", "log_var.weight", "mean.bias", "mean.weight"]
        );
        let xs = data::random((2, 4, 6), 4, 1.0, DType::F32, &device);
        let parameters = head.parameters(&xs).unwrap();
        let (mean, log_var) = (parameters.mean(), parameters.log_var());
        assert_eq!(
            (mean.dims(), log_var.dims()),
            (&[2, 4, 3][..], &[2, 4, 3][..])
        );
        let direct = |name: &str| {
            let data = vars.data().lock().unwrap();
            let (w, b) = (
                &data[&format!("{name}.weight")],
                &data[&format!("{name}.bias")],
            );
            let (x, w, b) = (data::values(&xs), data::values(w), data::values(b));
            (0..24)
                .map(|i| {
                    (0..6)
                        .map(|k| x[i / 3 * 6 + k] * w[i % 3 * 6 + k])
                        .sum::<f64>()
                        + b[i % 3]
                })
                .collect::<Vec<f64>>()
        };
        for (got, name) in [(mean, "mean"), (log_var, "log_var")] {
            let (got, want) = (data::values(got), direct(name));
            assert!(
                got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5),
                "{name}"
            );
        }
        assert_ne!(direct("mean"), direct("log_var"));
        assert_same(&head.forward_t(&xs, false).unwrap(), mean, || "eval".into());
        let rng = Rng::new(9);
        for _ in 0..2 {
            let want = gaussian(mean, log_var, rng.next_key()).unwrap();
            assert_same(&head.forward_t(&xs, true).unwrap(), &want, || {
                "train".into()
            });
        }
        let kl = parameters.kl().unwrap();
        assert_same(&kl, &gaussian_kl(mean, log_var, 2).unwrap(), || "kl".into());
        assert_eq!(parameters.distribution().unwrap().batch_shape(), [2, 4, 3]);
        let z = parameters.sample(KEY).unwrap();
        let loss = (z.sqr().unwrap().sum_all().unwrap() + kl.sum_all().unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        for (name, var) in vars.data().lock().unwrap().iter() {
            let grad = grads
                .get(var)
                .unwrap_or_else(|| panic!("no gradient to {name}"));
            let largest = data::values(grad)
                .iter()
                .fold(0.0_f64, |m, g| m.max(g.abs()));
            assert!(largest > 1e-3, "{name}: {largest}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let name = "GumbelVectorQuantizer";
    let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let with = |change: fn(&mut QuantizerConfig)| {
        let mut config = config(false);
        change(&mut config);
        GumbelVectorQuantizer::new(config, vb(), Rng::new(1))
    };
    refused(with(|c| c.groups = 0), name, &["groups", "0"]);
    refused(with(|c| c.codes = 0), name, &["codes", "0"]);
    refused(with(|c| c.input_dim = 0), name, &["input_dim", "0"]);
    refused(
        with(|c| c.codevector_dim = 0),
        name,
        &["codevector_dim", "0"],
    );
    refused(with(|c| c.codevector_dim = 13), name, &["13", "3"]);
    let (quantizer, _, xs) = quantizer(false, DType::F32, &Device::Cpu);
    refused(
        quantizer.eval(&xs.narrow(2, 0, 5).unwrap()),
        name,
        &["[2, 4, 5]", "6"],
    );
    refused(
        quantizer.eval(&Tensor::new(1f32, &Device::Cpu).unwrap()),
        name,
        &["[]", "6"],
    );
    refused(
        quantizer.eval(&xs.to_dtype(DType::F64).unwrap()),
        name,
        &["F64", "F32"],
    );
    let quantized = quantizer.eval(&xs).unwrap();
    let mask = Tensor::ones((2, 3), DType::U8, &Device::Cpu).unwrap();
    refused(
        quantized.prob_perplexity(Some(&mask)),
        name,
        &["[2, 3]", "[2, 4]"],
    );
    let mask = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
    refused(quantized.code_perplexity(Some(&mask)), name, &["F32", "u8"]);
    refused(
        GaussianHead::new(0, 3, vb(), Rng::new(1)),
        "GaussianHead",
        &["input_dim", "0"],
    );
    refused(
        GaussianHead::new(3, 0, vb(), Rng::new(1)),
        "GaussianHead",
        &["output_dim", "0"],
    );
    let head = GaussianHead::new(5, 3, vb(), Rng::new(1)).unwrap();
    refused(head.parameters(&xs), "GaussianHead", &["[2, 4, 6]", "5"]);
}
