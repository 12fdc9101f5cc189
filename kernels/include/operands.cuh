// Rows of three operands: logits, the one-hot that was drawn from them (NaN in a row without a proper class), and the gradient
// of that. Rows that a team holds in registers, rows that it goes over step by step, and rows that lie across memory.
#pragma once
#include "columns.cuh"
#include "softmax.cuh"

#define OPERAND(x) const Element *x, const __grid_constant__ View x##_view
#define OPERANDS OPERAND(x), OPERAND(d), OPERAND(g)
#define THREE x, x_view, d, d_view, g, g_view
#define TAKE(x) const Element *x, const View &x##_view
#define TAKE_THREE TAKE(x), TAKE(d), TAKE(g)

// A thread's share of one operand: a variable of its own, which keeps it in registers.
template <int K>
struct Values {
    Real at[K][GROUP];
};

// Where a thread's share of a one-hot is hot, one bit an element.
struct Hot {
    u32 bits;
    bool broken; // NaN is in the one-hot

    __device__ __forceinline__ bool is(int i, int e) const { return bits >> (i * GROUP + e) & 1; }
    // Of a thread's values that where the one-hot is hot, or -inf.
    template <int K>
    __device__ __forceinline__ Real of(const Values<K>& values) const {
        Real found = -infinity();
        if (bits) {
#pragma unroll
            for (int i = 0; i < K; ++i)
#pragma unroll
                for (int e = 0; e < GROUP; ++e)
                    if (is(i, e)) found = values.at[i][e];
        }
        return found;
    }
};

template <int K, typename Team>
DEVICE Hot load_hot(const Line& line, const Span& span, Team team) {
    static_assert(K * GROUP <= 32, "a bit for every element");
    Values<K> d;
    load_share<K>(line, span, team, Real(0), d.at);
    Hot hot{0, false};
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            hot.bits |= u32(d.at[i][e] > Real(0)) << (i * GROUP + e);
            hot.broken |= d.at[i][e] != d.at[i][e];
        }
    return hot;
}

// Calls `visit(k, x, d, g)` with the elements of a row, a group at a time, and the place of each group's first among them, as
// often as a team's thread has groups; slots that are not in the row are -inf, 0 and 0.
template <typename Team, typename Visit>
DEVICE void over_row(Team team, TAKE_THREE, u64 row, u64 len, Visit visit) {
    // So few groups that slots are counted in 32 bits.
    constexpr u32 STRETCH = 1u << 24;
    u64 start = row * len;
    u32 before = u32(start) % GROUP;
#pragma unroll 1
    for (u64 from = 0; from * GROUP < before + len; from += STRETCH) {
        Span span(start, len, from, STRETCH);
        Line x_line(x, x_view, span, row, start), d_line(d, d_view, span, row, start), g_line(g, g_view, span, row, start);
#pragma unroll 1
        for (u32 group = team.rank(); group < STRETCH && span.any(group); group += team.size()) {
            Real a[GROUP], b[GROUP], c[GROUP];
            x_line.load(span, group, -infinity(), a);
            d_line.load(span, group, Real(0), b);
            g_line.load(span, group, Real(0), c);
            visit(i64((from + group) * GROUP) - i64(before), a, b, c);
        }
    }
}

// What all threads of a column make of their values.
template <typename Op, int V>
DEVICE void join_columns(ColumnRoom<V>& room, Real (&x)[V]) {
    if (blockDim.y == 1) return;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) room.at(threadIdx.y, v) = x[v];
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) {
        x[v] = Op::identity();
        for (u32 y = 0; y < blockDim.y; ++y) x[v] = Op::of(x[v], room.at(y, v));
    }
}
