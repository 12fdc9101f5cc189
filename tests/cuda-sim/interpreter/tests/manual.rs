//! The pseudo-code of the PTX manual, taken down bit by bit and lane by lane, against what the interpreter makes of the same
//! instructions: over random operands and the ones at the edges.

mod common;

use common::{Device, Lcg, Out, arg, eval, kernel};

/// Rows of random operands, of which many are small: positions, lengths, selectors.
fn rows(seed: u64) -> Vec<[u64; 3]> {
    let mut rng = Lcg(seed);
    let mut next = || {
        let (x, y) = (rng.next_u32(), rng.next_u32());
        let wide = u64::from(x) << 32 | u64::from(y);
        match x % 4 {
            0 => wide,
            1 => u64::from(y % 80),
            2 => u64::from(y) | 0xffff_0000_0000_0000,
            _ => [
                0,
                1,
                31,
                32,
                33,
                63,
                64,
                255,
                256,
                u64::MAX,
                1 << 63,
                1 << 31,
            ][y as usize % 12],
        }
    };
    (0..1024).map(|_| std::array::from_fn(|_| next())).collect()
}

/// Every row of an instruction, against its pseudo-code.
fn agree(out: Out, body: &str, rows: &[[u64; 3]], want: impl Fn([u64; 3]) -> u64) {
    for (row, got) in rows.iter().zip(eval(out, body, rows)) {
        let want = want(*row);
        assert_eq!(got, want, "{body} with {row:#x?}: {got:#x}, not {want:#x}");
    }
}

fn bit(x: u64, at: u64) -> u64 {
    x >> at & 1
}

#[test]
fn bits_are_extracted_and_inserted_one_by_one() {
    for (wide, signed) in [(false, false), (false, true), (true, false), (true, true)] {
        let top = if wide { 63 } else { 31 };
        let (ty, out) = match (wide, signed) {
            (false, false) => ("u32 %r20, %r11", Out::R),
            (false, true) => ("s32 %r20, %r11", Out::R),
            (true, false) => ("u64 %rd20, %rd11", Out::Rd),
            (true, true) => ("s64 %rd20, %rd11", Out::Rd),
        };
        let body = format!("bfe.{ty}, %r12, %r13;");
        agree(out, &body, &rows(1), |[a, b, c]| {
            let (pos, len) = (b & 0xff, c & 0xff);
            let fill = if !signed || len == 0 {
                0
            } else {
                bit(a, (pos + len - 1).min(top))
            };
            let one = |i| {
                if i < len && pos + i <= top {
                    bit(a, pos + i)
                } else {
                    fill
                }
            };
            (0..=top).map(|i| one(i) << i).sum()
        });
    }
    for (ty, out, top) in [
        ("b32 %r20, %r11, %r12, %r13, %r14", Out::R, 31),
        ("b64 %rd20, %rd11, %rd12, %r13, %r14", Out::Rd, 63),
    ] {
        // The length is the position's second byte.
        let body = format!("shr.u32 %r14, %r13, 3;\nbfi.{ty};");
        agree(out, &body, &rows(2), |[a, b, c]| {
            let (pos, len) = (c & 0xff, (c as u32 >> 3) as u64 & 0xff);
            let inside = |i: u64| i >= pos && i - pos < len;
            let one = |i| {
                if inside(i) {
                    bit(a, i - pos)
                } else {
                    bit(b, i)
                }
            };
            (0..=top).map(|i| one(i) << i).sum()
        });
    }
}

