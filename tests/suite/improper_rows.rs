//! `improper_rows`.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{improper_rows, tempered_softmax};

use crate::support::data::{self, FLOATS};
use crate::support::devices::devices;
use crate::support::oracle::Rows;
use crate::support::{layouts, refused};

fn flags(x: &Tensor, dim: usize) -> Vec<u8> {
    let got = improper_rows(x, dim).unwrap();
    let mut dims = x.dims().to_vec();
    dims.remove(dim);
    assert_eq!((got.dims(), got.dtype()), (&dims[..], DType::U8));
    got.flatten_all().unwrap().to_vec1().unwrap()
}

/// From the definition, in plain Rust.
fn expected(x: &Tensor, dim: usize) -> Vec<u8> {
    let (values, rows) = (data::values(x), Rows::of(x, dim));
    let improper = |row: Vec<f64>| {
        row.iter().any(|z| z.is_nan() || *z == f64::INFINITY)
            || row.iter().all(|z| *z == f64::NEG_INFINITY)
    };
    (0..rows.count())
        .map(|r| improper(rows.row(&values, r)).into())
        .collect()
}

/// Normals with a share of masks, and now and then NaN or +inf.
fn sprinkled(shape: &[usize], dtype: DType, device: &Device) -> Tensor {
    let n = shape.iter().product();
    let mut rng = data::SplitMix(n as u64);
    let v: Vec<f64> = (0..n)
        .map(|_| match rng.next() % 97 {
            0..60 => f64::NEG_INFINITY,
            60 => f64::NAN,
            61 => f64::INFINITY,
            _ => rng.normal(),
        })
        .collect();
    data::tensor(&v, shape, dtype, device)
}

#[test]
fn rows_are_as_the_definition_says_for_every_dim_dtype_and_layout() {
    let mut seen = [0; 2];
    for device in devices() {
        for shape in [
            &[200, 3][..],
            &[300, 5],
            &[9, 20, 11],
            &[3, 5000],
            &[2, 4097, 2],
            &[1, 1],
        ] {
            for dtype in FLOATS {
                let x = sprinkled(shape, dtype, &device);
                for (name, view) in layouts::variants(&x) {
                    for dim in 0..shape.len() {
                        let want = expected(&view, dim);
                        assert_eq!(flags(&view, dim), want, "{shape:?} {dtype:?} {name} {dim}");
                        want.iter().for_each(|f| seen[usize::from(*f)] += 1);
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 1000), "{seen:?}");
}

#[test]
fn it_names_the_rows_that_the_relaxed_ops_make_nan() {
    let x = sprinkled(&[400, 4], DType::F32, &Device::Cpu);
    let y = data::values(&tempered_softmax(&x, 1.0, 1).unwrap());
    for (flag, row) in flags(&x, 1).into_iter().zip(y.chunks(4)) {
        assert_eq!(flag == 1, row.iter().any(|y| y.is_nan()));
    }
}

#[test]
fn the_largest_and_the_lowest_numbers_are_proper() {
    for dtype in FLOATS {
        let (low, high) = if dtype == DType::F16 {
            (-65504.0, 65504.0)
        } else {
            (-3e38, 3e38)
        };
        let x = data::tensor(
            &[low, low, high, f64::NEG_INFINITY],
            (2, 2),
            dtype,
            &Device::Cpu,
        );
        assert_eq!(flags(&x, 1), [0, 0], "{dtype:?}");
    }
}

#[test]
fn bad_input_is_refused() {
    let op = "improper_rows";
    let x = Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap();
    refused(improper_rows(&x, 1), op, &["dim 1", "[2, 0]"]);
    assert_eq!(improper_rows(&x, 0).unwrap().dims(), [0]);
    refused(improper_rows(&x, 2), op, &["dim"]);
    let x = Tensor::zeros((2, 2), DType::U32, &Device::Cpu).unwrap();
    refused(improper_rows(&x, 1), op, &["U32"]);
}
