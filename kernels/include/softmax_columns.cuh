// The forward engine for rows that lie across memory.
#pragma once
#include "columns.cuh"
#include "softmax.cuh"

// Scores of lines first, first + blockDim.y, ...
template <typename Scores, int V>
DEVICE void load_lines(const Scores& scores, const ColumnLine<V>& line, const Columns<V>& columns, u64 first,
                       Real (&z)[LINES<V>][V]) {
#pragma unroll
    for (int i = 0; i < LINES<V>; ++i) line.load(first + i * blockDim.y, columns.len, -infinity(), z[i]);
    if (Scores::NOISY) {
#pragma unroll
        for (int i = 0; i < LINES<V>; ++i) {
            u64 number = first + i * blockDim.y;
            if (number < columns.len) {
                if constexpr (V == 1)
                    z[i][0] = scores.perturbed(columns.index(number), z[i][0]);
                else
                    scores.perturb(columns.index(number) / GROUP, z[i]);
            }
        }
    }
}

template <typename Scores, Form FORM, int V>
DEVICE void softmax_columns(const Element* x, const View& view, Element* out, const Rows& rows, const Tau& tau,
                            const Key& key) {
    Columns<V> columns(rows);
    ColumnLine<V> line(x, view, columns);
    Scores scores(key);
    u64 len = columns.len, step = u64(blockDim.y) * LINES<V>;
    Real z[LINES<V>][V], max[V], scale[V], inverse[V];
    Compensated sum[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        RowTau row_tau(tau, columns.row + v);
        scale[v] = row_tau.scale, inverse[v] = row_tau.inverse;
        max[v] = -infinity();
        sum[v] = Compensated{0, 0};
    }
#pragma unroll 1
    for (u64 first = threadIdx.y; first < len; first += step) {
        load_lines(scores, line, columns, first, z);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            Real next = max[v];
#pragma unroll
            for (int i = 0; i < LINES<V>; ++i) next = larger(next, z[i][v]);
            Real subtracted = pivot(next), here = 0;
#pragma unroll
            for (int i = 0; i < LINES<V>; ++i) here += exp_scaled((z[i][v] - subtracted) * scale[v]);
            Real rescale = exp_scaled((max[v] - subtracted) * scale[v]);
            sum[v].sum *= rescale, sum[v].lost *= rescale;
            sum[v].add(here);
            max[v] = next;
        }
    }
    Real norm[V];
    if (blockDim.y > 1) {
        __shared__ ColumnRoom<V> maxima, sums;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            maxima.at(threadIdx.y, v) = max[v];
            sums.at(threadIdx.y, v) = sum[v].sum;
        }
        __syncthreads();
#pragma unroll
        for (int v = 0; v < V; ++v) {
            for (u32 y = 0; y < blockDim.y; ++y) max[v] = larger(max[v], maxima.at(y, v));
            max[v] = pivot(max[v]);
            Real total = 0;
            for (u32 y = 0; y < blockDim.y; ++y)
                total += sums.at(y, v) * exp_scaled((maxima.at(y, v) - max[v]) * scale[v]);
            norm[v] = norm_of<FORM>(total);
        }
    } else {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            max[v] = pivot(max[v]);
            norm[v] = norm_of<FORM>(sum[v].sum);
        }
    }
    if (!columns.active) return;
#pragma unroll 1
    for (u64 first = threadIdx.y; first < len; first += step) {
        // Lines that fit the registers all at once are still there.
        if (len > step) load_lines(scores, line, columns, first, z);
#pragma unroll
        for (int i = 0; i < LINES<V>; ++i) {
            u64 number = first + i * blockDim.y;
            if (number < len) {
                Real y[V];
#pragma unroll
                for (int v = 0; v < V; ++v)
                    y[v] = FORM == SOFTMAX ? exp_scaled((z[i][v] - max[v]) * scale[v]) * norm[v]
                                           : (z[i][v] - max[v]) * inverse[v] - norm[v];
                store_columns(out, columns, number, y);
            }
        }
    }
}
