// gumbel_rao: the gradient of its one-hot, the mean over samples of that of the relaxed sample at noise given the class
// drawn. Of such a sample only ratios matter: with R_j = E_j Z / (exp(logit_j) E_D), E standard exponential, class j has
// (1 + R_j)^(-1 / tau) times the weight of the class drawn, whose own is 1. The noise never leaves the kernel.
#include "operands.cuh"

// Groups that a thread holds: of each the rarity, the gradient, the weight and the result, half as many as elsewhere.
constexpr int SHARE = HELD / 2;
// As many as leave a thread the registers for its share.
constexpr u32 BLOCK_THREADS = sizeof(Real) == 8 ? 384 : 512;

#define SHAPE                                                                                              \
    const __grid_constant__ Rows rows, const __grid_constant__ Tau tau, const __grid_constant__ Key key, u32 samples
#define TAKE_SHAPE const Rows &rows, const Tau &tau, const Key &key, u32 samples

// What the host folds into a key by value: see src/gumbel_rao/mod.rs.
constexpr u64 FOLDED = 0x47756D62656C5261ull;

// The stream of the first sample. A key in device memory is folded here, as Key::fold_in does it.
DEVICE Stream noise_of(const Key& key) {
    Stream stream(key);
    if (key.device) {
        auto schedule = [&](u32 low, u32 high) {
#pragma unroll
            for (u32 i = 0; i < 10; ++i) {
                stream.key[2 * i] = low + i * 0x9E3779B9u;
                stream.key[2 * i + 1] = high + i * 0xBB67AE85u;
            }
        };
        u64 seed = key.device[0];
        schedule(~u32(seed), ~u32(seed >> 32));
        u32 words[4];
        stream.block(FOLDED, 0, words);
        schedule(words[0], words[1]);
        stream.stream[0] = words[2], stream.stream[1] = words[3] & 0x7FFFFFFFu;
    }
    return stream;
}

// That of sample k of the same noise.
DEVICE Stream sample_of(const Stream& noise, u32 k) {
    Stream stream = noise;
    u64 number = (u64(noise.stream[1]) << 32 | noise.stream[0]) + k;
    stream.stream[0] = u32(number), stream.stream[1] = u32(number >> 32) & 0x7FFFFFFFu;
    return stream;
}

// How a row's weights are computed: 1 / (1 + R) at a temperature of 1, else exp(-ln(1 + R) / tau), from ln R where R may be
// too large.
enum Way { PLAIN, POWER, LOGARITHMIC };

DEVICE float smaller(float a, float b) { return fminf(a, b); }
DEVICE double smaller(double a, double b) { return fmin(a, b); }

// What is known of a row.
struct Known {
    Real top, bottom, z;
    Real scale;

    __device__ __forceinline__ Way way() const {
        // E_j is below 2^6 and E_D above 2^-66, so that R stays below the largest number that `ln_1p` takes.
        constexpr Real ROOM = sizeof(Real) == 8 ? 950 : 54;
        if (scale == unit_scale(scale)) return PLAIN;
        Real bits = ((top - bottom) - neg_ln(z)) * Real(1.44269504088896340736);
        return bits <= ROOM ? POWER : LOGARITHMIC;
    }
};

// How improbable a class is, as `weight` takes it: 0, or the logarithm of that, for the class drawn.
DEVICE Real rarity_of(Way way, Real top, Real x, bool hot) {
    if (way == LOGARITHMIC) return hot ? -infinity() : top - x;
    return hot ? Real(0) : exp_of(top - x);
}

// Z / E_D relative to the largest logit, or its logarithm.
DEVICE Real factor_of(Way way, Real z, Real own) { return way == LOGARITHMIC ? neg_ln(own) - neg_ln(z) : z / own; }

