//! The bytes that kernels move, counted by the simulated device, over what the op must move, inputs once and outputs once. Only
//! there: `REPARAM_SIMULATED` says that it is the device.
//!
//! Two ratios: of the bytes at distinct addresses, which is what memory moves if caches hold what a kernel comes back to; and of the
//! 32-byte sectors that its accesses touch, each access by itself, which counts what the first cache is asked for.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits::cuda_modules;
use candle_reparam::{
    Key, categorical, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_softmax, gumbel_softmax_st,
    improper_rows, normal, tempered_log_softmax, tempered_softmax, uniform,
};

use crate::kernels::entries;
use crate::support::data::{self, FLOATS};
use crate::support::launches::{counted, kernels, number};

const ROWS: usize = 32;
/// Fits a block, and is whole groups.
const LEN: usize = 4096;
const N: usize = ROWS * LEN;
/// Fits the lanes of a warp.
const SHORT: usize = 128;
/// Is spread over several blocks.
const LONG: usize = 40_960;
/// Columns that are no whole groups.
const ODD: usize = N / 32 + 1;
const ODD_N: usize = 32 * ODD;

/// What there is of each row besides.
#[derive(Clone, Copy)]
enum Rows {
    Nothing,
    /// An index.
    Index(usize),
    /// An element of the dtype.
    Element(usize),
    /// A byte.
    Flag(usize),
    /// Two scalars that the dtype is computed in.
    Scalars(usize),
}
use Rows::{Element, Flag, Index, Nothing, Scalars};

