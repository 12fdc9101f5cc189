//! Where a formula that is right in exact arithmetic is wrong in rounded arithmetic: long sums, peaked rows, gradients
//! with a common offset, high temperatures, half types.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{Key, gaussian_kl, normal, tempered_log_softmax, tempered_softmax, uniform};

type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn softmax(x: &Tensor, tau: &Tensor) -> Result<Tensor> {
    tempered_softmax(x, tau, 1)
}

fn log_softmax(x: &Tensor, tau: &Tensor) -> Result<Tensor> {
    tempered_log_softmax(x, tau, 1)
}

/// The gradients of the logits and of one temperature for all rows, in f64.
fn gradients(op: Op, x: &Tensor, g: &Tensor, tau: f64) -> Result<(Vec<Vec<f64>>, f64)> {
    let x = Var::from_tensor(x)?;
    let tau = Var::from_tensor(&Tensor::new(tau, &Device::Cpu)?.to_dtype(x.dtype())?)?;
    let store = (op(&x, &tau)? * g)?.sum_all()?.backward()?;
    let of = |t: &Var| store.get(t).expect("a gradient").to_dtype(DType::F64);
    Ok((of(&x)?.to_vec2()?, of(&tau)?.to_scalar()?))
}

/// The softmax of one row and its gradients, by the textbook in f64: enough digits to lose some.
fn textbook(x: &[f64], g: &[f64], tau: f64, log: bool) -> (Vec<f64>, f64) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|x| ((x - max) / tau).exp()).collect();
    let sum: f64 = e.iter().sum();
    let y: Vec<f64> = e.iter().map(|e| e / sum).collect();
    let score: Vec<f64> = if log {
        let total: f64 = g.iter().sum();
        y.iter().zip(g).map(|(y, g)| g - y * total).collect()
    } else {
        // Each pair of classes on its own, so that nothing cancels.
        let pull = |i: usize| (0..x.len()).map(|j| y[j] * (g[i] - g[j])).sum::<f64>();
        (0..x.len()).map(|i| y[i] * pull(i)).collect()
    };
    let dtau = score.iter().zip(x).map(|(s, x)| s * (x - max)).sum::<f64>();
    let dx = score.iter().map(|s| s / tau).collect();
    (dx, -dtau / (tau * tau))
}