DEVICE Real weight(Way way, Real e, Real rarity, Real factor, Real scale) {
    if (way == PLAIN) return reciprocal(fmadd(e * rarity, factor, Real(1)));
    if (way == POWER) {
        const Real most = Real(sizeof(Real) == 8 ? 1e307 : 4e37);
        Real ratio = (e * rarity) * factor;
        Real w = exp_scaled(-ln_1p(smaller(ratio, most)) * scale);
        // Beyond `most` are masks alone.
        return ratio <= most ? w : Real(0);
    }
    // ln(1 + R) of ln R: the larger of it and 0, and what the smaller of the two adds.
    Real ln = (rarity + factor) - neg_ln(e);
    Real rest = ln_1p(exp_of(-larger(ln, -ln)));
    return exp_scaled(-(larger(ln, Real(0)) + rest) * scale);
}

// What a sample of a row needs to finish an element, and what all samples of the row share.
struct Sample {
    Real factor, inverse, mean;
    Real top, at_hot;
    Real way;

    // From the sums of weights and of their products with the gradient.
    __device__ __forceinline__ void set(Real sum, Real product) {
        inverse = Real(1) / sum;
        mean = product * inverse;
    }
};

DEVICE void draw_share(const Stream& stream, const Span& span, u32 group, Real (&e)[GROUP]) {
    if (span.any(group)) {
        draw_group<Exponential>(stream, span.first + group, e);
    } else {
#pragma unroll
        for (int i = 0; i < GROUP; ++i) e[i] = 1;
    }
}

// The variate of the class drawn: of the lane that has it, or, where threads have many elements each, drawn again by all.
DEVICE Real own_of(Lanes team, const Stream&, u64, const Hot& hot, const Values<1>& noise) {
    return team.reduce<Max, 4>(hot.of(noise));
}
template <int K>
DEVICE Real own_of(Block, const Stream& stream, u64 element, const Hot&, const Values<K>&) {
    return draw_one<Exponential>(stream, element);
}

template <int K, typename Team>
DEVICE void rao_rows(Team team, TAKE_THREE, Element* out, TAKE_SHAPE) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Span span(start, len);
    u32 first = team.template first<K>();
    Hot hot = load_hot<K>(Line(d, d_view, span, row, start), span, team);
    // The logits, then how improbable each class is; and the gradient, then counted from that of the class drawn.
    Values<K> rarity, h;
    load_share<K>(Line(x, x_view, span, row, start), span, team, -infinity(), rarity.at);
    load_share<K>(Line(g, g_view, span, row, start), span, team, Real(0), h.at);
    Known known{-infinity(), -infinity(), 0, tau.scale};
    Values<K> slots;
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            Real z = rarity.at[i][e];
            known.top = larger(known.top, z);
            known.bottom = larger(known.bottom, z > -infinity() ? -z : -infinity());
            slots.at[i][e] = Real((first + i * team.step()) * GROUP + e);
        }
    known.top = pivot(team.template reduce<Max, 0>(known.top));
    known.bottom = -team.template reduce<Max, 1>(known.bottom);
    Real at_hot = team.template reduce<Max, 2>(hot.of(h));
    Real slot = larger(Real(0), team.template reduce<Max, 3>(hot.of(slots)));
    Real z = 0;
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) z += exp_scaled((rarity.at[i][e] - known.top) * unit_scale(z));
    known.z = team.template reduce<Sum, 2>(z);
    Way way = known.way();
    Values<K> acc;
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            rarity.at[i][e] = rarity_of(way, known.top, rarity.at[i][e], hot.is(i, e));
            h.at[i][e] -= at_hot;
            acc.at[i][e] = 0;
        }
    Stream noise = noise_of(key);
#pragma unroll 1
    for (u32 k = 0; k < samples; ++k) {
        Stream stream = sample_of(noise, k);
        Values<K> w;
#pragma unroll
        for (int i = 0; i < K; ++i) draw_share(stream, span, first + i * team.step(), w.at[i]);
        Real own = own_of(team, stream, span.first * GROUP + u32(slot), hot, w);
        Real factor = factor_of(way, known.z, own), sum = 0, product = 0;
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) {
                w.at[i][e] = weight(way, w.at[i][e], rarity.at[i][e], factor, tau.scale);
                sum += w.at[i][e];
                product = fmadd(w.at[i][e], h.at[i][e], product);
            }
        Sample sample;
        sum = team.template reduce<Sum, 0>(sum);
        sample.set(sum, team.template reduce<Sum, 1>(product));
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                acc.at[i][e] = fmadd(w.at[i][e] * sample.inverse, h.at[i][e] - sample.mean, acc.at[i][e]);
    }
    Real share = hot.broken ? not_a_number() : tau.inverse / Real(samples);
    if (active) store_share<K>(out, span, team, [&](int i, int e) { return acc.at[i][e] * share; });
}

