//! AVX-512 and AVX2 + FMA.
//!
//! SAFETY of every block in this file: an intrinsic is undefined where the processor lacks its target feature. The
//! vector types and the two instruction-set types are private to `simd`, and only [`run_avx512`] and [`run_avx2`] name
//! them as a kernel's `S`; each is called by `dispatch` alone, after run-time detection of exactly the features listed
//! on it. The pointer intrinsics go through a slice that was first cut to the length of a vector, and all are the
//! unaligned forms.

use super::{Bits, Float, Kernel, Mask, Simd};
use half::f16;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Clone, Copy)]
pub(super) struct Avx512;
#[derive(Clone, Copy)]
pub(super) struct Avx2;

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// # Safety
/// The processor has the features listed.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// # Safety
/// The processor has the features listed.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

macro_rules! operator {
    ($type:ident, $trait:ident, $fn:ident, |$a:ident, $b:ident| $e:expr) => {
        impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $fn(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                // SAFETY: see the head of this file.
                unsafe { $e }
            }
        }
    };
}

macro_rules! methods {
    ($(fn $fn:ident($($arg:ident: $t:ty),*) -> $r:ty { $e:expr })*) => {
        $(#[inline(always)]
        fn $fn($($arg: $t),*) -> $r {
            // SAFETY: see the head of this file.
            unsafe { $e }
        })*
    };
}

// ---------------------------------------------------------------------------------------------------------- AVX-512

#[derive(Clone, Copy)]
pub(super) struct F32x16(__m512);
#[derive(Clone, Copy)]
pub(super) struct U32x16(__m512i);
#[derive(Clone, Copy)]
pub(super) struct F64x8(__m512d);
#[derive(Clone, Copy)]
pub(super) struct U64x8(__m512i);
#[derive(Clone, Copy)]
pub(super) struct Mask16(__mmask16);
#[derive(Clone, Copy)]
pub(super) struct Mask8(__mmask8);

impl Mask for Mask16 {
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
    #[inline(always)]
    fn all(self) -> bool {
        self.0 == u16::MAX
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Mask for Mask8 {
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
    #[inline(always)]
    fn all(self) -> bool {
        self.0 == u8::MAX
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

macro_rules! bits512 {
    ($type:ident, $t:ty, $i:ty, $n:literal, $set1:ident, $add:ident, $sub:ident, $sllv:ident, $srlv:ident) => {
        impl Bits for $type {
            type Scalar = $t;
            const LANES: usize = $n;
            #[inline(always)]
            fn load(src: &[$t]) -> Self {
                let src = &src[..$n];
                // SAFETY: the slice holds a vector's worth of elements; see the head of this file.
                Self(unsafe { _mm512_loadu_si512(src.as_ptr().cast()) })
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t]) {
                let dst = &mut dst[..$n];
                // SAFETY: as in `load`.
                unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), self.0) }
            }
            methods! {
                fn splat(x: $t) -> Self { Self($set1(x as $i)) }
                fn add(self: Self, o: Self) -> Self { Self($add(self.0, o.0)) }
                fn sub(self: Self, o: Self) -> Self { Self($sub(self.0, o.0)) }
                fn and(self: Self, o: Self) -> Self { Self(_mm512_and_si512(self.0, o.0)) }
                fn or(self: Self, o: Self) -> Self { Self(_mm512_or_si512(self.0, o.0)) }
                fn xor(self: Self, o: Self) -> Self { Self(_mm512_xor_si512(self.0, o.0)) }
            }
            #[inline(always)]
            fn shl<const N: i32>(self) -> Self {
                // SAFETY: see the head of this file.
                Self(unsafe { $sllv(self.0, $set1(N.into())) })
            }
            #[inline(always)]
            fn shr<const N: i32>(self) -> Self {
                // SAFETY: see the head of this file.
                Self(unsafe { $srlv(self.0, $set1(N.into())) })
            }
        }
    };
}
bits512!(
    U32x16,
    u32,
    i32,
    16,
    _mm512_set1_epi32,
    _mm512_add_epi32,
    _mm512_sub_epi32,
    _mm512_sllv_epi32,
    _mm512_srlv_epi32
);
bits512!(
    U64x8,
    u64,
    i64,
    8,
    _mm512_set1_epi64,
    _mm512_add_epi64,
    _mm512_sub_epi64,
    _mm512_sllv_epi64,
    _mm512_srlv_epi64
);

