//! Every op of the public API has its CUDA kernels, forward and backward, for every dtype and path.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::DType;
use candle_reparam::bits::cuda_modules;

use crate::support::data::FLOATS;

/// Paths of ops that hold a row in registers: their kernels' suffixes.
const HELD: &[&str] = &[
    "_lanes",
    "_block",
    "_pieces",
    "_join",
    "_columns",
    "_columns_one",
];
const SHORT: &[&str] = &["_lanes", "_block"];
/// Paths of ops that go over a row in a loop.
const LOOPED: &[&str] = &["_lanes", "_block", "_columns", "_columns_one"];
/// Elementwise ops: of contiguous operands, and of any.
const ANY: &[&str] = &["", "_strided"];

/// Paths of ops that work on matrices.
const MATRICES: &[&str] = &["_shared", "_global"];

/// An op, and for each direction its module and the kernels of all paths, as `(beginning, suffixes)`.
struct Op {
    name: &'static str,
    forward: Kernels,
    /// None for an op whose result has no gradient.
    backward: &'static [Kernels],
}

type Kernels = (
    &'static str,
    &'static [(&'static str, &'static [&'static str])],
);

/// By lanes, by blocks of one row or a part of one, and by a sort.
const TOP_K: Kernels = (
    "gumbel_top_k",
    &[(
        "gumbel_top_k",
        &[
            "_lanes",
            "_lanes_across",
            "_block",
            "_block_across",
            "_pieces",
            "_join",
            "_keys",
            "_sort",
            "_merge",
            "_write",
        ],
    )],
);
const RELAXED_TOP_K_GRADIENT: Kernels = (
    "relaxed_top_k",
    &[
        ("relaxed_top_k_gradient", SHORT),
        ("relaxed_top_k_gradient_tau", SHORT),
    ],
);

const SOFTMAX_GRADIENT: Kernels = (
    "softmax_gradient",
    &[("softmax_gradient", HELD), ("softmax_gradient_tau", SHORT)],
);

const PIECEWISE_SLOPE: Kernels = ("piecewise", &[("piecewise_slope", ANY)]);

const BINARY_CONCRETE_GRADIENT: Kernels = (
    "binary_concrete",
    &[
        ("binary_concrete_gradient", ANY),
        ("binary_concrete_learned_gradient", ANY),
        ("binary_concrete_tau_gradient", ANY),
    ],
);

const BINARY_CONCRETE_ST_GRADIENT: Kernels = (
    "binary_concrete",
    &[
        ("binary_concrete_st_gradient", ANY),
        ("binary_concrete_st_learned_gradient", ANY),
        ("binary_concrete_tau_gradient", ANY),
    ],
);

const SINKHORN: Kernels = ("gumbel_sinkhorn", &[("gumbel_sinkhorn", MATRICES)]);
const ASSIGNMENT: Kernels = ("gumbel_sinkhorn", &[("gumbel_sinkhorn_st", &[""])]);
const SINKHORN_GRADIENT: Kernels = (
    "gumbel_sinkhorn",
    &[
        ("gumbel_sinkhorn_gradient", MATRICES),
        ("gumbel_sinkhorn_tau", MATRICES),
    ],
);

/// The draw that the estimators of a one-hot share.
const ONE_HOT: Kernels = ("one_hot", &[("one_hot", HELD)]);
/// Paths of a backward pass over rows of three operands.
const THREE: &[&str] = &[
    "_lanes",
    "_block",
    "_sums",
    "_join",
    "_columns",
    "_columns_one",
];