// ------------------------------------------------------------------------------------------ rows of several blocks

// A block for each sample of each row.
DEVICE void rao_sums(TAKE_THREE, Sample* all, TAKE_SHAPE) {
    Block team;
    u64 row = blockIdx.x / samples;
    u32 k = blockIdx.x % samples;
    __shared__ u64 hot;
    __shared__ Real at_hot;
    if (team.rank() == 0) hot = 0, at_hot = 0;
    __syncthreads();
    Known known{-infinity(), -infinity(), 0, tau.scale};
    over_row(team, THREE, row, rows.len, [&](i64 from, Real(&x)[GROUP], Real(&d)[GROUP], Real(&g)[GROUP]) {
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            known.top = larger(known.top, x[e]);
            known.bottom = larger(known.bottom, x[e] > -infinity() ? -x[e] : -infinity());
            // One thread has it.
            if (d[e] > Real(0)) hot = u64(from + e), at_hot = g[e];
        }
    });
    __syncthreads();
    known.top = pivot(team.reduce<Max, 0>(known.top));
    known.bottom = -team.reduce<Max, 1>(known.bottom);
    Compensated total{0, 0};
    over_row(team, THREE, row, rows.len, [&](i64, Real(&x)[GROUP], Real(&)[GROUP], Real(&)[GROUP]) {
        Real z = 0;
#pragma unroll
        for (int e = 0; e < GROUP; ++e) z += exp_scaled((x[e] - known.top) * unit_scale(z));
        total.add(z);
    });
    known.z = team.reduce<Sum, 2>(total.sum);
    Way way = known.way();
    Stream stream = sample_of(noise_of(key), k);
    Sample sample;
    sample.top = known.top, sample.at_hot = at_hot, sample.way = Real(int(way));
    sample.factor = factor_of(way, known.z, draw_one<Exponential>(stream, row * rows.len + hot));
    Compensated sum{0, 0}, product{0, 0};
    u64 start = row * rows.len;
    over_row(team, THREE, row, rows.len, [&](i64 from, Real(&x)[GROUP], Real(&d)[GROUP], Real(&g)[GROUP]) {
        Real e[GROUP], weights = 0, products = 0;
        draw_group<Exponential>(stream, u64(i64(start) + from) / GROUP, e);
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
            Real rarity = rarity_of(way, known.top, x[i], d[i] > Real(0));
            Real w = weight(way, e[i], rarity, sample.factor, tau.scale);
            weights += w;
            products = fmadd(w, g[i] - sample.at_hot, products);
        }
        sum.add(weights), product.add(products);
    });
    Real whole = team.reduce<Sum, 0>(sum.sum);
    sample.set(whole, team.reduce<Sum, 1>(product.sum));
    if (team.rank() == 0) all[blockIdx.x] = sample;
}

