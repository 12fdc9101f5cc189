//! `uniform`, `gumbel` and `normal`: every word against the stream contract, every map against double precision,
//! and the distributions that come out.

use candle_core::{DType, Device, Tensor};
use candle_reparam::{Key, bits, exponential, gumbel, logistic, normal, uniform};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::support::data::{self, FLOATS, SplitMix};
use crate::support::devices::devices;
use crate::support::statistics::{correlation_z, ks, mean, poisson_p, variance};
use crate::support::{oracle, philox};

type Noise = fn(&[usize], DType, &Device, Key) -> candle_core::Result<Tensor>;
const MAPS: [(&str, Noise); 5] = [
    ("uniform", |s, t, d, k| uniform(s, t, d, k)),
    ("gumbel", |s, t, d, k| gumbel(s, t, d, k)),
    ("normal", |s, t, d, k| normal(s, t, d, k)),
    ("exponential", |s, t, d, k| exponential(s, t, d, k)),
    ("logistic", |s, t, d, k| logistic(s, t, d, k)),
];

const KEYS: [Key; 7] = [
    Key::new(0, 0),
    Key::new(1, 0),
    Key::new(0, 1),
    Key::new(0xDEAD_BEEF_0123_4567, 0x7FFF_FFFF_FFFF_FFFF),
    Key::new(u64::MAX, 1 << 62),
    Key::new(42, 0xFFFF_FFFF),
    Key::new(42, 0x1_0000_0000),
];

fn rare_keys() -> impl Iterator<Item = (Key, usize)> {
    philox::rare().map(|(stream, index, _)| (Key::new(philox::RARE_SEED, stream), index as usize))
}

fn word_pairs(key: Key, n: usize) -> Vec<(u32, u32)> {
    philox::stream_words(key.seed, key.stream, n)
}

