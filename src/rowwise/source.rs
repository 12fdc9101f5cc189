use crate::element::{Element, Vector};
use crate::output::Piece;
use crate::simd::{Float, Simd, outlined};
use candle_core::{CpuStorage, Layout, Result, bail};

/// Elements gathered at a time from a layout that is not contiguous.
const GATHER: usize = 256;

/// A tensor's elements in logical row-major order, whatever its layout.
pub(crate) struct Source<'a, E> {
    data: &'a [E],
    /// Sizes and strides with neighbours merged where they follow each other in memory, outermost first; one entry of
    /// stride 1, or none, for a contiguous tensor.
    dims: Vec<(usize, usize)>,
}

impl<'a, E: Element> Source<'a, E> {
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let Some(data) = E::slice(storage) else {
            bail!("expected a tensor of dtype {:?}", E::DTYPE)
        };
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (&size, &stride) in layout.dims().iter().zip(layout.stride()) {
            match dims.last_mut() {
                _ if size == 1 => {}
                Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
                _ => dims.push((size, stride)),
            }
        }
        Ok(Self {
            data: &data[layout.start_offset().min(data.len())..],
            dims,
        })
    }

    /// The slice of elements `start .. start + n` where they lie in memory one after the other.
    #[inline]
    fn slice(&self, start: usize, n: usize) -> Option<&'a [E]> {
        match self.dims[..] {
            [] => Some(&self.data[start..start + n]),
            [(_, 1)] => Some(&self.data[start..start + n]),
            _ => None,
        }
    }

    /// Elements `start .. start + n` where they need neither gathering nor conversion.
    #[inline(always)]
    fn native(&self, start: usize, n: usize) -> Option<&'a [E::Compute]> {
        self.slice(start, n).and_then(E::as_compute)
    }

    /// What follows from element `start` on where it can be used as it lies, however much that is; nothing elsewhere.
    #[inline(always)]
    pub(crate) fn native_from(&self, start: usize) -> &'a [E::Compute] {
        match self.dims[..] {
            [] | [(_, 1)] => E::as_compute(self.data.get(start..).unwrap_or(&[])).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Element `i`.
    #[inline]
    pub(crate) fn at(&self, mut i: usize) -> E {
        let mut at = 0;
        for &(size, stride) in self.dims.iter().rev() {
            at += i % size * stride;
            i /= size;
        }
        self.data[at]
    }

    /// Calls `f` with elements `start .. start + n` in order, at most [`GATHER`] at a time, and their place among them.
    #[inline(never)]
    fn for_each_gathered(&self, start: usize, n: usize, f: &mut dyn FnMut(usize, &[E])) {
        let mut buffer = [E::default(); GATHER];
        let (&(size, stride), outer) = self.dims.split_last().expect("a strided layout has dims");
        let (mut done, mut filled) = (0, 0);
        while done + filled < n {
            // The run of the last dim that holds the next element.
            let index = start + done + filled;
            let (mut rest, mut column) = (index / size, index % size);
            let mut base = 0;
            for &(size, stride) in outer.iter().rev() {
                base += rest % size * stride;
                rest /= size;
            }
            let mut left = (size - column).min(n - done - filled);
            while left > 0 {
                let count = left.min(GATHER - filled);
                let src = &self.data[base + column * stride..];
                let dst = &mut buffer[filled..filled + count];
                match stride {
                    0 => dst.fill(src[0]),
                    1 => dst.copy_from_slice(&src[..count]),
                    _ => {
                        for (dst, &src) in dst.iter_mut().zip(src.iter().step_by(stride)) {
                            *dst = src;
                        }
                    }
                }
                filled += count;
                column += count;
                left -= count;
                if filled == GATHER {
                    f(done, &buffer);
                    done += filled;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            f(done, &buffer[..filled]);
        }
    }

    /// Elements `start .. start + n`: where they lie, or brought to `room`.
    #[inline(always)]
    pub(crate) fn view<'s, S: Simd>(
        &self,
        start: usize,
        n: usize,
        room: &'s mut [E::Compute],
    ) -> &'s [E::Compute]
    where
        'a: 's,
    {
        match self.native(start, n) {
            Some(elements) => elements,
            None => {
                self.copy_to::<S>(start, &mut room[..n]);
                room
            }
        }
    }

    /// `dst = ` the elements from `start` on.
    #[inline(always)]
    pub(crate) fn copy_to<S: Simd>(&self, start: usize, dst: &mut [E::Compute]) {
        match self.slice(start, dst.len()) {
            Some(src) => widen::<S, E>(src, dst),
            None => self.for_each_gathered(start, dst.len(), &mut |at, src| {
                widen::<S, E>(src, &mut dst[at..at + src.len()]);
            }),
        }
    }

    /// `dst = ` the elements from `start` on `+ dst`.
    #[inline(always)]
    pub(crate) fn add_to<S: Simd>(&self, start: usize, dst: &mut [E::Compute]) {
        match self.slice(start, dst.len()) {
            Some(src) => add::<S, E>(src, dst),
            None => self.for_each_gathered(start, dst.len(), &mut |at, src| {
                add::<S, E>(src, &mut dst[at..at + src.len()]);
            }),
        }
    }
}

/// `dst = src` in the scalar that `E` is computed in.
#[inline(always)]
pub(crate) fn widen<S: Simd, E: Element>(src: &[E], dst: &mut [E::Compute]) {
    match E::as_compute(src) {
        Some(src) => dst.copy_from_slice(src),
        None => convert::<S, E>(src, dst),
    }
}

outlined! {
    fn convert['a, E: Element](src: &'a [E], dst: &'a mut [E::Compute]) -> () {
        map_lanes::<S, E>(src, dst, #[inline(always)] |x, _| x);
    }

    fn add['a, E: Element](src: &'a [E], dst: &'a mut [E::Compute]) -> () {
        map_lanes::<S, E>(src, dst, #[inline(always)] |x, y| x + y);
    }

    /// `dst = src`, rounded.
    fn narrow['a, E: Element](src: &'a [E::Compute], dst: &'a mut [E]) -> () {
        let lanes = Vector::<S, E>::LANES;
        let full = src.len() / lanes * lanes;
        for (src, dst) in src.chunks_exact(lanes).zip(dst.chunks_exact_mut(lanes)) {
            E::store::<S>(Float::load(src), dst);
        }
        if full < src.len() {
            let mut x = [E::Compute::default(); 16];
            let mut y = [E::default(); 16];
            x[..src.len() - full].copy_from_slice(&src[full..]);
            E::store::<S>(Float::load(&x), &mut y);
            dst[full..].copy_from_slice(&y[..src.len() - full]);
        }
    }
}

/// `dst = f(src, dst)`, a vector at a time; the last one through a copy.
#[inline(always)]
fn map_lanes<S: Simd, E: Element>(
    src: &[E],
    dst: &mut [E::Compute],
    f: impl Fn(Vector<S, E>, Vector<S, E>) -> Vector<S, E>,
) {
    let lanes = Vector::<S, E>::LANES;
    let mut dst = dst.chunks_exact_mut(lanes);
    let mut src = src.chunks_exact(lanes);
    for (dst, src) in (&mut dst).zip(&mut src) {
        f(E::load::<S>(src), Float::load(dst)).store(dst);
    }
    let (src, dst) = (src.remainder(), dst.into_remainder());
    if !dst.is_empty() {
        let mut x = [E::default(); 16];
        let mut y = [E::Compute::default(); 16];
        x[..src.len()].copy_from_slice(src);
        y[..dst.len()].copy_from_slice(dst);
        f(E::load::<S>(&x), Float::load(&y)).store(&mut y);
        dst.copy_from_slice(&y[..dst.len()]);
    }
}

/// Pushes `src`, rounded to `E`.
#[inline(always)]
pub(crate) fn push<S: Simd, E: Element>(piece: &mut Piece<E>, src: &[E::Compute]) {
    if let Some(src) = E::as_elements(src) {
        piece.push(src);
        return;
    }
    let mut rounded = [E::default(); GATHER];
    for src in src.chunks(GATHER) {
        narrow::<S, E>(src, &mut rounded[..src.len()]);
        piece.push(&rounded[..src.len()]);
    }
}