DEVICE void rao_join(TAKE_THREE, const Sample* all, Element* out, TAKE_SHAPE, u32 pieces) {
    constexpr u32 GROUPS = PIECE_THREADS * SHARE;
    Block team;
    u64 row = blockIdx.x / pieces, start = row * rows.len;
    Span span(start, rows.len, u64(blockIdx.x % pieces) * GROUPS, GROUPS);
    u32 first = team.first<SHARE>();
    Hot hot = load_hot<SHARE>(Line(d, d_view, span, row, start), span, team);
    Values<SHARE> rarity, h, acc;
    load_share<SHARE>(Line(x, x_view, span, row, start), span, team, -infinity(), rarity.at);
    load_share<SHARE>(Line(g, g_view, span, row, start), span, team, Real(0), h.at);
    const Sample* own = all + row * samples;
    Real top = own->top, at_hot = own->at_hot;
    Way way = Way(int(own->way));
#pragma unroll
    for (int i = 0; i < SHARE; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            rarity.at[i][e] = rarity_of(way, top, rarity.at[i][e], hot.is(i, e));
            h.at[i][e] -= at_hot;
            acc.at[i][e] = 0;
        }
    Stream noise = noise_of(key);
#pragma unroll 1
    for (u32 k = 0; k < samples; ++k) {
        Stream stream = sample_of(noise, k);
        Real factor = own[k].factor, inverse = own[k].inverse, mean = own[k].mean;
#pragma unroll
        for (int i = 0; i < SHARE; ++i) {
            Real drawn[GROUP];
            draw_share(stream, span, first + i * team.step(), drawn);
#pragma unroll
            for (int e = 0; e < GROUP; ++e) {
                Real w = weight(way, drawn[e], rarity.at[i][e], factor, tau.scale);
                acc.at[i][e] = fmadd(w * inverse, h.at[i][e] - mean, acc.at[i][e]);
            }
        }
    }
    Real share = hot.broken ? not_a_number() : tau.inverse / Real(samples);
    store_share<SHARE>(out, span, team, [&](int i, int e) { return acc.at[i][e] * share; });
}

// ------------------------------------------------------------------------------------------------------------ columns

template <int V>
DEVICE void draw_line(const Stream& stream, u64 element, Real (&e)[V]) {
    if constexpr (V == 1)
        e[0] = draw_one<Exponential>(stream, element);
    else
        draw_group<Exponential>(stream, element / GROUP, e);
}

// A column's samples are left in memory between the pass that sums their weights and the one that finishes its elements.
template <int V>
DEVICE void rao_columns(TAKE_THREE, Sample* all, Element* out, TAKE_SHAPE) {
    __shared__ ColumnRoom<V> room;
    // Of every column of the block.
    __shared__ u32 lines[COLUMN_THREADS * V];
    __shared__ Real gradients[COLUMN_THREADS * V];
    Columns<V> columns(rows);
    ColumnLine<V> x_line(x, x_view, columns), d_line(d, d_view, columns), g_line(g, g_view, columns);
    u64 len = columns.len, step = blockDim.y;
    u32 place = threadIdx.x * V;
    if (threadIdx.y == 0)
#pragma unroll
        for (int v = 0; v < V; ++v) lines[place + v] = 0, gradients[place + v] = 0;
    __syncthreads();
    Real top[V], bottom[V];
#pragma unroll
    for (int v = 0; v < V; ++v) top[v] = bottom[v] = -infinity();
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real a[V], b[V], c[V];
        x_line.load(line, len, -infinity(), a);
        d_line.load(line, len, 0, b);
        g_line.load(line, len, 0, c);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            top[v] = larger(top[v], a[v]);
            bottom[v] = larger(bottom[v], a[v] > -infinity() ? -a[v] : -infinity());
            // One thread of the column has it.
            if (b[v] > Real(0)) lines[place + v] = u32(line), gradients[place + v] = c[v];
        }
    }
    __syncthreads();
    join_columns<Max>(room, top);
    join_columns<Max>(room, bottom);
    Real z[V];
    Compensated total[V];
#pragma unroll
    for (int v = 0; v < V; ++v) top[v] = pivot(top[v]), total[v] = Compensated{0, 0};
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real a[V];
        x_line.load(line, len, -infinity(), a);
#pragma unroll
        for (int v = 0; v < V; ++v) total[v].add(exp_scaled((a[v] - top[v]) * unit_scale(top[v])));
    }
#pragma unroll
    for (int v = 0; v < V; ++v) z[v] = total[v].sum;
    join_columns<Sum>(room, z);
    Way way[V];
#pragma unroll
    for (int v = 0; v < V; ++v) way[v] = Known{top[v], -bottom[v], z[v], tau.scale}.way();
    Stream noise = noise_of(key);
    Sample* own = all + columns.row * samples;
