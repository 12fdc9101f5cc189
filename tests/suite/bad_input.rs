//! Every refusal names the op and the value it refuses, before anything is drawn.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{
    Key, categorical, exponential, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_softmax,
    gumbel_softmax_st, logistic, normal, tempered_log_softmax, tempered_softmax, uniform,
};

use crate::support::data::{self, FLOATS};
use crate::support::refused;
use crate::support::relaxed::Op;

const KEY: Key = Key::new(1, 1);

fn name(op: Op) -> &'static str {
    match op {
        Op::Tempered => "tempered_softmax",
        Op::TemperedLog => "tempered_log_softmax",
        Op::Gumbel => "gumbel_softmax",
        Op::StraightThrough => "gumbel_softmax_st",
    }
}

fn logits() -> Tensor {
    data::random((3, 4), 1, 1.0, DType::F32, &Device::Cpu)
}

#[test]
fn a_temperature_must_be_finite_and_positive() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (-1.5, "-1.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for op in Op::ALL {
        for (tau, shown) in cases {
            refused(op.apply(&logits(), tau, 1, KEY), name(op), &["tau", shown]);
            for shape in [&[][..], &[1]] {
                let t = data::tensor(&[tau], shape, DType::F32, &Device::Cpu);
                refused(op.apply(&logits(), &t, 1, KEY), name(op), &["tau", shown]);
            }
            // one bad entry among good ones, in any layout
            let mut v = [1.0, 2.0, 0.5];
            v[2] = tau;
            let t = data::tensor(&v, (3, 1), DType::F32, &Device::Cpu);
            refused(op.apply(&logits(), &t, 1, KEY), name(op), &["tau", shown]);
            let t = data::tensor(
                &[v[0], 9.0, v[1], 9.0, v[2], 9.0],
                (3, 2),
                DType::F32,
                &Device::Cpu,
            );
            refused(
                op.apply(&logits(), t.narrow(1, 0, 1).unwrap(), 1, KEY),
                name(op),
                &["tau", shown],
            );
            // a bad number that the view does not hold is not refused
            let hidden = data::tensor(
                &[1.0, tau, 1.0, tau, 1.0, tau],
                (3, 2),
                DType::F32,
                &Device::Cpu,
            );
            op.apply(&logits(), hidden.narrow(1, 0, 1).unwrap(), 1, KEY)
                .unwrap();
        }
    }
}

#[test]
fn a_temperature_of_every_dtype_is_checked() {
    for dtype in FLOATS {
        let x = data::random((3, 4), 1, 1.0, dtype, &Device::Cpu);
        for op in Op::ALL {
            for (tau, shown) in [(-2.0, "-2"), (f64::NAN, "NaN"), (0.0, "0")] {
                let t = data::tensor(&[tau], (), dtype, &Device::Cpu);
                refused(op.apply(&x, &t, 1, KEY), name(op), &["tau", shown]);
            }
        }
    }
}

#[test]
fn a_temperature_tensor_must_broadcast_over_rows() {
    // the row dimension has size 4; every shape here either spans it or fits nothing
    let cases: [&[usize]; 7] = [&[4], &[1, 4], &[3, 4], &[3], &[2, 1], &[1, 3, 1], &[0]];
    for op in Op::ALL {
        for shape in cases {
            let t = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            refused(
                op.apply(&logits(), &t, 1, KEY),
                name(op),
                &["tau", &format!("{shape:?}")],
            );
        }
    }
}

#[test]
fn a_temperature_tensor_must_have_the_dtype_of_the_logits() {
    for op in Op::ALL {
        for (x, t) in [
            (DType::F32, DType::F64),
            (DType::BF16, DType::F32),
            (DType::F16, DType::BF16),
            (DType::F32, DType::U32),
        ] {
            let x = data::random((3, 4), 1, 1.0, x, &Device::Cpu);
            let t = Tensor::ones((), t, &Device::Cpu).unwrap();
            let (a, b) = (format!("{:?}", x.dtype()), format!("{:?}", t.dtype()));
            refused(op.apply(&x, &t, 1, KEY), name(op), &["tau", &a, &b]);
        }
    }
}

#[test]
fn integer_logits_are_refused() {
    for dtype in [DType::U32, DType::I64, DType::U8] {
        let x = Tensor::zeros((3, 4), dtype, &Device::Cpu).unwrap();
        let shown = format!("{dtype:?}");
        for op in Op::ALL {
            refused(op.apply(&x, 1.0, 1, KEY), name(op), &[&shown]);
        }
        refused(gumbel_max(&x, 1, KEY), "gumbel_max", &[&shown]);
        refused(categorical(&x, 1, KEY), "categorical", &[&shown]);
        refused(gaussian(&x, &x, KEY), "gaussian", &[&shown]);
        refused(gaussian_kl(&x, &x, 1), "gaussian_kl", &[&shown]);
    }
}

#[test]
fn noise_in_an_integer_dtype_is_refused() {
    for dtype in [DType::U32, DType::I64, DType::U8] {
        let shown = format!("{dtype:?}");
        refused(uniform(3, dtype, &Device::Cpu, KEY), "uniform", &[&shown]);
        refused(gumbel(3, dtype, &Device::Cpu, KEY), "gumbel", &[&shown]);
        refused(
            exponential(3, dtype, &Device::Cpu, KEY),
            "exponential",
            &[&shown],
        );
        refused(logistic(3, dtype, &Device::Cpu, KEY), "logistic", &[&shown]);
        refused(normal(3, dtype, &Device::Cpu, KEY), "normal", &[&shown]);
        // even where there would be nothing to draw
        refused(normal(0, dtype, &Device::Cpu, KEY), "normal", &[&shown]);
    }
}

