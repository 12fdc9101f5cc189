//! Gradients against a reference, row by row. The tolerance is relative to the row's largest entry, so that a
//! gradient of zeros, or one of another row, cannot pass where probabilities are small.

use super::oracle::{Kind, Rows};

/// Accepts `got` when every entry of every row is within `tolerance` of `want`, relative to the largest entry of that
/// row of `want`. A row of `want` with no entry above `floor` says nothing about the code: at least half the rows must
/// have one, or the test itself is refused.
pub fn compare(
    got: &[f64],
    want: &[f64],
    rows: &Rows,
    tolerance: f64,
    floor: f64,
) -> Result<(), String> {
    compare_with(got, want, &vec![0.0; want.len()], rows, tolerance, floor)
}

/// The same with `slack` of its own for every entry: what rounding the operands may cost where they cancel.
pub fn compare_with(
    got: &[f64],
    want: &[f64],
    slack: &[f64],
    rows: &Rows,
    tolerance: f64,
    floor: f64,
) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} entries, not {}", got.len(), want.len()));
    }
    let mut meaningful = 0;
    for row in 0..rows.count() {
        let largest = (0..rows.len).fold(0.0_f64, |m, k| m.max(want[rows.at(row, k)].abs()));
        if largest > floor {
            meaningful += 1;
        }
        for k in 0..rows.len {
            let at = rows.at(row, k);
            let (g, w) = (got[at], want[at]);
            let allowed = tolerance * largest.max(floor) + slack[at];
            if (g - w).abs() > allowed || g.is_nan() {
                return Err(format!(
                    "row {row} entry {k}: {g:e}, not {w:e} (row's largest {largest:e}, allowed {allowed:e})"
                ));
            }
        }
    }
    if 2 * meaningful < rows.count() {
        return Err(format!(
            "only {meaningful} of {} rows have a gradient above {floor:e}: the test says nothing",
            rows.count()
        ));
    }
    Ok(())
}

/// Derivative of `f` at 0 by the five-point central difference: its error is of order `h^4`.
pub fn central(h: f64, f: impl Fn(f64) -> f64) -> f64 {
    (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
}

/// Central differences of `sum w * kind(z / tau)` for every entry of `z`, and for the temperature of every row.
pub fn central_rows(
    kind: Kind,
    z: &[f64],
    tau: &[f64],
    w: &[f64],
    rows: &Rows,
) -> (Vec<f64>, Vec<f64>) {
    let mut dz = vec![0.0; z.len()];
    let mut dtau = vec![0.0; rows.count()];
    for row in 0..rows.count() {
        let (values, weights, tau) = (rows.row(z, row), rows.row(w, row), tau[row]);
        let h = 1e-3 * tau;
        for k in 0..rows.len {
            dz[rows.at(row, k)] = central(h, |d| {
                let mut moved = values.clone();
                moved[k] += d;
                kind.loss(&moved, tau, &weights)
            });
        }
        dtau[row] = central(1e-4 * tau, |d| kind.loss(&values, tau + d, &weights));
    }
    (dz, dtau)
}

/// Gradients of every row in closed form, laid out as the tensors are.
pub struct Closed {
    pub dz: Vec<f64>,
    pub magnitude: Vec<f64>,
    pub dtau: Vec<f64>,
    pub tau_terms: Vec<f64>,
    pub tau_magnitude: Vec<f64>,
}

/// Closed-form gradients in double precision: what `central_rows` gives, for rows too long for it.
pub fn closed_rows(kind: Kind, z: &[f64], tau: &[f64], w: &[f64], rows: &Rows) -> Closed {
    let (flat, per_row) = (vec![0.0; z.len()], vec![0.0; rows.count()]);
    let mut all = Closed {
        dz: flat.clone(),
        magnitude: flat,
        dtau: per_row.clone(),
        tau_terms: per_row.clone(),
        tau_magnitude: per_row,
    };
    for row in 0..rows.count() {
        let one = kind.backward(&rows.row(z, row), tau[row], &rows.row(w, row));
        rows.put(&mut all.dz, row, &one.dz);
        rows.put(&mut all.magnitude, row, &one.magnitude);
        all.dtau[row] = one.dtau;
        all.tau_terms[row] = one.tau_terms;
        all.tau_magnitude[row] = one.tau_magnitude;
    }
    all
}

mod tests {
    use super::*;
    use crate::support::data;

    fn case() -> (Rows, Vec<f64>, Vec<f64>) {
        // peaked rows: probabilities below 1e-6 beside one near 1, where absolute tolerances accept anything
        let rows = Rows::new(&[6, 12], 1);
        let z = data::normals(72, 5, 6.0);
        let w = data::normals(72, 6, 1.0);
        let tau = vec![0.7; 6];
        let dz = closed_rows(Kind::Softmax, &z, &tau, &w, &rows).dz;
        (rows, dz, w)
    }

    #[test]
    fn a_right_gradient_passes() {
        let (rows, want, _) = case();
        compare(&want, &want, &rows, 1e-12, 1e-9).unwrap();
    }

    #[test]
    fn a_zeroed_gradient_fails() {
        let (rows, want, _) = case();
        let err = compare(&vec![0.0; want.len()], &want, &rows, 0.5, 1e-9).unwrap_err();
        assert!(err.contains("row 0"), "{err}");
    }

    #[test]
    fn a_gradient_wrong_by_one_percent_fails() {
        let (rows, want, _) = case();
        let got: Vec<f64> = want.iter().map(|v| v * 1.01).collect();
        compare(&got, &want, &rows, 9e-3, 1e-9).unwrap_err();
    }

    #[test]
    fn a_gradient_with_two_rows_swapped_fails() {
        let (rows, want, _) = case();
        let mut got = want.clone();
        let (a, b) = (rows.row(&want, 2), rows.row(&want, 3));
        rows.put(&mut got, 2, &b);
        rows.put(&mut got, 3, &a);
        let err = compare(&got, &want, &rows, 1e-2, 1e-9).unwrap_err();
        assert!(err.contains("row 2"), "{err}");
    }

    #[test]
    fn a_nan_fails() {
        let (rows, want, _) = case();
        let mut got = want.clone();
        got[17] = f64::NAN;
        let err = compare(&got, &want, &rows, 1e-2, 1e-9).unwrap_err();
        assert!(err.contains("row 1 entry 5"), "{err}");
    }

    #[test]
    fn a_reference_of_zeros_is_refused() {
        let rows = Rows::new(&[2, 3], 1);
        let err = compare(&[0.0; 6], &[0.0; 6], &rows, 1e-2, 1e-9).unwrap_err();
        assert!(err.contains("says nothing"), "{err}");
    }

    #[test]
    fn closed_forms_agree_with_central_differences() {
        for kind in [Kind::Softmax, Kind::LogSoftmax] {
            for (tau, scale) in [(0.3, 1.0), (1.0, 4.0), (5.0, 20.0)] {
                let rows = Rows::new(&[3, 7, 2], 1);
                let z = data::normals(42, 1, scale);
                let w = data::normals(42, 2, 1.0);
                let tau = vec![tau; rows.count()];
                let closed = closed_rows(kind, &z, &tau, &w, &rows);
                let (cz, ctau) = central_rows(kind, &z, &tau, &w, &rows);
                compare(&closed.dz, &cz, &rows, 1e-9, 1e-9).unwrap();
                for r in 0..rows.count() {
                    let (a, b) = (closed.dtau[r], ctau[r]);
                    assert!(
                        (a - b).abs() <= 1e-9 * (closed.tau_terms[r] + 1e-9),
                        "{kind:?} {a} {b}"
                    );
                }
            }
        }
    }
}
