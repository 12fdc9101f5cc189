// Rows that lie across memory: neighbouring threads take neighbouring columns, V each, and threads of one column share its
// lines.
#pragma once
#include "team.cuh"
#include "view.cuh"

// Threads of a block of columns.
constexpr u32 COLUMN_THREADS = 256;

// Where a thread's V columns lie. V is GROUP for a contiguous tensor whose lines are whole groups, else 1.
template <int V>
struct Columns {
    u64 row;   // the first column's number among the rows
    u64 start; // the logical index of its first element
    u64 inner;
    u64 len;
    bool active;

    __device__ __forceinline__ explicit Columns(const Rows& rows) : inner(rows.inner), len(rows.len) {
        u64 column = u64(blockIdx.x) * blockDim.x + threadIdx.x;
        active = column * V < rows.count;
        // Threads past the last column repeat it, and store nothing.
        row = active ? column * V : rows.count - V;
        u64 outer = row / inner;
        start = outer * len * inner + (row - outer * inner);
    }

    __device__ __forceinline__ u64 index(u64 line) const { return start + line * inner; }
};

// A tensor's elements in those columns.
template <int V>
struct ColumnLine {
    const Element* data;
    u64 stride;

    __device__ __forceinline__ ColumnLine(const Element* x, const View& view, const Columns<V>& columns)
        : data(V == 1 ? x + row_base(view, columns.row) : x + columns.start), stride(V == 1 ? view.stride : columns.inner) {}

    // Line `line`, or `outside` where there is none.
    __device__ __forceinline__ void load(u64 line, u64 len, Real outside, Real (&x)[V]) const {
        if (line < len) {
            const Element* from = data + line * stride;
            if constexpr (V == 1)
                x[0] = widen(*from);
            else
                load_group(from, x);
        } else {
#pragma unroll
            for (int v = 0; v < V; ++v) x[v] = outside;
        }
    }
};

template <int V>
DEVICE void store_columns(Element* out, const Columns<V>& columns, u64 line, const Real (&x)[V]) {
    Element* to = out + columns.index(line);
    if constexpr (V == 1)
        *to = narrow(x[0]);
    else
        store_group(to, x);
}

// Room for a value of every thread's every column.
template <int V>
struct ColumnRoom {
    Real values[COLUMN_THREADS * V];

    __device__ __forceinline__ Real& at(u32 y, int v) { return values[(y * blockDim.x + threadIdx.x) * V + v]; }
};

// A thread's lines at a time. The same for both V: how a tensor lies in memory must not change the order of a sum.
template <int V>
constexpr int LINES = 4;
