//! For every check a planted bug that it must find and a correct twin that it must let pass (fixtures/checks.cu).

mod common;

use common::{Device, arg, kernel, kind};
use ptx_sim::{FaultKind, Launch, Memory, Options, launch};

fn device() -> Device {
    Device::new(include_str!("fixtures/checks.ptx"))
}

/// Every check must find its bug whatever the order of blocks and warps.
const SEEDS: [u64; 5] = [0, 1, 2, 3, 99];

fn each_seed(f: impl Fn(&Device)) {
    for seed in SEEDS {
        let mut d = device();
        d.options.seed = seed;
        f(&d);
    }
}

#[test]
fn out_of_bounds_by_one() {
    each_seed(|d| {
        let (x, y) = (d.upload(&[1f32; 100]), d.alloc(400));
        let e = d.fault("bounds_bug", 4, 32, 0, &[arg(x), arg(y), arg(100)]);
        assert_eq!(e.kind, FaultKind::OutOfBounds);
        assert_eq!(e.kernel.as_deref(), Some("bounds_bug"));
        assert_eq!((e.block, e.thread), (Some([3, 0, 0]), Some([4, 0, 0])));
        assert_eq!(e.address, Some(y + 400));
        assert_eq!(
            e.allocation.as_ref().map(|a| (a.base, a.size)),
            Some((y, 400))
        );
        assert!(
            e.text
                .as_deref()
                .is_some_and(|t| t.starts_with("st.global.f32")),
            "{e}"
        );
        let shown = e.to_string();
        for part in [
            "bounds_bug",
            "block (3, 0, 0)",
            "thread (4, 0, 0)",
            "PTX line",
            "st.global.f32",
            "offset 400",
        ] {
            assert!(shown.contains(part), "{part} is not in: {shown}");
        }
        d.ok("bounds_twin", 4, 32, 0, &[arg(x), arg(y), arg(100)]);
        assert_eq!(d.download::<f32>(y, 100), [2.0; 100]);
    });
}

#[test]
fn use_after_free_names_the_allocation() {
    each_seed(|d| {
        let (x, y) = (d.upload(&[1f32; 100]), d.alloc(400));
        d.ok("bounds_twin", 4, 32, 0, &[arg(x), arg(y), arg(100)]);
        d.memory.free(x).expect("live");
        let e = d.fault("bounds_twin", 4, 32, 0, &[arg(x), arg(y), arg(100)]);
        assert_eq!(e.kind, FaultKind::UseAfterFree);
        assert_eq!(
            e.allocation.as_ref().map(|a| (a.base, a.size)),
            Some((x, 400))
        );
        // Freed addresses never come back.
        assert!((0..100).all(|_| d.alloc(400) != x));
    });
}

#[test]
fn misaligned_vector() {
    each_seed(|d| {
        let (x, y) = (d.upload(&[1f32; 200]), d.alloc(32 * 16));
        let e = d.fault("vector4", 1, 32, 0, &[arg(x), arg(y), arg(2)]);
        assert_eq!((e.kind, e.address), (FaultKind::Misaligned, Some(x + 8)));
        assert!(e.allocation.is_some());
        d.ok("vector4", 1, 32, 0, &[arg(x), arg(y), arg(4)]);
        // Four bytes past the end, in the last thread's vector alone.
        let e = d.fault("vector4", 1, 32, 0, &[arg(x), arg(y), arg(76)]);
        assert_eq!(
            (e.kind, e.thread),
            (FaultKind::OutOfBounds, Some([31, 0, 0]))
        );
    });
}

#[test]
fn unwritten_global_memory() {
    each_seed(|d| {
        let (x, y) = (d.alloc(128), d.alloc(128));
        let e = d.fault("half_written_bug", 1, 32, 0, &[arg(x), arg(y)]);
        assert_eq!(
            (e.kind, e.thread, e.address),
            (FaultKind::Uninitialised, Some([0, 0, 0]), Some(x))
        );
        d.ok("half_written_twin", 1, 32, 0, &[arg(x), arg(y)]);
        // A vector load with one byte missing at its end.
        let x = d.alloc(512);
        d.memory.write(x, &[0; 511]).expect("in bounds");
        let y = d.alloc(512);
        let e = d.fault("vector4", 1, 32, 0, &[arg(x), arg(y), arg(0)]);
        assert_eq!(
            (e.kind, e.thread, e.address),
            (FaultKind::Uninitialised, Some([31, 0, 0]), Some(x + 511))
        );
        d.memory.write(x + 511, &[0]).expect("in bounds");
        d.ok("vector4", 1, 32, 0, &[arg(x), arg(y), arg(0)]);
    });
}

