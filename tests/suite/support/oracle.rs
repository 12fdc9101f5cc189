//! Double-precision references, one row at a time and in the order a textbook writes them.

use candle_core::Tensor;

/// A dimension of a row-major shape as (outer, len, inner): element `k` of row `(o, i)` sits at
/// `(o * len + k) * inner + i`. Rows are numbered `o * inner + i`.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub outer: usize,
    pub len: usize,
    pub inner: usize,
}

impl Rows {
    pub fn new(dims: &[usize], dim: usize) -> Self {
        Self {
            outer: dims[..dim].iter().product(),
            len: dims[dim],
            inner: dims[dim + 1..].iter().product(),
        }
    }

    pub fn of(t: &Tensor, dim: usize) -> Self {
        Self::new(t.dims(), dim)
    }

    pub fn count(&self) -> usize {
        self.outer * self.inner
    }

    pub fn at(&self, row: usize, k: usize) -> usize {
        let (o, i) = (row / self.inner, row % self.inner);
        (o * self.len + k) * self.inner + i
    }

    pub fn row(&self, flat: &[f64], row: usize) -> Vec<f64> {
        (0..self.len).map(|k| flat[self.at(row, k)]).collect()
    }

    pub fn put(&self, flat: &mut [f64], row: usize, values: &[f64]) {
        for (k, &v) in values.iter().enumerate() {
            flat[self.at(row, k)] = v;
        }
    }

    /// Applies `f` to every row, for results of the input's shape.
    pub fn map(&self, flat: &[f64], mut f: impl FnMut(usize, &[f64]) -> Vec<f64>) -> Vec<f64> {
        let mut out = vec![0.0; flat.len()];
        for row in 0..self.count() {
            let values = self.row(flat, row);
            self.put(&mut out, row, &f(row, &values));
        }
        out
    }
}

/// Neumaier's compensated sum: rows of 128,256 must not cost the reference digits.
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut s, mut c) = (0.0_f64, 0.0_f64);
    for v in values {
        let t = s + v;
        c += if s.abs() >= v.abs() {
            (s - t) + v
        } else {
            (v - t) + s
        };
        s = t;
    }
    if c.is_finite() { s + c } else { s }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum(a.iter().zip(b).map(|(x, y)| x * y))
}

fn max(z: &[f64]) -> f64 {
    z.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The two differentiable row functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Softmax,
    LogSoftmax,
}

impl Kind {
    pub fn forward(self, z: &[f64], tau: f64) -> Vec<f64> {
        let m = max(z);
        let scaled: Vec<f64> = z.iter().map(|v| (v - m) / tau).collect();
        let total = sum(scaled.iter().map(|a| a.exp()));
        match self {
            Kind::Softmax => scaled.iter().map(|a| a.exp() / total).collect(),
            Kind::LogSoftmax => scaled.iter().map(|a| a - total.ln()).collect(),
        }
    }

    pub fn loss(self, z: &[f64], tau: f64, w: &[f64]) -> f64 {
        dot(&self.forward(z, tau), w)
    }

    /// Gradient of `loss` to `z` and `tau` in closed form, with what its rounding errors are relative to.
    pub fn backward(self, z: &[f64], tau: f64, w: &[f64]) -> RowGradient {
        let y = Kind::Softmax.forward(z, tau);
        let m = max(z);
        let (dz, magnitude): (Vec<f64>, Vec<f64>) = match self {
            Kind::Softmax => {
                let (mean, all) = (dot(&y, w), sum(y.iter().zip(w).map(|(y, w)| y * w.abs())));
                y.iter()
                    .zip(w)
                    .map(|(y, w)| (y * (w - mean) / tau, y * (w.abs() + all) / tau))
                    .unzip()
            }
            Kind::LogSoftmax => {
                let (total, all) = (sum(w.iter().copied()), sum(w.iter().map(|w| w.abs())));
                y.iter()
                    .zip(w)
                    .map(|(y, w)| ((w - y * total) / tau, (w.abs() + y * all) / tau))
                    .unzip()
            }
        };
        // sum dz = 0, so z may be taken from the row's maximum: fewer digits cancel and a mask contributes nothing
        let weighted = |d: &[f64]| -> Vec<f64> {
            d.iter()
                .zip(z)
                .filter(|(d, _)| **d != 0.0)
                .map(|(d, z)| d * (m - z) / tau)
                .collect()
        };
        RowGradient {
            dtau: sum(weighted(&dz)),
            tau_terms: sum(weighted(&dz).into_iter().map(f64::abs)),
            tau_magnitude: sum(weighted(&magnitude)),
            dz,
            magnitude,
        }
    }
}

/// A row's gradients. `magnitude` holds, for every entry, the sum of the absolute values that its formula subtracts:
/// where one class holds nearly all of the mass, the winner's gradient is far smaller than those, and no formula that
/// reads only the rounded softmax can be exact relative to it.
pub struct RowGradient {
    pub dz: Vec<f64>,
    pub magnitude: Vec<f64>,
    pub dtau: f64,
    /// Sum of the absolute values of the terms of `dtau`.
    pub tau_terms: f64,
    /// The same with `magnitude` for the gradient to the logits.
    pub tau_magnitude: f64,
}

