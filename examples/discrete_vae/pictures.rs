//! The three PNGs: two grids of digits and the learning curves.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use candle_core::Tensor;
use epaint_default_fonts::UBUNTU_LIGHT;
use image::{GrayImage, Luma, RgbImage, imageops};
use plotters::prelude::*;
use plotters::style::register_font;

use crate::data::SIDE;
use crate::train::Curves;

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

/// Negative ELBO against epochs, training digits and held-out digits.
pub(crate) fn curves(path: &Path, curves: &Curves, title: &str) -> Result<()> {
    // A font inside the program: the picture is the same on a machine that has none, and needs no system library.
    register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the built-in font is broken"))?;

    // Drawn at twice the size: plotters does not smooth lines, shrinking does.
    let (width, height) = (900, 560);
    let mut picture = RgbImage::new(2 * width, 2 * height);
    draw_curves(&mut picture, curves, title).context("cannot draw the learning curves")?;
    let picture = imageops::resize(&picture, width, height, imageops::FilterType::Triangle);
    picture
        .save(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw_curves(picture: &mut RgbImage, curves: &Curves, title: &str) -> Result<()> {
    let size = picture.dimensions();
    let root = BitMapBackend::with_buffer(picture, size).into_drawing_area();
    root.fill(&WHITE)?;

    let all = || curves.train.iter().chain(&curves.held_out).copied();
    let (low, high) = (
        all().fold(f64::INFINITY, f64::min),
        all().fold(f64::NEG_INFINITY, f64::max),
    );
    let margin = (0.05 * (high - low)).max(1.0);
    let epochs = curves.train.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 46))
        .margin(32)
        .x_label_area_size(96)
        .y_label_area_size(128)
        .build_cartesian_2d(0.0..epochs, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("negative ELBO, nats per digit")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 34))
        .axis_desc_style(("sans-serif", 38))
        .light_line_style(WHITE)
        .draw()?;

    let series = [
        ("training digits", &curves.train, RGBColor(31, 119, 180)),
        ("held-out digits", &curves.held_out, RGBColor(214, 39, 40)),
    ];
    for (label, values, colour) in series {
        let line = colour.stroke_width(4);
        let points = values
            .iter()
            .enumerate()
            .map(|(i, value)| (i as f64 + 1.0, *value));
        chart
            .draw_series(LineSeries::new(points, line))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 48, y)], line));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(20)
        .legend_area_size(64)
        .label_font(("sans-serif", 38))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.4))
        .draw()?;
    root.present()?;
    Ok(())
}
