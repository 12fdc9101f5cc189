//! The bytes that kernels move, counted by the simulated device: 32-byte sectors touched over what the op must move, inputs once
//! and outputs once. Only there: `REPARAM_SIMULATED` says that it is the device.

use std::collections::BTreeMap;
use std::process::Command;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::{
    Key, categorical, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_softmax,
    gumbel_softmax_st, normal, reinmax, tempered_log_softmax, tempered_softmax, uniform,
};

use crate::support::data::{self, FLOATS};
use crate::support::devices::cuda;

const ROWS: usize = 32;
/// Fits a block, and is whole groups.
const LEN: usize = 4096;
/// Is spread over several blocks.
const LONG: usize = 40_960;
const CHILD: &str = "REPARAM_TRAFFIC_CHILD";

/// A kernel, without its dtype; the tensors of `n` elements that it must move; `n`; and the ratio that it may reach.
const KERNELS: [(&str, f64, usize, f64); 25] = [
    ("uniform", 1.0, ROWS * LEN, 1.0),
    ("gumbel", 1.0, ROWS * LEN, 1.0),
    ("normal", 1.0, ROWS * LEN, 1.0),
    ("tempered_softmax_block", 2.0, ROWS * LEN, 1.02),
    ("tempered_log_softmax_block", 2.0, ROWS * LEN, 1.02),
    ("gumbel_softmax_block", 2.0, ROWS * LEN, 1.02),
    ("one_hot_block", 2.0, ROWS * LEN, 1.02),
    ("gumbel_softmax_st_gradient_block", 3.0, ROWS * LEN, 1.02),
    ("reinmax_gradient_block", 4.0, ROWS * LEN, 1.02),
    ("gumbel_rao_gradient_block", 4.0, ROWS * LEN, 1.02),
    ("softmax_gradient_block", 3.0, ROWS * LEN, 1.02),
    ("log_softmax_gradient_block", 3.0, ROWS * LEN, 1.02),
    // One index, or one value, a row besides.
    ("gumbel_max_block", 1.0, ROWS * LEN, 1.02),
    ("gaussian_kl_block", 2.0, ROWS * LEN, 1.02),
    ("gaussian_sample", 3.0, ROWS * LEN, 1.02),
    ("gaussian_sample_gradient", 3.0, ROWS * LEN, 1.02),
    ("gaussian_kl_mean_gradient_strided", 2.0, ROWS * LEN, 1.26),
    (
        "gaussian_kl_log_var_gradient_strided",
        2.0,
        ROWS * LEN,
        1.26,
    ),
    ("tempered_softmax_columns", 2.0, ROWS * LEN, 1.02),
    ("gumbel_softmax_columns", 2.0, ROWS * LEN, 1.02),
    // Both operands twice: once for the sum.
    ("softmax_gradient_columns", 3.0, ROWS * LEN, 1.7),
    ("categorical_tiles", 1.0, ROWS * LEN, 1.04),
    // Two kernels, each of which reads the logits.
    ("gumbel_softmax_pieces", 1.0, 2 * LONG, 1.05),
    ("gumbel_softmax_join", 2.0, 2 * LONG, 1.05),
    ("softmax_gradient_join", 3.0, 2 * LONG, 1.05),
];

