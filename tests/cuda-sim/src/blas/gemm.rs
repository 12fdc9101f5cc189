//! `C = alpha * op(A) * op(B) + beta * C`, by the names that cuBLAS has for it.

use half::f16;

use crate::ffi::HostIn;
use crate::handles::Handle;
use crate::report;
use crate::state;

use super::handle::{Blas, known};
use super::matrix::{Element, Matrix, Real, transpose};
use super::product::product;
use super::{Result, Status, call};

/// One operand: address, element type, leading dimension, and the distance of one of a batch to the next.
#[derive(Clone, Copy)]
struct Operand {
    address: u64,
    element: Element,
    leading: i32,
    stride: i64,
}

impl Operand {
    /// The operand as a matrix, the i-th of the batch.
    fn matrix(self, rows: usize, columns: usize, index: usize) -> Matrix {
        let distance = self
            .stride
            .wrapping_mul(index as i64)
            .wrapping_mul(self.element.bytes() as i64);
        Matrix {
            address: self.address.wrapping_add_signed(distance),
            element: self.element,
            rows,
            columns,
            leading: self.leading as usize,
        }
    }
}

/// What a factor is given as.
#[derive(Clone, Copy)]
enum Compute {
    Half,
    Single,
    Double,
}

impl Compute {
    /// By cublasComputeType. The reduced precisions that some allow are not made use of.
    fn from_code(code: u32) -> Result<Self> {
        match code {
            64 | 65 => Ok(Self::Half),
            68 | 69 | 74 | 75 | 77 | 78 => Ok(Self::Single),
            70 | 71 | 79 => Ok(Self::Double),
            _ => {
                report::problem(format_args!("cuBLAS: compute type {code} is not simulated"));
                Err(Status::NotSupported)
            }
        }
    }

    fn of(element: Element) -> Self {
        match element {
            Element::F16 | Element::Bf16 => Self::Half,
            Element::F32 => Self::Single,
            Element::F64 => Self::Double,
        }
    }

    /// A factor, from host or device memory.
    fn factor(self, blas: &Blas, place: HostIn) -> Result<f64> {
        if !blas.factors_on_device() {
            return Ok(match self {
                Self::Half => f16::from_bits(place.read()?).to_f64(),
                Self::Single => f64::from(place.read::<f32>()?),
                Self::Double => place.read()?,
            });
        }
        let element = match self {
            Self::Half => Element::F16,
            Self::Single => Element::F32,
            Self::Double => Element::F64,
        };
        let single = Matrix {
            address: place.address(),
            element,
            rows: 1,
            columns: 1,
            leading: 1,
        };
        Ok(single.read::<f64>()?[0])
    }
}

/// A product as a call describes it.
struct Gemm {
    handle: Handle,
    transposed: [u32; 2],
    /// m, n and k: `op(A)` is m x k, `op(B)` is k x n.
    sizes: [i32; 3],
    compute: Compute,
    factors: [HostIn; 2],
    a: Operand,
    b: Operand,
    c: Operand,
    batch: i32,
}

fn size(value: i32) -> Result<usize> {
    usize::try_from(value).map_err(|_| Status::InvalidValue)
}

impl Gemm {
    fn run(&self) -> Result {
        let blas = known(self.handle)?;
        state::get().submit(blas.stream())?;
        let [m, n, k] = self.sizes;
        let (m, n, k) = (size(m)?, size(n)?, size(k)?);
        let turn = |code: u32| match code {
            0 => Ok(false),
            // For real numbers, the conjugate transpose is the transpose.
            1 | 2 => Ok(true),
            _ => Err(Status::InvalidValue),
        };
        let turned = [turn(self.transposed[0])?, turn(self.transposed[1])?];
        let shape = |turned: bool, rows, columns| {
            if turned {
                (columns, rows)
            } else {
                (rows, columns)
            }
        };
        let (a_shape, b_shape) = (shape(turned[0], m, k), shape(turned[1], k, n));
        for (operand, rows) in [(self.a, a_shape.0), (self.b, b_shape.0), (self.c, m)] {
            if size(operand.leading)? < rows.max(1) {
                return Err(Status::InvalidValue);
            }
        }
        self.check_types()?;
        let alpha = self.compute.factor(&blas, self.factors[0])?;
        let beta = self.compute.factor(&blas, self.factors[1])?;
        for index in 0..size(self.batch)? {
            let a = self.a.matrix(a_shape.0, a_shape.1, index);
            let b = self.b.matrix(b_shape.0, b_shape.1, index);
            let c = self.c.matrix(m, n, index);
            match self.compute {
                Compute::Double => one(alpha, beta, a, b, c, turned)?,
                Compute::Half | Compute::Single => one(alpha as f32, beta as f32, a, b, c, turned)?,
            }
        }
        Ok(())
    }

