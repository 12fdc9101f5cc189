//! Rules about the source tree, so that they stay true: who may import whom, where `unsafe` may stand, what is
//! documented, and which files go together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of `src/`, files or folders, that are composed of ops and bring no kernels: they may import rooms.
const COMPOSED: [&str; 3] = ["distributions", "modules", "schedules"];
/// Folders of `src/` that know no op. Every other folder is a room.
const FOUNDATIONS: [&str; 4] = ["launch", "rng", "rowwise", "simd"];
/// Files of `src/` that stand above the rooms: the crate's root and the doors for tests. Every other file is a foundation.
const ABOVE: [&str; 2] = ["lib", "bits"];
/// The first rooms: one that vanishes must not make these tests pass by having nothing to look at.
const ROOMS: [&str; 7] = [
    "improper_rows",
    "noise",
    "tempered_softmax",
    "gumbel_softmax",
    "gumbel_max",
    "categorical",
    "gaussian",
];
/// Where `unsafe` may stand: run-time dispatch, buffers filled by several threads, kernel launches.
const UNSAFE: [&str; 3] = ["simd", "output", "launch"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The part of `src/` that a file belongs to: its folder there, or its own stem.
fn part(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_string()
}

fn rooms() -> BTreeSet<String> {
    let rooms: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| !FOUNDATIONS.contains(&name.as_str()))
        .filter(|name| !COMPOSED.contains(&name.as_str()))
        .collect();
    for room in ROOMS {
        assert!(rooms.contains(room), "src/{room}/ is missing");
    }
    rooms
}

/// Code without comments (and so without doc tests) and without the contents of string literals.
fn code(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            '/' if rest.peek() == Some(&'*') => {
                let (mut depth, mut last) = (0, ' ');
                let mut now = c;
                loop {
                    match (last, now) {
                        ('/', '*') => (depth, now) = (depth + 1, ' '),
                        ('*', '/') => (depth, now) = (depth - 1, ' '),
                        _ => {}
                    }
                    if depth == 0 && last == '*' {
                        break;
                    }
                    last = now;
                    match rest.next() {
                        Some(next) => now = next,
                        None => break,
                    }
                }
            }
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => _ = rest.next(),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push_str("\"\"");
            }
            '\'' => {
                // a character literal may hold a quote; a lifetime has no closing one
                let mut ahead = rest.clone();
                let first = ahead.next();
                if first == Some('\\') {
                    rest.next();
                    rest.next();
                    while rest.next().is_some_and(|c| c != '\'') {}
                } else if ahead.next() == Some('\'') {
                    rest.next();
                    rest.next();
                } else {
                    out.push('\'');
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// The first names of every path that starts at `crate`, groups included: `crate::a::b`, `crate::{a, b::{c}}`.
fn crate_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let word = |s: &str| {
            s.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        names.insert(word(&group[start..i]));
                        start = i + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(word(rest));
        }
    }
    names.remove("");
    names
}

/// Names that `lib.rs` re-exports from each room: importing one of them from the crate's root is importing the room.
fn exports(rooms: &BTreeSet<String>) -> Vec<(String, String)> {
    let lib = code(&fs::read_to_string(root().join("src/lib.rs")).unwrap());
    let mut out = vec![];
    for statement in lib.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let Some((module, items)) = path.split_once("::") else {
            continue;
        };
        let module = module.trim();
        if rooms.contains(module) {
            for item in items
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|i| !i.is_empty())
            {
                out.push((module.to_string(), item.to_string()));
            }
        }
    }
    assert!(
        out.iter()
            .any(|(room, item)| room == "noise" && item == "gumbel"),
        "{out:?}"
    );
    out
}

#[test]
fn rooms_import_no_room_and_foundations_import_none_either() {
    let rooms = rooms();
    let exports = exports(&rooms);
    let mut seen = 0;
    for file in rust_files(&root().join("src")) {
        let part = part(&file);
        if ABOVE.contains(&part.as_str()) || COMPOSED.contains(&part.as_str()) {
            continue;
        }
        let code = code(&fs::read_to_string(&file).unwrap());
        let names = crate_names(&code);
        seen += names.len();
        for name in &names {
            let room = if rooms.contains(name) || COMPOSED.contains(&name.as_str()) {
                Some(name)
            } else {
                exports
                    .iter()
                    .find(|(_, item)| item == name)
                    .map(|(room, _)| room)
            };
            assert!(
                room.is_none_or(|room| *room == part),
                "{} imports the room {room:?}",
                file.display()
            );
        }
        // a path upwards out of the part would go round the check above
        let depth = file
            .strip_prefix(root().join("src"))
            .unwrap()
            .components()
            .count();
        let in_tests = if code.contains("mod tests") { 1 } else { 0 };
        let up = vec!["super"; depth + in_tests].join("::");
        assert!(
            !code.contains(&format!("{up}::")),
            "{} leaves its part through {up}",
            file.display()
        );
    }
    assert!(seen > 20, "the check found only {seen} imports");
}

