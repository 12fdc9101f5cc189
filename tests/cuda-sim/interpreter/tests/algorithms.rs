//! Kernels compiled from CUDA C++ (fixtures/algorithms.cu), each against the host's own computation.

mod common;

use common::{Device, Lcg, arg};
use ptx_sim::Options;

fn device() -> Device {
    Device::new(include_str!("fixtures/algorithms.ptx"))
}

/// Seeds that change the order of blocks and warps.
const SEEDS: [u64; 4] = [0, 1, 7, 123_456_789];

#[test]
fn reduction_sums_exactly_where_floats_do() {
    for seed in SEEDS {
        let mut d = device();
        d.options.seed = seed;
        for (n, block) in [(1, 32), (31, 64), (1000, 128), (4096, 1024), (5000, 256)] {
            // Small integers sum exactly in any order.
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 23) as f32).collect();
            let (a, b) = (d.upload(&x), d.alloc(4));
            d.ok("reduce_sum", 1, block, 0, &[arg(a), arg(b), arg(n)]);
            assert_eq!(
                d.download::<f32>(b, 1)[0],
                x.iter().sum::<f32>(),
                "n {n}, block {block}"
            );
        }
    }
}

#[test]
fn scan_of_a_block() {
    for seed in SEEDS {
        let mut d = device();
        d.options.seed = seed;
        for block in [1u32, 32, 48, 256, 1000] {
            let mut rng = Lcg(5);
            let x: Vec<i32> = (0..block).map(|_| rng.next_u32() as i32 >> 8).collect();
            let (a, b) = (d.upload(&x), d.alloc(x.len() * 4));
            let c = d.ok("scan", 1, block, block * 8, &[arg(a), arg(b)]);
            let mut sum = 0i32;
            let want: Vec<i32> = x
                .iter()
                .map(|v| {
                    sum = sum.wrapping_add(*v);
                    sum
                })
                .collect();
            assert_eq!(d.download::<i32>(b, x.len()), want);
            assert_eq!(
                c.barriers,
                1 + u64::from(block.next_power_of_two().trailing_zeros())
            );
        }
    }
}

#[test]
fn tiled_matrix_product() {
    for seed in SEEDS {
        let mut d = device();
        d.options.seed = seed;
        for (m, n, k) in [(16, 16, 16), (33, 17, 50), (64, 64, 64)] {
            let mut rng = Lcg(9);
            let a: Vec<f32> = (0..m * k).map(|_| rng.unit()).collect();
            let b: Vec<f32> = (0..k * n).map(|_| rng.unit()).collect();
            let (pa, pb, pc) = (d.upload(&a), d.upload(&b), d.alloc((m * n * 4) as usize));
            let grid = [(n as u32).div_ceil(16), (m as u32).div_ceil(16), 1];
            let args = [arg(pa), arg(pb), arg(pc), arg(m), arg(n), arg(k)];
            d.run("matmul", grid, [16, 16, 1], 0, &args)
                .unwrap_or_else(|e| panic!("{e}"));
            let c = d.download::<f32>(pc, (m * n) as usize);
            for i in 0..m {
                for j in 0..n {
                    let mut want = 0f32;
                    for l in 0..k {
                        want = a[(i * k + l) as usize].mul_add(b[(l * n + j) as usize], want);
                    }
                    assert_eq!(c[(i * n + j) as usize].to_bits(), want.to_bits());
                }
            }
        }
    }
}

