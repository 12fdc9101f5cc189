//! The product itself, on plain slices.

use std::num::NonZero;
use std::thread;

use super::matrix::Real;

/// Rows of the result that are summed at a time: their sums stay in registers and in the first cache.
const ROWS: usize = 128;
/// Columns of the result that share a reading of the left matrix.
const COLUMNS: usize = 4;
/// Below as many multiplications, starting a thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

/// `left * right`, column by column. `left` is m x k and `right` k x n, both by columns. Each element is summed in order
/// of the inner index, so that the result depends neither on the blocking nor on the number of threads.
pub fn product<T: Real>(left: &[T], right: &[T], m: usize, n: usize, k: usize) -> Vec<T> {
    let mut result = vec![T::ZERO; m * n];
    if m == 0 || n == 0 || k == 0 {
        return result;
    }
    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min((m * n).saturating_mul(k) / WORTH_A_THREAD)
        .max(1);
    let share = n.div_ceil(threads).next_multiple_of(COLUMNS);
    if threads == 1 || share >= n {
        multiply(left, right, &mut result, m, k);
    } else {
        thread::scope(|scope| {
            for (columns, right) in result.chunks_mut(share * m).zip(right.chunks(share * k)) {
                scope.spawn(move || multiply(left, right, columns, m, k));
            }
        });
    }
    result
}

/// Some columns of the product.
fn multiply<T: Real>(left: &[T], right: &[T], result: &mut [T], m: usize, k: usize) {
    let groups = result
        .chunks_mut(COLUMNS * m)
        .zip(right.chunks(COLUMNS * k));
    for (result, right) in groups {
        let columns = right.len() / k;
        for first in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - first);
            let mut sums = [[T::ZERO; ROWS]; COLUMNS];
            for p in 0..k {
                let left = &left[p * m + first..][..rows];
                for (sums, right) in sums.iter_mut().zip(right.chunks_exact(k)) {
                    let factor = right[p];
                    for (sum, element) in sums.iter_mut().zip(left) {
                        *sum += *element * factor;
                    }
                }
            }
            for (j, sums) in sums.iter().enumerate().take(columns) {
                result[j * m + first..][..rows].copy_from_slice(&sums[..rows]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::product;

    #[test]
    fn equals_the_sums_of_the_definition() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 7),
            (129, 6, 33),
            (64, 301, 40),
            (200, 100, 90),
        ] {
            let left: Vec<f64> = (0..m * k).map(|i| ((i * 37) % 101) as f64 - 50.0).collect();
            let right: Vec<f64> = (0..k * n).map(|i| ((i * 53) % 97) as f64 - 48.0).collect();
            let result = product(&left, &right, m, n, k);
            for j in 0..n {
                for i in 0..m {
                    // Integers: every order of summation is exact.
                    let sum: f64 = (0..k).map(|p| left[p * m + i] * right[j * k + p]).sum();
                    assert_eq!(result[j * m + i], sum, "{m} {n} {k} at {i} {j}");
                }
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        assert_eq!(product::<f32>(&[], &[], 2, 2, 0), [0.0; 4]);
    }
}
