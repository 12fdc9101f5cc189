use super::iterate::{Step, iterate, retreat};
use crate::element::Element;
use crate::math::Real;
use crate::op::{TauArg, by_dtype, dtype, rows_of, with_size};
use crate::output::{Piece, Split, fill};
use crate::rng::{FILL_SLACK, Key, Stream};
use crate::rowwise::{
    Block, GRAIN_NOISE, LINES, Perturbed, Plain, Ranked, Rows, Scores, Source, TILE, Tau,
    fill_block, flat_room, inverse, padded, push, top_k,
};
use crate::simd::{Kernel, Simd, dispatch};
use candle_core::{CpuStorage, Layout, Result, Shape};

fn perturbed<'a, E: Element>(
    key: Key,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<Perturbed<'a, E>> {
    Ok(Perturbed {
        logits: Source::new(storage, layout)?,
        stream: Stream::new(key),
    })
}

pub(super) fn relaxed(
    name: &str,
    (k, dim): (usize, usize),
    key: Key,
    (storage, layout): (&CpuStorage, &Layout),
    tau: TauArg,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let scores = perturbed::<E>(key, storage, layout)?;
        let tau = tau.typed::<E>()?;
        let rows = rows_of(layout, dim);
        let job = Job { scores: &scores, grad: None, tau: &tau, rows, k };
        Ok((E::storage(job.run::<E>(false)), layout.shape().clone()))
    })
}

/// The k-hots of the rows; NaN in a row without `k` classes.
pub(super) fn k_hot(
    name: &str,
    (k, dim): (usize, usize),
    key: Key,
    (storage, layout): (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let rows = rows_of(layout, dim);
        let out = scatter::<E>(&perturbed::<E>(key, storage, layout)?, rows, k);
        Ok((E::storage(out), layout.shape().clone()))
    })
}

fn scatter<E: Element>(scores: &Perturbed<E>, rows: Rows, k: usize) -> Vec<E>
where
    E::Compute: Ranked,
{
    let drawn = top_k(scores, rows, k);
    let Rows { len, inner, .. } = rows;
    let mut out = vec![E::default(); rows.elements()];
    for (i, &index) in drawn.indices.iter().enumerate() {
        let (outer, column) = (i / (k * inner), i % inner);
        out[(outer * len + index as usize) * inner + column] = E::round(1.0);
    }
    for (row, _) in drawn.faults {
        let first = row / inner * len * inner + row % inner;
        (0..len).for_each(|k| out[first + k * inner] = E::round(f64::NAN));
    }
    out
}

/// The gradient of the logits, or with `to_tau` that of each row's temperature, not rounded to a half type.
pub(super) fn gradient(
    name: &str,
    (k, dim): (usize, usize),
    key: Key,
    (storage, layout): (&CpuStorage, &Layout),
    (grad, grad_layout): (&CpuStorage, &Layout),
    tau: TauArg,
    to_tau: bool,
) -> Result<(CpuStorage, Shape)> {
    by_dtype!(name, dtype(storage), E => {
        let scores = perturbed::<E>(key, storage, layout)?;
        let grad = Plain(Source::<E>::new(grad, grad_layout)?);
        let tau = tau.typed::<E>()?;
        let rows = rows_of(layout, dim);
        let job = Job { scores: &scores, grad: Some(&grad), tau: &tau, rows, k };
        Ok(if to_tau {
            let out = job.run::<<E as Element>::Wide>(true);
            (<E as Element>::Wide::storage(out), with_size(layout, dim, 1))
        } else {
            (E::storage(job.run::<E>(false)), layout.shape().clone())
        })
    })
}

struct Job<'a, E: Element> {
    scores: &'a Perturbed<'a, E>,
    /// Of the result, where the gradient is wanted.
    grad: Option<&'a Plain<'a, E>>,
    tau: &'a Tau<'a, E>,
    rows: Rows,
    k: usize,
}