#pragma unroll 1
    for (u32 k = 0; k < samples; ++k) {
        Stream stream = sample_of(noise, k);
        Real factor[V];
        Compensated sum[V], product[V];
#pragma unroll
        for (int v = 0; v < V; ++v) {
            Real variate = draw_one<Exponential>(stream, columns.index(lines[place + v]) + v);
            factor[v] = factor_of(way[v], z[v], variate);
            sum[v] = product[v] = Compensated{0, 0};
        }
#pragma unroll 1
        for (u64 line = threadIdx.y; line < len; line += step) {
            Real a[V], b[V], c[V], e[V];
            x_line.load(line, len, -infinity(), a);
            d_line.load(line, len, 0, b);
            g_line.load(line, len, 0, c);
            draw_line<V>(stream, columns.index(line), e);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                Real rarity = rarity_of(way[v], top[v], a[v], b[v] > Real(0));
                Real w = weight(way[v], e[v], rarity, factor[v], tau.scale);
                sum[v].add(w);
                product[v].add(w * (c[v] - gradients[place + v]));
            }
        }
        Real sums[V], products[V];
#pragma unroll
        for (int v = 0; v < V; ++v) sums[v] = sum[v].sum, products[v] = product[v].sum;
        join_columns<Sum>(room, sums);
        join_columns<Sum>(room, products);
        if (columns.active && threadIdx.y == 0) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                Sample sample;
                sample.factor = factor[v], sample.top = sample.at_hot = sample.way = 0;
                sample.set(sums[v], products[v]);
                own[u64(v) * samples + k] = sample;
            }
        }
    }
    __syncthreads();
    if (!columns.active) return;
    Real share = tau.inverse / Real(samples);
#pragma unroll 1
    for (u64 line = threadIdx.y; line < len; line += step) {
        Real rarity[V], b[V], h[V], acc[V];
        x_line.load(line, len, -infinity(), rarity);
        d_line.load(line, len, 0, b);
        g_line.load(line, len, 0, h);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            rarity[v] = rarity_of(way[v], top[v], rarity[v], b[v] > Real(0));
            h[v] -= gradients[place + v];
            acc[v] = 0;
        }
#pragma unroll 1
        for (u32 k = 0; k < samples; ++k) {
            Real e[V];
            draw_line<V>(sample_of(noise, k), columns.index(line), e);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const Sample& sample = own[u64(v) * samples + k];
                Real w = weight(way[v], e[v], rarity[v], sample.factor, tau.scale);
                acc[v] = fmadd(w * sample.inverse, h[v] - sample.mean, acc[v]);
            }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) acc[v] = b[v] == b[v] ? acc[v] * share : not_a_number();
        store_columns(out, columns, line, acc);
    }
}

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_rao_gradient_lanes)(OPERANDS, Element* out, SHAPE, u32 lanes) {
    rao_rows<1>(Lanes{lanes}, THREE, out, rows, tau, key, samples);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(gumbel_rao_gradient_block)(OPERANDS, Element* out, SHAPE) {
    rao_rows<SHARE>(Block{}, THREE, out, rows, tau, key, samples);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(gumbel_rao_gradient_sums)(OPERANDS, Sample* all, SHAPE) {
    rao_sums(THREE, all, rows, tau, key, samples);
}
__global__ void __launch_bounds__(PIECE_THREADS, 1)
    KERNEL(gumbel_rao_gradient_join)(OPERANDS, const Sample* all, Element* out, SHAPE, u32 pieces) {
    rao_join(THREE, all, out, rows, tau, key, samples, pieces);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1)
    KERNEL(gumbel_rao_gradient_columns)(OPERANDS, Sample* all, Element* out, SHAPE) {
    rao_columns<GROUP>(THREE, all, out, rows, tau, key, samples);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1)
    KERNEL(gumbel_rao_gradient_columns_one)(OPERANDS, Sample* all, Element* out, SHAPE) {
    rao_columns<1>(THREE, all, out, rows, tau, key, samples);
}
}
