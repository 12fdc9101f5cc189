//! Functions of a few elements, the noise at their place and a few numbers, applied element by element: one pass, on the
//! CPU and on CUDA, over operands of any layout.
//!
//! A room gives a [`Formula`] for each direction, and its kernel by a line of `kernels/<room>.cu` (kernels/include/elementwise.cuh
//! has the same formula's CUDA side); what is here makes a candle op of it. Operands have one shape: a room broadcasts those that
//! do not, since a broadcast view costs nothing and candle reduces its gradient.

use crate::element::{Element, Vector};
use crate::math::Real;
use crate::op::{by_dtype, dtype};
use crate::output::{Piece, Split, fill};
use crate::rng::{self, FILL_SLACK, KeySource, Noise, NoiseReal, Stream};
use crate::rowwise::{GRAIN, GRAIN_NOISE, Source, TILE, padded, push};
use crate::simd::{Float, Kernel, Simd, dispatch};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail,
};
use std::marker::PhantomData;

/// The most parameters of a formula, as in the launch's argument list.
pub(crate) const MAX_PARAMETERS: usize = 16;

/// A function of `N` elements (one to three), the noise of their index, and `P` parameters.
pub(crate) trait Formula<const N: usize, const P: usize>:
    Copy + Send + Sync + 'static
{
    /// The noise that it takes: a map of the crate, or [`Silent`].
    type Noise: Draw;
    /// The kernel file and the kernel in it that compute it on CUDA.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "for launches"))]
    const KERNEL: (&'static str, &'static str);

    /// Numbers that every element sees, the same for all of a call; rounded to the scalar that the dtype is computed in.
    fn parameters(&self) -> [f64; P] {
        [0.0; P]
    }

    /// The value, of whole vectors. Lanes past the last element hold anything.
    fn at<S: Simd, C: Real>(x: [C::V<S>; N], noise: C::V<S>, p: [C::V<S>; P]) -> C::V<S>;

    /// The gradients of those arguments that track one, from the arguments, the result and the result's gradient, by
    /// [`Elementwise::gradient`] of other formulas. A formula that is itself a gradient leaves it out.
    fn backward(
        op: &Elementwise<Self, N, P>,
        _args: [&Tensor; N],
        _result: &Tensor,
        _grad: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        bail!("{}: a gradient is not differentiated again", op.name)
    }
}

/// What a formula draws for each element.
pub(crate) trait Draw: Copy + Send + Sync + 'static {
    /// Whether it draws at all; if so, the op has a key.
    const DRAWN: bool;
    /// Writes the variates of elements `start .. start + n`, `start` a multiple of 4, to the first places of `out`, which
    /// has room for `n + FILL_SLACK`.
    fn draw<S: Simd, C: NoiseReal>(stream: &Stream, start: u64, n: usize, out: &mut [C]);
}

/// No noise.
#[derive(Clone, Copy)]
pub(crate) struct Silent;

impl Draw for Silent {
    const DRAWN: bool = false;
    #[inline(always)]
    fn draw<S: Simd, C: NoiseReal>(_: &Stream, _: u64, _: usize, _: &mut [C]) {}
}

impl<M: Noise> Draw for M {
    const DRAWN: bool = true;
    #[inline(always)]
    fn draw<S: Simd, C: NoiseReal>(stream: &Stream, start: u64, n: usize, out: &mut [C]) {
        debug_assert!(start.is_multiple_of(4));
        rng::fill::<S, C, M>(stream, start, n, out);
    }
}

/// A formula as an op of candle.
#[derive(Clone)]
pub(crate) struct Elementwise<F, const N: usize, const P: usize> {
    /// The public function, for messages.
    pub(crate) name: &'static str,
    pub(crate) formula: F,
    key: Option<KeySource>,
}

impl<F: Formula<N, P>, const N: usize, const P: usize> Elementwise<F, N, P> {
    /// Of a formula without noise.
    pub(crate) fn new(name: &'static str, formula: F) -> Self {
        const { assert!(!F::Noise::DRAWN && P <= MAX_PARAMETERS) };
        let key = None;
        Self { name, formula, key }
    }

