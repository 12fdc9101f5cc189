//! The kernels that each op launches, by the shape and the layout of what it is given: every path of `src/launch/plan.rs` is
//! taken where it is meant to be, by every op, in both directions, and no other.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits::cuda_modules;
use candle_reparam::straight_through::{self, Surrogate};
use candle_reparam::{
    Key, Stretch, binary_concrete, binary_concrete_st, categorical, exponential, gaussian,
    gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_sinkhorn, gumbel_sinkhorn_st,
    gumbel_softmax, gumbel_softmax_st, gumbel_top_k, gumbel_top_k_st, hard_concrete,
    hard_concrete_l0, improper_rows, logistic, normal, reinmax, relaxed_top_k, subgradient,
    tempered_log_softmax, tempered_softmax, uniform,
};

use crate::support::data::{self, FLOATS};
use crate::support::launches::counted;

/// How the argument lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    Contiguous,
    /// Its last two dims swapped.
    Transposed,
}
use Lies::{Contiguous, Transposed};

/// Rows that a few lanes of a warp hold, that a block holds or goes over, and that several blocks share; columns in groups and
/// one by one, the latter also where a view makes them so.
const LANES: (&[usize], usize, Lies) = (&[5, 10], 1, Contiguous);
const STRIDED_LANES: (&[usize], usize, Lies) = (&[5, 10], 1, Transposed);
const BLOCK: (&[usize], usize, Lies) = (&[3, 3072], 1, Contiguous);
const PIECES: (&[usize], usize, Lies) = (&[2, 40_960], 1, Contiguous);
const COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 64], 1, Contiguous);
const ODD_COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 17], 1, Contiguous);
const STRIDED_COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 64], 1, Transposed);
const LONG_COLUMNS: (&[usize], usize, Lies) = (&[1, 2500, 3], 1, Contiguous);
/// Matrices that shared memory holds, and one that it does not.
const MATRICES: (&[usize], usize, Lies) = (&[3, 7, 7], 1, Contiguous);
const LARGE_MATRIX: (&[usize], usize, Lies) = (&[1, 260, 260], 1, Contiguous);
const ONE: (&[usize], usize, Lies) = (&[7, 1], 1, Contiguous);

/// An op, and what it is given.
type Case = (&'static str, (&'static [usize], usize, Lies));

