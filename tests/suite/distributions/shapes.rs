//! Batch, event and sample shapes, as `torch.distributions` has them.

use candle_core::{DType, Device, Tensor};
use candle_reparam::Key;
use candle_reparam::distributions::{
    Bernoulli, Categorical, Distribution, ExpRelaxedOneHotCategorical, Gumbel, KlDivergence,
    Logistic, LogitRelaxedBernoulli, Normal, OneHotCategorical, RelaxedBernoulli,
    RelaxedOneHotCategorical,
};

use crate::support::data::{self, FLOATS};
use crate::support::layouts;

const KEY: Key = Key::new(1, 2);

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

/// Every distribution over a batch of this shape, those over classes with a last dim of 4.
fn all(batch: &[usize], dtype: DType) -> Vec<Box<dyn Distribution>> {
    let zero = zeros(batch, dtype);
    let one = zero.exp().unwrap();
    let classes = zeros(&[batch, &[4]].concat(), dtype);
    vec![
        Box::new(Normal::new(&zero, &one).unwrap()),
        Box::new(Normal::from_log_var(&zero, &zero).unwrap()),
        Box::new(Gumbel::new(&zero, &one).unwrap()),
        Box::new(Logistic::new(&zero, &one).unwrap()),
        Box::new(Bernoulli::from_logits(&zero).unwrap()),
        Box::new(RelaxedBernoulli::from_logits(&zero, 1.0).unwrap()),
        Box::new(
            LogitRelaxedBernoulli::from_logits(&zero, zeros(&[], dtype).exp().unwrap()).unwrap(),
        ),
        Box::new(Categorical::from_logits(&classes).unwrap()),
        Box::new(OneHotCategorical::from_logits(&classes).unwrap()),
        Box::new(RelaxedOneHotCategorical::new(&classes, 1.0).unwrap()),
        Box::new(
            ExpRelaxedOneHotCategorical::new(&classes, zeros(&[1], dtype).exp().unwrap()).unwrap(),
        ),
    ]
}

