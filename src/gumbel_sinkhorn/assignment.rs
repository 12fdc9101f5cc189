//! The permutation with the largest sum of scores: the linear assignment problem, by shortest augmenting paths in `O(n^3)`
//! (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems", 1987).
//!
//! kernels/gumbel_sinkhorn.cu follows it operation for operation, in f64 for every dtype: that both devices choose the same
//! permutation, ties included, is why this is not a dependency.

/// No column, or no row.
const NONE: usize = usize::MAX;

/// The room that one problem needs.
#[derive(Default)]
pub(super) struct Assignment {
    row_prices: Vec<f64>,
    prices: Vec<f64>,
    /// Of the shortest path from the row that is being added to each column.
    lengths: Vec<f64>,
    /// The row before each column on that path.
    before: Vec<usize>,
    /// Whether that path is known to be the shortest.
    done: Vec<bool>,
    /// The row of each column.
    row_of: Vec<usize>,
    column_of: Vec<usize>,
}

impl Assignment {
    /// The column of each row, `score(row, column)` being below +inf and not NaN; none where every permutation has an entry of
    /// -inf.
    pub(super) fn solve(
        &mut self,
        n: usize,
        score: impl Fn(usize, usize) -> f64,
    ) -> Option<&[usize]> {
        fn reset<T: Clone>(values: &mut Vec<T>, n: usize, value: T) {
            values.clear();
            values.resize(n, value);
        }
        reset(&mut self.row_prices, n, 0.0);
        reset(&mut self.prices, n, 0.0);
        reset(&mut self.lengths, n, 0.0);
        reset(&mut self.before, n, NONE);
        reset(&mut self.done, n, false);
        reset(&mut self.row_of, n, NONE);
        reset(&mut self.column_of, n, NONE);
        for added in 0..n {
            self.lengths.fill(f64::INFINITY);
            self.done.fill(false);
            let (mut row, mut reached) = (added, 0.0);
            // Dijkstra's algorithm, over the columns.
            let (end, longest) = loop {
                let (mut best, mut least) = (NONE, f64::INFINITY);
                let base = reached - self.row_prices[row];
                for j in 0..n {
                    if self.done[j] {
                        continue;
                    }
                    let length = base + (-score(row, j) - self.prices[j]);
                    if length < self.lengths[j] {
                        self.lengths[j] = length;
                        self.before[j] = row;
                    }
                    if self.lengths[j] < least {
                        (best, least) = (j, self.lengths[j]);
                    }
                }
                if best == NONE {
                    return None;
                }
                self.done[best] = true;
                reached = least;
                if self.row_of[best] == NONE {
                    break (best, least);
                }
                row = self.row_of[best];
            };
            // Prices under which every path so far, and the new assignment, is tight.
            self.row_prices[added] += longest;
            for j in 0..n {
                if self.done[j] && j != end {
                    let rest = longest - self.lengths[j];
                    self.row_prices[self.row_of[j]] += rest;
                    self.prices[j] -= rest;
                }
            }
            let mut column = end;
            loop {
                let row = self.before[column];
                self.row_of[column] = row;
                column = std::mem::replace(&mut self.column_of[row], column);
                if row == added {
                    break;
                }
            }
        }
        Some(&self.column_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(n: usize, scores: &[f64], row: usize, used: u32) -> f64 {
        if row == n {
            return 0.0;
        }
        (0..n)
            .filter(|j| used >> j & 1 == 0)
            .map(|j| scores[row * n + j] + best(n, scores, row + 1, used | 1 << j))
            .fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn the_sum_is_that_of_the_best_of_all_permutations() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as f64 / f64::from(1u32 << 31)
        };
        let mut solver = Assignment::default();
        let mut infeasible = 0;
        for round in 0..400 {
            let n = 1 + round % 6;
            // Every other round has ties, every third has forbidden entries.
            let scores: Vec<f64> = (0..n * n)
                .map(|_| match round {
                    r if r % 3 == 0 && next() < 0.5 => f64::NEG_INFINITY,
                    r if r % 2 == 0 => (4.0 * next()).floor(),
                    _ => 10.0 * next() - 5.0,
                })
                .collect();
            let want = best(n, &scores, 0, 0);
            match solver.solve(n, |i, j| scores[i * n + j]) {
                Some(columns) => {
                    let mut seen = vec![false; n];
                    columns.iter().for_each(|&j| seen[j] = true);
                    assert!(seen.iter().all(|s| *s), "{columns:?}");
                    let got: f64 = columns
                        .iter()
                        .enumerate()
                        .map(|(i, j)| scores[i * n + j])
                        .sum();
                    assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} {want}");
                }
                None => {
                    infeasible += 1;
                    assert_eq!(want, f64::NEG_INFINITY, "{scores:?}");
                }
            }
        }
        assert!((10..200).contains(&infeasible), "{infeasible}");
    }
}
