//! Integer, bit and predicate instructions against known results.

mod common;

use common::{Lcg, Out, check, eval, one, three, two};

const A: u64 = 0xffff_ffff;

#[test]
fn add_sub_wrap_and_saturate() {
    check(
        Out::R,
        "add.u32 %r20, %r11, %r12;",
        &two(&[(1, 2, 3), (A, 1, 0), (A, A, 0xffff_fffe)]),
    );
    check(
        Out::R,
        "sub.s32 %r20, %r11, %r12;",
        &two(&[(1, 2, A), (0x8000_0000, 1, 0x7fff_ffff)]),
    );
    check(
        Out::R,
        "add.sat.s32 %r20, %r11, %r12;",
        &two(&[
            (0x7fff_ffff, 1, 0x7fff_ffff),
            (0x8000_0000, A, 0x8000_0000),
            (5, A, 4),
        ]),
    );
    check(
        Out::R,
        "sub.sat.s32 %r20, %r11, %r12;",
        &two(&[(0x8000_0000, 1, 0x8000_0000), (0x7fff_ffff, A, 0x7fff_ffff)]),
    );
    check(
        Out::Rd,
        "add.s64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, 1, 0), (1 << 63, 1 << 63, 0)]),
    );
    check(
        Out::H,
        "add.s16 %h20, %h1, %h2;",
        &two(&[(0xffff, 1, 0), (0x7fff, 1, 0x8000)]),
    );
    check(
        Out::H,
        "sub.u16 %h20, %h1, -1;",
        &one(&[(0xffff, 0), (0, 1)]),
    );
}

#[test]
fn carries_run_through_chains() {
    let body = "add.cc.u32 %r2, %r11, %r12;\naddc.cc.u32 %r3, %r13, %r13;\naddc.u32 %r20, 0, 0;";
    check(
        Out::R,
        body,
        &three(&[
            (A, 1, 0x8000_0000, 1),
            (A, 1, 0x7fff_ffff, 0),
            (A, 0, 0x7fff_ffff, 0),
            (1, 1, A, 1),
        ]),
    );
    let body = "sub.cc.u32 %r2, %r11, %r12;\nsubc.u32 %r20, %r13, 0;";
    check(
        Out::R,
        body,
        &three(&[(0, 1, 5, 4), (1, 1, 5, 5), (0, A, 0, A)]),
    );
    // 64-bit product plus addend by 32-bit steps, as compilers write it.
    let body = "mul.lo.u32 %r2, %r11, %r12;\nmad.lo.cc.u32 %r3, %r11, %r12, %r13;\nmadc.hi.u32 %r4, %r11, %r12, 0;\n\
                mov.b64 %rd20, {%r3, %r4};";
    let mut rng = Lcg(1);
    let table: Vec<_> = (0..200)
        .map(|_| {
            let (a, b, c) = (rng.next_u32(), rng.next_u32(), rng.next_u32());
            (
                u64::from(a),
                u64::from(b),
                u64::from(c),
                u64::from(a) * u64::from(b) + u64::from(c),
            )
        })
        .collect();
    check(Out::Rd, body, &three(&table));
    let body = "add.cc.u64 %rd21, %rd11, %rd12;\naddc.u64 %rd20, %rd13, 0;";
    check(
        Out::Rd,
        body,
        &three(&[(u64::MAX, 1, 7, 8), (u64::MAX, 0, 7, 7)]),
    );
}

