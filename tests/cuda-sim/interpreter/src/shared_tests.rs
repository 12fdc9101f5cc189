//! The shadow of shared memory against a plain model that remembers every access.

use crate::shared::{Access, Finding, Shared};

fn access(thread: u16, warp_epoch: u32) -> Access {
    Access {
        offset: 0,
        len: 4,
        thread,
        warp_epoch,
        pc: 0,
        strong: false,
    }
}

fn shared() -> Shared {
    let mut s = Shared::default();
    s.begin(16, 4, true);
    s
}

/// An access that the model remembers.
#[derive(Clone, Copy, Debug)]
struct Past {
    thread: u16,
    block_epoch: u32,
    warp_epoch: u32,
    writes: bool,
}

fn races(a: &Past, b: &Past) -> bool {
    let ordered = a.block_epoch != b.block_epoch
        || (a.thread / 32 == b.thread / 32 && a.warp_epoch != b.warp_epoch);
    a.thread != b.thread && (a.writes || b.writes) && !ordered
}

#[test]
fn the_shadow_finds_what_a_full_history_finds() {
    let mut state = 9u64;
    let mut next = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % n
    };
    let (mut found, mut clean) = (0, 0);
    for _ in 0..60_000 {
        let mut s = shared();
        let mut past: Vec<Past> = Vec::new();
        let (mut block_epoch, mut warp_epochs) = (0, [0u32; 3]);
        // The first write is everybody's to read after a barrier.
        s.write(&access(0, 0), false);
        s.barrier();
        let mut stopped = false;
        for _ in 0..12 {
            match next(10) {
                0 => {
                    block_epoch += 1;
                    s.barrier();
                }
                1 | 2 => warp_epochs[next(3) as usize] += 1,
                kind => {
                    // Three warps, two lanes each: enough for every combination.
                    let (warp, lane) = (next(3), next(2));
                    let thread = (warp * 32 + lane) as u16;
                    let now = Past {
                        thread,
                        block_epoch,
                        warp_epoch: warp_epochs[warp as usize],
                        writes: kind < 5,
                    };
                    let a = access(thread, now.warp_epoch);
                    let finding = if now.writes {
                        s.write(&a, false)
                    } else {
                        s.read(&a)
                    };
                    let expected = past.iter().any(|p| races(p, &now));
                    assert_eq!(finding.is_some(), expected, "{past:?} then {now:?}");
                    past.push(now);
                    if expected {
                        stopped = true;
                        break;
                    }
                }
            }
        }
        found += usize::from(stopped);
        clean += usize::from(!stopped);
    }
    assert!(
        found > 1000 && clean > 1000,
        "{found} with a race, {clean} without"
    );
}

#[test]
fn strong_accesses_meet_each_other_alone() {
    let strong = |thread| Access {
        strong: true,
        ..access(thread, 0)
    };
    let mut s = shared();
    assert_eq!(s.write(&strong(0), false), None);
    assert_eq!(s.read(&strong(40)), None);
    assert_eq!(s.write(&strong(40), false), None);
    assert!(matches!(
        s.read(&access(0, 0)),
        Some(Finding::Race {
            thread: 40,
            wrote: true,
            ..
        })
    ));
    let mut s = shared();
    s.write(&access(0, 0), false);
    assert!(s.read(&strong(40)).is_some());
    let mut s = shared();
    s.write(&strong(0), false);
    assert_eq!(s.read(&access(0, 0)), None);
    assert!(matches!(
        s.write(&strong(40), false),
        Some(Finding::Race {
            thread: 0,
            wrote: false,
            ..
        })
    ));
}

#[test]
fn equal_values_do_not_race_but_readers_still_do() {
    let mut s = shared();
    assert_eq!(s.write(&access(0, 0), false), None);
    assert_eq!(s.write(&access(40, 0), true), None);
    assert!(s.read(&access(0, 0)).is_some());
}

#[test]
fn granules_and_blocks_are_apart() {
    let mut s = Shared::default();
    s.begin(16, 1, true);
    let byte = |offset, thread| Access {
        offset,
        len: 1,
        ..access(thread, 0)
    };
    assert_eq!(s.write(&byte(0, 0), false), None);
    assert_eq!(s.write(&byte(1, 40), false), None);
    // A word over both bytes meets the second one, and two that nothing wrote.
    assert!(matches!(
        s.read(&access(0, 0)),
        Some(Finding::Race {
            offset: 1,
            thread: 40,
            ..
        })
    ));
    s.barrier();
    assert_eq!(
        s.read(&access(0, 0)),
        Some(Finding::Unwritten { offset: 2 })
    );
    // The next block sees nothing of this one.
    s.begin(16, 1, true);
    assert_eq!(s.read(&byte(0, 0)), Some(Finding::Unwritten { offset: 0 }));
}