#[test]
fn packed_halves_round_once() {
    let d = device();
    // 1 + 2^-10 times 1 + 2^-10, plus 2^-10: exact is 1 + 3 * 2^-10 + 2^-20, just above a representable number.
    let x = 0x3c01_3c01u32;
    let (px, py) = (d.upload(&[x; 40]), d.upload(&[0x1400_1400u32; 40]));
    d.ok("axpy_half2", 2, 32, 0, &[arg(px), arg(py), arg(x), arg(40)]);
    assert_eq!(d.download::<u32>(py, 40), vec![0x3c03_3c03; 40]);
    let (px, py) = (
        d.upload(&[0x3f81_4000u32; 40]),
        d.upload(&[0x3c00_bf80u32; 40]),
    );
    d.ok(
        "axpy_bf162",
        2,
        32,
        0,
        &[arg(px), arg(py), arg(0x3f81_3f80u32), arg(40)],
    );
    // High half: (1 + 2^-7)^2 + 2^-7 = 1 + 3 * 2^-7 + 2^-14. Low half: 2 * 1 - 1 = 1.
    assert_eq!(d.download::<u32>(py, 40), vec![0x3f83_3f80; 40]);
}

#[test]
fn divergent_loops_and_early_exits() {
    let d = device();
    let n = 1000;
    let x: Vec<u32> = (0..n).map(|i| i + 1).collect();
    let (a, b) = (d.upload(&x), d.alloc(x.len() * 4));
    d.ok("collatz", 8, 128, 0, &[arg(a), arg(b), arg(n)]);
    let want: Vec<u32> = x
        .iter()
        .map(|&v| {
            let (mut v, mut s) = (u64::from(v), 0);
            while v != 1 {
                v = if v % 2 == 1 { 3 * v + 1 } else { v / 2 };
                s += 1;
            }
            s
        })
        .collect();
    assert_eq!(d.download::<u32>(b, x.len()), want);
}

#[test]
fn device_functions_constants_and_globals() {
    let d = device();
    let n = 50i32;
    let mut rng = Lcg(3);
    let x: Vec<f32> = (0..n).map(|_| rng.unit()).collect();
    let (px, py, ps, pc) = (d.upload(&x), d.alloc(200), d.alloc(400), d.alloc(200));
    d.ok(
        "functions",
        1,
        50,
        0,
        &[arg(px), arg(py), arg(ps), arg(pc), arg(n)],
    );
    let (y, s, c) = (
        d.download::<f32>(py, 50),
        d.download::<f64>(ps, 50),
        d.download::<i32>(pc, 50),
    );
    for i in 0..50 {
        let want = [3f32, 0.5, -2.0, 1.0]
            .iter()
            .fold(0f32, |y, c| y.mul_add(x[i], *c));
        assert_eq!(y[i].to_bits(), want.to_bits());
        let above: Vec<f64> = x
            .iter()
            .filter(|v| **v > x[i])
            .map(|v| f64::from(*v))
            .collect();
        assert_eq!(c[i] as usize, above.len());
        assert_eq!(s[i], above.iter().sum::<f64>());
    }
    let (addr, size) = d.module.global("calls").expect("a variable");
    assert_eq!((size, d.download::<i32>(addr, 1)[0]), (4, 55));
}

#[test]
fn histogram_by_atomics() {
    for seed in SEEDS {
        let mut d = device();
        d.options.seed = seed;
        let mut rng = Lcg(8);
        let x: Vec<u8> = (0..20_000).map(|_| (rng.next_u32() >> 26) as u8).collect();
        let (px, bins) = (d.upload(&x), d.upload(&[0u32; 256]));
        d.ok("histogram", 13, 192, 0, &[arg(px), arg(bins), arg(20_000)]);
        let mut want = vec![0u32; 256];
        x.iter().for_each(|v| want[*v as usize] += 1);
        assert_eq!(d.download::<u32>(bins, 256), want);
    }
}

#[test]
fn local_arrays_and_switches() {
    let d = device();
    let x: Vec<i32> = (0..64).map(|i| i * 5 + 1).collect();
    let (px, po) = (d.upload(&x), d.alloc(256));
    d.ok("local_array", 1, 64, 0, &[arg(px), arg(po), arg(64)]);
    let want: Vec<i32> = (0..64)
        .map(|i| {
            let x = i * 5 + 1;
            let v = (x & 7) * (x & 7) + i;
            match x % 7 {
                0 => v + 10,
                1 => v * 3,
                2 => v ^ 0x55,
                3 => v - 100,
                4 => v << 2,
                5 => !v,
                _ => 7,
            }
        })
        .collect();
    assert_eq!(d.download::<i32>(po, 64), want);
}

