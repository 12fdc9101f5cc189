// gaussian and gaussian_kl: the reparameterization trick and the divergence from the standard normal distribution.
#include "columns.cuh"
#include "elementwise.cuh"
#include "softmax.cuh"

// Formulas, as src/gaussian/cpu.rs has them.
struct Sample {
    typedef Normal Noise;
    typedef Parameters<0> Numbers;
    // mean + exp(log_var / 2) eps
    DEVICE Real at(const Real (&x)[2], Real eps, const Numbers&) { return fmadd(exp_of(x[1] * Real(0.5)), eps, x[0]); }
};
struct SampleGradient {
    typedef Normal Noise;
    typedef Parameters<0> Numbers;
    // g exp(log_var / 2) eps / 2, of log_var and g
    DEVICE Real at(const Real (&x)[2], Real eps, const Numbers&) {
        return (exp_of(x[0] * Real(0.5)) * eps) * (x[1] * Real(0.5));
    }
};
struct MeanGradient {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    // g mean
    DEVICE Real at(const Real (&x)[2], Real, const Numbers&) { return x[0] * x[1]; }
};
struct LogVarGradient {
    typedef Silent Noise;
    typedef Parameters<0> Numbers;
    // g expm1(log_var) / 2
    DEVICE Real at(const Real (&x)[2], Real, const Numbers&) { return expm1_of(x[0]) * Real(0.5) * x[1]; }
};

ELEMENTWISE_2(gaussian_sample, Sample)
ELEMENTWISE_2(gaussian_sample_gradient, SampleGradient)
ELEMENTWISE_2(gaussian_kl_mean_gradient, MeanGradient)
ELEMENTWISE_2(gaussian_kl_log_var_gradient, LogVarGradient)

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

#define OPERANDS const Element *a, const __grid_constant__ View a_view, const Element *b, const __grid_constant__ View b_view

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
