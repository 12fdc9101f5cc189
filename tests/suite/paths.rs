//! The kernels that each op launches, by the shape and the layout of what it is given: every path of `src/launch/plan.rs` is
//! taken where it is meant to be, by every op, in both directions, and no other.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_reparam::bits::cuda_modules;
use candle_reparam::{
    Key, categorical, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_softmax, gumbel_softmax_st,
    improper_rows, normal, tempered_log_softmax, tempered_softmax, uniform,
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
const BLOCK: (&[usize], usize, Lies) = (&[3, 4096], 1, Contiguous);
const PIECES: (&[usize], usize, Lies) = (&[2, 40_960], 1, Contiguous);
const COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 64], 1, Contiguous);
const ODD_COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 17], 1, Contiguous);
const STRIDED_COLUMNS: (&[usize], usize, Lies) = (&[2, 40, 64], 1, Transposed);
const LONG_COLUMNS: (&[usize], usize, Lies) = (&[1, 2500, 3], 1, Contiguous);
const ONE: (&[usize], usize, Lies) = (&[7, 1], 1, Contiguous);

/// An op, and what it is given.
type Case = (&'static str, (&'static [usize], usize, Lies));

/// The kernels of each case in the order of their launches, without their dtype: those of the forward pass, then of the
/// backward pass.
const CASES: &[(Case, &[&str])] = &[
    (("uniform", LANES), &["uniform"]),
    (("gumbel", LANES), &["gumbel"]),
    (("normal", LANES), &["normal"]),
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
        &[
            "gumbel_softmax_st_lanes",
            "gumbel_softmax_st_gradient_lanes",
        ],
    ),
    (
        ("gumbel_softmax_st", BLOCK),
        &[
            "gumbel_softmax_st_block",
            "gumbel_softmax_st_gradient_block",
        ],
    ),
    (
        ("gumbel_softmax_st", PIECES),
        &[
            "gumbel_softmax_st_pieces",
            "gumbel_softmax_st_join",
            "gumbel_softmax_pieces",
            "gumbel_softmax_join",
            "softmax_gradient_pieces",
            "softmax_gradient_join",
        ],
    ),
    (
        ("gumbel_softmax_st", COLUMNS),
        &[
            "gumbel_softmax_st_columns",
            "gumbel_softmax_columns",
            "softmax_gradient_columns",
        ],
    ),
    (
        ("gumbel_softmax_st", ODD_COLUMNS),
        &[
            "gumbel_softmax_st_columns_one",
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
    let view = match lies {
        Contiguous => var.as_tensor().clone(),
        Transposed => var.as_tensor().transpose(last - 1, last).unwrap(),
    };
    (var, view)
}

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
        "tempered_softmax" => backward(tempered_softmax(&x, 0.5, dim)),
        "tempered_log_softmax" => backward(tempered_log_softmax(&x, 0.5, dim)),
        "tempered_softmax of tau" => backward(tempered_softmax(&x, tau.as_tensor(), dim)),
        "tempered_log_softmax of tau" => backward(tempered_log_softmax(&x, tau.as_tensor(), dim)),
        "gumbel_softmax" => backward(gumbel_softmax(&x, 0.5, dim, key)),
        "gumbel_softmax_st" => backward(gumbel_softmax_st(&x, 0.5, dim, key)),
        "gumbel_max" => gumbel_max(&x, dim, key).map(|_| ()),
        "categorical" => categorical(&x, dim, key).map(|_| ()),
        "improper_rows" => improper_rows(&x, dim).map(|_| ()),
        _ => {
            let (_l, l) = argument(shape, lies, 3, dtype, device);
            match op {
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
        for &(case, kernels) in CASES {
            for dtype in FLOATS {
                run(case, dtype, device).unwrap();
                // Without candle's own.
                let mut launched = launches.since();
                launched.retain(|name| all.contains(name));
                let want: Vec<String> = kernels
                    .iter()
                    .map(|k| format!("{k}_{}", dtype.as_str()))
                    .collect();
                assert_eq!(launched, want, "{case:?} {dtype:?}");
            }
        }
    });
}

#[test]
fn every_kernel_is_on_a_path_that_is_named_here() {
    // Of the modules that the table knows: a room that is new has its own tests first.
    let named: BTreeSet<&str> = CASES.iter().flat_map(|(_, k)| k.iter().copied()).collect();
    for (module, dtype, ptx) in cuda_modules() {
        let suffix = format!("_{}", dtype.as_str());
        let there: BTreeSet<&str> = crate::kernels::entries(ptx)
            .into_iter()
            .filter_map(|name| name.strip_suffix(&*suffix))
            .collect();
        if there.is_disjoint(&named) {
            println!("{module}: no path of it is named");
            continue;
        }
        let missing: Vec<_> = there.difference(&named).collect();
        assert!(missing.is_empty(), "{module} {dtype:?}: {missing:?}");
    }
}