#[test]
fn products() {
    check(
        Out::R,
        "mul.lo.s32 %r20, %r11, %r12;",
        &two(&[(0x10000, 0x10000, 0), (A, A, 1), (7, 6, 42)]),
    );
    check(
        Out::R,
        "mul.hi.u32 %r20, %r11, %r12;",
        &two(&[(A, A, 0xffff_fffe), (0x8000_0000, 2, 1)]),
    );
    check(
        Out::R,
        "mul.hi.s32 %r20, %r11, %r12;",
        &two(&[(A, A, 0), (0x8000_0000, 2, A), (A, 1, A)]),
    );
    check(
        Out::Rd,
        "mul.hi.u64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, u64::MAX, u64::MAX - 1), (1 << 63, 2, 1)]),
    );
    check(
        Out::Rd,
        "mul.hi.s64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, u64::MAX, 0), (u64::MAX, 1, u64::MAX)]),
    );
    check(
        Out::Rd,
        "mul.wide.u32 %rd20, %r11, %r12;",
        &two(&[(A, A, 0xffff_fffe_0000_0001)]),
    );
    check(
        Out::Rd,
        "mul.wide.s32 %rd20, %r11, %r12;",
        &two(&[(A, A, 1), (A, 2, u64::MAX - 1)]),
    );
    check(
        Out::R,
        "mul.wide.u16 %r20, %h1, %h2;",
        &two(&[(0xffff, 0xffff, 0xfffe_0001)]),
    );
    check(
        Out::R,
        "mul.wide.s16 %r20, %h1, %h2;",
        &two(&[(0xffff, 0xffff, 1), (0x8000, 1, 0xffff_8000)]),
    );
    check(
        Out::H,
        "mul.lo.s16 %h20, %h1, %h2;",
        &two(&[(0x100, 0x101, 0x100)]),
    );
    check(
        Out::H,
        "mul.hi.u16 %h20, %h1, %h2;",
        &two(&[(0xffff, 0xffff, 0xfffe)]),
    );
    check(
        Out::R,
        "mad.lo.s32 %r20, %r11, %r12, %r13;",
        &three(&[(3, 4, 5, 17), (A, A, A, 0)]),
    );
    check(
        Out::R,
        "mad.hi.u32 %r20, %r11, %r12, %r13;",
        &three(&[(A, A, 3, 1)]),
    );
    check(
        Out::Rd,
        "mad.wide.u32 %rd20, %r11, %r12, %rd13;",
        &three(&[(A, A, u64::MAX, 0xffff_fffe_0000_0000)]),
    );
    check(
        Out::Rd,
        "mad.wide.s32 %rd20, %r11, %r12, %rd13;",
        &three(&[(A, 1, 5, 4)]),
    );
    check(
        Out::Rd,
        "mad.lo.u64 %rd20, %rd11, %rd12, %rd13;",
        &three(&[(1 << 40, 1 << 24, 9, 9)]),
    );
    check(
        Out::R,
        "mul24.lo.u32 %r20, %r11, %r12;",
        &two(&[(0xff00_0002, 0xff00_0003, 6)]),
    );
    check(
        Out::R,
        "mul24.hi.s32 %r20, %r11, %r12;",
        &two(&[(0x80_0000, 0x80_0000, 0x4000_0000)]),
    );
    check(
        Out::R,
        "dp4a.u32.u32 %r20, %r11, %r12, %r13;",
        &three(&[(0xff01_0203, 0x0201_0101, 10, 10 + 510 + 1 + 2 + 3)]),
    );
    check(
        Out::R,
        "dp4a.s32.s32 %r20, %r11, %r12, %r13;",
        &three(&[(0xff01_0203, 0x0201_0101, 10, 10 - 2 + 1 + 2 + 3)]),
    );
    check(
        Out::R,
        "sad.u32 %r20, %r11, %r12, %r13;",
        &three(&[(3, 10, 100, 107), (10, 3, 100, 107)]),
    );
    check(
        Out::R,
        "sad.s32 %r20, %r11, %r12, %r13;",
        &three(&[(A, 1, 0, 2)]),
    );
}