#[test]
fn samples_and_densities_have_their_shapes_and_dtypes() {
    for dtype in FLOATS {
        for batch in [&[][..], &[3], &[2, 3], &[0], &[2, 0, 3]] {
            for p in all(batch, dtype) {
                let event: &[usize] = match p.name() {
                    "OneHotCategorical" | "RelaxedOneHotCategorical" => &[4],
                    "ExpRelaxedOneHotCategorical" => &[4],
                    _ => &[],
                };
                assert_eq!(
                    (p.batch_shape(), p.event_shape()),
                    (batch, event),
                    "{}",
                    p.name()
                );
                assert_eq!(p.dtype(), dtype);
                assert!(p.device().is_cpu());
                let of_values = if p.name() == "Categorical" {
                    DType::U32
                } else {
                    dtype
                };
                for sample in [&[][..], &[5], &[5, 2], &[0]] {
                    let x = p.draw(sample, KEY.into()).unwrap();
                    let dims = [sample, batch].concat();
                    assert_eq!(x.dims(), [&dims[..], event].concat(), "{}", p.name());
                    assert_eq!(x.dtype(), of_values, "{}", p.name());
                    let l = p.log_prob(&x).unwrap();
                    assert_eq!((l.dims(), l.dtype()), (&dims[..], dtype), "{}", p.name());
                }
                for (what, result) in [
                    ("entropy", p.entropy()),
                    ("mean", p.mean()),
                    ("variance", p.variance()),
                    ("mode", p.mode()),
                ] {
                    match result {
                        Ok(t) if what == "entropy" => assert_eq!(t.dims(), batch),
                        Ok(t) => {
                            assert_eq!(t.dims(), [batch, event].concat(), "{what} {}", p.name());
                        }
                        Err(error) => {
                            let error = error.to_string();
                            assert!(error.contains(p.name()) && error.contains(what), "{error}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn parameters_broadcast_to_the_batch_and_values_with_it() {
    let p = Normal::new(
        &zeros(&[4, 1], DType::F32),
        &zeros(&[3], DType::F32).exp().unwrap(),
    )
    .unwrap();
    assert_eq!(p.batch_shape(), [4, 3]);
    for (value, want) in [
        (&[][..], &[4, 3][..]),
        (&[3], &[4, 3]),
        (&[4, 1], &[4, 3]),
        (&[7, 1, 3], &[7, 4, 3]),
        (&[7, 4, 3], &[7, 4, 3]),
    ] {
        assert_eq!(p.log_prob(&zeros(value, DType::F32)).unwrap().dims(), want);
    }
    assert!(p.log_prob(&zeros(&[2], DType::F32)).is_err());
    let classes = OneHotCategorical::from_logits(&zeros(&[2, 4], DType::F32)).unwrap();
    let hot = classes.sample_n(5, KEY).unwrap();
    assert_eq!(classes.log_prob(&hot).unwrap().dims(), [5, 2]);
    assert_eq!(
        classes
            .log_prob(&hot.narrow(1, 0, 1).unwrap())
            .unwrap()
            .dims(),
        [5, 2]
    );
    // a value that ends in no event, though it would broadcast
    assert!(classes.log_prob(&zeros(&[5, 2, 1], DType::F32)).is_err());
    assert!(classes.log_prob(&zeros(&[], DType::F32)).is_err());
}

#[test]
fn an_expanded_distribution_is_the_same_in_every_place() {
    let dims = [5, 2, 3];
    for p in [0, 1] {
        let a = data::random((2, 1), 1, 1.0, DType::F64, &Device::Cpu);
        let b = data::random((1, 3), 2, 0.3, DType::F64, &Device::Cpu)
            .exp()
            .unwrap();
        let p = if p == 0 {
            Normal::new(&a, &b).unwrap()
        } else {
            Normal::from_log_var(&a, &b).unwrap()
        };
        let wide = p.expand((5, 2, 3)).unwrap();
        assert_eq!(wide.batch_shape(), dims);
        let x = p.sample_n(5, KEY).unwrap();
        data::assert_same(&wide.sample(KEY).unwrap(), &x, || "sample".into());
        data::assert_same(
            &wide.log_prob(&x).unwrap(),
            &p.log_prob(&x).unwrap(),
            || "log_prob".into(),
        );
        assert!(p.expand((5, 3, 3)).is_err());
        assert!(p.expand(3).is_err());
    }
    let tau = data::tensor(&[0.5, 2.0], (2, 1), DType::F64, &Device::Cpu);
    let classes = data::random((2, 4), 3, 1.0, DType::F64, &Device::Cpu);
    let p = RelaxedOneHotCategorical::new(&classes, &tau).unwrap();
    let wide = p.expand((5, 2)).unwrap();
    let x = p.sample_n(5, KEY).unwrap();
    data::assert_same(&wide.sample(KEY).unwrap(), &x, || "concrete".into());
    data::assert_same(
        &wide.log_prob(&x).unwrap(),
        &p.log_prob(&x).unwrap(),
        || "concrete".into(),
    );
    let p = RelaxedBernoulli::from_logits(&classes, &tau).unwrap();
    let x = p.sample_n(5, KEY).unwrap();
    let wide = p.expand((5, 2, 4)).unwrap();
    data::assert_same(&wide.sample(KEY).unwrap(), &x, || "coin".into());
    let p = Categorical::from_logits(&classes).unwrap();
    let x = p.sample_n(5, KEY).unwrap();
    let wide = p.expand((5, 2)).unwrap();
    data::assert_same(&wide.sample(KEY).unwrap(), &x, || "classes".into());
    data::assert_same(
        &wide.log_prob(&x).unwrap(),
        &p.log_prob(&x).unwrap(),
        || "classes".into(),
    );
    data::assert_same(
        &wide
            .mode()
            .unwrap()
            .narrow(0, 3, 1)
            .unwrap()
            .squeeze(0)
            .unwrap(),
        &p.mode().unwrap(),
        || "mode".into(),
    );
}

#[test]
fn indices_find_their_rows_in_every_arrangement() {
    let logits = data::random((2, 3, 5), 9, 2.0, DType::F64, &Device::Cpu);
    let p = Categorical::from_logits(&logits).unwrap();
    let table = data::values(&p.log_probs().unwrap());
    let index = p.sample_n((4, 2), KEY).unwrap();
    for as_dtype in [DType::U32, DType::I64, DType::U8] {
        let got = p.log_prob(&index.to_dtype(as_dtype).unwrap()).unwrap();
        let (got, index) = (data::values(&got), data::indices(&index));
        for (flat, k) in index.iter().enumerate() {
            assert_eq!(got[flat], table[(flat % 6) * 5 + k]);
        }
    }
    // a value of one row for the whole batch, and one that broadens it
    let one = Tensor::new(&[[[0_u32], [4]]], &Device::Cpu).unwrap();
    let got = data::values(&p.log_prob(&one).unwrap());
    for row in 0..6 {
        assert_eq!(got[row], table[row * 5 + [0, 4][row / 3]]);
    }
    let single = Categorical::from_logits(&logits.narrow(0, 0, 1).unwrap()).unwrap();
    let wide = Tensor::new(&[[0_u32, 1, 2], [2, 3, 4]], &Device::Cpu).unwrap();
    let got = data::values(&single.log_prob(&wide).unwrap());
    for (flat, k) in [0, 1, 2, 2, 3, 4].into_iter().enumerate() {
        assert_eq!(got[flat], table[(flat % 3) * 5 + k]);
    }
}

#[test]
fn layouts_make_no_difference() {
    let a = data::random((2, 3, 4), 1, 1.0, DType::F32, &Device::Cpu);
    for (label, view) in layouts::variants(&a) {
        let plain = view.force_contiguous().unwrap();
        let made = |t: &Tensor| -> Vec<Tensor> {
            let b = t.exp().unwrap();
            let normal = Normal::new(t, &b).unwrap();
            let classes = OneHotCategorical::from_logits(t).unwrap();
            let relaxed = RelaxedOneHotCategorical::new(t, 0.7).unwrap();
            let y = relaxed.sample(KEY).unwrap();
            vec![
                normal.log_prob(t).unwrap(),
                normal.sample_n(2, KEY).unwrap(),
                classes.sample_n(2, KEY).unwrap(),
                classes.entropy().unwrap(),
                classes
                    .kl_divergence(&OneHotCategorical::from_logits(&b).unwrap())
                    .unwrap(),
                classes.mode().unwrap(),
                relaxed.log_prob(&y).unwrap(),
                Bernoulli::from_logits(t).unwrap().sample_n(2, KEY).unwrap(),
            ]
        };
        for (i, (got, want)) in made(&view).iter().zip(&made(&plain)).enumerate() {
            data::assert_same(got, want, || format!("{label} {i}"));
        }
    }
}
