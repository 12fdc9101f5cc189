use anyhow::ensure;
use candle_core::{Device, Tensor};
use candle_reparam::improper_rows;

use crate::support::{
    DIM, logits,
    op::{Op, Pass},
    plain,
    shapes::{SHAPES, Shape},
    suite::Suite,
};

const IMPROPER_ROWS: Op = Op {
    name: "improper_rows",
    baseline: "abs(max) >= inf",
    inputs: some_improper,
    fused: |x, _| improper_rows(&x[0], DIM),
    plain: |x| plain::improper_rows(&x[0]),
    forward: Pass {
        // A byte a row is written.
        moves: |shape, size| shape.elements() * size + shape.rows as u64,
        verify: |x| {
            let got = improper_rows(&x[0], DIM)?.to_vec1::<u8>()?;
            for (row, got) in got.iter().enumerate() {
                let want = u8::from(is_improper(row));
                ensure!(*got == want, "row {row} is {got}, not {want}");
            }
            Ok(())
        },
    },
    backward: None,
};

/// Few enough that a kernel cannot gain from them.
fn is_improper(row: usize) -> bool {
    matches!(row % 512, 1..=3)
}

fn some_improper(shape: Shape) -> anyhow::Result<Vec<Tensor>> {
    let mut x = logits(shape)?.flatten_all()?.to_vec1::<f32>()?;
    for (row, x) in x.chunks_mut(shape.len).enumerate() {
        match row % 512 {
            1 => x.fill(f32::NEG_INFINITY),
            2 => x[shape.len / 2] = f32::NAN,
            3 => x[shape.len - 1] = f32::INFINITY,
            _ => {}
        }
    }
    Ok(vec![Tensor::from_vec(x, shape.dims(), &Device::Cpu)?])
}

pub fn bench(suite: &mut Suite) {
    IMPROPER_ROWS.bench(suite, &SHAPES);
}
