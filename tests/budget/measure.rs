//! What one kernel costs: its hot path turned into figures per element.

use anyhow::{Result, ensure};

use crate::cfg::{self, Path, Widths};
use crate::compile::Kernel;
use crate::limits::{Class, Promise};
use crate::sass::{Access, Instruction};

/// The figures of a kernel on an architecture: a row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    /// `path`: from entry to exit; `loop`: a trip through it; several: passes over the data, one after the other.
    pub kind: String,
    /// That the path handles.
    pub elements: f64,
    /// Accesses to global memory on it: of the promised width, and others.
    pub loads: u32,
    pub stores: u32,
    pub other: u32,
    /// Per element.
    pub instructions: f64,
    pub wide: f64,
    pub mufu: f64,
    pub special: f64,
    pub fp64: f64,
}

pub struct Measured {
    pub figures: Figures,
    /// What the figures were taken from.
    pub passes: Vec<Path>,
}

impl Measured {
    /// The opcodes on the hot path, per element, the most frequent first.
    pub fn opcodes(&self) -> Vec<(String, f64)> {
        let mut all: Vec<(String, f64)> = vec![];
        let share = 1.0 / self.figures.elements;
        for (opcode, count) in self.passes.iter().flat_map(|p| &p.opcodes) {
            match all.iter_mut().find(|(known, _)| known == opcode) {
                Some((_, sum)) => *sum += f64::from(*count) * share,
                None => all.push((opcode.clone(), f64::from(*count) * share)),
            }
        }
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }
}

/// What a kernel's promised accesses bring.
struct Accesses {
    widths: Widths,
    reads: u32,
    writes: u32,
    /// Elements of one tensor that a load brings, and a store takes.
    per_load: f64,
    per_store: f64,
}

impl Accesses {
    /// Nothing where nothing is promised.
    fn of(promise: &Promise, bytes: u32) -> Option<Self> {
        let (load, store) = match promise.class {
            Class::Vector => (16, 16),
            Class::Scalar => (bytes, bytes),
            Class::Gather => (bytes, 16),
            Class::Small => return None,
        };
        let (per_load, per_store) = (f64::from(load / bytes), f64::from(store / bytes));
        let Promise { reads, writes, .. } = *promise;
        Some(Self {
            widths: Widths { load, store },
            reads,
            writes,
            per_load,
            per_store,
        })
    }

    /// Elements that a path handles.
    fn elements(&self, path: &Path) -> f64 {
        let share = |count: u32, tensors: u32, each: f64| {
            // A pass may go over one of the tensors alone.
            let tensors = tensors.min(count);
            (tensors > 0).then(|| f64::from(count) * each / f64::from(tensors))
        };
        let read = share(path.counts.loads, self.reads, self.per_load);
        let written = share(path.counts.stores, self.writes, self.per_store);
        match (read, written) {
            (Some(read), Some(written)) => read.min(written),
            (read, written) => read.or(written).unwrap_or(0.0),
        }
    }

    /// Whether all that is promised is there in these paths together.
    fn done_by<'a>(&self, paths: impl Iterator<Item = &'a Path> + Clone) -> bool {
        (self.reads == 0 || paths.clone().any(|p| p.counts.loads > 0))
            && (self.writes == 0 || paths.clone().any(|p| p.counts.stores > 0))
    }
}

/// Whether two loops are one pass over the data: of two that cannot both run, or one unrolled and one for what is left over,
/// with the same arithmetic for each access.
fn is_same_pass(a: &Path, b: &Path) -> bool {
    let kind = |p: &Path| (p.counts.loads > 0, p.counts.stores > 0);
    if kind(a) != kind(b) {
        return false;
    }
    let follows = |a: &Path, b: &Path| b.header.is_some_and(|header| a.before.contains(&header));
    if !follows(a, b) && !follows(b, a) {
        return true;
    }
    if (a.counts.loads, a.counts.stores) == (b.counts.loads, b.counts.stores) {
        return false;
    }
    let arithmetic = |path: &Path, opcode: &str| {
        let counts = path
            .opcodes
            .iter()
            .filter(|(o, _)| o.split('.').next() == Some(opcode));
        f64::from(counts.map(|(_, n)| n).sum::<u32>())
            / f64::from(path.counts.loads + path.counts.stores)
    };
    let mut names: Vec<&str> = a
        .opcodes
        .iter()
        .chain(&b.opcodes)
        .filter_map(|(o, _)| o.split('.').next())
        .collect();
    names.retain(|o| o.starts_with('F') || o.starts_with('D') || *o == "MUFU");
    names.sort_unstable();
    names.dedup();
    let pairs = names.iter().map(|o| (arithmetic(a, o), arithmetic(b, o)));
    let (apart, all) = pairs.fold((0.0, 0.0), |(d, s), (x, y)| (d + (x - y).abs(), s + x + y));
    apart <= 0.25 * all
}

