//! Lane arrays in plain Rust, for every architecture; the compiler vectorises what it can.

use super::{Bits, Float, Kernel, Mask, Simd};
use half::f16;
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Clone, Copy)]
pub(super) struct Portable;

#[derive(Clone, Copy)]
pub(super) struct Lanes<T, const N: usize>([T; N]);

#[derive(Clone, Copy)]
pub(super) struct Truth<const N: usize>([bool; N]);

impl<const N: usize> Mask for Truth<N> {
    #[inline(always)]
    fn any(self) -> bool {
        self.0.iter().any(|&b| b)
    }
    #[inline(always)]
    fn all(self) -> bool {
        self.0.iter().all(|&b| b)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i] | other.0[i]))
    }
}

macro_rules! bits {
    ($t:ty, $n:literal) => {
        impl Bits for Lanes<$t, $n> {
            type Scalar = $t;
            const LANES: usize = $n;
            #[inline(always)]
            fn splat(x: $t) -> Self {
                Self([x; $n])
            }
            #[inline(always)]
            fn load(src: &[$t]) -> Self {
                let src = &src[..$n];
                Self(from_fn(|i| src[i]))
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t]) {
                dst[..$n].copy_from_slice(&self.0);
            }
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i].wrapping_add(o.0[i])))
            }
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i].wrapping_sub(o.0[i])))
            }
            #[inline(always)]
            fn and(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] & o.0[i]))
            }
            #[inline(always)]
            fn or(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] | o.0[i]))
            }
            #[inline(always)]
            fn xor(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] ^ o.0[i]))
            }
            #[inline(always)]
            fn shl<const K: i32>(self) -> Self {
                Self(self.0.map(|x| x << K))
            }
            #[inline(always)]
            fn shr<const K: i32>(self) -> Self {
                Self(self.0.map(|x| x >> K))
            }
        }
    };
}
bits!(u32, 16);
bits!(u64, 8);

macro_rules! float {
    ($t:ty, $u:ty, $n:literal, $mantissa:literal, $bias:literal) => {
        impl Add for Lanes<$t, $n> {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] + o.0[i]))
            }
        }
        impl Sub for Lanes<$t, $n> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] - o.0[i]))
            }
        }
        impl Mul for Lanes<$t, $n> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] * o.0[i]))
            }
        }
        impl Div for Lanes<$t, $n> {
            type Output = Self;
            #[inline(always)]
            fn div(self, o: Self) -> Self {
                Self(from_fn(|i| self.0[i] / o.0[i]))
            }
        }
        impl Neg for Lanes<$t, $n> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self(self.0.map(|x| -x))
            }
        }
        impl Float for Lanes<$t, $n> {
            type Scalar = $t;
            type Bits = Lanes<$u, $n>;
            type Mask = Truth<$n>;
            const LANES: usize = $n;
            #[inline(always)]
            fn splat(x: $t) -> Self {
                Self([x; $n])
            }
            #[inline(always)]
            fn load(src: &[$t]) -> Self {
                let src = &src[..$n];
                Self(from_fn(|i| src[i]))
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t]) {
                dst[..$n].copy_from_slice(&self.0);
            }
            #[inline(always)]
            fn mul_add(self, m: Self, a: Self) -> Self {
                Self(from_fn(|i| self.0[i].mul_add(m.0[i], a.0[i])))
            }
            #[inline(always)]
            fn neg_mul_add(self, m: Self, a: Self) -> Self {
                Self(from_fn(|i| (-self.0[i]).mul_add(m.0[i], a.0[i])))
            }
            #[inline(always)]
            fn max(self, o: Self) -> Self {
                Self(from_fn(|i| {
                    if self.0[i] > o.0[i] {
                        self.0[i]
                    } else {
                        o.0[i]
                    }
                }))
            }
            #[inline(always)]
            fn min(self, o: Self) -> Self {
                Self(from_fn(|i| {
                    if self.0[i] < o.0[i] {
                        self.0[i]
                    } else {
                        o.0[i]
                    }
                }))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(self.0.map(|x| x.sqrt()))
            }
            #[inline(always)]
            fn round(self) -> Self {
                Self(self.0.map(|x| x.round_ties_even()))
            }
            #[inline(always)]
            fn lt(self, o: Self) -> Truth<$n> {
                Truth(from_fn(|i| self.0[i] < o.0[i]))
            }
            #[inline(always)]
            fn le(self, o: Self) -> Truth<$n> {
                Truth(from_fn(|i| self.0[i] <= o.0[i]))
            }
            #[inline(always)]
            fn select(mask: Truth<$n>, a: Self, b: Self) -> Self {
                // On the bits, so that a value that is not a number passes unchanged too.
                Self(from_fn(|i| {
                    <$t>::from_bits(if mask.0[i] {
                        a.0[i].to_bits()
                    } else {
                        b.0[i].to_bits()
                    })
                }))
            }
            #[inline(always)]
            fn first(n: usize) -> Truth<$n> {
                Truth(from_fn(|i| i < n))
            }
            #[inline(always)]
            fn to_bits(self) -> Lanes<$u, $n> {
                Lanes(self.0.map(|x| x.to_bits()))
            }
            #[inline(always)]
            fn from_bits(bits: Lanes<$u, $n>) -> Self {
                Self(bits.0.map(<$t>::from_bits))
            }
            #[inline(always)]
            fn scale_pow2(self, n: Self) -> Self {
                // The sum leaves the biased exponent in the low bits, whatever `n` is.
                let magic = (1u64 << $mantissa) as $t + $bias;
                Self(from_fn(|i| {
                    self.0[i] * <$t>::from_bits((n.0[i] + magic).to_bits() << $mantissa)
                }))
            }
            #[inline(always)]
            fn reduce_add(self) -> $t {
                let mut x = self.0;
                let mut half = $n / 2;
                while half > 0 {
                    for i in 0..half {
                        x[i] += x[i + half];
                    }
                    half /= 2;
                }
                x[0]
            }
            #[inline(always)]
            fn reduce_max(self) -> $t {
                let mut x = self.0;
                let mut half = $n / 2;
                while half > 0 {
                    for i in 0..half {
                        let (a, b) = (x[i], x[i + half]);
                        x[i] = if a > b { a } else { b };
                    }
                    half /= 2;
                }
                x[0]
            }
        }
    };
}
float!(f32, u32, 16, 23, 127.0);
float!(f64, u64, 8, 52, 1023.0);

