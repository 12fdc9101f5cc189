//! The card's closing table, and its CSV, which also holds what `benches/peers` measures.

use std::{fs::File, path::PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::DType;

use super::{
    card::{Card, Conditions},
    leg::Sides,
};
use crate::support::{
    duel::Sample,
    report::results_folder,
    suite::Case,
    timing::{Spread, Timing, duration},
};

/// The columns of a row for each implementation of a case; `benches/peers/torch_peers.py` writes the same.
const COLUMNS: [&str; 22] = [
    "op",
    "direction",
    "dtype",
    "rows",
    "len",
    "implementation",
    "seconds",
    "seconds_q25",
    "seconds_q75",
    "samples",
    "bytes",
    "gb_per_s",
    "copy_gb_per_s",
    "percent_of_copy",
    "enqueue_seconds",
    "card",
    "driver",
    "sm_mhz",
    "memory_mhz",
    "toolkit",
    "date",
    "note",
];

#[derive(Clone, Copy)]
pub struct CardCase {
    pub case: Case,
    pub dtype: DType,
}

impl CardCase {
    /// What stands behind the op in the case's name.
    pub fn place(&self) -> String {
        let Case {
            direction, shape, ..
        } = self.case;
        format!("cuda/{}/{}/{shape}", self.dtype.as_str(), direction.name())
    }
}

/// One implementation of a case.
struct Figure<'a> {
    implementation: &'a str,
    seconds: Spread,
    enqueue: f64,
    note: &'a str,
}

#[derive(Default)]
pub struct CardReport {
    csv: Option<(PathBuf, csv::Writer<File>)>,
    lines: Vec<String>,
    verified: usize,
    failed: Vec<String>,
}

impl CardReport {
    /// Prints the case and appends it to the CSV, so that a run that is cut off leaves what it measured.
    ///
    /// # Panics
    /// Where the CSV cannot be written, or the card's own figures cannot be had.
    pub fn push(&mut self, card: &Card, case: CardCase, sides: &Sides, samples: &[Sample]) {
        let Some(timing) = Timing::of(samples) else {
            self.verified += 1;
            return;
        };
        self.record(card, &case, sides, &timing)
            .unwrap_or_else(|e| panic!("the card's report: {e:#}"));
    }

    fn record(
        &mut self,
        card: &Card,
        case: &CardCase,
        sides: &Sides,
        timing: &Timing,
    ) -> Result<()> {
        let conditions = card.conditions()?;
        let line = table_line(case, sides, timing, conditions);
        println!("{line}\n");
        self.lines.push(line);
        let fused = Figure {
            implementation: "candle-reparam",
            seconds: timing.fused,
            enqueue: sides.fused_enqueue,
            note: "",
        };
        self.write(case, conditions, timing.samples, &fused)?;
        if let (Some(against), Ok(enqueue)) = (&timing.against, &sides.plain_enqueue) {
            let plain = Figure {
                implementation: "plain candle",
                seconds: against.baseline,
                enqueue: *enqueue,
                note: case.case.baseline,
            };
            self.write(case, conditions, timing.samples, &plain)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        CardCase { case, dtype }: &CardCase,
        conditions: &Conditions,
        samples: usize,
        figure: &Figure,
    ) -> Result<()> {
        let csv = match &mut self.csv {
            Some((_, csv)) => csv,
            none => {
                let path = results_folder()?.join("bench-cuda.csv");
                let mut csv = csv::Writer::from_path(&path)
                    .with_context(|| format!("writing {}", path.display()))?;
                csv.write_record(COLUMNS)?;
                &mut none.insert((path, csv)).1
            }
        };
        let rate = case.bytes as f64 / figure.seconds.median;
        let row: [String; COLUMNS.len()] = [
            case.op.into(),
            case.direction.name().into(),
            dtype.as_str().into(),
            case.shape.rows.to_string(),
            case.shape.len.to_string(),
            figure.implementation.into(),
            format!("{:.4e}", figure.seconds.median),
            format!("{:.4e}", figure.seconds.q25),
            format!("{:.4e}", figure.seconds.q75),
            samples.to_string(),
            case.bytes.to_string(),
            format!("{:.1}", rate * 1e-9),
            format!("{:.1}", conditions.copy * 1e-9),
            format!("{:.1}", rate / conditions.copy * 100.),
            format!("{:.4e}", figure.enqueue),
            conditions.name.clone(),
            conditions.driver.clone(),
            conditions.sm_clock.clone(),
            conditions.memory_clock.clone(),
            conditions.toolkit.clone(),
            conditions.date.clone(),
            figure.note.into(),
        ];
        csv.write_record(row)?;
        csv.flush()?;
        Ok(())
    }

    pub fn failed(&mut self, name: String) {
        println!("FAILED: {name}");
        self.failed.push(name);
    }

    /// The closing table. An error where a case failed.
    pub fn finish(&self, card: &Card) -> Result<()> {
        if self.verified > 0 {
            println!(
                "{} CUDA cases verified and run, none of them measured",
                self.verified
            );
        }
        if let Some((path, _)) = &self.csv {
            println!("\n{}", card.conditions()?);
            println!(
                "copy: GB/s of the op's own bytes as a part of what the copy moves; host: what the host needs to enqueue a \
                 run, which bounds short cases; plain candle draws 16-bit noise in f32 and converts it, since candle's \
                 `rand` has none on CUDA\n"
            );
            println!("{}", head());
            for line in &self.lines {
                println!("{line}");
            }
            println!("\nThe same as CSV: {}", path.display());
        }
        ensure!(
            self.failed.is_empty(),
            "{} CUDA cases failed: {}",
            self.failed.len(),
            self.failed.join(", ")
        );
        Ok(())
    }
}

/// A line of the table, or its head.
fn columns(left: [&str; 4], numbers: [&str; 4], plain: [&str; 2]) -> String {
    let [op, direction, dtype, shape] = left;
    let [fused, host, rate, copy] = numbers;
    let [seconds, ratio] = plain;
    format!(
        "{op:<20} {direction:<16} {dtype:<5} {shape:>11} {fused:>10} {host:>10} {rate:>7} {copy:>5}  {seconds:>12} {ratio:>8}"
    )
}

fn head() -> String {
    columns(
        ["op", "direction", "dtype", "shape"],
        ["fused", "host", "GB/s", "copy"],
        ["plain candle", "ratio"],
    )
}

fn table_line(case: &CardCase, sides: &Sides, timing: &Timing, conditions: &Conditions) -> String {
    let CardCase { case, dtype } = case;
    let rate = case.bytes as f64 / timing.fused.median;
    let plain = match (&timing.against, &sides.plain_enqueue) {
        (Some(against), _) => [
            duration(against.baseline.median),
            format!("{:.2}x", against.ratio(timing)),
        ],
        (None, Err(why)) => [format!("none: {why}"), String::new()],
        (None, Ok(_)) => Default::default(),
    };
    columns(
        [
            case.op,
            case.direction.name(),
            dtype.as_str(),
            &case.shape.to_string(),
        ],
        [
            &duration(timing.fused.median),
            &duration(sides.fused_enqueue),
            &format!("{:.1}", rate * 1e-9),
            &format!("{:.0}%", rate / conditions.copy * 100.),
        ],
        [&plain[0], &plain[1]],
    )
}
