// gaussian and gaussian_kl: the reparameterization trick and the divergence from the standard normal distribution.
#include "columns.cuh"
#include "softmax.cuh"

// Functions of two elements and the noise at their place.
struct Sample {
    static constexpr bool NOISY = true;
    // mean + exp(log_var / 2) eps
    DEVICE Real at(Real mean, Real log_var, Real eps) { return fmadd(exp_of(log_var * Real(0.5)), eps, mean); }
};
struct SampleGradient {
    static constexpr bool NOISY = true;
    // g exp(log_var / 2) eps / 2
    DEVICE Real at(Real log_var, Real g, Real eps) { return (exp_of(log_var * Real(0.5)) * eps) * (g * Real(0.5)); }
};
struct MeanGradient {
    static constexpr bool NOISY = false;
    // g mean
    DEVICE Real at(Real mean, Real g, Real) { return mean * g; }
};
struct LogVarGradient {
    static constexpr bool NOISY = false;
    // g expm1(log_var) / 2
    DEVICE Real at(Real log_var, Real g, Real) { return expm1_of(log_var) * Real(0.5) * g; }
};

// A group's elements of a tensor of any layout, seen as rows of one element.
template <bool VECTOR>
DEVICE void load_any(const Element* from, const View& view, u64 first, u64 n, Real (&x)[GROUP]) {
    if ((VECTOR || view.vector) && first + GROUP <= n) {
        load_group(from + first, x);
        return;
    }
    u64 at = 0, left = GROUP, step = 1;
    if (VECTOR) {
        at = first;
    } else if (view.dims) {
        // Elements up to the end of the innermost dim are one step apart.
        u64 size = view.size[view.dims - 1];
        at = row_base(view, first);
        left = size - (size >> 32 || first >> 32 ? first % size : u32(first) % u32(size));
        step = view.step[view.dims - 1];
    }
#pragma unroll
    for (int e = 0; e < GROUP; ++e)
        if (first + e < n) x[e] = widen(from[e < left ? at + e * step : row_base(view, first + e)]);
        else x[e] = 0;
}

template <typename Formula, bool VECTOR>
DEVICE void elementwise(const Element* a, const View& a_view, const Element* b, const View& b_view, Element* out, u64 n,
                        const Key& key) {
    Stream stream(key);
    u64 step = u64(gridDim.x) * blockDim.x;
#pragma unroll 1
    for (u64 group = u64(blockIdx.x) * blockDim.x + threadIdx.x; group * GROUP < n; group += step) {
        u64 first = group * GROUP;
        Real x[GROUP], y[GROUP], eps[GROUP];
        load_any<VECTOR>(a, a_view, first, n, x);
        load_any<VECTOR>(b, b_view, first, n, y);
        if (Formula::NOISY) draw_group<Normal>(stream, group, eps);
#pragma unroll
        for (int e = 0; e < GROUP; ++e) x[e] = Formula::at(x[e], y[e], Formula::NOISY ? eps[e] : Real(0));
        if (first + GROUP <= n) {
            store_group(out + first, x);
        } else {
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                if (first + e < n) out[first + e] = narrow(x[e]);
        }
    }
}

#define OPERANDS const Element *a, const __grid_constant__ View a_view, const Element *b, const __grid_constant__ View b_view

#define ELEMENTWISE(name, Formula)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        KERNEL(name)(OPERANDS, Element * out, u64 n, const __grid_constant__ Key key) {                                 \
        elementwise<Formula, true>(a, a_view, b, b_view, out, n, key);                                                  \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                \
        KERNEL(name##_strided)(OPERANDS, Element * out, u64 n, const __grid_constant__ Key key) {                       \
        elementwise<Formula, false>(a, a_view, b, b_view, out, n, key);                                                 \
    }

ELEMENTWISE(gaussian_sample, Sample)
ELEMENTWISE(gaussian_sample_gradient, SampleGradient)
ELEMENTWISE(gaussian_kl_mean_gradient, MeanGradient)
ELEMENTWISE(gaussian_kl_log_var_gradient, LogVarGradient)

// ---------------------------------------------------------------------------------------------------------- divergence

// mean^2 + exp(log_var) - 1 - log_var, twice an element's share.
DEVICE Real divergence(Real mean, Real log_var) { return fmadd(mean, mean, exp_minus_linear(log_var)); }

template <typename Team>
DEVICE void divergence_rows(Team team, const Element* a, const View& a_view, const Element* b, const View& b_view,
                            Element* out, const Rows& rows) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u64 start = row * rows.len;
    Compensated sum{0, 0};
    // Spans of what 32 bits can count.
    constexpr u32 GROUPS = 0x10000000u;
    for (u64 from = 0; from * GROUP < rows.len + GROUP; from += GROUPS) {
        Span span(start, rows.len, from, GROUPS);
        Line mean(a, a_view, span, row, start), log_var(b, b_view, span, row, start);
#pragma unroll 1
        for (u32 group = team.rank(); span.any(group); group += team.size()) {
            Real x[GROUP], y[GROUP], here = 0;
            mean.load(span, group, 0, x);
            log_var.load(span, group, 0, y);
#pragma unroll
            for (int e = 0; e < GROUP; ++e) here += divergence(x[e], y[e]);
            sum.add(here);
        }
    }
    Real total = team.template reduce<Sum, 0>(sum.sum);
    if (active && team.rank() == 0) out[row] = narrow(total * Real(0.5));
}

template <int V>
DEVICE void divergence_columns(const Element* a, const View& a_view, const Element* b, const View& b_view, Element* out,
                               const Rows& rows) {
    Columns<V> columns(rows);
    ColumnLine<V> mean(a, a_view, columns), log_var(b, b_view, columns);
    Compensated sum[V];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = Compensated{0, 0};
#pragma unroll 1
    for (u64 line = threadIdx.y; line < columns.len; line += blockDim.y) {
        Real x[V], y[V];
        mean.load(line, columns.len, 0, x);
        log_var.load(line, columns.len, 0, y);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v].add(divergence(x[v], y[v]));
    }
    __shared__ ColumnRoom<V> room;
#pragma unroll
    for (int v = 0; v < V; ++v) room.at(threadIdx.y, v) = sum[v].sum;
    __syncthreads();
    if (threadIdx.y > 0 || !columns.active) return;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        Real total = 0;
        for (u32 y = 0; y < blockDim.y; ++y) total += room.at(y, v);
        out[columns.row + v] = narrow(total * Real(0.5));
    }
}

extern "C" {

__global__ void __launch_bounds__(128, 1)
    KERNEL(gaussian_kl_lanes)(OPERANDS, Element* out, const __grid_constant__ Rows rows, u32 lanes) {
    divergence_rows(Lanes{lanes}, a, a_view, b, b_view, out, rows);
}
__global__ void __launch_bounds__(512)
    KERNEL(gaussian_kl_block)(OPERANDS, Element* out, const __grid_constant__ Rows rows) {
    divergence_rows(Block{}, a, a_view, b, b_view, out, rows);
}
__global__ void __launch_bounds__(COLUMN_THREADS)
    KERNEL(gaussian_kl_columns)(OPERANDS, Element* out, const __grid_constant__ Rows rows) {
    divergence_columns<GROUP>(a, a_view, b, b_view, out, rows);
}
__global__ void __launch_bounds__(COLUMN_THREADS)
    KERNEL(gaussian_kl_columns_one)(OPERANDS, Element* out, const __grid_constant__ Rows rows) {
    divergence_columns<1>(a, a_view, b, b_view, out, rows);
}
}
