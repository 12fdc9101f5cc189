//! One harness for the four relaxed row ops: each is a row function of `x`, or of `x` plus the noise of a key.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::ops;
use candle_reparam::{
    Key, Temperature, gumbel, gumbel_softmax, gumbel_softmax_st, tempered_log_softmax,
    tempered_softmax,
};

use super::oracle::{self, Kind, Rows};
use super::{data, gradcheck};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Tempered,
    TemperedLog,
    Gumbel,
    StraightThrough,
}

impl Op {
    pub const ALL: [Op; 4] = [
        Op::Tempered,
        Op::TemperedLog,
        Op::Gumbel,
        Op::StraightThrough,
    ];

    pub fn apply(
        self,
        x: &Tensor,
        tau: impl Into<Temperature>,
        dim: usize,
        key: Key,
    ) -> Result<Tensor> {
        match self {
            Op::Tempered => tempered_softmax(x, tau, dim),
            Op::TemperedLog => tempered_log_softmax(x, tau, dim),
            Op::Gumbel => gumbel_softmax(x, tau, dim, key),
            Op::StraightThrough => gumbel_softmax_st(x, tau, dim, key),
        }
    }

    /// The row function whose gradient the op has.
    pub fn kind(self) -> Kind {
        if self == Op::TemperedLog {
            Kind::LogSoftmax
        } else {
            Kind::Softmax
        }
    }

    pub fn noisy(self) -> bool {
        matches!(self, Op::Gumbel | Op::StraightThrough)
    }

    /// What the row function is applied to, in the dtype the crate computes in: `x`, or `x` plus noise.
    pub fn perturbed(self, x: &Tensor, key: Key) -> Tensor {
        let wide = data::compute(x.dtype());
        let x = x.to_dtype(wide).unwrap();
        if self.noisy() {
            (&x + gumbel(x.shape(), wide, x.device(), key).unwrap()).unwrap()
        } else {
            x
        }
    }

    /// The op as a user would write it without this crate, the noise a constant.
    pub fn composed(self, x: &Tensor, tau: &Tensor, dim: usize, key: Key) -> Result<Tensor> {
        let z = if self.noisy() {
            (x + gumbel(x.shape(), x.dtype(), x.device(), key)?)?
        } else {
            x.clone()
        };
        let z = z.broadcast_div(tau)?;
        match self {
            Op::TemperedLog => ops::log_softmax(&z, dim),
            Op::Tempered | Op::Gumbel => ops::softmax(&z, dim),
            Op::StraightThrough => {
                let soft = ops::softmax(&z, dim)?;
                let hard = soft
                    .ge(&soft.max_keepdim(dim)?.broadcast_as(soft.shape())?)?
                    .to_dtype(soft.dtype())?;
                // the usual trick, with its rounding: hard + soft - detach(soft)
                (hard + &soft)? - soft.detach()
            }
        }
    }
}

/// Forward values against the double-precision reference: `base` times the row's largest magnitude, and one rounding
/// to the result's dtype.
#[track_caller]
pub fn check_forward(op: Op, x: &Tensor, tau: f64, dim: usize, key: Key, base: f64) {
    let got = op.apply(x, tau, dim, key).unwrap();
    assert_eq!(got.dims(), x.dims());
    assert_eq!(got.dtype(), x.dtype());
    assert!(got.is_contiguous());
    let rows = Rows::of(x, dim);
    let z = data::values(&op.perturbed(x, key));
    let want = rows.map(&z, |_, z| op.kind().forward(z, tau));
    let got = data::values(&got);
    for row in 0..rows.count() {
        let (got, want) = (rows.row(&got, row), rows.row(&want, row));
        let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for k in 0..rows.len {
            let allowed = if op == Op::TemperedLog {
                base * want[k].abs().max(1.0)
            } else {
                base * largest
            } + if matches!(x.dtype(), DType::F16 | DType::BF16) {
                data::half_ulp(x.dtype(), want[k]) * 1.001
            } else {
                0.0
            };
            let overflows = x.dtype() == DType::F16 && want[k] <= -65_520.0;
            assert!(
                (got[k] - want[k]).abs() <= allowed || (overflows && got[k] == f64::NEG_INFINITY),
                "{op:?} {:?} {:?} dim {dim} tau {tau} row {row} entry {k}: {:e}, not {:e} (allowed {allowed:e})",
                x.dims(),
                x.dtype(),
                got[k],
                want[k],
            );
        }
    }
}

/// Upstream gradient of a result: `sum(w * y)` has gradient `w`.
pub fn weights(shape: &[usize], seed: u64, dtype: DType, device: &Device) -> Tensor {
    data::random(shape, seed ^ 0xACE, 1.0, dtype, device)
}

pub struct Gradients {
    pub x: Tensor,
    pub tau: Tensor,
}

/// Gradients of `sum(w * y)` to logits and temperature, both learnable.
pub fn gradients(
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    x: &Tensor,
    tau: &Tensor,
    w: &Tensor,
) -> Gradients {
    let (x, tau) = (Var::from_tensor(x).unwrap(), Var::from_tensor(tau).unwrap());
    let y = f(x.as_tensor(), tau.as_tensor()).unwrap();
    let store = (&y * w)
        .and_then(|l| l.sum_all())
        .and_then(|l| l.backward())
        .unwrap();
    Gradients {
        x: store
            .get(x.as_tensor())
            .expect("a gradient to the logits")
            .clone(),
        tau: store
            .get(tau.as_tensor())
            .expect("a gradient to the temperature")
            .clone(),
    }
}

