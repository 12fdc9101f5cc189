//! Inputs from a generator of the tests' own (SplitMix64), and the plumbing between tensors and vectors.

use candle_core::{DType, Device, Shape, Tensor};
use half::{bf16, f16};

pub const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64)
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Normals times `scale`.
pub fn normals(n: usize, seed: u64, scale: f64) -> Vec<f64> {
    let mut rng = SplitMix(seed.wrapping_mul(0x1234_5678_9ABC_DEF1));
    (0..n).map(|_| rng.normal() * scale).collect()
}

pub fn tensor(values: &[f64], shape: impl Into<Shape>, dtype: DType, device: &Device) -> Tensor {
    Tensor::from_slice(values, shape.into(), &Device::Cpu)
        .and_then(|t| t.to_dtype(dtype))
        .and_then(|t| t.to_device(device))
        .unwrap()
}

/// Normal values times `scale`, rounded to `dtype`.
pub fn random(
    shape: impl Into<Shape>,
    seed: u64,
    scale: f64,
    dtype: DType,
    device: &Device,
) -> Tensor {
    let shape = shape.into();
    tensor(
        &normals(shape.elem_count(), seed, scale),
        shape,
        dtype,
        device,
    )
}

/// Elements in logical row-major order, widened (exactly) to f64.
pub fn values(t: &Tensor) -> Vec<f64> {
    let flat = t
        .flatten_all()
        .and_then(|t| t.to_device(&Device::Cpu))
        .unwrap();
    match t.dtype() {
        DType::F64 => flat.to_vec1().unwrap(),
        DType::F32 => widen(&flat.to_vec1::<f32>().unwrap()),
        DType::F16 => widen(&flat.to_vec1::<f16>().unwrap()),
        DType::BF16 => widen(&flat.to_vec1::<bf16>().unwrap()),
        DType::U32 => widen(&flat.to_vec1::<u32>().unwrap()),
        DType::U8 => widen(&flat.to_vec1::<u8>().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn widen<T: Copy + Into<f64>>(v: &[T]) -> Vec<f64> {
    v.iter().map(|x| (*x).into()).collect()
}

/// Bit patterns in logical row-major order: equality here is equality of every bit, NaN and sign of zero included.
pub fn bits(t: &Tensor) -> Vec<u64> {
    let flat = t
        .flatten_all()
        .and_then(|t| t.to_device(&Device::Cpu))
        .unwrap();
    match t.dtype() {
        DType::F64 => flat
            .to_vec1::<f64>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits())
            .collect(),
        DType::F32 => flat
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits().into())
            .collect(),
        DType::F16 => flat
            .to_vec1::<f16>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits().into())
            .collect(),
        DType::BF16 => flat
            .to_vec1::<bf16>()
            .unwrap()
            .iter()
            .map(|x| x.to_bits().into())
            .collect(),
        DType::U32 => flat
            .to_vec1::<u32>()
            .unwrap()
            .iter()
            .map(|x| (*x).into())
            .collect(),
        DType::U8 => flat
            .to_vec1::<u8>()
            .unwrap()
            .iter()
            .map(|x| (*x).into())
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// Fails at the first element whose bits differ, without printing the tensors.
#[track_caller]
pub fn assert_same(got: &Tensor, want: &Tensor, label: impl FnOnce() -> String) {
    assert_eq!((got.dims(), got.dtype()), (want.dims(), want.dtype()));
    let (a, b) = (bits(got), bits(want));
    if let Some(i) = a.iter().zip(&b).position(|(a, b)| a != b) {
        let (a, b) = (values(got)[i], values(want)[i]);
        panic!(
            "{}: element {i} of {:?}: {a:e}, not {b:e}",
            label(),
            got.dims()
        );
    }
}

pub fn indices(t: &Tensor) -> Vec<usize> {
    assert_eq!(t.dtype(), DType::U32);
    let flat = t
        .flatten_all()
        .and_then(|t| t.to_device(&Device::Cpu))
        .unwrap();
    flat.to_vec1::<u32>()
        .unwrap()
        .iter()
        .map(|i| *i as usize)
        .collect()
}

/// Half a unit in the last place of `dtype` at `value`, subnormals included: what one rounding may cost.
pub fn half_ulp(dtype: DType, value: f64) -> f64 {
    let (digits, min_exponent) = match dtype {
        DType::F64 => (53, -1022),
        DType::F32 => (24, -126),
        DType::F16 => (11, -14),
        DType::BF16 => (8, -126),
        other => panic!("{other:?}"),
    };
    let exponent = if value == 0.0 {
        min_exponent
    } else {
        (value.abs().log2().floor() as i32).max(min_exponent)
    };
    2.0_f64.powi(exponent - digits)
}

/// The dtype in which the crate computes for `dtype`: halves in f32.
pub fn compute(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}