/// For every row of a tensor of shape `dims` over `dim`, the entry of a broadcast temperature of shape `tau_dims`
/// (aligned to the right, as broadcasting is) that it uses.
pub fn tau_entry(tau_dims: &[usize], dims: &[usize], dim: usize) -> Vec<usize> {
    let rows = Rows::new(dims, dim);
    (0..rows.count())
        .map(|row| {
            let mut flat = rows.at(row, 0);
            let mut coordinates = vec![0; dims.len()];
            for d in (0..dims.len()).rev() {
                coordinates[d] = flat % dims[d];
                flat /= dims[d];
            }
            let shift = dims.len() as isize - tau_dims.len() as isize;
            tau_dims.iter().enumerate().fold(0, |at, (d, &size)| {
                let from = d as isize + shift;
                let c = if size == 1 || from < 0 {
                    0
                } else {
                    coordinates[from as usize]
                };
                at * size + c
            })
        })
        .collect()
}

/// Lowest index of the largest value.
pub fn argmax(z: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in z.iter().enumerate() {
        if *v > z[best] {
            best = i;
        }
    }
    best
}

/// Probabilities of a row of logits.
pub fn probabilities(logits: &[f64]) -> Vec<f64> {
    Kind::Softmax.forward(logits, 1.0)
}

/// Complementary error function of a non-negative argument: the series of erf below 1, the continued fraction above.
/// Both are good to a few units in the last place there, which published polynomial fits are not.
pub fn erfc(x: f64) -> f64 {
    assert!(x >= 0.0);
    let two_over_root_pi = 2.0 / std::f64::consts::PI.sqrt();
    if x < 1.0 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1 3 5 ... (2n+1)): all terms positive
        let (mut term, mut total, mut n) = (x, x, 0.0);
        while term > total * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            total += term;
        }
        return 1.0 - two_over_root_pi * (-x * x).exp() * total;
    }
    // erfc(x) = exp(-x^2)/sqrt(pi) * 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...))))
    let mut f = 0.0;
    for n in (1..=200).rev() {
        f = (f64::from(n) / 2.0) / (x + f);
    }
    (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + f)
}

/// The magnitude `a` whose two-sided normal tail P(|Z| > a) is `t`, by Newton on erfc, for `t` in (0, 1].
pub fn normal_from_two_sided_tail(t: f64) -> f64 {
    assert!(t > 0.0 && t <= 1.0, "{t}");
    if t == 1.0 {
        return 0.0;
    }
    // erfc(x) = t. Where t is near 1, 1 - erfc loses digits, so solve erf(x) = 1 - t by the same series.
    let c = 2.0 / std::f64::consts::PI.sqrt();
    if t > 0.5 {
        let p = 1.0 - t;
        let mut x = p / c;
        for _ in 0..60 {
            let (mut term, mut total, mut n) = (x, x, 0.0);
            while term > total * 1e-18 {
                n += 1.0;
                term *= 2.0 * x * x / (2.0 * n + 1.0);
                total += term;
            }
            let step = (c * (-x * x).exp() * total - p) / (c * (-x * x).exp());
            x -= step;
            if step.abs() <= x * 1e-16 {
                break;
            }
        }
        return x * std::f64::consts::SQRT_2;
    }
    // in the logarithm, Newton converges from either side
    let target = t.ln();
    let mut x = (-(t.ln())).sqrt() * 0.9;
    for _ in 0..100 {
        let e = erfc(x);
        let slope = -c * (-x * x).exp() / e;
        let step = (e.ln() - target) / slope;
        x = (x - step).max(x / 2.0);
        if step.abs() <= x * 2e-16 {
            break;
        }
    }
    x * std::f64::consts::SQRT_2
}

/// Normal CDF.
pub fn normal_cdf(z: f64) -> f64 {
    let half_tail = erfc(z.abs() / std::f64::consts::SQRT_2) / 2.0;
    if z < 0.0 { half_tail } else { 1.0 - half_tail }
}

/// log sum exp of a row.
pub fn log_sum_exp(z: &[f64]) -> f64 {
    let m = max(z);
    m + sum(z.iter().map(|v| (v - m).exp())).ln()
}

#[test]
fn erfc_matches_tables() {
    // Abramowitz and Stegun 7.1 to the digits of a double (from C libm)
    for (x, want) in [
        (0.1, 0.887_537_083_981_715_2),
        (0.5, 0.479_500_122_186_953_5),
        (1.0, 0.157_299_207_050_285_13),
        (1.9, 0.007_209_570_764_742_532_5),
        (2.1, 0.002_979_466_656_332_984),
        (3.0, 2.209_049_699_858_544e-5),
        (5.0, 1.537_459_794_428_035e-12),
        (6.5, 3.842_148_327_120_647_4e-20),
    ] {
        let got = erfc(x);
        assert!(
            ((got - want) / want).abs() < 2e-14,
            "erfc({x}) = {got:e}, not {want:e}"
        );
    }
}

#[test]
fn inverse_tail_inverts() {
    for t in [
        0.999_999_9,
        0.9,
        0.50001,
        0.49999,
        0.1,
        1e-3,
        1e-9,
        1e-15,
        1e-19,
    ] {
        let a = normal_from_two_sided_tail(t);
        let back = erfc(a / std::f64::consts::SQRT_2);
        let slope = 2.0 * (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        assert!(
            (back - t).abs() <= 4e-15 * (t + slope * a) + 2e-16,
            "{t}: {a} {back}"
        );
    }
}
