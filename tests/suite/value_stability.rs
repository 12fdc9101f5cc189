//! A literal sample of each op: a released stream never changes within a minor version.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, Philox4x32, Rng, Stretch, binary_concrete, binary_concrete_st, categorical, decoupled_st,
    exponential, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_sinkhorn,
    gumbel_sinkhorn_st, gumbel_softmax, gumbel_softmax_st, gumbel_top_k, gumbel_top_k_st,
    hard_concrete, hard_concrete_l0, logistic, normal, reinmax, relaxed_top_k,
    tempered_log_softmax, tempered_softmax, uniform,
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
        out.push((
            format!("exponential {dtype:?}"),
            data::bits(&exponential(6, dtype, &device, KEY)?),
        ));
        out.push((
            format!("logistic {dtype:?}"),
            data::bits(&logistic(6, dtype, &device, KEY)?),
        ));
        let x = logits(dtype);
        for (name, y) in [
            ("tempered_softmax", tempered_softmax(&x, 0.75, 1)?),
            ("tempered_log_softmax", tempered_log_softmax(&x, 0.75, 1)?),
            ("gumbel_softmax", gumbel_softmax(&x, 0.75, 1, KEY)?),
            ("gumbel_softmax_st", gumbel_softmax_st(&x, 0.75, 1, KEY)?),
            ("relaxed_top_k", relaxed_top_k(&x, 2, 0.75, 1, KEY)?),
            ("gumbel_top_k_st", gumbel_top_k_st(&x, 2, 0.75, 1, KEY)?),
            ("reinmax", reinmax(&x, 1.5, 1, KEY)?),
            ("gumbel_rao", gumbel_rao(&x, 0.75, 2, 1, KEY)?),
            ("decoupled_st", decoupled_st(&x, 0.5, 2.0, 1, KEY)?),
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
        let b = data::tensor(&[0.5, -1.0, 2.0, 0.25, -3.0, 0.0], (2, 3), dtype, &device);
        for (name, y) in [
            ("binary_concrete", binary_concrete(&b, 0.75, KEY)?),
            ("binary_concrete_st", binary_concrete_st(&b, 0.75, KEY)?),
            (
                "hard_concrete",
                hard_concrete(&b, 0.75, Stretch::default(), KEY)?,
            ),
            (
                "hard_concrete_l0",
                hard_concrete_l0(&b, 0.75, Stretch::default())?,
            ),
        ] {
            out.push((format!("{name} {dtype:?}"), data::bits(&y)));
        }
        // wide rows of exact logits: every level of the two-level draw, and enough rows to tell streams apart
        let wide: Vec<f64> = (0..6000).map(|i| f64::from(i * 7919 % 64) / 16.0).collect();
        let wide = data::tensor(&wide, (1, 6000), dtype, &device).broadcast_as((8, 6000))?;
        out.push((
            format!("gumbel_max {dtype:?}"),
            data::bits(&gumbel_max(&wide, 1, KEY)?),
        ));
        out.push((
            format!("gumbel_top_k {dtype:?}"),
            data::bits(&gumbel_top_k(&wide.narrow(0, 0, 2)?, 6, 1, KEY)?),
        ));
        out.push((
            format!("categorical {dtype:?}"),
            data::bits(&categorical(&wide, 1, KEY)?),
        ));
    }
    for dtype in data::FLOATS {
        let x = logits(dtype)
            .narrow(0, 1, 1)?
            .narrow(1, 0, 4)?
            .reshape((1, 2, 2))?;
        let x = Tensor::cat(&[&x, &x.affine(-2.0, 0.5)?], 0)?;
        out.push((
            format!("gumbel_sinkhorn {dtype:?}"),
            data::bits(&gumbel_sinkhorn(&x, 0.75, 3, KEY)?),
        ));
        out.push((
            format!("gumbel_sinkhorn_st {dtype:?}"),
            data::bits(&gumbel_sinkhorn_st(&x, 0.75, 3, KEY)?),
        ));
    }
    let x = Var::from_tensor(&logits(DType::F32))?;
    let w = data::tensor(
        &[1.0, -0.5, 0.25, 2.0, 0.0, -1.0, 0.5, 0.75, 1.5, -2.0],
        (2, 5),
        DType::F32,
        &device,
    );
    // The noise of its backward pass is a stream of its own.
    let y = gumbel_rao(x.as_tensor(), 0.75, 2, 1, KEY)?;
    let store = (y * &w)?.sum_all()?.backward()?;
    out.push((
        "gradient of gumbel_rao F32".to_string(),
        data::bits(store.get(x.as_tensor()).expect("a gradient")),
    ));
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
    ("uniform F32", &[0x3daea720, 0x3ee45968, 0x3f501f8e, 0x3d508e2d, 0x3ed81de8, 0x3dcf8c60]),
    ("gumbel F32", &[0x401ab9a7, 0x3f06d273, 0xbf0448db, 0x403ce621, 0x3f19cf90, 0x400f1f9b]),
    ("normal F32", &[0x3faf698e, 0x3e0b0be5, 0xbef98eb6, 0x3fd1695f, 0x3e493b79, 0x3fa3108b]),
    ("exponential F32", &[0x3db68d6e, 0x3f17304f, 0x3fd6991d, 0x3d560d61, 0x3f0c6151, 0x3ddad596]),
    ("logistic F32", &[0xc017da05, 0xbe5e1286, 0x3fbc1899, 0xc03b3829, 0xbea0d7b0, 0xc00bac7a]),
    ("tempered_softmax F32", &[0x3c81dbb5, 0x3ac97b51, 0x3defe1e7, 0x0, 0x3f5d9027, 0x3e1c0cdf, 0x3d65a179, 0x3f140030, 0x3a40df06, 0x3e59c924]),
    ("tempered_log_softmax F32", &[0xc0849f80, 0xc0cf4a2b, 0xc0093eff, 0xff800000, 0xbe13eff5, 0xbff0ce3a, 0xc038671e, 0xbf0c471f, 0xc0e6de3a, 0xbfc62390]),
    ("gumbel_softmax F32", &[0x3e2ab132, 0x3aaa420c, 0x3cc9b83e, 0x0, 0x3f4eb0d1, 0x3f622830, 0x3d77c42a, 0x3d3aaeef, 0x398b7242, 0x3c27cbed]),
    ("gumbel_softmax_st F32", &[0x0, 0x0, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x0, 0x0]),
    ("relaxed_top_k F32", &[0x3f32e62d, 0x3bd78b2e, 0x3df90440, 0x0, 0x3f96251a, 0x3f998941, 0x3ed20505, 0x3ea11aef, 0x3afdcf9c, 0x3d96f4db]),
    ("gumbel_top_k_st F32", &[0x3f800000, 0x0, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x0]),
    ("reinmax F32", &[0x0, 0x0, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x0, 0x0]),
    ("gumbel_rao F32", &[0x0, 0x0, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x0, 0x0]),
    ("decoupled_st F32", &[0x0, 0x0, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x0, 0x0]),
    ("gaussian F32", &[0x3fef698e, 0xbf6f946c, 0x3fa53959, 0x403ca174, 0xc03e4c42, 0x405da0b7]),
    ("gaussian_kl F32", &[0x404ae259, 0x41098156]),
    ("binary_concrete F32", &[0x3d9bcd4a, 0x3e28d184, 0x3f7d8460, 0x3ce0f9f9, 0x3c430b30, 0x3d53a1a3]),
    ("binary_concrete_st F32", &[0x0, 0x0, 0x3f800000, 0x0, 0x0, 0x0]),
    ("hard_concrete F32", &[0x0, 0x3dc85d3e, 0x3f800000, 0x0, 0x0, 0x0]),
    ("hard_concrete_l0 F32", &[0x3f68a397, 0x3f308c08, 0x3f7a63c6, 0x3f62c300, 0x3e6cbe42, 0x3f5ba30d]),
    ("gumbel_max F32", &[0xdd7, 0x117, 0x1228, 0x116e, 0x166, 0x121b, 0x5ee, 0xbd7]),
    ("gumbel_top_k F32", &[0xdd7, 0x5fd, 0x1097, 0x701, 0xdf6, 0x12e7, 0x117, 0xf46, 0x1057, 0xed2, 0x1284, 0x608]),
    ("categorical F32", &[0x1c8, 0x1032, 0x867, 0x7b9, 0xfea, 0xd27, 0x4a6, 0x481]),
    ("uniform F64", &[0x3fb5d4e40af3d643, 0x3fdc8b2cfc404904, 0x3fea03f1bdfb89ce, 0x3faa11c592e111f8, 0x3fdb03bd0cd64b61, 0x3fb9f18bf0b276b6]),
    ("gumbel F64", &[0x40035734e18247ff, 0x3fe0da4e6357c960, 0xbfe0891b69fcd6f5, 0x40079cc4221aeb97, 0x3fe339f1f9951974, 0x4001e3f3650e6b86]),
    ("normal F64", &[0x3ff5ed317e33bd89, 0x3fc1617ca0d81af4, 0xbfdf31d6622b4601, 0x3ffa2d2bf489c286, 0x3fc9276f3126130f, 0x3ff462112a4cd341]),
    ("exponential F64", &[0x3fb6d1addbe79a29, 0x3fe2e609d88cbd74, 0x3ffad3239f22a5db, 0x3faac1ac20112a27, 0x3fe18c2a22d95154, 0x3fbb5ab2bb3d6975]),
    ("logistic F64", &[0xc002fb409b240473, 0xbfcbc250c9bf781a, 0x3ff7831329ac5caf, 0xc0076705216978c1, 0xbfd41af5fab6b092, 0xc001758f34ed3513]),
    ("tempered_softmax F64", &[0x3f903b76a86ecb3c, 0x3f592f6a636b0c68, 0x3fbdfc3cfd890db9, 0x0, 0x3febb204f5d9b267, 0x3fc3819bde85f50e, 0x3facb42f24afbe38, 0x3fe28005fdfab392, 0x3f481be0783afd16, 0x3fcb39247feb1220]),
    ("tempered_log_softmax F64", &[0xc01093eff13c5e25, 0xc019e9454691b37a, 0xc00127dfe278bc4a, 0xfff0000000000000, 0xbfc27dfe278bc4a2, 0xbffe19c7471ffb51, 0xc0070ce3a38ffda8, 0xbfe188e3e3954bf8, 0xc01cdbc7271d5429, 0xbff8c471f1caa5fc]),
    ("gumbel_softmax F64", &[0x3fc55626259e8a96, 0x3f554841c8b7a50e, 0x3f993707e3735425, 0x0, 0x3fe9d61a169866e7, 0x3fec450611036e3e, 0x3faef88586e64f0b, 0x3fa755dd5a283614, 0x3f316e49029e0737, 0x3f84f97df2d56b73]),
    ("gumbel_softmax_st F64", &[0x0, 0x0, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x0, 0x0]),
    ("relaxed_top_k F64", &[0x3fe65cc5c1663ae9, 0x3f7af1666632bf55, 0x3fbf208833f79e17, 0x0, 0x3ff2c4a335a735eb, 0x3ff331283b729c6d, 0x3fda40a0c23950a6, 0x3fd4235d865c2024, 0x3f5fb9f46722d001, 0x3fb2de9b54e3eac9]),
    ("gumbel_top_k_st F64", &[0x3ff0000000000000, 0x0, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x0]),
    ("reinmax F64", &[0x0, 0x0, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x0, 0x0]),
    ("gumbel_rao F64", &[0x0, 0x0, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x0, 0x0]),
    ("decoupled_st F64", &[0x0, 0x0, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x0, 0x0]),
    ("gaussian F64", &[0x3ffded317e33bd89, 0xbfedf28d8509ad75, 0x3ff4a72b34b8d6de, 0x4007942ea20e83c1, 0xc007c98846fafede, 0x400bb416a2e663e0]),
    ("gaussian_kl F64", &[0x40095c4b15c6495d, 0x4021302ad505caa8]),
    ("binary_concrete F64", &[0x3fb379a932284138, 0x3fc51a3092e166a1, 0x3fefb08c053c343d, 0x3f9c1f3f64d60fd8, 0x3f8861664cc68995, 0x3faa7434d40ae8ad]),
    ("binary_concrete_st F64", &[0x0, 0x0, 0x3ff0000000000000, 0x0, 0x0, 0x0]),
    ("hard_concrete F64", &[0x0, 0x3fb90ba7c6e9c31e, 0x3ff0000000000000, 0x0, 0x0, 0x0]),
    ("hard_concrete_l0 F64", &[0x3fed1472f3fa7684, 0x3fe6118103742ff1, 0x3fef4c78be59dade, 0x3fec58601d37cd2f, 0x3fcd97c8358ba5be, 0x3feb74618c7f6f23]),
    ("gumbel_max F64", &[0xdd7, 0x117, 0x1228, 0x116e, 0x166, 0x121b, 0x5ee, 0xbd7]),
    ("gumbel_top_k F64", &[0xdd7, 0x5fd, 0x1097, 0x701, 0xdf6, 0x12e7, 0x117, 0xf46, 0x1057, 0xed2, 0x1284, 0x608]),
    ("categorical F64", &[0x1c8, 0x1032, 0x867, 0x7b9, 0xfea, 0xd27, 0x4a6, 0x481]),
    ("uniform F16", &[0x2d75, 0x3723, 0x3a81, 0x2a84, 0x36c1, 0x2e7c]),
    ("gumbel F16", &[0x40d6, 0x3837, 0xb822, 0x41e7, 0x38ce, 0x4079]),
    ("normal F16", &[0x3d7b, 0x3058, 0xb7cc, 0x3e8b, 0x324a, 0x3d19]),
    ("exponential F16", &[0x2db4, 0x38ba, 0x3eb5, 0x2ab0, 0x3863, 0x2ed7]),
    ("logistic F16", &[0xc0bf, 0xb2f1, 0x3de1, 0xc1da, 0xb507, 0xc05d]),
    ("tempered_softmax F16", &[0x240f, 0x164c, 0x2f7f, 0x0, 0x3aed, 0x30e0, 0x2b2d, 0x38a0, 0x1207, 0x32ce]),
    ("tempered_log_softmax F16", &[0xc425, 0xc67a, 0xc04a, 0xfc00, 0xb09f, 0xbf86, 0xc1c3, 0xb862, 0xc737, 0xbe31]),
    ("gumbel_softmax F16", &[0x3156, 0x1552, 0x264e, 0x0, 0x3a76, 0x3b11, 0x2bbe, 0x29d5, 0xc5c, 0x213e]),
    ("gumbel_softmax_st F16", &[0x0, 0x0, 0x0, 0x0, 0x3c00, 0x3c00, 0x0, 0x0, 0x0, 0x0]),
    ("relaxed_top_k F16", &[0x3997, 0x1ebc, 0x2fc8, 0x0, 0x3cb1, 0x3ccc, 0x3690, 0x3509, 0x17ee, 0x2cb8]),
    ("gumbel_top_k_st F16", &[0x3c00, 0x0, 0x0, 0x0, 0x3c00, 0x3c00, 0x3c00, 0x0, 0x0, 0x0]),
    ("reinmax F16", &[0x0, 0x0, 0x0, 0x0, 0x3c00, 0x3c00, 0x0, 0x0, 0x0, 0x0]),
    ("gumbel_rao F16", &[0x0, 0x0, 0x0, 0x0, 0x3c00, 0x3c00, 0x0, 0x0, 0x0, 0x0]),
    ("decoupled_st F16", &[0x0, 0x0, 0x0, 0x0, 0x3c00, 0x3c00, 0x0, 0x0, 0x0, 0x0]),
    ("gaussian F16", &[0x3f7b, 0xbb7d, 0x3d2a, 0x41e5, 0xc1f2, 0x42ed]),
    ("gaussian_kl F16", &[0x4257, 0x484c]),
    ("binary_concrete F16", &[0x2cde, 0x3147, 0x3bec, 0x2708, 0x2218, 0x2a9d]),
    ("binary_concrete_st F16", &[0x0, 0x0, 0x3c00, 0x0, 0x0, 0x0]),
    ("hard_concrete F16", &[0x0, 0x2e43, 0x3c00, 0x0, 0x0, 0x0]),
    ("hard_concrete_l0 F16", &[0x3b45, 0x3984, 0x3bd3, 0x3b16, 0x3366, 0x3add]),
    ("gumbel_max F16", &[0xdd7, 0x117, 0x1228, 0x116e, 0x166, 0x121b, 0x5ee, 0xbd7]),
    ("gumbel_top_k F16", &[0xdd7, 0x5fd, 0x1097, 0x701, 0xdf6, 0x12e7, 0x117, 0xf46, 0x1057, 0xed2, 0x1284, 0x608]),
    ("categorical F16", &[0x1c8, 0x1032, 0x867, 0x7b9, 0xfea, 0xd27, 0x4a6, 0x481]),
    ("uniform BF16", &[0x3daf, 0x3ee4, 0x3f50, 0x3d51, 0x3ed8, 0x3dd0]),
    ("gumbel BF16", &[0x401b, 0x3f07, 0xbf04, 0x403d, 0x3f1a, 0x400f]),
    ("normal BF16", &[0x3faf, 0x3e0b, 0xbefa, 0x3fd1, 0x3e49, 0x3fa3]),
    ("exponential BF16", &[0x3db7, 0x3f17, 0x3fd7, 0x3d56, 0x3f0c, 0x3ddb]),
    ("logistic BF16", &[0xc018, 0xbe5e, 0x3fbc, 0xc03b, 0xbea1, 0xc00c]),
    ("tempered_softmax BF16", &[0x3c82, 0x3ac9, 0x3df0, 0x0, 0x3f5e, 0x3e1c, 0x3d66, 0x3f14, 0x3a41, 0x3e5a]),
    ("tempered_log_softmax BF16", &[0xc085, 0xc0cf, 0xc009, 0xff80, 0xbe14, 0xbff1, 0xc038, 0xbf0c, 0xc0e7, 0xbfc6]),
    ("gumbel_softmax BF16", &[0x3e2b, 0x3aaa, 0x3cca, 0x0, 0x3f4f, 0x3f62, 0x3d78, 0x3d3b, 0x398b, 0x3c28]),
    ("gumbel_softmax_st BF16", &[0x0, 0x0, 0x0, 0x0, 0x3f80, 0x3f80, 0x0, 0x0, 0x0, 0x0]),
    ("relaxed_top_k BF16", &[0x3f33, 0x3bd8, 0x3df9, 0x0, 0x3f96, 0x3f9a, 0x3ed2, 0x3ea1, 0x3afe, 0x3d97]),
    ("gumbel_top_k_st BF16", &[0x3f80, 0x0, 0x0, 0x0, 0x3f80, 0x3f80, 0x3f80, 0x0, 0x0, 0x0]),
    ("reinmax BF16", &[0x0, 0x0, 0x0, 0x0, 0x3f80, 0x3f80, 0x0, 0x0, 0x0, 0x0]),
    ("gumbel_rao BF16", &[0x0, 0x0, 0x0, 0x0, 0x3f80, 0x3f80, 0x0, 0x0, 0x0, 0x0]),
    ("decoupled_st BF16", &[0x0, 0x0, 0x0, 0x0, 0x3f80, 0x3f80, 0x0, 0x0, 0x0, 0x0]),
    ("gaussian BF16", &[0x3fef, 0xbf70, 0x3fa5, 0x403d, 0xc03e, 0x405e]),
    ("gaussian_kl BF16", &[0x404b, 0x410a]),
    ("binary_concrete BF16", &[0x3d9c, 0x3e29, 0x3f7e, 0x3ce1, 0x3c43, 0x3d54]),
    ("binary_concrete_st BF16", &[0x0, 0x0, 0x3f80, 0x0, 0x0, 0x0]),
    ("hard_concrete BF16", &[0x0, 0x3dc8, 0x3f80, 0x0, 0x0, 0x0]),
    ("hard_concrete_l0 BF16", &[0x3f69, 0x3f31, 0x3f7a, 0x3f63, 0x3e6d, 0x3f5c]),
    ("gumbel_max BF16", &[0xdd7, 0x117, 0x1228, 0x116e, 0x166, 0x121b, 0x5ee, 0xbd7]),
    ("gumbel_top_k BF16", &[0xdd7, 0x5fd, 0x1097, 0x701, 0xdf6, 0x12e7, 0x117, 0xf46, 0x1057, 0xed2, 0x1284, 0x608]),
    ("categorical BF16", &[0x1c8, 0x1032, 0x867, 0x7b9, 0xfea, 0xd27, 0x4a6, 0x481]),
    ("gumbel_sinkhorn F32", &[0x3f2cbb8c, 0x3ea457a9, 0x3ea688e7, 0x3f2dd42c, 0x3f7e2c4f, 0x3e2be220, 0x3be9d8cc, 0x3f550777]),
    ("gumbel_sinkhorn_st F32", &[0x3f800000, 0x0, 0x0, 0x3f800000, 0x3f800000, 0x0, 0x0, 0x3f800000]),
    ("gumbel_sinkhorn F64", &[0x3fe597719b483d96, 0x3fd48af52869e112, 0x3fd4d11cc96f84d5, 0x3fe5ba856bcb0f76, 0x3fefc589cb56c482, 0x3fc57c43f0090d60, 0x3f7d3b1a549dbed0, 0x3feaa0ef03fdbca7]),
    ("gumbel_sinkhorn_st F64", &[0x3ff0000000000000, 0x0, 0x0, 0x3ff0000000000000, 0x3ff0000000000000, 0x0, 0x0, 0x3ff0000000000000]),
    ("gumbel_sinkhorn F16", &[0x3966, 0x3523, 0x3534, 0x396f, 0x3bf1, 0x315f, 0x1f4f, 0x3aa8]),
    ("gumbel_sinkhorn_st F16", &[0x3c00, 0x0, 0x0, 0x3c00, 0x3c00, 0x0, 0x0, 0x3c00]),
    ("gumbel_sinkhorn BF16", &[0x3f2d, 0x3ea4, 0x3ea7, 0x3f2e, 0x3f7e, 0x3e2c, 0x3bea, 0x3f55]),
    ("gumbel_sinkhorn_st BF16", &[0x3f80, 0x0, 0x0, 0x3f80, 0x3f80, 0x0, 0x0, 0x3f80]),
    ("gradient of gumbel_rao F32", &[0x3e0556c0, 0xbd9204c1, 0x3c403808, 0x0, 0xbd90afc1, 0xbdbd9fdb, 0x3e18a4de, 0x3e933df6, 0x3b4e2884, 0xbeb1c4c0]),
    ("gradient of gumbel_softmax F32", &[0x3e3c662b, 0xba98989c, 0x3b276792, 0x0, 0xbe3dd297, 0xbe42182b, 0x3ddd2faf, 0x3dc5c526, 0x3a597372, 0xbc81dd89]),
    ("Philox4x32::new", &[0x15d4e40a, 0x722cb3f1, 0xd01f8def, 0xd08e2c9, 0x6c0ef433]),
    ("Philox4x32::seed_from_u64", &[0x5c976602, 0xab3e34, 0xcb09d05a, 0xc88ae904, 0xe22c6c14]),
    ("Key::fold_in", &[0x84b1ff8672f12085, 0x62933761e16908ca]),
    ("Rng::next_key", &[0x2a, 0x1]),
];
