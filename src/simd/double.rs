//! Two vectors worked on in step, as one of twice the lanes.
//!
//! A chain of dependent operations, such as ten rounds of Philox and two logarithms, leaves a wide core waiting for
//! results. Two chains in step fill the gaps where the register file is large enough to hold both.

use super::{Bits, Float, Kernel, Mask, Simd};
use half::f16;
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Clone, Copy)]
pub(super) struct Double<S>(PhantomData<S>);

#[derive(Clone, Copy)]
pub(crate) struct Pair<V>(V, V);

macro_rules! lift {
    ($(fn $fn:ident($($arg:ident),*);)*) => {
        $(#[inline(always)]
        fn $fn(self $(, $arg: Self)*) -> Self {
            Self(self.0.$fn($($arg.0),*), self.1.$fn($($arg.1),*))
        })*
    };
}

macro_rules! operators {
    ($($trait:ident: $fn:ident;)*) => {
        $(impl<V: Float> $trait for Pair<V> {
            type Output = Self;
            #[inline(always)]
            fn $fn(self, other: Self) -> Self {
                Self($trait::$fn(self.0, other.0), $trait::$fn(self.1, other.1))
            }
        })*
    };
}
operators! { Add: add; Sub: sub; Mul: mul; Div: div; }

impl<V: Float> Neg for Pair<V> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0, -self.1)
    }
}

impl<V: Mask> Mask for Pair<V> {
    #[inline(always)]
    fn any(self) -> bool {
        self.0.or(self.1).any()
    }
    #[inline(always)]
    fn all(self) -> bool {
        self.0.all() && self.1.all()
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0), self.1.or(other.1))
    }
}

impl<V: Bits> Bits for Pair<V> {
    type Scalar = V::Scalar;
    const LANES: usize = 2 * V::LANES;
    #[inline(always)]
    fn splat(x: V::Scalar) -> Self {
        Self(V::splat(x), V::splat(x))
    }
    #[inline(always)]
    fn load(src: &[V::Scalar]) -> Self {
        Self(V::load(src), V::load(&src[V::LANES..]))
    }
    #[inline(always)]
    fn store(self, dst: &mut [V::Scalar]) {
        self.0.store(dst);
        self.1.store(&mut dst[V::LANES..]);
    }
    #[inline(always)]
    fn shl<const N: i32>(self) -> Self {
        Self(self.0.shl::<N>(), self.1.shl::<N>())
    }
    #[inline(always)]
    fn shr<const N: i32>(self) -> Self {
        Self(self.0.shr::<N>(), self.1.shr::<N>())
    }
    lift! {
        fn add(other);
        fn sub(other);
        fn and(other);
        fn or(other);
        fn xor(other);
    }
}

impl<V: Float> Float for Pair<V> {
    type Scalar = V::Scalar;
    type Bits = Pair<V::Bits>;
    type Mask = Pair<V::Mask>;
    const LANES: usize = 2 * V::LANES;
    #[inline(always)]
    fn splat(x: V::Scalar) -> Self {
        Self(V::splat(x), V::splat(x))
    }
    #[inline(always)]
    fn load(src: &[V::Scalar]) -> Self {
        Self(V::load(src), V::load(&src[V::LANES..]))
    }
    #[inline(always)]
    fn store(self, dst: &mut [V::Scalar]) {
        self.0.store(dst);
        self.1.store(&mut dst[V::LANES..]);
    }
    lift! {
        fn mul_add(m, a);
        fn neg_mul_add(m, a);
        fn max(other);
        fn min(other);
        fn sqrt();
        fn round();
        fn scale_pow2(n);
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        Pair(self.0.lt(other.0), self.1.lt(other.1))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        Pair(self.0.le(other.0), self.1.le(other.1))
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Self(V::select(mask.0, a.0, b.0), V::select(mask.1, a.1, b.1))
    }
    #[inline(always)]
    fn first(n: usize) -> Self::Mask {
        Pair(V::first(n), V::first(n.saturating_sub(V::LANES)))
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        Pair(self.0.to_bits(), self.1.to_bits())
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        Self(V::from_bits(bits.0), V::from_bits(bits.1))
    }
    #[inline(always)]
    fn reduce_add(self) -> V::Scalar {
        (self.0 + self.1).reduce_add()
    }
    #[inline(always)]
    fn reduce_max(self) -> V::Scalar {
        self.0.max(self.1).reduce_max()
    }
}

impl<S: Simd> Simd for Double<S> {
    type F32 = Pair<S::F32>;
    type F64 = Pair<S::F64>;
    type U32 = Pair<S::U32>;
    type U64 = Pair<S::U64>;
    type Wide = Self;

    #[inline(always)]
    fn call<K: Kernel>(kernel: K) -> K::Output {
        S::call(kernel)
    }
    #[inline(always)]
    fn prefetch<T>(elements: &[T], at: usize) {
        S::prefetch(elements, at);
    }
    #[inline(always)]
    fn f32_from_u32(x: Self::U32) -> Self::F32 {
        Pair(S::f32_from_u32(x.0), S::f32_from_u32(x.1))
    }
    #[inline(always)]
    fn f32_from_i32(x: Self::U32) -> Self::F32 {
        Pair(S::f32_from_i32(x.0), S::f32_from_i32(x.1))
    }
    #[inline(always)]
    fn u32_from_f32(x: Self::F32) -> Self::U32 {
        Pair(S::u32_from_f32(x.0), S::u32_from_f32(x.1))
    }
    #[inline(always)]
    fn f64_from_u32(x: Self::U32) -> (Self::F64, Self::F64) {
        let (a, b) = S::f64_from_u32(x.0);
        let (c, d) = S::f64_from_u32(x.1);
        (Pair(a, b), Pair(c, d))
    }
    #[inline(always)]
    fn mul_low32(a: Self::U64, b: Self::U64) -> Self::U64 {
        Pair(S::mul_low32(a.0, b.0), S::mul_low32(a.1, b.1))
    }
    #[inline(always)]
    fn high32(x: Self::U64) -> Self::U64 {
        Pair(S::high32(x.0), S::high32(x.1))
    }
    #[inline(always)]
    fn interleave(c: [Self::U64; 4]) -> (Self::U32, Self::U32) {
        let (a, b) = S::interleave(c.map(
            #[inline(always)]
            |c| c.0,
        ));
        let (c, d) = S::interleave(c.map(
            #[inline(always)]
            |c| c.1,
        ));
        (Pair(a, b), Pair(c, d))
    }
    #[inline(always)]
    fn f32_from_f16(src: &[f16]) -> Self::F32 {
        let (a, b) = src.split_at(<S::F32 as Float>::LANES);
        Pair(S::f32_from_f16(a), S::f32_from_f16(b))
    }
    #[inline(always)]
    fn f16_from_f32(x: Self::F32, dst: &mut [f16]) {
        let (a, b) = dst.split_at_mut(<S::F32 as Float>::LANES);
        S::f16_from_f32(x.0, a);
        S::f16_from_f32(x.1, b);
    }
    #[inline(always)]
    fn u32_from_u16(src: &[u16]) -> Self::U32 {
        let (a, b) = src.split_at(<S::U32 as Bits>::LANES);
        Pair(S::u32_from_u16(a), S::u32_from_u16(b))
    }
    #[inline(always)]
    fn u16_from_u32(x: Self::U32, dst: &mut [u16]) {
        let (a, b) = dst.split_at_mut(<S::U32 as Bits>::LANES);
        S::u16_from_u32(x.0, a);
        S::u16_from_u32(x.1, b);
    }
}
