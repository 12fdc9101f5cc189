//! Vectors of a fixed logical width, compiled once per instruction set and picked at run time.
//!
//! Every kernel of the crate is written once, generic over [`Simd`], and works on logical vectors of 16 `f32`/`u32` or
//! 8 `f64`/`u64` lanes whatever the registers of the machine. All lane operations are exactly rounded IEEE operations
//! or integer operations and reductions have one fixed order, so a kernel gives the same bits on every instruction set.
//!
//! [`dispatch`] is the only place that instantiates a kernel for an instruction set.

mod double;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::atomic::{AtomicU8, Ordering};

/// Lanes of a logical `f32` vector.
pub(crate) const LANES_F32: usize = 16;

/// One bit of truth per lane.
pub(crate) trait Mask: Copy {
    fn any(self) -> bool;
    fn all(self) -> bool;
    fn or(self, other: Self) -> Self;
}

/// Unsigned integer lanes, wrapping.
pub(crate) trait Bits: Copy {
    type Scalar: Copy;
    const LANES: usize;
    fn splat(x: Self::Scalar) -> Self;
    /// The first lanes of `src`; panics when it is shorter than a vector.
    fn load(src: &[Self::Scalar]) -> Self;
    fn store(self, dst: &mut [Self::Scalar]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shl<const N: i32>(self) -> Self;
    fn shr<const N: i32>(self) -> Self;
}

/// Floating-point lanes.
pub(crate) trait Float:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    type Scalar: Copy;
    type Bits: Bits;
    type Mask: Mask;
    const LANES: usize;
    fn splat(x: Self::Scalar) -> Self;
    /// The first lanes of `src`; panics when it is shorter than a vector.
    fn load(src: &[Self::Scalar]) -> Self;
    fn store(self, dst: &mut [Self::Scalar]);
    /// `self * m + a`, rounded once.
    fn mul_add(self, m: Self, a: Self) -> Self;
    /// `a - self * m`, rounded once.
    fn neg_mul_add(self, m: Self, a: Self) -> Self;
    /// `if self > other { self } else { other }`: a NaN in `other` is kept, one in `self` is not.
    fn max(self, other: Self) -> Self;
    /// `if self < other { self } else { other }`: a NaN in `other` is kept, one in `self` is not.
    fn min(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    fn lt(self, other: Self) -> Self::Mask;
    fn le(self, other: Self) -> Self::Mask;
    /// Per lane `mask ? a : b`, bits untouched.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    /// The mask of the lanes below `n`.
    fn first(n: usize) -> Self::Mask;
    fn to_bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    /// `self * 2^n` for integral `n` for which `2^n` is a normal number.
    fn scale_pow2(self, n: Self) -> Self;
    /// Sum in halving order: lane `i` with lane `i + LANES / 2`, and so on down to one.
    fn reduce_add(self) -> Self::Scalar;
    /// Maximum under the rule of [`Float::max`], in the order of [`Float::reduce_add`].
    fn reduce_max(self) -> Self::Scalar;
}

/// The vectors of one instruction set.
pub(crate) trait Simd: Copy + 'static {
    type F32: Float<Scalar = f32, Bits = Self::U32>;
    type F64: Float<Scalar = f64, Bits = Self::U64>;
    type U32: Bits<Scalar = u32>;
    type U64: Bits<Scalar = u64>;
    /// As many lanes as long chains of operations want: itself, or two of its vectors in step.
    type Wide: Simd;

    /// Runs a kernel as a function of its own for this instruction set, not inlined: what several kernels share is then
    /// compiled once.
    fn call<K: Kernel>(kernel: K) -> K::Output;

    /// Asks for the memory of an element, if there is one, ahead of its use.
    fn prefetch<T>(_elements: &[T], _at: usize) {}

