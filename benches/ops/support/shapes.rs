//! The shapes that are timed: rows by row length.

use std::{fmt, str::FromStr};

use anyhow::Context;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub rows: usize,
    pub len: usize,
}

impl Shape {
    pub const fn new(rows: usize, len: usize) -> Self {
        Self { rows, len }
    }

    pub fn elements(self) -> u64 {
        (self.rows * self.len) as u64
    }

    pub fn dims(self) -> (usize, usize) {
        (self.rows, self.len)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` honours the width a table asks for.
        f.pad(&format!("{}x{}", self.rows, self.len))
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse().ok().filter(|n| *n > 0);
        text.split_once('x')
            .and_then(|(rows, len)| Some(Self::new(number(rows)?, number(len)?)))
            .with_context(|| format!("{text:?} is not a shape such as 8192x4096"))
    }
}

/// A discrete VAE's latents: many rows of few classes.
pub const S4096X10: Shape = Shape::new(4096, 10);
pub const S4096X32: Shape = Shape::new(4096, 32);
pub const S4096X256: Shape = Shape::new(4096, 256);
pub const S512X4096: Shape = Shape::new(512, 4096);
/// Batches of token logits, and the logits of a single next token.
pub const S64X32000: Shape = Shape::new(64, 32_000);
pub const S64X128256: Shape = Shape::new(64, 128_256);
pub const S1X128256: Shape = Shape::new(1, 128_256);
/// Latents of a Gaussian VAE.
pub const S1024X4096: Shape = Shape::new(1024, 4096);

pub const SHAPES: [Shape; 7] = [
    S4096X10, S4096X32, S4096X256, S512X4096, S64X32000, S64X128256, S1X128256,
];