pub struct GradientCase<'a> {
    pub op: Op,
    pub x: &'a Tensor,
    pub tau: &'a Tensor,
    pub dim: usize,
    pub key: Key,
    pub tolerance: f64,
    /// Central differences, or (where rows are long) the closed forms that central differences confirm.
    pub central: bool,
}

/// The op's gradients against double precision: to the logits relative to the row's largest entry, to the temperature
/// relative to the sum of its terms' magnitudes.
#[track_caller]
pub fn check_gradients(case: &GradientCase) {
    let GradientCase {
        op,
        x,
        tau,
        dim,
        key,
        tolerance,
        central,
    } = *case;
    let w = weights(x.dims(), 7, x.dtype(), x.device());
    let got = gradients(|x, tau| op.apply(x, tau, dim, key), x, tau, &w);
    assert_eq!(got.x.dims(), x.dims());
    assert_eq!(got.x.dtype(), x.dtype());
    assert_eq!(got.tau.dims(), tau.dims());
    assert_eq!(got.tau.dtype(), tau.dtype());

    let rows = Rows::of(x, dim);
    let z = data::values(&op.perturbed(x, key));
    let w = data::values(&w);
    let entries = oracle::tau_entry(tau.dims(), x.dims(), dim);
    let tau_values = data::values(tau);
    let per_row: Vec<f64> = entries.iter().map(|e| tau_values[*e]).collect();
    let closed = gradcheck::closed_rows(op.kind(), &z, &per_row, &w, &rows);
    let (dz, dtau) = if central {
        gradcheck::central_rows(op.kind(), &z, &per_row, &w, &rows)
    } else {
        (closed.dz, closed.dtau)
    };
    let unit = rounding_of_operands(x.dtype());
    let slack: Vec<f64> = closed.magnitude.iter().map(|m| m * unit).collect();
    let label = format!(
        "{op:?} {:?} {:?} dim {dim} tau {:?}",
        x.dims(),
        x.dtype(),
        tau.dims()
    );
    // a difference quotient carries an absolute error of about 1e-13
    let floor = if central { 1e-4 } else { 1e-6 };
    let compare = |got: &[f64]| gradcheck::compare_with(got, &dz, &slack, &rows, tolerance, floor);
    if let Err(e) = compare(&data::values(&got.x)) {
        panic!("{label}: {e}");
    }
    assert!(
        compare(&vec![0.0; dz.len()]).is_err(),
        "{label}: zeros would pass"
    );

    let mut want = vec![0.0; tau_values.len()];
    let mut allowed = vec![0.0; tau_values.len()];
    for row in 0..rows.count() {
        want[entries[row]] += dtau[row];
        allowed[entries[row]] +=
            tolerance * closed.tau_terms[row] + unit * closed.tau_magnitude[row];
    }
    for (e, got) in data::values(&got.tau).into_iter().enumerate() {
        let (want, allowed) = (want[e], allowed[e]);
        assert!(
            (got - want).abs() <= allowed,
            "{label}: gradient to tau {e}: {got:e}, not {want:e} (allowed {allowed:e})"
        );
    }
    let zeros_fail = want.iter().zip(&allowed).any(|(w, a)| w.abs() > 1.5 * a);
    assert!(zeros_fail, "{label}: a zero gradient to tau would pass");
}

/// What rounding the operands of a gradient costs, relative to the sum of the absolute values that its formula
/// subtracts: in halves the stored result is an operand.
fn rounding_of_operands(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-15,
        // half of what the contract lets a relaxed sample be off
        DType::F32 => 1e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    }
}

/// Gradients against those of the composed expression, both of the same dtype and with a temperature a row: to the
/// logits relative to the row's largest entry, to the temperature relative to the terms that candle's division sums.
#[track_caller]
pub fn check_composed(op: Op, x: &Tensor, tau: f64, dim: usize, key: Key, tolerance: f64) {
    let w = weights(x.dims(), 3, x.dtype(), x.device());
    let rows = Rows::of(x, dim);
    let mut tau_shape = x.dims().to_vec();
    tau_shape[dim] = 1;
    let t = data::tensor(&vec![tau; rows.count()], tau_shape, x.dtype(), x.device());
    let got = gradients(|x, t| op.apply(x, t, dim, key), x, &t, &w);
    let want = gradients(|x, t| op.composed(x, t, dim, key), x, &t, &w);
    let label = format!("{op:?} {:?} {:?}", x.dims(), x.dtype());
    let z = data::values(&op.perturbed(x, key));
    let closed = gradcheck::closed_rows(
        op.kind(),
        &z,
        &vec![tau; rows.count()],
        &data::values(&w),
        &rows,
    );
    // both sides round
    let unit = 2.0 * rounding_of_operands(x.dtype());
    let slack: Vec<f64> = closed.magnitude.iter().map(|m| m * unit).collect();
    gradcheck::compare_with(
        &data::values(&got.x),
        &data::values(&want.x),
        &slack,
        &rows,
        tolerance,
        1e-6,
    )
    .unwrap_or_else(|e| panic!("{label}: {e}"));
    let mut zeros_fail = false;
    for (row, (a, b)) in data::values(&got.tau)
        .into_iter()
        .zip(data::values(&want.tau))
        .enumerate()
    {
        // candle's division does not take z from the row's maximum
        let terms = oracle::sum(
            (0..rows.len).map(|k| closed.magnitude[rows.at(row, k)] * z[rows.at(row, k)].abs()),
        ) / tau;
        assert!(
            (a - b).abs() <= tolerance * terms,
            "{label} tau {row}: {a:e}, not {b:e} (terms {terms:e})"
        );
        zeros_fail |= b.abs() > 4.0 * tolerance * terms;
    }
    assert!(zeros_fail, "{label}: a zero gradient to tau would pass");
}
