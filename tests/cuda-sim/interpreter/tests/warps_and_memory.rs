//! Control flow, warp operations, every state space, atomics, counters; and what the interpreter must refuse.

mod common;

use common::{Device, Out, arg, check, eval, kernel};
use ptx_sim::{Fault, FaultKind, Memory, Module};
use std::sync::Arc;

/// Runs a body whose result is `%r20` for `n` threads.
fn lanes(body: &str, n: u32) -> Vec<u32> {
    let rows: Vec<[u64; 3]> = (0..u64::from(n)).map(|i| [i, i * i % 7, 0]).collect();
    eval(Out::R, body, &rows)
        .into_iter()
        .map(|x| x as u32)
        .collect()
}

fn decode(body: &str) -> Result<(), Fault> {
    let module = Module::parse(&kernel(body), &Arc::new(Memory::new()))?;
    module.function("k").map(|_| ())
}

// ---- warps ----

#[test]
fn shuffles() {
    let all = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<u32>>();
    assert_eq!(
        lanes("shfl.sync.bfly.b32 %r20, %r1, 5, 31, -1;", 32),
        all(|l| l ^ 5)
    );
    assert_eq!(
        lanes("shfl.sync.up.b32 %r20, %r1, 3, 0, -1;", 32),
        all(|l| if l >= 3 { l - 3 } else { l })
    );
    assert_eq!(
        lanes("shfl.sync.down.b32 %r20, %r1, 3, 31, -1;", 32),
        all(|l| if l + 3 < 32 { l + 3 } else { l })
    );
    assert_eq!(
        lanes("shfl.sync.idx.b32 %r20, %r1, 9, 31, -1;", 32),
        [9; 32]
    );
    // Segments of 8 lanes: c = (32 - 8) << 8 | 7 for idx, bfly and down; (32 - 8) << 8 for up.
    assert_eq!(
        lanes("shfl.sync.idx.b32 %r20, %r1, 10, 0x1807, -1;", 32),
        all(|l| (l & 24) + 2)
    );
    assert_eq!(
        lanes("shfl.sync.down.b32 %r20, %r1, 6, 0x1807, -1;", 32),
        all(|l| if l % 8 < 2 { l + 6 } else { l })
    );
    assert_eq!(
        lanes("shfl.sync.up.b32 %r20, %r1, 6, 0x1800, -1;", 32),
        all(|l| if l % 8 >= 6 { l - 6 } else { l })
    );
    let body = "shfl.sync.down.b32 %r2|%p1, %r1, 30, 31, -1;\nselp.u32 %r20, 1, 0, %p1;";
    assert_eq!(lanes(body, 32), all(|l| u32::from(l < 2)));
    // Each lane may ask for a lane of its own.
    assert_eq!(
        lanes(
            "sub.u32 %r2, 31, %r1;\nshfl.sync.idx.b32 %r20, %r1, %r2, 31, -1;",
            32
        ),
        all(|l| 31 - l)
    );
    // A block of 20 threads: the full mask is allowed, lanes that do not exist give something conspicuous.
    let v = lanes("shfl.sync.down.b32 %r20, %r1, 4, 31, -1;", 20);
    assert_eq!(v[..16], (4..20).collect::<Vec<u32>>());
    assert_eq!(v[16..], [0xdead_beef; 4]);
}

#[test]
fn votes_matches_and_reductions() {
    let p = "setp.lt.u32 %p1, %r1, 20;\n";
    assert_eq!(
        lanes(&format!("{p}vote.sync.ballot.b32 %r20, %p1, -1;"), 32),
        [0xf_ffff; 32]
    );
    assert_eq!(
        lanes(&format!("{p}vote.sync.ballot.b32 %r20, !%p1, -1;"), 32),
        [0xfff0_0000; 32]
    );
    for (mode, want) in [("all", 0), ("any", 1), ("uni", 0)] {
        let body = format!("{p}vote.sync.{mode}.pred %p2, %p1, -1;\nselp.u32 %r20, 1, 0, %p2;");
        assert_eq!(lanes(&body, 32), [want; 32], "{mode}");
    }
    let body = "and.b32 %r2, %r1, 3;\nmatch.any.sync.b32 %r20, %r2, -1;";
    assert_eq!(
        lanes(body, 32),
        (0..32)
            .map(|l| 0x1111_1111 << (l % 4))
            .collect::<Vec<u32>>()
    );
    let body = "match.all.sync.b32 %r2|%p1, %r1, -1;\nmatch.all.sync.b64 %r3|%p2, %rd1, -1;\nselp.u32 %r4, 16, 0, %p1;\n\
                selp.u32 %r5, 1, 0, %p2;\nadd.u32 %r6, %r4, %r5;\nadd.u32 %r7, %r6, %r2;\nsub.u32 %r20, %r7, %r3;";
    assert_eq!(lanes(body, 32), [1u32.wrapping_sub(0xffff_ffff); 32]);
    let values: Vec<u32> = (0..32u32).map(|l| l * l % 7).collect();
    let sum: u32 = values.iter().sum();
    assert_eq!(lanes("redux.sync.add.s32 %r20, %r12, -1;", 32), [sum; 32]);
    assert_eq!(lanes("redux.sync.max.u32 %r20, %r12, -1;", 32), [4; 32]);
    assert_eq!(
        lanes("neg.s32 %r2, %r12;\nredux.sync.min.s32 %r20, %r2, -1;", 32),
        [4u32.wrapping_neg(); 32]
    );
    assert_eq!(lanes("redux.sync.or.b32 %r20, %r12, -1;", 32), [7; 32]);
    assert_eq!(lanes("redux.sync.and.b32 %r20, %r12, -1;", 32), [0; 32]);
    assert_eq!(
        lanes("redux.sync.xor.b32 %r20, %r12, -1;", 32),
        [values.iter().fold(0, |a, b| a ^ b); 32]
    );
    let body =
        "mov.u32 %r20, 0;\nsetp.lt.u32 %p1, %r1, 5;\n@!%p1 bra END;\nactivemask.b32 %r20;\nEND:";
    assert_eq!(
        lanes(body, 32),
        (0..32)
            .map(|l| if l < 5 { 31 } else { 0 })
            .collect::<Vec<u32>>()
    );
    let body = "mov.u32 %r20, 9;\nsetp.lt.u32 %p1, %r1, 5;\n@%p1 bra END;\nelect.sync %r2|%p2, 0xffffffe0;\nselp.u32 %r20, 1, 0, %p2;\nEND:";
    assert_eq!(
        lanes(body, 32),
        (0..32)
            .map(|l| match l {
                0..5 => 9,
                5 => 1,
                _ => 0,
            })
            .collect::<Vec<u32>>()
    );
}