#[test]
fn unsafe_stands_where_it_may_and_each_argues_its_case() {
    let mut seen = 0;
    for file in rust_files(&root().join("src")) {
        let source = fs::read_to_string(&file).unwrap();
        let words = |s: &str| {
            code(s)
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|w| *w == "unsafe")
                .count()
        };
        let count = words(&source);
        if count == 0 {
            continue;
        }
        seen += count;
        assert!(
            UNSAFE.contains(&part(&file).as_str()),
            "{}: `unsafe` outside {UNSAFE:?}",
            file.display()
        );
        let lines: Vec<&str> = source.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if words(line) > 0 {
                let argued = lines[i.saturating_sub(7)..=i]
                    .iter()
                    .any(|l| l.contains("SAFETY") || l.contains("# Safety"));
                assert!(argued, "{}:{}: no SAFETY comment", file.display(), i + 1);
            }
        }
    }
    assert!(
        seen > 0,
        "the check found no unsafe at all, not even in simd"
    );
}

/// Every `pub fn` of a file, with the doc comment above it.
fn public_functions(source: &str) -> Vec<(String, String)> {
    let (mut out, mut doc) = (vec![], String::new());
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
            doc.push('\n');
            continue;
        }
        if line.starts_with("#[") || line.starts_with(')') || line.starts_with(']') {
            continue;
        }
        for start in ["pub fn ", "pub const fn ", "pub unsafe fn "] {
            if let Some(rest) = line.strip_prefix(start) {
                let name = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                out.push((name, std::mem::take(&mut doc)));
            }
        }
        doc.clear();
    }
    out
}

#[test]
fn every_public_function_is_documented_with_a_runnable_example() {
    let rooms = rooms();
    let mut names = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let part = part(&file);
        let public = rooms.contains(&part) || COMPOSED.contains(&part.as_str());
        if !public && part != "rng" && part != "lib" {
            continue;
        }
        for (name, doc) in public_functions(&fs::read_to_string(&file).unwrap()) {
            let fences: Vec<&str> = doc
                .lines()
                .map(str::trim)
                .filter(|l| l.starts_with("```"))
                .collect();
            let runs = fences
                .iter()
                .step_by(2)
                .any(|f| matches!(*f, "```" | "```rust" | "```should_panic"));
            assert!(runs, "{}: {name} has no runnable example", file.display());
            assert!(
                doc.trim()
                    .lines()
                    .next()
                    .is_some_and(|l| l.trim().len() > 10),
                "{}: {name} has no first line",
                file.display()
            );
            names.insert(name);
        }
    }
    for op in [
        "uniform",
        "gumbel",
        "normal",
        "tempered_softmax",
        "tempered_log_softmax",
        "gumbel_softmax",
        "gumbel_softmax_st",
        "gumbel_max",
        "categorical",
        "gaussian",
        "gaussian_kl",
        "fold_in",
        "next_key",
    ] {
        assert!(names.contains(op), "the check did not see {op}");
    }
}

#[test]
fn every_room_has_its_tests_and_its_bench() {
    for room in rooms() {
        for (folder, main) in [
            ("tests/suite", "tests/suite/main.rs"),
            ("benches/ops", "benches/ops/main.rs"),
        ] {
            let file = root().join(folder).join(format!("{room}.rs"));
            assert!(file.is_file(), "{} is missing", file.display());
            let main = code(&fs::read_to_string(root().join(main)).unwrap());
            assert!(
                main.contains(&format!("mod {room};")),
                "{folder}/main.rs does not include {room}"
            );
        }
        let module = root().join("src").join(&room);
        for file in ["mod.rs", "cpu.rs"] {
            assert!(module.join(file).is_file(), "src/{room}/{file} is missing");
        }
        // A room of elementwise formulas alone names its kernels in them.
        let formulas = fs::read_to_string(module.join("cpu.rs")).unwrap();
        assert!(
            module.join("cuda.rs").is_file() || code(&formulas).contains("const KERNEL:"),
            "src/{room}/cuda.rs is missing"
        );
    }
}

/// Kernel files that belong to a foundation: what several rooms share of the forward and the backward passes.
const SHARED_KERNELS: [&str; 3] = ["one_hot", "piecewise", "softmax_gradient"];

#[test]
fn every_room_has_its_kernels_and_headers_know_no_op() {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(root().join("kernels")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "cu") {
            files.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    let mut wanted = rooms();
    wanted.extend(SHARED_KERNELS.map(String::from));
    assert_eq!(files, wanted);
    let mut headers = 0;
    for entry in fs::read_dir(root().join("kernels/include")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        headers += 1;
        for word in ["__global__", "KERNEL(name)", ".cu\""] {
            // The macros that name a kernel, and that make kernels of a formula.
            let defines = path.ends_with("element.cuh") && word == "KERNEL(name)"
                || path.ends_with("elementwise.cuh") && word != ".cu\"";
            assert!(
                defines || !text.contains(word),
                "{}: {word}",
                path.display()
            );
        }
    }
    assert!(headers > 5, "the check found only {headers} headers");
}

#[test]
fn the_reader_sees_through_comments_strings_and_groups() {
    let source = r#"
        //! crate::comment
        use crate::{alpha, beta::{self, inner}, gamma}; /* crate::block /* nested */ crate::more */
        let s = "crate::string \" crate::escaped"; let c = '"'; let d: &'static str = crate::delta();
        /// crate::doc
        fn f<'a>(x: &'a u8) { mycrate::not_this() }
    "#;
    let names: Vec<String> = crate_names(&code(source)).into_iter().collect();
    assert_eq!(names, ["alpha", "beta", "delta", "gamma"]);
    assert_eq!(
        public_functions(
            "/// Doc.\n/// ```\n/// x\n/// ```\n#[inline]\npub fn f() {}\npub(crate) fn g() {}\nfn h() {}"
        ),
        [("f".to_string(), " Doc.\n ```\n x\n ```\n".to_string())]
    );
}