#[test]
fn division() {
    check(
        Out::R,
        "div.u32 %r20, %r11, %r12;",
        &two(&[(7, 2, 3), (A, 2, 0x7fff_ffff), (5, 0, A)]),
    );
    check(
        Out::R,
        "div.s32 %r20, %r11, %r12;",
        &two(&[
            (A - 6, 2, A - 2),
            (7, A - 1, A - 2),
            (0x8000_0000, A, 0x8000_0000),
        ]),
    );
    check(
        Out::R,
        "rem.s32 %r20, %r11, %r12;",
        &two(&[(A - 6, 2, A), (7, A - 1, 1), (0x8000_0000, A, 0)]),
    );
    check(
        Out::R,
        "rem.u32 %r20, %r11, %r12;",
        &two(&[(7, 3, 1), (A, 10, 5)]),
    );
    check(
        Out::Rd,
        "div.u64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, 10, u64::MAX / 10), (1, 0, u64::MAX)]),
    );
    check(
        Out::Rd,
        "rem.s64 %rd20, %rd11, %rd12;",
        &two(&[((-7i64).cast_unsigned(), 3, (-1i64).cast_unsigned())]),
    );
    check(
        Out::H,
        "div.u16 %h20, %h1, %h2;",
        &two(&[(0xffff, 16, 0xfff)]),
    );
    check(
        Out::H,
        "rem.s16 %h20, %h1, %h2;",
        &two(&[(0xfff9, 3, 0xffff)]),
    );
}

#[test]
fn extremes_signs_and_logic() {
    check(
        Out::R,
        "min.s32 %r20, %r11, %r12;",
        &two(&[(A, 1, A), (0x8000_0000, 0x7fff_ffff, 0x8000_0000)]),
    );
    check(Out::R, "min.u32 %r20, %r11, %r12;", &two(&[(A, 1, 1)]));
    check(
        Out::Rd,
        "max.s64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, 1, 1)]),
    );
    check(
        Out::Rd,
        "max.u64 %rd20, %rd11, %rd12;",
        &two(&[(u64::MAX, 1, u64::MAX)]),
    );
    check(Out::H, "max.s16 %h20, %h1, %h2;", &two(&[(0x8000, 1, 1)]));
    check(
        Out::R,
        "abs.s32 %r20, %r11;",
        &one(&[(A, 1), (0x8000_0000, 0x8000_0000), (5, 5)]),
    );
    check(
        Out::Rd,
        "neg.s64 %rd20, %rd11;",
        &one(&[(1, u64::MAX), (1 << 63, 1 << 63)]),
    );
    check(Out::H, "abs.s16 %h20, %h1;", &one(&[(0xfffe, 2)]));
    check(
        Out::R,
        "not.b32 %r20, %r11;",
        &one(&[(0, A), (0xf0f0_f0f0, 0x0f0f_0f0f)]),
    );
    check(Out::R, "cnot.b32 %r20, %r11;", &one(&[(0, 1), (7, 0)]));
    check(
        Out::H,
        "and.b16 %h20, %h1, %h2;",
        &two(&[(0xff0f, 0x0fff, 0x0f0f)]),
    );
    check(Out::R, "or.b32 %r20, %r11, 0xF0;", &one(&[(0x0f, 0xff)]));
    check(Out::Rd, "xor.b64 %rd20, %rd11, -1;", &one(&[(0, u64::MAX)]));
}