#[test]
fn barrier_reductions() {
    let p = "setp.lt.u32 %p1, %r1, 40;\n";
    assert_eq!(
        lanes(&format!("{p}bar.red.popc.u32 %r20, 0, %p1;"), 100),
        [40; 100]
    );
    assert_eq!(
        lanes(&format!("{p}bar.red.popc.u32 %r20, 0, !%p1;"), 100),
        [60; 100]
    );
    for (op, want) in [("and", 0), ("or", 1)] {
        let body = format!("{p}bar.red.{op}.pred %p2, 0, %p1;\nselp.u32 %r20, 1, 0, %p2;");
        assert_eq!(lanes(&body, 100), [want; 100]);
    }
    assert_eq!(
        lanes(
            "setp.ge.u32 %p1, %r1, 0;\nbarrier.red.and.pred %p2, 0, %p1;\nselp.u32 %r20, 1, 0, %p2;",
            64
        ),
        [1; 64]
    );
}

#[test]
fn producers_and_consumers_at_named_barriers() {
    // The second warp arrives and goes on; the first waits for it.
    let body = ".shared .align 4 .b8 s[128];\nmov.u32 %r2, s;\nsetp.lt.u32 %p1, %r1, 32;\n@%p1 bra CONSUME;\n\
                sub.u32 %r3, %r1, 32;\nshl.b32 %r4, %r3, 2;\nadd.u32 %r5, %r2, %r4;\nmul.lo.u32 %r6, %r1, 3;\nst.shared.u32 [%r5], %r6;\n\
                bar.arrive 3, 64;\nmov.u32 %r20, 0;\nbra END;\nCONSUME:\nbar.sync 3, 64;\nshl.b32 %r4, %r1, 2;\n\
                add.u32 %r5, %r2, %r4;\nld.shared.u32 %r20, [%r5];\nEND:";
    let want: Vec<u32> = (0..64)
        .map(|t| if t < 32 { (t + 32) * 3 } else { 0 })
        .collect();
    assert_eq!(lanes(body, 64), want);
}

#[test]
fn special_registers() {
    let body = "mov.u32 %r2, %tid.x;\nmov.u32 %r3, %tid.y;\nmov.u32 %r4, %tid.z;\nmov.u32 %r5, %ntid.x;\nmov.u32 %r6, %ntid.y;\n\
                mov.u32 %r7, %ctaid.x;\nmov.u32 %r8, %ctaid.y;\nmov.u32 %r9, %nctaid.x;\nmad.lo.u32 %r10, %r4, %r6, %r3;\n\
                mad.lo.u32 %r11, %r10, %r5, %r2;\nmad.lo.u32 %r12, %r8, %r9, %r7;\nmov.u32 %r13, %ntid.z;\nmul.lo.u32 %r14, %r5, %r6;\n\
                mul.lo.u32 %r15, %r14, %r13;\nmad.lo.u32 %r16, %r12, %r15, %r11;\nmul.wide.u32 %rd3, %r16, 16;\nadd.u64 %rd4, %rd2, %rd3;\n\
                mov.u32 %r17, %laneid;\nmov.u32 %r18, %warpid;\nmov.u32 %r19, %lanemask_lt;\nmov.u32 %r20, %nwarpid;\n\
                st.global.v4.u32 [%rd4], {%r17, %r18, %r19, %r20};";
    let d = Device::new(&kernel(body));
    let (block, grid) = ([5u32, 3, 4], [2u32, 3, 1]);
    let out = d.alloc(16 * 60 * 6);
    d.run("k", grid, block, 0, &[arg(0u64), arg(out)])
        .unwrap_or_else(|e| panic!("{e}"));
    let got = d.download::<u32>(out, 4 * 60 * 6);
    for (i, v) in got.chunks(4).enumerate() {
        let t = i as u32 % 60;
        assert_eq!(v, [t % 32, t / 32, (1u32 << (t % 32)) - 1, 2], "thread {t}");
    }
    for (name, f) in [
        ("eq", (|b| b) as fn(u32) -> u32),
        ("le", |b| b | (b - 1)),
        ("gt", |b| !(b | (b - 1))),
        ("ge", |b| !(b - 1)),
    ] {
        let want: Vec<u32> = (0..32).map(|l| f(1 << l)).collect();
        assert_eq!(lanes(&format!("mov.u32 %r20, %lanemask_{name};"), 32), want);
    }
    let d = Device::new(&kernel(
        ".shared .align 4 .b8 s[12];\nmov.u32 %r3, s;\nmov.u32 %r2, %dynamic_smem_size;\nst.global.u32 [%rd2], %r2;\n\
         mov.u64 %rd5, %clock64;\nmov.u64 %rd6, %clock64;\nsetp.ge.u64 %p1, %rd6, %rd5;\nselp.u32 %r4, 1, 0, %p1;\nst.global.u32 [%rd2+4], %r4;",
    ));
    let out = d.alloc(8);
    d.ok("k", 1, 1, 100, &[arg(0u64), arg(out)]);
    assert_eq!(d.download::<u32>(out, 2), [100, 1]);
}

#[test]
fn indexed_branches() {
    let body = "and.b32 %r2, %r1, 3;\nTABLE: .branchtargets L0, L1, L2, L0;\nbrx.idx %r2, TABLE;\nL0: mov.u32 %r20, 10;\nbra END;\n\
                L1: mov.u32 %r20, 11;\nbra END;\nL2: mov.u32 %r20, 12;\nEND: add.u32 %r20, %r20, %r1;";
    assert_eq!(
        lanes(body, 40),
        (0..40)
            .map(|l| [10, 11, 12, 10][l % 4] + l as u32)
            .collect::<Vec<u32>>()
    );
    let d = Device::new(&kernel(
        "TABLE: .branchtargets L0, L0;\nbrx.idx %r1, TABLE;\nL0: mov.u32 %r2, 1;",
    ));
    assert_eq!(
        d.fault("k", 1, 3, 0, &[arg(0u64), arg(0u64)]).thread,
        Some([2, 0, 0])
    );
}

