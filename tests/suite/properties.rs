//! Random shapes, dims, temperatures and dtypes.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{Key, categorical, gaussian, gaussian_kl, gumbel_max, gumbel_softmax, normal};
use proptest::prelude::*;

use crate::support::data::{self, FLOATS};
use crate::support::layouts;
use crate::support::oracle::{self, Rows};
use crate::support::relaxed::{GradientCase, Op, check_forward, check_gradients};

/// A shape of rank 1 to 6 with at most a few thousand elements, and one of its dims.
fn shape_and_dim() -> impl Strategy<Value = (Vec<usize>, usize)> {
    let sizes = prop_oneof![3 => 1..6_usize, 2 => 6..20_usize, 1 => 20..70_usize];
    prop::collection::vec(sizes, 1..=6)
        .prop_map(|mut shape| {
            while shape.iter().product::<usize>() > 6000 {
                let largest = shape
                    .iter()
                    .copied()
                    .enumerate()
                    .max_by_key(|(_, n)| *n)
                    .map_or(0, |(i, _)| i);
                shape[largest] = shape[largest].div_ceil(2);
            }
            shape
        })
        .prop_flat_map(|shape| {
            let rank = shape.len();
            (Just(shape), 0..rank)
        })
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(&FLOATS[..])
}

fn tau() -> impl Strategy<Value = f64> {
    (-4.0..4.0_f64).prop_map(|e| 10.0_f64.powf(e))
}

fn key() -> impl Strategy<Value = Key> {
    (any::<u64>(), 0..1_u64 << 63).prop_map(|(seed, stream)| Key::new(seed, stream))
}

fn base(dtype: DType) -> f64 {
    if dtype == DType::F64 { 2e-14 } else { 2e-6 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn identity((shape, dim) in shape_and_dim(), dtype in dtype(), tau in tau(), scale in 0.0..8.0_f64, seed: u64, key in key()) {
        let x = data::random(&shape[..], seed, scale, dtype, &Device::Cpu);
        for op in [Op::Tempered, Op::TemperedLog, Op::Gumbel] {
            check_forward(op, &x, tau, dim, key, base(dtype));
        }
    }

    #[test]
    fn rows_sum_to_one((shape, dim) in shape_and_dim(), tau in tau(), seed: u64, key in key()) {
        let x = data::random(&shape[..], seed, 3.0, DType::F32, &Device::Cpu);
        let y = data::values(&gumbel_softmax(&x, tau, dim, key).unwrap());
        let rows = Rows::of(&x, dim);
        for row in 0..rows.count() {
            let y = rows.row(&y, row);
            prop_assert!(y.iter().all(|y| (0.0..=1.0).contains(y)));
            prop_assert!((oracle::sum(y) - 1.0).abs() < 4e-6);
        }
    }

    #[test]
    fn indices_are_the_arg_max_and_in_range((shape, dim) in shape_and_dim(), dtype in dtype(), seed: u64, key in key()) {
        let x = data::random(&shape[..], seed, 2.0, dtype, &Device::Cpu);
        let rows = Rows::of(&x, dim);
        let scores = data::values(&Op::Gumbel.perturbed(&x, key));
        let want: Vec<usize> = (0..rows.count()).map(|r| oracle::argmax(&rows.row(&scores, r))).collect();
        prop_assert_eq!(data::indices(&gumbel_max(&x, dim, key).unwrap()), want);
        let drawn = data::indices(&categorical(&x, dim, key).unwrap());
        prop_assert_eq!(drawn.len(), rows.count());
        prop_assert!(drawn.iter().all(|i| *i < rows.len));
    }

    #[test]
    fn a_layout_changes_no_bit((shape, dim) in shape_and_dim(), dtype in dtype(), pick: prop::sample::Index, seed: u64, key in key()) {
        let x = data::random(&shape[..], seed, 2.0, dtype, &Device::Cpu);
        let variants = layouts::variants(&x);
        let (name, view) = &variants[pick.index(variants.len())];
        let copy = view.force_contiguous().unwrap();
        for op in Op::ALL {
            let (a, b) = (op.apply(view, 0.7, dim, key).unwrap(), op.apply(&copy, 0.7, dim, key).unwrap());
            data::assert_same(&a, &b, || format!("{:?} {}", op, name));
        }
        type Index = fn(&Tensor, usize, Key) -> candle_core::Result<Tensor>;
        let indices: [Index; 2] = [|x, d, k| gumbel_max(x, d, k), |x, d, k| categorical(x, d, k)];
        for f in indices {
            prop_assert_eq!(data::indices(&f(view, dim, key).unwrap()), data::indices(&f(&copy, dim, key).unwrap()), "{}", name);
        }
        let (a, b) = (gaussian(view, &x, key).unwrap(), gaussian(&copy, &x, key).unwrap());
        data::assert_same(&a, &b, || name.clone());
        let (a, b) = (gaussian_kl(&x, view, dim).unwrap(), gaussian_kl(&x, &copy, dim).unwrap());
        data::assert_same(&a, &b, || name.clone());
    }

    #[test]
    fn gradients_in_double_precision((shape, dim) in shape_and_dim(), tau in 0.3..3.0_f64, op in prop::sample::select(&Op::ALL[..]), seed: u64, key in key()) {
        // a row of one class has no gradient: the checker would refuse the case
        prop_assume!(shape[dim] > 1);
        check_gradients(&GradientCase {
            op,
            x: &data::random(&shape[..], seed, 1.0, DType::F64, &Device::Cpu),
            tau: &data::tensor(&[tau], (), DType::F64, &Device::Cpu),
            dim,
            key,
            tolerance: 1e-12,
            central: false,
        });
    }

    #[test]
    fn noise_of_a_mean_of_zero((shape, _) in shape_and_dim(), key in key()) {
        let zero = Tensor::zeros(&shape[..], DType::F64, &Device::Cpu).unwrap();
        let z = gaussian(&zero, &zero, key).unwrap();
        let eps = normal(&shape[..], DType::F64, &Device::Cpu, key).unwrap();
        prop_assert_eq!(data::values(&z), data::values(&eps));
    }
}
