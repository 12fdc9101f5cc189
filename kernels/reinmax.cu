// reinmax: the gradient of its one-hot. With q = softmax(logits / tau), pi = softmax(logits) and the one-hot D it is
// (q + D) (h - <q, h> / 2) - pi (h' - <pi, h'>) / 2, where h is g counted from where D is hot and h' from the largest logit:
// the largest entries of (q + D) / 2 and of pi, where the differences become exact.
#include "operands.cuh"

// As many as leave a thread the registers for its share of two operands.
constexpr u32 BLOCK_THREADS = sizeof(Real) == 8 ? 256 : 384;

#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Tau tau
#define TAKE_SHAPE const Rows &rows, const Tau &tau

// Exponentials of a difference to the largest logit, at tau and at 1.
struct Exponentials {
    Real scale;
    bool same;

    __device__ __forceinline__ explicit Exponentials(const Tau& tau) : scale(tau.scale), same(tau.scale == unit_scale(scale)) {}
    __device__ __forceinline__ void of(Real x, Real& tempered, Real& plain) const {
        plain = exp_scaled(x * unit_scale(x));
        tempered = same ? plain : exp_scaled(x * scale);
    }
};

// What finishes an element.
struct Finish {
    Real top, at_top, at_hot;
    // The inverse sums, that at 1 halved; half the mean at tau, and that at 1.
    Real tempered, plain, half_mean, mean;

    __device__ __forceinline__ void set(Real tempered_sum, Real tempered_product, Real plain_sum, Real plain_product) {
        tempered = Real(1) / tempered_sum;
        plain = Real(0.5) / plain_sum;
        half_mean = Real(0.5) * tempered_product * tempered;
        mean = plain_product / plain_sum;
    }
    __device__ __forceinline__ Real of(const Exponentials& exponentials, Real x, Real drawn, Real g) const {
        Real a, b;
        exponentials.of(x - top, a, b);
        Real s = fmadd(a, tempered, drawn);
        return fmadd(s, (g - at_hot) - half_mean, -((b * plain) * ((g - at_top) - mean)));
    }
};

// An element's share of the four sums.
struct Terms {
    Real tempered, tempered_product, plain, plain_product;

    __device__ __forceinline__ void add(const Exponentials& exponentials, const Finish& row, Real x, Real g) {
        Real a, b;
        exponentials.of(x - row.top, a, b);
        tempered += a;
        tempered_product = fmadd(a, g - row.at_hot, tempered_product);
        plain += b;
        plain_product = fmadd(b, g - row.at_top, plain_product);
    }
};

template <int K, typename Team>
DEVICE void reinmax_rows(Team team, TAKE_THREE, Element* out, TAKE_SHAPE) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Span span(start, len);
    Hot hot = load_hot<K>(Line(d, d_view, span, row, start), span, team);
    Values<K> logits, grad;
    load_share<K>(Line(x, x_view, span, row, start), span, team, -infinity(), logits.at);
    load_share<K>(Line(g, g_view, span, row, start), span, team, Real(0), grad.at);
    Finish finish;
    Real own = -infinity(), at_top = -infinity();
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) own = larger(own, logits.at[i][e]);
    Real top = team.template reduce<Max, 0>(own);
    if (own == top) {
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                at_top = larger(at_top, logits.at[i][e] == top ? grad.at[i][e] : -infinity());
    }
    finish.top = pivot(top);
    finish.at_top = team.template reduce<Max, 1>(at_top);
    finish.at_hot = team.template reduce<Max, 2>(hot.of(grad));
    Exponentials exponentials(tau);
    Terms terms{0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) terms.add(exponentials, finish, logits.at[i][e], grad.at[i][e]);
    finish.set(team.template reduce<Sum, 0>(terms.tempered), team.template reduce<Sum, 1>(terms.tempered_product),
               team.template reduce<Sum, 2>(terms.plain), team.template reduce<Sum, 3>(terms.plain_product));
    if (hot.broken) finish.tempered = not_a_number();
    if (active)
        store_share<K>(out, span, team, [&](int i, int e) {
            return finish.of(exponentials, logits.at[i][e], hot.is(i, e) ? Real(1) : Real(0), grad.at[i][e]);
        });
}

// ------------------------------------------------------------------------------------------ rows of several blocks

// A block goes over a row twice and leaves what finishes its elements.
DEVICE void reinmax_sums(TAKE_THREE, Finish* finishes, TAKE_SHAPE) {
    Block team;
    u64 row = blockIdx.x;
    Finish finish;
    Real own = -infinity(), at_top = -infinity(), at_hot = -infinity();
    over_row(team, THREE, row, rows.len, [&](i64, Real(&x)[GROUP], Real(&d)[GROUP], Real(&g)[GROUP]) {
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            if (x[e] > own) own = x[e], at_top = g[e];
            if (x[e] == own) at_top = larger(at_top, g[e]);
            if (d[e] > Real(0)) at_hot = g[e];
        }
    });
    Real top = team.reduce<Max, 0>(own);
    finish.top = pivot(top);
    finish.at_top = team.reduce<Max, 1>(own == top ? at_top : -infinity());
    finish.at_hot = team.reduce<Max, 2>(at_hot);
    Exponentials exponentials(tau);
    Compensated sums[4] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
    over_row(team, THREE, row, rows.len, [&](i64, Real(&x)[GROUP], Real(&)[GROUP], Real(&g)[GROUP]) {
        Terms terms{0, 0, 0, 0};
#pragma unroll
        for (int e = 0; e < GROUP; ++e) terms.add(exponentials, finish, x[e], g[e]);
        sums[0].add(terms.tempered), sums[1].add(terms.tempered_product);
        sums[2].add(terms.plain), sums[3].add(terms.plain_product);
    });
    finish.set(team.reduce<Sum, 0>(sums[0].sum), team.reduce<Sum, 1>(sums[1].sum), team.reduce<Sum, 2>(sums[2].sum),
               team.reduce<Sum, 3>(sums[3].sum));
    if (team.rank() == 0) finishes[row] = finish;
}

