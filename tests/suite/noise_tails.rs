//! `exponential` and `logistic`: every word against the map in double precision, both tails alike, and what comes out.

use candle_core::{DType, Device};
use candle_reparam::{Key, bits, exponential, gumbel, logistic, uniform};
use rayon::prelude::*;

use crate::support::data;
use crate::support::devices::devices;
use crate::support::philox;
use crate::support::statistics::{ks, poisson_p};

/// Relative errors of the maps: they lose no digits anywhere, at the centre and at the ends included.
const F32_EXPONENTIAL: f64 = 2e-7;
const F64_EXPONENTIAL: f64 = 1e-15;
const F32_LOGISTIC: f64 = 3e-7;
const F64_LOGISTIC: f64 = 1.5e-15;

/// `v` and `1 - v` by the contract, each to the last digit of a double: the word, counted from its own end, and half a unit or
/// the second word.
fn both_ends(w: u32, w2: Option<u32>) -> (f64, f64) {
    let end = |w: u32, w2: Option<u32>| {
        let fraction = w2.map_or(0.5, |w2| (f64::from(w2) + 0.5) / 4_294_967_296.0);
        (f64::from(w) + fraction) / 4_294_967_296.0
    };
    (end(w, w2), end(!w, w2.map(|w2| !w2)))
}

/// The second word where f32 takes it.
fn refinement(w: u32, w2: u32) -> Option<u32> {
    (w.min(!w) < 256).then_some(w2)
}

fn exponential_from((v, rest): (f64, f64)) -> f64 {
    if v < 0.5 { -(-v).ln_1p() } else { -rest.ln() }
}

fn logistic_from((v, rest): (f64, f64), w: u32, w2: Option<u32>) -> f64 {
    if (0.3..0.7).contains(&v) {
        // 1 - 2 v from integers, so that the reference has digits at the centre
        let (low, half) = (f64::from(w2.unwrap_or(0)), 2_147_483_648.0);
        let shift = if w2.is_some() { 0.5 } else { half };
        let offset = (f64::from(w) - half) + (low + shift) / 4_294_967_296.0;
        return 2.0 * (offset / half).atanh();
    }
    v.ln() - rest.ln()
}

#[track_caller]
fn relative(got: f64, want: f64, bound: f64, label: &dyn std::fmt::Display) {
    assert!(
        (got - want).abs() <= bound * want.abs(),
        "{label}: {got:e}, not {want:e}"
    );
}

#[track_caller]
fn check_words(w: u32, w2: u32, [e32, e64, l32, l64]: [f64; 4], label: &str) {
    let label = format!("{label}, words {w:#x} {w2:#x}");
    let narrow = refinement(w, w2);
    let (near, far) = (both_ends(w, narrow), both_ends(w, Some(w2)));
    relative(e32, exponential_from(near), F32_EXPONENTIAL, &label);
    relative(e64, exponential_from(far), F64_EXPONENTIAL, &label);
    relative(l32, logistic_from(near, w, narrow), F32_LOGISTIC, &label);
    relative(l64, logistic_from(far, w, Some(w2)), F64_LOGISTIC, &label);
    let negative = w >> 31 == 0;
    assert_eq!((l32 < 0.0, l64 < 0.0), (negative, negative), "{label}");
}

fn maps(w: u32, w2: u32) -> [f64; 4] {
    [
        bits::exponential_f32(w, w2).into(),
        bits::exponential_f64(w, w2),
        bits::logistic_f32(w, w2).into(),
        bits::logistic_f64(w, w2),
    ]
}

