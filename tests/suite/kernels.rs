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

const SOFTMAX_GRADIENT: Kernels = (
    "softmax_gradient",
    &[("softmax_gradient", HELD), ("softmax_gradient_tau", SHORT)],
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

const OPS: [Op; 13] = [
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
];
const IMPROPER_ROWS: Kernels = ("improper_rows", &[("improper_rows", SHORT)]);

/// The kernels that a PTX text defines.
fn entries(ptx: &str) -> BTreeSet<&str> {
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
        for op in &OPS {
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