#[test]
fn bytes_are_picked_and_words_shifted_in_pairs() {
    let byte = |a: u64, b: u64, i: u64| {
        (if i < 4 {
            a >> (8 * i)
        } else {
            b >> (8 * (i - 4))
        }) & 0xff
    };
    agree(
        Out::R,
        "prmt.b32 %r20, %r11, %r12, %r13;",
        &rows(3),
        |[a, b, c]| {
            let one = |i: u64| {
                let (pick, sign) = (c >> (4 * i) & 7, bit(c, 4 * i + 3));
                let x = byte(a, b, pick);
                if sign == 1 { 0xff * (x >> 7) } else { x }
            };
            (0..4).map(|i| one(i) << (8 * i)).sum()
        },
    );
    // The bytes of each mode's result, from the top, for the selectors 0 to 3: the manual's table.
    let modes = [
        ("f4e", ["3210", "4321", "5432", "6543"]),
        ("b4e", ["5670", "6701", "7012", "0123"]),
        ("rc8", ["0000", "1111", "2222", "3333"]),
        ("ecl", ["3210", "3211", "3222", "3333"]),
        ("ecr", ["0000", "1110", "2210", "3210"]),
        ("rc16", ["1010", "3232", "1010", "3232"]),
    ];
    for (mode, table) in modes {
        let body = format!("prmt.b32.{mode} %r20, %r11, %r12, %r13;");
        agree(Out::R, &body, &rows(4), |[a, b, c]| {
            let picks = table[(c & 3) as usize].bytes();
            picks.fold(0, |x, p| x << 8 | byte(a, b, u64::from(p - b'0')))
        });
    }
    for (left, wrap) in [(true, true), (true, false), (false, true), (false, false)] {
        let (side, mode) = (
            if left { "l" } else { "r" },
            if wrap { "wrap" } else { "clamp" },
        );
        let body = format!("shf.{side}.{mode}.b32 %r20, %r11, %r12, %r13;");
        agree(Out::R, &body, &rows(5), |[a, b, c]| {
            let (a, b, c) = (a & 0xffff_ffff, b & 0xffff_ffff, c & 0xffff_ffff);
            let n = if wrap { c & 31 } else { c.min(32) };
            let pair = u128::from(b << 32 | a);
            (if left { pair << n >> 32 } else { pair >> n }) as u64 & 0xffff_ffff
        });
    }
}

#[test]
fn shuffles_follow_their_clamp_and_their_segments() {
    let mut rng = Lcg(6);
    for mode in ["up", "down", "bfly", "idx"] {
        let text = kernel(&format!(
            "mul.wide.u32 %rd3, %r1, 8;\nadd.u64 %rd4, %rd1, %rd3;\nadd.u64 %rd5, %rd2, %rd3;\n\
             ld.global.v2.u32 {{%r2, %r3}}, [%rd4];\nadd.u32 %r4, %r1, 100;\n\
             shfl.sync.{mode}.b32 %r5|%p1, %r4, %r2, %r3, -1;\nselp.u32 %r6, 1, 0, %p1;\n\
             st.global.v2.u32 [%rd5], {{%r5, %r6}};"
        ));
        let d = Device::new(&text);
        for _ in 0..200 {
            let operands: Vec<u32> = (0..64).map(|_| rng.next_u32() & 0x1f1f).collect();
            let (x, y) = (d.upload(&operands), d.alloc(256));
            d.ok("k", 1, 32, 0, &[arg(x), arg(y)]);
            let got = d.download::<u32>(y, 64);
            for lane in 0..32_u32 {
                let (b, c) = (operands[2 * lane as usize], operands[2 * lane as usize + 1]);
                let (bval, cval, segment) = (b & 31, c & 31, c >> 8 & 31);
                let max_lane = (lane & segment) | (cval & !segment);
                let min_lane = lane & segment;
                let (j, p) = match mode {
                    "up" => {
                        let j = lane as i32 - bval as i32;
                        (j, j >= max_lane as i32)
                    }
                    "down" => ((lane + bval) as i32, lane + bval <= max_lane),
                    "bfly" => ((lane ^ bval) as i32, lane ^ bval <= max_lane),
                    _ => {
                        let j = min_lane | (bval & !segment);
                        (j as i32, j <= max_lane)
                    }
                };
                let source = if p { j as u32 } else { lane };
                let found = &got[2 * lane as usize..][..2];
                assert_eq!(
                    found,
                    [source + 100, u32::from(p)],
                    "{mode} {lane} {b:#x} {c:#x}"
                );
            }
        }
    }
}

/// Floats of a width at the edges of formats, signs, integers and halves of them.
fn floats() -> Vec<f64> {
    let mut all = vec![
        f64::NAN,
        0.0,
        f64::MIN_POSITIVE,
        1e-310,
        1e-40,
        1e-7,
        f64::INFINITY,
    ];
    for bits in [7, 8, 15, 16, 31, 32, 63, 64] {
        let edge = f64::from(bits).exp2();
        let near = [
            edge.next_down(),
            edge,
            edge - 1.0,
            edge + 1.0,
            edge - 0.5,
            edge + 0.5,
        ];
        all.extend(near);
        all.extend([
            f64::from(edge as f32 * 0.999_999_94),
            f64::from(edge as f32 * 1.000_000_1),
        ]);
    }
    all.extend((0..40).map(|i| f64::from(i) * 0.25));
    let negative: Vec<f64> = all.iter().map(|x| -x).collect();
    all.extend(negative);
    all
}

