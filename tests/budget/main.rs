//! The budget of the CUDA kernels, held without a GPU: every kernel is compiled for every architecture, and its machine
//! code must keep within `table.csv`. No spills, no local memory, 128-bit accesses where they are promised, no FP64 in
//! kernels of narrower dtypes, no more registers, and on the hot path no more instructions, wide multiplies and special
//! functions per element than the table has. `limits.csv` holds what may never be passed, whatever is blessed.
//!
//! After a change that is worth its price, or that made a kernel cheaper:
//! `BLESS=1 cargo test --release --features cuda --test budget` writes `table.csv` and `docs/ceilings.md` anew.
//!
//! `BUDGET_EXPLAIN=gumbel_softmax_block_f32` shows which blocks of a kernel are counted, and which instructions;
//! `BUDGET_KERNELS` names another folder of kernels, to try something on.

#![allow(
    unreachable_pub,
    reason = "a test binary exports nothing; `pub` is for its own modules"
)]

mod ceilings;
mod cfg;
mod compile;
mod limits;
mod measure;
mod sass;
mod table;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use ceilings::CARDS;
use compile::{ARCHITECTURES, DTYPES, Dtype, F32, Job, Kernel, Tools};
use limits::{Class, Promise};
use measure::Measured;
use table::Table;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("budget")
}

