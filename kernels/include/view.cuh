// Tensors seen from the dim that an op works along: rows, where their elements lie, and groups of them.
#pragma once
#include "noise.cuh"

constexpr int MAX_DIMS = 8;

// The rows of a tensor: (outer, len, inner) in logical order, row r being (r / inner, r % inner).
struct Rows {
    u64 count; // outer * inner
    u64 len;
    u64 inner;
};

// Where a tensor's elements lie: those of a row `stride` apart, from a place that the row's number gives, read as digits in
// the sizes of the other dims. Neighbouring dims that follow each other in memory are merged beforehand.
struct View {
    u64 stride;
    // Whether logical order is memory order and the first element lies on 16 bytes.
    u32 vector;
    u32 dims;
    u64 size[MAX_DIMS]; // outermost first
    u64 step[MAX_DIMS];
};

DEVICE u64 row_base(const View& view, u64 row) {
    u64 at = 0;
#pragma unroll 1
    for (u32 dim = view.dims; dim > 1; --dim) {
        u64 size = view.size[dim - 1], digit;
        // A 64-bit division costs several times as much.
        if ((row | size) >> 32)
            digit = row % size, row /= size;
        else
            digit = u32(row) % u32(size), row = u32(row) / u32(size);
        at += digit * view.step[dim - 1];
    }
    return view.dims ? at + row * view.step[0] : at;
}

// A stretch of a row, cut into groups: whole blocks of random words, and 16-byte accesses, begin at multiples of GROUP in the
// tensor's logical order, whatever the length of the rows before. Slot s is element s of the first group and on; those from
// `head` to `end` are in the row.
struct Span {
    u64 first; // the first group
    u32 head, end;

    // `groups` groups of a row from its group `from` on.
    __device__ __forceinline__ Span(u64 start, u64 len, u64 from, u32 groups) {
        u32 before = u32(start) % GROUP;
        first = start / GROUP + from;
        head = from == 0 ? before : 0;
        u64 rest = before + len, passed = from * GROUP, room = u64(groups) * GROUP;
        end = rest <= passed ? 0 : rest - passed < room ? u32(rest - passed) : u32(room);
    }

    // A whole row of so few elements that slots are counted in 32 bits.
    __device__ __forceinline__ Span(u64 start, u32 len) : first(start / GROUP), head(u32(start) % GROUP), end(head + len) {}

    __device__ __forceinline__ bool whole(u32 group) const {
        return group * GROUP >= head && group * GROUP + GROUP <= end;
    }
    // Whether all groups from one to another are whole.
    __device__ __forceinline__ bool whole(u32 group, u32 last) const {
        return group * GROUP >= head && last * GROUP + GROUP <= end;
    }
    __device__ __forceinline__ bool holds(u32 slot) const { return slot >= head && slot < end; }
    __device__ __forceinline__ bool any(u32 group) const { return group * GROUP < end; }
};

// The elements of a tensor in a span.
struct Line {
    const Element* data; // of slot 0
    u64 stride;
    bool vector;

    __device__ __forceinline__ Line(const Element* x, const View& view, const Span& span, u64 row, u64 start)
        : stride(view.vector ? 1 : view.stride), vector(view.vector) {
        // In a strided tensor, slot 0 stands as far from the row's first element as in the logical order.
        i64 at = i64(span.first * GROUP - start);
        data = view.vector ? x + span.first * GROUP : x + (i64(row_base(view, row)) + at * i64(view.stride));
    }

    // A group's elements; `outside` for those that are not in the row.
    __device__ __forceinline__ void load(const Span& span, u32 group, Real outside, Real (&x)[GROUP]) const {
        u32 slot = group * GROUP;
        if (vector && span.whole(group)) {
            load_group(data + slot, x);
        } else {
#pragma unroll
            for (int e = 0; e < GROUP; ++e) x[e] = span.holds(slot + e) ? widen(data[(slot + e) * stride]) : outside;
        }
    }
};

// A team's share of a span in registers, K groups a thread; `outside` where there is nothing.
//
// Of a thread whose groups are all whole, which nearly all are, no group is looked at: it loads them one after the other.
template <int K, typename Team>
DEVICE void load_share(const Line& line, const Span& span, Team team, Real outside, Real (&x)[K][GROUP]) {
    u32 first = team.template first<K>();
    if (line.vector && span.whole(first, first + (K - 1) * team.step())) {
        const Element* from = line.data + first * GROUP;
#pragma unroll
        for (int i = 0; i < K; ++i) load_group(from + i * team.step() * GROUP, x[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
        u32 group = first + i * team.step();
        if (span.any(group)) {
            line.load(span, group, outside, x[i]);
        } else {
#pragma unroll
            for (int e = 0; e < GROUP; ++e) x[i][e] = outside;
        }
    }
}

// Writes a group of a row to a contiguous tensor.
DEVICE void store_line(Element* out, const Span& span, u32 group, const Real (&x)[GROUP]) {
    u32 slot = group * GROUP;
    Element* to = out + span.first * GROUP + slot;
    if (span.whole(group)) {
        store_group(to, x);
    } else {
#pragma unroll
        for (int e = 0; e < GROUP; ++e)
            if (span.holds(slot + e)) to[e] = narrow(x[e]);
    }
}

// Writes a team's share, of which `finish(i, e)` gives the elements, to a contiguous tensor.
template <int K, typename Team, typename Finish>
DEVICE void store_share(Element* out, const Span& span, Team team, Finish finish) {
    u32 first = team.template first<K>();
    if (span.whole(first, first + (K - 1) * team.step())) {
        Element* to = out + span.first * GROUP + first * GROUP;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            Real y[GROUP];
#pragma unroll
            for (int e = 0; e < GROUP; ++e) y[e] = finish(i, e);
            store_group(to + i * team.step() * GROUP, y);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
        u32 group = first + i * team.step();
        if (span.any(group)) {
            Real y[GROUP];
#pragma unroll
            for (int e = 0; e < GROUP; ++e) y[e] = finish(i, e);
            store_line(out, span, group, y);
        }
    }
}

// The temperature of a row: a number, or one value a row in memory.
struct Tau {
    Real scale;   // exp_scale(tau)
    Real inverse; // 1 / tau, kept finite and above 0
    const Real* each;
    View view;
};

struct RowTau {
    Real scale;
    Real inverse;

    __device__ __forceinline__ RowTau(const Tau& tau, u64 row) : scale(tau.scale), inverse(tau.inverse) {
        if (tau.each) {
            Real value = tau.each[row_base(tau.view, row)];
            scale = exp_scale(value);
            inverse = inverse_of(value);
        }
    }
};