DEVICE void reinmax_join(TAKE_THREE, const Finish* finishes, Element* out, TAKE_SHAPE, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    const Span& span = piece.span;
    Hot hot = load_hot<HELD>(Line(d, d_view, span, piece.row, piece.start), span, team);
    Values<HELD> logits, grad;
    load_share<HELD>(Line(x, x_view, span, piece.row, piece.start), span, team, -infinity(), logits.at);
    load_share<HELD>(Line(g, g_view, span, piece.row, piece.start), span, team, Real(0), grad.at);
    Finish finish = finishes[piece.row];
    Exponentials exponentials(tau);
    if (hot.broken) finish.tempered = not_a_number();
    store_share<HELD>(out, span, team, [&](int i, int e) {
        return finish.of(exponentials, logits.at[i][e], hot.is(i, e) ? Real(1) : Real(0), grad.at[i][e]);
    });
}

// ------------------------------------------------------------------------------------------------------------ columns

template <int V>
DEVICE void reinmax_columns(TAKE_THREE, Element* out, TAKE_SHAPE) {
    __shared__ ColumnRoom<V> room;
    Columns<V> columns(rows);
    ColumnLine<V> x_line(x, x_view, columns), d_line(d, d_view, columns), g_line(g, g_view, columns);
    u64 len = columns.len, step = blockDim.y;
    Real own[V], at_top[V], at_hot[V], top[V];
#pragma unroll
    for (int v = 0; v < V; ++v) own[v] = at_top[v] = at_hot[v] = -infinity();
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real a[V], b[V], c[V];
        x_line.load(line, len, -infinity(), a);
        d_line.load(line, len, 0, b);
        g_line.load(line, len, 0, c);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            if (a[v] > own[v]) own[v] = a[v], at_top[v] = c[v];
            if (a[v] == own[v]) at_top[v] = larger(at_top[v], c[v]);
            if (b[v] > Real(0)) at_hot[v] = c[v];
        }
    }
#pragma unroll
    for (int v = 0; v < V; ++v) top[v] = own[v];
    join_columns<Max>(room, top);
#pragma unroll
    for (int v = 0; v < V; ++v) at_top[v] = own[v] == top[v] ? at_top[v] : -infinity();
    join_columns<Max>(room, at_top);
    join_columns<Max>(room, at_hot);
    Finish finish[V];
#pragma unroll
    for (int v = 0; v < V; ++v) finish[v].top = pivot(top[v]), finish[v].at_top = at_top[v], finish[v].at_hot = at_hot[v];
    Exponentials exponentials(tau);
    Compensated sums[4][V];
#pragma unroll
    for (int s = 0; s < 4; ++s)
#pragma unroll
        for (int v = 0; v < V; ++v) sums[s][v] = Compensated{0, 0};
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real a[V], c[V];
        x_line.load(line, len, -infinity(), a);
        g_line.load(line, len, 0, c);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            Terms terms{0, 0, 0, 0};
            terms.add(exponentials, finish[v], a[v], c[v]);
            sums[0][v].add(terms.tempered), sums[1][v].add(terms.tempered_product);
            sums[2][v].add(terms.plain), sums[3][v].add(terms.plain_product);
        }
    }
    Real total[4][V];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int v = 0; v < V; ++v) total[s][v] = sums[s][v].sum;
        join_columns<Sum>(room, total[s]);
    }
    if (!columns.active) return;
#pragma unroll
    for (int v = 0; v < V; ++v) finish[v].set(total[0][v], total[1][v], total[2][v], total[3][v]);
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real a[V], b[V], c[V], y[V];
        x_line.load(line, len, -infinity(), a);
        d_line.load(line, len, 0, b);
        g_line.load(line, len, 0, c);
#pragma unroll
        for (int v = 0; v < V; ++v) y[v] = finish[v].of(exponentials, a[v], b[v], c[v]);
        store_columns(out, columns, line, y);
    }
}

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(reinmax_gradient_lanes)(OPERANDS, Element* out, SHAPE, u32 lanes) {
    reinmax_rows<1>(Lanes{lanes}, THREE, out, rows, tau);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(reinmax_gradient_block)(OPERANDS, Element* out, SHAPE) {
    reinmax_rows<HELD>(Block{}, THREE, out, rows, tau);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(reinmax_gradient_sums)(OPERANDS, Finish* finishes, SHAPE) {
    reinmax_sums(THREE, finishes, rows, tau);
}
__global__ void __launch_bounds__(PIECE_THREADS, 1)
    KERNEL(reinmax_gradient_join)(OPERANDS, const Finish* finishes, Element* out, SHAPE, u32 pieces) {
    reinmax_join(THREE, finishes, out, rows, tau, pieces);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(reinmax_gradient_columns)(OPERANDS, Element* out, SHAPE) {
    reinmax_columns<GROUP>(THREE, out, rows, tau);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(reinmax_gradient_columns_one)(OPERANDS, Element* out, SHAPE) {
    reinmax_columns<1>(THREE, out, rows, tau);
}
}
