//! The three PNGs: two grids of digits and the learning curves.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Tensor;
use image::{GrayImage, Luma, imageops};

use crate::charts::{self, Chart, Line};
use crate::data::SIDE;

/// Digits in a row of a grid.
pub(crate) const COLUMNS: usize = 16;

const ZOOM: u32 = 2;
/// Pixels between neighbours, and more of them between one block of rows and the next.
const GAP: u32 = 2;
const BLOCK_GAP: u32 = 12;
const BACKGROUND: Luma<u8> = Luma([110]);

/// Rows of originals, each above the row of their reconstructions. Both: (images, 784), values in [0, 1].
pub(crate) fn reconstructions(
    path: &Path,
    originals: &Tensor,
    reconstructions: &Tensor,
) -> Result<()> {
    let (originals, reconstructions) = (originals.to_vec2()?, reconstructions.to_vec2()?);
    let pairs = originals
        .chunks(COLUMNS)
        .zip(reconstructions.chunks(COLUMNS));
    write_grid(
        path,
        pairs.map(|(above, below)| vec![above, below]).collect(),
    )
}

/// One block of rows. `images`: (images, 784), values in [0, 1].
pub(crate) fn grid(path: &Path, images: &Tensor) -> Result<()> {
    let images = images.to_vec2()?;
    write_grid(path, vec![images.chunks(COLUMNS).collect()])
}

/// A picture of blocks of rows of digits.
fn write_grid(path: &Path, blocks: Vec<Vec<&[Vec<f32>]>>) -> Result<()> {
    let side = SIDE as u32 * ZOOM;
    let cell = side + GAP;
    let rows: usize = blocks.iter().map(Vec::len).sum();
    let width = COLUMNS as u32 * cell - GAP + 2 * BLOCK_GAP;
    let height = rows as u32 * cell + blocks.len() as u32 * (BLOCK_GAP - GAP) + BLOCK_GAP;
    let mut picture = GrayImage::from_pixel(width, height, BACKGROUND);
    let mut y = BLOCK_GAP;
    for block in blocks {
        for row in block {
            for (column, digit) in row.iter().enumerate() {
                let digit = GrayImage::from_fn(side, side, |x, y| {
                    let pixel = (y / ZOOM) as usize * SIDE + (x / ZOOM) as usize;
                    Luma([(digit[pixel] * 255.0).round() as u8])
                });
                let x = BLOCK_GAP + column as u32 * cell;
                imageops::replace(&mut picture, &digit, x.into(), y.into());
            }
            y += cell;
        }
        y += BLOCK_GAP - GAP;
    }
    picture
        .save(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Negative ELBO against epochs, a line for each label.
pub(crate) fn curves(path: &Path, title: &str, lines: &[(&str, &[f64])]) -> Result<()> {
    let line = |(label, values): &(&str, &[f64])| Line {
        label: (*label).into(),
        points: (1u32..)
            .map(f64::from)
            .zip(values.iter().copied())
            .collect(),
    };
    let chart = Chart {
        title: title.into(),
        x: "epoch",
        y: "negative ELBO, nats per digit",
        digits: 0,
        lines: lines.iter().map(line).collect(),
    };
    charts::write(path, &[chart])
}