/// The passes over the data, each at its cheapest.
fn passes(mut paths: Vec<Path>, accesses: &Accesses) -> Vec<Path> {
    let cost = |p: &Path| f64::from(p.counts.instructions) / accesses.elements(p);
    paths.retain(|p| accesses.elements(p) > 0.0);
    // What a kernel does before its loops, such as the first load of a pipeline, is no pass of its own; nor is a loop for
    // rows that are longer than the registers.
    let looped = |p: &&Path| p.header.is_some();
    if accesses.done_by(paths.iter().filter(looped)) {
        paths.retain(|p| p.header.is_some());
    } else if accesses.done_by(paths.iter().filter(|p| !looped(p))) {
        paths.retain(|p| p.header.is_none());
    }
    let mut passes: Vec<Path> = vec![];
    for path in paths {
        match passes.iter_mut().find(|known| is_same_pass(known, &path)) {
            Some(known) => {
                if cost(&path) < cost(known) {
                    *known = path;
                }
            }
            None => passes.push(path),
        }
    }
    passes
}

pub fn measure(kernel: &Kernel, promise: &Promise) -> Result<Measured> {
    let (registers, shared) = (kernel.resources.registers, kernel.resources.shared);
    let Some(accesses) = Accesses::of(promise, kernel.dtype.bytes) else {
        let figures = Figures {
            registers,
            shared,
            ..Figures::none()
        };
        return Ok(Measured {
            figures,
            passes: vec![],
        });
    };
    let widths = accesses.widths;
    let passes = passes(cfg::hot_paths(&kernel.function, widths)?, &accesses);
    let sum = |of: fn(&cfg::Counts) -> u32| passes.iter().map(|p| of(&p.counts)).sum::<u32>();
    let (loads, stores) = (sum(|c| c.loads), sum(|c| c.stores));
    for (promised, found, kind, name, width) in [
        (promise.reads, loads, Access::Load, "loads", widths.load),
        (
            promise.writes,
            stores,
            Access::Store,
            "stores",
            widths.store,
        ),
    ] {
        let of_kind = |i: &&Instruction| {
            i.global_access()
                .is_some_and(|(k, bytes)| k == kind && bytes != width)
        };
        let others = kernel.function.code.iter().filter(of_kind).count();
        ensure!(
            promised == 0 || found > 0,
            "0 global {name} of {} bits on the hot path where they are promised; {others} of other widths in the kernel",
            width * 8
        );
    }
    let each = |of: fn(&cfg::Counts) -> u32| {
        let shares = passes
            .iter()
            .map(|p| f64::from(of(&p.counts)) / accesses.elements(p));
        // As the table has it.
        (shares.sum::<f64>() * 1000.0).round() / 1000.0
    };
    let loops = passes.iter().filter(|p| p.header.is_some()).count();
    let figures = Figures {
        registers,
        shared,
        kind: match (loops, passes.len()) {
            (0, _) => "path".to_owned(),
            (1, 1) => "loop".to_owned(),
            (n, all) if n == all => format!("{n} loops"),
            (n, _) => format!("path and {n} loops"),
        },
        elements: passes
            .iter()
            .map(|p| accesses.elements(p))
            .fold(0.0, f64::max),
        loads,
        stores,
        other: sum(|c| c.other),
        instructions: each(|c| c.instructions),
        wide: each(|c| c.wide),
        mufu: each(|c| c.mufu),
        special: each(|c| c.special),
        fp64: each(|c| c.fp64),
    };
    Ok(Measured { figures, passes })
}

