//! The same logical tensor in the memory layouts that candle's views produce.

use candle_core::{Result, Tensor};

/// `t` in every layout that its rank allows, each with its name. All but the broadcasts hold `t`'s values; every
/// variant is to be compared with the op on its own contiguous copy.
pub fn variants(t: &Tensor) -> Vec<(String, Tensor)> {
    build(t).unwrap()
}

fn build(t: &Tensor) -> Result<Vec<(String, Tensor)>> {
    let mut out = vec![("contiguous".to_string(), t.contiguous()?)];
    let rank = t.rank();
    for a in 0..rank {
        for b in a + 1..rank {
            let stored = t.transpose(a, b)?.force_contiguous()?;
            out.push((format!("transposed {a}-{b}"), stored.transpose(a, b)?));
        }
    }
    if rank >= 3 {
        let forward: Vec<usize> = (0..rank).map(|d| (d + 1) % rank).collect();
        let back: Vec<usize> = (0..rank).map(|d| (d + rank - 1) % rank).collect();
        let stored = t.permute(forward)?.force_contiguous()?;
        out.push(("permuted".to_string(), stored.permute(back)?));
    }
    for d in 0..rank {
        if t.dims()[d] == 0 {
            continue;
        }
        let n = t.dims()[d];
        // neighbours that would show at once, were they read
        let frame = (t.narrow(d, 0, 1)?.ones_like()? * 1e4)?;
        let stored = Tensor::cat(&[&frame, &frame, t, &frame], d)?;
        out.push((format!("narrowed {d}"), stored.narrow(d, 2, n)?));
        out.push((
            format!("broadcast {d}"),
            t.narrow(d, 0, 1)?
                .force_contiguous()?
                .broadcast_as(t.shape())?,
        ));
    }
    if rank >= 2 {
        // both at once: an offset and strides in another order
        let stored = t.transpose(0, rank - 1)?.force_contiguous()?;
        if stored.elem_count() > 0 {
            let frame = (stored.narrow(0, 0, 1)?.ones_like()? * -1e4)?;
            let n = stored.dims()[0];
            let view = Tensor::cat(&[&frame, &stored], 0)?.narrow(0, 1, n)?;
            out.push((
                "narrowed and transposed".to_string(),
                view.transpose(0, rank - 1)?,
            ));
        }
    }
    Ok(out)
}

#[test]
fn the_variants_differ_in_layout_and_not_in_value() {
    use crate::support::data;
    let t = data::random(
        (3, 4, 5),
        1,
        1.0,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    );
    let all = variants(&t);
    let strided = all.iter().filter(|(_, v)| !v.is_contiguous()).count();
    let offset = all
        .iter()
        .filter(|(_, v)| v.layout().start_offset() != 0)
        .count();
    assert!(strided >= 9 && offset >= 4, "{strided} {offset}");
    for (name, v) in &all {
        assert_eq!(v.dims(), t.dims(), "{name}");
        if !name.starts_with("broadcast") {
            assert_eq!(data::bits(v), data::bits(&t), "{name}");
        }
    }
}