#[test]
fn the_winner_of_a_peaked_row_keeps_its_gradient() -> Result<()> {
    for gap in [10f32, 16., 17., 20., 30.] {
        let x = [gap, 0., -1., 0.5];
        let g = [3f32, -1., 2., 0.25];
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let (want, _) = textbook(&wide(&x), &wide(&g), 1.0, false);
        let (x, g) = (
            Tensor::new(&[x], &Device::Cpu)?,
            Tensor::new(&[g], &Device::Cpu)?,
        );
        let (got, _) = gradients(softmax, &x, &g, 1.0)?;
        let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
        for (got, want) in got[0].iter().zip(&want) {
            assert!(
                (got - want).abs() <= 2e-6 * largest,
                "gap {gap}: {got:e}, not {want:e}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_temperature_gets_its_gradient_whatever_offset_the_rows_have() -> Result<()> {
    let ops: [(Op, bool); 2] = [(softmax, false), (log_softmax, true)];
    for (op, log) in ops {
        for (n, tau) in [(10, 10.0), (10, 100.0), (256, 10.0), (5000, 20.0)] {
            // Offsets that every dtype of the test holds exactly enough.
            let x = uniform((1, n), DType::F64, &Device::Cpu, Key::new(1, 0))?.affine(4., -2.)?;
            let noise = uniform((1, n), DType::F64, &Device::Cpu, Key::new(1, 1))?;
            let g = (noise + x.affine(0.3, 5.)?)?;
            for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F64, 1e-10)] {
                let (x, g) = (x.to_dtype(dtype)?, g.to_dtype(dtype)?);
                let row = |t: &Tensor| t.to_dtype(DType::F64)?.squeeze(0)?.to_vec1::<f64>();
                let (_, want) = textbook(&row(&x)?, &row(&g)?, tau, log);
                let (_, got) = gradients(op, &x, &g, tau)?;
                assert!(
                    (got - want).abs() <= tolerance * want.abs(),
                    "log {log}, {n} classes, tau {tau}, {dtype:?}: {got:e}, not {want:e}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn one_temperature_of_many_rows_is_summed_in_full_precision() -> Result<()> {
    let rows = 65_536;
    let spread = |v: [f64; 3]| {
        Tensor::new(&v, &Device::Cpu)?
            .broadcast_as((rows, 3))?
            .contiguous()
    };
    let (x, g) = (spread([1., 0., -1.])?, spread([-1., 1., 0.])?);
    let (_, want) = gradients(softmax, &x, &g, 1.0)?;
    assert!((want - 27_745.18).abs() < 0.01, "{want}");
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::BF16, 1e-2), (DType::F16, 2e-3)] {
        let (_, got) = gradients(softmax, &x.to_dtype(dtype)?, &g.to_dtype(dtype)?, 1.0)?;
        assert!(
            (got - want).abs() <= tolerance * want,
            "{dtype:?}: {got}, not {want}"
        );
    }
    Ok(())
}

#[test]
fn long_sums_keep_their_digits_along_every_dim() -> Result<()> {
    let n = 262_144;
    let close = |got: &Tensor, want: f64| -> Result<()> {
        let got = got.flatten_all()?.to_vec1::<f32>()?;
        let worst = got
            .iter()
            .fold(0f64, |m, &x| m.max((f64::from(x) / want - 1.).abs()));
        assert!(worst < 2e-6, "off by {worst:e}");
        Ok(())
    };
    for (shape, dim) in [((n, 2), 0), ((2, n), 1)] {
        // Equal addends round the same way each time, which is the worst that a sum can meet.
        let x = Tensor::full(0.3f32, shape, &Device::Cpu)?;
        close(&tempered_softmax(&x, 1.0, dim)?, 1. / n as f64)?;
        let v = f64::from(0.3f32);
        let kl = 0.5 * n as f64 * (v * v + v.exp_m1() - v);
        close(&gaussian_kl(&x, &x, dim)?, kl)?;
        let x = Var::from_tensor(&x)?;
        let g = normal(shape, DType::F32, &Device::Cpu, Key::new(5, 0))?;
        let y = tempered_softmax(&x, 1.0, dim)?;
        let store = (y * &g)?.sum_all()?.backward()?;
        let got = store.get(&x).expect("a gradient").to_dtype(DType::F64)?;
        let g = g.to_dtype(DType::F64)?;
        let want = (g.broadcast_sub(&g.mean_keepdim(dim)?)? / n as f64)?;
        let error = (got - &want)?.abs()?.max_all()?.to_scalar::<f64>()?;
        let largest = want.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(
            error < 2e-6 * largest,
            "gradient off by {:e}",
            error / largest
        );
    }
    Ok(())
}

#[test]
fn a_sum_that_overflows_is_infinite_and_its_neighbours_are_not() -> Result<()> {
    for (shape, dim) in [((600, 3), 0), ((3, 600), 1), ((3, 9000), 1)] {
        // Only the first row is too large to be squared.
        let rows = Tensor::new(&[1e25f32, 1., 0.], &Device::Cpu)?;
        let rows = if dim == 0 {
            rows
        } else {
            rows.reshape((3, 1))?
        };
        let mean = rows.broadcast_as(shape)?;
        let kl = gaussian_kl(&mean, &mean.zeros_like()?, dim)?.to_vec1::<f32>()?;
        let n = if dim == 0 { shape.0 } else { shape.1 };
        assert_eq!(kl, [f32::INFINITY, n as f32 / 2., 0.]);
    }
    Ok(())
}

#[test]
fn sizes_that_wrap_are_refused() {
    let error = uniform(
        (1usize << 33, 1usize << 33),
        DType::F32,
        &Device::Cpu,
        Key::new(1, 0),
    );
    let message = error.expect_err("too large").to_string();
    assert!(
        message.contains("uniform") && message.contains("8589934592"),
        "{message}"
    );
    let x = Tensor::zeros((1, 1), DType::F32, &Device::Cpu).expect("a tensor");
    let x = x
        .broadcast_as((1usize << 40, 1usize << 30))
        .expect("a view");
    let message = tempered_softmax(&x, 1.0, 1)
        .expect_err("too large")
        .to_string();
    assert!(message.contains("tempered_softmax"), "{message}");
}