operator!(F32x16, Add, add, |a, b| Self(_mm512_add_ps(a.0, b.0)));
operator!(F32x16, Sub, sub, |a, b| Self(_mm512_sub_ps(a.0, b.0)));
operator!(F32x16, Mul, mul, |a, b| Self(_mm512_mul_ps(a.0, b.0)));
operator!(F32x16, Div, div, |a, b| Self(_mm512_div_ps(a.0, b.0)));
operator!(F64x8, Add, add, |a, b| Self(_mm512_add_pd(a.0, b.0)));
operator!(F64x8, Sub, sub, |a, b| Self(_mm512_sub_pd(a.0, b.0)));
operator!(F64x8, Mul, mul, |a, b| Self(_mm512_mul_pd(a.0, b.0)));
operator!(F64x8, Div, div, |a, b| Self(_mm512_div_pd(a.0, b.0)));

impl Neg for F32x16 {
    type Output = Self;
    methods! {
        fn neg(self: Self) -> Self { Self(_mm512_xor_ps(self.0, _mm512_set1_ps(-0.0))) }
    }
}
impl Neg for F64x8 {
    type Output = Self;
    methods! {
        fn neg(self: Self) -> Self { Self(_mm512_xor_pd(self.0, _mm512_set1_pd(-0.0))) }
    }
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Float for F32x16 {
    type Scalar = f32;
    type Bits = U32x16;
    type Mask = Mask16;
    const LANES: usize = 16;
    #[inline(always)]
    fn load(src: &[f32]) -> Self {
        let src = &src[..16];
        // SAFETY: the slice holds 16 elements; see the head of this file.
        Self(unsafe { _mm512_loadu_ps(src.as_ptr()) })
    }
    #[inline(always)]
    fn store(self, dst: &mut [f32]) {
        let dst = &mut dst[..16];
        // SAFETY: as in `load`.
        unsafe { _mm512_storeu_ps(dst.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn first(n: usize) -> Mask16 {
        Mask16(if n >= 16 { u16::MAX } else { (1 << n) - 1 })
    }
    methods! {
        fn splat(x: f32) -> Self { Self(_mm512_set1_ps(x)) }
        fn mul_add(self: Self, m: Self, a: Self) -> Self { Self(_mm512_fmadd_ps(self.0, m.0, a.0)) }
        fn neg_mul_add(self: Self, m: Self, a: Self) -> Self { Self(_mm512_fnmadd_ps(self.0, m.0, a.0)) }
        fn max(self: Self, o: Self) -> Self { Self(_mm512_max_ps(self.0, o.0)) }
        fn min(self: Self, o: Self) -> Self { Self(_mm512_min_ps(self.0, o.0)) }
        fn sqrt(self: Self) -> Self { Self(_mm512_sqrt_ps(self.0)) }
        fn round(self: Self) -> Self { Self(_mm512_roundscale_ps::<NEAREST>(self.0)) }
        fn lt(self: Self, o: Self) -> Mask16 { Mask16(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0)) }
        fn le(self: Self, o: Self) -> Mask16 { Mask16(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, o.0)) }
        fn select(mask: Mask16, a: Self, b: Self) -> Self { Self(_mm512_mask_blend_ps(mask.0, b.0, a.0)) }
        fn to_bits(self: Self) -> U32x16 { U32x16(_mm512_castps_si512(self.0)) }
        fn from_bits(bits: U32x16) -> Self { Self(_mm512_castsi512_ps(bits.0)) }
        fn scale_pow2(self: Self, n: Self) -> Self { Self(_mm512_scalef_ps(self.0, n.0)) }
        fn reduce_add(self: Self) -> f32 { {
            let half = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            halving_add_ps(half)
        } }
        fn reduce_max(self: Self) -> f32 { {
            let half = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            halving_max_ps(half)
        } }
    }
}

impl Float for F64x8 {
    type Scalar = f64;
    type Bits = U64x8;
    type Mask = Mask8;
    const LANES: usize = 8;
    #[inline(always)]
    fn load(src: &[f64]) -> Self {
        let src = &src[..8];
        // SAFETY: the slice holds 8 elements; see the head of this file.
        Self(unsafe { _mm512_loadu_pd(src.as_ptr()) })
    }
    #[inline(always)]
    fn store(self, dst: &mut [f64]) {
        let dst = &mut dst[..8];
        // SAFETY: as in `load`.
        unsafe { _mm512_storeu_pd(dst.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn first(n: usize) -> Mask8 {
        Mask8(if n >= 8 { u8::MAX } else { (1 << n) - 1 })
    }
    methods! {
        fn splat(x: f64) -> Self { Self(_mm512_set1_pd(x)) }
        fn mul_add(self: Self, m: Self, a: Self) -> Self { Self(_mm512_fmadd_pd(self.0, m.0, a.0)) }
        fn neg_mul_add(self: Self, m: Self, a: Self) -> Self { Self(_mm512_fnmadd_pd(self.0, m.0, a.0)) }
        fn max(self: Self, o: Self) -> Self { Self(_mm512_max_pd(self.0, o.0)) }
        fn min(self: Self, o: Self) -> Self { Self(_mm512_min_pd(self.0, o.0)) }
        fn sqrt(self: Self) -> Self { Self(_mm512_sqrt_pd(self.0)) }
        fn round(self: Self) -> Self { Self(_mm512_roundscale_pd::<NEAREST>(self.0)) }
        fn lt(self: Self, o: Self) -> Mask8 { Mask8(_mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, o.0)) }
        fn le(self: Self, o: Self) -> Mask8 { Mask8(_mm512_cmp_pd_mask::<_CMP_LE_OQ>(self.0, o.0)) }
        fn select(mask: Mask8, a: Self, b: Self) -> Self { Self(_mm512_mask_blend_pd(mask.0, b.0, a.0)) }
        fn to_bits(self: Self) -> U64x8 { U64x8(_mm512_castpd_si512(self.0)) }
        fn from_bits(bits: U64x8) -> Self { Self(_mm512_castsi512_pd(bits.0)) }
        fn scale_pow2(self: Self, n: Self) -> Self { Self(_mm512_scalef_pd(self.0, n.0)) }
        fn reduce_add(self: Self) -> f64 { {
            let half = _mm256_add_pd(_mm512_castpd512_pd256(self.0), _mm512_extractf64x4_pd::<1>(self.0));
            halving_add_pd(half)
        } }
        fn reduce_max(self: Self) -> f64 { {
            let half = _mm256_max_pd(_mm512_castpd512_pd256(self.0), _mm512_extractf64x4_pd::<1>(self.0));
            halving_max_pd(half)
        } }
    }
}

impl Simd for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;
    type U32 = U32x16;
    type U64 = U64x8;
    type Wide = super::double::Double<Self>;
    #[inline(always)]
    fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: only a kernel that runs on this instruction set comes here, after `dispatch` has seen its features.
        unsafe { run_avx512(kernel) }
    }
    #[inline(always)]
    fn prefetch<T>(elements: &[T], at: usize) {
        if let Some(element) = elements.get(at) {
            // SAFETY: the address is that of an element; a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) }
        }
    }
    methods! {
        fn f32_from_u32(x: U32x16) -> F32x16 { F32x16(_mm512_cvtepu32_ps(x.0)) }
        fn f32_from_i32(x: U32x16) -> F32x16 { F32x16(_mm512_cvtepi32_ps(x.0)) }
        fn u32_from_f32(x: F32x16) -> U32x16 { U32x16(_mm512_cvttps_epi32(x.0)) }
        fn f64_from_u32(x: U32x16) -> (F64x8, F64x8) { (
            F64x8(_mm512_cvtepu32_pd(_mm512_castsi512_si256(x.0))),
            F64x8(_mm512_cvtepu32_pd(_mm512_extracti64x4_epi64::<1>(x.0))),
        ) }
        fn mul_low32(a: U64x8, b: U64x8) -> U64x8 { U64x8(_mm512_mul_epu32(a.0, b.0)) }
        // A shuffle, where a shift would compete with the products for one port.
        fn high32(x: U64x8) -> U64x8 { U64x8(_mm512_shuffle_epi32::<0xF5>(x.0)) }
        fn interleave(c: [U64x8; 4]) -> (U32x16, U32x16) { {
            let low = _mm512_mask_blend_epi32(0xAAAA, c[0].0, _mm512_slli_epi64::<32>(c[1].0));
            let high = _mm512_mask_blend_epi32(0xAAAA, c[2].0, _mm512_slli_epi64::<32>(c[3].0));
            (U32x16(_mm512_unpacklo_epi64(low, high)), U32x16(_mm512_unpackhi_epi64(low, high)))
        } }
    }
    #[inline(always)]
    fn f32_from_f16(src: &[f16]) -> F32x16 {
        let src = &src[..16];
        // SAFETY: the slice holds 16 elements of two bytes; see the head of this file.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.as_ptr().cast())) })
    }
    #[inline(always)]
    fn f16_from_f32(x: F32x16, dst: &mut [f16]) {
        let dst = &mut dst[..16];
        // SAFETY: as in `f32_from_f16`.
        unsafe {
            _mm256_storeu_si256(
                dst.as_mut_ptr().cast(),
                _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.0),
            );
        }
    }
    #[inline(always)]
    fn u32_from_u16(src: &[u16]) -> U32x16 {
        let src = &src[..16];
        // SAFETY: as in `f32_from_f16`.
        U32x16(unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(src.as_ptr().cast())) })
    }
    #[inline(always)]
    fn u16_from_u32(x: U32x16, dst: &mut [u16]) {
        let dst = &mut dst[..16];
        // SAFETY: as in `f32_from_f16`.
        unsafe { _mm256_storeu_si256(dst.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(x.0)) }
    }
}