/// The kernels of each case in the order of their launches, without their dtype: those of the forward pass, then of the
/// backward pass. Where half types take another, it follows a bar.
const CASES: &[(Case, &[&str])] = &[
    (("uniform", LANES), &["uniform"]),
    (("gumbel", LANES), &["gumbel"]),
    (("normal", LANES), &["normal"]),
    (("exponential", LANES), &["exponential"]),
    (("logistic", LANES), &["logistic"]),
    (
        ("tempered_softmax", LANES),
        &["tempered_softmax_lanes", "softmax_gradient_lanes"],
    ),
    (
        ("tempered_softmax", STRIDED_LANES),
        &["tempered_softmax_lanes", "softmax_gradient_lanes"],
    ),
    (
        ("tempered_softmax", BLOCK),
        &["tempered_softmax_block", "softmax_gradient_block"],
    ),
    (
        ("tempered_softmax", PIECES),
        &[
            "tempered_softmax_pieces",
            "tempered_softmax_join",
            "softmax_gradient_pieces",
            "softmax_gradient_join",
        ],
    ),
    (
        ("tempered_softmax", COLUMNS),
        &["tempered_softmax_columns", "softmax_gradient_columns"],
    ),
    (
        ("tempered_softmax", ODD_COLUMNS),
        &[
            "tempered_softmax_columns_one",
            "softmax_gradient_columns_one",
        ],
    ),
    // The result is contiguous, and so is its gradient.
    (
        ("tempered_softmax", STRIDED_COLUMNS),
        &["tempered_softmax_columns_one", "softmax_gradient_columns"],
    ),
    (
        ("tempered_log_softmax", LANES),
        &["tempered_log_softmax_lanes", "log_softmax_gradient_lanes"],
    ),
    (
        ("tempered_log_softmax", BLOCK),
        &["tempered_log_softmax_block", "log_softmax_gradient_block"],
    ),
    (
        ("tempered_log_softmax", PIECES),
        &[
            "tempered_softmax_pieces",
            "tempered_log_softmax_join",
            "log_softmax_gradient_pieces",
            "log_softmax_gradient_join",
        ],
    ),
    (
        ("tempered_log_softmax", COLUMNS),
        &[
            "tempered_log_softmax_columns",
            "log_softmax_gradient_columns",
        ],
    ),
    (
        ("tempered_log_softmax", ODD_COLUMNS),
        &[
            "tempered_log_softmax_columns_one",
            "log_softmax_gradient_columns_one",
        ],
    ),
    (
        ("gumbel_softmax", LANES),
        &["gumbel_softmax_lanes", "softmax_gradient_lanes"],
    ),
    (
        ("gumbel_softmax", STRIDED_LANES),
        &["gumbel_softmax_lanes", "softmax_gradient_lanes"],
    ),
    (
        ("gumbel_softmax", BLOCK),
        &["gumbel_softmax_block", "softmax_gradient_block"],
    ),
    (
        ("gumbel_softmax", PIECES),
        &[
            "gumbel_softmax_pieces",
            "gumbel_softmax_join",
            "softmax_gradient_pieces",
            "softmax_gradient_join",
        ],
    ),
    (
        ("gumbel_softmax", COLUMNS),
        &["gumbel_softmax_columns", "softmax_gradient_columns"],
    ),
    (
        ("gumbel_softmax", ODD_COLUMNS),
        &["gumbel_softmax_columns_one", "softmax_gradient_columns_one"],
    ),
    (
        ("gumbel_softmax", STRIDED_COLUMNS),
        &["gumbel_softmax_columns_one", "softmax_gradient_columns"],
    ),
    // Where no team holds a row, backward draws the relaxed sample and replaces it by its gradient.
    (
        ("gumbel_softmax_st", LANES),
        &["one_hot_lanes", "gumbel_softmax_st_gradient_lanes"],
    ),
    (
        ("gumbel_softmax_st", BLOCK),
        &["one_hot_block", "gumbel_softmax_st_gradient_block"],
    ),
    (
        ("gumbel_softmax_st", PIECES),
        &[
            "one_hot_pieces",
            "one_hot_join",
            "gumbel_softmax_pieces",
            "gumbel_softmax_join",
            "softmax_gradient_pieces",
            "softmax_gradient_join",
        ],
    ),
    (
        ("gumbel_softmax_st", COLUMNS),
        &[
            "one_hot_columns",
            "gumbel_softmax_columns",
            "softmax_gradient_columns",
        ],
    ),
    (
        ("gumbel_softmax_st", ODD_COLUMNS),
        &[
            "one_hot_columns_one",
            "gumbel_softmax_columns_one",
            "softmax_gradient_columns_one",
        ],
    ),
    // A temperature a row, whose gradient is wanted too: a row of any length is gone over element by element.
    (
        ("tempered_softmax of tau", LANES),
        &[
            "tempered_softmax_lanes",
            "softmax_gradient_lanes",
            "softmax_gradient_tau_lanes",
        ],
    ),
    (
        ("tempered_softmax of tau", BLOCK),
        &[
            "tempered_softmax_block",
            "softmax_gradient_block",
            "softmax_gradient_tau_block",
        ],
    ),
    (
        ("tempered_softmax of tau", COLUMNS),
        &[
            "tempered_softmax_columns",
            "softmax_gradient_columns",
            "softmax_gradient_tau_lanes",
        ],
    ),
    (
        ("tempered_log_softmax of tau", LANES),
        &[
            "tempered_log_softmax_lanes",
            "log_softmax_gradient_lanes",
            "log_softmax_gradient_tau_lanes",
        ],
    ),
    (
        ("tempered_log_softmax of tau", BLOCK),
        &[
            "tempered_log_softmax_block",
            "log_softmax_gradient_block",
            "log_softmax_gradient_tau_block",
        ],
    ),
    (("gumbel_max", LANES), &["gumbel_max_lanes"]),
    (("gumbel_max", STRIDED_LANES), &["gumbel_max_lanes"]),
    (("gumbel_max", BLOCK), &["gumbel_max_block"]),
    (
        ("gumbel_max", PIECES),
        &["gumbel_max_pieces", "gumbel_max_join"],
    ),
    (("gumbel_max", COLUMNS), &["gumbel_max_columns"]),
    (("gumbel_max", ODD_COLUMNS), &["gumbel_max_columns_one"]),
    (("gumbel_max", STRIDED_COLUMNS), &["gumbel_max_columns_one"]),
    (("categorical", LANES), &["categorical_lanes"]),
    (("categorical", STRIDED_LANES), &["categorical_lanes"]),
    (
        ("categorical", BLOCK),
        &["categorical_tiles", "categorical_choose"],
    ),
    (
        ("categorical", PIECES),
        &["categorical_tiles", "categorical_choose"],
    ),
    // A row of one tile is a team's whatever it lies across.
    (("categorical", COLUMNS), &["categorical_lanes"]),
    (
        ("categorical", LONG_COLUMNS),
        &["categorical_tiles_columns", "categorical_choose"],
    ),
    (
        ("gaussian", LANES),
        &["gaussian_sample", "gaussian_sample_gradient"],
    ),
    (
        ("gaussian", BLOCK),
        &["gaussian_sample", "gaussian_sample_gradient"],
    ),
    (
        ("gaussian", STRIDED_LANES),
        &[
            "gaussian_sample_strided",
            "gaussian_sample_gradient_strided",
        ],
    ),
    // A divergence's gradient is spread over its row without being copied.
    (
        ("gaussian_kl", LANES),
        &[
            "gaussian_kl_lanes",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", BLOCK),
        &[
            "gaussian_kl_block",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", PIECES),
        &[
            "gaussian_kl_block",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", COLUMNS),
        &[
            "gaussian_kl_columns",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", ODD_COLUMNS),
        &[
            "gaussian_kl_columns_one",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", STRIDED_COLUMNS),
        &[
            "gaussian_kl_columns_one",
            "gaussian_kl_mean_gradient_strided",
            "gaussian_kl_log_var_gradient_strided",
        ],
    ),
    (
        ("gaussian_kl", ONE),
        &[
            "gaussian_kl_lanes",
            "gaussian_kl_mean_gradient",
            "gaussian_kl_log_var_gradient",
        ],
    ),
    (
        ("reinmax", LANES),
        &["one_hot_lanes", "reinmax_gradient_lanes"],
    ),
    (
        ("reinmax", STRIDED_LANES),
        &["one_hot_lanes", "reinmax_gradient_lanes"],
    ),
    (
        ("reinmax", BLOCK),
        &["one_hot_block", "reinmax_gradient_block"],
    ),
    (
        ("reinmax", PIECES),
        &[
            "one_hot_pieces",
            "one_hot_join",
            "reinmax_gradient_sums",
            "reinmax_gradient_join",
        ],
    ),
    (
        ("reinmax", COLUMNS),
        &["one_hot_columns", "reinmax_gradient_columns"],
    ),
    (
        ("reinmax", ODD_COLUMNS),
        &["one_hot_columns_one", "reinmax_gradient_columns_one"],
    ),
    (
        ("reinmax", STRIDED_COLUMNS),
        &["one_hot_columns_one", "reinmax_gradient_columns_one"],
    ),
    (
        ("gumbel_rao", LANES),
        &["one_hot_lanes", "gumbel_rao_gradient_lanes"],
    ),
    (
        ("gumbel_rao", STRIDED_LANES),
        &["one_hot_lanes", "gumbel_rao_gradient_lanes"],
    ),
    (
        ("gumbel_rao", BLOCK),
        &["one_hot_block", "gumbel_rao_gradient_block"],
    ),
    (
        ("gumbel_rao", PIECES),
        &[
            "one_hot_pieces",
            "one_hot_join",
            "gumbel_rao_gradient_sums",
            "gumbel_rao_gradient_join",
        ],
    ),
    (
        ("gumbel_rao", COLUMNS),
        &["one_hot_columns", "gumbel_rao_gradient_columns"],
    ),
    (
        ("gumbel_rao", ODD_COLUMNS),
        &["one_hot_columns_one", "gumbel_rao_gradient_columns_one"],
    ),
    (
        ("gumbel_rao", STRIDED_COLUMNS),
        &["one_hot_columns_one", "gumbel_rao_gradient_columns_one"],
    ),
    (("relu", LANES), &["piecewise_linear", "piecewise_slope"]),
    (
        ("relu", STRIDED_LANES),
        &["piecewise_linear_strided", "piecewise_slope_strided"],
    ),
    (
        ("hinge", LANES),
        &["subgradient_hinge", "subgradient_hinge_slope"],
    ),
    (
        ("hinge", STRIDED_LANES),
        &[
            "subgradient_hinge_strided",
            "subgradient_hinge_slope_strided",
        ],
    ),
    (
        ("maximum", LANES),
        &["subgradient_larger", "subgradient_larger_slope"],
    ),
    (
        ("maximum", STRIDED_LANES),
        &[
            "subgradient_larger_strided",
            "subgradient_larger_slope_strided",
        ],
    ),
    (
        ("round", LANES),
        &["straight_through_round", "piecewise_slope"],
    ),
    (
        ("round", STRIDED_LANES),
        &["straight_through_round_strided", "piecewise_slope_strided"],
    ),
    (
        ("floor", LANES),
        &["straight_through_floor", "piecewise_slope"],
    ),
    (
        ("floor", STRIDED_LANES),
        &["straight_through_floor_strided", "piecewise_slope_strided"],
    ),
    (
        ("ceil", LANES),
        &["straight_through_ceil", "piecewise_slope"],
    ),
    (
        ("ceil", STRIDED_LANES),
        &["straight_through_ceil_strided", "piecewise_slope_strided"],
    ),
    (
        ("sign", LANES),
        &["straight_through_sign", "piecewise_slope"],
    ),
    (
        ("sign", STRIDED_LANES),
        &["straight_through_sign_strided", "piecewise_slope_strided"],
    ),
    (
        ("binarize", LANES),
        &["straight_through_binarize", "piecewise_slope"],
    ),
    (
        ("binarize", STRIDED_LANES),
        &[
            "straight_through_binarize_strided",
            "piecewise_slope_strided",
        ],
    ),
    (
        ("quantize", LANES),
        &["straight_through_quantize", "piecewise_slope"],
    ),
    (
        ("quantize", STRIDED_LANES),
        &[
            "straight_through_quantize_strided",
            "piecewise_slope_strided",
        ],
    ),
    (
        ("binary_concrete", LANES),
        &["binary_concrete", "binary_concrete_gradient"],
    ),
    (
        ("binary_concrete", STRIDED_LANES),
        &[
            "binary_concrete_strided",
            // Of a result, which is contiguous.
            "binary_concrete_gradient|binary_concrete_gradient_strided",
        ],
    ),
    (
        ("binary_concrete of tau", LANES),
        &[
            "binary_concrete_learned",
            "binary_concrete_learned_gradient",
            "binary_concrete_tau_gradient",
        ],
    ),
    (
        ("binary_concrete of tau", STRIDED_LANES),
        &[
            "binary_concrete_learned_strided",
            "binary_concrete_learned_gradient_strided",
            "binary_concrete_tau_gradient_strided",
        ],
    ),
    (
        ("binary_concrete_st", LANES),
        &["binary_concrete_st", "binary_concrete_st_gradient"],
    ),
    (
        ("binary_concrete_st", STRIDED_LANES),
        &[
            "binary_concrete_st_strided",
            "binary_concrete_st_gradient_strided",
        ],
    ),
    (
        ("binary_concrete_st of tau", LANES),
        &[
            "binary_concrete_st_learned",
            "binary_concrete_st_learned_gradient",
            "binary_concrete_tau_gradient",
        ],
    ),
    (
        ("binary_concrete_st of tau", STRIDED_LANES),
        &[
            "binary_concrete_st_learned_strided",
            "binary_concrete_st_learned_gradient_strided",
            "binary_concrete_tau_gradient_strided",
        ],
    ),
    (
        ("hard_concrete", LANES),
        &["hard_concrete", "hard_concrete_gradient"],
    ),
    (
        ("hard_concrete", STRIDED_LANES),
        &[
            "hard_concrete_strided",
            "hard_concrete_gradient|hard_concrete_gradient_strided",
        ],
    ),
    (
        ("hard_concrete of tau", LANES),
        &[
            "hard_concrete_learned",
            "hard_concrete_learned_gradient",
            "hard_concrete_tau_gradient",
        ],
    ),
    (
        ("hard_concrete of tau", STRIDED_LANES),
        &[
            "hard_concrete_learned_strided",
            "hard_concrete_learned_gradient_strided",
            "hard_concrete_tau_gradient_strided",
        ],
    ),
    (
        ("hard_concrete_l0", LANES),
        &["hard_concrete_l0", "hard_concrete_l0_gradient"],
    ),
    (
        ("hard_concrete_l0", STRIDED_LANES),
        &[
            "hard_concrete_l0_strided",
            "hard_concrete_l0_gradient_strided",
        ],
    ),
    (
        ("hard_concrete_l0 of tau", LANES),
        &[
            "hard_concrete_l0_learned",
            "hard_concrete_l0_learned_gradient",
            "hard_concrete_l0_tau_gradient",
        ],
    ),
    (
        ("hard_concrete_l0 of tau", STRIDED_LANES),
        &[
            "hard_concrete_l0_learned_strided",
            "hard_concrete_l0_learned_gradient_strided",
            "hard_concrete_l0_tau_gradient_strided",
        ],
    ),
    (
        ("max", LANES),
        &["subgradient_extreme_lanes", "subgradient_shares_lanes"],
    ),
    (("one_hot", LANES), &["straight_through_one_hot_lanes"]),
    (
        ("max", STRIDED_LANES),
        &["subgradient_extreme_lanes", "subgradient_shares_lanes"],
    ),
    (
        ("one_hot", STRIDED_LANES),
        &["straight_through_one_hot_lanes"],
    ),
    (
        ("max", BLOCK),
        &["subgradient_extreme_block", "subgradient_shares_block"],
    ),
    (("one_hot", BLOCK), &["straight_through_one_hot_block"]),
    (
        ("max", PIECES),
        &["subgradient_extreme_block", "subgradient_shares_block"],
    ),
    (("one_hot", PIECES), &["straight_through_one_hot_block"]),
    (
        ("max", COLUMNS),
        &["subgradient_extreme_columns", "subgradient_shares_columns"],
    ),
    (("one_hot", COLUMNS), &["straight_through_one_hot_columns"]),
    (
        ("max", ODD_COLUMNS),
        &[
            "subgradient_extreme_columns_one",
            "subgradient_shares_columns_one",
        ],
    ),
    (
        ("one_hot", ODD_COLUMNS),
        &["straight_through_one_hot_columns_one"],
    ),
    (
        ("max", STRIDED_COLUMNS),
        &[
            "subgradient_extreme_columns_one",
            "subgradient_shares_columns_one",
        ],
    ),
    (
        ("one_hot", STRIDED_COLUMNS),
        &["straight_through_one_hot_columns_one"],
    ),
    (("gumbel_top_k", LANES), &["gumbel_top_k_lanes"]),
    (("gumbel_top_k", BLOCK), &["gumbel_top_k_block"]),
    (
        ("gumbel_top_k", PIECES),
        &["gumbel_top_k_pieces", "gumbel_top_k_join"],
    ),
    (("gumbel_top_k", COLUMNS), &["gumbel_top_k_lanes_across"]),
    (
        ("gumbel_top_k", LONG_COLUMNS),
        &["gumbel_top_k_block_across"],
    ),
    (
        ("gumbel_top_k of all", BLOCK),
        &[
            "gumbel_top_k_keys",
            "gumbel_top_k_sort",
            "gumbel_top_k_merge",
            "gumbel_top_k_sort",
            "gumbel_top_k_write",
        ],
    ),
    (
        ("relaxed_top_k", LANES),
        &["relaxed_top_k_lanes", "relaxed_top_k_gradient_lanes"],
    ),
    (
        ("relaxed_top_k of tau", LANES),
        &[
            "relaxed_top_k_lanes",
            "relaxed_top_k_gradient_lanes",
            "relaxed_top_k_gradient_tau_lanes",
        ],
    ),
    (
        ("gumbel_top_k_st", LANES),
        &[
            "gumbel_top_k_lanes",
            "gumbel_top_k_st_lanes",
            "relaxed_top_k_gradient_lanes",
        ],
    ),
    (
        ("relaxed_top_k", BLOCK),
        &["relaxed_top_k_block", "relaxed_top_k_gradient_block"],
    ),
    (
        ("relaxed_top_k of tau", BLOCK),
        &[
            "relaxed_top_k_block",
            "relaxed_top_k_gradient_block",
            "relaxed_top_k_gradient_tau_block",
        ],
    ),
    (
        ("gumbel_top_k_st", BLOCK),
        &[
            "gumbel_top_k_block",
            "gumbel_top_k_st_block",
            "relaxed_top_k_gradient_block",
        ],
    ),
    (
        ("relaxed_top_k", COLUMNS),
        &["relaxed_top_k_lanes", "relaxed_top_k_gradient_lanes"],
    ),
    (
        ("relaxed_top_k of tau", COLUMNS),
        &[
            "relaxed_top_k_lanes",
            "relaxed_top_k_gradient_lanes",
            "relaxed_top_k_gradient_tau_lanes",
        ],
    ),
    (
        ("gumbel_top_k_st", COLUMNS),
        &[
            "gumbel_top_k_lanes_across",
            "gumbel_top_k_st_lanes",
            "relaxed_top_k_gradient_lanes",
        ],
    ),
    (
        ("gumbel_sinkhorn", MATRICES),
        &["gumbel_sinkhorn_shared", "gumbel_sinkhorn_gradient_shared"],
    ),
    (
        ("gumbel_sinkhorn of tau", MATRICES),
        &[
            "gumbel_sinkhorn_shared",
            "gumbel_sinkhorn_gradient_shared",
            "gumbel_sinkhorn_tau_shared",
        ],
    ),
    (
        ("gumbel_sinkhorn", LARGE_MATRIX),
        &["gumbel_sinkhorn_global", "gumbel_sinkhorn_gradient_global"],
    ),
    (
        ("gumbel_sinkhorn of tau", LARGE_MATRIX),
        &[
            "gumbel_sinkhorn_global",
            "gumbel_sinkhorn_gradient_global",
            "gumbel_sinkhorn_tau_global",
        ],
    ),
    (
        ("gumbel_sinkhorn_st", MATRICES),
        &["gumbel_sinkhorn_st", "gumbel_sinkhorn_gradient_shared"],
    ),
    (("improper_rows", LANES), &["improper_rows_lanes"]),
    (("improper_rows", STRIDED_LANES), &["improper_rows_lanes"]),
    (("improper_rows", COLUMNS), &["improper_rows_lanes"]),
    (("improper_rows", BLOCK), &["improper_rows_block"]),
    (("improper_rows", LONG_COLUMNS), &["improper_rows_block"]),
];

/// A tensor that tracks its gradient, and a view of it that lies as the case says.
fn argument(
    shape: &[usize],
    lies: Lies,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> (Var, Tensor) {
    let last = shape.len() - 1;
    let mut own = shape.to_vec();
    if lies == Transposed {
        own.swap(last - 1, last);
    }
    let var = Var::from_tensor(&data::random(&own[..], seed, 1.0, dtype, device)).unwrap();
    let view = argument_of(&var, lies).unwrap();
    (var, view)
}

fn argument_of(var: &Var, lies: Lies) -> Result<Tensor> {
    let last = var.rank() - 1;
    match lies {
        Contiguous => Ok(var.as_tensor().clone()),
        Transposed => var.as_tensor().transpose(last - 1, last),
    }
}

const CLIPPED: Surrogate = Surrogate::Clipped {
    low: -1.0,
    high: 1.0,
};

fn run((op, (shape, dim, lies)): Case, dtype: DType, device: &Device) -> Result<()> {
    let key = Key::new(1, 1);
    let (_x, x) = argument(shape, lies, 1, dtype, device);
    let backward = |y: Result<Tensor>| -> Result<()> {
        let y = y?;
        let w = data::random(y.shape(), 2, 1.0, dtype, device);
        (y * w)?.sum_all()?.backward().map(|_| ())
    };
    let mut rows = shape.to_vec();
    rows[dim] = 1;
    let count = rows.iter().product();
    let tau = Var::from_tensor(&data::tensor(&vec![0.5; count], rows, dtype, device))?;
    match op {
        "uniform" => uniform(shape, dtype, device, key).map(|_| ()),
        "gumbel" => gumbel(shape, dtype, device, key).map(|_| ()),
        "normal" => normal(shape, dtype, device, key).map(|_| ()),
        "exponential" => exponential(shape, dtype, device, key).map(|_| ()),
        "logistic" => logistic(shape, dtype, device, key).map(|_| ()),
        "tempered_softmax" => backward(tempered_softmax(&x, 0.5, dim)),
        "tempered_log_softmax" => backward(tempered_log_softmax(&x, 0.5, dim)),
        "tempered_softmax of tau" => backward(tempered_softmax(&x, tau.as_tensor(), dim)),
        "tempered_log_softmax of tau" => backward(tempered_log_softmax(&x, tau.as_tensor(), dim)),
        "gumbel_softmax" => backward(gumbel_softmax(&x, 0.5, dim, key)),
        "gumbel_softmax_st" => backward(gumbel_softmax_st(&x, 0.5, dim, key)),
        "gumbel_max" => gumbel_max(&x, dim, key).map(|_| ()),
        "categorical" => categorical(&x, dim, key).map(|_| ()),
        "improper_rows" => improper_rows(&x, dim).map(|_| ()),
        "reinmax" => backward(reinmax(&x, 1.5, dim, key)),
        "gumbel_rao" => backward(gumbel_rao(&x, 0.5, 2, dim, key)),
        "relu" => backward(subgradient::relu(&x, None)),
        "max" => backward(subgradient::max(&x, dim)),
        "one_hot" => backward(straight_through::one_hot(&x, dim)),
        "round" => backward(straight_through::round(&x, CLIPPED)),
        "floor" => backward(straight_through::floor(&x, CLIPPED)),
        "ceil" => backward(straight_through::ceil(&x, CLIPPED)),
        "sign" => backward(straight_through::sign(&x, CLIPPED)),
        "binarize" => backward(straight_through::binarize(&x, 0.0, CLIPPED)),
        "quantize" => backward(straight_through::quantize(&x, -1.0, 1.0, 5, CLIPPED)),
        "binary_concrete" => backward(binary_concrete(&x, 0.5, key)),
        "binary_concrete_st" => backward(binary_concrete_st(&x, 0.5, key)),
        "hard_concrete" => backward(hard_concrete(&x, 0.5, Stretch::default(), key)),
        "hard_concrete_l0" => backward(hard_concrete_l0(&x, 0.5, Stretch::default())),
        "gumbel_top_k" => gumbel_top_k(&x, 2, dim, key).map(|_| ()),
        "gumbel_top_k of all" => gumbel_top_k(&x, x.dim(dim)?, dim, key).map(|_| ()),
        "gumbel_top_k_st" => backward(gumbel_top_k_st(&x, 2, 0.5, dim, key)),
        "relaxed_top_k" => backward(relaxed_top_k(&x, 2, 0.5, dim, key)),
        "relaxed_top_k of tau" => backward(relaxed_top_k(&x, 2, tau.as_tensor(), dim, key)),
        "gumbel_sinkhorn" => backward(gumbel_sinkhorn(&x, 0.5, 3, key)),
        "gumbel_sinkhorn_st" => backward(gumbel_sinkhorn_st(&x, 0.5, 3, key)),
        "gumbel_sinkhorn of tau" => {
            let tau = Var::from_tensor(&data::tensor(&[0.5], vec![1], dtype, device))?;
            backward(gumbel_sinkhorn(&x, tau.as_tensor(), 3, key))
        }
        _ => {
            let (own, l) = argument(shape, lies, 3, dtype, device);
            // Temperatures of their own for every element.
            let taus = (own.as_tensor().abs()? + 0.5)?;
            let taus = argument_of(&Var::from_tensor(&taus)?, lies)?;
            match op {
                "hinge" => backward(subgradient::hinge(&x, &l.detach(), 1.0, None)),
                "maximum" => backward(subgradient::maximum(&x, &l.detach(), None)),
                "binary_concrete of tau" => backward(binary_concrete(&x, taus, key)),
                "binary_concrete_st of tau" => backward(binary_concrete_st(&x, taus, key)),
                "hard_concrete of tau" => {
                    backward(hard_concrete(&x, taus, Stretch::default(), key))
                }
                "hard_concrete_l0 of tau" => {
                    backward(hard_concrete_l0(&x, taus, Stretch::default()))
                }
                "gaussian" => backward(gaussian(&x, &l, key)),
                "gaussian_kl" => backward(gaussian_kl(&x, &l, dim)),
                _ => panic!("{op}"),
            }
        }
    }
}

#[test]
fn each_op_takes_the_path_that_its_shape_and_layout_ask_for() {
    let all: BTreeSet<String> = cuda_modules()
        .iter()
        .flat_map(|(_, _, ptx)| crate::kernels::entries(ptx))
        .map(String::from)
        .collect();
    let test = "paths::each_op_takes_the_path_that_its_shape_and_layout_ask_for";
    counted(test, |device, mut launches| {
        let mut wrong = vec![];
        for &(case, kernels) in CASES {
            for dtype in FLOATS {
                run(case, dtype, device).unwrap();
                // Without candle's own.
                let mut launched = launches.since();
                launched.retain(|name| all.contains(name));
                let half = matches!(dtype, DType::F16 | DType::BF16);
                let want: Vec<String> = kernels
                    .iter()
                    .map(|k| {
                        if half {
                            k.split('|').next_back()
                        } else {
                            k.split('|').next()
                        }
                    })
                    .map(|k| format!("{}_{}", k.expect("a name"), dtype.as_str()))
                    .collect();
                if launched != want {
                    wrong.push(format!("{case:?} {dtype:?}: {launched:?}, not {want:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn every_kernel_is_on_a_path_that_is_named_here() {
    let named: BTreeSet<&str> = CASES
        .iter()
        .flat_map(|(_, kernels)| kernels.iter().flat_map(|k| k.split('|')))
        .collect();
    let mut missing = BTreeSet::new();
    for (_, dtype, ptx) in cuda_modules() {
        let suffix = format!("_{}", dtype.as_str());
        for name in crate::kernels::entries(ptx) {
            let name = name.strip_suffix(&*suffix).expect("the dtype");
            if !named.contains(name) {
                missing.insert(name.to_string());
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
