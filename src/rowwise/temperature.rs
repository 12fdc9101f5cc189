use super::Source;
use crate::element::Element;
use crate::math::Real;

/// The temperature of each row.
pub(crate) enum Tau<'a, E: Element> {
    Fixed(f64),
    /// One value a row, in the order of the rows.
    Rows(Source<'a, E>),
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

/// `1 / tau`, kept finite and above zero in `C`, so that 0 and -inf keep their values at any temperature.
#[inline(always)]
pub(crate) fn inverse<C: Real>(tau: f64) -> C {
    // exp_scale is log2(e) / tau or 1 / tau with the same bounds; here the plain quotient is wanted.
    C::of((1.0 / tau).clamp(C::SMALLEST.f64(), C::LARGEST.f64()))
}
