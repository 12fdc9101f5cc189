//! The table of bounds (`table.csv`): what each kernel cost when it was last blessed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::measure::Figures;

/// By kernel and architecture.
pub type Table = BTreeMap<(String, u32), Figures>;

const COLUMNS: [&str; 14] = [
    "kernel",
    "arch",
    "registers",
    "shared",
    "kind",
    "elements",
    "loads",
    "stores",
    "other",
    "instructions",
    "imad_wide",
    "mufu",
    "special",
    "fp64",
];

/// What a compiler's mood may add to figures per element.
const TOLERANCE: f64 = 1.01;

pub fn read(path: &Path) -> Result<Table> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    if reader.headers()?.iter().ne(COLUMNS) {
        bail!(
            "{} does not have the columns {}",
            path.display(),
            COLUMNS.join(",")
        );
    }
    let mut table = Table::new();
    for record in reader.records() {
        let record = record?;
        let cell = |at: usize| record.get(at).unwrap_or("");
        let bad = |at: usize| format!("{}: `{}` is no {}", cell(0), cell(at), COLUMNS[at]);
        let whole = |at: usize| cell(at).parse::<u32>().with_context(|| bad(at));
        let number = |at: usize| cell(at).parse::<f64>().with_context(|| bad(at));
        let figures = Figures {
            registers: whole(2)?,
            shared: whole(3)?,
            kind: cell(4).to_owned(),
            elements: number(5)?,
            loads: whole(6)?,
            stores: whole(7)?,
            other: whole(8)?,
            instructions: number(9)?,
            wide: number(10)?,
            mufu: number(11)?,
            special: number(12)?,
            fp64: number(13)?,
        };
        if table
            .insert((cell(0).to_owned(), whole(1)?), figures)
            .is_some()
        {
            bail!("{} for sm_{} is there twice", cell(0), cell(1));
        }
    }
    Ok(table)
}

pub fn write(path: &Path, table: &Table) -> Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(COLUMNS)?;
    for ((kernel, arch), f) in table {
        let whole = [f.loads, f.stores, f.other].map(|n| n.to_string());
        let each = [f.instructions, f.wide, f.mufu, f.special, f.fp64].map(|x| format!("{x:.3}"));
        let front = [
            kernel.clone(),
            arch.to_string(),
            f.registers.to_string(),
            f.shared.to_string(),
            f.kind.clone(),
        ];
        writer.write_record(
            front
                .iter()
                .chain([&f.elements.to_string()])
                .chain(&whole)
                .chain(&each),
        )?;
    }
    Ok(writer.flush()?)
}

/// In what a kernel is dearer than the table says, and whether it is cheaper in anything.
pub fn compare(now: &Figures, bound: &Figures) -> (Vec<String>, bool) {
    let mut dearer = vec![];
    let mut cheaper = false;
    let mut at_most = |name: &str, now: f64, bound: f64, tolerance: f64| {
        if now > bound * tolerance {
            dearer.push(format!("{name} {now}, the table allows {bound}"));
        }
        cheaper |= now < bound;
    };
    at_most(
        "registers",
        f64::from(now.registers),
        f64::from(bound.registers),
        1.0,
    );
    at_most(
        "bytes of shared memory",
        f64::from(now.shared),
        f64::from(bound.shared),
        1.0,
    );
    at_most(
        "instructions per element",
        now.instructions,
        bound.instructions,
        TOLERANCE,
    );
    at_most("IMAD.WIDE per element", now.wide, bound.wide, TOLERANCE);
    at_most("MUFU per element", now.mufu, bound.mufu, TOLERANCE);
    at_most(
        "instructions of the special functions' pipe per element",
        now.special,
        bound.special,
        TOLERANCE,
    );
    at_most(
        "FP64 instructions per element",
        now.fp64,
        bound.fp64,
        TOLERANCE,
    );
    // Of the wide accesses there have to be as many; of others there may be no more.
    at_most(
        "narrower global accesses on the hot path",
        f64::from(now.other),
        f64::from(bound.other),
        1.0,
    );
    for (name, now, bound) in [
        ("loads", now.loads, bound.loads),
        ("stores", now.stores, bound.stores),
    ] {
        if now < bound {
            dearer.push(format!(
                "promised wide {name} on the hot path {now}, the table says {bound}"
            ));
        }
    }
    if now.kind != bound.kind {
        dearer.push(format!(
            "the hot path is now {}, in the table {}",
            now.kind, bound.kind
        ));
    }
    (dearer, cheaper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            registers: 40,
            shared: 256,
            kind: "path".to_owned(),
            elements: 16.0,
            loads: 4,
            stores: 4,
            other: 0,
            instructions: 60.0,
            wide: 5.0,
            mufu: 1.0,
            special: 1.0,
            fp64: 0.0,
        }
    }

    #[test]
    fn what_is_dearer() {
        let bound = figures();
        let says = |now: Figures| compare(&now, &bound).0.join("; ");
        assert_eq!(compare(&bound, &bound), (vec![], false));
        assert_eq!(
            says(Figures {
                instructions: 60.5,
                ..figures()
            }),
            "",
            "within the tolerance"
        );
        assert_eq!(
            says(Figures {
                instructions: 60.7,
                ..figures()
            }),
            "instructions per element 60.7, the table allows 60"
        );
        assert_eq!(
            says(Figures {
                registers: 41,
                ..figures()
            }),
            "registers 41, the table allows 40"
        );
        assert_eq!(
            says(Figures {
                other: 1,
                ..figures()
            }),
            "narrower global accesses on the hot path 1, the table allows 0"
        );
        assert_eq!(
            says(Figures {
                loads: 3,
                ..figures()
            }),
            "promised wide loads on the hot path 3, the table says 4"
        );
        assert!(
            says(Figures {
                wide: 5.1,
                ..figures()
            })
            .contains("IMAD.WIDE")
        );
        assert!(
            says(Figures {
                mufu: 1.1,
                ..figures()
            })
            .contains("MUFU")
        );
        assert!(
            says(Figures {
                fp64: 0.1,
                ..figures()
            })
            .contains("FP64")
        );
        assert!(
            says(Figures {
                kind: "loop".to_owned(),
                ..figures()
            })
            .contains("path")
        );
        assert_eq!(
            compare(
                &Figures {
                    instructions: 59.0,
                    ..figures()
                },
                &bound
            ),
            (vec![], true)
        );
    }

    #[test]
    fn written_and_read_again() {
        let path = std::env::temp_dir().join(format!("budget-table-{}.csv", std::process::id()));
        let table: Table = [
            (("a_f32".to_owned(), 90), figures()),
            (("a_f32".to_owned(), 120), Figures::none()),
        ]
        .into();
        write(&path, &table).unwrap();
        let again = read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again.unwrap(), table);
    }
}