    /// The combinations that cuBLAS has. A is of B's type; half-precision sums are of half-precision matrices.
    fn check_types(&self) -> Result {
        let (a, b, c) = (self.a.element, self.b.element, self.c.element);
        let known = a == b
            && match self.compute {
                Compute::Double => a == Element::F64 && c == Element::F64,
                Compute::Half => a == Element::F16 && c == Element::F16,
                Compute::Single => a != Element::F64 && (c == a || c == Element::F32),
            };
        if !known {
            report::problem(format_args!(
                "cuBLAS: no product of {a:?} and {b:?} into {c:?} with this compute type"
            ));
            return Err(Status::NotSupported);
        }
        Ok(())
    }
}

/// One product of a batch.
fn one<T: Real>(alpha: T, beta: T, a: Matrix, b: Matrix, c: Matrix, turned: [bool; 2]) -> Result {
    if c.rows == 0 || c.columns == 0 {
        return Ok(());
    }
    let k = if turned[0] { a.rows } else { a.columns };
    // As BLAS has it: with a factor of zero, its matrices are not read, and may hold anything.
    let mut result = if alpha == T::ZERO {
        vec![T::ZERO; c.rows * c.columns]
    } else {
        let operand = |matrix: Matrix, turned: bool| -> Result<Vec<T>> {
            let values = matrix.read()?;
            Ok(if turned {
                transpose(&values, matrix.rows, matrix.columns)
            } else {
                values
            })
        };
        product(
            &operand(a, turned[0])?,
            &operand(b, turned[1])?,
            c.rows,
            c.columns,
            k,
        )
    };
    if alpha != T::ONE {
        result.iter_mut().for_each(|value| *value = *value * alpha);
    }
    if beta != T::ZERO {
        for (value, before) in result.iter_mut().zip(c.read::<T>()?) {
            *value += before * beta;
        }
    }
    c.write(&result)
}

/// A batch of products of matrices of any of the types.
///
/// # Safety
/// `alpha` and `beta` are null or valid for a read of the compute type, on the host or, with the device pointer mode, on
/// the device. Device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: Handle,
    transpose_a: u32,
    transpose_b: u32,
    m: i32,
    n: i32,
    k: i32,
    alpha: HostIn,
    a: u64,
    a_type: u32,
    a_leading: i32,
    a_stride: i64,
    b: u64,
    b_type: u32,
    b_leading: i32,
    b_stride: i64,
    beta: HostIn,
    c: u64,
    c_type: u32,
    c_leading: i32,
    c_stride: i64,
    batch: i32,
    compute: u32,
    _algorithm: i32,
) -> u32 {
    call("cublasGemmStridedBatchedEx", || {
        let operand = |address, code, leading, stride| -> Result<Operand> {
            Ok(Operand {
                address,
                element: Element::from_code(code)?,
                leading,
                stride,
            })
        };
        let gemm = Gemm {
            handle,
            transposed: [transpose_a, transpose_b],
            sizes: [m, n, k],
            compute: Compute::from_code(compute)?,
            factors: [alpha, beta],
            a: operand(a, a_type, a_leading, a_stride)?,
            b: operand(b, b_type, b_leading, b_stride)?,
            c: operand(c, c_type, c_leading, c_stride)?,
            batch,
        };
        gemm.run()
    })
}

