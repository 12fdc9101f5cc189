//! The register files of a warp and the macros that turn a scalar function into an instruction over 32 lanes.
//!
//! A register holds its 32 lanes side by side, so that an instruction is one tight loop that the compiler vectorises.
//! Values of up to 32 bits share one file (narrower ones in the low bits, zero above), 64-bit values have their own,
//! and a predicate is one mask over the lanes.

use crate::types::File;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// All lanes.
pub(crate) const FULL: u32 = u32::MAX;

/// The registers of one warp.
#[derive(Clone, Default)]
pub(crate) struct Regs {
    pub r32: Vec<[u32; LANES]>,
    pub r64: Vec<[u64; LANES]>,
    pub p: Vec<u32>,
    /// Seed of the perturbation of approximate instructions; 0 turns it off.
    pub noise: u64,
}

/// Register numbers of an instruction that touches registers only. What a field means is up to the instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Args {
    pub d: u32,
    /// Second destination: a predicate (`p|q`), or the carry flag.
    pub d2: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    /// A third predicate or a fourth source.
    pub e: u32,
    /// An immediate that selects among variants.
    pub imm: u32,
}

/// Executes an instruction over registers, for the lanes of the mask.
///
/// # Safety
/// Call it only on a machine for which [`simd`] holds; a launch on any other is refused.
pub(crate) type Run = unsafe fn(&mut Regs, &Args, u32);

/// Which fields of [`Args`] an instruction uses, and the register file of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signature {
    pub d: File,
    pub d2: Option<File>,
    pub a: Option<File>,
    pub b: Option<File>,
    pub c: Option<File>,
    pub e: Option<File>,
}

impl Signature {
    /// A destination and no source.
    pub const fn to(d: File) -> Self {
        Self {
            d,
            d2: None,
            a: None,
            b: None,
            c: None,
            e: None,
        }
    }
}

/// An instruction over registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AluFn {
    pub run: Run,
    pub sig: Signature,
}

/// Whether this machine has the extensions that instructions are compiled for (AVX2 and FMA on x86-64).
pub(crate) fn simd() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("popcnt")
        && std::arch::is_x86_feature_detected!("lzcnt");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// A value as it lies in a register.
pub(crate) trait Lane: Copy {
    const FILE: File;
    fn get(r: &Regs, i: u32) -> [Self; LANES];
    fn put(r: &mut Regs, i: u32, v: [Self; LANES], mask: u32);
}

macro_rules! lane {
    ($file:ident, $name:ident, $raw:ty; $($t:ty: $from:expr, $to:expr;)*) => {$(
        impl Lane for $t {
            const FILE: File = File::$name;
            #[inline(always)]
            fn get(r: &Regs, i: u32) -> [Self; LANES] {
                let raw = &r.$file[i as usize];
                let from: fn($raw) -> $t = $from;
                std::array::from_fn(|l| from(raw[l]))
            }
            #[inline(always)]
            fn put(r: &mut Regs, i: u32, v: [Self; LANES], mask: u32) {
                let raw = &mut r.$file[i as usize];
                let to: fn($t) -> $raw = $to;
                if mask == FULL {
                    for l in 0..LANES {
                        raw[l] = to(v[l]);
                    }
                } else {
                    for l in 0..LANES {
                        let new = to(v[l]);
                        raw[l] = if mask >> l & 1 != 0 { new } else { raw[l] };
                    }
                }
            }
        }
    )*};
}

lane! { r32, R32, u32;
    u8: |x| x as u8, u32::from;
    u16: |x| x as u16, u32::from;
    i16: |x| x as u16 as i16, |x| u32::from(x.cast_unsigned());
    u32: |x| x, |x| x;
    i32: u32::cast_signed, i32::cast_unsigned;
    f32: f32::from_bits, f32::to_bits;
    i8: |x| x as u8 as i8, |x| u32::from(x.cast_unsigned());
}

lane! { r64, R64, u64;
    u64: |x| x, |x| x;
    i64: u64::cast_signed, i64::cast_unsigned;
    f64: f64::from_bits, f64::to_bits;
}

impl Lane for bool {
    const FILE: File = File::Pred;

    #[inline(always)]
    fn get(r: &Regs, i: u32) -> [Self; LANES] {
        let mask = r.p[i as usize];
        std::array::from_fn(|l| mask >> l & 1 != 0)
    }
    #[inline(always)]
    fn put(r: &mut Regs, i: u32, v: [Self; LANES], mask: u32) {
        let mut bits = 0;
        for (l, v) in v.into_iter().enumerate() {
            bits |= u32::from(v) << l;
        }
        let p = &mut r.p[i as usize];
        *p = *p & !mask | bits & mask;
    }
}

/// A function pointer to `$body`, compiled for the extensions that [`simd`] asks for. There is no second version for
/// machines without them: hundreds of instructions would be compiled twice for processors that no one tests on.
macro_rules! dispatch {
    ($body:ident) => {{
        #[cfg_attr(
            target_arch = "x86_64",
            target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")
        )]
        fn fast(r: &mut $crate::regs::Regs, i: &$crate::regs::Args, mask: u32) {
            $body(r, i, mask);
        }
        fast as $crate::regs::Run
    }};
}