// ------------------------------------------------------------------------------------------- reductions of 256 bits
// Each is called from the wrappers above and below only.

/// The sum in halving order.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn halving_add_ps(x: __m256) -> f32 {
    // SAFETY: see the head of this file.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

/// The maximum in halving order.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn halving_max_ps(x: __m256) -> f32 {
    // SAFETY: see the head of this file.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
    }
}

/// The sum in halving order.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn halving_add_pd(x: __m256d) -> f64 {
    // SAFETY: see the head of this file.
    unsafe {
        let x = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
        _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
    }
}

/// The maximum in halving order.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn halving_max_pd(x: __m256d) -> f64 {
    // SAFETY: see the head of this file.
    unsafe {
        let x = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
        _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)))
    }
}

// ------------------------------------------------------------------------------------------------------------- AVX2

#[derive(Clone, Copy)]
pub(super) struct F32x8x2([__m256; 2]);
#[derive(Clone, Copy)]
pub(super) struct U32x8x2([__m256i; 2]);
#[derive(Clone, Copy)]
pub(super) struct F64x4x2([__m256d; 2]);
#[derive(Clone, Copy)]
pub(super) struct U64x4x2([__m256i; 2]);
#[derive(Clone, Copy)]
pub(super) struct Mask8x2([__m256; 2]);
#[derive(Clone, Copy)]
pub(super) struct Mask4x2([__m256d; 2]);

