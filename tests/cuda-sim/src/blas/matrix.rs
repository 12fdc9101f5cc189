//! Matrices in device memory, by columns, and their way into the types that products are computed in.

use half::{bf16, f16};

use crate::report;
use crate::sim::{self, Fault};
use crate::state;

use super::{Result, Status};

/// The element types that products are computed of, by cudaDataType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    pub fn from_code(code: u32) -> Result<Self> {
        match code {
            0 => Ok(Self::F32),
            1 => Ok(Self::F64),
            2 => Ok(Self::F16),
            14 => Ok(Self::Bf16),
            _ => {
                report::problem(format_args!(
                    "cuBLAS: products of cudaDataType {code} are not simulated"
                ));
                Err(Status::NotSupported)
            }
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// A type that products are computed in.
pub trait Real:
    Copy + Send + Sync + PartialEq + std::ops::Mul<Output = Self> + std::ops::AddAssign + 'static
{
    const ZERO: Self;
    const ONE: Self;

    /// Appends elements as they lie in memory.
    fn decode(element: Element, bytes: &[u8], values: &mut Vec<Self>);

    /// Rounds elements to their type in memory, once.
    fn encode(element: Element, values: &[Self], bytes: &mut Vec<u8>);
}

/// Appends the values of elements in memory.
fn read<T, const N: usize>(bytes: &[u8], values: &mut Vec<T>, value: impl Fn([u8; N]) -> T) {
    values.extend(bytes.as_chunks().0.iter().copied().map(value));
}

/// Appends elements in memory of values.
fn write<T: Copy, const N: usize>(
    values: &[T],
    bytes: &mut Vec<u8>,
    element: impl Fn(T) -> [u8; N],
) {
    bytes.extend(values.iter().copied().flat_map(element));
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn decode(element: Element, bytes: &[u8], values: &mut Vec<Self>) {
        match element {
            Element::F16 => read(bytes, values, |b| f16::from_ne_bytes(b).to_f32()),
            Element::Bf16 => read(bytes, values, |b| bf16::from_ne_bytes(b).to_f32()),
            Element::F32 => read(bytes, values, Self::from_ne_bytes),
            Element::F64 => read(bytes, values, |b| f64::from_ne_bytes(b) as Self),
        }
    }

    fn encode(element: Element, values: &[Self], bytes: &mut Vec<u8>) {
        match element {
            Element::F16 => write(values, bytes, |v| f16::from_f32(v).to_ne_bytes()),
            Element::Bf16 => write(values, bytes, |v| bf16::from_f32(v).to_ne_bytes()),
            Element::F32 => write(values, bytes, Self::to_ne_bytes),
            Element::F64 => write(values, bytes, |v| f64::from(v).to_ne_bytes()),
        }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn decode(element: Element, bytes: &[u8], values: &mut Vec<Self>) {
        match element {
            Element::F16 => read(bytes, values, |b| f16::from_ne_bytes(b).to_f64()),
            Element::Bf16 => read(bytes, values, |b| bf16::from_ne_bytes(b).to_f64()),
            Element::F32 => read(bytes, values, |b| Self::from(f32::from_ne_bytes(b))),
            Element::F64 => read(bytes, values, Self::from_ne_bytes),
        }
    }

    fn encode(element: Element, values: &[Self], bytes: &mut Vec<u8>) {
        match element {
            Element::F16 => write(values, bytes, |v| f16::from_f64(v).to_ne_bytes()),
            Element::Bf16 => write(values, bytes, |v| bf16::from_f64(v).to_ne_bytes()),
            Element::F32 => write(values, bytes, |v| (v as f32).to_ne_bytes()),
            Element::F64 => write(values, bytes, Self::to_ne_bytes),
        }
    }
}

/// A matrix in device memory: columns of `rows` elements, each `leading` elements after the last.
#[derive(Clone, Copy)]
pub struct Matrix {
    pub address: u64,
    pub element: Element,
    pub rows: usize,
    pub columns: usize,
    pub leading: usize,
}

/// A fault in a product: on a device, one of a kernel.
fn execution(fault: Fault) -> Status {
    sim::fault_in_kernel("cuBLAS matrix product", &fault);
    Status::ExecutionFailed
}

impl Matrix {
    /// Calls with the address of each stretch of memory that the matrix fills, and the length of all.
    fn stretches(&self, mut visit: impl FnMut(usize, u64, usize) -> Result) -> Result {
        let column = self.rows * self.element.bytes();
        if self.rows == 0 || self.columns == 0 {
            return Ok(());
        }
        if self.leading == self.rows {
            return visit(0, self.address, column * self.columns);
        }
        let step = (self.leading * self.element.bytes()) as u64;
        (0..self.columns)
            .try_for_each(|j| visit(j * column, self.address + j as u64 * step, column))
    }

    /// The elements, column by column, without gaps.
    pub fn read<T: Real>(&self) -> Result<Vec<T>> {
        let mut bytes = vec![0; self.rows * self.columns * self.element.bytes()];
        self.stretches(|place, address, length| {
            let target = &mut bytes[place..place + length];
            state::get().memory.read(address, target).map_err(execution)
        })?;
        let mut values = Vec::with_capacity(self.rows * self.columns);
        T::decode(self.element, &bytes, &mut values);
        Ok(values)
    }

    /// Writes the elements, given column by column without gaps; what lies between the columns stays.
    pub fn write<T: Real>(&self, values: &[T]) -> Result {
        let mut bytes = Vec::with_capacity(values.len() * self.element.bytes());
        T::encode(self.element, values, &mut bytes);
        self.stretches(|place, address, length| {
            let source = &bytes[place..place + length];
            state::get()
                .memory
                .write(address, source)
                .map_err(execution)
        })
    }
}

/// The rows of a matrix as columns.
pub fn transpose<T: Real>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    /// Square pieces that stay in the cache while they are turned.
    const PIECE: usize = 32;

    let mut turned = vec![T::ZERO; values.len()];
    for first_column in (0..columns).step_by(PIECE) {
        for first_row in (0..rows).step_by(PIECE) {
            for j in first_column..columns.min(first_column + PIECE) {
                for i in first_row..rows.min(first_row + PIECE) {
                    turned[i * columns + j] = values[j * rows + i];
                }
            }
        }
    }
    turned
}
