//! Decodes every kernel of the PTX files named on the command line and says which are not understood, and why.

use std::sync::Arc;
use std::time::Instant;

use ptx_sim::{Memory, Module};

fn main() {
    let memory = Arc::new(Memory::new());
    let mut failed = 0;
    for path in std::env::args().skip(1) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => {
                eprintln!("{path}: {e}");
                failed += 1;
                continue;
            }
        };
        let start = Instant::now();
        let module = match Module::parse(&text, &memory) {
            Ok(module) => module,
            Err(e) => {
                println!("{path}: {e}");
                failed += 1;
                continue;
            }
        };
        let parsed = start.elapsed();
        let names = module.function_names();
        let (mut instructions, mut bad) = (0, 0);
        for name in &names {
            match module.function(name) {
                Ok(f) => instructions += f.instructions(),
                Err(e) => {
                    println!("{path}: {e}");
                    bad += 1;
                }
            }
        }
        println!(
            "{path}: {} kernels, {instructions} instructions, {bad} not understood; indexed in {parsed:.1?}, decoded in {:.1?}",
            names.len(),
            start.elapsed() - parsed
        );
        failed += bad;
    }
    std::process::exit(i32::from(failed > 0));
}