#[test]
fn shifts_clamp_their_count() {
    check(
        Out::R,
        "shl.b32 %r20, %r11, %r12;",
        &two(&[(1, 31, 0x8000_0000), (1, 32, 0), (A, 33, 0), (3, 0, 3)]),
    );
    check(
        Out::R,
        "shr.u32 %r20, %r11, %r12;",
        &two(&[(0x8000_0000, 31, 1), (A, 32, 0), (A, A, 0)]),
    );
    check(
        Out::R,
        "shr.s32 %r20, %r11, %r12;",
        &two(&[
            (0x8000_0000, 31, A),
            (0x8000_0000, 99, A),
            (0x7fff_ffff, 99, 0),
        ]),
    );
    check(
        Out::Rd,
        "shl.b64 %rd20, %rd11, %r12;",
        &two(&[(1, 63, 1 << 63), (1, 64, 0)]),
    );
    check(
        Out::Rd,
        "shr.s64 %rd20, %rd11, %r12;",
        &two(&[(1 << 63, 64, u64::MAX)]),
    );
    check(
        Out::H,
        "shr.u16 %h20, %h1, %r12;",
        &two(&[(0x8000, 15, 1), (0xffff, 16, 0)]),
    );
    check(
        Out::H,
        "shr.s16 %h20, %h1, %r12;",
        &two(&[(0x8000, 20, 0xffff)]),
    );
    check(
        Out::R,
        "shf.l.wrap.b32 %r20, %r11, %r12, %r13;",
        &three(&[(0x8000_0001, 1, 1, 3), (5, 7, 32, 7), (5, 7, 33, 14)]),
    );
    check(
        Out::R,
        "shf.l.clamp.b32 %r20, %r11, %r12, %r13;",
        &three(&[(5, 7, 32, 5), (5, 7, 99, 5), (0x8000_0000, 1, 1, 3)]),
    );
    check(
        Out::R,
        "shf.r.wrap.b32 %r20, %r11, %r12, %r13;",
        &three(&[(2, 1, 1, 0x8000_0001), (5, 7, 32, 5)]),
    );
    check(
        Out::R,
        "shf.r.clamp.b32 %r20, %r11, %r12, %r13;",
        &three(&[(5, 7, 32, 7), (5, 7, 77, 7), (2, 1, 1, 0x8000_0001)]),
    );
}

#[test]
fn bit_fields() {
    check(
        Out::R,
        "bfe.u32 %r20, %r11, %r12, %r13;",
        &three(&[
            (0x1234_5678, 8, 8, 0x56),
            (A, 28, 8, 0xf),
            (A, 40, 8, 0),
            (A, 0, 0, 0),
            (A, 0, 32, A),
            (A, 0, 99, A),
            (A, 256 + 4, 4, 0xf),
        ]),
    );
    check(
        Out::R,
        "bfe.s32 %r20, %r11, %r12, %r13;",
        &three(&[
            (0x0000_0080, 0, 8, 0xffff_ff80),
            (0x0000_0080, 0, 9, 0x80),
            (0x8000_0000, 28, 8, 0xffff_fff8),
            (0x8000_0000, 40, 4, A),
            (A, 3, 0, 0),
        ]),
    );
    check(
        Out::Rd,
        "bfe.u64 %rd20, %rd11, %r12, %r13;",
        &three(&[(u64::MAX, 60, 9, 0xf), (0xab00, 8, 8, 0xab)]),
    );
    check(
        Out::Rd,
        "bfe.s64 %rd20, %rd11, %r12, %r13;",
        &three(&[(1 << 63, 63, 1, u64::MAX)]),
    );
    check(
        Out::R,
        "bfi.b32 %r20, %r11, %r12, %r13, 8;",
        &three(&[
            (0xab, 0x1122_3344, 8, 0x1122_ab44),
            (0xab, 0, 28, 0xb000_0000),
            (1, 7, 32, 7),
        ]),
    );
    check(
        Out::Rd,
        "bfi.b64 %rd20, %rd11, %rd12, %r13, 32;",
        &three(&[
            (A, 0, 32, 0xffff_ffff_0000_0000),
            (1, u64::MAX, 0, 0xffff_ffff_0000_0001),
        ]),
    );
    check(
        Out::R,
        "popc.b32 %r20, %r11;",
        &one(&[(A, 32), (0, 0), (0x8001, 2)]),
    );
    check(Out::R, "popc.b64 %r20, %rd11;", &one(&[(u64::MAX, 64)]));
    check(
        Out::R,
        "clz.b32 %r20, %r11;",
        &one(&[(0, 32), (1, 31), (A, 0)]),
    );
    check(Out::R, "clz.b64 %r20, %rd11;", &one(&[(0, 64), (1, 63)]));
    check(
        Out::R,
        "brev.b32 %r20, %r11;",
        &one(&[(1, 0x8000_0000), (0x0f, 0xf000_0000)]),
    );
    check(Out::Rd, "brev.b64 %rd20, %rd11;", &one(&[(1, 1 << 63)]));
    check(
        Out::R,
        "bfind.u32 %r20, %r11;",
        &one(&[(0, A), (1, 0), (0x8000_0000, 31)]),
    );
    check(
        Out::R,
        "bfind.s32 %r20, %r11;",
        &one(&[(A, A), (0, A), (0x8000_0000, 30), (4, 2)]),
    );
    check(
        Out::R,
        "bfind.shiftamt.u32 %r20, %r11;",
        &one(&[(0, A), (1, 31), (0x8000_0000, 0)]),
    );
    check(Out::R, "bfind.u64 %r20, %rd11;", &one(&[(1 << 40, 40)]));
    check(
        Out::R,
        "bmsk.clamp.b32 %r20, %r11, %r12;",
        &two(&[(4, 4, 0xf0), (0, 32, A), (32, 4, 0), (28, 9, 0xf000_0000)]),
    );
    check(
        Out::R,
        "bmsk.wrap.b32 %r20, %r11, %r12;",
        &two(&[(36, 4, 0xf0), (4, 32, 0)]),
    );
}

