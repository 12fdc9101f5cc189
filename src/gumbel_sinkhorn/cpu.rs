use super::assignment::Assignment;
use super::matrices_of;
use super::solver::Solver;
use crate::element::{Element, Vector};
use crate::math::Real;
use crate::op::{TauArg, by_dtype, dtype};
use crate::output::{Piece, Split, fill};
use crate::rng::{FILL_SLACK, Key, Stream};
use crate::rowwise::{GRAIN_NOISE, Perturbed, Plain, Scores, Source, Tau, push, row_map};
use crate::simd::{Float, Kernel, Simd, dispatch};
use crate::tempered::Target;
use candle_core::{CpuStorage, Layout, Result, Shape};

/// What is computed of each matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    Relaxed,
    Hard,
    Gradient(Target),
}

pub(super) fn forward(
    name: &str,
    hard: bool,
    iterations: usize,
    key: Option<Key>,
    (storage, layout): (&CpuStorage, &Layout),
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    let job = if hard { Job::Hard } else { Job::Relaxed };
    by_dtype!(name, dtype(storage), E => {
        let scores = Source::<E>::new(storage, layout)?;
        let all = All { iterations, tau: tau.typed::<E>()?, grad: None, job };
        let (out, _) = run(scores, key, all, layout);
        Ok((E::storage(out), layout.shape().clone()))
    })
}

pub(super) fn gradient(
    name: &str,
    target: Target,
    iterations: usize,
    key: Option<Key>,
    (storage, layout): (&CpuStorage, &Layout),
    (grad, grad_layout): (&CpuStorage, &Layout),
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let scores = Source::<E>::new(storage, layout)?;
        let all = All {
            iterations,
            tau: tau.typed::<E>()?,
            grad: Some(Source::<E>::new(grad, grad_layout)?),
            job: Job::Gradient(target),
        };
        let (out, taus) = run(scores, key, all, layout);
        Ok(match target {
            Target::Input => (E::storage(out), layout.shape().clone()),
            Target::Tau => {
                let taus = taus.into_iter().map(<<E as Element>::Wide as Element>::round).collect();
                (<<E as Element>::Wide as Element>::storage(taus), super::tau_shape(layout))
            }
        })
    })
}

/// The matrices of a call, but for their scores.
struct All<'a, E: Element> {
    iterations: usize,
    tau: Tau<'a, E>,
    grad: Option<Source<'a, E>>,
    job: Job,
}

/// The matrices that come out, and for each the gradient of its temperature.
fn run<E: Element>(
    scores: Source<E>,
    key: Option<Key>,
    all: All<E>,
    layout: &Layout,
) -> (Vec<E>, Vec<f64>) {
    match key {
        Some(key) => {
            let stream = Stream::new(key);
            let logits = scores;
            each(&Perturbed { logits, stream }, &all, layout)
        }
        None => each(&Plain(scores), &all, layout),
    }
}

fn each<E: Element, Z: Scores<E>>(scores: &Z, all: &All<E>, layout: &Layout) -> (Vec<E>, Vec<f64>) {
    let (count, n) = matrices_of(layout);
    if count == 0 {
        return (Vec::new(), Vec::new());
    }
    let split = Split::Runs {
        total: count * n * n,
        size: n * n,
    };
    // An element's share of the work grows with the iterations.
    let grain = (16 * GRAIN_NOISE / (16 + all.iterations)).max(1);
    let scratch = || Scratch {
        solver: Solver::new(n, count == 1),
        flat: vec![E::Compute::default(); n * n + FILL_SLACK],
        assignment: Assignment::default(),
    };
    fill(split, grain, scratch, |scratch, matrix, piece| {
        dispatch(One {
            scores,
            all,
            scratch,
            matrix,
            n,
            piece,
        })
    })
}

struct Scratch<C> {
    solver: Solver<C>,
    flat: Vec<C>,
    assignment: Assignment,
}

struct One<'a, 'b, E: Element, Z> {
    scores: &'a Z,
    all: &'a All<'a, E>,
    scratch: &'a mut Scratch<E::Compute>,
    matrix: usize,
    n: usize,
    piece: &'a mut Piece<'b, E>,
}

impl<E: Element, Z: Scores<E>> Kernel for One<'_, '_, E, Z> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let (n, start) = (self.n, self.matrix * self.n * self.n);
        let Scratch {
            solver,
            flat,
            assignment,
        } = self.scratch;
        let stride = solver.size().stride;
        let offset = self.scores.fill::<S>(start, n * n, flat);
        let rows = flat[offset..].chunks_exact(n);
        for (to, from) in solver.z.chunks_exact_mut(stride).zip(rows) {
            to[..n].copy_from_slice(from);
        }
        let All {
            iterations,
            ref tau,
            ref grad,
            job,
        } = *self.all;
        let tau = tau.at(self.matrix);
        let found = match (job, grad) {
            (Job::Gradient(_), Some(grad)) => {
                solver.m.fill(E::Compute::default());
                for (i, to) in solver.m.chunks_exact_mut(stride).enumerate() {
                    grad.copy_to::<S>(start + i * n, &mut to[..n]);
                }
                solver.backward::<S>(tau, iterations)
            }
            (Job::Hard, _) => {
                let proper = !solver.is_improper::<S>();
                let z = &solver.z;
                let columns = proper.then(|| assignment.solve(n, |i, j| z[i * stride + j].f64()));
                if let Some(columns) = columns.flatten() {
                    let mut row = vec![E::round(0.0); n];
                    for &j in columns {
                        row[j] = E::round(1.0);
                        self.piece.push(&row);
                        row[j] = E::round(0.0);
                    }
                    return 0.0;
                }
                false
            }
            _ => solver.forward::<S>(tau, iterations),
        };
        if !found {
            let nothing = vec![E::round(f64::NAN); n];
            (0..n).for_each(|_| self.piece.push(&nothing));
            return f64::NAN;
        }
        let gradient = match job {
            Job::Gradient(Target::Tau) => solver.tau_gradient::<S>(tau),
            _ => 0.0,
        };
        let inverse = solver.inverse_tau();
        let out = match job {
            Job::Gradient(_) => {
                let d = &mut solver.d;
                let (len, inverse) = (d.len(), Vector::<S, E>::splat(inverse));
                row_map::<S, E::Compute>(
                    d,
                    len,
                    #[inline(always)]
                    |x| x * inverse,
                );
                d
            }
            _ => &solver.m,
        };
        for row in out.chunks_exact(stride) {
            push::<S, E>(self.piece, &row[..n]);
        }
        gradient
    }
}
