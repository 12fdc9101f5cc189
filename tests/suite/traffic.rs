//! The bytes that kernels move, counted by the simulated device, over what the op must move, inputs once and outputs once. Only
//! there: `REPARAM_SIMULATED` says that it is the device.
//!
//! Two ratios: of the bytes at distinct addresses, which is what memory moves if caches hold what a kernel comes back to; and of the
//! 32-byte sectors that its accesses touch, each access by itself, which counts what the first cache is asked for.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits::cuda_modules;
use candle_reparam::straight_through::{self, Surrogate};
use candle_reparam::{
    Key, Stretch, Temperature, binary_concrete, binary_concrete_st, categorical, exponential,
    gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_sinkhorn, gumbel_softmax,
    gumbel_softmax_st, gumbel_top_k, hard_concrete, hard_concrete_l0, improper_rows, logistic,
    normal, reinmax, subgradient, tempered_log_softmax, tempered_softmax, uniform,
};

use crate::kernels::entries;
use crate::support::data::{self, FLOATS};
use crate::support::launches::{counted, kernels, number};

const ROWS: usize = 32;
/// Fits a block of every kernel in every dtype, and is whole groups.
const LEN: usize = 3072;
const N: usize = ROWS * LEN;
/// Fits the lanes of a warp.
const SHORT: usize = 128;
/// Is spread over several blocks.
const LONG: usize = 40_960;
/// Classes drawn without replacement.
const TOP: usize = 3;
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
    ("gumbel_max_columns", 1.0, N, Index(N / 16), 1.8),
    ("gaussian_kl_columns", 2.0, N, Element(N / 16), 1.22),
    ("softmax_gradient_columns", 3.0, N, Nothing, 1.7),
    ("log_softmax_gradient_columns", 3.0, N, Nothing, 1.7),
    // Lines of odd length, whose neighbours share their first and last sectors.
    ("tempered_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("tempered_log_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("gumbel_softmax_columns_one", 2.0, ODD_N, Nothing, 1.5),
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
    ("gumbel_max_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("softmax_gradient_pieces", 2.0, 2 * LONG, Nothing, 1.05),
    ("softmax_gradient_join", 3.0, 2 * LONG, Nothing, 1.05),
    ("log_softmax_gradient_pieces", 2.0, 2 * LONG, Nothing, 1.05),
    ("log_softmax_gradient_join", 3.0, 2 * LONG, Nothing, 1.05),
    // Functions of single elements, contiguous.
    ("exponential", 1.0, N, Nothing, 1.0),
    ("logistic", 1.0, N, Nothing, 1.0),
    ("piecewise_linear", 2.0, N, Nothing, 1.02),
    ("piecewise_slope", 3.0, N, Nothing, 1.02),
    ("subgradient_hinge", 3.0, N, Nothing, 1.02),
    ("subgradient_larger", 3.0, N, Nothing, 1.02),
    ("subgradient_hinge_slope", 4.0, N, Nothing, 1.02),
    ("subgradient_larger_slope", 4.0, N, Nothing, 1.02),
    ("straight_through_round", 2.0, N, Nothing, 1.02),
    ("straight_through_floor", 2.0, N, Nothing, 1.02),
    ("straight_through_ceil", 2.0, N, Nothing, 1.02),
    ("straight_through_sign", 2.0, N, Nothing, 1.02),
    ("straight_through_binarize", 2.0, N, Nothing, 1.02),
    ("straight_through_quantize", 2.0, N, Nothing, 1.02),
    ("binary_concrete", 2.0, N, Nothing, 1.02),
    ("binary_concrete_gradient", 3.0, N, Nothing, 1.02),
    ("binary_concrete_learned", 3.0, N, Nothing, 1.02),
    ("binary_concrete_learned_gradient", 4.0, N, Nothing, 1.02),
    ("binary_concrete_tau_gradient", 4.0, N, Nothing, 1.02),
    ("hard_concrete", 2.0, N, Nothing, 1.02),
    ("hard_concrete_gradient", 3.0, N, Nothing, 1.02),
    ("hard_concrete_learned", 3.0, N, Nothing, 1.02),
    ("hard_concrete_learned_gradient", 4.0, N, Nothing, 1.02),
    ("hard_concrete_tau_gradient", 4.0, N, Nothing, 1.02),
    ("hard_concrete_l0", 2.0, N, Nothing, 1.02),
    ("hard_concrete_l0_gradient", 3.0, N, Nothing, 1.02),
    ("hard_concrete_l0_learned", 3.0, N, Nothing, 1.02),
    ("hard_concrete_l0_learned_gradient", 4.0, N, Nothing, 1.02),
    ("hard_concrete_l0_tau_gradient", 4.0, N, Nothing, 1.02),
    ("binary_concrete_st", 2.0, N, Nothing, 1.02),
    ("binary_concrete_st_gradient", 3.0, N, Nothing, 1.02),
    ("binary_concrete_st_learned", 3.0, N, Nothing, 1.02),
    ("binary_concrete_st_learned_gradient", 4.0, N, Nothing, 1.02),
    // Estimators of a one-hot: the draw, and gradients of three operands; for columns and in several blocks these are read once for the
    // row's sums and once for its gradient, in Gumbel-Rao once for each of two samples.
    ("one_hot_lanes", 2.0, N, Nothing, 1.02),
    ("one_hot_block", 2.0, N, Nothing, 1.02),
    ("one_hot_columns", 2.0, N, Nothing, 1.02),
    ("one_hot_columns_one", 2.0, ODD_N, Nothing, 1.5),
    ("one_hot_pieces", 1.0, 2 * LONG, Nothing, 1.05),
    ("one_hot_join", 1.0, 2 * LONG, Nothing, 1.05),
    ("reinmax_gradient_lanes", 4.0, N, Nothing, 1.02),
    ("reinmax_gradient_block", 4.0, N, Nothing, 1.02),
    ("reinmax_gradient_columns", 4.0, N, Nothing, 2.26),
    ("reinmax_gradient_columns_one", 4.0, ODD_N, Nothing, 3.4),
    ("reinmax_gradient_sums", 3.0, 2 * LONG, Nothing, 2.01),
    ("reinmax_gradient_join", 4.0, 2 * LONG, Nothing, 1.05),
    ("gumbel_rao_gradient_lanes", 4.0, N, Nothing, 1.02),
    ("gumbel_rao_gradient_block", 4.0, N, Nothing, 1.02),
    ("gumbel_rao_gradient_sums", 3.0, 2 * LONG, Nothing, 6.01),
    ("gumbel_rao_gradient_join", 4.0, 2 * LONG, Nothing, 1.08),
    // Extremes of rows, and the shares of their ties, for which a row is read twice: to count them, and to share.
    (
        "subgradient_extreme_lanes",
        1.0,
        N,
        Element(N / SHORT),
        1.12,
    ),
    ("subgradient_extreme_block", 1.0, N, Element(ROWS), 1.02),
    ("subgradient_extreme_columns", 1.0, N, Element(N / 16), 1.42),
    (
        "subgradient_extreme_columns_one",
        1.0,
        ODD_N,
        Element(2 * ODD),
        1.5,
    ),
    ("subgradient_shares_lanes", 2.0, N, Element(N / SHORT), 2.1),
    ("subgradient_shares_block", 2.0, N, Element(ROWS), 2.05),
    ("subgradient_shares_columns", 2.0, N, Element(N / 16), 2.95),
    (
        "subgradient_shares_columns_one",
        2.0,
        ODD_N,
        Element(2 * ODD),
        3.1,
    ),
    ("straight_through_one_hot_lanes", 2.0, N, Nothing, 1.02),
    ("straight_through_one_hot_block", 2.0, N, Nothing, 1.02),
    ("straight_through_one_hot_columns", 2.0, N, Nothing, 1.02),
    (
        "straight_through_one_hot_columns_one",
        2.0,
        ODD_N,
        Nothing,
        1.5,
    ),
    // The first of several winners are found in registers.
    ("gumbel_top_k_lanes", 1.0, N, Index(TOP * N / SHORT), 1.2),
    ("gumbel_top_k_block", 1.0, N, Index(TOP * ROWS), 1.02),
];

/// Kernels without a row, by the end or the beginning of their names: what they move is not a multiple of a tensor.
/// - A view decides what is read of the operands.
/// - The races of pieces alone are read; a row's tiles and one tile; a row's candidates, to sort them.
/// - A row or matrix is gone over as often as it is drawn from or normalised, or as an assignment takes, in scratch that caches hold.
const OTHERS: &[&str] = &[
    "_strided",
    "gumbel_max_join",
    "categorical_choose",
    "gumbel_top_k_lanes_across",
    "gumbel_top_k_block_across",
    "gumbel_top_k_pieces",
    "gumbel_top_k_join",
    "gumbel_top_k_keys",
    "gumbel_top_k_sort",
    "gumbel_top_k_merge",
    "gumbel_top_k_write",
    "gumbel_top_k_st_",
    "relaxed_top_k_",
    "gumbel_sinkhorn",
    "gumbel_rao_gradient_columns",
];

type Backward<'a> = &'a dyn Fn(Result<Tensor>) -> Result<()>;

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
        for noise in [uniform, gumbel, normal, exponential, logistic] {
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
            backward(reinmax(x, 1.5, dim, key))?;
            backward(gumbel_rao(x, 0.5, 2, dim, key))?;
            backward(subgradient::max(x, dim))?;
            straight_through::one_hot(x, dim)?;
            if dim + 1 == shape.len() && shape != [2, LONG] {
                gumbel_top_k(x, TOP, dim, key)?;
            }
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
        elements(&x, &l, &backward, key)?;
        let matrices = on(&[N / 1024, 32, 32]);
        backward(gumbel_sinkhorn(matrices.as_tensor(), 0.5, 3, key))?;
        let (x, l) = (on(&[N, 1]), on(&[N, 1]));
        backward(gaussian_kl(x.as_tensor(), l.as_tensor(), 1))?;
        categorical(on(&[1, 2500, 3]).as_tensor(), 1, key)?;
    }
    Ok(())
}

