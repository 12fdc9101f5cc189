//! Sinkhorn's iteration on one matrix, and the way back through it.
//!
//! Every iterate is `exp(x / tau - u_i - v_j)` for the potentials of its rows and columns. Here a potential is written as
//! `tau u_i = rows_i - tau ln a_i`: the iterate is `k a b^T` with the exponentials `k = exp((x - rows - columns) / tau)`, a
//! *frame*, and the scales `a` and `b`. While the scales stay within limits a half step needs no exponential, only sums of `k`
//! weighted by the other side's scales. When one leaves them, the potentials take the scales up and a new frame is made, by
//! differences to the largest entry as in any log-sum-exp: what that is to a step in log space, at any temperature.
//! Potentials have two parts, high and low, and scales pass to them by powers of two alone, so that a frame costs no digits.

use super::passes::{
    Size, add_outer, centre, column_maxima, differences, exponentials, has_improper, invert,
    moment, product, row_maxima, scaled, settle,
};
use super::sums::Sums;
use crate::math::Real;
use crate::simd::Simd;

/// The side whose sums become 1 in a half step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Rows,
    Columns,
}

/// The temperature as the passes take it.
#[derive(Clone, Copy)]
pub(super) struct Heat<C> {
    /// That of [`Real::exp_scaled`].
    scale: C,
    /// What a scale's factor of 2 is to a potential.
    octave: f64,
    inverse: C,
}

impl<C: Real> Heat<C> {
    pub(super) fn new(tau: f64) -> Self {
        let scale = C::exp_scale(tau);
        // From the rounded scale, so that frames fit together.
        let base_two = C::exp_scale(1.0) != C::of(1.0);
        let octave = if base_two {
            1.0
        } else {
            std::f64::consts::LN_2
        };
        Self {
            scale,
            octave: octave / scale.f64(),
            inverse: crate::rowwise::inverse(tau),
        }
    }
}

/// What the way back needs: the scales after each half step, and each frame. Values of a matrix's side take a row's room.
#[derive(Default)]
struct Trace<C> {
    steps: Vec<C>,
    /// For each frame: the potentials of rows and of columns, high and low, and the scales of the side that was not normalised.
    frames: Vec<C>,
    /// For each frame: the half step that made it.
    first: Vec<usize>,
}

/// Outer products that are added to a matrix in one pass.
const PAIRS: usize = 4;
/// Elements of a matrix from which on threads share its sums, where it is the only one.
const LARGE: usize = 256 * 1024;

/// The room that one matrix needs.
pub(super) struct Solver<C> {
    size: Size,
    by: Sums,
    heat: Heat<C>,
    pub(super) z: Vec<C>,
    k: Vec<C>,
    /// High and low.
    rows: [Vec<C>; 2],
    columns: [Vec<C>; 2],
    a: Vec<C>,
    b: Vec<C>,
    sums: Vec<C>,
    zeros: Vec<C>,
    trace: Trace<C>,
    /// The result, or its gradient on the way in.
    pub(super) m: Vec<C>,
    /// The gradient of `z / tau`, without what `m` will add.
    pub(super) d: Vec<C>,
}

