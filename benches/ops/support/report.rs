//! The closing table, beside the ratios that are asked for, and the same as CSV under target/.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{
    duel::Sample,
    shapes::{
        S1X128256, S64X32000, S64X128256, S512X4096, S1024X4096, S4096X10, S4096X32, S4096X256,
        Shape,
    },
    suite::{Case, Direction},
    timing::{Against, Timing, duration},
};

const WIDE: &[Shape] = &[S4096X256, S512X4096, S64X32000];
const NARROW: &[Shape] = &[S4096X10, S4096X32];
const VOCABULARY: &[Shape] = &[S64X32000, S64X128256, S1X128256];

/// The least ratio that is asked of an op, for f32 on two threads.
#[rustfmt::skip]
const TARGETS: &[(&str, Direction, &[Shape], f64)] = &[
    ("gumbel_softmax",   Direction::Forward,         WIDE,          18.),
    ("gumbel_softmax",   Direction::Forward,         NARROW,        10.),
    ("gumbel_softmax",   Direction::ForwardBackward, WIDE,          12.),
    ("gumbel_softmax",   Direction::BackwardKernel,        WIDE,          0.6),
    ("tempered_softmax", Direction::ForwardBackward, WIDE,          5.),
    ("gumbel_max",       Direction::Forward,         VOCABULARY,    12.),
    ("categorical",      Direction::Forward,         VOCABULARY,    50.),
    ("gaussian",         Direction::ForwardBackward, &[S1024X4096], 3.),
];

fn target(case: &Case) -> Option<f64> {
    TARGETS
        .iter()
        .find(|(op, direction, shapes, _)| {
            *op == case.op && *direction == case.direction && shapes.contains(&case.shape)
        })
        .map(|(.., ratio)| *ratio)
}

/// A case with its medians, or without them where it was verified and run but not measured.
pub struct Row {
    case: Case,
    timing: Option<(Timing, Against)>,
}

impl Row {
    pub fn new(case: Case, samples: &[Sample]) -> Self {
        let timing = Timing::of(samples).and_then(|t| Some((t, t.against?)));
        Self { case, timing }
    }
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Prints the table and writes the CSV; says so where there is nothing to print.
    pub fn finish(&self) -> Result<()> {
        if self.rows.iter().all(|row| row.timing.is_none()) {
            println!(
                "{} cases verified and run once each, none measured",
                self.rows.len()
            );
            return Ok(());
        }
        println!("\n{}", conditions());
        self.print();
        let path = self.write_csv()?;
        println!("\nThe same as CSV: {}", path.display());
        Ok(())
    }

    fn print(&self) {
        println!(
            "ratio: baseline's median over the fused op's, taken in turn in one run; in brackets the quartiles of the \
             samples' ratios\n"
        );
        println!(
            "{:<20} {:<17} {:>10} {:>10} {:>9} {:>7}  {:<38} {:>11} {:>7} {:<15} {:>7} reached",
            "op",
            "direction",
            "shape",
            "fused",
            "Gelem/s",
            "GB/s",
            "baseline",
            "",
            "ratio",
            "",
            "target",
        );
        for row in &self.rows {
            let Some((t, against)) = &row.timing else {
                continue;
            };
            let (case, ratio, ratios) = (&row.case, against.ratio(t), against.ratios);
            let (target, reached) = match target(case) {
                Some(target) => (format!("{target}"), reached(ratio, target)),
                None => Default::default(),
            };
            println!(
                "{:<20} {:<17} {:>10} {:>10} {:>9.3} {:>7.2}  {:<38} {:>11} {:>7.2} {:<15} {:>7} {}",
                case.op,
                case.direction.name(),
                case.shape,
                duration(t.fused.median),
                case.shape.elements() as f64 / t.fused.median * 1e-9,
                case.bytes as f64 / t.fused.median * 1e-9,
                case.baseline,
                duration(against.baseline.median),
                ratio,
                format!("({:.2}-{:.2})", ratios.q25, ratios.q75),
                target,
                reached,
            );
        }
    }

    fn write_csv(&self) -> Result<PathBuf> {
        let path = results_folder()?.join("bench-ops.csv");
        let mut csv =
            csv::Writer::from_path(&path).with_context(|| format!("writing {}", path.display()))?;
        csv.write_record([
            "op",
            "direction",
            "rows",
            "len",
            "samples",
            "fused_s",
            "elements_per_s",
            "bytes_per_s",
            "baseline",
            "baseline_s",
            "ratio",
            "ratio_q25",
            "ratio_q75",
            "target",
            "reached",
            "instruction_set",
            "threads",
        ])?;
        for row in &self.rows {
            let Some((t, against)) = &row.timing else {
                continue;
            };
            let (case, ratio, ratios) = (&row.case, against.ratio(t), against.ratios);
            let target = target(case);
            csv.write_record([
                case.op.to_string(),
                case.direction.name().to_string(),
                case.shape.rows.to_string(),
                case.shape.len.to_string(),
                t.samples.to_string(),
                format!("{:.6e}", t.fused.median),
                format!("{:.4e}", case.shape.elements() as f64 / t.fused.median),
                format!("{:.4e}", case.bytes as f64 / t.fused.median),
                case.baseline.to_string(),
                format!("{:.6e}", against.baseline.median),
                format!("{ratio:.3}"),
                format!("{:.3}", ratios.q25),
                format!("{:.3}", ratios.q75),
                target.map(|x| x.to_string()).unwrap_or_default(),
                target
                    .map(|x| reached(ratio, x))
                    .unwrap_or_default()
                    .to_string(),
                candle_reparam::simd_level().to_string(),
                rayon::current_num_threads().to_string(),
            ])?;
        }
        csv.flush()?;
        Ok(path)
    }
}

fn reached(ratio: f64, target: f64) -> &'static str {
    if ratio >= target { "yes" } else { "no" }
}

/// Where the CSV goes: the folder of what is built.
pub fn results_folder() -> Result<PathBuf> {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// What the figures were taken on: without it none of them means anything.
pub fn conditions() -> String {
    format!(
        "f32, {} threads, instruction set {}, {}, load average {}",
        rayon::current_num_threads(),
        candle_reparam::simd_level(),
        processor(),
        load_average()
    )
}

fn processor() -> String {
    let name = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    name.unwrap_or_else(|| format!("{} {}", env::consts::ARCH, env::consts::OS))
}

/// Other work on the machine slows the two sides unequally: candle's pool spins while it waits.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").ok();
    let minute = text.and_then(|t| Some(t.split_whitespace().next()?.to_string()));
    minute.unwrap_or_else(|| "unknown".into())
}