/// The functions of single elements, and their gradients.
fn elements(x: &Var, l: &Var, backward: Backward, key: Key) -> Result<()> {
    let x = x.as_tensor();
    backward(subgradient::relu(x, None))?;
    backward(subgradient::hinge(x, l, 1.0, None))?;
    backward(subgradient::maximum(x, l, None))?;
    let identity = Surrogate::Identity;
    straight_through::round(x, identity)?;
    straight_through::floor(x, identity)?;
    straight_through::ceil(x, identity)?;
    straight_through::sign(x, identity)?;
    straight_through::binarize(x, 0.0, identity)?;
    straight_through::quantize(x, -1.0, 1.0, 5, identity)?;
    // Temperatures of their own for every element: contiguous as the logits are.
    let taus = Var::from_tensor(&l.abs()?.affine(1.0, 0.1)?)?;
    for tau in [Temperature::from(0.5), Temperature::from(&taus)] {
        let stretch = Stretch::default();
        backward(binary_concrete(x, tau.clone(), key))?;
        backward(binary_concrete_st(x, tau.clone(), key))?;
        backward(hard_concrete(x, tau.clone(), stretch, key))?;
        backward(hard_concrete_l0(x, tau, stretch))?;
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
    let rows: BTreeSet<&str> = KERNELS.iter().map(|k| k.0).collect();
    for other in OTHERS {
        assert!(!rows.contains(other), "{other} has a row");
    }
    let mut missing = BTreeSet::new();
    for (_, dtype, ptx) in cuda_modules() {
        let suffix = format!("_{}", dtype.as_str());
        for name in entries(ptx) {
            let name = name.strip_suffix(&*suffix).expect("the dtype");
            let other = |o: &&str| name.ends_with(*o) || name.starts_with(*o);
            if !rows.contains(name) && !OTHERS.iter().any(other) {
                missing.insert(name.to_string());
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
