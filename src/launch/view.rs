//! The arguments that kernels take by value, as kernels/include declares them.

use crate::elementwise::MAX_PARAMETERS;
use crate::math::Real;
use crate::rng::{Key, Stream};
use crate::rowwise::{Rows, inverse};
use candle_core::{Layout, Result, bail};

const MAX_DIMS: usize = 8;

/// Where a tensor's elements lie: those of a row `stride` apart, from a place that the row's number gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct View {
    stride: u64,
    vector: u32,
    dims: u32,
    size: [u64; MAX_DIMS],
    step: [u64; MAX_DIMS],
}

impl View {
    /// The rows of a layout along `dim`, or, without one, rows of one element. The elements begin at `address`.
    pub(crate) fn new(op: &str, layout: &Layout, dim: Option<usize>, address: u64) -> Result<Self> {
        let mut view = Self {
            stride: dim.map_or(0, |dim| layout.stride()[dim] as u64),
            vector: u32::from(layout.is_contiguous() && address.is_multiple_of(16)),
            ..Self::default()
        };
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (i, (&size, &step)) in layout.dims().iter().zip(layout.stride()).enumerate() {
            match dims.last_mut() {
                _ if size == 1 || Some(i) == dim => {}
                Some(last) if last.1 == size * step => *last = (last.0 * size, step),
                _ => dims.push((size, step)),
            }
        }
        if dims.len() > MAX_DIMS {
            bail!(
                "{op}: a tensor of shape {:?} and strides {:?} has {} dims that do not follow each other in memory; the CUDA \
                 kernels take {MAX_DIMS}: make it contiguous first",
                layout.dims(),
                layout.stride(),
                dims.len()
            )
        }
        for (i, (size, step)) in dims.iter().enumerate() {
            (view.size[i], view.step[i]) = (*size as u64, *step as u64);
        }
        view.dims = dims.len() as u32;
        Ok(view)
    }

    /// Whether groups of elements can be read in 16-byte accesses.
    pub(crate) fn is_vector(&self) -> bool {
        self.vector == 1
    }
}

/// The rows of a tensor.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RowsArg {
    count: u64,
    len: u64,
    inner: u64,
}

impl From<Rows> for RowsArg {
    fn from(rows: Rows) -> Self {
        Self {
            count: rows.count() as u64,
            len: rows.len as u64,
            inner: rows.inner as u64,
        }
    }
}

/// A key by value, its round keys made, or the address of one in device memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct KeyArg {
    rounds: [[u32; 2]; 10],
    stream: [u32; 2],
    device: u64,
}

impl KeyArg {
    pub(crate) fn value(key: Key) -> Self {
        let stream = Stream::new(key);
        Self {
            rounds: stream.rounds(),
            stream: stream.number(),
            device: 0,
        }
    }

    pub(crate) fn at(address: u64) -> Self {
        Self {
            device: address,
            ..Self::default()
        }
    }
}

/// The temperature, in the scalar that an op computes in: a number, or the address of one value a row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct TauArg<C> {
    scale: C,
    inverse: C,
    each: u64,
    view: View,
}

impl<C: Real> TauArg<C> {
    pub(crate) fn fixed(tau: f64) -> Self {
        Self {
            scale: C::exp_scale(tau),
            inverse: inverse(tau),
            each: 0,
            view: View::default(),
        }
    }

    pub(crate) fn each(address: u64, view: View) -> Self {
        Self {
            scale: C::default(),
            inverse: C::default(),
            each: address,
            view,
        }
    }
}

/// The parameters of an elementwise kernel, which declares and reads the first of them alone.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Numbers<C>([C; MAX_PARAMETERS]);