macro_rules! mask256 {
    ($type:ident, $movemask:ident, $or:ident, $full:literal) => {
        impl Mask for $type {
            methods! {
                fn any(self: Self) -> bool { $movemask($or(self.0[0], self.0[1])) != 0 }
                fn all(self: Self) -> bool { $movemask(self.0[0]) & $movemask(self.0[1]) == $full }
                fn or(self: Self, o: Self) -> Self { Self([$or(self.0[0], o.0[0]), $or(self.0[1], o.0[1])]) }
            }
        }
    };
}
mask256!(Mask8x2, _mm256_movemask_ps, _mm256_or_ps, 0xFF);
mask256!(Mask4x2, _mm256_movemask_pd, _mm256_or_pd, 0xF);

macro_rules! bits256 {
    ($type:ident, $t:ty, $i:ty, $n:literal, $set1:ident, $add:ident, $sub:ident, $slli:ident, $srli:ident) => {
        impl Bits for $type {
            type Scalar = $t;
            const LANES: usize = $n;
            #[inline(always)]
            fn load(src: &[$t]) -> Self {
                let (a, b) = src[..$n].split_at($n / 2);
                // SAFETY: each half holds a register's worth of elements; see the head of this file.
                Self(unsafe {
                    [
                        _mm256_loadu_si256(a.as_ptr().cast()),
                        _mm256_loadu_si256(b.as_ptr().cast()),
                    ]
                })
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t]) {
                let (a, b) = dst[..$n].split_at_mut($n / 2);
                // SAFETY: as in `load`.
                unsafe {
                    _mm256_storeu_si256(a.as_mut_ptr().cast(), self.0[0]);
                    _mm256_storeu_si256(b.as_mut_ptr().cast(), self.0[1]);
                }
            }
            methods! {
                fn splat(x: $t) -> Self { Self([$set1(x as $i); 2]) }
                fn add(self: Self, o: Self) -> Self { Self([$add(self.0[0], o.0[0]), $add(self.0[1], o.0[1])]) }
                fn sub(self: Self, o: Self) -> Self { Self([$sub(self.0[0], o.0[0]), $sub(self.0[1], o.0[1])]) }
                fn and(self: Self, o: Self) -> Self {
                    Self([_mm256_and_si256(self.0[0], o.0[0]), _mm256_and_si256(self.0[1], o.0[1])])
                }
                fn or(self: Self, o: Self) -> Self {
                    Self([_mm256_or_si256(self.0[0], o.0[0]), _mm256_or_si256(self.0[1], o.0[1])])
                }
                fn xor(self: Self, o: Self) -> Self {
                    Self([_mm256_xor_si256(self.0[0], o.0[0]), _mm256_xor_si256(self.0[1], o.0[1])])
                }
            }
            #[inline(always)]
            fn shl<const N: i32>(self) -> Self {
                // SAFETY: see the head of this file.
                Self(unsafe { [$slli::<N>(self.0[0]), $slli::<N>(self.0[1])] })
            }
            #[inline(always)]
            fn shr<const N: i32>(self) -> Self {
                // SAFETY: see the head of this file.
                Self(unsafe { [$srli::<N>(self.0[0]), $srli::<N>(self.0[1])] })
            }
        }
    };
}
bits256!(
    U32x8x2,
    u32,
    i32,
    16,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_sub_epi32,
    _mm256_slli_epi32,
    _mm256_srli_epi32
);
bits256!(
    U64x4x2,
    u64,
    i64,
    8,
    _mm256_set1_epi64x,
    _mm256_add_epi64,
    _mm256_sub_epi64,
    _mm256_slli_epi64,
    _mm256_srli_epi64
);