    /// Unsigned lanes to the nearest `f32`.
    fn f32_from_u32(x: Self::U32) -> Self::F32;
    /// Lanes read as `i32`, to the nearest `f32`.
    fn f32_from_i32(x: Self::U32) -> Self::F32;
    /// Toward zero, for lanes in `[0, 2^31)`.
    fn u32_from_f32(x: Self::F32) -> Self::U32;
    /// Lanes 0..8 and 8..16, exactly.
    fn f64_from_u32(x: Self::U32) -> (Self::F64, Self::F64);
    /// The product of the low 32 bits of the lanes.
    fn mul_low32(a: Self::U64, b: Self::U64) -> Self::U64;
    /// The high halves of the lanes, in their low halves; the high halves of the result are not specified.
    fn high32(x: Self::U64) -> Self::U64;
    /// The low halves of four words of Philox blocks, one block a lane, in the order of their elements, where lane `l` of the
    /// arguments belongs to block [`BLOCK_OF_LANE`]`[l]`.
    fn interleave(c: [Self::U64; 4]) -> (Self::U32, Self::U32);

    fn f32_from_f16(src: &[f16]) -> Self::F32;
    fn f16_from_f32(x: Self::F32, dst: &mut [f16]);
    /// Zero-extended.
    fn u32_from_u16(src: &[u16]) -> Self::U32;
    /// The low halves of the lanes.
    fn u16_from_u32(x: Self::U32, dst: &mut [u16]);
}

/// Which block each lane carries, so that [`Simd::interleave`] needs no shuffle across 128-bit halves.
pub(crate) const BLOCK_OF_LANE: [u64; 16] = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];

/// A piece of work that [`dispatch`] runs on the best instruction set. Implementations mark `run`, and every generic
/// function that it calls, `#[inline(always)]`: only what is inlined is compiled for that instruction set.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self) -> Self::Output;
}

/// Defines `fn name::<S, ...>(...)` whose body is compiled once for each instruction set and called from kernels, through
/// [`Simd::call`]. Lifetimes and generics go in brackets; the body sees `S`.
macro_rules! outlined {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident[$life:lifetime $(, $g:ident: $bound:path)*](
            $($arg:ident: $type:ty),* $(,)?
        ) -> $ret:ty $body:block
    )*) => {$(
        $(#[$meta])*
        #[inline(always)]
        #[allow(clippy::too_many_arguments, reason = "the arguments of an inner loop")]
        $vis fn $name<$life, S: $crate::simd::Simd $(, $g: $bound)*>($($arg: $type),*) -> $ret {
            struct Outlined<$life $(, $g: $bound)*> {
                $($arg: $type,)*
                marker: std::marker::PhantomData<&$life ($($g,)*)>,
            }
            impl<$life $(, $g: $bound)*> $crate::simd::Kernel for Outlined<$life $(, $g)*> {
                type Output = $ret;
                #[inline(always)]
                fn run<S: $crate::simd::Simd>(self) -> $ret {
                    let Self { $($arg,)* marker: _ } = self;
                    $body
                }
            }
            S::call(Outlined::<$($g),*> { $($arg,)* marker: std::marker::PhantomData })
        }
    )*};
}
pub(crate) use outlined;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Level {
    Portable = 1,
    #[cfg(target_arch = "x86_64")]
    Avx2 = 2,
    #[cfg(target_arch = "x86_64")]
    Avx512 = 3,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2+fma",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Every level that this machine can run, best last.
    pub(crate) fn available() -> Vec<Level> {
        #[allow(
            unused_mut,
            reason = "other architectures have the portable level alone"
        )]
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if x86::has_avx2() {
                levels.push(Level::Avx2);
            }
            if x86::has_avx2() && x86::has_avx512() {
                levels.push(Level::Avx512);
            }
        }
        levels
    }
}

/// 0 until it is first asked for.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The level in use.
#[inline]
pub(crate) fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        1 => Level::Portable,
        #[cfg(target_arch = "x86_64")]
        2 => Level::Avx2,
        #[cfg(target_arch = "x86_64")]
        3 => Level::Avx512,
        _ => {
            let best = *Level::available().last().unwrap_or(&Level::Portable);
            LEVEL.store(best as u8, Ordering::Relaxed);
            best
        }
    }
}

/// Makes `level` the one in use; one that the machine lacks is refused.
pub(crate) fn force(level: Level) -> bool {
    let can = Level::available().contains(&level);
    if can {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    can
}

/// Runs a kernel on the level in use.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        Level::Portable => portable::Portable::call(kernel),
        // SAFETY: `LEVEL` only ever holds a level that `Level::available` listed, that is, one whose target features
        // this processor was seen to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::run_avx2(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::run_avx512(kernel) },
    }
}