impl<E: Element> Job<'_, E> {
    /// The result, or with `per_row` one value a row.
    fn run<O: Element<Compute = E::Compute>>(&self, per_row: bool) -> Vec<O> {
        let Rows { outer, len, inner } = self.rows;
        if self.rows.elements() == 0 {
            return Vec::new();
        }
        let lines = if per_row { 1 } else { len };
        let (split, batch) = if inner > 1 {
            // So many columns side by side that their rows fit a cache.
            let width = self.rows.column_width().min((16 * TILE / len).max(16));
            let split = Split::Columns {
                outer,
                len: lines,
                inner,
                width,
            };
            (split, width)
        } else {
            let batch = (TILE / len).max(1);
            let split = Split::Runs {
                total: outer * lines,
                size: batch * lines,
            };
            (split, batch)
        };
        let grain = (GRAIN_NOISE / self.k * lines / len).max(1);
        let scratch = || Scratch::new(self.rows, self.k, batch, self.grad.is_some());
        let work = |scratch: &mut Scratch<E::Compute>, i: usize, piece: &mut Piece<O>| {
            dispatch(Batch {
                job: self,
                first: i * batch,
                per_row,
                scratch,
                piece,
            });
        };
        fill(split, grain, scratch, work).0
    }
}

/// Buffers of a task. Rows are padded to whole vectors.
struct Scratch<C> {
    flat: Vec<C>,
    lines: Vec<C>,
    /// Scores, gradients and results of a batch of rows.
    z: Vec<C>,
    g: Vec<C>,
    out: Vec<C>,
    /// Of one row; the exponentials of every iteration where the gradient is wanted.
    c: Vec<C>,
    w: Vec<C>,
    e: Vec<C>,
    steps: Vec<Step<C>>,
    /// One value a row.
    values: Vec<C>,
}

impl<C: Real> Scratch<C> {
    fn new(rows: Rows, k: usize, batch: usize, gradient: bool) -> Self {
        let zeros = |n| vec![C::default(); n];
        let row = padded(rows.len);
        let (flat, lines) = if rows.inner > 1 {
            let lines = rows.len.min(LINES) * padded(batch);
            (flat_room(rows, batch), lines.max(padded(batch)))
        } else {
            (batch * rows.len + FILL_SLACK, 0)
        };
        Self {
            flat: zeros(flat),
            lines: zeros(lines),
            z: zeros(batch * row),
            g: zeros(if gradient { batch * row } else { 0 }),
            out: zeros(batch * row),
            c: zeros(row),
            w: zeros(row),
            e: zeros(if gradient { k * row } else { row }),
            steps: Vec::with_capacity(k),
            values: zeros(batch),
        }
    }
}

/// Rows that follow each other, or columns side by side.
struct Batch<'a, 'b, E: Element, O> {
    job: &'a Job<'a, E>,
    /// The first of the rows that follow each other.
    first: usize,
    per_row: bool,
    scratch: &'a mut Scratch<E::Compute>,
    piece: &'a mut Piece<'b, O>,
}

/// Brings rows of scores to `out`, one after the other, each padded with `outside`.
#[inline(always)]
fn load<S: Simd, E: Element, Z: Scores<E>>(
    scores: &Z,
    rows: Rows,
    // The slab and the first column of columns, or the first row.
    (slab, at): (usize, usize),
    count: usize,
    (flat, lines): (&mut [E::Compute], &mut [E::Compute]),
    out: &mut [E::Compute],
    outside: E::Compute,
) {
    let Rows { len, inner, .. } = rows;
    let row = padded(len);
    if inner == 1 {
        let offset = scores.fill::<S>(slab * len, count * len, flat);
        for (src, dst) in flat[offset..offset + count * len]
            .chunks_exact(len)
            .zip(out.chunks_exact_mut(row))
        {
            dst[..len].copy_from_slice(src);
        }
    } else {
        let stride = padded(count);
        for first in (0..len).step_by(LINES) {
            let block = Block {
                slab,
                first,
                lines: LINES.min(len - first),
                at,
                width: count,
            };
            fill_block::<S, E, Z>(scores, rows, block, flat, lines);
            for (i, line) in lines.chunks_exact(stride).take(block.lines).enumerate() {
                for (j, &x) in line[..count].iter().enumerate() {
                    out[j * row + first + i] = x;
                }
            }
        }
    }
    for dst in out.chunks_exact_mut(row).take(count) {
        dst[len..].fill(outside);
    }
}

