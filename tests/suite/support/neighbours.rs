//! The floating-point numbers next to a number, and at the ends of a dtype.

use candle_core::DType;
use half::{bf16, f16};

/// The next number of `dtype` above or below one of its numbers.
pub fn next(dtype: DType, x: f64, up: bool) -> f64 {
    // the bits of a 16-bit number in the order of the numbers
    fn step(bits: u16, up: bool) -> u16 {
        match (bits, up) {
            (0x0000 | 0x8000, true) => 0x0001,
            (0x0000 | 0x8000, false) => 0x8001,
            (bits, up) if (bits & 0x8000 == 0) == up => bits + 1,
            (bits, _) => bits - 1,
        }
    }
    match (dtype, up) {
        (DType::F64, true) => x.next_up(),
        (DType::F64, false) => x.next_down(),
        (DType::F32, true) => (x as f32).next_up().into(),
        (DType::F32, false) => (x as f32).next_down().into(),
        (DType::F16, up) => f16::from_bits(step(f16::from_f64(x).to_bits(), up)).to_f64(),
        (DType::BF16, up) => bf16::from_bits(step(bf16::from_f64(x).to_bits(), up)).to_f64(),
        other => panic!("{other:?}"),
    }
}

/// A number, those on its two sides, and the next but one.
pub fn around(dtype: DType, x: f64) -> Vec<f64> {
    let (up, down) = (next(dtype, x, true), next(dtype, x, false));
    vec![x, up, next(dtype, up, true), down, next(dtype, down, false)]
}

/// Zeros, infinities, NaN, the smallest and the largest numbers.
pub fn specials(dtype: DType) -> Vec<f64> {
    let tiny = next(dtype, 0.0, true);
    let (normal, largest) = match dtype {
        DType::F64 => (f64::MIN_POSITIVE, f64::MAX),
        DType::F32 => (f32::MIN_POSITIVE.into(), f32::MAX.into()),
        DType::F16 => (f16::MIN_POSITIVE.to_f64(), f16::MAX.to_f64()),
        _ => (bf16::MIN_POSITIVE.to_f64(), bf16::MAX.to_f64()),
    };
    let mut all = vec![0.0, -0.0, f64::NAN];
    for x in [f64::INFINITY, tiny, 5.0 * tiny, normal, largest, 0.5, 1e4] {
        all.extend([x, -x]);
    }
    all.into_iter()
        .map(|x| {
            if dtype == DType::BF16 {
                bf16::from_f64(x).to_f64()
            } else {
                x
            }
        })
        .collect()
}

#[test]
fn neighbours_are_next_to_each_other() {
    for (dtype, gap) in [
        (DType::F64, f64::EPSILON),
        (DType::F32, f32::EPSILON.into()),
        (DType::F16, 2f64.powi(-10)),
        (DType::BF16, 2f64.powi(-7)),
    ] {
        assert_eq!(
            around(dtype, 1.0),
            [1.0, 1.0 + gap, 1.0 + 2.0 * gap, 1.0 - gap / 2.0, 1.0 - gap]
        );
        assert_eq!(next(dtype, -1.0, true), -1.0 + gap / 2.0);
        assert!(
            next(dtype, -0.0, false) < 0.0 && next(dtype, next(dtype, 0.0, true), false) == 0.0
        );
    }
}