/// `f` on both registers of one, two or three vectors.
macro_rules! both {
    ($f:expr, $a:ident) => {
        Self([$f($a.0[0]), $f($a.0[1])])
    };
    ($f:expr, $a:ident, $b:ident) => {
        Self([$f($a.0[0], $b.0[0]), $f($a.0[1], $b.0[1])])
    };
    ($f:expr, $a:ident, $b:ident, $c:ident) => {
        Self([$f($a.0[0], $b.0[0], $c.0[0]), $f($a.0[1], $b.0[1], $c.0[1])])
    };
}

operator!(F32x8x2, Add, add, |a, b| both!(_mm256_add_ps, a, b));
operator!(F32x8x2, Sub, sub, |a, b| both!(_mm256_sub_ps, a, b));
operator!(F32x8x2, Mul, mul, |a, b| both!(_mm256_mul_ps, a, b));
operator!(F32x8x2, Div, div, |a, b| both!(_mm256_div_ps, a, b));
operator!(F64x4x2, Add, add, |a, b| both!(_mm256_add_pd, a, b));
operator!(F64x4x2, Sub, sub, |a, b| both!(_mm256_sub_pd, a, b));
operator!(F64x4x2, Mul, mul, |a, b| both!(_mm256_mul_pd, a, b));
operator!(F64x4x2, Div, div, |a, b| both!(_mm256_div_pd, a, b));