impl<C: Real> Solver<C> {
    /// For matrices of `n` rows; `alone` where there is but one.
    pub(super) fn new(n: usize, alone: bool) -> Self {
        let size = Size::new(n);
        let shared = alone && size.elements() >= LARGE;
        let matrix = || vec![C::default(); size.elements()];
        let side = || vec![C::default(); size.stride];
        Self {
            size,
            by: Sums { size, shared },
            heat: Heat::new(1.0),
            z: vec![C::NEG_INFINITY; size.elements()],
            k: matrix(),
            rows: [side(), side()],
            columns: [side(), side()],
            a: side(),
            b: side(),
            sums: side(),
            zeros: side(),
            trace: Trace {
                steps: Vec::new(),
                frames: Vec::new(),
                first: Vec::new(),
            },
            m: matrix(),
            d: Vec::new(),
        }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Whether the scores make no matrix: a row or a column that is all -inf, NaN or +inf.
    pub(super) fn is_improper<S: Simd>(&mut self) -> bool {
        let size = self.size;
        row_maxima::<S, C>(size, &self.z, &mut self.rows[0]);
        column_maxima::<S, C>(size, &self.z, &mut self.columns[0]);
        let empty = |maxima: &[C]| maxima[..size.n].contains(&C::NEG_INFINITY);
        empty(&self.rows[0]) || empty(&self.columns[0]) || has_improper::<S, C>(&self.z)
    }

    /// Makes a frame in which `side` is normalised; the other side's scales pass to its potentials but for their mantissas.
    fn new_frame<S: Simd>(&mut self, side: Side) {
        let (size, octave) = (self.size, self.heat.octave);
        let (own, other, scales) = match side {
            Side::Rows => (&mut self.rows, &mut self.columns, &mut self.b),
            Side::Columns => (&mut self.columns, &mut self.rows, &mut self.a),
        };
        let [high, low] = other;
        for ((high, low), scale) in high.iter_mut().zip(low).zip(scales).take(size.n) {
            let exponent = exponent(scale.f64());
            let sum = high.f64() + (low.f64() - f64::from(exponent) * octave);
            *high = C::of(sum);
            *low = C::of(sum - high.f64());
            *scale = C::of(scale.f64() * 2f64.powi(-exponent));
        }
        own.iter_mut().for_each(|part| part.fill(C::default()));
        for part in 0..2 {
            self.differences::<S>();
            let maxima = match side {
                Side::Rows => &mut self.rows[part],
                Side::Columns => &mut self.columns[part],
            };
            match side {
                Side::Rows => row_maxima::<S, C>(size, &self.k, maxima),
                Side::Columns => column_maxima::<S, C>(size, &self.k, maxima),
            }
        }
        self.exponentials::<S>(side);
    }

    fn differences<S: Simd>(&mut self) {
        let [rows, columns] = [&self.rows, &self.columns].map(|p| [&p[0][..], &p[1][..]]);
        differences::<S, C>(self.size, &self.z, rows, columns, &mut self.k);
    }

    /// From differences without the low part of `side` to exponentials: the largest difference of each row or column, from which
    /// that part was taken, becomes 0 to the last bit.
    fn exponentials<S: Simd>(&mut self, side: Side) {
        let (rows, columns) = match side {
            Side::Rows => (&self.rows[1], &self.zeros),
            Side::Columns => (&self.zeros, &self.columns[1]),
        };
        exponentials::<S, C>(self.size, rows, columns, self.heat.scale, &mut self.k);
    }

    fn sum<S: Simd>(&mut self, side: Side) -> bool {
        let (k, sums) = (&self.k, &mut self.sums);
        match side {
            Side::Rows => {
                self.by.rows::<S, C>(k, &self.b, sums);
                invert::<S, C>(self.size, sums, &mut self.a)
            }
            Side::Columns => {
                self.by.columns::<S, C>(k, &self.a, sums);
                invert::<S, C>(self.size, sums, &mut self.b)
            }
        }
    }

    /// Runs the iteration on `z`; false where `z` makes no matrix. With `keep`, the way back can be taken.
    fn solve<S: Simd>(&mut self, tau: f64, iterations: usize, keep: bool) -> bool {
        let size = self.size;
        self.heat = Heat::new(tau);
        self.trace.steps.clear();
        self.trace.frames.clear();
        self.trace.first.clear();
        self.sums.fill(C::default());
        if self.is_improper::<S>() {
            return false;
        }
        self.columns
            .iter_mut()
            .for_each(|part| part.fill(C::default()));
        self.b.fill(C::default());
        self.b[..size.n].fill(C::of(1.0));
        for step in 0..2 * iterations {
            let side = side_of(step);
            if step == 0 || !self.sum::<S>(side) {
                self.new_frame::<S>(side);
                self.sum::<S>(side);
                if keep {
                    let other = match side {
                        Side::Rows => &self.b,
                        Side::Columns => &self.a,
                    };
                    let frames = &mut self.trace.frames;
                    for part in self.rows.iter().chain(&self.columns).chain([other]) {
                        frames.extend_from_slice(part);
                    }
                    self.trace.first.push(step);
                }
            }
            if keep {
                let scales = match side {
                    Side::Rows => &self.a,
                    Side::Columns => &self.b,
                };
                self.trace.steps.extend_from_slice(scales);
            }
        }
        true
    }

    /// The relaxed permutation of `z`, to `m`; false where there is none.
    pub(super) fn forward<S: Simd>(&mut self, tau: f64, iterations: usize) -> bool {
        let found = self.solve::<S>(tau, iterations, false);
        if found {
            scaled::<S, C>(self.size, &self.k, &self.a, &self.b, &mut self.m);
        }
        found
    }

    /// From the gradient of the result in `m`, that of `z / tau` in `d`; false where there is none.
    ///
    /// Half step `t` has `x_t = x_(t-1) - lse(x_(t-1))`, so the gradient loses `exp(x_t)` times its sum. Of the iterates that is
    /// `k a b^T`, so what all half steps of a frame take off is `k` times a sum of outer products of scales, in `m`.
    pub(super) fn backward<S: Simd>(&mut self, tau: f64, iterations: usize) -> bool {
        let size = self.size;
        if !self.solve::<S>(tau, iterations, true) {
            return false;
        }
        self.d.clear();
        self.d.resize(size.elements(), C::default());
        let side = || vec![C::default(); size.stride];
        let (mut d_rows, mut d_columns, mut weights) = (side(), side(), side());
        let mut pairs = Vec::with_capacity(2 * PAIRS * size.stride);

        // The last half step together with the exponential, where the gradient's means cancel.
        self.by
            .column_products::<S, C>(&self.k, &self.a, &self.m, &mut self.sums);
        product::<S, C>(1.0, &self.sums, &self.b, &mut weights);
        centre::<S, C>(size, &self.a, &self.b, &weights, &mut self.m);
        self.by
            .row_products::<S, C>(&self.k, &self.m, &mut self.sums);
        self.sums[size.n..].fill(C::default());
        weights.fill(C::of(-1.0));
        let mut carried = product::<S, C>(1.0, &self.sums, &weights, &mut d_rows);
        // What is carried back dwindles as the iteration has converged. So little counts for no digit, and would become
        // subnormal, which is slow.
        let least = C::of(carried.f64() * C::SMALLEST.f64().sqrt());
        let mut frame = self.trace.first.len() - 1;
        for step in (0..2 * iterations - 1).rev() {
            if carried <= least {
                break;
            }
            if step < self.trace.first[frame] {
                add_outer::<S, C>(size, &pairs, &mut self.m);
                pairs.clear();
                settle::<S, C>(size, &self.k, &mut self.m, &mut self.d);
                frame -= 1;
                self.old_frame::<S>(frame);
            }
            if pairs.len() == 2 * PAIRS * size.stride {
                add_outer::<S, C>(size, &pairs, &mut self.m);
                pairs.clear();
            }
            let at = |step: usize| &self.trace.steps[step * size.stride..][..size.stride];
            let own = at(step);
            let other = if step == self.trace.first[frame] {
                &self.trace.frames[(5 * frame + 4) * size.stride..][..size.stride]
            } else {
                at(step - 1)
            };
            match side_of(step) {
                Side::Rows => {
                    product::<S, C>(1.0, &d_rows, own, &mut weights);
                    pairs.extend_from_slice(&weights);
                    pairs.extend_from_slice(other);
                    if step > 0 {
                        self.by.columns::<S, C>(&self.k, &weights, &mut self.sums);
                        carried = product::<S, C>(-1.0, &self.sums, other, &mut d_columns);
                    }
                }
                Side::Columns => {
                    product::<S, C>(1.0, &d_columns, own, &mut weights);
                    pairs.extend_from_slice(other);
                    pairs.extend_from_slice(&weights);
                    self.by.rows::<S, C>(&self.k, &weights, &mut self.sums);
                    carried = product::<S, C>(-1.0, &self.sums, other, &mut d_rows);
                }
            }
        }
        add_outer::<S, C>(size, &pairs, &mut self.m);
        settle::<S, C>(size, &self.k, &mut self.m, &mut self.d);
        true
    }

    /// Makes the exponentials of a frame again.
    fn old_frame<S: Simd>(&mut self, frame: usize) {
        let stride = self.size.stride;
        let side = side_of(self.trace.first[frame]);
        let parts = self.rows.iter_mut().chain(&mut self.columns);
        let kept = self.trace.frames[5 * frame * stride..].chunks_exact(stride);
        for (part, kept) in parts.zip(kept) {
            part.copy_from_slice(kept);
        }
        let own = match side {
            Side::Rows => &mut self.rows,
            Side::Columns => &mut self.columns,
        };
        let low = own[1].clone();
        own[1].fill(C::default());
        self.differences::<S>();
        match side {
            Side::Rows => self.rows[1] = low,
            Side::Columns => self.columns[1] = low,
        }
        self.exponentials::<S>(side);
    }

    /// What `d` is multiplied by to be the gradient of `z`.
    pub(super) fn inverse_tau(&self) -> C {
        self.heat.inverse
    }

    /// The gradient of the temperature, after [`Solver::backward`]: `-<d, z> / tau^2`.
    ///
    /// The first half step takes no notice of what is added to a row, so the rows of `d` sum to 0, and scores may be counted from
    /// the row's largest, which keeps more digits.
    pub(super) fn tau_gradient<S: Simd>(&mut self, tau: f64) -> f64 {
        row_maxima::<S, C>(self.size, &self.z, &mut self.sums);
        -moment::<S, C>(self.size, &self.d, &self.z, &self.sums) / tau / tau
    }
}

/// Rows first, columns last.
fn side_of(step: usize) -> Side {
    if step.is_multiple_of(2) {
        Side::Rows
    } else {
        Side::Columns
    }
}

/// Of a positive normal number.
fn exponent(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7FF) as i32 - 1023
}