#[test]
fn permutations_and_truth_tables() {
    check(
        Out::R,
        "prmt.b32 %r20, %r11, %r12, %r13;",
        &three(&[
            (0x3322_1100, 0x7766_5544, 0x7531, 0x7755_3311),
            (0x3322_1180, 0, 0x0008, 0x8080_80ff),
            (0x0000_0080, 0, 0x8888, A),
        ]),
    );
    check(
        Out::R,
        "prmt.b32.f4e %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0x7766_5544, 1, 0x4433_2211)]),
    );
    check(
        Out::R,
        "prmt.b32.rc8 %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0, 2, 0x2222_2222)]),
    );
    check(
        Out::R,
        "prmt.b32.rc16 %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0, 1, 0x3322_3322)]),
    );
    check(
        Out::R,
        "prmt.b32.ecl %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0, 2, 0x3322_2222)]),
    );
    check(
        Out::R,
        "prmt.b32.ecr %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0, 1, 0x1111_1100)]),
    );
    check(
        Out::R,
        "prmt.b32.b4e %r20, %r11, %r12, %r13;",
        &three(&[(0x3322_1100, 0x7766_5544, 0, 0x5566_7700)]),
    );
    // Every truth table, by its definition.
    for table in (0..256u32).step_by(7).chain([0x96, 0xe8, 0xff]) {
        let (a, b, c) = (0xf0f0_a5a5u32, 0xcccc_3c3cu32, 0xaaaa_9669u32);
        let mut want = 0;
        for bit in 0..32 {
            let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
            want |= (table >> row & 1) << bit;
        }
        let got = eval(
            Out::R,
            &format!("lop3.b32 %r20, %r11, %r12, %r13, {table:#x};"),
            &[[a.into(), b.into(), c.into()]],
        );
        assert_eq!(got, [u64::from(want)], "table {table:#x}");
    }
    let body = "setp.ne.u32 %p1, %r13, 0;\nlop3.or.b32 %r2|%p10, %r11, %r12, 0, 0xC0, %p1;";
    check(
        Out::P,
        body,
        &three(&[(1, 1, 0, 1), (1, 2, 0, 0), (1, 2, 1, 1)]),
    );
}

