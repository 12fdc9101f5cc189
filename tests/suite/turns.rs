//! Work that does not fit a device at once, whose threads take their turns: on a simulated device of one multiprocessor few
//! elements are enough for that. And on such a device long rows are cut into other pieces than on a large one.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, binary_concrete, binary_concrete_st, categorical, exponential, gaussian, gumbel,
    gumbel_max, gumbel_softmax_st, gumbel_top_k, gumbel_top_k_st, logistic, normal, relaxed_top_k,
    subgradient, uniform,
};

use crate::cuda::{close, same};
use crate::support::data::{self, FLOATS};
use crate::support::launches::counted_with;

const KEY: Key = Key::new(12, 34);

/// Several turns of 8 blocks of 256 threads, which take a group each, and an end that is no whole group.
const N: usize = 50_003;

fn logits(shape: &[usize], dtype: DType) -> Tensor {
    data::random(shape, 3, 2.0, dtype, &Device::Cpu)
}

/// The gradient to `x`, or to a temperature for each row, of a weighed sum of what `f` makes of them.
fn weighed(
    x: &Tensor,
    to_tau: bool,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let rows = x.dims()[0];
    let taus: Vec<f64> = (0..rows).map(|i| 0.5 + (i % 7) as f64 * 0.25).collect();
    let tau = Var::from_tensor(&data::tensor(&taus, (rows, 1), x.dtype(), x.device()))?;
    let x = Var::from_tensor(x)?;
    let y = f(x.as_tensor(), tau.as_tensor())?;
    let w = data::random(y.shape(), 5, 1.0, y.dtype(), &Device::Cpu).to_device(y.device())?;
    let grads = (y * w)?.sum_all()?.backward()?;
    let of = if to_tau { &tau } else { &x };
    Ok(grads.get(of.as_tensor()).expect("a gradient").clone())
}

#[test]
fn elements_and_rows_take_turns() {
    let test = "turns::elements_and_rows_take_turns";
    counted_with(test, &[("CUDA_SIM_SMS", "1")], |_, _| {
        for dtype in FLOATS {
            same("uniform", |d| uniform(N, dtype, d, KEY));
            same("gumbel", |d| gumbel(N, dtype, d, KEY));
            same("normal", |d| normal(N, dtype, d, KEY));
            same("exponential", |d| exponential(N, dtype, d, KEY));
            same("logistic", |d| logistic(N, dtype, d, KEY));
            for shape in [&[N][..], &[101, 331]] {
                let x = logits(shape, dtype);
                let label = format!("{shape:?}");
                // A view where there is one: the strided kernels.
                let there = |d: &Device| x.to_device(d).and_then(|x| x.t().or(Ok(x)));
                same(&label, |d| binary_concrete_st(&there(d)?, 0.7, KEY));
                same(&label, |d| subgradient::relu(&there(d)?, None));
                same(&label, |d| {
                    subgradient::maximum(&there(d)?, &there(d)?.neg()?, None)
                });
                let t = if dtype == DType::F64 { 4e-14 } else { 4e-6 };
                close(&label, None, t, |d| binary_concrete(&there(d)?, 0.7, KEY));
                close(&label, None, t, |d| gaussian(&there(d)?, &there(d)?, KEY));
            }
            // Rows of a few lanes, of a warp and of a block, whose last turn is not a whole one.
            for (shape, k) in [(&[515, 3][..], 2), (&[70, 40], 3), (&[19, 1030], 3)] {
                let x = logits(shape, dtype);
                let label = format!("relaxed_top_k {shape:?}");
                let t = if dtype == DType::F64 { 1e-12 } else { 4e-5 };
                close(&label, Some(1), t, |d| {
                    relaxed_top_k(&x.to_device(d)?, k, 0.5, 1, KEY)
                });
                for to_tau in [false, true] {
                    let label = format!("gradient of {label}, to tau {to_tau}");
                    close(&label, None, 20.0 * t, |d| {
                        weighed(&x.to_device(d)?, to_tau, |x, tau| {
                            relaxed_top_k(x, k, tau, 1, KEY)
                        })
                    });
                }
                same(&label, |d| {
                    gumbel_top_k_st(&x.to_device(d)?, k, 0.5, 1, KEY)
                });
            }
        }
        for dtype in [DType::F32, DType::BF16] {
            let x = logits(&[1, 100_001], dtype);
            same("long", |d| gumbel_max(&x.to_device(d)?, 1, KEY));
            same("long", |d| gumbel_softmax_st(&x.to_device(d)?, 1.0, 1, KEY));
            same("long", |d| categorical(&x.to_device(d)?, 1, KEY));
            same("long", |d| gumbel_top_k(&x.to_device(d)?, 50, 1, KEY));
        }
    });
}