impl Neg for F32x8x2 {
    type Output = Self;
    methods! {
        fn neg(self: Self) -> Self { {
            let sign = Self([_mm256_set1_ps(-0.0); 2]);
            both!(_mm256_xor_ps, self, sign)
        } }
    }
}
impl Neg for F64x4x2 {
    type Output = Self;
    methods! {
        fn neg(self: Self) -> Self { {
            let sign = Self([_mm256_set1_pd(-0.0); 2]);
            both!(_mm256_xor_pd, self, sign)
        } }
    }
}

macro_rules! float256 {
    ($type:ident, $t:ty, $bits:ident, $mask:ident, $n:literal, $mantissa:literal, $bias:literal,
     $load:ident, $store:ident, $set1:ident, $fmadd:ident, $fnmadd:ident, $max:ident, $min:ident, $sqrt:ident,
     $round:ident, $cmp:ident, $blendv:ident, $to:ident, $from:ident, $add:ident, $mul:ident,
     $reduce_add:ident, $reduce_max:ident) => {
        impl Float for $type {
            type Scalar = $t;
            type Bits = $bits;
            type Mask = $mask;
            const LANES: usize = $n;
            #[inline(always)]
            fn load(src: &[$t]) -> Self {
                let (a, b) = src[..$n].split_at($n / 2);
                // SAFETY: each half holds a register's worth of elements; see the head of this file.
                Self(unsafe { [$load(a.as_ptr()), $load(b.as_ptr())] })
            }
            #[inline(always)]
            fn store(self, dst: &mut [$t]) {
                let (a, b) = dst[..$n].split_at_mut($n / 2);
                // SAFETY: as in `load`.
                unsafe {
                    $store(a.as_mut_ptr(), self.0[0]);
                    $store(b.as_mut_ptr(), self.0[1]);
                }
            }
            #[inline(always)]
            fn first(n: usize) -> $mask {
                let mut lanes = [0 as $t; $n];
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = i as $t;
                }
                Self::load(&lanes).lt(Self::splat(n as $t))
            }
            methods! {
                fn splat(x: $t) -> Self { Self([$set1(x); 2]) }
                fn mul_add(self: Self, m: Self, a: Self) -> Self { both!($fmadd, self, m, a) }
                fn neg_mul_add(self: Self, m: Self, a: Self) -> Self { both!($fnmadd, self, m, a) }
                fn max(self: Self, o: Self) -> Self { both!($max, self, o) }
                fn min(self: Self, o: Self) -> Self { both!($min, self, o) }
                fn sqrt(self: Self) -> Self { both!($sqrt, self) }
                fn round(self: Self) -> Self { both!($round::<NEAREST>, self) }
                fn lt(self: Self, o: Self) -> $mask {
                    $mask([$cmp::<_CMP_LT_OQ>(self.0[0], o.0[0]), $cmp::<_CMP_LT_OQ>(self.0[1], o.0[1])])
                }
                fn le(self: Self, o: Self) -> $mask {
                    $mask([$cmp::<_CMP_LE_OQ>(self.0[0], o.0[0]), $cmp::<_CMP_LE_OQ>(self.0[1], o.0[1])])
                }
                fn select(mask: $mask, a: Self, b: Self) -> Self { both!($blendv, b, a, mask) }
                fn to_bits(self: Self) -> $bits { $bits([$to(self.0[0]), $to(self.0[1])]) }
                fn from_bits(bits: $bits) -> Self { Self([$from(bits.0[0]), $from(bits.0[1])]) }
                fn reduce_add(self: Self) -> $t { $reduce_add($add(self.0[0], self.0[1])) }
                fn reduce_max(self: Self) -> $t { $reduce_max($max(self.0[0], self.0[1])) }
            }
            #[inline(always)]
            fn scale_pow2(self, n: Self) -> Self {
                // The sum leaves the biased exponent in the low bits, whatever `n` is.
                let biased = n + Self::splat((1u64 << $mantissa) as $t + $bias);
                self * Self::from_bits(biased.to_bits().shl::<$mantissa>())
            }
        }
    };
}
float256!(
    F32x8x2,
    f32,
    U32x8x2,
    Mask8x2,
    16,
    23,
    127.0,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_max_ps,
    _mm256_min_ps,
    _mm256_sqrt_ps,
    _mm256_round_ps,
    _mm256_cmp_ps,
    _mm256_blendv_ps,
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_add_ps,
    _mm256_mul_ps,
    halving_add_ps,
    halving_max_ps
);
float256!(
    F64x4x2,
    f64,
    U64x4x2,
    Mask4x2,
    8,
    52,
    1023.0,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_max_pd,
    _mm256_min_pd,
    _mm256_sqrt_pd,
    _mm256_round_pd,
    _mm256_cmp_pd,
    _mm256_blendv_pd,
    _mm256_castpd_si256,
    _mm256_castsi256_pd,
    _mm256_add_pd,
    _mm256_mul_pd,
    halving_add_pd,
    halving_max_pd
);

