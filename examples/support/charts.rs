//! Line charts as PNGs, for the examples.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use epaint_default_fonts::UBUNTU_LIGHT;
use image::{RgbImage, imageops};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

/// Colours that stay apart for most colour-blind readers.
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
    RGBColor(90, 90, 90),
];
/// Pixels of one chart.
const SIZE: (u32, u32) = (900, 560);

pub(crate) struct Line {
    pub(crate) label: String,
    /// In the order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Digits after the point, on the y axis.
    pub(crate) digits: usize,
    pub(crate) lines: Vec<Line>,
}

/// One picture of the charts, below one another.
pub(crate) fn write(path: &Path, charts: &[Chart]) -> Result<()> {
    // A font inside the program: the picture is the same on a machine that has none, and needs no system library.
    register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the built-in font is broken"))?;

    // Drawn at twice the size: plotters does not smooth lines, shrinking does.
    let (width, height) = (SIZE.0, SIZE.1 * charts.len() as u32);
    let mut picture = RgbImage::new(2 * width, 2 * height);
    {
        let size = picture.dimensions();
        let root = BitMapBackend::with_buffer(&mut picture, size).into_drawing_area();
        let draw = || {
            root.fill(&WHITE)?;
            for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(charts) {
                draw_chart(area, chart)?;
            }
            root.present()?;
            Result::<()>::Ok(())
        };
        draw().context("cannot draw the curves")?;
    }
    let picture = imageops::resize(&picture, width, height, imageops::FilterType::Triangle);
    picture
        .save(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw_chart(area: &DrawingArea<BitMapBackend, Shift>, chart: &Chart) -> Result<()> {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let x = range(points().map(|point| point.0)).context("a chart without points")?;
    let y = range(points().map(|point| point.1)).context("a chart without points")?;
    let margin = match 0.05 * (y.end() - y.start()) {
        margin if margin > 0.0 => margin,
        _ => 0.5,
    };
    let mut axes = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 46))
        .margin(32)
        .x_label_area_size(96)
        .y_label_area_size(128)
        .build_cartesian_2d(*x.start()..*x.end(), y.start() - margin..y.end() + margin)?;
    let digits = chart.digits;
    axes.configure_mesh()
        .x_desc(chart.x)
        .y_desc(chart.y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .label_style(("sans-serif", 34))
        .axis_desc_style(("sans-serif", 38))
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in chart.lines.iter().zip(COLOURS.into_iter().cycle()) {
        let stroke = colour.stroke_width(4);
        axes.draw_series(LineSeries::new(line.points.iter().copied(), stroke))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 48, y)], stroke));
    }
    axes.configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(20)
        .legend_area_size(64)
        .label_font(("sans-serif", 34))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.4))
        .draw()?;
    Ok(())
}

fn range(values: impl Iterator<Item = f64>) -> Option<RangeInclusive<f64>> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |range, value| {
            let (low, high) = range.map_or((value, value), RangeInclusive::into_inner);
            Some(low.min(value)..=high.max(value))
        })
}