#[test]
fn every_draw_is_its_word() {
    let keys = [
        Key::new(0, 0),
        Key::new(0xDEAD_BEEF_0123_4567, 0x7FFF_FFFF_FFFF_FFFF),
        Key::new(42, 0x1_0000_0000),
    ];
    let rare: Vec<_> = philox::rare()
        .map(|(s, i, _)| (Key::new(philox::RARE_SEED, s), i as usize + 1))
        .collect();
    for device in devices() {
        for (key, n) in keys.into_iter().map(|k| (k, 4099)).chain(rare.clone()) {
            let noise = [
                exponential(n, DType::F32, &device, key),
                exponential(n, DType::F64, &device, key),
                logistic(n, DType::F32, &device, key),
                logistic(n, DType::F64, &device, key),
            ]
            .map(|t| data::values(&t.unwrap()));
            let words = philox::stream_words(key.seed, key.stream, n);
            for (i, (w, w2)) in words.into_iter().enumerate() {
                let x: [f64; 4] = std::array::from_fn(|k| noise[k][i]);
                check_words(w, w2, x, &format!("{key:?} element {i}"));
                assert_eq!(x, maps(w, w2), "{key:?} element {i}: the map of its words");
            }
        }
    }
}

/// Words at either end, at the edges of the refinement, at the sign, at the seams of the logarithms, and at every power of two.
fn edge_words() -> Vec<u32> {
    let third = (u64::from(u32::MAX) / 3) as u32;
    let eighth_root = (0.353_553_390_593_273_8 * 4_294_967_296.0) as u32;
    let mut words: Vec<u32> = (0..32)
        .flat_map(|s| [(1_u32 << s) - 1, 1 << s, (1 << s) + 1])
        .chain([254, 255, 256, 257, 0x7FFF_FFFE, 0x7FFF_FFFF])
        .chain((0..41).flat_map(|i| [third - 400 + 20 * i, eighth_root - 400 + 20 * i]))
        .flat_map(|w| [w, !w])
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[test]
fn forced_bits_at_the_ends_and_seams() {
    for w in edge_words() {
        for w2 in [0, 1, 1 << 31, u32::MAX - 1, u32::MAX] {
            check_words(w, w2, maps(w, w2), "forced");
            let end = 65.0 * std::f64::consts::LN_2 * (1.0 + 1e-6);
            for x in maps(w, w2) {
                assert!(x.abs() <= end && x != 0.0, "words {w:#x} {w2:#x}: {x:e}");
            }
            // mirrored words are mirrored draws, to the bit
            let (l32, l64) = (bits::logistic_f32(w, w2), bits::logistic_f64(w, w2));
            let mirrored = (bits::logistic_f32(!w, !w2), bits::logistic_f64(!w, !w2));
            assert_eq!((-l32).to_bits(), mirrored.0.to_bits(), "{w:#x} {w2:#x}");
            assert_eq!((-l64).to_bits(), mirrored.1.to_bits(), "{w:#x} {w2:#x}");
        }
    }
    let end = 65.0 * std::f64::consts::LN_2;
    for (x, want) in [
        (bits::logistic_f32(0, 0).into(), -end),
        (bits::logistic_f32(u32::MAX, u32::MAX).into(), end),
        (bits::logistic_f64(0, 0), -end),
        (bits::logistic_f64(u32::MAX, u32::MAX), end),
        (bits::logistic_f32(1 << 31, 0).into(), 2.0_f64.powi(-31)),
        (bits::logistic_f64(1 << 31, 0), 2.0_f64.powi(-63)),
        (bits::exponential_f32(0, 0).into(), 2.0_f64.powi(-65)),
        (bits::exponential_f64(0, 0), 2.0_f64.powi(-65)),
        (bits::exponential_f32(u32::MAX, u32::MAX).into(), end),
        (bits::exponential_f64(u32::MAX, u32::MAX), end),
    ] {
        relative(x, want, 2e-7, &"an end");
    }
}

#[test]
fn the_second_word_refines_both_ends_and_nothing_else() {
    for w in 0..256_u32 {
        for w in [w, !w] {
            assert_ne!(
                bits::logistic_f32(w, 1 << 20),
                bits::logistic_f32(w, 1 << 30)
            );
            assert_ne!(
                bits::exponential_f32(w, 0),
                bits::exponential_f32(w, u32::MAX)
            );
        }
        // each word's range touches the next one's
        let (a, b) = (
            bits::logistic_f32(w, u32::MAX),
            bits::logistic_f32(w + 1, 0),
        );
        assert!(a <= b + 1e-5, "{w}: {a} {b}");
        let (a, b) = (
            bits::logistic_f32(!w - 1, u32::MAX),
            bits::logistic_f32(!w, 0),
        );
        assert!(a <= b + 1e-5, "{w}: {a} {b}");
    }
    let mut rng = data::SplitMix(3);
    for _ in 0..2000 {
        let (a, b) = (rng.next() as u32, rng.next() as u32);
        let w = 256 + (rng.next() as u32) % (u32::MAX - 512);
        assert_eq!(bits::logistic_f32(w, a), bits::logistic_f32(w, b));
        assert_eq!(bits::exponential_f32(w, a), bits::exponential_f32(w, b));
        assert_ne!(bits::logistic_f64(w, a), bits::logistic_f64(w, b));
    }
}

#[test]
fn errors_over_the_whole_range_and_order() {
    // an odd stride, so that the low bits vary too; rounding may wobble by its own size
    const BLOCK: u64 = 1 << 14;
    let n = 1_u64 << 24;
    let worst = (0..n / BLOCK)
        .into_par_iter()
        .map(|b| {
            let at = |i: u64| (i * ((1 << 32) / n) + i % 251) as u32;
            let w: Vec<u32> = (b * BLOCK..(b + 1) * BLOCK).map(at).collect();
            let w2: Vec<u32> = w.iter().map(|w| w.wrapping_mul(2_654_435_761)).collect();
            let (mut e, mut l) = (vec![0.0; w.len()], vec![0.0; w.len()]);
            bits::exponential_f32_slice(&w, &w2, &mut e);
            bits::logistic_f32_slice(&w, &w2, &mut l);
            let mut worst = [0.0_f64; 4];
            for i in 0..w.len() {
                let mut note = |at: usize, got: f64, want: f64| {
                    worst[at] = worst[at].max(((got - want) / want).abs());
                };
                let narrow = refinement(w[i], w2[i]);
                let ends = both_ends(w[i], narrow);
                note(0, e[i].into(), exponential_from(ends));
                note(1, l[i].into(), logistic_from(ends, w[i], narrow));
                if i % 8 == 0 {
                    let ends = both_ends(w[i], Some(w2[i]));
                    note(
                        2,
                        bits::exponential_f64(w[i], w2[i]),
                        exponential_from(ends),
                    );
                    note(
                        3,
                        bits::logistic_f64(w[i], w2[i]),
                        logistic_from(ends, w[i], Some(w2[i])),
                    );
                }
                if i > 0 && w[i] > w[i - 1] {
                    assert!(e[i] >= e[i - 1] * (1.0 - 3e-7), "{:#x}", w[i]);
                    assert!(l[i] >= l[i - 1] - 5e-7 * l[i].abs(), "{:#x}", w[i]);
                }
            }
            worst
        })
        .reduce(|| [0.0; 4], |a, b| std::array::from_fn(|i| a[i].max(b[i])));
    println!(
        "worst relative errors: exponential f32 {:e}, logistic f32 {:e}, f64 {:e}, {:e}",
        worst[0], worst[1], worst[2], worst[3]
    );
    let bounds = [F32_EXPONENTIAL, F32_LOGISTIC, F64_EXPONENTIAL, F64_LOGISTIC];
    for (w, bound) in worst.into_iter().zip(bounds) {
        assert!(w <= bound, "{worst:?}");
    }
}

#[test]
fn one_key_is_one_draw_for_every_map() {
    let key = Key::new(17, 3);
    for dtype in [DType::F32, DType::F64] {
        let [v, g, e, l] = [
            uniform(50_000, dtype, &Device::Cpu, key),
            gumbel(50_000, dtype, &Device::Cpu, key),
            exponential(50_000, dtype, &Device::Cpu, key),
            logistic(50_000, dtype, &Device::Cpu, key),
        ]
        .map(|t| data::values(&t.unwrap()));
        // v itself is rounded, and 1 - v with it
        let digit = if dtype == DType::F32 {
            2.0_f64.powi(-24)
        } else {
            2.0_f64.powi(-53)
        };
        for i in 0..v.len() {
            let slack = digit * (1.0 / (1.0 - v[i]) + 10.0);
            relative(
                e[i],
                -(-v[i]).ln_1p(),
                slack / e[i] + 4.0 * digit,
                &"-ln(1 - v)",
            );
            assert!(
                (g[i] + e[i].ln()).abs() <= slack / e[i] + 1e-6,
                "{i}: {} {}",
                g[i],
                e[i]
            );
            let logit = v[i].ln() - (-v[i]).ln_1p();
            assert!(
                (l[i] - logit).abs() <= 2.0 * slack + 10.0 * digit * l[i].abs(),
                "{i}: {} {logit}",
                l[i]
            );
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn kolmogorov_smirnov() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            for key in [Key::new(1, 0), Key::new(2, 77), Key::new(0, 1 << 40)] {
                let n = 1_000_000;
                let e = data::values(&exponential(n, dtype, &device, key).unwrap());
                let p = ks(e, |e| -(-e).exp_m1());
                assert!(p > 1e-4, "exponential {dtype:?} {key:?}: p = {p:e}");
                let l = data::values(&logistic(n, dtype, &device, key).unwrap());
                let p = ks(l, sigmoid);
                assert!(p > 1e-4, "logistic {dtype:?} {key:?}: p = {p:e}");
            }
        }
    }
}

/// Counts in the tails, where a Kolmogorov-Smirnov test sees nothing: 2^32 draws a side, of which 400 lie beyond 16.3, 8.9 beyond 20.
#[test]
fn tail_counts_on_both_sides() {
    let n = 1_u64 << 32;
    let key = Key::new(20, 3);
    let check = |what: &str, t: f32, count: u64, probability: f64| {
        let mean = n as f64 * probability;
        let p = poisson_p(count, mean);
        println!("{what} {t}: {count} of {n}, expected {mean:.2}, p = {p:.3}");
        assert!(p > 1e-4, "{what} {t}: {count}, expected {mean}: p = {p:e}");
    };
    let cuts = [5.0_f32, 12.0, 16.0, 18.0, 20.0, 25.0];
    let below = cuts.map(|t| -t);
    let counts = bits::count_logistic_above(key, 0, n, &cuts);
    for (count, t) in counts.into_iter().zip(cuts) {
        check("logistic above", t, count, sigmoid(-f64::from(t)));
    }
    let counts = bits::count_logistic_below(key, 0, n, &below);
    for (count, t) in counts.into_iter().zip(below) {
        check("logistic below", t, count, sigmoid(t.into()));
    }
    let counts = bits::count_exponential_above(key, 0, n, &cuts);
    for (count, t) in counts.into_iter().zip(cuts) {
        check("exponential above", t, count, (-f64::from(t)).exp());
    }
    let small = [1e-2_f32, 1e-5, 1e-7, 1e-8, 2e-9];
    let counts = bits::count_exponential_below(key, 0, n, &small);
    for (count, t) in counts.into_iter().zip(small) {
        check("exponential below", t, count, -(-f64::from(t)).exp_m1());
    }
}

#[test]
fn an_exponential_is_above_zero_in_every_dtype() {
    // streams whose words are 0, where f32 has 2^-33 at the most
    let zeros = philox::rare().filter(|r| r.2 == 0).collect::<Vec<_>>();
    assert_eq!(zeros.len(), 2);
    for device in devices() {
        for dtype in data::FLOATS {
            for &(stream, index, _) in &zeros {
                let key = Key::new(philox::RARE_SEED, stream);
                let e = exponential(index as usize + 1, dtype, &device, key).unwrap();
                let e = data::values(&e);
                let last = e[index as usize];
                let bound = if dtype == DType::F16 {
                    2.0_f64.powi(-24)
                } else {
                    2.4e-10
                };
                assert!(last > 0.0 && last <= bound, "{dtype:?}: {last:e}");
            }
        }
    }
}
