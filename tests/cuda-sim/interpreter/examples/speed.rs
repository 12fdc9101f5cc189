//! How fast the interpreter is: thread instructions per second, on one worker and on all.

use std::sync::Arc;
use std::time::Instant;

use ptx_sim::{Launch, Memory, Module, Options, launch};

fn main() -> Result<(), ptx_sim::Fault> {
    let memory = Arc::new(Memory::new());
    let module = Module::parse(include_str!("../tests/fixtures/speed.ptx"), &memory)?;
    let n = 1usize << 20;
    let x = memory.alloc(n * 4)?;
    let y = memory.alloc(n * 4)?;
    let bytes: Vec<u8> = (0..n)
        .flat_map(|i| ((i % 97) as f32 / 97.0).to_le_bytes())
        .collect();
    memory.write(x, &bytes)?;
    memory.write(y, &bytes)?;
    for checks in [true, false] {
        for (name, grid) in [("alu", 64u32), ("axpy", 256), ("softmax", 1024)] {
            let f = module.function(name)?;
            let mut params = Vec::new();
            match name {
                "alu" => {
                    params.extend(y.to_le_bytes());
                    params.extend(2000i32.to_le_bytes());
                }
                _ => {
                    params.extend(x.to_le_bytes());
                    params.extend(y.to_le_bytes());
                    let len = if name == "axpy" {
                        n as i32
                    } else {
                        n as i32 / 1024
                    };
                    params.extend(len.to_le_bytes());
                }
            }
            let job = Launch {
                grid: [grid, 1, 1],
                block: [256, 1, 1],
                dynamic_shared: 0,
                params,
            };
            let start = Instant::now();
            let c = launch(
                &memory,
                &f,
                &job,
                &Options {
                    checks,
                    ..Options::default()
                },
            )?;
            let t = start.elapsed().as_secs_f64();
            println!(
                "{name}, checks {checks}: {} M thread instructions in {:.3} s: {:.0} M/s on {} threads",
                c.thread_instructions() / 1_000_000,
                t,
                c.thread_instructions() as f64 / t / 1e6,
                rayon::current_num_threads()
            );
        }
    }
    // What a launch costs that does little.
    let f = module.function("axpy")?;
    let params = [
        x.to_le_bytes().to_vec(),
        y.to_le_bytes().to_vec(),
        1000i32.to_le_bytes().to_vec(),
    ]
    .concat();
    let job = Launch {
        grid: [4, 1, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params,
    };
    let start = Instant::now();
    const LAUNCHES: u32 = 2000;
    for _ in 0..LAUNCHES {
        launch(&memory, &f, &job, &Options::default())?;
    }
    println!(
        "a launch of 1000 threads: {:.1?}",
        start.elapsed() / LAUNCHES
    );
    Ok(())
}