const OPS: &[Op] = &[
    Op {
        name: "uniform",
        forward: ("noise", &[("uniform", &[""])]),
        backward: &[],
    },
    Op {
        name: "gumbel",
        forward: ("noise", &[("gumbel", &[""])]),
        backward: &[],
    },
    Op {
        name: "exponential",
        forward: ("noise", &[("exponential", &[""])]),
        backward: &[],
    },
    Op {
        name: "logistic",
        forward: ("noise", &[("logistic", &[""])]),
        backward: &[],
    },
    Op {
        name: "normal",
        forward: ("noise", &[("normal", &[""])]),
        backward: &[],
    },
    Op {
        name: "tempered_softmax",
        forward: ("tempered_softmax", &[("tempered_softmax", HELD)]),
        backward: &[SOFTMAX_GRADIENT],
    },
    Op {
        name: "tempered_log_softmax",
        // The first kernel of a row of several blocks is the same for both.
        forward: (
            "tempered_softmax",
            &[
                (
                    "tempered_log_softmax",
                    &["_lanes", "_block", "_join", "_columns", "_columns_one"],
                ),
                ("tempered_softmax", &["_pieces"]),
            ],
        ),
        backward: &[(
            "softmax_gradient",
            &[
                ("log_softmax_gradient", HELD),
                ("log_softmax_gradient_tau", SHORT),
            ],
        )],
    },
    Op {
        name: "gumbel_softmax",
        forward: ("gumbel_softmax", &[("gumbel_softmax", HELD)]),
        backward: &[SOFTMAX_GRADIENT],
    },
    Op {
        name: "gumbel_softmax_st",
        forward: ONE_HOT,
        // Where no team holds a row: the relaxed sample, and its gradient in its place.
        backward: &[
            ("gumbel_softmax", &[("gumbel_softmax_st_gradient", SHORT)]),
            ("gumbel_softmax", &[("gumbel_softmax", HELD)]),
            SOFTMAX_GRADIENT,
        ],
    },
    Op {
        name: "reinmax",
        forward: ONE_HOT,
        backward: &[("reinmax", &[("reinmax_gradient", THREE)])],
    },
    Op {
        name: "gumbel_rao",
        forward: ONE_HOT,
        backward: &[("gumbel_rao", &[("gumbel_rao_gradient", THREE)])],
    },
    Op {
        name: "gumbel_max",
        forward: ("gumbel_max", &[("gumbel_max", HELD)]),
        backward: &[],
    },
    Op {
        name: "gumbel_top_k",
        forward: TOP_K,
        backward: &[],
    },
    Op {
        name: "relaxed_top_k",
        forward: ("relaxed_top_k", &[("relaxed_top_k", SHORT)]),
        backward: &[RELAXED_TOP_K_GRADIENT],
    },
    Op {
        name: "gumbel_top_k_st",
        // At the indices of gumbel_top_k.
        forward: ("relaxed_top_k", &[("gumbel_top_k_st", SHORT)]),
        backward: &[RELAXED_TOP_K_GRADIENT],
    },
    Op {
        name: "categorical",
        forward: (
            "categorical",
            &[(
                "categorical",
                &["_lanes", "_tiles", "_tiles_columns", "_choose"],
            )],
        ),
        backward: &[],
    },
    Op {
        name: "gaussian",
        forward: ("gaussian", &[("gaussian_sample", &["", "_strided"])]),
        // The gradient of the mean is the one that arrives.
        backward: &[(
            "gaussian",
            &[("gaussian_sample_gradient", &["", "_strided"])],
        )],
    },
    Op {
        name: "gaussian_kl",
        forward: (
            "gaussian",
            &[(
                "gaussian_kl",
                &["_lanes", "_block", "_columns", "_columns_one"],
            )],
        ),
        backward: &[(
            "gaussian",
            &[
                ("gaussian_kl_mean_gradient", &["", "_strided"]),
                ("gaussian_kl_log_var_gradient", &["", "_strided"]),
            ],
        )],
    },
    Op {
        // And every other function of one element in `subgradient`.
        name: "relu",
        forward: ("piecewise", &[("piecewise_linear", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "hinge",
        forward: ("subgradient", &[("subgradient_hinge", ANY)]),
        backward: &[("subgradient", &[("subgradient_hinge_slope", ANY)])],
    },
    Op {
        name: "maximum",
        forward: ("subgradient", &[("subgradient_larger", ANY)]),
        backward: &[("subgradient", &[("subgradient_larger_slope", ANY)])],
    },
    Op {
        name: "max",
        forward: ("subgradient", &[("subgradient_extreme", LOOPED)]),
        backward: &[("subgradient", &[("subgradient_shares", LOOPED)])],
    },
    Op {
        name: "round",
        forward: ("straight_through", &[("straight_through_round", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "floor",
        forward: ("straight_through", &[("straight_through_floor", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "ceil",
        forward: ("straight_through", &[("straight_through_ceil", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "sign",
        forward: ("straight_through", &[("straight_through_sign", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "binarize",
        forward: ("straight_through", &[("straight_through_binarize", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "quantize",
        forward: ("straight_through", &[("straight_through_quantize", ANY)]),
        backward: &[PIECEWISE_SLOPE],
    },
    Op {
        name: "one_hot",
        // Its gradient is the one that arrives.
        forward: ("straight_through", &[("straight_through_one_hot", LOOPED)]),
        backward: &[],
    },
    Op {
        name: "binary_concrete",
        forward: (
            "binary_concrete",
            &[("binary_concrete", ANY), ("binary_concrete_learned", ANY)],
        ),
        backward: &[BINARY_CONCRETE_GRADIENT],
    },
    Op {
        name: "binary_concrete_st",
        forward: (
            "binary_concrete",
            &[
                ("binary_concrete_st", ANY),
                ("binary_concrete_st_learned", ANY),
            ],
        ),
        backward: &[BINARY_CONCRETE_ST_GRADIENT],
    },
    Op {
        name: "hard_concrete",
        forward: (
            "binary_concrete",
            &[("hard_concrete", ANY), ("hard_concrete_learned", ANY)],
        ),
        backward: &[(
            "binary_concrete",
            &[
                ("hard_concrete_gradient", ANY),
                ("hard_concrete_learned_gradient", ANY),
                ("hard_concrete_tau_gradient", ANY),
            ],
        )],
    },
    Op {
        name: "hard_concrete_l0",
        forward: (
            "binary_concrete",
            &[("hard_concrete_l0", ANY), ("hard_concrete_l0_learned", ANY)],
        ),
        backward: &[(
            "binary_concrete",
            &[
                ("hard_concrete_l0_gradient", ANY),
                ("hard_concrete_l0_learned_gradient", ANY),
                ("hard_concrete_l0_tau_gradient", ANY),
            ],
        )],
    },
    Op {
        name: "gumbel_sinkhorn",
        forward: SINKHORN,
        backward: &[SINKHORN_GRADIENT],
    },
    Op {
        name: "sinkhorn",
        forward: SINKHORN,
        backward: &[SINKHORN_GRADIENT],
    },
    Op {
        name: "gumbel_sinkhorn_st",
        forward: ASSIGNMENT,
        backward: &[SINKHORN_GRADIENT],
    },
    Op {
        name: "sinkhorn_st",
        forward: ASSIGNMENT,
        backward: &[SINKHORN_GRADIENT],
    },
];
const IMPROPER_ROWS: Kernels = ("improper_rows", &[("improper_rows", SHORT)]);

/// The kernels that a PTX text defines.
pub fn entries(ptx: &str) -> BTreeSet<&str> {
    ptx.split(".entry ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .map(str::trim)
        .collect()
}

fn names((_, kernels): &Kernels, dtype: DType) -> Vec<String> {
    let of = |(beginning, suffixes): &(&str, &[&str])| {
        let names = suffixes
            .iter()
            .map(|suffix| format!("{beginning}{suffix}_{}", dtype.as_str()));
        names.collect::<Vec<_>>()
    };
    kernels.iter().flat_map(of).collect()
}

#[test]
fn every_op_has_its_kernels_in_both_directions_for_every_dtype() {
    let modules = cuda_modules();
    let defined: BTreeMap<(&str, &str), BTreeSet<&str>> = modules
        .iter()
        .map(|(module, dtype, ptx)| ((*module, dtype.as_str()), entries(ptx)))
        .collect();
    let mut wanted: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for dtype in FLOATS {
        for op in OPS {
            for (direction, kernels) in [("forward", &op.forward)]
                .into_iter()
                .chain(op.backward.iter().map(|k| ("backward", k)))
            {
                let there = defined.get(&(kernels.0, dtype.as_str()));
                for name in names(kernels, dtype) {
                    assert!(
                        there.is_some_and(|set| set.contains(&*name)),
                        "{} {direction} {dtype:?}: kernel {name} is not in module {}",
                        op.name,
                        kernels.0
                    );
                    wanted
                        .entry((kernels.0, dtype.as_str()))
                        .or_default()
                        .insert(name);
                }
            }
        }
        let module = (IMPROPER_ROWS.0, dtype.as_str());
        wanted
            .entry(module)
            .or_default()
            .extend(names(&IMPROPER_ROWS, dtype));
    }
    // And no kernel that no op takes.
    for (module, there) in &defined {
        let wanted = wanted.remove(module).unwrap_or_default();
        let there: BTreeSet<String> = there.iter().map(ToString::to_string).collect();
        assert_eq!(there, wanted, "{module:?}");
    }
    assert!(wanted.is_empty(), "{wanted:?}");
    let count: usize = defined.values().map(BTreeSet::len).sum();
    println!(
        "{} ops, {} modules, {count} kernels",
        OPS.len() + 1,
        defined.len()
    );
}