    /// Of a formula with noise.
    pub(crate) fn keyed(name: &'static str, formula: F, key: KeySource) -> Self {
        const { assert!(F::Noise::DRAWN && P <= MAX_PARAMETERS) };
        let key = Some(key);
        Self { name, formula, key }
    }

    /// Another formula, of the same noise if it takes any.
    pub(crate) fn with<G: Formula<M, Q>, const M: usize, const Q: usize>(
        &self,
        formula: G,
    ) -> Elementwise<G, M, Q> {
        const { assert!(!G::Noise::DRAWN || F::Noise::DRAWN) };
        Elementwise {
            name: self.name,
            formula,
            key: self.key.clone(),
        }
    }

    fn cpu(&self, operands: [(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)> {
        let stream = match &self.key {
            Some(key) if F::Noise::DRAWN => Stream::new(key.now()?),
            // Not looked at.
            _ => Stream::new(rng::Key::new(0, 0)),
        };
        let shape = operands[0].1.shape();
        by_dtype!(self.name, dtype(operands[0].0), E => {
            let mut sources = Vec::with_capacity(N);
            for (storage, layout) in operands {
                sources.push(Source::<E>::new(storage, layout)?);
            }
            let p = self.formula.parameters().map(<E as Element>::Compute::of);
            let out = run::<E, F, N, P>(&sources, shape.elem_count(), stream, p);
            Ok((E::storage(out), shape.clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, operands: [(&CudaStorage, &Layout); N]) -> Result<(CudaStorage, Shape)> {
        let key = self.key.as_ref().filter(|_| F::Noise::DRAWN);
        let p = self.formula.parameters();
        crate::launch::elementwise(self.name, F::KERNEL, &operands, key, &p)
    }
}

macro_rules! arity {
    ($N:literal, $Op:ident, $apply:ident, $apply_no_bwd:ident, $first:ident $(, $rest:ident)*;
     $(($s:ident, $l:ident)),*; $grads:ident => $returned:expr, $Returned:ty) => {
        impl<F: Formula<$N, P>, const P: usize> Elementwise<F, $N, P> {
            /// Applies it; the result has a gradient where an argument tracks one.
            #[allow(dead_code, reason = "not every number of operands has an op in both directions")]
            pub(crate) fn apply(self, [$first $(, $rest)*]: [&Tensor; $N]) -> Result<Tensor> {
                $first.$apply($($rest,)* self)
            }

            /// Applies it as a part of a backward pass.
            #[allow(dead_code, reason = "not every number of operands has an op in both directions")]
            pub(crate) fn gradient(&self, [$first $(, $rest)*]: [&Tensor; $N]) -> Result<Tensor> {
                $first.$apply_no_bwd($($rest,)* self)
            }
        }

        impl<F: Formula<$N, P>, const P: usize> $Op for Elementwise<F, $N, P> {
            fn name(&self) -> &'static str {
                self.name
            }

            fn cpu_fwd(&self, $($s: &CpuStorage, $l: &Layout),*) -> Result<(CpuStorage, Shape)> {
                self.cpu([$(($s, $l)),*])
            }

            #[cfg(feature = "cuda")]
            fn cuda_fwd(&self, $($s: &CudaStorage, $l: &Layout),*) -> Result<(CudaStorage, Shape)> {
                self.cuda([$(($s, $l)),*])
            }

            fn bwd(&self, $first: &Tensor, $($rest: &Tensor,)* result: &Tensor, grad: &Tensor) -> Result<$Returned> {
                let $grads = F::backward(self, [$first $(, $rest)*], result, grad)?;
                Ok($returned)
            }
        }
    };
}
arity!(1, CustomOp1, apply_op1, apply_op1_no_bwd, a; (s1, l1); grads => { let [a] = grads; a }, Option<Tensor>);
arity!(2, CustomOp2, apply_op2, apply_op2_no_bwd, a, b; (s1, l1), (s2, l2); grads => grads.into(),
    (Option<Tensor>, Option<Tensor>));
arity!(3, CustomOp3, apply_op3, apply_op3_no_bwd, a, b, c; (s1, l1), (s2, l2), (s3, l3); grads => grads.into(),
    (Option<Tensor>, Option<Tensor>, Option<Tensor>));

/// A formula of two operands, one or both of which are broadcast.
///
/// Not broadcast before the op, since candle would then sum an operand's gradient in its own dtype, which a half type is too
/// coarse for.
struct Broadcast<F, const P: usize> {
    op: Elementwise<F, 2, P>,
    /// What they broadcast to.
    shape: Shape,
}

impl<F: Formula<2, P>, const P: usize> Elementwise<F, 2, P> {
    /// Applies it to operands of shapes that broadcast to `shape`.
    pub(crate) fn apply_broadcast(self, [a, b]: [&Tensor; 2], shape: &Shape) -> Result<Tensor> {
        if a.shape() == b.shape() {
            return self.apply([a, b]);
        }
        let (op, shape) = (self, shape.clone());
        a.apply_op2(b, Broadcast { op, shape })
    }
}

impl<F: Formula<2, P>, const P: usize> CustomOp2 for Broadcast<F, P> {
    fn name(&self) -> &'static str {
        self.op.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (l1, l2) = (l1.broadcast_as(&self.shape)?, l2.broadcast_as(&self.shape)?);
        self.op.cpu([(s1, &l1), (s2, &l2)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (l1, l2) = (l1.broadcast_as(&self.shape)?, l2.broadcast_as(&self.shape)?);
        self.op.cuda([(s1, &l1), (s2, &l2)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = |own: &Tensor, args: [&Tensor; 2], which: usize| {
            if !own.track_op() {
                return Ok(None);
            }
            // Not rounded to a half type before it is summed.
            let half = matches!(own.dtype(), DType::F16 | DType::BF16);
            let is_wide = half && own.shape() != &self.shape;
            let at_work = |x: &Tensor| if is_wide { wide(x) } else { Ok(x.clone()) };
            let [a, b] = [at_work(args[0])?, at_work(args[1])?];
            let (a, b) = (a.broadcast_as(&self.shape)?, b.broadcast_as(&self.shape)?);
            let mut gradients = F::backward(&self.op, [&a, &b], result, &at_work(grad)?)?;
            let gradient = gradients[which].take();
            gradient.map(|g| summed_like(&g, own)).transpose()
        };
        // The formula computes a gradient for what tracks one.
        Ok((
            gradient(a, [a, &b.detach()], 0)?,
            gradient(b, [&a.detach(), b], 1)?,
        ))
    }
}

/// In f32, in which the half types are computed.
fn wide(x: &Tensor) -> Result<Tensor> {
    // candle launches a kernel of no blocks where there is nothing to convert, which is an error.
    if x.elem_count() == 0 {
        return Tensor::zeros(x.shape(), DType::F32, x.device());
    }
    x.to_dtype(DType::F32)
}

/// The sum over the dims that `like` was broadcast in, with the shape and dtype of `like`.
fn summed_like(grad: &Tensor, like: &Tensor) -> Result<Tensor> {
    if grad.elem_count() == 0 {
        return Tensor::zeros(like.shape(), like.dtype(), like.device());
    }
    let missing = grad.rank() - like.rank();
    let is_summed = |&d: &usize| d < missing || like.dims()[d - missing] != grad.dims()[d];
    let dims: Vec<usize> = (0..grad.rank()).filter(is_summed).collect();
    // One dim after the other, the last one first: no sum is longer than a dim, and each of the first is of neighbours.
    let mut sum = grad.clone();
    for &dim in dims.iter().rev() {
        sum = sum.sum_keepdim(dim)?;
    }
    sum.reshape(like.shape())?.to_dtype(like.dtype())
}

// ------------------------------------------------------------------------------------------------------------- CPU

/// Elements at a time: the buffers of three operands and of the result, in f32, fit the first-level cache.
const BLOCK: usize = TILE / 2;

fn run<E: Element, F: Formula<N, P>, const N: usize, const P: usize>(
    operands: &[Source<E>],
    n: usize,
    stream: Stream,
    parameters: [E::Compute; P],
) -> Vec<E> {
    let split = Split::Runs {
        total: n,
        size: BLOCK,
    };
    let grain = if F::Noise::DRAWN { GRAIN_NOISE } else { GRAIN };
    let scratch = || Buffers {
        rooms: [(); N].map(|()| Vec::new()),
        out: vec![E::Compute::default(); BLOCK + FILL_SLACK],
    };
    let work = |buffers: &mut Buffers<E::Compute, N>, i: usize, piece: &mut Piece<E>| {
        dispatch(Block::<E, F, N, P> {
            operands,
            stream: &stream,
            parameters,
            start: i * BLOCK,
            buffers,
            piece,
            formula: PhantomData,
        });
    };
    fill(split, grain, scratch, work).0
}

struct Buffers<C, const N: usize> {
    /// Operands that cannot be used as they lie; made when one is met.
    rooms: [Vec<C>; N],
    /// The noise, then the result in its place.
    out: Vec<C>,
}

struct Block<'a, 'b, E: Element, F, const N: usize, const P: usize> {
    operands: &'a [Source<'a, E>],
    stream: &'a Stream,
    parameters: [E::Compute; P],
    start: usize,
    buffers: &'a mut Buffers<E::Compute, N>,
    piece: &'a mut Piece<'b, E>,
    formula: PhantomData<F>,
}

impl<E: Element, F: Formula<N, P>, const N: usize, const P: usize> Kernel
    for Block<'_, '_, E, F, N, P>
{
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.piece.place().width;
        let Buffers { rooms, out } = self.buffers;
        // The last vector may go on past `n`.
        let end = n.next_multiple_of(Vector::<S, E>::LANES);
        let mut x: [&[E::Compute]; N] = [&[]; N];
        for ((x, operand), room) in x.iter_mut().zip(self.operands).zip(rooms) {
            let there = operand.native_from(self.start);
            *x = if there.len() >= end {
                &there[..end]
            } else {
                room.resize(padded(BLOCK), E::Compute::default());
                operand.copy_to::<S>(self.start, &mut room[..n]);
                &room[..end]
            };
        }
        F::Noise::draw::<S, E::Compute>(self.stream, self.start as u64, n, out);
        S::call(Inner::<E::Compute, F, N, P> {
            x,
            out: &mut out[..end],
            parameters: self.parameters,
            formula: self.formula,
        });
        push::<S, E>(self.piece, &out[..n]);
    }
}

/// The loop itself, a function of its own for each instruction set: it is shared by the dtypes of one scalar.
struct Inner<'a, C, F, const N: usize, const P: usize> {
    x: [&'a [C]; N],
    out: &'a mut [C],
    parameters: [C; P],
    formula: PhantomData<F>,
}

impl<C: Real, F: Formula<N, P>, const N: usize, const P: usize> Kernel for Inner<'_, C, F, N, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let zero = C::V::<S>::splat(C::default());
        let mut p = [zero; P];
        for (p, &number) in p.iter_mut().zip(&self.parameters) {
            *p = C::V::<S>::splat(number);
        }
        for at in (0..self.out.len()).step_by(C::V::<S>::LANES) {
            let mut x = [zero; N];
            for (x, operand) in x.iter_mut().zip(self.x) {
                *x = Float::load(&operand[at..]);
            }
            let noise = if F::Noise::DRAWN {
                Float::load(&self.out[at..])
            } else {
                zero
            };
            F::at::<S, C>(x, noise, p).store(&mut self.out[at..]);
        }
    }
}
