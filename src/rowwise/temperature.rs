use super::Source;
use crate::element::Element;
use crate::math::Real;

/// The temperature of each row.
pub(crate) enum Tau<'a, E: Element> {
    Fixed(f64),
    /// One value a row, in the order of the rows, not in a half type.
    Rows(Source<'a, E::Wide>),
}

impl<E: Element> Tau<'_, E> {
    /// The temperature of row `row`, counted over `(outer, inner)`.
    #[inline]
    pub(crate) fn at(&self, row: usize) -> f64 {
        match self {
            Tau::Fixed(tau) => *tau,
            Tau::Rows(source) => source.at(row).compute().f64(),
        }
    }
}

impl<E: Element> Tau<'_, E> {
    /// The temperatures of `count` rows from `first` on, brought to `room` where they differ.
    pub(crate) fn rows<'b>(
        &self,
        first: usize,
        count: usize,
        room: &'b mut Vec<f64>,
    ) -> RowTau<'b> {
        match self {
            Tau::Fixed(tau) => RowTau::Fixed(*tau),
            Tau::Rows(_) => {
                room.clear();
                room.extend((first..first + count).map(|row| self.at(row)));
                RowTau::Each(room)
            }
        }
    }
}

/// The temperatures of a run of rows, whatever the element type.
#[derive(Clone, Copy)]
pub(crate) enum RowTau<'a> {
    Fixed(f64),
    Each(&'a [f64]),
}

impl RowTau<'_> {
    /// That of row `i` of the run.
    #[inline(always)]
    pub(crate) fn at(self, i: usize) -> f64 {
        match self {
            RowTau::Fixed(tau) => tau,
            RowTau::Each(taus) => taus[i],
        }
    }
}

/// `1 / tau`, kept finite and above zero in `C`, so that 0 and -inf keep their values at any temperature.
#[inline(always)]
pub(crate) fn inverse<C: Real>(tau: f64) -> C {
    // exp_scale is log2(e) / tau or 1 / tau with the same bounds; here the plain quotient is wanted.
    C::of((1.0 / tau).clamp(C::SMALLEST.f64(), C::LARGEST.f64()))
}