/// Past the test harness, which shows what a test prints only when it fails.
fn show(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The kernel's name without its dtype.
fn stem(kernel: &str, dtype: Dtype) -> Option<&str> {
    kernel.strip_suffix(dtype.name)?.strip_suffix('_')
}

/// What no table can allow.
fn broken_rules(kernel: &Kernel, promise: Option<&Promise>) -> Vec<String> {
    let mut broken = vec![];
    let r = kernel.resources;
    for (bytes, what) in [
        (r.spill_stores, "spill stores"),
        (r.spill_loads, "spill loads"),
        (r.stack, "stack frame"),
    ] {
        if bytes > 0 {
            broken.push(format!("{bytes} bytes of {what}, 0 are allowed"));
        }
    }
    let code = &kernel.function.code;
    let local = code.iter().filter(|i| i.is_local()).count();
    if local > 0 {
        broken.push(format!(
            "{local} accesses to local memory (LDL, STL), 0 are allowed"
        ));
    }
    let fp64 = code.iter().filter(|i| i.is_fp64()).collect::<Vec<_>>();
    let exempt = kernel.dtype.bytes == 8 || promise.is_some_and(|p| p.fp64.is_some());
    if let (Some(first), false) = (fp64.first(), exempt) {
        broken.push(format!(
            "{} FP64 instructions, 0 are allowed: {} at {:#x}",
            fp64.len(),
            first.opcode,
            first.address
        ));
    }
    broken
}

struct Checked {
    measured: Option<Measured>,
    /// Each with the kernel's name and the figure.
    problems: Vec<String>,
    /// Than the table, in anything.
    cheaper: bool,
}

/// Measures a kernel and holds it to the rules that no table can change, to its limits, and to the table where there is one.
fn check(kernel: &Kernel, promise: Option<&Promise>, table: Option<&Table>) -> Checked {
    let mut problems = broken_rules(kernel, promise);
    let name = &kernel.function.name;
    let named = |problem: String| format!("{name} on sm_{}: {problem}", kernel.arch);
    let Some(promise) = promise else {
        problems.push("limits.csv does not say what it promises".to_owned());
        let problems = problems.into_iter().map(named).collect();
        return Checked {
            measured: None,
            problems,
            cheaper: false,
        };
    };
    let mut cheaper = false;
    let measured = measure::measure(kernel, promise)
        .map_err(|e| problems.push(format!("{e:#}")))
        .ok();
    if let Some(measured) = &measured {
        let figures = &measured.figures;
        if let Some(&limit) = promise
            .limits
            .get(kernel.dtype.name)
            .filter(|_| kernel.arch == 90)
            && figures.instructions > limit
        {
            problems.push(format!(
                "instructions per element {}, limits.csv allows {limit}",
                figures.instructions
            ));
        }
        if let Some(table) = table {
            match table.get(&(name.clone(), kernel.arch)) {
                Some(bound) => {
                    let (dearer, less) = table::compare(figures, bound);
                    problems.extend(dearer);
                    cheaper = less;
                }
                None => problems.push("table.csv has no row for it".to_owned()),
            }
        }
    }
    Checked {
        measured,
        problems: problems.into_iter().map(named).collect(),
        cheaper,
    }
}

fn report_head() -> String {
    let mut line = format!(
        "{:<44} {:>4} {:>4} {:>6} {:>9} {:>5} {:>3} {:>3} {:>3} {:>8} {:>8} {:>6} {:>6} {:>5} {:>7}",
        "kernel",
        "arch",
        "regs",
        "shared",
        "kind",
        "elem",
        "ld",
        "st",
        "oth",
        "instr/el",
        "bound",
        "wide",
        "mufu",
        "spec",
        "H100 has"
    );
    for card in &CARDS {
        write!(line, " {:>6}", card.name).unwrap_or_default();
    }
    line + "\n"
}

/// Measured beside the bound, and the ceilings that follow.
fn report_line(
    kernel: &Kernel,
    promise: &Promise,
    measured: &Measured,
    bound: Option<&measure::Figures>,
) -> Result<String> {
    let f = &measured.figures;
    let mut line = format!(
        "{:<44} {:>4} {:>4} {:>6} {:>9}",
        kernel.function.name, kernel.arch, f.registers, f.shared, f.kind
    );
    if promise.class != Class::Small {
        let bound = bound.map_or("-".to_owned(), |b| format!("{:.2}", b.instructions));
        write!(
            line,
            " {:>5} {:>3} {:>3} {:>3} {:>8.2} {bound:>8}",
            f.elements, f.loads, f.stores, f.other, f.instructions
        )?;
        let bytes = ceilings::bytes(promise, kernel.dtype);
        write!(
            line,
            " {:>6.2} {:>6.2} {:>5.2} {:>7.1}",
            f.wide,
            f.mufu,
            f.special,
            CARDS[1].per_byte() * bytes
        )?;
        for card in &CARDS {
            match card.runs(kernel.arch) {
                true => {
                    let (percent, by) = ceilings::ceiling(card, f, bytes);
                    write!(line, " {:>5.0}%{by}", percent)?;
                }
                false => line += "       ",
            }
        }
    }
    Ok(line + "\n")
}

fn explain(kernel: &Kernel, measured: &Measured) -> String {
    let mut text = String::new();
    let share = measured.figures.elements;
    for pass in &measured.passes {
        let header = pass
            .header
            .map_or("path".to_owned(), |h| format!("loop at {h:#06x}"));
        let blocks: Vec<String> = pass
            .blocks
            .iter()
            .map(|(a, b)| format!("{a:04x}-{b:04x}"))
            .collect();
        text += &format!(
            "  {header} on sm_{}: {:?}\n  blocks {}\n",
            kernel.arch,
            pass.counts,
            blocks.join(" ")
        );
    }
    for (opcode, each) in measured.opcodes().into_iter().take(40) {
        text += &format!("  {opcode:<24} {:>8.0} {each:>8.3}\n", each * share);
    }
    text
}

fn compile_all() -> Result<Vec<Kernel>> {
    let tools = Tools::find()?;
    let folder =
        env::var_os("BUDGET_KERNELS").map_or_else(|| root().join("kernels"), PathBuf::from);
    let sources = compile::files_of(&folder, "cu")?;
    ensure!(!sources.is_empty(), "no kernels in {}", folder.display());
    let mut jobs = vec![];
    for source in &sources {
        for dtype in DTYPES {
            for arch in ARCHITECTURES {
                jobs.push(Job {
                    source: source.clone(),
                    include: folder.join("include"),
                    dtype,
                    arch,
                    defines: vec![],
                });
            }
        }
    }
    tools.compile(&jobs, &cache())
}

#[test]
fn every_kernel_keeps_within_its_budget() -> Result<()> {
    let blessing = env::var_os("BLESS").is_some_and(|v| v == "1");
    let explained = env::var("BUDGET_EXPLAIN").unwrap_or_default();
    let here = root().join("tests/budget");
    let promises = limits::read(&here.join("limits.csv")).context("limits.csv")?;
    let bounds = if blessing {
        Table::new()
    } else {
        table::read(&here.join("table.csv"))?
    };

    let mut kernels = compile_all()?;
    kernels.sort_by(|a, b| (&a.function.name, a.arch).cmp(&(&b.function.name, b.arch)));
    let (mut problems, mut cheaper, mut now) = (vec![], vec![], Table::new());
    let mut text = report_head();
    let mut stems = BTreeSet::new();
    for kernel in &kernels {
        let name = &kernel.function.name;
        let stem = stem(name, kernel.dtype)
            .with_context(|| format!("{name} does not end in _{}", kernel.dtype.name))?;
        let promise = promises.get(stem);
        stems.insert((stem, kernel.dtype.name));
        let checked = check(kernel, promise, (!blessing).then_some(&bounds));
        problems.extend(checked.problems);
        if checked.cheaper {
            cheaper.push(format!("{name} on sm_{}", kernel.arch));
        }
        if let (Some(measured), Some(promise)) = (checked.measured, promise) {
            let key = (name.clone(), kernel.arch);
            text += &report_line(kernel, promise, &measured, bounds.get(&key))?;
            if !explained.is_empty() && name.contains(&explained) {
                text += &explain(kernel, &measured);
            }
            ensure!(
                now.insert(key, measured.figures).is_none(),
                "two kernels are named {name}"
            );
        }
    }
    for name in promises.keys() {
        for dtype in DTYPES
            .iter()
            .filter(|d| !stems.contains(&(name.as_str(), d.name)))
        {
            problems.push(format!(
                "limits.csv has {name}, but there is no kernel {name}_{}",
                dtype.name
            ));
        }
    }
    for (name, arch) in bounds.keys().filter(|key| !now.contains_key(key)) {
        problems.push(format!(
            "table.csv has a row for {name} on sm_{arch}, but there is no such kernel"
        ));
    }

    // From the table, so that a cheaper kernel alone does not put it out of date.
    let known = if blessing { &now } else { &bounds };
    let page = ceilings::page(
        promises
            .iter()
            .flat_map(|(name, promise)| DTYPES.map(|dtype| (name.as_str(), dtype, promise))),
        |name, dtype, arch| known.get(&(format!("{name}_{}", dtype.name), arch)),
    );
    let docs = root().join("docs/ceilings.md");
    if blessing {
        fs::write(&docs, page)?;
    } else if fs::read_to_string(&docs).ok() != Some(page) {
        problems.push("docs/ceilings.md is out of date".to_owned());
    }
    if blessing {
        table::write(&here.join("table.csv"), &now)?;
    }
    show(&text)?;
    if !cheaper.is_empty() {
        show(&format!(
            "cheaper than the table in something: {}. To hold them to it: BLESS=1 cargo test --release --features cuda --test budget\n",
            cheaper.join(", ")
        ))?;
    }
    let advice =
        "where the price is right: BLESS=1 cargo test --release --features cuda --test budget";
    ensure!(
        problems.is_empty(),
        "{} out of budget:\n{}\n{advice}",
        problems.len(),
        problems.join("\n")
    );
    Ok(())
}

/// `planted.cu` for one architecture with one thing wrong.
fn planted(define: Option<&'static str>, arch: u32) -> Result<Kernel> {
    let here = root().join("tests/budget");
    let job = Job {
        source: here.join("planted.cu"),
        include: here,
        dtype: F32,
        arch,
        defines: define.into_iter().collect(),
    };
    Tools::find()?
        .compile(&[job], &cache())?
        .pop()
        .context("no kernel in planted.cu")
}

/// What is said of the kernel with `define` against the figures of the one that keeps every rule.
fn said_of(define: &'static str, arch: u32) -> Result<String> {
    let promise = Promise {
        class: Class::Vector,
        reads: 1,
        writes: 1,
        fp64: None,
        limits: [].into(),
    };
    let good = planted(None, arch)?;
    let checked = check(&good, Some(&promise), None);
    ensure!(
        checked.problems.is_empty(),
        "the kernel that keeps every rule: {:?}",
        checked.problems
    );
    let figures = checked.measured.context("no figures")?.figures;
    let table: Table = [((good.function.name.clone(), arch), figures)].into();
    let again = check(&good, Some(&promise), Some(&table)).problems;
    ensure!(again.is_empty(), "against its own figures: {again:?}");
    Ok(
        check(&planted(Some(define), arch)?, Some(&promise), Some(&table))
            .problems
            .join("\n"),
    )
}

#[test]
fn a_planted_spill_is_caught() -> Result<()> {
    for arch in ARCHITECTURES {
        let said = said_of("PLANT_SPILL", arch)?;
        assert!(
            said.contains(&format!("planted_f32 on sm_{arch}: ")),
            "{said}"
        );
        assert!(
            said.contains("bytes of spill stores, 0 are allowed"),
            "{said}"
        );
        assert!(
            said.contains("accesses to local memory (LDL, STL), 0 are allowed"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn a_planted_local_array_is_caught() -> Result<()> {
    for arch in ARCHITECTURES {
        let said = said_of("PLANT_LOCAL_ARRAY", arch)?;
        assert!(
            said.contains(&format!(
                "planted_f32 on sm_{arch}: 256 bytes of stack frame, 0 are allowed"
            )),
            "{said}"
        );
    }
    Ok(())
}

#[test]
fn planted_scalar_accesses_are_caught() -> Result<()> {
    for arch in ARCHITECTURES {
        let prefix = format!("planted_f32 on sm_{arch}: ");
        let one = said_of("PLANT_SCALAR_LOAD", arch)?;
        assert!(
            one.contains(&format!(
                "{prefix}promised wide loads on the hot path 1, the table says 2"
            )),
            "{one}"
        );
        assert!(
            one.contains(&format!(
                "{prefix}narrower global accesses on the hot path 4, the table allows 0"
            )),
            "{one}"
        );
        let all = said_of("PLANT_SCALAR_STORES", arch)?;
        assert!(
            all.contains(&format!("{prefix}0 global stores of 128 bits")),
            "{all}"
        );
    }
    Ok(())
}

#[test]
fn a_planted_double_is_caught() -> Result<()> {
    for arch in ARCHITECTURES {
        let said = said_of("PLANT_FP64", arch)?;
        assert!(
            said.contains(&format!("planted_f32 on sm_{arch}: "))
                && said.contains("FP64 instructions, 0 are allowed"),
            "{said}"
        );
        assert!(said.contains("FP64 instructions per element"), "{said}");
    }
    Ok(())
}

#[test]
fn planted_work_is_caught() -> Result<()> {
    let said = said_of("PLANT_WORK", 90)?;
    assert!(
        said.contains("planted_f32 on sm_90: instructions per element"),
        "{said}"
    );
    assert!(
        said.contains("planted_f32 on sm_90: MUFU per element"),
        "{said}"
    );
    Ok(())
}