#[test]
fn nested_divergence_meets_again() {
    // Every lane runs its own number of rounds of an inner loop, with a continue and a break; then all must be together.
    let body = "mov.u32 %r20, 0;\nmov.u32 %r2, 0;\nOUTER:\nsetp.ge.u32 %p1, %r2, 4;\n@%p1 bra DONE;\nmov.u32 %r3, 0;\nINNER:\n\
                setp.ge.u32 %p2, %r3, %r1;\n@%p2 bra NEXT;\nadd.u32 %r3, %r3, 1;\nand.b32 %r4, %r3, 1;\nsetp.eq.u32 %p3, %r4, 0;\n\
                @%p3 bra INNER;\nadd.u32 %r20, %r20, %r3;\nsetp.gt.u32 %p4, %r20, 300;\n@%p4 bra DONE;\nbra INNER;\nNEXT:\n\
                add.u32 %r2, %r2, 1;\nbra OUTER;\nDONE:\nactivemask.b32 %r5;\nadd.u32 %r20, %r20, %r5;";
    let value = |t: u32| {
        let mut sum = 0u32;
        for _ in 0..4 {
            for i in (1..=t).filter(|i| i % 2 == 1) {
                sum += i;
                if sum > 300 {
                    return sum;
                }
            }
        }
        sum
    };
    assert_eq!(
        lanes(body, 32),
        (0..32)
            .map(|t| value(t).wrapping_add(u32::MAX))
            .collect::<Vec<u32>>()
    );
}

// ---- calls ----

#[test]
fn calls_pass_and_return_parameters() {
    let functions = ".func (.param .b32 r) twice(.param .b32 x)\n{\n.reg .b32 %r<3>;\n.reg .pred %p<2>;\nld.param.u32 %r1, [x];\n\
        setp.gt.u32 %p1, %r1, 100;\n@%p1 bra BIG;\nadd.u32 %r2, %r1, %r1;\nst.param.b32 [r+0], %r2;\nret;\nBIG: st.param.b32 [r], 7;\nret;\n}\n\
        .func (.param .align 8 .b8 r[12]) pair(.param .b64 a, .param .align 4 .b8 s[8])\n{\n.reg .b32 %r<5>;\n.reg .b64 %rd<3>;\n\
        ld.param.u64 %rd1, [a];\nld.param.v2.u32 {%r1, %r2}, [s];\nadd.u32 %r3, %r1, %r2;\n{\n.param .b32 p0;\n.param .b32 q0;\nst.param.b32 [p0], %r3;\n\
        call.uni (q0), twice, (p0);\nld.param.b32 %r4, [q0];\n}\nadd.u64 %rd2, %rd1, 1;\nst.param.b64 [r], %rd2;\nst.param.b32 [r+8], %r4;\nret;\n}\n";
    let body = "{\n.param .b64 a;\n.param .align 4 .b8 s[8];\n.param .align 8 .b8 r[12];\nst.param.b64 [a], 41;\nst.param.b32 [s], %r1;\n\
                st.param.b32 [s+4], 3;\ncall (r), pair, (a, s);\nld.param.b64 %rd5, [r];\nld.param.b32 %r5, [r+8];\n}\n\
                setp.eq.u32 %p1, %r1, 3;\nmov.u32 %r6, 0;\n{\n.param .b32 x;\n.param .b32 y;\nst.param.b32 [x], 50;\nst.param.b32 [y], 0;\n\
                @%p1 call (y), twice, (x);\nld.param.b32 %r6, [y];\n}\n\
                cvt.u32.u64 %r7, %rd5;\nadd.u32 %r8, %r7, %r5;\nadd.u32 %r9, %r8, %r6;\nmul.wide.u32 %rd6, %r1, 4;\nadd.u64 %rd7, %rd2, %rd6;\nst.global.u32 [%rd7], %r9;";
    let text = kernel(body).replace(".visible .entry", &format!("{functions}.visible .entry"));
    let d = Device::new(&text);
    let out = d.alloc(128 * 4);
    d.ok("k", 1, 128, 0, &[arg(0u64), arg(out)]);
    let want: Vec<u32> = (0..128)
        .map(|t| 42 + if t + 3 > 100 { 7 } else { 2 * (t + 3) } + if t == 3 { 100 } else { 0 })
        .collect();
    assert_eq!(d.download::<u32>(out, 128), want);
}

#[test]
fn recursion_and_missing_functions_are_refused() {
    let with = |f: &str| {
        let text = kernel("call f;").replace(".visible .entry", &format!("{f}.visible .entry"));
        Module::parse(&text, &Arc::new(Memory::new()))
            .and_then(|m| m.function("k").map(|_| ()))
            .map_err(|e| e.kind)
    };
    assert_eq!(with(".func f\n{\nret;\n}\n"), Ok(()));
    assert_eq!(
        with(".func f\n{\ncall f;\nret;\n}\n"),
        Err(FaultKind::Unsupported)
    );
    assert_eq!(
        with(".func g;\n.func f\n{\ncall g;\nret;\n}\n.func g\n{\ncall f;\n}\n"),
        Err(FaultKind::Unsupported)
    );
    assert_eq!(with(".extern .func f;\n"), Err(FaultKind::UnknownSymbol));
    // Assertions decode, and are an error when they are reached.
    let text = kernel("setp.lt.u32 %p1, %r1, 5;\n@%p1 bra GOOD;\ncall __assertfail;\ntrap;\nGOOD:")
        .replace(
            ".visible .entry",
            ".extern .func __assertfail;\n.visible .entry",
        );
    let d = Device::new(&text);
    d.ok("k", 1, 5, 0, &[arg(0u64), arg(0u64)]);
    let e = d.fault("k", 1, 6, 0, &[arg(0u64), arg(0u64)]);
    assert_eq!((e.kind, e.thread), (FaultKind::Trap, Some([5, 0, 0])));
}

// ---- memory ----