#[test]
fn comparisons_of_integers() {
    let cases = [(1u64, 2u64), (2, 1), (3, 3), (A, 1), (1, A)];
    type Test = fn(u32, u32) -> bool;
    let tests: [(&str, Test); 14] = [
        ("eq.s32", |a, b| a == b),
        ("ne.u32", |a, b| a != b),
        ("lt.s32", |a, b| (a as i32) < b as i32),
        ("le.s32", |a, b| a as i32 <= b as i32),
        ("gt.s32", |a, b| a as i32 > b as i32),
        ("ge.s32", |a, b| a as i32 >= b as i32),
        ("lt.u32", |a, b| a < b),
        ("le.u32", |a, b| a <= b),
        ("gt.u32", |a, b| a > b),
        ("ge.u32", |a, b| a >= b),
        ("lo.u32", |a, b| a < b),
        ("ls.u32", |a, b| a <= b),
        ("hi.u32", |a, b| a > b),
        ("hs.u32", |a, b| a >= b),
    ];
    for (name, test) in tests {
        let table: Vec<_> = cases
            .iter()
            .map(|&(a, b)| (a, b, u64::from(test(a as u32, b as u32))))
            .collect();
        check(
            Out::P,
            &format!("setp.{name} %p10, %r11, %r12;"),
            &two(&table),
        );
    }
    check(
        Out::P,
        "setp.lt.s64 %p10, %rd11, %rd12;",
        &two(&[(u64::MAX, 0, 1)]),
    );
    check(
        Out::P,
        "setp.lt.s16 %p10, %h1, %h2;",
        &two(&[(0xffff, 0, 1)]),
    );
    check(
        Out::P,
        "setp.lt.u16 %p10, %h1, %h2;",
        &two(&[(0xffff, 0, 0)]),
    );
}