/// A product of matrices of any of the types.
///
/// # Safety
/// As for [`cublasGemmStridedBatchedEx`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmEx(
    handle: Handle,
    transpose_a: u32,
    transpose_b: u32,
    m: i32,
    n: i32,
    k: i32,
    alpha: HostIn,
    a: u64,
    a_type: u32,
    a_leading: i32,
    b: u64,
    b_type: u32,
    b_leading: i32,
    beta: HostIn,
    c: u64,
    c_type: u32,
    c_leading: i32,
    compute: u32,
    _algorithm: i32,
) -> u32 {
    call("cublasGemmEx", || {
        let operand = |address, code, leading| -> Result<Operand> {
            Ok(Operand {
                address,
                element: Element::from_code(code)?,
                leading,
                stride: 0,
            })
        };
        let gemm = Gemm {
            handle,
            transposed: [transpose_a, transpose_b],
            sizes: [m, n, k],
            compute: Compute::from_code(compute)?,
            factors: [alpha, beta],
            a: operand(a, a_type, a_leading)?,
            b: operand(b, b_type, b_leading)?,
            c: operand(c, c_type, c_leading)?,
            batch: 1,
        };
        gemm.run()
    })
}

/// Generates the calls for one element type: the plain product, and the batch.
macro_rules! export_products {
    ($($single:ident, $batched:ident, $element:expr, $name:literal;)*) => {$(
        #[doc = concat!("A product of matrices of ", $name, ".")]
        ///
        /// # Safety
        /// As for [`cublasGemmStridedBatchedEx`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $single(
            handle: Handle,
            transpose_a: u32,
            transpose_b: u32,
            m: i32,
            n: i32,
            k: i32,
            alpha: HostIn,
            a: u64,
            a_leading: i32,
            b: u64,
            b_leading: i32,
            beta: HostIn,
            c: u64,
            c_leading: i32,
        ) -> u32 {
            call(stringify!($single), || {
                let operand = |address, leading| Operand { address, element: $element, leading, stride: 0 };
                let gemm = Gemm {
                    handle,
                    transposed: [transpose_a, transpose_b],
                    sizes: [m, n, k],
                    compute: Compute::of($element),
                    factors: [alpha, beta],
                    a: operand(a, a_leading),
                    b: operand(b, b_leading),
                    c: operand(c, c_leading),
                    batch: 1,
                };
                gemm.run()
            })
        }

        #[doc = concat!("A batch of products of matrices of ", $name, ".")]
        ///
        /// # Safety
        /// As for [`cublasGemmStridedBatchedEx`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $batched(
            handle: Handle,
            transpose_a: u32,
            transpose_b: u32,
            m: i32,
            n: i32,
            k: i32,
            alpha: HostIn,
            a: u64,
            a_leading: i32,
            a_stride: i64,
            b: u64,
            b_leading: i32,
            b_stride: i64,
            beta: HostIn,
            c: u64,
            c_leading: i32,
            c_stride: i64,
            batch: i32,
        ) -> u32 {
            call(stringify!($batched), || {
                let operand =
                    |address, leading, stride| Operand { address, element: $element, leading, stride };
                let gemm = Gemm {
                    handle,
                    transposed: [transpose_a, transpose_b],
                    sizes: [m, n, k],
                    compute: Compute::of($element),
                    factors: [alpha, beta],
                    a: operand(a, a_leading, a_stride),
                    b: operand(b, b_leading, b_stride),
                    c: operand(c, c_leading, c_stride),
                    batch,
                };
                gemm.run()
            })
        }
    )*};
}

export_products! {
    cublasSgemm_v2, cublasSgemmStridedBatched, Element::F32, "f32";
    cublasDgemm_v2, cublasDgemmStridedBatched, Element::F64, "f64";
    cublasHgemm, cublasHgemmStridedBatched, Element::F16, "f16";
}