#[test]
fn narrow_loads_extend() {
    let d = Device::new(&kernel(
        "ld.global.s8 %r2, [%rd1];\nst.global.u32 [%rd2], %r2;\nld.global.u8 %r2, [%rd1];\nst.global.u32 [%rd2+4], %r2;\n\
         ld.global.s16 %rd3, [%rd1+2];\nst.global.u64 [%rd2+8], %rd3;\nld.global.s8 %h1, [%rd1];\ncvt.u32.u16 %r2, %h1;\nst.global.u32 [%rd2+16], %r2;\n\
         ld.global.b16 %r2, [%rd1+2];\nst.global.u32 [%rd2+20], %r2;\nld.global.s32 %rd3, [%rd1+4];\nst.global.u64 [%rd2+24], %rd3;\n\
         mov.u32 %r2, 0x12345678;\nst.global.u8 [%rd2+32], %r2;\nst.global.u16 [%rd2+34], %r2;\n",
    ));
    let (a, out) = (
        d.upload(&[0x80u8, 0, 0xfe, 0xff, 1, 0, 0, 0x80]),
        d.alloc(40),
    );
    d.memory.fill(out, 0, 40).expect("in bounds");
    d.ok("k", 1, 1, 0, &[arg(a), arg(out)]);
    let got = d.download::<u64>(out, 5);
    assert_eq!(
        got,
        [
            0x80_ffff_ff80,
            (-2i64).cast_unsigned(),
            0xfffe_0000_ff80,
            0xffff_ffff_8000_0001,
            0x5678_0078
        ]
    );
}

#[test]
fn vectors_and_hints() {
    let d = Device::new(&kernel(
        "ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];\nst.global.cs.v4.f32 [%rd2], {%f4, %f3, %f2, %f1};\n\
         ld.volatile.global.v2.u64 {%rd3, %rd4}, [%rd1+16];\nst.volatile.global.v2.u64 [%rd2+16], {%rd4, %rd3};\n\
         ld.relaxed.gpu.global.u32 %r2, [%rd1];\nst.release.gpu.global.u32 [%rd2+32], %r2;\nldu.global.u32 %r3, [%rd1+4];\nst.wt.global.u32 [%rd2+36], %r3;\n\
         ld.global.L1::evict_last.v2.b16 {%h1, _}, [%rd1+8];\nst.global.L1::evict_first.b16 [%rd2+40], %h1;\nld.acquire.sys.u32 %r4, [%rd1+12];\nst.u32 [%rd2+44], %r4;",
    ));
    let (a, out) = (
        d.upload(&[1u32, 2, 3, 4, 5, 6, 7, 8]),
        d.upload(&[0u32; 12]),
    );
    d.ok("k", 1, 1, 0, &[arg(a), arg(out)]);
    assert_eq!(
        d.download::<u32>(out, 12),
        [4, 3, 2, 1, 7, 8, 5, 6, 1, 2, 3, 4]
    );
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = ".shared .align 8 .b8 s[8];\n.local .align 8 .b8 l[8];\nmov.u64 %rd3, s;\ncvta.shared.u64 %rd4, %rd3;\nmov.u64 %rd5, l;\ncvta.local.u64 %rd6, %rd5;\n\
                cvta.global.u64 %rd7, %rd1;\nst.u32 [%rd4], 11;\nst.u32 [%rd6], 22;\nld.u32 %r2, [%rd4];\nld.u32 %r3, [%rd6];\nld.u32 %r4, [%rd7];\n\
                ld.shared.u32 %r5, [s];\nld.local.u32 %r6, [l];\ncvta.to.shared.u64 %rd8, %rd4;\nld.shared.u32 %r7, [%rd8];\n\
                isspacep.shared %p1, %rd4;\nisspacep.local %p2, %rd6;\nisspacep.global %p3, %rd7;\nisspacep.global %p4, %rd4;\nisspacep.shared %p5, %rd6;\n\
                selp.u32 %r8, 1, 0, %p1;\nselp.u32 %r9, 2, 0, %p2;\nselp.u32 %r10, 4, 0, %p3;\nselp.u32 %r11, 8, 0, %p4;\nselp.u32 %r12, 16, 0, %p5;\n\
                add.u32 %r8, %r8, %r9;\nadd.u32 %r8, %r8, %r10;\nadd.u32 %r8, %r8, %r11;\nadd.u32 %r8, %r8, %r12;\n\
                st.global.v4.u32 [%rd2], {%r2, %r3, %r4, %r5};\nst.global.v4.u32 [%rd2+16], {%r6, %r7, %r8, %r1};";
    let d = Device::new(&kernel(body));
    let (a, out) = (d.upload(&[33u32]), d.alloc(32));
    d.ok("k", 1, 1, 0, &[arg(a), arg(out)]);
    assert_eq!(d.download::<u32>(out, 8), [11, 22, 33, 11, 22, 11, 7, 0]);
    // Lanes of one warp in different spaces.
    let body = ".shared .align 4 .b8 s[128];\nmov.u64 %rd3, s;\ncvta.shared.u64 %rd4, %rd3;\nand.b32 %r2, %r1, 1;\nsetp.eq.u32 %p1, %r2, 0;\n\
                mul.wide.u32 %rd5, %r1, 4;\nselp.b64 %rd6, %rd4, %rd2, %p1;\nadd.u64 %rd7, %rd6, %rd5;\nst.u32 [%rd7], %r1;\nld.u32 %r3, [%rd7];\n\
                add.u64 %rd8, %rd2, %rd5;\nst.global.u32 [%rd8], %r3;";
    let d = Device::new(&kernel(body));
    let out = d.alloc(128);
    d.ok("k", 1, 32, 0, &[arg(0u64), arg(out)]);
    assert_eq!(d.download::<u32>(out, 32), (0..32).collect::<Vec<u32>>());
}