impl Simd for Portable {
    type F32 = Lanes<f32, 16>;
    type F64 = Lanes<f64, 8>;
    type U32 = Lanes<u32, 16>;
    type U64 = Lanes<u64, 8>;
    type Wide = Self;

    #[inline(never)]
    fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
    #[inline(always)]
    fn f32_from_u32(x: Self::U32) -> Self::F32 {
        Lanes(x.0.map(|x| x as f32))
    }
    #[inline(always)]
    fn f32_from_i32(x: Self::U32) -> Self::F32 {
        Lanes(x.0.map(|x| x as i32 as f32))
    }
    #[inline(always)]
    fn u32_from_f32(x: Self::F32) -> Self::U32 {
        Lanes(x.0.map(|x| x as u32))
    }
    #[inline(always)]
    fn f64_from_u32(x: Self::U32) -> (Self::F64, Self::F64) {
        (
            Lanes(from_fn(|i| f64::from(x.0[i]))),
            Lanes(from_fn(|i| f64::from(x.0[i + 8]))),
        )
    }
    #[inline(always)]
    fn mul_low32(a: Self::U64, b: Self::U64) -> Self::U64 {
        Lanes(from_fn(|i| {
            u64::from(a.0[i] as u32) * u64::from(b.0[i] as u32)
        }))
    }
    #[inline(always)]
    fn high32(x: Self::U64) -> Self::U64 {
        x.shr::<32>()
    }
    #[inline(always)]
    fn interleave(c: [Self::U64; 4]) -> (Self::U32, Self::U32) {
        // Blocks 0..4 sit in the even lanes, 4..8 in the odd ones.
        (
            Lanes(from_fn(|i| c[i % 4].0[2 * (i / 4)] as u32)),
            Lanes(from_fn(|i| c[i % 4].0[2 * (i / 4) + 1] as u32)),
        )
    }
    #[inline(always)]
    fn f32_from_f16(src: &[f16]) -> Self::F32 {
        let src = &src[..16];
        Lanes(from_fn(|i| src[i].to_f32()))
    }
    #[inline(always)]
    fn f16_from_f32(x: Self::F32, dst: &mut [f16]) {
        dst[..16].copy_from_slice(&x.0.map(f16::from_f32));
    }
    #[inline(always)]
    fn u32_from_u16(src: &[u16]) -> Self::U32 {
        let src = &src[..16];
        Lanes(from_fn(|i| u32::from(src[i])))
    }
    #[inline(always)]
    fn u16_from_u32(x: Self::U32, dst: &mut [u16]) {
        dst[..16].copy_from_slice(&x.0.map(|x| x as u16));
    }
}
