//! Keys, the source of keys, and the generator as a rand generator.

use std::collections::HashSet;
use std::convert::Infallible;

use candle_core::{DType, Device};
use candle_reparam::{Key, Philox4x32, Rng, uniform};
use rand::rand_core::TryRng;
use rand::seq::SliceRandom;
use rand::{Rng as _, RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, StandardNormal};

use crate::support::statistics::{chi_square, ks, mean};
use crate::support::{data, oracle, philox};

#[test]
fn published_answers_through_the_public_block() {
    assert_eq!(
        Philox4x32::block([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        Philox4x32::block([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        Philox4x32::block(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    );
}

#[test]
fn the_block_is_the_scalar_one_everywhere() {
    let mut rng = data::SplitMix(6);
    for _ in 0..1000 {
        let c = [
            rng.next() as u32,
            rng.next() as u32,
            rng.next() as u32,
            rng.next() as u32,
        ];
        let k = [rng.next() as u32, rng.next() as u32];
        assert_eq!(Philox4x32::block(c, k), philox::block(c, k, 10));
    }
}

#[test]
fn the_generator_yields_its_stream_in_order() {
    for key in [
        Key::new(0, 0),
        Key::new(7, 3),
        Key::new(u64::MAX, (1 << 63) - 1),
    ] {
        let words: Vec<u32> = philox::stream_words(key.seed, key.stream, 4000)
            .into_iter()
            .map(|p| p.0)
            .collect();
        let mut rng = Philox4x32::new(key);
        for (i, w) in words.iter().enumerate() {
            assert_eq!(rng.next_u32(), *w, "{key:?} word {i}");
        }
        let mut rng = Philox4x32::new(key);
        for pair in words.chunks(2) {
            assert_eq!(
                rng.next_u64(),
                u64::from(pair[0]) | u64::from(pair[1]) << 32
            );
        }
        // 64 bits that straddle two blocks
        let mut rng = Philox4x32::new(key);
        for w in &words[..3] {
            assert_eq!(rng.next_u32(), *w);
        }
        assert_eq!(
            rng.next_u64(),
            u64::from(words[3]) | u64::from(words[4]) << 32
        );
        assert_eq!(rng.next_u32(), words[5]);
        // bytes are the words, little end first
        let mut bytes = [0; 24];
        Philox4x32::new(key).fill_bytes(&mut bytes);
        for (i, b) in bytes.chunks(4).enumerate() {
            assert_eq!(u32::from_le_bytes(b.try_into().unwrap()), words[i]);
        }
        let ok: Result<u32, Infallible> = Philox4x32::new(key).try_next_u32();
        assert_eq!(ok, Ok(words[0]));
    }
}

#[test]
fn the_generator_and_the_tensors_share_a_stream() {
    let key = Key::new(19, 4);
    let mut rng = Philox4x32::new(key);
    let u = uniform(100, DType::F64, &Device::Cpu, key)
        .unwrap()
        .to_vec1::<f64>()
        .unwrap();
    for u in u {
        let w = rng.next_u32();
        assert!((u * 4_294_967_296.0 - f64::from(w)).abs() <= 1.0);
    }
}

#[test]
fn a_clone_continues_where_the_original_is() {
    let mut a = Philox4x32::new(Key::new(1, 1));
    a.next_u32();
    let mut b = a.clone();
    let (x, y): (Vec<u32>, Vec<u32>) = (0..9).map(|_| (a.next_u32(), b.next_u32())).unzip();
    assert_eq!(x, y);
}

#[test]
fn seeding_is_reproducible_and_different() {
    let mut first = HashSet::new();
    for seed in 0..1000_u64 {
        let (mut a, mut b) = (
            Philox4x32::seed_from_u64(seed),
            Philox4x32::seed_from_u64(seed),
        );
        let w = a.next_u64();
        assert_eq!(w, b.next_u64());
        assert!(first.insert(w), "seed {seed} repeats another");
    }
    let seed = <Philox4x32 as SeedableRng>::Seed::default();
    assert_eq!(
        Philox4x32::from_seed(seed).next_u64(),
        Philox4x32::from_seed(seed).next_u64()
    );
    let mut other = seed;
    other.as_mut()[0] = 1;
    assert_ne!(
        Philox4x32::from_seed(seed).next_u64(),
        Philox4x32::from_seed(other).next_u64()
    );
}

#[test]
fn it_serves_rand_distr() {
    let mut rng = Philox4x32::new(Key::new(3, 3));
    let z: Vec<f64> = (0..200_000)
        .map(|_| StandardNormal.sample(&mut rng))
        .collect();
    assert!(mean(&z).abs() < 4.5 / (z.len() as f64).sqrt());
    let p = ks(z, oracle::normal_cdf);
    assert!(p > 1e-4, "{p:e}");
    let e: Vec<f64> = (0..200_000).map(|_| Exp1.sample(&mut rng)).collect();
    let p = ks(e, |x: f64| -(-x).exp_m1());
    assert!(p > 1e-4, "{p:e}");
    let u: Vec<f64> = (0..200_000).map(|_| rng.random::<f64>()).collect();
    let p = ks(u, |u| u);
    assert!(p > 1e-4, "{p:e}");
}

#[test]
fn it_shuffles_fairly_and_repeatably() {
    let shuffled = |stream| {
        let mut v = [0_u8, 1, 2, 3];
        v.shuffle(&mut Philox4x32::new(Key::new(8, stream)));
        v
    };
    assert_eq!(shuffled(1), shuffled(1));
    let mut counts = [0_u64; 256];
    for stream in 0..48_000 {
        let v = shuffled(stream);
        counts[v.iter().fold(0, |a, b| a * 4 + usize::from(*b))] += 1;
    }
    let seen: Vec<u64> = counts.into_iter().filter(|c| *c > 0).collect();
    assert_eq!(seen.len(), 24);
    let p = chi_square(&seen, &[1.0 / 24.0; 24]);
    assert!(p > 1e-4, "{p:e}: {seen:?}");
}

#[test]
fn keys_are_values() {
    let key = Key::new(1, 2);
    assert_eq!((key.seed, key.stream), (1, 2));
    assert_eq!(key, Key { seed: 1, stream: 2 });
    let set: HashSet<Key> = [key, key, Key::new(2, 1)].into_iter().collect();
    assert_eq!(set.len(), 2);
    assert!(format!("{key:?}").contains('2'));
}

#[test]
fn a_source_repeats_and_its_keys_differ() {
    let (a, b) = (Rng::new(5), Rng::new(5));
    let keys: Vec<Key> = (0..1000).map(|_| a.next_key()).collect();
    assert_eq!(keys, (0..1000).map(|_| b.next_key()).collect::<Vec<_>>());
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 1000);
    assert!(keys.iter().all(|k| k.stream < 1 << 63));
    let other = Rng::new(6);
    assert!((0..1000).all(|_| !keys.contains(&other.next_key())));
}

#[test]
fn keys_from_many_threads_and_clones_are_unique() {
    let rng = Rng::new(77);
    let keys: Vec<Key> = std::thread::scope(|s| {
        let handles: Vec<_> = (0..8)
            .map(|i| {
                // half of the threads hold a clone, half the original
                let clone = rng.clone();
                let original = &rng;
                s.spawn(move || {
                    let source = if i % 2 == 0 { &clone } else { original };
                    (0..20_000).map(|_| source.next_key()).collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|h| h.join().unwrap())
            .collect()
    });
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 160_000);
    // none was skipped: a fresh source gives the same set
    let fresh = Rng::new(77);
    let want: HashSet<Key> = (0..160_000).map(|_| fresh.next_key()).collect();
    assert_eq!(keys.into_iter().collect::<HashSet<_>>(), want);
}

#[test]
fn a_clone_shares_the_counter() {
    let a = Rng::new(1);
    let b = a.clone();
    let keys = [a.next_key(), b.next_key(), a.next_key(), b.next_key()];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 4);
}

#[test]
fn the_system_seeds_differ() {
    let first: HashSet<Key> = (0..16).map(|_| Rng::from_os().next_key()).collect();
    assert_eq!(first.len(), 16);
}

#[test]
fn folding_is_pure_and_spreads() {
    let key = Key::new(3, 4);
    assert_eq!(key.fold_in(9), key.fold_in(9));
    let mut seen = HashSet::from([key]);
    for i in 0..10_000 {
        let child = key.fold_in(i);
        assert!(child.stream < 1 << 63, "{i}: {child:?}");
        assert!(seen.insert(child), "{i} repeats");
    }
    for i in 0..100 {
        for j in 0..100 {
            assert!(
                seen.insert(key.fold_in(i).fold_in(j)),
                "{i} {j} repeats: folding must not commute or cancel"
            );
        }
    }
    assert!(seen.insert(key.fold_in(u64::MAX)));
    assert_ne!(Key::new(3, 5).fold_in(1), Key::new(3, 4).fold_in(1));
    assert_ne!(Key::new(4, 4).fold_in(1), Key::new(3, 4).fold_in(1));
}