#[test]
fn module_variables_and_their_initialisers() {
    let variables = ".global .align 4 .u32 words[3] = {1, 0x20, -3};\n.const .align 8 .f64 pi = 0d400921FB54442D18;\n\
        .global .align 8 .u64 pointer[2] = {generic(words)+8, words};\n.global .f32 single = 0f3F800000;\n.global .align 2 .b8 bytes[5] = {104, 105};\n\
        .visible .global .align 4 .u32 zero;\n.extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 fixed[20];\n";
    let body = "ld.global.u64 %rd3, [pointer];\nld.global.u32 %r2, [%rd3];\nst.global.u32 [%rd2], %r2;\nld.global.u64 %rd4, [pointer+8];\nld.u32 %r3, [%rd4+4];\n\
        st.global.u32 [%rd2+4], %r3;\nld.const.f64 %fd1, [pi];\nst.global.f64 [%rd2+8], %fd1;\nld.global.f32 %f1, [single];\nst.global.f32 [%rd2+16], %f1;\n\
        mov.u64 %rd5, bytes+1;\nld.global.u8 %r4, [%rd5];\nst.global.u32 [%rd2+20], %r4;\nld.global.u32 %r5, [zero];\nst.global.u32 [%rd2+24], %r5;\n\
        mov.u32 %r6, dynamic;\nmov.u32 %r7, fixed;\nst.shared.u32 [%r6+60], 9;\nst.shared.u32 [%r7+16], 8;\nld.shared.u32 %r8, [%r6+60];\n\
        st.global.u32 [%rd2+28], %r8;\nst.global.u32 [%rd2+32], %r6;\nld.shared.u32 %r9, [fixed+16];\nst.global.u32 [%rd2+36], %r9;";
    let text = kernel(body).replace(".visible .entry", &format!("{variables}.visible .entry"));
    let d = Device::new(&text);
    let out = d.alloc(40);
    d.ok("k", 1, 1, 64, &[arg(0u64), arg(out)]);
    let pi = std::f64::consts::PI.to_bits();
    let want = [
        -3i32 as u32,
        0x20,
        pi as u32,
        (pi >> 32) as u32,
        0x3f80_0000,
        105,
        0,
        9,
        32,
        8,
    ];
    assert_eq!(d.download::<u32>(out, 10), want);
    assert_eq!(d.module.function("k").map(|f| f.static_shared()), Ok(20));
    assert_eq!(d.module.global("words").map(|g| g.1), Some(12));
    assert_eq!(d.module.global("nothing"), None);
    // One word further is past the dynamic part.
    let e = d.fault("k", 1, 1, 60, &[arg(0u64), arg(out)]);
    assert_eq!(e.kind, FaultKind::OutOfBounds);
    // Variables go with their module, and are no leaks.
    assert_eq!(d.memory.live(), [(out, 40)]);
}

#[test]
fn structures_as_kernel_parameters() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k(.param .u8 a, .param .align 8 .b8 s[24], .param .u16 b, .param .u64 .ptr .global .align 4 out)\n{\n\
        .reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n.reg .b16 %h<4>;\nld.param.u64 %rd1, [out];\nld.param.u8 %h1, [a];\nld.param.u16 %h2, [b];\nmov.u32 %r1, %tid.x;\n\
        mov.b64 %rd2, s;\nmul.wide.u32 %rd3, %r1, 4;\nadd.u64 %rd4, %rd2, %rd3;\nld.param.u32 %r2, [%rd4+4];\ncvta.param.u64 %rd7, %rd4;\nld.u32 %r6, [%rd7+4];\n\
        cvt.u32.u16 %r3, %h1;\ncvt.u32.u16 %r4, %h2;\nadd.u32 %r5, %r3, %r4;\nadd.u32 %r2, %r2, %r5;\nadd.u32 %r2, %r2, %r6;\nadd.u64 %rd5, %rd1, %rd3;\nst.global.u32 [%rd5], %r2;\nret;\n}\n";
    let d = Device::new(text);
    let f = d.module.function("k").unwrap_or_else(|e| panic!("{e}"));
    let offsets: Vec<usize> = f.params().iter().map(|p| p.offset).collect();
    assert_eq!((offsets, f.param_bytes()), (vec![0, 8, 32, 40], 48));
    let out = d.alloc(16);
    let structure: Vec<u8> = (0..6u32).flat_map(|i| (i * 100).to_le_bytes()).collect();
    d.ok(
        "k",
        1,
        4,
        0,
        &[
            arg(3u8),
            common::Arg(structure.clone()),
            arg(1000u16),
            arg(out),
        ],
    );
    assert_eq!(d.download::<u32>(out, 4), [1203, 1403, 1603, 1803]);
    let e = d.fault(
        "k",
        1,
        20,
        0,
        &[arg(3u8), common::Arg(structure), arg(1000u16), arg(out)],
    );
    assert_eq!(e.kind, FaultKind::OutOfBounds);
}

