//! The dtypes of the crate: what each is stored as, what it is computed in, and the way between.

use crate::rng::RaceReal;
use crate::simd::{Bits, Float, Simd};
use candle_core::{CpuStorage, DType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A dtype that the ops take. f16 and bf16 are computed in f32 and rounded once, at the store.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    type Compute: RaceReal;
    /// The element that is stored as it is computed.
    type Wide: Element<Compute = Self::Compute>;
    const DTYPE: DType;
    /// The smallest and the largest value inside the open unit interval that a uniform draw is rounded to.
    const UNIT_BOUNDS: (f64, f64);

    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    fn storage(data: Vec<Self>) -> CpuStorage;
    fn compute(self) -> Self::Compute;
    fn round(x: f64) -> Self;
    /// The first lanes of `src`; panics when it is shorter than a vector.
    fn load<S: Simd>(src: &[Self]) -> Vector<S, Self>;
    /// Rounds to nearest even.
    fn store<S: Simd>(x: Vector<S, Self>, dst: &mut [Self]);
    /// The slice itself where no conversion is needed.
    fn as_elements(src: &[Self::Compute]) -> Option<&[Self]>;
    /// The slice itself where no conversion is needed.
    fn as_compute(src: &[Self]) -> Option<&[Self::Compute]>;
}

/// The vector that an element is computed in.
pub(crate) type Vector<S, E> = <<E as Element>::Compute as crate::math::Real>::V<S>;

macro_rules! native {
    ($t:ident, $variant:ident) => {
        impl Element for $t {
            type Compute = $t;
            type Wide = $t;
            const DTYPE: DType = DType::$variant;
            const UNIT_BOUNDS: (f64, f64) = (0.0, 1.0);
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn storage(data: Vec<Self>) -> CpuStorage {
                CpuStorage::$variant(data)
            }
            #[inline(always)]
            fn compute(self) -> $t {
                self
            }
            fn round(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn load<S: Simd>(src: &[Self]) -> Vector<S, Self> {
                Float::load(src)
            }
            #[inline(always)]
            fn store<S: Simd>(x: Vector<S, Self>, dst: &mut [Self]) {
                x.store(dst);
            }
            #[inline(always)]
            fn as_elements(src: &[$t]) -> Option<&[Self]> {
                Some(src)
            }
            #[inline(always)]
            fn as_compute(src: &[Self]) -> Option<&[$t]> {
                Some(src)
            }
        }
    };
}
native!(f32, F32);
native!(f64, F64);

macro_rules! half {
    ($t:ident, $variant:ident, $bounds:expr, $load:expr, $store:expr) => {
        impl Element for $t {
            type Compute = f32;
            type Wide = f32;
            const DTYPE: DType = DType::$variant;
            const UNIT_BOUNDS: (f64, f64) = $bounds;
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn storage(data: Vec<Self>) -> CpuStorage {
                CpuStorage::$variant(data)
            }
            #[inline(always)]
            fn compute(self) -> f32 {
                self.to_f32()
            }
            fn round(x: f64) -> Self {
                $t::from_f64(x)
            }
            #[inline(always)]
            fn load<S: Simd>(src: &[Self]) -> S::F32 {
                $load(src)
            }
            #[inline(always)]
            fn store<S: Simd>(x: S::F32, dst: &mut [Self]) {
                $store(x, dst)
            }
            #[inline(always)]
            fn as_elements(_: &[f32]) -> Option<&[Self]> {
                None
            }
            #[inline(always)]
            fn as_compute(_: &[Self]) -> Option<&[f32]> {
                None
            }
        }
    };
}
// 2^-24 and 1 - 2^-11; every uniform draw is a normal bf16, which ends at 1 - 2^-8.
half!(
    f16,
    F16,
    (1.0 / 16_777_216.0, 1.0 - 1.0 / 2048.0),
    S::f32_from_f16,
    S::f16_from_f32
);
half!(
    bf16,
    BF16,
    (0.0, 1.0 - 1.0 / 256.0),
    load_bf16::<S>,
    store_bf16::<S>
);

#[inline(always)]
fn load_bf16<S: Simd>(src: &[bf16]) -> S::F32 {
    S::F32::from_bits(S::u32_from_u16(src.reinterpret_cast()).shl::<16>())
}

#[inline(always)]
fn store_bf16<S: Simd>(x: S::F32, dst: &mut [bf16]) {
    let bits = x.to_bits();
    let odd = bits.shr::<16>().and(S::U32::splat(1));
    let rounded = bits.add(odd).add(S::U32::splat(0x7FFF));
    // Rounding could carry a NaN's payload away: a NaN keeps its sign and becomes quiet instead.
    let quiet = bits.or(S::U32::splat(0x0040_0000));
    let is_number = x.le(S::F32::splat(f32::INFINITY));
    let kept = S::F32::select(
        is_number,
        S::F32::from_bits(rounded),
        S::F32::from_bits(quiet),
    );
    S::u16_from_u32(kept.to_bits().shr::<16>(), dst.reinterpret_cast_mut());
}