#[test]
fn unwritten_shared_memory() {
    each_seed(|d| {
        let y = d.alloc(256);
        let e = d.fault("shared_unwritten_bug", 3, 64, 0, &[arg(y)]);
        assert_eq!(
            (e.kind, e.thread),
            (FaultKind::Uninitialised, Some([63, 0, 0]))
        );
        // One block at a time writes the same values to one place: between blocks that is a race, so one block.
        d.ok("shared_unwritten_twin", 1, 64, 0, &[arg(y)]);
    });
}

#[test]
fn unwritten_local_memory() {
    let body = |first: &str| {
        kernel(&format!(
            ".local .align 4 .b8 stack[16];\nmov.u64 %rd3, stack;\n{first}\nst.local.u32 [%rd3+8], %r1;\n\
             ld.local.v2.u32 {{%r2, %r3}}, [%rd3];\nld.local.u32 %r4, [%rd3+8];\nst.global.u32 [%rd2], %r4;"
        ))
    };
    let bug = Device::new(&body("st.local.u32 [%rd3], %r1;"));
    let e = bug.fault("k", 1, 1, 0, &[arg(0u64), arg(bug.alloc(4))]);
    assert_eq!((e.kind, e.address), (FaultKind::Uninitialised, Some(4)));
    let twin = Device::new(&body("st.local.v2.u32 [%rd3], {%r1, %r1};"));
    twin.ok("k", 1, 1, 0, &[arg(0u64), arg(twin.alloc(4))]);
}

