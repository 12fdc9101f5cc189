//! The speed that instruction counts allow, in percent of a card's memory peak: computed, not measured.

use crate::compile::{ARCHITECTURES, Dtype};
use crate::limits::{Class, Promise};
use crate::measure::Figures;

pub struct Card {
    pub name: &'static str,
    /// Whose machine code is counted.
    arch: u32,
    /// Instructions that it can issue for every byte that its memory moves.
    per_byte: f64,
    /// What an FP64 instruction takes of the time in which instructions are issued.
    fp64: f64,
}

impl Card {
    /// Whether it is this architecture's code that is counted for it.
    pub fn runs(&self, arch: u32) -> bool {
        self.arch == arch
    }

    pub fn per_byte(&self) -> f64 {
        self.per_byte
    }
}

pub const CARDS: [Card; 4] = [
    Card {
        name: "A100",
        arch: 80,
        per_byte: 9.6,
        fp64: 4.0,
    },
    Card {
        name: "H100",
        arch: 90,
        per_byte: 8.9,
        fp64: 2.0,
    },
    Card {
        name: "H200",
        arch: 90,
        per_byte: 6.2,
        fp64: 2.0,
    },
    // The nearest of the architectures that are compiled for.
    Card {
        name: "B200",
        arch: 120,
        per_byte: 4.4,
        fp64: 2.0,
    },
];

/// A scheduler issues 32 threads' instruction a cycle; the pipe of wide multiplies takes 8 threads a cycle, that of the
/// special functions 4.
const WIDE_SLOTS: f64 = 4.0;
const SPECIAL_SLOTS: f64 = 8.0;

/// Bytes that an element moves.
pub fn bytes(promise: &Promise, dtype: Dtype) -> f64 {
    f64::from((promise.reads + promise.writes) * dtype.bytes)
}

/// Percent of the card's memory peak, and what sets it.
pub fn ceiling(card: &Card, figures: &Figures, bytes: f64) -> (f64, &'static str) {
    let takes = [
        (figures.instructions, ""),
        (figures.wide * WIDE_SLOTS, "w"),
        (figures.special * SPECIAL_SLOTS, "s"),
        (figures.fp64 * card.fp64, "d"),
    ];
    let (slots, by) = takes.into_iter().fold(
        (0.0, ""),
        |most, take| if take.0 > most.0 { take } else { most },
    );
    (100.0 * card.per_byte * bytes / slots, by)
}

/// The docs' page; where there are no figures, it has a dash.
pub fn page<'a>(
    kernels: impl IntoIterator<Item = (&'a str, Dtype, &'a Promise)>,
    figures: impl Fn(&str, Dtype, u32) -> Option<&'a Figures>,
) -> String {
    let mut page = HEAD.to_owned();
    for (name, dtype, promise) in kernels {
        if promise.class == Class::Small {
            continue;
        }
        let bytes = bytes(promise, dtype);
        let of = |arch: u32, cell: &dyn Fn(&Figures) -> String| {
            figures(name, dtype, arch).map_or("-".to_owned(), cell)
        };
        let mut cells = vec![name.to_owned(), dtype.name.to_owned(), bytes.to_string()];
        cells.extend(ARCHITECTURES.map(|arch| of(arch, &|f| format!("{:.1}", f.instructions))));
        cells.extend(CARDS.iter().map(|card| {
            of(card.arch, &|f| {
                let (percent, by) = ceiling(card, f, bytes);
                format!("{percent:.0}{by}")
            })
        }));
        page += &format!("| {} |\n", cells.join(" | "));
    }
    page
}

const HEAD: &str = "\
# Ceilings of the CUDA kernels

**Computed from instruction counts, not measured on a card.** Written by the budget test from `tests/budget/table.csv`
(`BLESS=1 cargo test --release --features cuda --test budget`); the test fails where this page is out of date.

Each line has a kernel's instructions per element on its hot path for the architectures that are compiled for, and the
speed that they allow in percent of a card's memory peak: instructions that the card can issue per byte that it can move
(A100 9.6, H100 8.9, H200 6.2, B200 4.4), times the bytes that an element moves, over the instructions that it takes. Over
100, memory sets the pace; under it, expect 85 to 90 % of the figure. A letter says that a pipe fills before the issue slots
do: w that of wide multiplies, s that of special functions and conversions, d that of double precision. A100 is counted
with the code for sm_80, H100 and H200 with sm_90's, B200 with sm_120's, the nearest there is.

Latencies, caches and other pipes are not looked at, and a branch that depends on data counts with its cheaper side: words
that are refined, exact scores in a lazy race and the tails of the normal distribution come on top.

`_lanes`: several rows a warp; `_block`: a row in a block's registers; `_pieces` and `_join`: a row over several blocks;
`_columns`: rows across memory, `_columns_one` where they are not whole groups; `_strided`: any other layout.

| kernel | dtype | bytes per element | sm_80 | sm_90 | sm_120 | A100 | H100 | H200 | B200 |
|---|---|---|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_research() {
        let figures = Figures {
            instructions: 28.0,
            ..Figures::none()
        };
        let of = |card: usize, bytes: f64| ceiling(&CARDS[card], &figures, bytes).0.round();
        assert_eq!((of(1, 4.0), of(2, 4.0), of(3, 4.0)), (127.0, 89.0, 63.0));
        let full = Figures {
            instructions: 6.0,
            special: 1.0,
            ..Figures::none()
        };
        assert_eq!(
            ceiling(&CARDS[1], &full, 2.0).1,
            "s",
            "an exponential takes longer than six other instructions"
        );
    }
}
