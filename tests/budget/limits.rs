//! What each kernel promises (`limits.csv`, written by hand): its accesses, and the most that it may ever cost.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::compile::DTYPES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 128-bit accesses to global memory.
    Vector,
    /// One element an access: what lies across memory or nowhere in particular.
    Scalar,
    /// One element a load, 128 bits a store.
    Gather,
    /// A handful of values a row: only registers and memory are held.
    Small,
}

#[derive(Clone, Debug)]
pub struct Promise {
    pub class: Class,
    /// Tensors of the kernel's dtype that it reads and writes, an element of each for every element.
    pub reads: u32,
    pub writes: u32,
    /// Why there is FP64 arithmetic in kernels of narrower dtypes, if there is.
    pub fp64: Option<String>,
    /// Instructions per element on sm_90 at most, by dtype.
    pub limits: BTreeMap<&'static str, f64>,
}

/// By kernel, without the dtype at the end of its name.
pub type Promises = BTreeMap<String, Promise>;

pub fn read(path: &Path) -> Result<Promises> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_path(path)?;
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|h| h == name)
            .with_context(|| format!("no column {name}"))
    };
    let (kernel, class) = (column("kernel")?, column("class")?);
    let (reads, writes, fp64) = (column("reads")?, column("writes")?, column("fp64")?);
    let mut promises = Promises::new();
    for record in reader.records() {
        let record = record?;
        let cell = |at: usize| record.get(at).unwrap_or("");
        let name = cell(kernel).to_owned();
        let number = |at: usize| {
            cell(at)
                .parse()
                .with_context(|| format!("{name}: `{}` is no number", cell(at)))
        };
        let mut limits = BTreeMap::new();
        for dtype in DTYPES {
            let limit = cell(column(dtype.name)?);
            if !limit.is_empty() {
                limits.insert(
                    dtype.name,
                    limit
                        .parse()
                        .with_context(|| format!("{name}: `{limit}` is no number"))?,
                );
            }
        }
        let promise = Promise {
            class: match cell(class) {
                "vector" => Class::Vector,
                "scalar" => Class::Scalar,
                "gather" => Class::Gather,
                "small" => Class::Small,
                other => {
                    bail!("{name}: the class is vector, scalar, gather or small, not `{other}`")
                }
            },
            reads: number(reads)?,
            writes: number(writes)?,
            fp64: Some(cell(fp64).to_owned()).filter(|reason| !reason.is_empty()),
            limits,
        };
        if promises.insert(name.clone(), promise).is_some() {
            bail!("{name} is there twice");
        }
    }
    Ok(promises)
}