#[test]
fn predicates_combine() {
    // p = (a < b) op c, q = !(a < b) op c
    for (op, f) in [
        ("and", (|x, y| x & y) as fn(bool, bool) -> bool),
        ("or", |x, y| x | y),
        ("xor", |x, y| x ^ y),
    ] {
        for negate in ["", "!"] {
            let body = format!(
                "setp.ne.u32 %p1, %r13, 0;\nsetp.lt.{op}.u32 %p2|%p3, %r11, %r12, {negate}%p1;\n\
                 selp.u32 %r2, 1, 0, %p2;\nselp.u32 %r3, 2, 0, %p3;\nadd.u32 %r20, %r2, %r3;"
            );
            let mut table = Vec::new();
            for (a, b, c) in [(1, 2, 0), (1, 2, 1), (2, 1, 0), (2, 1, 1)] {
                let third = (c != 0) != (negate == "!");
                let (p, q) = (f(a < b, third), f(a >= b, third));
                table.push((a, b, c, u64::from(p) + 2 * u64::from(q)));
            }
            check(Out::R, &body, &three(&table));
        }
    }
    let body = "setp.ne.u32 %p1, %r11, 0;\nsetp.ne.u32 %p2, %r12, 0;\nnot.pred %p3, %p1;\nxor.pred %p4, %p3, %p2;\nmov.pred %p10, %p4;";
    check(
        Out::P,
        body,
        &two(&[(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]),
    );
    check(Out::P, "mov.pred %p10, -1;", &two(&[(0, 0, 1)]));
    check(Out::P, "mov.pred %p10, 0;", &two(&[(0, 0, 0)]));
    check(
        Out::R,
        "set.lt.u32.s32 %r20, %r11, %r12;",
        &two(&[(A, 0, A), (0, A, 0)]),
    );
    check(
        Out::F,
        "set.ne.f32.u32 %f20, %r11, %r12;",
        &two(&[(1, 0, 0x3f80_0000), (1, 1, 0)]),
    );
    check(
        Out::R,
        "slct.u32.s32 %r20, %r11, %r12, %r13;",
        &three(&[(1, 2, 0, 1), (1, 2, A, 2)]),
    );
    check(
        Out::R,
        "slct.u32.f32 %r20, %r11, %r12, %f3;",
        &three(&[
            (1, 2, 0x8000_0000, 1),
            (1, 2, 0x7fc0_0000, 2),
            (1, 2, 0x8000_0001, 2),
        ]),
    );
    check(
        Out::R,
        "slct.ftz.u32.f32 %r20, %r11, %r12, %f3;",
        &three(&[(1, 2, 0x8000_0001, 1)]),
    );
}

#[test]
fn guards_and_vectors() {
    let body = "setp.gt.u32 %p1, %r11, 5;\nmov.u32 %r20, 1;\n@%p1 mov.u32 %r20, 2;\n@!%p1 add.u32 %r20, %r20, 10;";
    check(Out::R, body, &one(&[(4, 11), (6, 2)]));
    check(
        Out::Rd,
        "mov.b64 %rd20, {%r11, %r12};",
        &two(&[(1, 2, 0x2_0000_0001)]),
    );
    check(
        Out::R,
        "mov.b64 {%r2, %r20}, %rd11;",
        &one(&[(0x1234_0000_0005, 0x1234)]),
    );
    check(
        Out::R,
        "mov.b64 {%r20, _}, %rd11;",
        &one(&[(0x1234_0000_0005, 5)]),
    );
    check(
        Out::R,
        "mov.b32 %r20, {%h1, %h2};",
        &two(&[(1, 2, 0x2_0001)]),
    );
    check(
        Out::H,
        "mov.b32 {%h4, %h20}, %r11;",
        &one(&[(0xabcd_1234, 0xabcd)]),
    );
    check(
        Out::Rd,
        "mov.b64 %rd20, {%h1, %h2, %h3, %h1};",
        &three(&[(1, 2, 3, 0x0001_0003_0002_0001)]),
    );
    check(
        Out::H,
        "mov.b64 {%h4, %h5, %h20, %h6}, %rd11;",
        &one(&[(0x4444_3333_2222_1111, 0x3333)]),
    );
    // Scopes of inline assembly: the inner name hides the outer one.
    let body = "mov.u32 %r20, 1;\n{ .reg.b32 %r20, t;\nmov.u32 %r20, 7;\nadd.u32 t, %r20, 1;\n{\n.reg .pred p;\nsetp.eq.u32 p, t, 8;\n\
                @p bra L;\nmov.u32 %r3, 0;\nL: \n}\nmov.u32 %r2, t; }\nadd.u32 %r20, %r20, %r2;";
    check(Out::R, body, &one(&[(0, 9)]));
}

#[test]
fn conversions_between_integers() {
    check(
        Out::Rd,
        "cvt.s64.s32 %rd20, %r11;",
        &one(&[(A, u64::MAX), (1, 1)]),
    );
    check(Out::Rd, "cvt.u64.u32 %rd20, %r11;", &one(&[(A, A)]));
    check(
        Out::Rd,
        "cvt.u64.s16 %rd20, %h1;",
        &one(&[(0x8000, 0xffff_ffff_ffff_8000)]),
    );
    check(
        Out::R,
        "cvt.u32.u64 %r20, %rd11;",
        &one(&[(0x1_2345_6789_abcd, 0x6789_abcd)]),
    );
    check(
        Out::R,
        "cvt.s32.s8 %r20, %r11;",
        &one(&[(0x180, 0xffff_ff80), (0x7f, 0x7f)]),
    );
    check(Out::R, "cvt.u32.u8 %r20, %h1;", &one(&[(0xfff0, 0xf0)]));
    check(
        Out::R,
        "cvt.s8.s32 %r20, %r11;",
        &one(&[(0x1ff, A), (0x7f, 0x7f)]),
    );
    check(Out::R, "cvt.u8.u32 %r20, %r11;", &one(&[(0x1ff, 0xff)]));
    check(Out::H, "cvt.s8.s32 %h20, %r11;", &one(&[(0x80, 0xff80)]));
    check(
        Out::R,
        "cvt.sat.s8.s32 %r20, %r11;",
        &one(&[(200, 0x7f), (A - 199, 0xffff_ff80), (5, 5)]),
    );
    check(
        Out::R,
        "cvt.sat.u8.s32 %r20, %r11;",
        &one(&[(300, 255), (A, 0)]),
    );
    check(
        Out::R,
        "cvt.sat.u32.s64 %r20, %rd11;",
        &one(&[(u64::MAX, 0), (1 << 40, A)]),
    );
    check(
        Out::R,
        "cvt.sat.s32.u64 %r20, %rd11;",
        &one(&[(u64::MAX, 0x7fff_ffff)]),
    );
}
