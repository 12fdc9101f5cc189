// straight_through: steps of one element, and the one-hot of a row's largest. Their gradients are the one that arrives, or
// piecewise.cu's slope.
#include "extreme.cuh"

struct Round {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    // halves to even
    DEVICE Real at(const Real (&x)[1], Real, const Numbers&) { return rint(x[0]); }
};
struct Floor {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    DEVICE Real at(const Real (&x)[1], Real, const Numbers&) { return floor(x[0]); }
};
struct Ceil {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    DEVICE Real at(const Real (&x)[1], Real, const Numbers&) { return ceil(x[0]); }
};
struct Sign {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    DEVICE Real at(const Real (&x)[1], Real, const Numbers&) {
        return number_or(x[0], x[0] < Real(0) ? Real(-1) : Real(0) < x[0] ? Real(1) : Real(0));
    }
};
struct Binarize {
    typedef Silent Noise;
    typedef Parameters<1> Numbers; // threshold
    DEVICE Real at(const Real (&x)[1], Real, const Numbers& p) {
        return number_or(x[0], p[0] < x[0] ? Real(1) : Real(0));
    }
};
struct Quantize {
    typedef Silent Noise;
    typedef Parameters<5> Numbers; // low, high, levels a unit, the width, the last level
    DEVICE Real at(const Real (&x)[1], Real, const Numbers& p) {
        Real inside = x[0] < p[0] ? p[0] : p[1] < x[0] ? p[1] : x[0];
        Real level = rint(times(minus(inside, p[0]), p[2]));
        // By a quotient, so that the middle of a range is exact: the 0 of one that is symmetric. The ends are the bounds.
        return p[4] <= level ? p[1] : fmadd(level / p[4], p[3], p[0]);
    }
};

ELEMENTWISE_1(straight_through_round, Round)
ELEMENTWISE_1(straight_through_floor, Floor)
ELEMENTWISE_1(straight_through_ceil, Ceil)
ELEMENTWISE_1(straight_through_sign, Sign)
ELEMENTWISE_1(straight_through_binarize, Binarize)
ELEMENTWISE_1(straight_through_quantize, Quantize)

// A largest element has a one-hot whatever it is, where the race knows none for one that is infinite.
DEVICE void settle_race(Race& race) {
    if (!race.nan) race.best = 0;
}

// x: rows of at most 2^32 elements; out: as x.
template <typename Team>
DEVICE void one_hot_rows(Team team, const Element* x, const View& view, Element* out, const Rows& rows) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    Race race = largest_of(team, x, view, row, rows, Real(1));
    settle_race(race);
    if (!active) return;
    u64 start = row * rows.len;
    Real rest = OneHotOut::rest(race);
    // Spans of what 32 bits can count.
    constexpr u32 GROUPS = 0x10000000u;
    for (u64 from = 0; from * GROUP < rows.len + GROUP; from += GROUPS) {
        Span span(start, rows.len, from, GROUPS);
        for (u32 group = team.rank(); span.any(group); group += team.size()) {
            i64 at = index_of(span, group, start);
            Real y[GROUP];
#pragma unroll
            for (int e = 0; e < GROUP; ++e) y[e] = race.won() && at + e == i64(race.index) ? Real(1) : rest;
            store_line(out, span, group, y);
        }
    }
}

template <int V>
DEVICE void one_hot_columns(const Element* x, const View& view, Element* out, const Rows& rows) {
    Columns<V> columns(rows);
    ColumnLine<V> line(x, view, columns);
    Race race[V];
    largest_of_columns(columns, line, Real(1), race);
#pragma unroll
    for (int v = 0; v < V; ++v) settle_race(race[v]);
    if (columns.active) ColumnOneHotOut{out}.write(columns, race);
}

#define ARGUMENTS const Element *x, const __grid_constant__ View view, Element *out, const __grid_constant__ Rows rows

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(straight_through_one_hot_lanes)(ARGUMENTS, u32 lanes) {
    one_hot_rows(Lanes{lanes}, x, view, out, rows);
}
__global__ void __launch_bounds__(512) KERNEL(straight_through_one_hot_block)(ARGUMENTS) {
    one_hot_rows(Block{}, x, view, out, rows);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(straight_through_one_hot_columns)(ARGUMENTS) {
    one_hot_columns<GROUP>(x, view, out, rows);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(straight_through_one_hot_columns_one)(ARGUMENTS) {
    one_hot_columns<1>(x, view, out, rows);
}
}
