//! Densities integrate to 1, and to the entropies, means, variances and divergences in closed form.

use candle_core::{Result, Tensor};
use candle_reparam::distributions::{
    Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence, Logistic,
    LogitRelaxedBernoulli, Normal, RelaxedBernoulli, RelaxedOneHotCategorical,
};

use super::{near, s, t, value};
use crate::support::data;
use crate::support::oracle::sum;

/// Nodes and weights of the trapezoid rule on the line, under `x = sinh(pi/2 sinh(u))` scaled: it converges exponentially for
/// densities with exponential tails.
fn line(scale: f64) -> (Vec<f64>, Vec<f64>) {
    let n = 1200;
    let h = 5.0 / f64::from(n);
    (-n..=n)
        .map(|i| {
            let u = f64::from(i) * h;
            // sinh alone: tails fall off doubly exponentially in u
            (scale * u.sinh(), scale * h * u.cosh())
        })
        .unzip()
}

fn density(p: &impl Distribution, x: &[f64]) -> Vec<f64> {
    data::values(&p.log_prob(&t(x, &[x.len()])).unwrap())
}

#[track_caller]
fn check_line(p: &impl Distribution) {
    let (x, w) = line(2.0);
    let l = density(p, &x);
    let integral = |f: &dyn Fn(usize) -> f64| {
        sum((0..x.len()).map(|i| match l[i].exp() {
            0.0 => 0.0,
            density => w[i] * density * f(i),
        }))
    };
    near(integral(&|_| 1.0), 1.0, 1e-10);
    near(integral(&|i| -l[i]), value(p.entropy()), 1e-9);
    let mean = value(p.mean());
    near(integral(&|i| x[i]), mean, 1e-9);
    near(
        integral(&|i| (x[i] - mean).powi(2)),
        value(p.variance()),
        1e-9,
    );
    let mode = value(p.mode());
    let top = value(p.log_prob(&s(mode)));
    assert!(l.iter().all(|l| *l <= top + 1e-12), "{mode}");
}

#[track_caller]
fn check_divergence<P: Distribution + KlDivergence>(p: &P, q: &P) {
    let (x, w) = line(2.0);
    let (lp, lq) = (density(p, &x), density(q, &x));
    let integral = sum((0..x.len()).map(|i| match lp[i].exp() {
        0.0 => 0.0,
        density => w[i] * density * (lp[i] - lq[i]),
    }));
    near(value(p.kl_divergence(q)), integral, 1e-9);
}

#[test]
fn densities_on_the_line() {
    check_line(&Normal::new(&s(0.4), &s(1.3)).unwrap());
    check_line(&Normal::from_log_var(&s(0.4), &s(-1.0)).unwrap());
    check_line(&Gumbel::new(&s(-0.4), &s(1.3)).unwrap());
    check_line(&Logistic::new(&s(0.4), &s(0.7)).unwrap());
    check_line(&LogitRelaxedBernoulli::from_logits(&s(0.4), 0.7).unwrap());
    check_line(&LogitRelaxedBernoulli::from_logits(&s(-0.8), s(1.7)).unwrap());
}

#[test]
fn divergences_on_the_line() {
    let normal = |m, v| Normal::new(&s(m), &s(v)).unwrap();
    check_divergence(&normal(0.4, 1.3), &normal(-0.2, 0.9));
    let from_log_var = |m, v| Normal::from_log_var(&s(m), &s(v)).unwrap();
    check_divergence(&from_log_var(0.4, 0.3), &from_log_var(-0.2, -0.4));
    check_divergence(&normal(0.4, 1.3), &from_log_var(-0.2, -0.4));
    let gumbel = |m, b| Gumbel::new(&s(m), &s(b)).unwrap();
    check_divergence(&gumbel(0.4, 1.3), &gumbel(-0.2, 0.9));
    check_divergence(&gumbel(0.4, 0.6), &gumbel(0.2, 1.9));
}

#[test]
fn the_relaxed_coin_integrates_to_one_on_its_interval() {
    for (logit, tau) in [(0.4, 0.6), (-1.2, 1.0), (0.3, 2.5)] {
        let p = RelaxedBernoulli::from_logits(&s(logit), tau).unwrap();
        // y = sigmoid(u), an integral over the line
        let (u, w) = line(2.0);
        let y: Vec<f64> = u.iter().map(|u| 1.0 / (1.0 + (-u).exp())).collect();
        let inside: Vec<usize> = (0..y.len())
            .filter(|&i| y[i] > 1e-12 && 1.0 - y[i] > 1e-12)
            .collect();
        let at: Vec<f64> = inside.iter().map(|&i| y[i]).collect();
        let l = density(&p, &at);
        let total = sum(inside
            .iter()
            .zip(&l)
            .map(|(&i, l)| w[i] * l.exp() * y[i] * (1.0 - y[i])));
        // what lies beyond 1e-12 on both sides
        near(total, 1.0, 1e-6);
    }
}

/// The integral of a density of the simplex over its first `K - 1` coordinates, by softmax of a grid in logits with the last at
/// 0, whose Jacobian is the product of all `K` coordinates.
fn simplex(
    classes: usize,
    log_density: impl Fn(&Tensor) -> Result<Tensor>,
    log_space: bool,
) -> f64 {
    let n: i32 = if classes == 2 { 600 } else { 110 };
    let reach = 24.0;
    let h = reach / f64::from(n);
    let axis: Vec<f64> = (-n..=n).map(|i| f64::from(i) * h).collect();
    let mut points = vec![];
    if classes == 2 {
        points.extend(axis.iter().map(|a| vec![*a, 0.0]));
    } else {
        for a in &axis {
            points.extend(axis.iter().map(|b| vec![*a, *b, 0.0]));
        }
    }
    let logs: Vec<f64> = points
        .iter()
        .flat_map(|z| {
            let top = z.iter().fold(f64::MIN, |m, v| m.max(*v));
            let norm = top + z.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
            z.iter().map(move |v| v - norm).collect::<Vec<_>>()
        })
        .collect();
    let x = t(&logs, &[points.len(), classes]);
    let at = if log_space { x } else { x.exp().unwrap() };
    let l = data::values(&log_density(&at).unwrap());
    let volume = h.powi(classes as i32 - 1);
    sum((0..points.len()).map(|i| {
        let row = &logs[classes * i..classes * (i + 1)];
        // The grid is of the log-ratios, over which the density in log space is one; that on the simplex is one over y.
        let jacobian = if log_space { 0.0 } else { row.iter().sum() };
        volume * (l[i] + jacobian).exp()
    }))
}

#[test]
fn concrete_densities_integrate_to_one_on_the_simplex() {
    for (logits, tau) in [
        (vec![0.4, -0.3], 0.8),
        (vec![0.4, -0.3], 1.6),
        (vec![0.4, -0.3, 0.9], 0.9),
        (vec![-0.5, 0.2, 0.1], 1.4),
    ] {
        let classes = logits.len();
        let logits = t(&logits, &[classes]);
        let p = RelaxedOneHotCategorical::new(&logits, tau).unwrap();
        near(simplex(classes, |y| p.log_prob(y), false), 1.0, 1e-6);
        let p = ExpRelaxedOneHotCategorical::new(&logits, tau).unwrap();
        near(simplex(classes, |x| p.log_prob(x), true), 1.0, 1e-6);
    }
}
