// The largest element of each row, which may be several, and what is written of it; with a sign of -1, of the row's negation.
//
// As in src/rowwise/extreme.rs: a row that holds NaN has no largest element, and all that is written of it is NaN.
#pragma once
#include "elementwise.cuh"
#include "race.cuh"

typedef Parameters<1> Negation;

// Calls `f(span, group, x)` with the groups of a row that fall to this thread; elements that are not in the row are -inf.
template <typename Team, typename F>
DEVICE void each_group(Team team, const Element* x, const View& view, u64 row, u64 start, u64 len, Real sign, F f) {
    // Spans of what 32 bits can count.
    constexpr u32 GROUPS = 0x10000000u;
    for (u64 from = 0; from * GROUP < len + GROUP; from += GROUPS) {
        Span span(start, len, from, GROUPS);
        Line line(x, view, span, row, start);
#pragma unroll 1
        for (u32 group = team.rank(); span.any(group); group += team.size()) {
            Real z[GROUP];
            line.load(span, group, -infinity() * sign, z);
#pragma unroll
            for (int e = 0; e < GROUP; ++e) z[e] *= sign;
            f(span, group, z);
        }
    }
}

// The index in a row that a group begins at; below 0 in a first group that is not whole.
DEVICE i64 index_of(const Span& span, u32 group, u64 start) { return i64((span.first + group) * GROUP - start); }

// The race of a row without noise: its largest element, the index of the first that is, and whether there is a NaN.
template <typename Team>
DEVICE Race largest_of(Team team, const Element* x, const View& view, u64 row, const Rows& rows, Real sign) {
    Race race = Race::none();
    u64 start = row * rows.len;
    each_group(team, x, view, row, start, rows.len, sign, [&](const Span& span, u32 group, const Real(&z)[GROUP]) {
        u32 at = u32(index_of(span, group, start));
#pragma unroll
        for (int e = 0; e < GROUP; ++e) race.take(z[e], at + e);
    });
    return join_team(team, race);
}

// A value as it is returned: of two zeros it cannot matter which came first.
DEVICE Real value_of(const Race& race, Real sign) { return race.nan ? not_a_number() : race.best * sign + Real(0); }

template <typename Team>
DEVICE void extreme_rows(Team team, const Element* x, const View& view, Element* out, const Rows& rows, Real sign) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    Race race = largest_of(team, x, view, row, rows, sign);
    if (active && team.rank() == 0) out[row] = narrow(value_of(race, sign));
}

// Each row's element of `grad`, shared evenly among the elements that are largest. A row is gone over three times, of which two
// find it in a cache.
template <typename Team>
DEVICE void share_rows(Team team, const Element* x, const View& view, const Element* grad, const View& grad_view,
                       Element* out, const Rows& rows, Real sign) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u64 start = row * rows.len;
    Race race = largest_of(team, x, view, row, rows, sign);
    // Counted in integers: a thread's own are few enough for them, and their sum may round.
    u32 own = 0;
    each_group(team, x, view, row, start, rows.len, sign, [&](const Span& span, u32 group, const Real(&z)[GROUP]) {
#pragma unroll
        for (int e = 0; e < GROUP; ++e) own += z[e] == race.best && span.holds(group * GROUP + e);
    });
    Real ties = team.template reduce<Sum, 0>(Real(own));
    Real share = race.nan ? not_a_number() : widen(grad[row_base(grad_view, row)]) / ties;
    if (!active) return;
    Real rest = race.nan ? share : Real(0);
    each_group(team, x, view, row, start, rows.len, sign, [&](const Span& span, u32 group, const Real(&z)[GROUP]) {
        Real y[GROUP];
#pragma unroll
        for (int e = 0; e < GROUP; ++e) y[e] = z[e] == race.best ? share : rest;
        Span here = span;
        store_line(out, here, group, y);
    });
}

// ------------------------------------------------------------------------------------------------------------ columns

template <int V>
DEVICE void largest_of_columns(const Columns<V>& columns, const ColumnLine<V>& line, Real sign, Race (&race)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) race[v] = Race::none();
#pragma unroll 1
    for (u64 k = threadIdx.y; k < columns.len; k += blockDim.y) {
        Real z[V];
        line.load(k, columns.len, 0, z);
#pragma unroll
        for (int v = 0; v < V; ++v) race[v].take(z[v] * sign, u32(k));
    }
    join_columns(race);
}

template <int V>
DEVICE void extreme_columns(const Element* x, const View& view, Element* out, const Rows& rows, Real sign) {
    Columns<V> columns(rows);
    ColumnLine<V> line(x, view, columns);
    Race race[V];
    largest_of_columns(columns, line, sign, race);
    if (threadIdx.y > 0 || !columns.active) return;
#pragma unroll
    for (int v = 0; v < V; ++v) out[columns.row + v] = narrow(value_of(race[v], sign));
}

template <int V>
DEVICE void share_columns(const Element* x, const View& view, const Element* grad, const View& grad_view, Element* out,
                          const Rows& rows, Real sign) {
    Columns<V> columns(rows);
    ColumnLine<V> line(x, view, columns);
    Race race[V];
    largest_of_columns(columns, line, sign, race);
    Real ties[V];
#pragma unroll
    for (int v = 0; v < V; ++v) ties[v] = 0;
#pragma unroll 1
    for (u64 k = threadIdx.y; k < columns.len; k += blockDim.y) {
        Real z[V];
        line.load(k, columns.len, 0, z);
#pragma unroll
        for (int v = 0; v < V; ++v) ties[v] += z[v] * sign == race[v].best ? Real(1) : Real(0);
    }
    __shared__ ColumnRoom<V> room;
#pragma unroll
    for (int v = 0; v < V; ++v) room.at(threadIdx.y, v) = ties[v];
    __syncthreads();
    if (!columns.active) return;
    Real share[V], rest[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        Real total = 0;
        for (u32 y = 0; y < blockDim.y; ++y) total += room.at(y, v);
        share[v] = race[v].nan ? not_a_number() : widen(grad[row_base(grad_view, columns.row + v)]) / total;
        rest[v] = race[v].nan ? share[v] : Real(0);
    }
#pragma unroll 1
    for (u64 k = threadIdx.y; k < columns.len; k += blockDim.y) {
        Real z[V];
        line.load(k, columns.len, 0, z);
#pragma unroll
        for (int v = 0; v < V; ++v) z[v] = z[v] * sign == race[v].best ? share[v] : rest[v];
        store_columns(out, columns, k, z);
    }
}