impl<E: Element, O: Element<Compute = E::Compute>> Kernel for Batch<'_, '_, E, O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self {
            job,
            first,
            per_row,
            scratch,
            piece,
        } = self;
        let Rows { len, inner, .. } = job.rows;
        let place = piece.place();
        let lines = if per_row { 1 } else { len };
        let (row, zero) = (padded(len), E::Compute::default());
        // The first row's number, and how many there are.
        let (slab, at, count) = if inner > 1 {
            let slab = place.start / (lines * inner);
            (slab, place.start % inner, place.width)
        } else {
            (first, 0, place.width / lines)
        };
        let number = if inner > 1 { slab * inner + at } else { first };
        let Scratch {
            flat,
            lines: block,
            z,
            g,
            out,
            c,
            w,
            e,
            steps,
            values,
        } = scratch;
        let room = (&mut flat[..], &mut block[..]);
        load::<S, E, _>(
            job.scores,
            job.rows,
            (slab, at),
            count,
            room,
            z,
            E::Compute::NEG_INFINITY,
        );
        if let Some(grad) = job.grad {
            let room = (&mut flat[..], &mut block[..]);
            load::<S, E, _>(grad, job.rows, (slab, at), count, room, g, zero);
        }
        for (j, result) in values.iter_mut().enumerate().take(count) {
            let tau = job.tau.at(number + j);
            let scales = (E::Compute::exp_scale(tau), inverse::<E::Compute>(tau));
            let own = j * row..(j + 1) * row;
            let (z, out) = (&mut z[own.clone()], &mut out[own.clone()]);
            c.fill(zero);
            out.fill(zero);
            steps.clear();
            // What an iteration leaves of a class can be chosen again, so that a row with too few of them need not run out.
            let there = z.iter().filter(|&&z| z > E::Compute::NEG_INFINITY).count();
            let iterations = if there < job.k { 0 } else { job.k };
            for i in 0..iterations {
                let from = if job.grad.is_some() { i * row } else { 0 };
                let e = &mut e[from..from + row];
                let last = i + 1 == job.k;
                match iterate::<S, E::Compute>(z, c, w, e, out, scales, last) {
                    Some(step) => steps.push(step),
                    None => break,
                }
            }
            let proper = steps.len() == job.k;
            let mut value = 0.0;
            if job.grad.is_some() {
                out.fill(zero);
                for (i, &step) in steps.iter().enumerate().rev() {
                    let (e, g) = (&e[i * row..(i + 1) * row], &g[own.clone()]);
                    value += retreat::<S, E::Compute>(e, g, out, step, scales.1, per_row);
                }
            }
            let nan = E::Compute::of(f64::NAN);
            if !proper {
                out.fill(nan);
            }
            *result = if proper { E::Compute::of(value) } else { nan };
        }
        if per_row {
            push::<S, O>(piece, &values[..count]);
        } else if inner == 1 {
            for row in out.chunks_exact(row).take(count) {
                push::<S, O>(piece, &row[..len]);
            }
        } else {
            for k in 0..len {
                let line = &mut block[..count];
                for (dst, row) in line.iter_mut().zip(out.chunks_exact(row)) {
                    *dst = row[k];
                }
                push::<S, O>(piece, line);
            }
        }
    }
}
