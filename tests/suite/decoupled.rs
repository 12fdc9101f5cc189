//! `decoupled_st`.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{DeviceKey, Key, decoupled_st, gumbel_softmax_st};

use crate::gumbel_softmax::SHAPES;
use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::estimators::{self, Estimator, check_gradient, gradient};
use crate::support::oracle;
use crate::support::{refused, relaxed, statistics};

const APART: Estimator = Estimator::Decoupled {
    forward: 0.5,
    backward: 2.0,
};

#[test]
fn the_draw_is_that_of_the_scaled_logits() {
    // Powers of two, so that a product and a quotient are the same number.
    for (forward, backward) in [(1.0, 3.0), (0.5, 1.0), (4.0, 0.5)] {
        estimators::check_forward(Estimator::Decoupled { forward, backward }, &SHAPES);
    }
}

#[test]
fn both_temperatures_at_1_are_straight_through_gumbel() {
    let key = Key::new(4, 9);
    for device in devices() {
        for dtype in FLOATS {
            for (shape, dim) in [(&[5, 33][..], 1), (&[3, 9, 4], 1), (&[2, 4100], 1)] {
                let x = data::random(shape, 3, 2.0, dtype, &device);
                let w = relaxed::weights(shape, 5, dtype, &device);
                let ours = gradient(|x| decoupled_st(x, 1.0, 1.0, dim, key), &x, &w);
                let st = |x: &Tensor| gumbel_softmax_st(x, 1.0, dim, key);
                let theirs = gradient(st, &x, &w);
                if dtype == DType::F32 || dtype == DType::F64 {
                    data::assert_same(&ours, &theirs, || format!("{shape:?} {dtype:?}"));
                }
                let ours = decoupled_st(&x, 1.0, 1.0, dim, key).unwrap();
                data::assert_same(&ours, &st(&x).unwrap(), || format!("{shape:?} {dtype:?}"));
            }
        }
    }
}

#[test]
fn classes_are_drawn_as_often_as_softmax_of_the_scaled_logits_says() {
    let logits = [0.0, 1.0, -1.0, 2.0, -4.0];
    let x = data::tensor(&logits, (1, 5), DType::F32, &Device::Cpu);
    let x = x.broadcast_as((100_000, 5)).unwrap();
    for forward in [0.6, 1.0, 3.0] {
        let drawn = decoupled_st(&x, forward, 0.7, 1, Key::new(16, 0)).unwrap();
        let counts = data::values(&drawn.sum(0).unwrap());
        let counts: Vec<u64> = counts.iter().map(|c| *c as u64).collect();
        let p = oracle::probabilities(&logits.map(|l| l / forward));
        let fit = statistics::chi_square(&counts, &p);
        assert!(fit > 1e-3, "tau {forward}: {counts:?}: p = {fit:e}");
    }
}

#[test]
fn gradients_match_double_precision() {
    for device in devices() {
        for shape in SHAPES {
            for dtype in FLOATS {
                for dim in (0..shape.len()).filter(|d| shape[*d] > 1) {
                    for (forward, backward) in [(1.0, 1.0), (0.5, 2.0), (3.0, 0.7), (1.0, 1.9)] {
                        let x = data::random(shape, 12, 1.0, dtype, &device);
                        let est = Estimator::Decoupled { forward, backward };
                        check_gradient(est, &x, dim, Key::new(5, dim as u64));
                    }
                }
            }
        }
    }
}

#[test]
fn layouts_masks_broken_rows_and_small_things() {
    estimators::check_layouts(APART);
    estimators::check_masks_and_broken_rows(APART);
    estimators::check_small_things(APART);
}

#[test]
fn temperatures_far_apart_break_no_row() {
    // In f32 their quotients, or those of 1 and one of them, are 0 or infinite: times a 0 or a mask, NaN.
    let v = [0.0, 0.5, f64::NEG_INFINITY, -1.0, 2.0, -0.25];
    for device in devices() {
        for dtype in FLOATS {
            let x = data::tensor(&v, (1, 6), dtype, &device);
            let w = relaxed::weights(&[1, 6], 5, dtype, &device);
            for (forward, backward) in [
                (1e-30, 1e30),
                (1e30, 1e-30),
                (1e46, 1.0),
                (1.0, 1e46),
                (1e-20, 1e20),
            ] {
                let label = format!("{dtype:?} {forward:e} {backward:e}");
                let st = |x: &Tensor| decoupled_st(x, forward, backward, 1, Key::new(4, 9));
                let y = data::values(&st(&x).unwrap());
                assert_eq!(oracle::sum(y.iter().copied()), 1.0, "{label}: {y:?}");
                assert_eq!(y[2], 0.0, "{label}");
                let g = data::values(&gradient(st, &x, &w));
                assert!(
                    g.iter().all(|g| !g.is_nan()) && g[2] == 0.0,
                    "{label}: {g:?}"
                );
            }
        }
    }
}

#[test]
fn a_key_in_device_memory_draws_what_its_value_does() {
    for device in devices() {
        let key = Key::new(77, 1);
        let there = DeviceKey::new(key, &device).unwrap();
        let x = data::random((6, 50), 1, 1.0, DType::F32, &device);
        let w = relaxed::weights(&[6, 50], 3, DType::F32, &device);
        let a = gradient(|x| decoupled_st(x, 0.5, 3.0, 1, &there), &x, &w);
        let b = gradient(|x| decoupled_st(x, 0.5, 3.0, 1, key), &x, &w);
        data::assert_same(&a, &b, || "key".into());
    }
}

#[test]
fn what_it_cannot_work_with_is_refused() {
    let x = data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    let (key, op) = (Key::new(1, 1), "decoupled_st");
    for (tau, shown) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        let forward = decoupled_st(&x, tau, 1.0, 1, key);
        refused(forward, op, &["tau_forward", shown]);
        let backward = decoupled_st(&x, 1.0, tau, 1, key);
        refused(backward, op, &["tau_backward", shown]);
    }
    let empty = Tensor::zeros((3, 0), DType::F32, &Device::Cpu).unwrap();
    refused(
        decoupled_st(&empty, 1.0, 1.0, 1, key),
        op,
        &["empty", "[3, 0]"],
    );
    refused(decoupled_st(&x, 1.0, 1.0, 2, key), op, &["2"]);
    let wrong = Key::new(1, 1 << 63);
    refused(decoupled_st(&x, 1.0, 1.0, 1, wrong), op, &["stream"]);
    let whole = Tensor::zeros((3, 4), DType::U32, &Device::Cpu).unwrap();
    refused(decoupled_st(&whole, 1.0, 1.0, 1, key), op, &["U32"]);
}