/// A kernel, without its dtype; the tensors of `n` elements that it must move; `n`; what it must move for each row besides; and the
/// ratio that its sectors may reach.
const KERNELS: &[(&str, f64, usize, Rows, f64)] = &[
    ("uniform", 1.0, N, Nothing, 1.0),
    ("gumbel", 1.0, N, Nothing, 1.0),
    ("normal", 1.0, N, Nothing, 1.0),
    // Contiguous rows that the lanes of a warp hold.
    ("tempered_softmax_lanes", 2.0, N, Nothing, 1.02),
    ("tempered_log_softmax_lanes", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_lanes", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_st_lanes", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_st_gradient_lanes", 3.0, N, Nothing, 1.02),
    ("softmax_gradient_lanes", 3.0, N, Nothing, 1.02),
    ("log_softmax_gradient_lanes", 3.0, N, Nothing, 1.02),
    // A warp writes the numbers of few rows, and touches a sector for them.
    ("gumbel_max_lanes", 1.0, N, Index(N / SHORT), 1.06),
    ("gaussian_kl_lanes", 2.0, N, Element(N / SHORT), 1.06),
    ("improper_rows_lanes", 1.0, N, Flag(N / SHORT), 1.13),
    // Those that a block holds or goes over.
    ("tempered_softmax_block", 2.0, N, Nothing, 1.02),
    ("tempered_log_softmax_block", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_block", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_st_block", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_st_gradient_block", 3.0, N, Nothing, 1.02),
    ("softmax_gradient_block", 3.0, N, Nothing, 1.02),
    ("log_softmax_gradient_block", 3.0, N, Nothing, 1.02),
    ("gumbel_max_block", 1.0, N, Index(ROWS), 1.02),
    ("gaussian_kl_block", 2.0, N, Element(ROWS), 1.02),
    ("improper_rows_block", 1.0, N, Flag(ROWS), 1.02),
    // Rows that are gone over several times, in the cache: three times, and as often as the sums of a temperature need each other.
    ("categorical_lanes", 1.0, N, Index(N / SHORT), 3.1),
    (
        "softmax_gradient_tau_lanes",
        2.0,
        N,
        Scalars(N / SHORT),
        3.6,
    ),
    ("softmax_gradient_tau_block", 2.0, N, Scalars(ROWS), 3.6),
    (
        "log_softmax_gradient_tau_lanes",
        2.0,
        N,
        Scalars(N / SHORT),
        2.15,
    ),
    (
        "log_softmax_gradient_tau_block",
        2.0,
        N,
        Scalars(ROWS),
        2.15,
    ),
    ("gaussian_sample", 3.0, N, Nothing, 1.02),
    ("gaussian_sample_gradient", 3.0, N, Nothing, 1.02),
    ("gaussian_kl_mean_gradient", 3.0, N, Nothing, 1.02),
    ("gaussian_kl_log_var_gradient", 3.0, N, Nothing, 1.02),
    // The gradient of a divergence is one number a row.
    (
        "gaussian_kl_mean_gradient_strided",
        2.0,
        N,
        Element(N / SHORT),
        1.26,
    ),
    (
        "gaussian_kl_log_var_gradient_strided",
        2.0,
        N,
        Element(N / SHORT),
        1.26,
    ),
    // Columns that a thread holds, where one number a column is a sector again; gradients read both operands twice, once for
    // the sum.
    ("tempered_softmax_columns", 2.0, N, Nothing, 1.02),
    ("tempered_log_softmax_columns", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_columns", 2.0, N, Nothing, 1.02),
    ("gumbel_softmax_st_columns", 2.0, N, Nothing, 1.02),
    ("gumbel_max_columns", 1.0, N, Index(N / 16), 1.8),
    ("gaussian_kl_columns", 2.0, N, Element(N / 16), 1.22),
    ("softmax_gradient_columns", 3.0, N, Nothing, 1.7),
    ("log_softmax_gradient_columns", 3.0, N, Nothing, 1.7),
    // Lines of odd length, whose neighbours share their first and last sectors.
    ("tempered_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("tempered_log_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("gumbel_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("gumbel_softmax_st_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("gumbel_max_columns_one", 1.0, ODD_N, Index(2 * ODD), 1.45),
    ("gaussian_kl_columns_one", 2.0, ODD_N, Element(2 * ODD), 1.5),
    ("softmax_gradient_columns_one", 3.0, ODD_N, Nothing, 2.5),
    ("log_softmax_gradient_columns_one", 3.0, ODD_N, Nothing, 2.0),
    // Rows of several tiles: a number and a sum a tile.
    ("categorical_tiles", 1.0, N, Nothing, 1.04),
    ("categorical_tiles_columns", 1.0, 3 * 2500, Nothing, 1.4),
    // Rows of several blocks: two kernels, each of which reads its operands, so that the op moves 1.5 times what it must, and its
    // gradient 5 thirds; a race reads once.
    ("tempered_softmax_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("tempered_softmax_join", 2.0, 2 * LONG, Nothing, 1.05),
    ("tempered_log_softmax_join", 2.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_softmax_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_softmax_join", 2.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_softmax_st_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_softmax_st_join", 1.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_max_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("softmax_gradient_pieces", 2.0, 2 * LONG, Nothing, 1.05),
    ("softmax_gradient_join", 3.0, 2 * LONG, Nothing, 1.05),
    ("log_softmax_gradient_pieces", 2.0, 2 * LONG, Nothing, 1.05),
    ("log_softmax_gradient_join", 3.0, 2 * LONG, Nothing, 1.05),
];

/// Kernels without a row: what they move is not a multiple of a tensor. The first reads the races of pieces alone, the second
/// a row's tiles and one tile; the others whatever a view makes of their operands.
const OTHERS: [&str; 4] = [
    "gumbel_max_join",
    "categorical_choose",
    "gaussian_sample_strided",
    "gaussian_sample_gradient_strided",
];

/// Runs every kernel of the table once.
fn run_all(device: &Device) -> Result<()> {
    let key = Key::new(1, 1);
    for dtype in FLOATS {
        let on = |shape: &[usize]| {
            let x = data::random(shape, 1, 1.0, dtype, device);
            Var::from_tensor(&x).unwrap()
        };
        let backward = |y: Result<Tensor>| -> Result<()> {
            let y = y?;
            let w = data::random(y.shape(), 2, 1.0, dtype, device);
            (y * w)?.sum_all()?.backward().map(|_| ())
        };
        for noise in [uniform, gumbel, normal] {
            noise((ROWS, LEN), dtype, device, key)?;
        }
        let columns = N / 32;
        for (shape, dim) in [
            (&[N / SHORT, SHORT][..], 1),
            (&[ROWS, LEN], 1),
            (&[2, LONG], 1),
            // Few lines, so that a thread holds all of its own.
            (&[2, 16, columns], 1),
            (&[2, 16, ODD], 1),
        ] {
            let (x, l) = (on(shape), on(shape));
            let (x, l) = (x.as_tensor(), l.as_tensor());
            backward(tempered_softmax(x, 0.5, dim))?;
            backward(tempered_log_softmax(x, 0.5, dim))?;
            backward(gumbel_softmax(x, 0.5, dim, key))?;
            backward(gumbel_softmax_st(x, 0.5, dim, key))?;
            gumbel_max(x, dim, key)?;
            if shape != [2, LONG] {
                backward(gaussian_kl(x, l, dim))?;
            }
            if shape.len() == 2 && shape != [2, LONG] {
                let mut rows = shape.to_vec();
                rows[1] = 1;
                let tau = data::tensor(&vec![0.5; rows[0]], rows, dtype, device);
                let tau = Var::from_tensor(&tau)?;
                backward(tempered_softmax(x, tau.as_tensor(), dim))?;
                backward(tempered_log_softmax(x, tau.as_tensor(), dim))?;
                improper_rows(x, dim)?;
                categorical(x, dim, key)?;
            }
        }
        let (x, l) = (on(&[ROWS, LEN]), on(&[ROWS, LEN]));
        backward(gaussian(x.as_tensor(), l.as_tensor(), key))?;
        let (x, l) = (on(&[N, 1]), on(&[N, 1]));
        backward(gaussian_kl(x.as_tensor(), l.as_tensor(), 1))?;
        categorical(on(&[1, 2500, 3]).as_tensor(), 1, key)?;
    }
    Ok(())
}

/// The bytes of all sectors that the first launch of each kernel touched, and those at distinct addresses.
fn touched(counters: &str) -> BTreeMap<&str, (f64, f64)> {
    let mut out = BTreeMap::new();
    for (kernel, line) in kernels(counters) {
        let both = |what: &str, read, written| {
            number(line, &format!("{what}{read}")) + number(line, &format!("{what}{written}"))
        };
        let sectors = 32.0 * both("global_", "load_sectors", "store_sectors");
        let distinct = both("distinct_bytes_", "read", "written");
        out.entry(kernel).or_insert((sectors, distinct));
    }
    out
}

#[test]
fn kernels_move_what_they_must_and_little_more() {
    let test = "traffic::kernels_move_what_they_must_and_little_more";
    let Some(counters) = counted(test, |device, _| run_all(device).unwrap()) else {
        return;
    };
    let touched = touched(&counters);
    let mut wrong = vec![];
    println!(
        "{:<44} {:>10} {:>9} {:>8}",
        "kernel", "must", "distinct", "sectors"
    );
    for &(kernel, tensors, n, rows, most) in KERNELS {
        for dtype in FLOATS {
            let name = format!("{kernel}_{}", dtype.as_str());
            let Some(&(sectors, distinct)) = touched.get(&*name) else {
                wrong.push(format!("{name} was not launched"));
                continue;
            };
            let size = dtype.size_in_bytes();
            let besides = match rows {
                Nothing => 0,
                Index(rows) => 4 * rows,
                Element(rows) => size * rows,
                Flag(rows) => rows,
                Scalars(rows) => 2 * size.max(4) * rows,
            };
            let must = tensors * (n * size) as f64 + besides as f64;
            let (sectors, distinct) = (sectors / must, distinct / must);
            println!("{name:<44} {must:>10} {distinct:>9.3} {sectors:>8.3}");
            // A group of f64 is two accesses, each of which touches its sector.
            let most = if dtype == DType::F64 {
                2.0 * most
            } else {
                most
            };
            if sectors > most {
                wrong.push(format!("{name}: sectors {sectors:.3}, at most {most}"));
            }
            if distinct > 1.02 {
                wrong.push(format!("{name}: distinct {distinct:.3}, at most 1.02"));
            }
            // Less than what it must move means that it did not.
            if distinct < 0.999 {
                wrong.push(format!("{name}: {distinct:.3}, which cannot be"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_kernel_has_its_row() {
    // Of the modules that the table knows.
    let rows: BTreeSet<&str> = KERNELS.iter().map(|k| k.0).chain(OTHERS).collect();
    for (module, dtype, ptx) in cuda_modules() {
        let suffix = format!("_{}", dtype.as_str());
        let there = entries(ptx).into_iter();
        let there: BTreeSet<&str> = there
            .filter_map(|name| name.strip_suffix(&*suffix))
            .collect();
        if there.is_disjoint(&rows) {
            println!("{module}: no kernel of it has a row");
            continue;
        }
        let missing: Vec<_> = there.difference(&rows).collect();
        assert!(missing.is_empty(), "{module} {dtype:?}: {missing:?}");
    }
}