/// Four unsigned 32-bit words, each in the low half of a 64-bit lane, as `f64`: placed in the low bits of 2^52.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn f64_from_words(x: __m256i) -> __m256d {
    // SAFETY: see the head of this file.
    unsafe {
        let magic = _mm256_set1_epi64x(0x4330_0000_0000_0000);
        _mm256_sub_pd(
            _mm256_castsi256_pd(_mm256_or_si256(x, magic)),
            _mm256_castsi256_pd(magic),
        )
    }
}

/// Eight unsigned 32-bit words as `f64`.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn f64_from_eight(x: __m256i) -> F64x4x2 {
    // SAFETY: see the head of this file.
    unsafe {
        F64x4x2([
            f64_from_words(_mm256_cvtepu32_epi64(_mm256_castsi256_si128(x))),
            f64_from_words(_mm256_cvtepu32_epi64(_mm256_extracti128_si256::<1>(x))),
        ])
    }
}

/// The low halves of the lanes of `a` and `b`, in turn.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn pair(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: see the head of this file.
    unsafe { _mm256_blend_epi32::<0xAA>(a, _mm256_slli_epi64::<32>(b)) }
}

/// Nearest `f32` of unsigned words: both halves convert exactly, and the fused multiply-add rounds once.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn f32_from_words(x: __m256i) -> __m256 {
    // SAFETY: see the head of this file.
    unsafe {
        let high = _mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(x));
        let low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)));
        _mm256_fmadd_ps(high, _mm256_set1_ps(65536.0), low)
    }
}

