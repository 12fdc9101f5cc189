//! MNIST digits from a compressed CSV file: 784 grey values and a label a line.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_reparam::{Key, uniform};
use flate2::read::GzDecoder;

/// Height and width of an image.
pub(crate) const SIDE: usize = 28;
/// Grey values of an image.
pub(crate) const PIXELS: usize = SIDE * SIDE;

const CLASSES: usize = 10;
const HELD_OUT_PER_CLASS: usize = 50;

/// Two disjoint sets of images, each of shape (images, 784), with grey values in [0, 1], ordered by class.
pub(crate) struct Digits {
    pub(crate) train: Tensor,
    pub(crate) held_out: Tensor,
}

impl Digits {
    /// Reads `path` and holds out the last 50 images of each class, whatever the seed, so that runs compare.
    pub(crate) fn load(path: &Path, device: &Device) -> Result<Self> {
        let (images, labels) =
            read(path).with_context(|| format!("cannot read the digits in {}", path.display()))?;
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for class in 0..CLASSES {
            let all = || {
                images
                    .chunks(PIXELS)
                    .zip(&labels)
                    .filter(|(_, label)| **label == class)
            };
            let count = all().count();
            ensure!(
                count > HELD_OUT_PER_CLASS,
                "{} has {count} images of the digit {class}; holding out {HELD_OUT_PER_CLASS} takes more than that",
                path.display(),
            );
            for (i, (image, _)) in all().enumerate() {
                let set = if i < count - HELD_OUT_PER_CLASS {
                    &mut train
                } else {
                    &mut held_out
                };
                set.extend_from_slice(image);
            }
        }
        Ok(Self {
            train: to_tensor(train, device)?,
            held_out: to_tensor(held_out, device)?,
        })
    }
}

/// Every pixel becomes 1 with its grey value as the probability, else 0: the random binarization that makes the
/// likelihood of MNIST a Bernoulli's, and its ELBO a bound in nats.
pub(crate) fn binarize(grey: &Tensor, key: Key) -> candle_core::Result<Tensor> {
    uniform(grey.shape(), DType::F32, grey.device(), key)?
        .lt(grey)?
        .to_dtype(DType::F32)
}

/// `n` of the images at even distances: as they are ordered by class, about as many of each.
pub(crate) fn spread(images: &Tensor, n: usize) -> candle_core::Result<Tensor> {
    let count = images.dim(0)?;
    let picked: Vec<u32> = (0..n).map(|i| (i * count / n) as u32).collect();
    images.index_select(&Tensor::new(picked, images.device())?, 0)
}

/// The pixels of all images, one image after another, and the class of each.
///
/// One buffer for all of them has a side effect worth keeping: glibc sizes the heap that it holds on to by the largest
/// block ever freed. With a buffer for each class every training step faulted its memory in anew, at 0.63 of the speed.
fn read(path: &Path) -> Result<(Vec<f32>, Vec<usize>)> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        // The count is checked below, where the message can say what a line should hold.
        .flexible(true)
        .from_reader(GzDecoder::new(File::open(path)?));
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (i, record) in reader.records().enumerate() {
        let context = || format!("line {}", i + 1);
        let record = record
            .context("damaged, or not a gzip-compressed CSV file")
            .with_context(context)?;
        labels.push(parse_image(&record, &mut images).with_context(context)?);
    }
    Ok((images, labels))
}

/// Appends the grey values to `images`, and returns the label.
fn parse_image(record: &csv::StringRecord, images: &mut Vec<f32>) -> Result<usize> {
    ensure!(
        record.len() == PIXELS + 1,
        "{} fields, where {PIXELS} grey values and a label were expected",
        record.len(),
    );
    for (field, grey) in record.iter().take(PIXELS).enumerate() {
        let grey: u8 = grey
            .parse()
            .with_context(|| format!("field {} is '{grey}', not a grey value", field + 1))?;
        images.push(f32::from(grey) / 255.0);
    }
    match record[PIXELS].parse() {
        Ok(class) if class < CLASSES => Ok(class),
        _ => bail!("the label is '{}', not a digit", &record[PIXELS]),
    }
}

fn to_tensor(pixels: Vec<f32>, device: &Device) -> candle_core::Result<Tensor> {
    let images = pixels.len() / PIXELS;
    Tensor::from_vec(pixels, (images, PIXELS), device)
}
