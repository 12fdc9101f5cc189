//! Every name that programs bind is there, and those that are not simulated say so.

mod support;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::ptr::null_mut;

use support::*;

unsafe extern "C" {
    // Three of those that only say that they are not simulated. Their arguments do not matter.
    safe fn cuGraphCreate() -> u32;
    safe fn cublasSaxpy_v2() -> u32;
    safe fn nvrtcCompileProgram() -> u32;
}

fn names(list: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("symbols")
        .join(list);
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_driver_name_is_an_entry_point() {
    let names = names("driver.txt");
    assert!(names.len() >= 513, "{}", names.len());
    for name in names {
        let text = CString::new(name.as_str()).unwrap();
        let mut place = null_mut();
        // SAFETY: a zero-terminated text, and a valid place.
        let code = unsafe { cuGetProcAddress_v2(text.as_ptr(), &mut place, 13_000, 0, null_mut()) };
        assert!(code == 0 && !place.is_null(), "{name}");
    }
}

#[test]
fn what_is_not_simulated_fails_by_name() {
    let output = child("call_stubs", &[]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    for name in ["cuGraphCreate", "cublasSaxpy_v2", "nvrtcCompileProgram"] {
        assert!(text.contains(&format!("{name} is not simulated")), "{text}");
    }
    let output = child("call_stubs", &[("CUDA_SIM_ABORT", "1")]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("CUDA_SIM_ABORT is set"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[ignore = "run by what_is_not_simulated_fails_by_name in a process of its own"]
fn call_stubs() {
    assert_eq!(cuGraphCreate(), NOT_SUPPORTED);
    assert_eq!(cublasSaxpy_v2(), 15);
    assert_eq!(nvrtcCompileProgram(), 11);
}

#[test]
fn null_arguments_are_answered() {
    let output = child("call_everything_with_nulls", &[]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("internal error"), "{text}");
}

/// More arguments than any function has; the C calling convention lets a function ignore those that it does not know.
type Anything = unsafe extern "C" fn(
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
) -> u32;

#[test]
#[ignore = "run by null_arguments_are_answered in a process of its own: calls that end contexts are among them"]
fn call_everything_with_nulls() {
    let mut succeeded = Vec::new();
    for name in names("driver.txt") {
        // A context of its own for each call: it may be lost by it.
        // SAFETY: null takes the context of the call before away.
        unsafe { cuCtxSetCurrent(null_mut()) };
        std::mem::forget(Context::new());
        let text = CString::new(name.as_str()).unwrap();
        let mut place = null_mut();
        // SAFETY: a zero-terminated text, and a valid place.
        ok(unsafe { cuGetProcAddress_v2(text.as_ptr(), &mut place, 13_000, 0, null_mut()) });
        // SAFETY: the address of a function of the driver. All of them take integers and pointers, pass them in
        // registers or on the stack as these, and answer null.
        let code = unsafe {
            let function: Anything = std::mem::transmute(place);
            function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        };
        if code == 0 {
            succeeded.push(name);
        }
    }
    // Zero is a device, a stream, a size and a flag, so that some calls mean something. None of them gives anything back,
    // but the one whose results are optional.
    succeeded.retain(|name| name != "cuCtxGetStreamPriorityRange");
    for name in &succeeded {
        assert!(
            !name.contains("Get") && !name.contains("Create") && !name.contains("Load"),
            "{name}"
        );
    }
    assert!(
        succeeded.iter().any(|name| name == "cuStreamSynchronize"),
        "{succeeded:?}"
    );
}

/// The sources, one text.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn each_call_is_traced_under_its_own_name() {
    let mut texts = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut texts,
    );
    let mut seen = BTreeSet::new();
    for text in &texts {
        let mut function = "";
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("extern \"C\" fn ") {
                function = rest.split('(').next().unwrap();
            }
            for opener in ["driver(\"", "anytime(\"", "call(\""] {
                if let Some((before, rest)) = line.split_once(opener)
                    && before.ends_with(' ')
                    && let Some((name, _)) = rest.split_once('"')
                {
                    assert_eq!(name, function);
                    assert!(seen.insert(name), "{name} twice");
                }
            }
        }
    }
    assert!(seen.len() > 150, "{}", seen.len());
}