#[test]
fn atomics_of_every_kind() {
    // One thread: the old value comes back, the new one stays.
    let run = |space: &str,
               op: &str,
               ty: &str,
               reg: &str,
               old: u64,
               b: u64,
               c: Option<u64>|
     -> (u64, u64) {
        let (bits, wide) = match reg {
            "h" => (
                16,
                "cvt.u16.u64 %h1, %rd11;\ncvt.u16.u64 %h2, %rd12;\ncvt.u16.u64 %h3, %rd13;",
            ),
            "r" => (
                32,
                "cvt.u32.u64 %r11, %rd11;\ncvt.u32.u64 %r12, %rd12;\ncvt.u32.u64 %r13, %rd13;",
            ),
            "f" => (
                32,
                "cvt.u32.u64 %r11, %rd11;\ncvt.u32.u64 %r12, %rd12;\nmov.b32 %f11, %r11;\nmov.b32 %f12, %r12;",
            ),
            "fd" => (64, "mov.b64 %fd11, %rd11;\nmov.b64 %fd12, %rd12;"),
            _ => (64, ""),
        };
        let n = |i: u32| match reg {
            "h" => format!("%h{i}"),
            r => format!("%{r}1{i}"),
        };
        let third = if c.is_some() {
            format!(", {}", n(3))
        } else {
            String::new()
        };
        let place = if space == "shared" { "s" } else { "%rd2" };
        let body = format!(
            ".shared .align 8 .b8 s[8];\nld.global.u64 %rd11, [%rd1];\nld.global.u64 %rd12, [%rd1+8];\nld.global.u64 %rd13, [%rd1+16];\n{wide}\n\
             st.{space}.b{bits} [{place}], {};\natom.{space}.{op}.{ty} {}, [{place}], {}{third};\nst.global.b{bits} [%rd2+8], {};\n\
             ld.{space}.b{bits} {}, [{place}];\nst.global.b{bits} [%rd2], {};",
            n(1),
            n(1),
            n(2),
            n(1),
            n(1),
            n(1)
        );
        let d = Device::new(&kernel(&body));
        let (a, out) = (d.upload(&[old, b, c.unwrap_or(0)]), d.upload(&[0u64; 2]));
        d.ok("k", 1, 1, 0, &[arg(a), arg(out)]);
        let got = d.download::<u64>(out, 2);
        (got[1], got[0])
    };
    let f = |x: f32| u64::from(x.to_bits());
    let m = 0xffff_ffffu64;
    type Case = (
        &'static str,
        &'static str,
        &'static str,
        u64,
        u64,
        Option<u64>,
        u64,
    );
    let cases: [Case; 35] = [
        ("add", "u32", "r", m, 2, None, 1),
        ("add", "s32", "r", 5, m, None, 4),
        ("add", "u64", "rd", u64::MAX, 2, None, 1),
        ("add", "f32", "f", f(1.5), f(2.0), None, f(3.5)),
        (
            "add",
            "f64",
            "fd",
            1.5f64.to_bits(),
            2f64.to_bits(),
            None,
            3.5f64.to_bits(),
        ),
        ("add.noftz", "f16", "h", 0x3c00, 0x3c00, None, 0x4000),
        ("add.noftz", "bf16", "h", 0x3f80, 0x3f80, None, 0x4000),
        (
            "add.noftz",
            "f16x2",
            "r",
            0x3c00_4000,
            0x3c00_3c00,
            None,
            0x4000_4200,
        ),
        (
            "add.noftz",
            "bf16x2",
            "r",
            0x3f80_4000,
            0x3f80_3f80,
            None,
            0x4000_4040,
        ),
        ("min", "u32", "r", 5, 3, None, 3),
        ("min", "s32", "r", 5, m, None, m),
        ("max", "u32", "r", 5, m, None, m),
        ("max", "s32", "r", 5, m, None, 5),
        ("min", "u64", "rd", 5, 3, None, 3),
        ("min", "s64", "rd", 5, u64::MAX, None, u64::MAX),
        ("max", "s64", "rd", 5, u64::MAX, None, 5),
        ("max", "u64", "rd", 5, 9, None, 9),
        ("inc", "u32", "r", 4, 5, None, 5),
        ("inc", "u32", "r", 5, 5, None, 0),
        ("dec", "u32", "r", 4, 5, None, 3),
        ("dec", "u32", "r", 0, 5, None, 5),
        ("dec", "u32", "r", 9, 5, None, 5),
        ("exch", "b32", "r", 4, 5, None, 5),
        ("exch", "b64", "rd", 4, u64::MAX, None, u64::MAX),
        ("cas", "b16", "h", 4, 4, Some(7), 7),
        ("cas", "b16", "h", 4, 5, Some(7), 4),
        ("cas", "b32", "r", 4, 4, Some(7), 7),
        ("cas", "b32", "r", 4, 5, Some(7), 4),
        ("cas", "b64", "rd", 1 << 40, 1 << 40, Some(7), 7),
        ("and", "b32", "r", 12, 10, None, 8),
        ("or", "b32", "r", 12, 10, None, 14),
        ("xor", "b32", "r", 12, 10, None, 6),
        ("and", "b64", "rd", u64::MAX, 10, None, 10),
        ("or", "b64", "rd", 1 << 63, 10, None, 1 << 63 | 10),
        ("xor", "b64", "rd", 12, 10, None, 6),
    ];
    for (op, ty, reg, old, b, c, new) in cases {
        for space in ["global", "shared"] {
            assert_eq!(
                run(space, op, ty, reg, old, b, c),
                (old, new),
                "{space} {op}.{ty} {old:#x} {b:#x}"
            );
        }
    }
    // Subnormal f32 are flushed in global memory alone.
    assert_eq!(run("global", "add", "f32", "f", 1, 1, None), (1, 0));
    assert_eq!(run("shared", "add", "f32", "f", 1, 1, None), (1, 2));
    assert_eq!(
        run(
            "global",
            "add",
            "f32",
            "f",
            f(f32::INFINITY),
            f(f32::NEG_INFINITY),
            None
        )
        .1,
        0x7fff_ffff
    );
}

#[test]
fn atomics_of_many_threads_lose_nothing() {
    let body = "red.global.add.u32 [%rd2], %r1;\nred.relaxed.gpu.global.max.u32 [%rd2+4], %r1;\natom.add.u32 %r2, [%rd2+8], 1;\n\
                mul.wide.u32 %rd3, %r2, 4;\nadd.u64 %rd4, %rd1, %rd3;\nst.global.u32 [%rd4], %r2;";
    for seed in [0, 5] {
        let mut d = Device::new(&kernel(body));
        d.options.seed = seed;
        let (slots, out) = (d.alloc(4 * 100 * 200), d.upload(&[0u32; 3]));
        d.ok("k", 100, 200, 0, &[arg(slots), arg(out)]);
        assert_eq!(d.download::<u32>(out, 3), [199 * 100 * 100, 199, 20_000]);
        // Every ticket was drawn once.
        assert_eq!(
            d.download::<u32>(slots, 20_000),
            (0..20_000).collect::<Vec<u32>>()
        );
    }
}

// ---- counters ----