impl Simd for Avx2 {
    type F32 = F32x8x2;
    type F64 = F64x4x2;
    type U32 = U32x8x2;
    type U64 = U64x4x2;
    // Its vectors are two registers each already, and there are sixteen.
    type Wide = Self;
    #[inline(always)]
    fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: only a kernel that runs on this instruction set comes here, after `dispatch` has seen its features.
        unsafe { run_avx2(kernel) }
    }
    #[inline(always)]
    fn prefetch<T>(elements: &[T], at: usize) {
        if let Some(element) = elements.get(at) {
            // SAFETY: the address is that of an element; a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) }
        }
    }
    methods! {
        fn f32_from_u32(x: U32x8x2) -> F32x8x2 { F32x8x2([f32_from_words(x.0[0]), f32_from_words(x.0[1])]) }
        fn f32_from_i32(x: U32x8x2) -> F32x8x2 {
            F32x8x2([_mm256_cvtepi32_ps(x.0[0]), _mm256_cvtepi32_ps(x.0[1])])
        }
        fn u32_from_f32(x: F32x8x2) -> U32x8x2 {
            U32x8x2([_mm256_cvttps_epi32(x.0[0]), _mm256_cvttps_epi32(x.0[1])])
        }
        fn f64_from_u32(x: U32x8x2) -> (F64x4x2, F64x4x2) { {
            (f64_from_eight(x.0[0]), f64_from_eight(x.0[1]))
        } }
        fn mul_low32(a: U64x4x2, b: U64x4x2) -> U64x4x2 {
            U64x4x2([_mm256_mul_epu32(a.0[0], b.0[0]), _mm256_mul_epu32(a.0[1], b.0[1])])
        }
        fn high32(x: U64x4x2) -> U64x4x2 {
            U64x4x2([_mm256_shuffle_epi32::<0xF5>(x.0[0]), _mm256_shuffle_epi32::<0xF5>(x.0[1])])
        }
        fn interleave(c: [U64x4x2; 4]) -> (U32x8x2, U32x8x2) { {
            let (low0, high0) = (pair(c[0].0[0], c[1].0[0]), pair(c[2].0[0], c[3].0[0]));
            let (low1, high1) = (pair(c[0].0[1], c[1].0[1]), pair(c[2].0[1], c[3].0[1]));
            (
                U32x8x2([_mm256_unpacklo_epi64(low0, high0), _mm256_unpacklo_epi64(low1, high1)]),
                U32x8x2([_mm256_unpackhi_epi64(low0, high0), _mm256_unpackhi_epi64(low1, high1)]),
            )
        } }
    }
    #[inline(always)]
    fn f32_from_f16(src: &[f16]) -> F32x8x2 {
        let (a, b) = src[..16].split_at(8);
        // SAFETY: each half holds 8 elements of two bytes; see the head of this file.
        F32x8x2(unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(a.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(b.as_ptr().cast())),
            ]
        })
    }
    #[inline(always)]
    fn f16_from_f32(x: F32x8x2, dst: &mut [f16]) {
        let (a, b) = dst[..16].split_at_mut(8);
        // SAFETY: as in `f32_from_f16`.
        unsafe {
            _mm_storeu_si128(
                a.as_mut_ptr().cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.0[0]),
            );
            _mm_storeu_si128(
                b.as_mut_ptr().cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.0[1]),
            );
        }
    }
    #[inline(always)]
    fn u32_from_u16(src: &[u16]) -> U32x8x2 {
        let (a, b) = src[..16].split_at(8);
        // SAFETY: as in `f32_from_f16`.
        U32x8x2(unsafe {
            [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(a.as_ptr().cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(b.as_ptr().cast())),
            ]
        })
    }
    #[inline(always)]
    fn u16_from_u32(x: U32x8x2, dst: &mut [u16]) {
        let dst = &mut dst[..16];
        // SAFETY: the slice holds 16 elements of two bytes; see the head of this file.
        unsafe {
            let low = _mm256_set1_epi32(0xFFFF);
            // The pack works within 128-bit halves; the permutation puts its quarters back in order.
            let packed =
                _mm256_packus_epi32(_mm256_and_si256(x.0[0], low), _mm256_and_si256(x.0[1], low));
            _mm256_storeu_si256(
                dst.as_mut_ptr().cast(),
                _mm256_permute4x64_epi64::<0b11_01_10_00>(packed),
            );
        }
    }
}