#[test]
fn the_math_library_is_as_accurate_as_documented() {
    for perturb in [false, true] {
        let mut d = device();
        d.options = Options {
            seed: 11,
            perturb_approx: perturb,
            ..Options::default()
        };
        let x: Vec<f32> = (0..2000)
            .map(|i| (i as f32 - 1000.0) / 100.0 + 0.001)
            .collect();
        let (px, po) = (d.upload(&x), d.alloc(x.len() * 32));
        d.ok("math", 16, 128, 0, &[arg(px), arg(po), arg(x.len() as i32)]);
        let out = d.download::<f32>(po, x.len() * 8);
        for (i, &v) in x.iter().enumerate() {
            let v = f64::from(v);
            let want = [
                v.exp(),
                v.abs().ln(),
                v.abs().sqrt(),
                v.exp(),
                v.tanh(),
                f64::NAN,
                v.sin(),
                v.abs().powf(1.7),
            ];
            // In units of the last place, as the CUDA guide states them; __expf and the logarithm near 1 have their own.
            let ulps = [2.0, 2.0, 1.0, 40.0, 3.0, 2.0, 2.0, 6.0];
            for f in 0..8 {
                let got = f64::from(out[i * 8 + f]);
                if want[f].is_nan() {
                    assert!(got.abs() <= 1.0 && got * v >= 0.0);
                    continue;
                }
                let ulp = (want[f].abs().max(1e-3) as f32).next_up() as f64
                    - want[f].abs().max(1e-3) as f32 as f64;
                assert!(
                    (got - want[f]).abs()
                        <= (if perturb { 2.0 } else { 1.0 }) * ulps[f] * ulp.max(1e-8),
                    "function {f} of {v}: {got}, not {}",
                    want[f]
                );
            }
        }
    }
}

#[test]
fn the_math_library_in_double_precision() {
    let d = device();
    let x: Vec<f64> = (0..500).map(|i| (i as f64 - 250.0) / 20.0 + 0.01).collect();
    let (px, po) = (d.upload(&x), d.alloc(x.len() * 32));
    d.ok("math64", 4, 128, 0, &[arg(px), arg(po), arg(500)]);
    let out = d.download::<f64>(po, x.len() * 4);
    for (i, &v) in x.iter().enumerate() {
        let want = [
            v.exp(),
            v.abs().ln(),
            v.tanh() / (1.0 + v * v),
            1.0 / (v.abs() + 0.5).sqrt(),
        ];
        for f in 0..4 {
            let got = out[i * 4 + f];
            assert!(
                (got - want[f]).abs() <= 4e-16 * want[f].abs().max(1.0),
                "function {f} of {v}: {got}, not {}",
                want[f]
            );
        }
    }
}

#[test]
fn philox_matches_the_host() {
    let d = device();
    let po = d.alloc(100 * 16);
    d.ok(
        "philox",
        4,
        32,
        0,
        &[arg(po), arg(0xdead_beefu32), arg(42u32), arg(100)],
    );
    let out = d.download::<u32>(po, 400);
    for i in 0..100u32 {
        let (mut c, mut k) = ([i, 0, 7, 9], [0xdead_beefu32, 42]);
        for _ in 0..10 {
            let p0 = 0xD251_1F53u64 * u64::from(c[0]);
            let p1 = 0xCD9E_8D57u64 * u64::from(c[2]);
            c = [
                (p1 >> 32) as u32 ^ c[1] ^ k[0],
                p1 as u32,
                (p0 >> 32) as u32 ^ c[3] ^ k[1],
                p0 as u32,
            ];
            k = [
                k[0].wrapping_add(0x9E37_79B9),
                k[1].wrapping_add(0xBB67_AE85),
            ];
        }
        assert_eq!(out[i as usize * 4..][..4], c);
    }
}