#[test]
fn scalar_philox_knows_the_published_answers() {
    // Random123, kat_vectors
    let cases = [
        (
            [0; 4],
            [0; 2],
            10,
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        ),
        (
            [u32::MAX; 4],
            [u32::MAX; 2],
            10,
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            10,
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
        (
            [0; 4],
            [0; 2],
            7,
            [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48],
        ),
    ];
    for (counter, key, rounds, want) in cases {
        assert_eq!(philox::block(counter, key, rounds), want);
    }
}

#[test]
fn every_uniform_is_its_word() {
    for device in devices() {
        // lengths around every lane count and tile, and one over a million
        for n in (1..=67).chain([255, 256, 257, 4095, 4097, 9001]) {
            for key in KEYS {
                check_uniform(key, n, &device);
            }
        }
        check_uniform(Key::new(7, 7), 1_048_583, &device);
        for (key, index) in rare_keys() {
            check_uniform(key, index + 1, &device);
            check_uniform(key, 64, &device);
            check_uniform(key, 999, &device);
        }
    }
}

fn check_uniform(key: Key, n: usize, device: &Device) {
    let words = word_pairs(key, n);
    let f32s = data::bits(&uniform(n, DType::F32, device, key).unwrap());
    let f64s = data::bits(&uniform(n, DType::F64, device, key).unwrap());
    let f16s = data::bits(&uniform(n, DType::F16, device, key).unwrap());
    let bf16s = data::bits(&uniform(n, DType::BF16, device, key).unwrap());
    for (i, (w, w2)) in words.into_iter().enumerate() {
        let v = philox::uniform_f32(w, w2);
        let label = format!("{key:?} element {i} of {n}, word {w:#x}");
        assert_eq!(f32s[i] as u32, v.to_bits(), "{label}");
        assert_eq!(f64s[i], philox::uniform_f64(w, w2).to_bits(), "{label}");
        let h = f16::from_f32(v).clamp(f16::from_bits(1), f16::from_bits(f16::ONE.to_bits() - 1));
        assert_eq!(f16s[i] as u16, h.to_bits(), "{label}");
        let b =
            bf16::from_f32(v).clamp(bf16::from_bits(1), bf16::from_bits(bf16::ONE.to_bits() - 1));
        assert_eq!(bf16s[i] as u16, b.to_bits(), "{label}");
    }
}

/// Bounds on the error of a map: absolute where the value is below 1, relative above.
const F32_GUMBEL: f64 = 3e-7;
const F64_GUMBEL: f64 = 1e-14;
const F32_NORMAL: f64 = 5e-7;
const F64_NORMAL: f64 = 2e-14;

fn gumbel_from(v: f64) -> f64 {
    -(-(-v).ln_1p()).ln()
}

/// The magnitude's two-sided tail probability, by the contract: 31 bits, and 32 more in f64.
fn tail(w: u32, w2: Option<u32>) -> f64 {
    let m = f64::from(w & 0x7FFF_FFFF);
    let fraction = w2.map_or(0.5, |w2| (f64::from(w2) + 0.5) / 4_294_967_296.0);
    (m + fraction) / 2_147_483_648.0
}

fn normal_from(w: u32, w2: Option<u32>) -> f64 {
    let a = oracle::normal_from_two_sided_tail(tail(w, w2));
    if w >> 31 == 1 { -a } else { a }
}

#[track_caller]
fn close(got: f64, want: f64, bound: f64, label: &str) {
    assert!(
        (got - want).abs() <= bound * want.abs().max(1.0),
        "{label}: {got:e}, not {want:e}"
    );
}

#[test]
fn gumbel_and_normal_are_their_words() {
    for device in devices() {
        let cases = KEYS
            .into_iter()
            .map(|k| (k, 4099))
            .chain(rare_keys().map(|(k, i)| (k, i + 1)));
        for (key, n) in cases {
            let g32 = data::values(&gumbel(n, DType::F32, &device, key).unwrap());
            let g64 = data::values(&gumbel(n, DType::F64, &device, key).unwrap());
            let z32 = data::values(&normal(n, DType::F32, &device, key).unwrap());
            let z64 = data::values(&normal(n, DType::F64, &device, key).unwrap());
            for (i, (w, w2)) in word_pairs(key, n).into_iter().enumerate() {
                let label = format!("{key:?} element {i}, words {w:#x} {w2:#x}");
                close(
                    g32[i],
                    gumbel_from(philox::uniform_f32(w, w2).into()),
                    F32_GUMBEL,
                    &label,
                );
                close(
                    g64[i],
                    gumbel_from(philox::uniform_f64(w, w2)),
                    F64_GUMBEL,
                    &label,
                );
                close(z32[i], normal_from(w, None), F32_NORMAL, &label);
                close(z64[i], normal_from(w, Some(w2)), F64_NORMAL, &label);
            }
        }
    }
}

#[test]
fn halves_are_the_f32_value_rounded_once() {
    for device in devices() {
        for (name, noise) in &MAPS[1..] {
            for key in KEYS.into_iter().chain(rare_keys().map(|(k, _)| k)) {
                let exact = noise(&[999], DType::F32, &device, key)
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                let f16s = noise(&[999], DType::F16, &device, key)
                    .unwrap()
                    .to_vec1::<f16>()
                    .unwrap();
                let bf16s = noise(&[999], DType::BF16, &device, key)
                    .unwrap()
                    .to_vec1::<bf16>()
                    .unwrap();
                // An exponential is kept above 0.
                let least = f16::from_bits(u16::from(*name == "exponential"));
                for i in 0..999 {
                    let rounded = f16::from_f32(exact[i]);
                    let kept = if rounded == f16::ZERO && exact[i] > 0.0 {
                        least
                    } else {
                        rounded
                    };
                    assert_eq!(f16s[i].to_bits(), kept.to_bits(), "{name} {key:?} {i}");
                    assert_eq!(
                        bf16s[i].to_bits(),
                        bf16::from_f32(exact[i]).to_bits(),
                        "{name} {key:?} {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_shape_only_names_the_flat_array_and_a_prefix_is_a_prefix() {
    for device in devices() {
        for (name, noise) in MAPS {
            for dtype in FLOATS {
                let key = Key::new(3, 9);
                let long = data::bits(&noise(&[10_000], dtype, &device, key).unwrap());
                for shape in [
                    &[][..],
                    &[1],
                    &[5, 7],
                    &[7, 5],
                    &[2, 3, 4],
                    &[1, 1, 33],
                    &[3, 1, 2, 1, 5, 2],
                    &[4097],
                    &[100, 100],
                ] {
                    let t = noise(shape, dtype, &device, key).unwrap();
                    assert_eq!((t.dims(), t.dtype()), (shape, dtype));
                    assert!(t.is_contiguous() && !t.track_op());
                    let n = t.elem_count();
                    assert_eq!(data::bits(&t), long[..n], "{name} {dtype:?} {shape:?}");
                }
                let none = noise(&[3, 0, 2], dtype, &device, key).unwrap();
                assert_eq!((none.dims(), none.elem_count()), (&[3, 0, 2][..], 0));
            }
        }
    }
}

#[test]
fn every_dtype_is_the_same_draw() {
    // f32 and f64 of one key differ by the refinement alone
    for (name, noise) in MAPS {
        let key = Key::new(3, 10);
        let a = data::values(&noise(&[20_000], DType::F32, &Device::Cpu, key).unwrap());
        let b = data::values(&noise(&[20_000], DType::F64, &Device::Cpu, key).unwrap());
        let off = a
            .iter()
            .zip(&b)
            .fold(0.0_f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 2e-3, "{name}: {off}");
        assert!(off > 0.0, "{name}: f64 holds no more than f32");
    }
}

// ---- forced bits

/// Words at the ends, at the refinement's edge, at the sign, and at every power of two.
fn edge_words() -> Vec<u32> {
    let mut w: Vec<u32> = (0..32)
        .flat_map(|s| [(1_u32 << s) - 1, 1 << s, (1 << s) + 1])
        .collect();
    w.extend([
        0,
        255,
        256,
        257,
        u32::MAX,
        u32::MAX - 1,
        u32::MAX - 127,
        u32::MAX - 128,
        0x7FFF_FFFF,
        0xFFFF_FF80,
    ]);
    w.sort_unstable();
    w.dedup();
    w
}

#[test]
fn endpoints_by_forced_bits() {
    let ends = [0, 1, 1 << 31, u32::MAX];
    for w in edge_words() {
        for w2 in ends {
            let label = format!("words {w:#x} {w2:#x}");
            let (u, v) = (bits::uniform_f32(w, w2), bits::uniform_f64(w, w2));
            assert_eq!(u.to_bits(), philox::uniform_f32(w, w2).to_bits(), "{label}");
            assert_eq!(v.to_bits(), philox::uniform_f64(w, w2).to_bits(), "{label}");
            assert!(
                u > 0.0 && u < 1.0 && v > 0.0 && v < 1.0,
                "{label}: {u:e} {v:e}"
            );

            let (g, h) = (bits::gumbel_f32(w, w2), bits::gumbel_f64(w, w2));
            close(g.into(), gumbel_from(u.into()), F32_GUMBEL, &label);
            close(h, gumbel_from(v), F64_GUMBEL, &label);
            assert!(
                (-2.82..=45.1).contains(&g) && (-3.65..=45.1).contains(&h),
                "{label}: {g} {h}"
            );

            let (z, y) = (bits::normal_f32(w, w2), bits::normal_f64(w, w2));
            close(z.into(), normal_from(w, None), F32_NORMAL, &label);
            close(y, normal_from(w, Some(w2)), F64_NORMAL, &label);
            assert!(z.abs() < 6.4 && y.abs() < 9.2, "{label}: {z} {y}");
            assert_eq!(
                (z.is_sign_negative(), y.is_sign_negative()),
                (w >> 31 == 1, w >> 31 == 1),
                "{label}"
            );
            assert_eq!(
                bits::normal_f32(w ^ 1 << 31, w2).to_bits(),
                (-z).to_bits(),
                "{label}: both tails alike"
            );
            assert_eq!(
                bits::normal_f64(w ^ 1 << 31, w2).to_bits(),
                (-y).to_bits(),
                "{label}: both tails alike"
            );
        }
    }
    // the far ends, in numbers: v = 2^-65 and v = 1 - 2^-24
    close(
        bits::gumbel_f32(0, 0).into(),
        65.0 * std::f64::consts::LN_2,
        1e-6,
        "w = 0, w2 = 0",
    );
    close(
        bits::gumbel_f32(0, u32::MAX).into(),
        32.0 * std::f64::consts::LN_2,
        1e-6,
        "w = 0, w2 = max",
    );
    close(
        bits::gumbel_f32(u32::MAX, 0).into(),
        -(24.0 * std::f64::consts::LN_2).ln(),
        1e-6,
        "w = max",
    );
    assert!(bits::gumbel_f32(0, 0).is_finite() && bits::gumbel_f64(0, 0).is_finite());
}

#[test]
fn the_refinement_joins_the_words_on_either_side() {
    // w = 255 with a full second word touches w = 256, and every w below touches the next
    for w in 0..256_u32 {
        let (low, high) = (bits::gumbel_f32(w, u32::MAX), bits::gumbel_f32(w + 1, 0));
        assert!(low >= high - 1e-6, "{w}: {low} {high}");
        assert!(
            bits::gumbel_f32(w, 0) >= bits::gumbel_f32(w, 1 << 31)
                && bits::gumbel_f32(w, 1 << 31) >= low,
            "{w}"
        );
    }
    // and the map uses all of the second word where it says it does, and none of it elsewhere
    let mut rng = SplitMix(8);
    for _ in 0..2000 {
        let (a, b) = (rng.next() as u32, rng.next() as u32);
        let w = 256 + (rng.next() as u32) % (u32::MAX - 256);
        assert_eq!(
            bits::gumbel_f32(w, a).to_bits(),
            bits::gumbel_f32(w, b).to_bits()
        );
        assert_ne!(bits::uniform_f32(0, a), bits::uniform_f32(0, b));
        assert_ne!(
            bits::gumbel_f64(w, a).to_bits(),
            bits::gumbel_f64(w, b).to_bits()
        );
    }
}

#[test]
fn slices_are_the_map_word_by_word() {
    let mut rng = SplitMix(5);
    for n in [1, 3, 7, 8, 15, 16, 17, 31, 33, 100] {
        let w: Vec<u32> = (0..n)
            .map(|i| {
                if i % 5 == 2 {
                    rng.next() as u32 % 256
                } else {
                    rng.next() as u32
                }
            })
            .collect();
        let w2: Vec<u32> = (0..n).map(|_| rng.next() as u32).collect();
        let mut out = vec![0.0; n];
        bits::gumbel_f32_slice(&w, &w2, &mut out);
        for i in 0..n {
            assert_eq!(out[i].to_bits(), bits::gumbel_f32(w[i], w2[i]).to_bits());
        }
        bits::normal_f32_slice(&w, &w2, &mut out);
        for i in 0..n {
            assert_eq!(out[i].to_bits(), bits::normal_f32(w[i], w2[i]).to_bits());
        }
    }
}

/// Runs a slice map over `words` in blocks and hands each (previous, next) pair of outputs to `step`.
fn sweep(
    map: fn(&[u32], &[u32], &mut [f32]),
    words: impl Fn(u64) -> u32 + Sync,
    n: u64,
    step: impl Fn(u32, f32, f32) + Sync,
) {
    const BLOCK: u64 = 1 << 16;
    (0..n.div_ceil(BLOCK)).into_par_iter().for_each(|b| {
        // one word of overlap, so that the steps between blocks are seen too
        let (from, to) = (b * BLOCK, ((b + 1) * BLOCK + 1).min(n));
        let w: Vec<u32> = (from..to).map(&words).collect();
        let w2 = vec![0; w.len()];
        let mut out = vec![0.0; w.len()];
        map(&w, &w2, &mut out);
        for i in 1..w.len() {
            step(w[i], out[i - 1], out[i]);
        }
    });
}

#[test]
fn gumbel_never_rises_with_its_word() {
    // 2^28 words evenly over all, then every word next to either end; rounding may wobble by its own size
    let step = |w: u32, a: f32, b: f32| {
        assert!(
            b <= a + 2.5e-7 * a.abs().max(1.0),
            "word {w:#x}: {a} then {b}"
        );
        assert!(b.is_finite());
    };
    sweep(bits::gumbel_f32_slice, |i| (i as u32) << 4, 1 << 28, step);
    sweep(bits::gumbel_f32_slice, |i| 256 + i as u32, 1 << 22, step);
    sweep(
        bits::gumbel_f32_slice,
        |i| u32::MAX - (1 << 22) + 1 + i as u32,
        1 << 22,
        step,
    );
    assert!(bits::gumbel_f32(1 << 20, 0) > bits::gumbel_f32(1 << 30, 0));
}

#[test]
fn normal_falls_to_zero_with_its_magnitude_word() {
    let step = |w: u32, a: f32, b: f32| {
        assert!(
            b <= a + 4e-7 * a.abs().max(1.0) && b >= 0.0,
            "word {w:#x}: {a} then {b}"
        );
    };
    sweep(bits::normal_f32_slice, |i| (i as u32) << 3, 1 << 28, step);
    sweep(bits::normal_f32_slice, |i| i as u32, 1 << 22, step);
    sweep(
        bits::normal_f32_slice,
        |i| (1 << 31) - (1 << 22) + i as u32,
        1 << 22,
        step,
    );
    assert!(bits::normal_f32(0, 0) > 6.2 && bits::normal_f32((1 << 31) - 1, 0) < 1e-6);
}

#[test]
fn errors_over_the_whole_range() {
    // a stride that is odd, so that the low bits vary too
    let n = 3_000_000_u64;
    let stride = (1_u64 << 32) / n;
    let worst = (0..n / 1000)
        .into_par_iter()
        .map(|b| {
            let w: Vec<u32> = (0..1000)
                .map(|i| ((b * 1000 + i) * stride + b % 7) as u32)
                .collect();
            let w2: Vec<u32> = w.iter().map(|w| w.wrapping_mul(2_654_435_761)).collect();
            let (mut g, mut z) = (vec![0.0; 1000], vec![0.0; 1000]);
            bits::gumbel_f32_slice(&w, &w2, &mut g);
            bits::normal_f32_slice(&w, &w2, &mut z);
            let mut worst = [0.0_f64; 4];
            for i in 0..1000 {
                let mut note = |at: usize, got: f64, want: f64| {
                    worst[at] = worst[at].max((got - want).abs() / want.abs().max(1.0));
                };
                note(
                    0,
                    g[i].into(),
                    gumbel_from(philox::uniform_f32(w[i], w2[i]).into()),
                );
                if i % 8 == 0 {
                    note(1, z[i].into(), normal_from(w[i], None));
                    note(
                        2,
                        bits::gumbel_f64(w[i], w2[i]),
                        gumbel_from(philox::uniform_f64(w[i], w2[i])),
                    );
                    note(
                        3,
                        bits::normal_f64(w[i], w2[i]),
                        normal_from(w[i], Some(w2[i])),
                    );
                }
            }
            worst
        })
        .reduce(|| [0.0; 4], |a, b| std::array::from_fn(|i| a[i].max(b[i])));
    println!(
        "worst errors: gumbel f32 {:e}, normal f32 {:e}, gumbel f64 {:e}, normal f64 {:e}",
        worst[0], worst[1], worst[2], worst[3]
    );
    for (w, bound) in worst
        .into_iter()
        .zip([F32_GUMBEL, F32_NORMAL, F64_GUMBEL, F64_NORMAL])
    {
        assert!(w <= bound, "{worst:?}");
    }
}

// ---- distributions

const N: usize = 1_000_000;

fn gumbel_cdf(g: f64) -> f64 {
    (-(-g).exp()).exp()
}

#[test]
fn kolmogorov_smirnov() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            for key in [Key::new(1, 0), Key::new(2, 77), Key::new(0, 1 << 40)] {
                let p = ks(
                    data::values(&uniform(N, dtype, &device, key).unwrap()),
                    |u| u,
                );
                assert!(p > 1e-4, "uniform {dtype:?} {key:?}: p = {p:e}");
                let p = ks(
                    data::values(&gumbel(N, dtype, &device, key).unwrap()),
                    gumbel_cdf,
                );
                assert!(p > 1e-4, "gumbel {dtype:?} {key:?}: p = {p:e}");
                let p = ks(
                    data::values(&normal(N, dtype, &device, key).unwrap()),
                    oracle::normal_cdf,
                );
                assert!(p > 1e-4, "normal {dtype:?} {key:?}: p = {p:e}");
            }
        }
    }
}

#[test]
fn moments() {
    const EULER: f64 = 0.577_215_664_901_532_9;
    let var_gumbel = std::f64::consts::PI.powi(2) / 6.0;
    // (mean, variance, kurtosis): the variance of a sample variance is sigma^4 (kurtosis - 1) / n
    let expected = [
        (0.5, 1.0 / 12.0, 1.8),
        (EULER, var_gumbel, 5.4),
        (0.0, 1.0, 3.0),
        (1.0, 1.0, 9.0),
        (0.0, 2.0 * var_gumbel, 4.2),
    ];
    for ((name, noise), (m, v, kurtosis)) in MAPS.into_iter().zip(expected) {
        let x = data::values(&noise(&[4 * N], DType::F32, &Device::Cpu, Key::new(12, 1)).unwrap());
        let n = x.len() as f64;
        assert!(
            (mean(&x) - m).abs() < 4.5 * (v / n).sqrt(),
            "{name}: mean {}",
            mean(&x)
        );
        assert!(
            (variance(&x) - v).abs() < 4.5 * v * ((kurtosis - 1.0) / n).sqrt(),
            "{name}: variance {}",
            variance(&x)
        );
    }
}

#[test]
fn gumbel_tail_counts() {
    // 2^32 draws, where KS sees nothing: about 26,400 above 12, 8.9 above 20 and 0.06 above 25
    let n = 1_u64 << 32;
    let thresholds = [5.0, 12.0, 16.0, 20.0, 25.0];
    let counts = bits::count_gumbel_above(Key::new(20, 0), 0, n, &thresholds);
    for (count, g) in counts.into_iter().zip(thresholds) {
        let mean = n as f64 * -(-f64::from(-g).exp()).exp_m1();
        let p = poisson_p(count, mean);
        println!("g > {g}: {count} of {n}, expected {mean:.1}, p = {p:.3}");
        // above 5 the mean is 2.9e7 and a Poisson variance is 0.7 % too wide: of no matter
        assert!(p > 1e-4, "g > {g}: {count}, expected {mean}: p = {p:e}");
    }
}

#[test]
fn tail_counts_count_what_gumbel_draws() {
    let thresholds = [0.5, 3.0, 9.0];
    let key = Key::new(21, 5);
    let g = data::values(&gumbel(3 * N, DType::F32, &Device::Cpu, key).unwrap());
    for (start, n) in [(0, 3 * N), (0, 1), (4, 1000), (1_000_001, 777_777)] {
        let want: Vec<u64> = thresholds
            .iter()
            .map(|t| {
                g[start..start + n]
                    .iter()
                    .filter(|g| **g > f64::from(*t))
                    .count() as u64
            })
            .collect();
        assert_eq!(
            bits::count_gumbel_above(key, start as u64, n as u64, &thresholds),
            want,
            "{start} {n}"
        );
    }
    // element indices past 2^32 and past 2^34, where the block counter needs its second word
    for start in [(1 << 32) - 500, (1 << 34) - 500, (1 << 40) + 3] {
        let want: Vec<u64> = thresholds
            .iter()
            .map(|t| {
                (start..start + 1000)
                    .filter(|i| {
                        let (w, w2) = philox::words(key.seed, key.stream, *i);
                        bits::gumbel_f32(w, w2) > *t
                    })
                    .count() as u64
            })
            .collect();
        assert_eq!(
            bits::count_gumbel_above(key, start, 1000, &thresholds),
            want,
            "{start}"
        );
    }
}

#[test]
fn both_normal_tails() {
    // 2^28 draws in pieces of one stream each
    let cuts = [3.0_f32, 4.0, 5.0, 6.0];
    let (pieces, n) = (16_u64, 1_usize << 24);
    let mut counts = [[0_u64; 4]; 2];
    for piece in 0..pieces {
        let z = normal(n, DType::F32, &Device::Cpu, Key::new(31, piece))
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let part = z
            .par_chunks(1 << 16)
            .map(|z| {
                let mut c = [[0_u64; 4]; 2];
                for z in z {
                    for (i, cut) in cuts.iter().enumerate() {
                        c[0][i] += u64::from(*z < -cut);
                        c[1][i] += u64::from(*z > *cut);
                    }
                }
                c
            })
            .reduce(
                || [[0; 4]; 2],
                |a, b| std::array::from_fn(|s| std::array::from_fn(|i| a[s][i] + b[s][i])),
            );
        counts = std::array::from_fn(|s| std::array::from_fn(|i| counts[s][i] + part[s][i]));
    }
    for (side, counts) in ["below", "above"].into_iter().zip(counts) {
        for (count, cut) in counts.into_iter().zip(cuts) {
            let mean =
                pieces as f64 * n as f64 * oracle::erfc(f64::from(cut) / std::f64::consts::SQRT_2)
                    / 2.0;
            let p = poisson_p(count, mean);
            println!("{side} {cut}: {count}, expected {mean:.1}, p = {p:.3}");
            assert!(
                p > 1e-4,
                "{side} {cut}: {count}, expected {mean}: p = {p:e}"
            );
        }
    }
}

#[test]
fn neighbours_are_uncorrelated() {
    let n = 1 << 20;
    let draw = |key: Key| data::values(&uniform(n, DType::F32, &Device::Cpu, key).unwrap());
    let base = Key::new(5, 5);
    let x = draw(base);
    let others = [
        ("next stream", Key::new(5, 6)),
        ("next seed", Key::new(6, 5)),
        ("seed and stream swapped high and low", Key::new(5 << 32, 5)),
        ("high stream", Key::new(5, 5 | 1 << 32)),
        ("folded 0", base.fold_in(0)),
        ("folded 1", base.fold_in(1)),
        ("folded twice", base.fold_in(1).fold_in(1)),
    ];
    for (name, key) in others {
        let y = draw(key);
        // plain, and between magnitudes, which a correlation of signs would hide from
        let fold = |v: &[f64]| v.iter().map(|u| (u - 0.5).abs()).collect::<Vec<_>>();
        for (what, z) in [
            ("values", correlation_z(&x, &y)),
            ("magnitudes", correlation_z(&fold(&x), &fold(&y))),
        ] {
            assert!(z.abs() < 4.5, "{name} {what}: {z:.2} standard errors");
        }
    }
    for lag in [1, 2, 3, 4, 5, 8, 16, 17, 64, 1024, 4096] {
        let z = correlation_z(&x[..n - lag], &x[lag..]);
        assert!(z.abs() < 4.5, "lag {lag}: {z:.2} standard errors");
    }
    // the same element of many neighbouring streams, and of many neighbouring seeds
    for by_stream in [true, false] {
        let first: Vec<Vec<f64>> = (0..20_000)
            .map(|i| {
                let key = if by_stream {
                    Key::new(9, i)
                } else {
                    Key::new(i, 9)
                };
                data::values(&uniform(2, DType::F32, &Device::Cpu, key).unwrap())
            })
            .collect();
        let column: Vec<f64> = first.iter().map(|v| v[0]).collect();
        let z = correlation_z(&column[1..], &column[..column.len() - 1]);
        assert!(
            z.abs() < 4.5,
            "by stream {by_stream}: {z:.2} standard errors"
        );
        let p = ks(column, |u| u);
        assert!(p > 1e-4, "by stream {by_stream}: p = {p:e}");
    }
}