#[test]
fn counters_count() {
    let body = "mov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r3, %r2, 64, %r1;\nmul.wide.u32 %rd3, %r3, STRIDE;\nadd.u64 %rd4, %rd1, %rd3;\n\
                ld.global.f32 %f1, [%rd4];\nbar.sync 0;\nmul.wide.u32 %rd5, %r3, 4;\nadd.u64 %rd6, %rd2, %rd5;\nex2.approx.f32 %f2, %f1;\nst.global.f32 [%rd6], %f2;";
    for (stride, sectors) in [(4, 4), (8, 8), (32, 32), (128, 32)] {
        let d = Device::new(&kernel(&body.replace("STRIDE", &stride.to_string())));
        let (a, out) = (d.upload(&vec![0f32; 32 * 640]), d.alloc(640 * 4));
        let c = d.ok("k", 10, 64, 0, &[arg(a), arg(out)]);
        assert_eq!((c.global_load_bytes, c.global_store_bytes), (2560, 2560));
        assert_eq!(
            (c.global_load_sectors, c.global_store_sectors),
            (20 * sectors, 20 * 4),
            "stride {stride}"
        );
        assert_eq!(
            (c.distinct_bytes_read, c.distinct_bytes_written),
            (2560, 2560)
        );
        assert_eq!((c.barriers, c.blocks, c.sync, c.approx), (10, 10, 640, 640));
        // Two parameters, a load, a store; a wide product each and sums of addresses, the index; ret.
        assert_eq!((c.memory, c.integer, c.control), (4 * 640, 5 * 640, 640));
        assert_eq!(c.thread_instructions(), 640 * 14);
        assert_eq!(c.warp_instructions, 20 * 14);
        let json = c.to_json();
        assert!(
            json.starts_with("{\"memory\":2560,") && json.ends_with("\"blocks\":10}"),
            "{json}"
        );
    }
    // Everybody reads one row: asked for many times, touched once.
    let d = Device::new(&kernel(
        "mul.wide.u32 %rd3, %r1, 4;\nadd.u64 %rd4, %rd1, %rd3;\nld.global.u32 %r2, [%rd4];",
    ));
    let a = d.upload(&[0u32; 64]);
    let c = d.ok("k", 50, 64, 0, &[arg(a), arg(0u64)]);
    assert_eq!(
        (
            c.global_load_bytes,
            c.distinct_bytes_read,
            c.distinct_bytes_written
        ),
        (50 * 256, 256, 0)
    );
}

#[test]
fn bank_conflicts_are_counted() {
    for (stride, conflicts) in [(1, 0), (2, 1), (3, 0), (4, 3), (32, 31), (33, 0), (0, 0)] {
        let body = format!(
            ".shared .align 4 .b8 s[4352];\nmov.u32 %r2, s;\nmad.lo.u32 %r3, %r1, {}, %r2;\nst.shared.u32 [%r3], 5;",
            4 * stride
        );
        let c = Device::new(&kernel(&body)).ok("k", 1, 32, 0, &[arg(0u64), arg(0u64)]);
        assert_eq!(c.bank_conflicts, conflicts, "stride {stride}");
    }
    // 16 bytes per lane, side by side: quarter-warps, no conflict.
    let body = ".shared .align 16 .b8 s[512];\nmov.u32 %r2, s;\nmad.lo.u32 %r3, %r1, 16, %r2;\nst.shared.v4.u32 [%r3], {%r1, %r1, %r1, %r1};";
    assert_eq!(
        Device::new(&kernel(body))
            .ok("k", 1, 32, 0, &[arg(0u64), arg(0u64)])
            .bank_conflicts,
        0
    );
}

// ---- what must be refused ----

#[test]
fn the_unknown_is_named_with_its_line() {
    let cases = [
        ("frobnicate.u32 %r2, %r3;", "frobnicate"),
        ("add.odd.u32 %r2, %r3, %r4;", ".odd"),
        ("add.rz.u32 %r2, %r3, %r4;", "add.rz.u32"),
        ("add.ftz.f64 %fd1, %fd2, %fd3;", "add.ftz.f64"),
        ("fma.f32 %f1, %f2, %f3, %f4;", "rounding"),
        ("mov.u32 %r2, %pm0;", "%pm0"),
        ("mov.u32 %r2, %r99;", "%r99"),
        ("ld.global.strange.u32 %r2, [%rd1];", ".strange"),
        ("ld.global.u128 %r2, [%rd1];", "u128"),
        ("shfl.bfly.b32 %r2, %r3, 1, 31;", ".sync"),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2}, {%r3}, {%f1,%f2,%f3,%f4};",
            "mma",
        ),
        ("cp.async.ca.shared.global [%r2], [%rd1], 4;", "cp"),
        ("cvt.f32.s32 %f1, %r2;", "cvt.f32.s32"),
        ("cvt.rn.f64.f32 %fd1, %f1;", "cvt.rn.f64.f32"),
        ("cvt.rna.tf32.f32 %r2, %f1;", "cvt.rna.tf32.f32"),
        (
            "atom.global.add.noftz.f32 %f1, [%rd1], %f2;",
            "atom.global.add.noftz.f32",
        ),
        ("setp.lo.s32 %p1, %r1, %r2;", "setp.lo.s32"),
        (
            "tex.2d.v4.f32.f32 {%f1,%f2,%f3,%f4}, [t, {%f1,%f2}];",
            "tex",
        ),
        ("call (%r1), %rd1, (%r2), prototype;", "indirect"),
        ("bra NOWHERE;", "NOWHERE"),
        (".texref t;", ".texref"),
        ("add.u32 %r2, %r3, %rd4;", "%rd4"),
        ("add.u64 %rd2, %rd3, %r4;", "%r4"),
        ("add.f32 %f1, %f2, 3;", "integer"),
        ("min.xorsign.abs.f32 %f1, %f2, %f3;", ".xorsign"),
        ("add.noftz.f32 %f1, %f2, %f3;", ".noftz"),
    ];
    for (body, name) in cases {
        let e = decode(&format!("mov.u32 %r5, 1;\n{body}")).expect_err(body);
        assert!(
            matches!(
                e.kind,
                FaultKind::Unsupported | FaultKind::Parse | FaultKind::UnknownSymbol
            ),
            "{body}: {e}"
        );
        // The header of `kernel` takes fourteen lines.
        assert_eq!(e.line, Some(16), "{body}: {e}");
        assert!(e.to_string().contains(name), "{body}: {e}");
        assert!(
            e.text
                .as_deref()
                .is_some_and(|t| body.starts_with(t) || t.starts_with(body)),
            "{body}: {e}"
        );
        assert_eq!(e.kernel.as_deref(), Some("k"));
    }
}

#[test]
fn malformed_text_is_an_error_never_a_panic() {
    let text = kernel(
        "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra L;\n{ .reg .u32 t;\nmov.b64 {%r2, %r3}, %rd1; }\nL: ld.global.v2.f32 {%f1, %f2}, [%rd1+8];\n.loc 1 2 3\nmov.f32 %f3, 0f3F800000;",
    );
    let run = |t: &str| {
        let module = Module::parse(t, &Arc::new(Memory::new()))?;
        module
            .function_names()
            .iter()
            .try_for_each(|n| module.function(n).map(|_| ()))
    };
    assert!(run(&text).is_ok());
    let (mut bad, mut good) = (0, 0);
    for cut in 0..text.len() {
        // Cut off at every place, and with every byte replaced or left out.
        for t in [
            text[..cut].to_owned(),
            format!("{}{}", &text[..cut], &text[cut + 1..]),
            format!("{}}}{}", &text[..cut], &text[cut + 1..]),
            format!("{};{}", &text[..cut], &text[cut + 1..]),
            format!("{}\"{}", &text[..cut], &text[cut + 1..]),
            format!("{}9{}", &text[..cut], &text[cut + 1..]),
        ] {
            match run(&t) {
                Ok(()) => good += 1,
                Err(_) => bad += 1,
            }
        }
    }
    assert!(bad > 1000 && good > 100, "{bad} bad, {good} good");
    assert!(run("// nothing").is_ok());
    assert!(run("\u{e9}").is_err());
}

