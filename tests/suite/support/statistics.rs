//! Tests of fit. Keys are fixed, so each either passes for good or fails for good; thresholds on p are 1e-4 or below,
//! so that a new key is unlikely to need a new threshold.

use statrs::distribution::{ChiSquared, ContinuousCDF, DiscreteCDF, Poisson};

/// P(D > d) of Kolmogorov's statistic for `n` samples (Stephens' correction; exact enough for n > 35).
pub fn kolmogorov_p(d: f64, n: usize) -> f64 {
    let root = (n as f64).sqrt();
    let x = (root + 0.12 + 0.11 / root) * d;
    if x < 0.3 {
        return 1.0;
    }
    let mut p = 0.0;
    for k in 1..=100 {
        let k = f64::from(k);
        let term = (-2.0 * k * k * x * x).exp();
        p += if k as u32 % 2 == 1 { term } else { -term };
    }
    (2.0 * p).clamp(0.0, 1.0)
}

/// Kolmogorov-Smirnov p-value of a sample against a CDF.
pub fn ks(mut sample: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let d = sample.iter().enumerate().fold(0.0_f64, |d, (i, x)| {
        let c = cdf(*x);
        d.max(c - i as f64 / n).max((i + 1) as f64 / n - c)
    });
    kolmogorov_p(d, sample.len())
}

/// Chi-square p-value of counts against probabilities. Cells are pooled, in the order of their probability, until each
/// pool expects at least 5; the rest joins the last pool.
pub fn chi_square(counts: &[u64], probabilities: &[f64]) -> f64 {
    assert_eq!(counts.len(), probabilities.len());
    let n: u64 = counts.iter().sum();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    let mut pools: Vec<(f64, f64)> = vec![];
    let (mut seen, mut expected) = (0.0, 0.0);
    for cell in order {
        if probabilities[cell] == 0.0 {
            assert_eq!(counts[cell], 0, "cell {cell} has probability 0");
            continue;
        }
        seen += counts[cell] as f64;
        expected += probabilities[cell] * n as f64;
        if expected >= 5.0 {
            pools.push((seen, expected));
            (seen, expected) = (0.0, 0.0);
        }
    }
    if expected > 0.0 {
        let last = pools.last_mut().expect("fewer than 5 draws");
        last.0 += seen;
        last.1 += expected;
    }
    assert!(pools.len() >= 2, "one pool says nothing");
    let statistic: f64 = pools.iter().map(|(o, e)| (o - e).powi(2) / e).sum();
    ChiSquared::new((pools.len() - 1) as f64)
        .unwrap()
        .sf(statistic)
}

/// Two-sided p-value of a count that should be Poisson with this mean (or binomial with a small probability).
pub fn poisson_p(count: u64, mean: f64) -> f64 {
    if mean > 1e4 {
        let z = (count as f64 - mean) / mean.sqrt();
        return super::oracle::erfc(z.abs() / std::f64::consts::SQRT_2);
    }
    let p = Poisson::new(mean).unwrap();
    let below = p.cdf(count);
    let above = if count == 0 { 1.0 } else { p.sf(count - 1) };
    (2.0 * below.min(above)).min(1.0)
}

pub fn mean(x: &[f64]) -> f64 {
    super::oracle::sum(x.iter().copied()) / x.len() as f64
}

pub fn variance(x: &[f64]) -> f64 {
    let m = mean(x);
    super::oracle::sum(x.iter().map(|v| (v - m).powi(2))) / (x.len() - 1) as f64
}

/// Correlation of two samples in units of its own standard error under independence.
pub fn correlation_z(a: &[f64], b: &[f64]) -> f64 {
    let (ma, mb) = (mean(a), mean(b));
    let cov =
        super::oracle::sum(a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb))) / a.len() as f64;
    cov / (variance(a) * variance(b)).sqrt() * (a.len() as f64).sqrt()
}

mod tests {
    use super::*;
    use crate::support::data::SplitMix;

    #[test]
    fn ks_accepts_uniform_and_rejects_a_shift() {
        let mut rng = SplitMix(3);
        let sample: Vec<f64> = (0..100_000).map(|_| rng.unit()).collect();
        let p = ks(sample.clone(), |x| x);
        assert!(p > 1e-3, "{p}");
        let bent = ks(sample, |x| x.powf(1.02));
        assert!(bent < 1e-6, "{bent}");
    }

    #[test]
    fn kolmogorov_table() {
        // asymptotic critical values: 1.3581 at 5 %, 1.6276 at 1 %
        let n = 100_000_000;
        assert!((kolmogorov_p(1.3581 / 1e4, n) - 0.05).abs() < 1e-4);
        assert!((kolmogorov_p(1.6276 / 1e4, n) - 0.01).abs() < 1e-4);
    }

    #[test]
    fn chi_square_accepts_truth_and_rejects_a_bent_cell() {
        let p = [0.5, 0.3, 0.15, 0.049_99, 0.000_01];
        let mut rng = SplitMix(4);
        let mut counts = [0; 5];
        for _ in 0..100_000 {
            let u = rng.unit();
            let mut acc = 0.0;
            let cell = p.iter().position(|q| {
                acc += q;
                u < acc
            });
            counts[cell.unwrap_or(4)] += 1;
        }
        let right = chi_square(&counts, &p);
        assert!(right > 1e-3, "{right}");
        let wrong = chi_square(&counts, &[0.49, 0.31, 0.15, 0.049_99, 0.000_01]);
        assert!(wrong < 1e-6, "{wrong}");
    }

    #[test]
    fn poisson_bounds() {
        assert!(poisson_p(100, 100.0) > 0.5);
        assert!(poisson_p(160, 100.0) < 1e-6);
        assert!(poisson_p(0, 20.0) < 1e-6);
        assert!(poisson_p(1_003_000, 1e6) < 3e-3);
    }
}