/// Runs every kernel of the table once, in a process whose launches are counted.
fn run_all(device: &Device) -> Result<()> {
    let key = Key::new(1, 1);
    for dtype in FLOATS {
        let on = |shape: &[usize]| data::random(shape, 1, 1.0, dtype, device);
        for noise in [uniform, gumbel, normal] {
            noise((ROWS, LEN), dtype, device, key)?;
        }
        let backward = |y: Tensor| {
            let w = data::random(y.shape(), 2, 1.0, dtype, device);
            (y * w)?.sum_all()?.backward().map(|_| ())
        };
        let x = Var::from_tensor(&on(&[ROWS, LEN]))?;
        let l = Var::from_tensor(&on(&[ROWS, LEN]))?;
        backward(tempered_softmax(x.as_tensor(), 0.5, 1)?)?;
        backward(tempered_log_softmax(x.as_tensor(), 0.5, 1)?)?;
        backward(gumbel_softmax(x.as_tensor(), 0.5, 1, key)?)?;
        backward(gumbel_softmax_st(x.as_tensor(), 0.5, 1, key)?)?;
        backward(reinmax(x.as_tensor(), 1.5, 1, key)?)?;
        backward(gumbel_rao(x.as_tensor(), 0.5, 2, 1, key)?)?;
        backward(gaussian(x.as_tensor(), l.as_tensor(), key)?)?;
        backward(gaussian_kl(x.as_tensor(), l.as_tensor(), 1)?)?;
        gumbel_max(x.as_tensor(), 1, key)?;
        categorical(x.as_tensor(), 1, key)?;
        // Few lines, so that a thread holds all of its own.
        let columns = Var::from_tensor(&on(&[2, 16, ROWS * LEN / 32]))?;
        backward(tempered_softmax(columns.as_tensor(), 0.5, 1)?)?;
        gumbel_softmax(columns.as_tensor(), 0.5, 1, key)?;
        let long = Var::from_tensor(&on(&[2, LONG]))?;
        backward(gumbel_softmax(long.as_tensor(), 0.5, 1, key)?)?;
    }
    Ok(())
}

fn number(line: &str, name: &str) -> f64 {
    let rest = line.split(&format!("\"{name}\":")).nth(1).expect(name);
    let end = rest.find([',', '}']).expect("a number ends");
    rest[..end].parse().expect("a number")
}

/// The bytes of all sectors that the first launch of each kernel touched.
fn touched(counters: &str) -> BTreeMap<&str, f64> {
    let mut out = BTreeMap::new();
    for line in counters.lines().filter(|l| l.starts_with("{\"kernel\"")) {
        let kernel = line.split('"').nth(3).expect("a name");
        let sectors = number(line, "global_load_sectors") + number(line, "global_store_sectors");
        out.entry(kernel).or_insert(32.0 * sectors);
    }
    out
}

#[test]
fn kernels_move_what_they_must_and_little_more() {
    if std::env::var_os(CHILD).is_some() {
        let device = cuda().expect("a device");
        return run_all(&device).unwrap();
    }
    if std::env::var_os("REPARAM_SIMULATED").is_none() {
        return;
    }
    let file = std::env::temp_dir().join(format!("reparam-traffic-{}", std::process::id()));
    let test = "traffic::kernels_move_what_they_must_and_little_more";
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, "1")
        .env("CUDA_SIM_COUNTERS", &file)
        .status()
        .unwrap();
    let counters = std::fs::read_to_string(&file);
    std::fs::remove_file(&file).ok();
    let counters = counters.unwrap();
    assert!(status.success());
    let touched = touched(&counters);
    let mut wrong = vec![];
    println!(
        "{:<44} {:>10} {:>10} {:>6}",
        "kernel", "touched", "must", "ratio"
    );
    for (kernel, tensors, n, most) in KERNELS {
        for dtype in FLOATS {
            let name = format!("{kernel}_{}", dtype.as_str());
            let Some(&bytes) = touched.get(&*name) else {
                wrong.push(format!("{name} was not launched"));
                continue;
            };
            let must = tensors * (n * dtype.size_in_bytes()) as f64;
            let ratio = bytes / must;
            println!("{name:<44} {bytes:>10} {must:>10} {ratio:>6.3}");
            // A group of f64 is two accesses, each of which touches its sector.
            let most = if dtype == DType::F64 {
                2.0 * most
            } else {
                most
            };
            if ratio > most {
                wrong.push(format!("{name}: {ratio:.3}, at most {most}"));
            }
            // Less than what it must move means that it did not.
            if ratio < 0.999 {
                wrong.push(format!("{name}: {ratio:.3}, which cannot be"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn counters_are_read_as_they_are_written() {
    let line = r#"{"kernel":"a_f32","grid":[1,1,1],"counters":{"global_load_sectors":16,"global_store_sectors":2}}"#;
    let counters = format!("{line}\n{{\"problem\":\"x\"}}\n{line}");
    assert_eq!(touched(&counters), BTreeMap::from([("a_f32", 576.0)]));
    assert_eq!(DType::F32.size_in_bytes(), 4);
}