#[test]
fn debugging_directives_are_passed_over() {
    let text = "// comment { with ; and }\n.version 9.0\n.target sm_90, debug\n.address_size 64\n.file 1 \"a {b;.cu\"\n/* block\n comment { */\n\
        .pragma \"nounroll\";\n.visible .entry k(\n.param .u64 .ptr .align 1 in, // the input\n.param .u64 out)\n.maxntid 128, 1, 1\n{\n.reg .b32 %r<4>;\n\
        .loc 1 10 5, function_name $L__info, inlined_at 1 2 3\n$L__func_begin0:\n.loc 1 11 1\nmov.u32 %r1, %tid.x; /* here { too */\n.pragma \"nounroll\";\nret;\n$L__func_end0:\n}\n\
        .section .debug_abbrev\n{\n.b8 1,17,1\n.b8 \"}\"\n}\n.section .debug_info { .b32 5 }\n\0";
    let d = Device::new(text);
    assert_eq!(d.module.function_names(), ["k"]);
    let f = d.module.function("k").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((f.name(), f.max_threads(), f.params().len()), ("k", 128, 2));
    d.ok("k", 1, 128, 0, &[arg(0u64), arg(0u64)]);
    assert_eq!(
        d.module.function("other").map_err(|e| e.kind).err(),
        Some(FaultKind::UnknownSymbol)
    );
}

#[test]
fn decimal_and_octal_constants() {
    check(
        Out::R,
        "add.u32 %r20, %r11, 010;\nadd.u32 %r20, %r20, 0b11;\nadd.u32 %r20, %r20, 0x1FU;",
        &[([1, 0, 0], 1 + 8 + 3 + 31)],
    );
    check(
        Out::Fd,
        "add.f64 %fd20, %fd1, 1.5;\nadd.f64 %fd20, %fd20, 0d3FF0000000000000;",
        &[([0, 0, 0], 2.5f64.to_bits())],
    );
    check(
        Out::F,
        "add.f32 %f20, %f1, -0f3F800000;",
        &[([0, 0, 0], u64::from((-1f32).to_bits()))],
    );
}

#[test]
fn values_share_registers() {
    // A thousand sums, each in a register of its own, in a loop: two are alive at a time.
    let mut body = String::from(
        ".reg .u32 %s<1002>;\nmov.u32 %s0, %r1;\nmov.u32 %r2, 0;\nLOOP:\nmov.u32 %s1, %s0;\n",
    );
    for i in 2..=1000 {
        body += &format!("add.u32 %s{i}, %s{}, %r1;\n", i - 1);
    }
    body += "mov.u32 %s0, %s1000;\nadd.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 3;\n@%p1 bra LOOP;\n\
             mul.wide.u32 %rd3, %r1, 4;\nadd.u64 %rd4, %rd2, %rd3;\nst.global.u32 [%rd4], %s0;";
    let d = Device::new(&kernel(&body));
    let out = d.alloc(128);
    d.ok("k", 1, 32, 0, &[arg(0u64), arg(out)]);
    let want: Vec<u32> = (0..32).map(|t| t + 3 * 999 * t).collect();
    assert_eq!(d.download::<u32>(out, 32), want);
    let registers = d
        .module
        .function("k")
        .map(|f| f.registers())
        .unwrap_or_default();
    assert!(registers[0] < 20 && registers[1] < 10, "{registers:?}");
}

#[test]
fn a_value_survives_on_the_way_that_does_not_change_it() {
    // Written under a guard, in a branch, and by a predicated load: the other lanes keep theirs.
    let body = "mov.u32 %r20, 7;\nand.b32 %r2, %r1, 3;\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 mov.u32 %r20, 1;\nsetp.eq.u32 %p2, %r2, 1;\n\
                @!%p2 bra SKIP;\nmov.u32 %r3, 5;\nadd.u32 %r20, %r3, %r1;\nSKIP:\nsetp.eq.u32 %p3, %r2, 2;\n\
                @%p3 ld.global.u32 %r20, [%rd1];\nmov.u32 %r4, 100;\nadd.u32 %r20, %r20, %r4;";
    let want: Vec<u32> = (0..32)
        .map(|t| 100 + [1, 5 + t, 0, 7][t as usize % 4])
        .collect();
    assert_eq!(lanes(body, 32), want);
}

#[test]
fn the_order_of_the_text_does_not_matter() {
    // What follows the loop stands before it, and the second half of an if before the first: all lanes must still meet.
    let body = "mov.u32 %r2, 0;\nbra HEAD;\nAFTER:\nshfl.sync.bfly.b32 %r20, %r2, 1, 31, -1;\nbra END;\n\
                JOIN:\nvote.sync.ballot.b32 %r6, %p0, -1;\nadd.u32 %r2, %r6, %r5;\nbra AFTER;\n\
                ODD:\nmov.u32 %r5, 1;\nbra JOIN;\nHEAD:\nsetp.ge.u32 %p1, %r2, %r1;\n@%p1 bra CHOOSE;\nadd.u32 %r2, %r2, 1;\nbra HEAD;\n\
                CHOOSE:\nsetp.ne.u32 %p0, %r2, 3;\nand.b32 %r4, %r1, 1;\nsetp.eq.u32 %p2, %r4, 1;\n@%p2 bra ODD;\nmov.u32 %r5, 0;\nbra JOIN;\nEND:";
    let want: Vec<u32> = (0..32u32)
        .map(|t| !8u32 + u32::from((t ^ 1) % 2 == 1))
        .collect();
    assert_eq!(lanes(body, 32), want);
}