impl<C: Real> Numbers<C> {
    pub(crate) fn new(numbers: &[f64]) -> Self {
        let mut all = [C::default(); MAX_PARAMETERS];
        for (all, &number) in all.iter_mut().zip(numbers) {
            *all = C::of(number);
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::mem::{align_of, offset_of, size_of};

    fn view(t: &Tensor, dim: Option<usize>) -> View {
        View::new("op", t.layout(), dim, 256).unwrap()
    }

    /// What kernels/include/view.cuh computes from it.
    fn place(view: &View, mut row: u64, k: u64) -> u64 {
        let mut at = k * view.stride;
        for i in (1..view.dims as usize).rev() {
            at += row % view.size[i] * view.step[i];
            row /= view.size[i];
        }
        if view.dims > 0 {
            at + row * view.step[0]
        } else {
            at
        }
    }

    #[test]
    fn a_view_finds_every_element_of_every_layout() -> Result<()> {
        let t = Tensor::arange(0u32, 5 * 4 * 6 * 3, &Device::Cpu)?.reshape((5, 4, 6, 3))?;
        let views = [
            t.clone(),
            t.transpose(0, 2)?,
            t.transpose(1, 3)?,
            t.narrow(1, 1, 2)?,
            t.narrow(3, 1, 2)?.transpose(0, 1)?,
            t.narrow(2, 3, 1)?,
            t.narrow(0, 0, 1)?.broadcast_as((5, 4, 6, 3))?,
            t.permute((3, 1, 0, 2))?,
        ];
        for t in &views {
            let start = t.layout().start_offset() as u32;
            let all = t.flatten_all()?.to_vec1::<u32>()?;
            for dim in (0..4).map(Some).chain([None]) {
                let v = view(t, dim);
                let rows = dim.map_or(
                    Rows {
                        outer: t.elem_count(),
                        len: 1,
                        inner: 1,
                    },
                    |dim| Rows::new(t.shape(), dim),
                );
                for row in 0..rows.count() {
                    for k in 0..rows.len {
                        let (o, j) = (row / rows.inner, row % rows.inner);
                        let logical = (o * rows.len + k) * rows.inner + j;
                        let found = start + place(&v, row as u64, k as u64) as u32;
                        assert_eq!(found, all[logical], "{:?} {dim:?}", t.layout());
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn contiguous_and_aligned_tensors_alone_are_vectors() -> Result<()> {
        let t = Tensor::zeros((8, 16), DType::F32, &Device::Cpu)?;
        assert!(view(&t, Some(1)).is_vector() && view(&t, Some(0)).is_vector());
        assert!(!view(&t.t()?, Some(1)).is_vector());
        let odd = View::new("op", t.layout(), Some(1), 260)?;
        assert!(!odd.is_vector());
        Ok(())
    }

    #[test]
    fn too_many_dims_are_refused() -> Result<()> {
        let wide = Tensor::zeros(vec![3; 10], DType::U8, &Device::Cpu)?;
        let t = wide.permute((0..10).rev().collect::<Vec<_>>())?;
        let error = View::new("op", t.layout(), None, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("op") && error.contains("10 dims"), "{error}");
        Ok(())
    }

    /// The layouts that the compiler gives the kernels' structs, by the rules of C.
    #[test]
    fn arguments_have_the_layout_of_the_kernels() {
        assert_eq!((size_of::<View>(), align_of::<View>()), (144, 8));
        assert_eq!([offset_of!(View, vector), offset_of!(View, dims)], [8, 12]);
        assert_eq!([offset_of!(View, size), offset_of!(View, step)], [16, 80]);
        assert_eq!((size_of::<RowsArg>(), size_of::<KeyArg>()), (24, 96));
        assert_eq!(
            [offset_of!(KeyArg, stream), offset_of!(KeyArg, device)],
            [80, 88]
        );
        assert_eq!(
            [offset_of!(TauArg<f32>, each), offset_of!(TauArg<f32>, view)],
            [8, 16]
        );
        assert_eq!(
            [offset_of!(TauArg<f64>, each), offset_of!(TauArg<f64>, view)],
            [16, 24]
        );
        assert_eq!(
            (size_of::<TauArg<f32>>(), size_of::<TauArg<f64>>()),
            (160, 168)
        );
    }
}