#[test]
fn a_stream_must_be_below_2_to_the_63() {
    for stream in [1 << 63, u64::MAX, (1 << 63) + 5] {
        let key = Key::new(1, stream);
        let shown = stream.to_string();
        let x = logits();
        for dtype in FLOATS {
            refused(
                uniform(3, dtype, &Device::Cpu, key),
                "uniform",
                &["stream", &shown],
            );
            refused(
                gumbel(3, dtype, &Device::Cpu, key),
                "gumbel",
                &["stream", &shown],
            );
            refused(
                exponential(3, dtype, &Device::Cpu, key),
                "exponential",
                &["stream", &shown],
            );
            refused(
                logistic(3, dtype, &Device::Cpu, key),
                "logistic",
                &["stream", &shown],
            );
            refused(
                normal(3, dtype, &Device::Cpu, key),
                "normal",
                &["stream", &shown],
            );
        }
        refused(
            gumbel_softmax(&x, 1.0, 1, key),
            "gumbel_softmax",
            &["stream", &shown],
        );
        refused(
            gumbel_softmax_st(&x, 1.0, 1, key),
            "gumbel_softmax_st",
            &["stream", &shown],
        );
        refused(gumbel_max(&x, 1, key), "gumbel_max", &["stream", &shown]);
        refused(categorical(&x, 1, key), "categorical", &["stream", &shown]);
        refused(gaussian(&x, &x, key), "gaussian", &["stream", &shown]);
    }
    let last = Key::new(1, (1 << 63) - 1);
    uniform(3, DType::F32, &Device::Cpu, last).unwrap();
    gumbel_softmax(&logits(), 1.0, 1, last).unwrap();
}

#[test]
fn a_dim_must_exist() {
    use candle_core::D;
    let x = logits();
    let all = |x: &Tensor, dim: usize, shown: &str| {
        for op in Op::ALL {
            refused(op.apply(x, 1.0, dim, KEY), name(op), &[shown]);
        }
        refused(gumbel_max(x, dim, KEY), "gumbel_max", &[shown]);
        refused(categorical(x, dim, KEY), "categorical", &[shown]);
        refused(gaussian_kl(x, x, dim), "gaussian_kl", &[shown]);
    };
    all(&x, 2, "2");
    all(&x, 17, "17");
    // a scalar has no dim at all
    all(&Tensor::new(1.0_f32, &Device::Cpu).unwrap(), 0, "0");
    refused(
        tempered_softmax(&x, 1.0, D::Minus(3)),
        "tempered_softmax",
        &["3"],
    );
    refused(
        tempered_log_softmax(&x, 1.0, D::Minus(3)),
        "tempered_log_softmax",
        &["3"],
    );
    refused(categorical(&x, D::Minus(3), KEY), "categorical", &["3"]);
}

#[test]
fn a_row_must_have_a_class() {
    for dtype in FLOATS {
        for (shape, dim) in [(&[3, 0][..], 1), (&[0], 0), (&[2, 0, 5], 1), (&[0, 0], 1)] {
            let x = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
            let (at, of) = (dim.to_string(), format!("{shape:?}"));
            for op in Op::ALL {
                refused(op.apply(&x, 1.0, dim, KEY), name(op), &["empty", &at, &of]);
            }
            refused(gumbel_max(&x, dim, KEY), "gumbel_max", &["empty", &at, &of]);
            refused(
                categorical(&x, dim, KEY),
                "categorical",
                &["empty", &at, &of],
            );
            refused(
                gaussian_kl(&x, &x, dim),
                "gaussian_kl",
                &["empty", &at, &of],
            );
        }
    }
}

#[test]
fn mean_and_log_variance_must_agree() {
    let f = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let m = f(&[3, 4], DType::F32);
    for other in [&[4, 3][..], &[3, 5], &[12], &[1, 4], &[3, 4, 1], &[]] {
        let (l, shown) = (f(other, DType::F32), format!("{other:?}"));
        refused(gaussian(&m, &l, KEY), "gaussian", &["[3, 4]", &shown]);
        refused(gaussian_kl(&m, &l, 1), "gaussian_kl", &["[3, 4]", &shown]);
        refused(gaussian(&l, &m, KEY), "gaussian", &["[3, 4]", &shown]);
    }
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let (l, shown) = (f(&[3, 4], dtype), format!("{dtype:?}"));
        refused(gaussian(&m, &l, KEY), "gaussian", &["F32", &shown]);
        refused(gaussian_kl(&m, &l, 1), "gaussian_kl", &["F32", &shown]);
        refused(gaussian(&l, &m, KEY), "gaussian", &["F32", &shown]);
    }
}

#[test]
fn the_checker_reads_the_message() {
    let bail = |m: &str| -> candle_core::Result<()> { Err(candle_core::Error::Msg(m.to_string())) };
    refused(
        bail("gumbel_max: row 3 is NaN"),
        "gumbel_max",
        &["row", "3"],
    );
    for (message, op) in [
        ("gumbel_softmax: no", "gumbel"),
        ("row 4", "gumbel_max"),
        ("gumbel_max: row 4", "gumbel_max"),
    ] {
        let silent = std::panic::catch_unwind(|| refused(bail(message), op, &["row 3"]));
        assert!(silent.is_err(), "{message}");
    }
    assert!(std::panic::catch_unwind(|| refused(Ok(()), "gumbel", &[])).is_err());
}
