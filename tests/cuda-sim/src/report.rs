//! What the simulator has to say: faults, leaks, and the counters of each launch.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::config;
use crate::error::Error;
use crate::handles::lock;
use crate::sim::{self, Fault};
use crate::state::{self, Allocation};

/// Faults and misuses that were reported in this process.
static PROBLEMS: AtomicUsize = AtomicUsize::new(0);

/// Prints a line that explains an error which the program may well expect.
pub fn note(text: Arguments<'_>) {
    eprintln!("cuda-sim: {text}");
}

/// Reports a misuse of the driver. With CUDA_SIM_ABORT, it is the last thing that the process does.
pub fn problem(text: Arguments<'_>) {
    PROBLEMS.fetch_add(1, Ordering::Relaxed);
    eprintln!("cuda-sim: error: {text}");
    append(|| format!("{{\"problem\":{}}}", json(&text.to_string())));
    if config::get().abort {
        eprintln!("cuda-sim: CUDA_SIM_ABORT is set");
        process::abort();
    }
}

/// Reports a fault of the interpreter, and gives the result that the driver returns for it.
pub fn fault(what: &str, fault: &Fault) -> Error {
    let error = sim::result_of(fault);
    problem(format_args!("{what}: {}: {fault}", error.name()));
    error
}

/// Lists allocations that nobody freed, if CUDA_SIM_LEAKS asks for it.
pub fn leaks<'a>(moment: &str, pieces: impl Iterator<Item = (&'a u64, &'a Allocation)>) {
    if !config::get().leaks {
        return;
    }
    let (mut count, mut bytes) = (0, 0);
    for (address, piece) in pieces {
        eprintln!(
            "cuda-sim: leak: {} bytes at {address:#x} (allocation {}) not freed {moment}",
            piece.bytes, piece.number
        );
        count += 1;
        bytes += piece.bytes;
    }
    if count > 0 {
        eprintln!("cuda-sim: leak: {bytes} bytes in {count} allocations not freed {moment}");
    }
}

/// Appends a line to the file that CUDA_SIM_COUNTERS names.
pub fn append(line: impl FnOnce() -> String) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = config::get().counters.as_ref()?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .inspect_err(|error| eprintln!("cuda-sim: {}: {error}", path.display()))
            .ok()
            .map(Mutex::new)
    });
    if let Some(file) = file {
        // One write a line, so that processes that append to the same file do not cut each other's lines.
        let line = line() + "\n";
        if let Err(error) = lock(file).write_all(line.as_bytes()) {
            eprintln!("cuda-sim: CUDA_SIM_COUNTERS: {error}");
        }
    }
}

/// A text as a JSON string.
pub fn json(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The last words at exit.
pub fn closing() {
    leaks("at exit", lock(&state::get().allocations).iter());
    let problems = PROBLEMS.load(Ordering::Relaxed);
    if problems > 0 {
        eprintln!("cuda-sim: {problems} problems were reported in this process");
    }
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn quotes() {
        assert_eq!(json("a\"b\\c\nd\u{1}"), r#""a\"b\\c\nd\u0001""#);
    }
}
