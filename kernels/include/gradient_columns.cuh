// The backward engine for rows that lie across memory.
#pragma once
#include "columns.cuh"
#include "gradient.cuh"

// `out` may be `a`, each line of which is read by the thread that replaces it, after its last other use.
template <typename Family, int V>
DEVICE void gradient_columns(const Element* a, const View& a_view, const Element* g, const View& g_view, Element* out,
                             const Rows& rows, const Tau& tau) {
    Columns<V> columns(rows);
    ColumnLine<V> a_line(a, a_view, columns), g_line(g, g_view, columns);
    u64 len = columns.len, step = u64(blockDim.y) * LINES<V>;
    Part part[V];
    Real lost[V];
#pragma unroll
    for (int v = 0; v < V; ++v) part[v] = Part::none(), lost[v] = 0;
#pragma unroll 1
    for (u64 first = threadIdx.y; first < len; first += step) {
        Real x[LINES<V>][V], y[LINES<V>][V];
#pragma unroll
        for (int i = 0; i < LINES<V>; ++i) {
            a_line.load(first + i * blockDim.y, len, Family::outside(), x[i]);
            g_line.load(first + i * blockDim.y, len, 0, y[i]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) {
            Part here = Part::none();
            if (Family::SHIFTS) {
#pragma unroll
                for (int i = 0; i < LINES<V>; ++i) {
                    // The first line there is finite even where no element is larger than it.
                    if (i == 0 || x[i][v] > here.top) here.top = x[i][v], here.shift = y[i][v];
                    here.weight += x[i][v];
                }
            }
#pragma unroll
            for (int i = 0; i < LINES<V>; ++i) here.sum += Family::term(x[i][v], y[i][v], here.shift);
            // A long column's sum is compensated; what was lost before keeps its value under another shift.
            Part both = Part::join(part[v], here);
            Compensated total{part[v].sum_from(both.shift), lost[v]};
            total.add(here.sum_from(both.shift));
            both.sum = total.sum, lost[v] = total.lost;
            part[v] = both;
        }
    }
    if (blockDim.y > 1) {
        __shared__ ColumnRoom<V> tops, shifts, weights, sums;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            tops.at(threadIdx.y, v) = part[v].top;
            shifts.at(threadIdx.y, v) = part[v].shift;
            weights.at(threadIdx.y, v) = part[v].weight;
            sums.at(threadIdx.y, v) = part[v].sum;
        }
        __syncthreads();
#pragma unroll
        for (int v = 0; v < V; ++v) {
            part[v] = Part::none();
            for (u32 y = 0; y < blockDim.y; ++y)
                part[v] = Part::join(part[v], Part{tops.at(y, v), shifts.at(y, v), weights.at(y, v), sums.at(y, v)});
        }
    }
    if (!columns.active) return;
    Real inverse[V];
#pragma unroll
    for (int v = 0; v < V; ++v) inverse[v] = RowTau(tau, columns.row + v).inverse;
    for (u64 line = threadIdx.y; line < len; line += blockDim.y) {
        Real x[V], y[V];
        a_line.load(line, len, Family::outside(), x);
        g_line.load(line, len, 0, y);
#pragma unroll
        for (int v = 0; v < V; ++v)
            y[v] = typename Family::Finish(part[v].shift, part[v].sum, inverse[v]).of(x[v], y[v]);
        store_columns(out, columns, line, y);
    }
}