impl Figures {
    pub fn none() -> Self {
        Self {
            registers: 0,
            shared: 0,
            kind: "-".to_owned(),
            elements: 0.0,
            loads: 0,
            stores: 0,
            other: 0,
            instructions: 0.0,
            wide: 0.0,
            mufu: 0.0,
            special: 0.0,
            fp64: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cfg::Counts;

    fn path(header: Option<u32>, loads: u32, stores: u32, instructions: u32, adds: u32) -> Path {
        let counts = Counts {
            loads,
            stores,
            instructions,
            ..Counts::default()
        };
        Path {
            header,
            counts,
            opcodes: vec![("FADD".to_owned(), adds)],
            blocks: vec![],
            before: (1..10)
                .map(|n| n * 0x10)
                .filter(|&n| header.is_none_or(|h| n > h))
                .collect(),
        }
    }

    fn accesses(reads: u32, writes: u32) -> Accesses {
        Accesses {
            widths: Widths {
                load: 16,
                store: 16,
            },
            reads,
            writes,
            per_load: 4.0,
            per_store: 4.0,
        }
    }

    fn headers(paths: Vec<Path>, accesses: &Accesses) -> Vec<Option<u32>> {
        passes(paths, accesses).iter().map(|p| p.header).collect()
    }

    #[test]
    fn elements_of_a_path() {
        assert_eq!(accesses(1, 1).elements(&path(None, 4, 4, 0, 0)), 16.0);
        assert_eq!(accesses(2, 1).elements(&path(None, 4, 2, 0, 0)), 8.0);
        assert_eq!(accesses(0, 1).elements(&path(None, 0, 3, 0, 0)), 12.0);
        let short = accesses(1, 1).elements(&path(None, 4, 3, 0, 0));
        assert_eq!(short, 12.0, "what is not stored is not done");
        let gathered = Accesses {
            per_load: 1.0,
            ..accesses(2, 1)
        };
        assert_eq!(gathered.elements(&path(None, 8, 1, 0, 0)), 4.0);
    }

    #[test]
    fn an_unrolled_loop_and_its_rest_are_one_pass() {
        let unrolled = || path(Some(0x20), 4, 0, 20, 16);
        let rest = || path(Some(0x80), 1, 0, 8, 4);
        assert_eq!(
            headers(vec![unrolled(), rest()], &accesses(1, 0)),
            [Some(0x20)]
        );
        let other = path(Some(0x90), 1, 0, 8, 9);
        assert_eq!(
            headers(vec![unrolled(), other], &accesses(1, 0)),
            [Some(0x20), Some(0x90)],
            "other arithmetic, another pass"
        );
        let again = path(Some(0x90), 4, 0, 20, 16);
        assert_eq!(
            headers(vec![unrolled(), again], &accesses(1, 0)),
            [Some(0x20), Some(0x90)],
            "the same once more"
        );
        let instead = path(Some(0x10), 4, 0, 19, 9);
        let alone = Path {
            before: vec![],
            ..unrolled()
        };
        let first = Path {
            before: vec![],
            ..instead
        };
        assert_eq!(
            headers(vec![first, alone], &accesses(1, 0)),
            [Some(0x10)],
            "one or the other"
        );
        let writing = path(Some(0x90), 1, 1, 8, 4);
        assert_eq!(
            headers(vec![unrolled(), rest(), writing], &accesses(1, 1)),
            [Some(0x20), Some(0x90)]
        );
    }

    #[test]
    fn loops_or_the_way_through() {
        let held = || path(None, 4, 4, 100, 16);
        let first_load = || path(None, 1, 0, 10, 0);
        let looped = || path(Some(0x20), 1, 1, 10, 4);
        assert_eq!(
            headers(vec![looped(), first_load()], &accesses(1, 1)),
            [Some(0x20)],
            "a load ahead of a loop is no pass"
        );
        assert_eq!(
            headers(vec![path(Some(0x20), 1, 0, 10, 4), held()], &accesses(1, 1)),
            [None],
            "a loop that does but half"
        );
    }
}
