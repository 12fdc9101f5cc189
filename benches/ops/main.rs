//! `cargo bench --bench ops`: every op beside what a user would write in plain candle.
//!
//! One file per room. Each case verifies its result before it is timed; the closing table holds the medians, the ratio
//! to the baseline from the same run, and the ratio asked for where there is one.
//!
//! `-- PATTERN` picks cases by name, `-- --test` verifies each case and runs it once. `RAYON_NUM_THREADS` sets the
//! number of threads, 2 where it is not set. glibc's allocator is asked to keep freed memory, unless `MALLOC_TRIM_THRESHOLD_`
//! or `MALLOC_MMAP_MAX_` says otherwise: where it gives it back, each tensor is faulted in anew, which costs more than most
//! ops, and whether it does hangs on what happens to lie at the top of the heap.
//!
//! With the feature `cuda` and a device, every op is timed there as well, by CUDA events, in f32 and bf16; names of these
//! cases begin with `cuda` behind the op's. `REPARAM_BENCH_DEVICE` (`cpu` or `cuda`) picks one of the two legs,
//! `REPARAM_BENCH_SHAPES` (`8192x4096,64x32000`) the card's shapes, and `REPARAM_BENCH_SECONDS` ends the run early.

mod autograd_floor;
mod binary_concrete;
mod categorical;
mod gaussian;
mod gumbel_max;
mod gumbel_rao;
mod gumbel_sinkhorn;
mod gumbel_softmax;
mod gumbel_top_k;
mod improper_rows;
mod noise;
mod reinmax;
mod relaxed_top_k;
mod straight_through;
mod subgradient;
mod support;
mod tempered_softmax;

use std::{env, process::Command};

use support::{report, suite::Suite};

/// Variables that are looked at before `main` or when a pool is first used, and their values where they are not set: the size of
/// rayon's pool and candle's own, and two of glibc's allocator.
const SETTINGS: [(&str, &str); 3] = [
    ("RAYON_NUM_THREADS", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "68719476736"),
    ("MALLOC_MMAP_MAX_", "0"),
];

fn main() -> anyhow::Result<()> {
    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_none()) {
        return again_with_settings();
    }
    println!("{}", report::conditions());
    let mut suite = Suite::new()?;
    gumbel_softmax::bench(&mut suite);
    tempered_softmax::bench(&mut suite);
    gumbel_max::bench(&mut suite);
    reinmax::bench(&mut suite);
    gumbel_rao::bench(&mut suite);
    gumbel_sinkhorn::bench(&mut suite);
    categorical::bench(&mut suite);
    gumbel_top_k::bench(&mut suite);
    relaxed_top_k::bench(&mut suite);
    gaussian::bench(&mut suite);
    binary_concrete::bench(&mut suite);
    improper_rows::bench(&mut suite);
    noise::bench(&mut suite);
    subgradient::bench(&mut suite);
    straight_through::bench(&mut suite);
    autograd_floor::bench(&mut suite);
    suite.finish()
}

/// The ratios asked for are for two threads on both sides, and a process cannot change its own environment safely.
fn again_with_settings() -> anyhow::Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1));
    for (name, value) in SETTINGS {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // In this process's place where that can be done, so that whoever stops it stops all of it.
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(command.exec().into())
    }
    #[cfg(not(unix))]
    {
        std::process::exit(command.status()?.code().unwrap_or(1))
    }
}