/// `op1!(u32 => u32, |x| !x)`: one source.
macro_rules! op1 {
    ($a:ty => $d:ty, |$x:ident| $e:expr) => {{
        #[inline(always)]
        fn body(r: &mut $crate::regs::Regs, i: &$crate::regs::Args, mask: u32) {
            use $crate::regs::Lane;
            #[inline(always)]
            fn f($x: $a) -> $d {
                $e
            }
            let a = <$a>::get(r, i.a);
            let v: [$d; 32] = std::array::from_fn(|l| f(a[l]));
            <$d>::put(r, i.d, v, mask);
        }
        $crate::regs::AluFn {
            run: $crate::regs::dispatch!(body),
            sig: $crate::regs::Signature {
                a: Some(<$a as $crate::regs::Lane>::FILE),
                ..$crate::regs::Signature::to(<$d as $crate::regs::Lane>::FILE)
            },
        }
    }};
}

/// `op2!(u32, u32 => u32, |x, y| x & y)`: two sources.
macro_rules! op2 {
    ($a:ty, $b:ty => $d:ty, |$x:ident, $y:ident| $e:expr) => {{
        #[inline(always)]
        fn body(r: &mut $crate::regs::Regs, i: &$crate::regs::Args, mask: u32) {
            use $crate::regs::Lane;
            #[inline(always)]
            fn f($x: $a, $y: $b) -> $d {
                $e
            }
            let a = <$a>::get(r, i.a);
            let b = <$b>::get(r, i.b);
            let v: [$d; 32] = std::array::from_fn(|l| f(a[l], b[l]));
            <$d>::put(r, i.d, v, mask);
        }
        $crate::regs::AluFn {
            run: $crate::regs::dispatch!(body),
            sig: $crate::regs::Signature {
                a: Some(<$a as $crate::regs::Lane>::FILE),
                b: Some(<$b as $crate::regs::Lane>::FILE),
                ..$crate::regs::Signature::to(<$d as $crate::regs::Lane>::FILE)
            },
        }
    }};
}

/// `op3!(f32, f32, f32 => f32, |x, y, z| x.mul_add(y, z))`: three sources.
macro_rules! op3 {
    ($a:ty, $b:ty, $c:ty => $d:ty, |$x:ident, $y:ident, $z:ident| $e:expr) => {{
        #[inline(always)]
        fn body(r: &mut $crate::regs::Regs, i: &$crate::regs::Args, mask: u32) {
            use $crate::regs::Lane;
            #[inline(always)]
            fn f($x: $a, $y: $b, $z: $c) -> $d {
                $e
            }
            let a = <$a>::get(r, i.a);
            let b = <$b>::get(r, i.b);
            let c = <$c>::get(r, i.c);
            let v: [$d; 32] = std::array::from_fn(|l| f(a[l], b[l], c[l]));
            <$d>::put(r, i.d, v, mask);
        }
        $crate::regs::AluFn {
            run: $crate::regs::dispatch!(body),
            sig: $crate::regs::Signature {
                a: Some(<$a as $crate::regs::Lane>::FILE),
                b: Some(<$b as $crate::regs::Lane>::FILE),
                c: Some(<$c as $crate::regs::Lane>::FILE),
                ..$crate::regs::Signature::to(<$d as $crate::regs::Lane>::FILE)
            },
        }
    }};
}

/// As the others, but the function also sees the immediate and the noise seed; for rare, scalar instructions.
macro_rules! slow3 {
    ($a:ty, $b:ty, $c:ty => $d:ty, |$x:ident, $y:ident, $z:ident, $imm:ident, $noise:ident| $e:expr) => {{
        #[inline(always)]
        fn body(r: &mut $crate::regs::Regs, i: &$crate::regs::Args, mask: u32) {
            use $crate::regs::Lane;
            #[inline(always)]
            fn f($x: $a, $y: $b, $z: $c, $imm: u32, $noise: u64) -> $d {
                $e
            }
            let noise = r.noise;
            let a = <$a>::get(r, i.a);
            let b = <$b>::get(r, i.b);
            let c = <$c>::get(r, i.c);
            let v: [$d; 32] = std::array::from_fn(|l| f(a[l], b[l], c[l], i.imm, noise));
            <$d>::put(r, i.d, v, mask);
        }
        $crate::regs::AluFn {
            run: $crate::regs::dispatch!(body),
            sig: $crate::regs::Signature {
                a: Some(<$a as $crate::regs::Lane>::FILE),
                b: Some(<$b as $crate::regs::Lane>::FILE),
                c: Some(<$c as $crate::regs::Lane>::FILE),
                ..$crate::regs::Signature::to(<$d as $crate::regs::Lane>::FILE)
            },
        }
    }};
}

pub(crate) use {dispatch, op1, op2, op3, slow3};