#[test]
fn floats_become_integers_by_the_rule_of_each_pair_of_types() {
    for from in ["f32", "f64"] {
        let source = if from == "f32" { "%f1" } else { "%fd1" };
        let values: Vec<f64> = floats()
            .into_iter()
            .map(|x| {
                if from == "f32" {
                    f64::from(x as f32)
                } else {
                    x
                }
            })
            .collect();
        let bits = |x: f64| {
            if from == "f32" {
                u64::from((x as f32).to_bits())
            } else {
                x.to_bits()
            }
        };
        let rows: Vec<[u64; 3]> = values.iter().map(|&x| [bits(x), 0, 0]).collect();
        for (name, round) in [
            ("rni", f64::round_ties_even as fn(f64) -> f64),
            ("rzi", f64::trunc),
            ("rmi", f64::floor),
            ("rpi", f64::ceil),
        ] {
            for (to, width) in [
                ("s8", 8),
                ("u8", 8),
                ("s16", 16),
                ("u16", 16),
                ("s32", 32),
                ("u32", 32),
                ("s64", 64),
                ("u64", 64),
            ] {
                let (out, d) = if width == 64 {
                    (Out::Rd, "%rd20")
                } else {
                    (Out::R, "%r20")
                };
                let body = format!("cvt.{name}.{to}.{from} {d}, {source};");
                for (x, got) in values.iter().zip(eval(out, &body, &rows)) {
                    // The host's conversion saturates.
                    let r = round(*x);
                    let want = match to {
                        _ if x.is_nan() && (width == 64 || from == "f64") => {
                            // The top bit of the destination's type.
                            if to.starts_with('s') {
                                (i64::MIN >> (64 - width)) as u64
                            } else {
                                1 << (width - 1)
                            }
                        }
                        "s8" => i64::from(r as i8) as u64,
                        "u8" => u64::from(r as u8),
                        "s16" => i64::from(r as i16) as u64,
                        "u16" => u64::from(r as u16),
                        "s32" => i64::from(r as i32) as u64,
                        "u32" => u64::from(r as u32),
                        "s64" => (r as i64) as u64,
                        _ => r as u64,
                    };
                    let want = if width == 64 {
                        want
                    } else {
                        want & 0xffff_ffff
                    };
                    assert_eq!(got, want, "{body} of {x:e}: {got:#x}, not {want:#x}");
                }
            }
        }
    }
}

#[test]
fn the_smaller_and_the_larger_by_sign_of_zero_and_nan() {
    const NAN: u32 = 0x7fff_ffff;
    let values: Vec<f32> = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-40,
        -1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(0xffc1_2345),
        f32::from_bits(0x7f80_0001),
    ]
    .to_vec();
    let rows: Vec<[u64; 3]> = values
        .iter()
        .flat_map(|a| values.iter().map(move |b| [a, b]))
        .map(|[a, b]| [u64::from(a.to_bits()), u64::from(b.to_bits()), 0])
        .collect();
    for (op, larger) in [("min", false), ("max", true)] {
        for (ftz, nan) in [(false, false), (true, false), (false, true), (true, true)] {
            let body = format!(
                "{op}{}{}.f32 %f20, %f1, %f2;",
                if ftz { ".ftz" } else { "" },
                if nan { ".NaN" } else { "" }
            );
            agree(Out::F, &body, &rows, |[a, b, _]| {
                let flush = |x: u64| {
                    let x = f32::from_bits(x as u32);
                    if ftz && x.is_subnormal() {
                        0f32.copysign(x)
                    } else {
                        x
                    }
                };
                let (a, b) = (flush(a), flush(b));
                // -0 is the smaller of two zeros.
                let key = |x: f32| (x, !x.is_sign_negative());
                let first = if larger {
                    key(a) > key(b)
                } else {
                    key(a) < key(b)
                };
                let result = match (a.is_nan(), b.is_nan()) {
                    (true, true) => f32::NAN,
                    (true, false) | (false, true) if nan => f32::NAN,
                    (true, false) => b,
                    (false, true) => a,
                    _ => {
                        if first {
                            a
                        } else {
                            b
                        }
                    }
                };
                u64::from(if result.is_nan() {
                    NAN
                } else {
                    result.to_bits()
                })
            });
        }
    }
}