#[test]
fn shared_races() {
    each_seed(|d| {
        let y = d.alloc(256);
        for bug in ["shared_race_bug", "shared_reuse_bug"] {
            let e = d.fault(bug, 1, 64, 0, &[arg(y)]);
            // In some orders a thread reads before the other wrote at all.
            assert!(
                matches!(e.kind, FaultKind::SharedRace | FaultKind::Uninitialised),
                "{e}"
            );
            assert!(e.line.is_some() && e.thread.is_some());
        }
        assert_eq!(
            d.fault("shared_reuse_bug", 1, 64, 0, &[arg(y)]).kind,
            FaultKind::SharedRace
        );
        for twin in ["shared_race_twin", "shared_reuse_twin"] {
            d.ok(twin, 1, 64, 0, &[arg(y)]);
        }
        let e = d.fault("same_place_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::SharedRace);
        d.ok("same_place_twin", 1, 64, 0, &[arg(y)]);
        d.ok("shared_bytes_twin", 1, 64, 0, &[arg(y)]);
    });
}

#[test]
fn exchange_within_a_warp() {
    each_seed(|d| {
        let y = d.alloc(128);
        let e = d.fault("warp_exchange_bug", 1, 32, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::SharedRace);
        d.ok("warp_exchange_twin", 1, 32, 0, &[arg(y)]);
        let want: Vec<i32> = (0..32).map(|i| (i ^ 1) + 3).collect();
        assert_eq!(d.download::<i32>(y, 32), want);
    });
}

#[test]
fn races_between_blocks() {
    each_seed(|d| {
        let y = d.alloc(4096);
        for n in [100, 1000] {
            let e = d.fault("block_race_bug", n / 32, 32, 0, &[arg(y), arg(n as i32)]);
            assert_eq!(e.kind, FaultKind::GlobalRace);
            assert!(
                e.address.is_some_and(|a| (a - y) % 124 < 4),
                "the shared element of two blocks: {e}"
            );
            assert!(e.message.contains("block ("), "{e}");
        }
        d.ok("block_race_twin", 32, 32, 0, &[arg(y), arg(1000)]);
        let y = d.alloc(33 * 2 * 50);
        d.ok("block_halves_twin", 50, 33, 0, &[arg(y)]);

        let sum = d.upload(&[0i32]);
        assert_eq!(
            d.fault("block_sum_bug", 20, 32, 0, &[arg(sum)]).kind,
            FaultKind::GlobalRace
        );
        let sum = d.upload(&[0i32]);
        d.ok("block_sum_twin", 20, 32, 0, &[arg(sum)]);
        assert_eq!(d.download::<i32>(sum, 1), [190]);

        let y = d.upload(&[0i32; 64]);
        assert_eq!(
            d.fault("block_read_bug", 2, 32, 0, &[arg(y)]).kind,
            FaultKind::GlobalRace
        );
        let y = d.upload(&[1i32; 96]);
        d.ok("block_read_twin", 2, 32, 0, &[arg(y)]);
    });
}

#[test]
fn races_between_the_warps_of_a_block() {
    each_seed(|d| {
        let y = d.upload(&[0i32; 128]);
        let e = d.fault("global_exchange_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::GlobalRace);
        assert!(
            e.message.contains("warp ") && e.message.contains("at line"),
            "{e}"
        );
        assert!(
            e.line.is_some() && e.thread.is_some() && e.address.is_some(),
            "{e}"
        );
        d.ok("global_exchange_twin", 1, 64, 0, &[arg(y)]);
        let e = d.fault("global_reuse_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::GlobalRace);
        d.ok("global_reuse_twin", 1, 64, 0, &[arg(y)]);
        d.ok("global_turns_twin", 1, 64, 0, &[arg(y)]);
        let e = d.fault("global_turns_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::GlobalRace);
        let e = d.fault("global_same_place_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::GlobalRace);
        for twin in ["global_same_place_twin", "global_bytes_twin"] {
            d.ok(twin, 1, 64, 0, &[arg(y)]);
        }
        let y = d.upload(&[0i32; 3]);
        d.ok("global_flag_twin", 1, 64, 0, &[arg(y)]);
        assert_eq!(d.download::<i32>(y, 3), [7, 1, 7]);
        // One warp is in lockstep.
        d.ok("global_same_place_bug", 1, 32, 0, &[arg(y)]);
    });
}

#[test]
fn the_last_block_needs_its_fence() {
    each_seed(|d| {
        for blocks in [2u32, 8, 200] {
            let x: Vec<i32> = (0..blocks as i32).collect();
            let run = |name: &str| {
                let (x, partial, count, out) = (
                    d.upload(&x),
                    d.alloc(x.len() * 4),
                    d.upload(&[0u32]),
                    d.alloc(4),
                );
                let r = d.run(
                    name,
                    [blocks, 1, 1],
                    [64, 1, 1],
                    0,
                    &[arg(x), arg(partial), arg(count), arg(out)],
                );
                (r, out)
            };
            assert_eq!(kind(run("last_block_bug").0), Some(FaultKind::GlobalRace));
            let (r, out) = run("last_block_twin");
            r.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(d.download::<i32>(out, 1), [x.iter().sum::<i32>()]);
        }
    });
}

#[test]
fn divergent_barriers() {
    each_seed(|d| {
        let y = d.alloc(4096);
        let e = d.fault("barrier_warp_bug", 1, 32, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::Barrier);
        assert!(e.message.contains("lane 16"), "{e}");
        let e = d.fault("barrier_block_bug", 1, 64, 0, &[arg(y)]);
        assert_eq!(e.kind, FaultKind::Barrier);
        // Threads that left count as arrived.
        d.ok("barrier_twin", 1, 200, 0, &[arg(y)]);
        assert_eq!(
            d.download::<i32>(y, 64),
            (0..64).map(|i| i ^ 63).collect::<Vec<_>>()
        );
    });
}

#[test]
fn barriers_that_wait_for_more_than_come() {
    let d = Device::new(&kernel("bar.sync 1, 96;"));
    let e = d.fault("k", 1, 64, 0, &[arg(0u64), arg(0u64)]);
    assert_eq!(e.kind, FaultKind::Barrier);
    assert!(e.message.contains("64 of 96"), "{e}");
    let d = Device::new(&kernel("bar.sync 1, 64;"));
    d.ok("k", 1, 64, 0, &[arg(0u64), arg(0u64)]);
}

#[test]
fn member_masks() {
    each_seed(|d| {
        let y = d.alloc(128);
        let e = d.fault("mask_bug", 1, 32, 0, &[arg(y), arg(20)]);
        assert_eq!(e.kind, FaultKind::SyncMask);
        assert!(e.message.contains("lane 20"), "{e}");
        d.ok("mask_bug", 1, 32, 0, &[arg(y), arg(32)]);
        d.ok("mask_twin", 1, 32, 0, &[arg(y), arg(20)]);
        let e = d.fault("mask_self_bug", 1, 32, 0, &[arg(y)]);
        assert_eq!((e.kind, e.thread), (FaultKind::SyncMask, Some([16, 0, 0])));
        d.ok("mask_halves_twin", 1, 32, 0, &[arg(y)]);
        let want: Vec<i32> = (0..32)
            .map(|i| {
                if i & 16 != 0 {
                    (i ^ 3) * 2
                } else {
                    (i ^ 5) * 3
                }
            })
            .collect();
        assert_eq!(d.download::<i32>(y, 32), want);
        d.ok("reconverge_twin", 1, 32, 0, &[arg(y)]);
        let value = |t: i32| {
            if t == 7 {
                1000
            } else {
                (0..t.min(20)).sum::<i32>()
            }
        };
        let with = |t: i32| {
            if t == 9 {
                (0..5).fold(value(9), |v, i| v ^ (i * v))
            } else {
                value(t)
            }
        };
        assert_eq!(
            d.download::<i32>(y, 32),
            (0..32).map(|t| with(t ^ 1)).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_lane_that_left_does_not_arrive() {
    let body = "setp.ge.u32 %p1, %r1, 20;\n@%p1 ret;\nsetp.eq.u32 %p2, %r1, %r1;\nvote.sync.ballot.b32 %r2, %p2, MASK;\n\
                mul.wide.u32 %rd3, %r1, 4;\nadd.u64 %rd4, %rd2, %rd3;\nst.global.u32 [%rd4], %r2;";
    let bug = Device::new(&kernel(&body.replace("MASK", "0xffffffff")));
    let e = bug.fault("k", 1, 32, 0, &[arg(0u64), arg(bug.alloc(128))]);
    assert_eq!(e.kind, FaultKind::SyncMask);
    assert!(
        e.message.contains("lane 20") && e.message.contains("left"),
        "{e}"
    );
    let twin = Device::new(&kernel(&body.replace("MASK", "0xfffff")));
    let y = twin.alloc(128);
    twin.ok("k", 1, 32, 0, &[arg(0u64), arg(y)]);
    assert_eq!(twin.download::<u32>(y, 20), [0xf_ffff; 20]);
}

#[test]
fn endless_loops_end() {
    let mut d = device();
    d.options.limits.max_steps = 100_000;
    let y = d.upload(&[0i32]);
    assert_eq!(
        d.fault("endless_bug", 1, 32, 0, &[arg(y)]).kind,
        FaultKind::StepLimit
    );
    let y = d.upload(&[1i32]);
    d.ok("endless_bug", 1, 32, 0, &[arg(y)]);
}

#[test]
fn launches_outside_the_limits() {
    let d = device();
    let y = d.alloc(4096);
    let f = d.module.function("block_race_twin").expect("a kernel");
    let mut params = y.to_le_bytes().to_vec();
    params.extend(8i32.to_le_bytes());
    let go = |grid, block, dynamic_shared, params: &[u8]| {
        let l = Launch {
            grid,
            block,
            dynamic_shared,
            params: params.to_vec(),
        };
        kind(launch(&d.memory, &f, &l, &Options::default()))
    };
    assert_eq!(go([1, 1, 1], [32, 1, 1], 0, &params), None);
    let bad = Some(FaultKind::InvalidLaunch);
    assert_eq!(go([0, 1, 1], [32, 1, 1], 0, &params), bad);
    assert_eq!(go([1, 65_536, 1], [32, 1, 1], 0, &params), bad);
    assert_eq!(go([1, 1, 65_536], [32, 1, 1], 0, &params), bad);
    assert_eq!(go([1, 1, 1], [1025, 1, 1], 0, &params), bad);
    assert_eq!(go([1, 1, 1], [64, 32, 1], 0, &params), bad);
    assert_eq!(go([1, 1, 1], [1, 1, 65], 0, &params), bad);
    assert_eq!(go([1, 1, 1], [32, 1, 1], 227 * 1024, &params), None);
    assert_eq!(go([1, 1, 1], [32, 1, 1], 227 * 1024 + 1, &params), bad);
    assert_eq!(go([1, 1, 1], [32, 1, 1], 0, &params[..8]), bad);
}

#[test]
fn maxntid_and_reqntid_hold() {
    let with = |d: &str| kernel("").replace(")\n{", &format!(")\n{d}\n{{"));
    let d = Device::new(&with(".maxntid 64, 1, 1\n.minnctapersm 2"));
    let args = [arg(0u64), arg(0u64)];
    d.ok("k", 1, 64, 0, &args);
    assert_eq!(d.fault("k", 1, 65, 0, &args).kind, FaultKind::InvalidLaunch);
    let d = Device::new(&with(".reqntid 32"));
    d.ok("k", 1, 32, 0, &args);
    assert_eq!(d.fault("k", 1, 31, 0, &args).kind, FaultKind::InvalidLaunch);
}

#[test]
fn host_accesses_are_checked_too() {
    let m = Memory::new();
    let a = m.alloc(100).expect("room");
    let b = m.alloc(100).expect("room");
    assert!(a.is_multiple_of(512) && b >= a + 100 + 412);
    let mut out = [0; 100];
    assert_eq!(
        m.read(a, &mut out).map_err(|e| e.kind),
        Err(FaultKind::Uninitialised)
    );
    m.write(a, &[7; 50]).expect("in bounds");
    m.read(a, &mut out[..50]).expect("written");
    assert_eq!(out[..50], [7; 50]);
    assert_eq!(
        m.read(a, &mut out[..51]).map_err(|e| (e.kind, e.address)),
        Err((FaultKind::Uninitialised, Some(a + 50)))
    );
    assert_eq!(
        m.write(a + 60, &[0; 41]).map_err(|e| e.kind),
        Err(FaultKind::OutOfBounds)
    );
    assert_eq!(
        m.write(12, &[0]).map_err(|e| e.kind),
        Err(FaultKind::OutOfBounds)
    );
    // A copy carries the state of each byte.
    m.copy(b + 10, a + 40, 20).expect("in bounds");
    m.read(b + 10, &mut out[..10])
        .expect("copied bytes that were written");
    assert_eq!(
        m.read(b + 20, &mut out[..1]).map_err(|e| e.kind),
        Err(FaultKind::Uninitialised)
    );
    m.fill(b, 9, 100).expect("in bounds");
    m.copy(b, a + 50, 50).expect("in bounds");
    assert_eq!(
        m.read(b, &mut out[..1]).map_err(|e| e.kind),
        Err(FaultKind::Uninitialised)
    );
    m.read(b + 50, &mut out[..50]).expect("filled");
    assert_eq!(m.live(), [(a, 100), (b, 100)]);
    m.free(a).expect("live");
    let e = m.free(a).expect_err("freed twice");
    assert_eq!(e.kind, FaultKind::InvalidFree);
    assert_eq!(
        m.free(b + 4).map_err(|e| e.kind),
        Err(FaultKind::InvalidFree)
    );
    assert_eq!(
        m.read(a, &mut out[..1]).map_err(|e| e.kind),
        Err(FaultKind::UseAfterFree)
    );
    assert_eq!(m.live(), [(b, 100)]);
    assert_eq!(
        m.alloc(usize::MAX).map_err(|e| e.kind),
        Err(FaultKind::OutOfMemory)
    );
    // Nothing at all is allowed at the end of an allocation, and empty allocations exist.
    m.write(b + 100, &[]).expect("no bytes");
    let empty = m.alloc(0).expect("room");
    m.free(empty).expect("live");
}

#[test]
fn constant_memory_is_read_only() {
    let ptx = ".const .align 4 .u32 c = 5;\n.global .align 4 .u32 g = 6;\n".to_owned()
        + &kernel("mov.u64 %rd3, SYMBOL;\nld.global.u32 %r2, [%rd3];\nst.global.u32 [%rd3], %r2;")
            .replace(".version 8.0\n", "");
    let bug = Device::new(&ptx.replace("SYMBOL", "c"));
    assert_eq!(
        bug.fault("k", 1, 1, 0, &[arg(0u64), arg(0u64)]).kind,
        FaultKind::ReadOnly
    );
    let twin = Device::new(&ptx.replace("SYMBOL", "g"));
    twin.ok("k", 1, 1, 0, &[arg(0u64), arg(0u64)]);
}

#[test]
fn shared_memory_has_an_end() {
    let body = ".shared .align 4 .b8 s[64];\nmov.u32 %r2, s;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r4, %r2, %r3;\nst.shared.u32 [%r4], %r1;";
    let d = Device::new(&kernel(body));
    d.ok("k", 1, 16, 0, &[arg(0u64), arg(0u64)]);
    let e = d.fault("k", 1, 17, 0, &[arg(0u64), arg(0u64)]);
    assert_eq!(
        (e.kind, e.thread, e.address),
        (FaultKind::OutOfBounds, Some([16, 0, 0]), Some(64))
    );
}

#[test]
fn checks_can_be_turned_off_but_bounds_stay() {
    let mut d = device();
    d.options.checks = false;
    let y = d.alloc(400);
    d.ok("shared_race_bug", 1, 64, 0, &[arg(y)]);
    d.ok("block_race_bug", 3, 32, 0, &[arg(y), arg(90)]);
    let x = d.upload(&[1f32; 100]);
    assert_eq!(
        d.fault("bounds_bug", 4, 32, 0, &[arg(x), arg(y), arg(100)])
            .kind,
        FaultKind::OutOfBounds
    );
}
