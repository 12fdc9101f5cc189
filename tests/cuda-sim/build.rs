//! Exports every name that a CUDA program may bind and that no source file implements, as a function that fails by name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The list of names of each library, and the function that reports a call of one that is not simulated.
const LIBRARIES: [(&str, &str); 6] = [
    ("driver", "driver"),
    ("cublas", "cublas"),
    ("cublaslt", "cublas"),
    ("curand", "curand"),
    ("cudart", "cudart"),
    ("nvrtc", "nvrtc"),
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=symbols");
    // One file serves under several names; programs that are linked against it ask for this one.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");

    let mut implemented = BTreeSet::new();
    collect(Path::new("src"), &mut implemented)?;

    let mut stubs = String::new();
    let mut driver_names = BTreeSet::new();
    for (list, reporter) in LIBRARIES {
        let names = fs::read_to_string(format!("symbols/{list}.txt"))?;
        for name in names.lines().filter(|line| !line.is_empty()) {
            if !implemented.contains(name) {
                writeln!(
                    stubs,
                    "/// Not simulated.\n\
                     #[unsafe(no_mangle)]\n\
                     pub extern \"C\" fn {name}() -> c_int {{ {reporter}(\"{name}\") }}"
                )
                .expect("a String takes all that is written");
            }
            if list == "driver" {
                driver_names.insert(name.to_owned());
            }
        }
    }

    // The driver's own table of entry points, for cuGetProcAddress.
    driver_names.extend(implemented.into_iter().filter(|name| is_driver(name)));
    let mut table = String::from("unsafe extern \"C\" {\n");
    for name in &driver_names {
        writeln!(table, "    fn {name}();").expect("a String takes all that is written");
    }
    table.push_str("}\n/// Every function of the driver, by name and in order.\npub static TABLE: &[(&str, unsafe extern \"C\" fn())] = &[\n");
    for name in &driver_names {
        writeln!(table, "    (\"{name}\", {name}),").expect("a String takes all that is written");
    }
    table.push_str("];\n");

    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("stubs.rs"), stubs)?;
    fs::write(out.join("table.rs"), table)
}

/// `cu` and a capital letter: no `cuda`, `cublas` or `curand`.
fn is_driver(name: &str) -> bool {
    name.strip_prefix("cu")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn is_exported(word: &str) -> bool {
    word.starts_with("cu") || word.starts_with("__cuda")
}

/// Adds the names of all exported functions in a folder of sources: those that are written out, and those that are
/// listed in the invocation of a macro whose name begins with `export_`.
fn collect(folder: &Path, names: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut in_macro = false;
            for line in fs::read_to_string(&path)?.lines() {
                in_macro = match line {
                    "}" => false,
                    _ => in_macro || line.starts_with("export_") && line.ends_with("! {"),
                };
                if in_macro {
                    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                    names.extend(words.filter(|word| is_exported(word)).map(str::to_owned));
                } else if let Some((_, rest)) = line.split_once("extern \"C\" fn ")
                    && line.starts_with("pub ")
                    && let Some((name, _)) = rest.split_once('(')
                {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    Ok(())
}
