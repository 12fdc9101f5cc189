//! A literal sample of each op: a released stream never changes within a minor version.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, Philox4x32, Rng, categorical, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_softmax,
    gumbel_softmax_st, normal, tempered_log_softmax, tempered_softmax, uniform,
};
use rand::{Rng as _, SeedableRng};

use crate::support::data;

const KEY: Key = Key::new(0x0123_4567_89AB_CDEF, 0x1122_3344_5566_7788);

/// Logits that every dtype holds exactly, with a mask.
fn logits(dtype: DType) -> Tensor {
    let v = [
        0.5,
        -1.25,
        2.0,
        f64::NEG_INFINITY,
        3.5,
        0.0,
        -0.75,
        1.0,
        -4.0,
        0.25,
    ];
    data::tensor(&v, (2, 5), dtype, &Device::Cpu)
}

fn samples() -> Result<Vec<(String, Vec<u64>)>> {
    let device = Device::Cpu;
    let mut out = vec![];
    for dtype in data::FLOATS {
        out.push((
            format!("uniform {dtype:?}"),
            data::bits(&uniform(6, dtype, &device, KEY)?),
        ));
        out.push((
            format!("gumbel {dtype:?}"),
            data::bits(&gumbel(6, dtype, &device, KEY)?),
        ));
        out.push((
            format!("normal {dtype:?}"),
            data::bits(&normal(6, dtype, &device, KEY)?),
        ));
        let x = logits(dtype);
        for (name, y) in [
            ("tempered_softmax", tempered_softmax(&x, 0.75, 1)?),
            ("tempered_log_softmax", tempered_log_softmax(&x, 0.75, 1)?),
            ("gumbel_softmax", gumbel_softmax(&x, 0.75, 1, KEY)?),
            ("gumbel_softmax_st", gumbel_softmax_st(&x, 0.75, 1, KEY)?),
        ] {
            out.push((format!("{name} {dtype:?}"), data::bits(&y)));
        }
        let m = data::tensor(&[0.5, -1.0, 2.0, 0.25, -3.0, 0.0], (2, 3), dtype, &device);
        let l = data::tensor(&[0.0, -1.5, 0.75, 1.0, -4.0, 2.0], (2, 3), dtype, &device);
        out.push((
            format!("gaussian {dtype:?}"),
            data::bits(&gaussian(&m, &l, KEY)?),
        ));
        out.push((
            format!("gaussian_kl {dtype:?}"),
            data::bits(&gaussian_kl(&m, &l, 1)?),
        ));
        // wide rows of exact logits: every level of the two-level draw, and enough rows to tell streams apart
        let wide: Vec<f64> = (0..6000).map(|i| f64::from(i * 7919 % 64) / 16.0).collect();
        let wide = data::tensor(&wide, (1, 6000), dtype, &device).broadcast_as((8, 6000))?;
        out.push((
            format!("gumbel_max {dtype:?}"),
            data::bits(&gumbel_max(&wide, 1, KEY)?),
        ));
        out.push((
            format!("categorical {dtype:?}"),
            data::bits(&categorical(&wide, 1, KEY)?),
        ));
    }
    let x = Var::from_tensor(&logits(DType::F32))?;
    let w = data::tensor(
        &[1.0, -0.5, 0.25, 2.0, 0.0, -1.0, 0.5, 0.75, 1.5, -2.0],
        (2, 5),
        DType::F32,
        &device,
    );
    let y = gumbel_softmax(x.as_tensor(), 0.75, 1, KEY)?;
    let store = (y * w)?.sum_all()?.backward()?;
    out.push((
        "gradient of gumbel_softmax F32".to_string(),
        data::bits(store.get(x.as_tensor()).expect("a gradient")),
    ));

    let words = |mut rng: Philox4x32| {
        (0..5)
            .map(|_| u64::from(rng.next_u32()))
            .collect::<Vec<u64>>()
    };
    out.push(("Philox4x32::new".to_string(), words(Philox4x32::new(KEY))));
    out.push((
        "Philox4x32::seed_from_u64".to_string(),
        words(Philox4x32::seed_from_u64(42)),
    ));
    let child = KEY.fold_in(7).fold_in(u64::MAX);
    out.push(("Key::fold_in".to_string(), vec![child.seed, child.stream]));
    let rng = Rng::new(42);
    rng.next_key();
    let key = rng.next_key();
    out.push(("Rng::next_key".to_string(), vec![key.seed, key.stream]));
    Ok(out)
}

#[test]
fn released_streams_do_not_change() {
    let got = samples().unwrap();
    let literal: String = got
        .iter()
        .map(|(name, bits)| {
            let bits: Vec<String> = bits.iter().map(|b| format!("{b:#x}")).collect();
            format!("    (\"{name}\", &[{}]),\n", bits.join(", "))
        })
        .collect();
    assert_eq!(got.len(), WANT.len(), "the samples are:\n{literal}");
    for ((name, bits), (want_name, want)) in got.iter().zip(WANT) {
        assert_eq!(name, want_name);
        assert_eq!(bits, want, "{name} changed; the samples are:\n{literal}");
    }
}

/// Bit patterns, in the order of `samples`.
#[rustfmt::skip]
const WANT: &[(&str, &[u64])] = &[
];
