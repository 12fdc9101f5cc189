// The Gumbel race: the largest of logits plus Gumbel noise in each row, and where it is; the lowest index where scores tie.
//
// A row that is all -inf, or holds NaN or +inf, has no winner: its index is 0, its one-hot NaN.
#pragma once
#include "columns.cuh"
#include "softmax.cuh"

// How far a race over part of a row has come.
struct Race {
    Real best;
    u32 index;
    u32 nan; // whether a NaN took part

    DEVICE Race none() { return Race{-infinity(), 0, 0}; }

    // Takes in a later element.
    __device__ __forceinline__ void take(Real score, u32 at) {
        if (score > best) best = score, index = at;
        nan |= score != score;
    }
    // Takes in a race over other elements, earlier or later.
    __device__ __forceinline__ void join(const Race& other) {
        if (other.best > best || (other.best == best && other.index < index)) best = other.best, index = other.index;
        nan |= other.nan;
    }
    __device__ __forceinline__ bool won() const { return !nan && best > -infinity() && best < infinity(); }
};

DEVICE Race exchange(const Race& race, u32 offset) {
    return Race{exchange(race.best, offset), exchange(race.index, offset), exchange(race.nan, offset)};
}

DEVICE Race join_team(Lanes team, Race race) {
#pragma unroll
    for (u32 offset = WARP / 2; offset > 0; offset /= 2)
        if (offset < team.lanes) race.join(exchange(race, offset));
    return race;
}
DEVICE Race join_team(Block, Race race) {
    __shared__ Race warps[WARP];
    race = join_team(Lanes{WARP}, race);
    if (blockDim.x == WARP) return race;
    u32 lane = threadIdx.x % WARP;
    if (lane == 0) warps[threadIdx.x / WARP] = race;
    __syncthreads();
    race = lane < blockDim.x / WARP ? warps[lane] : Race::none();
    return join_team(Lanes{WARP}, race);
}

// ----------------------------------------------------------------------------------------------------- the lazy race

#if !defined(REPARAM_F64)
// At least the Gumbel variate of a word: since -ln(1 - v) >= v, it is at most -ln v, and the bits of the word as a number,
// read as an integer, bound that logarithm: log2 x >= bits(x) 2^-23 - 127. A thousandth is for rounding.
DEVICE float gumbel_bound(u32 word) {
    float bits = __int2float_rn(int(bits_of_float(__uint2float_rn(word))));
    return fmadd(bits, -0.693147180559945309417f / 8388608.0f, 159.0f * 0.693147180559945309417f + 1e-3f);
}
// The larger, or NaN where either is.
DEVICE float larger_or_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
#else
    return a != a || b != b ? not_a_number() : fmaxf(a, b);
#endif
}
#endif

// A team's race over a span of at most `groups` groups, which begins at element `from` of its row. All threads of a warp call
// it together, with one number of groups, so that they take every step together too.
template <typename Team>
DEVICE Race race_span(Team team, const Stream& stream, Line line, Span span, i64 from, u32 groups) {
    Race race = Race::none();
    settle(span.first), settle(span.head), settle(span.end), settle(line.data);
#if !defined(REPARAM_F64)
    // What a score must reach to matter: a score that some lane of the team has already.
    float threshold = -infinity();
    u32 lanes = team.size() < WARP ? team.size() : WARP;
#endif
    // One step at a time: the registers of several would leave room for fewer warps, which hide the loads better.
#pragma unroll 1
    for (u32 base = 0; base < groups; base += team.size()) {
        u32 group = base + team.rank();
        Real x[GROUP];
        line.load(span, group, -infinity(), x);
#if defined(REPARAM_F64)
        Real noise[GROUP];
        draw_group<Gumbel>(stream, span.first + group, noise);
        u32 at = u32(from + i64(group) * GROUP);
#pragma unroll
        for (int e = 0; e < GROUP; ++e) race.take(plus(x[e], noise[e]), at + e);
#else
        // Only a warp in which some bound reaches the threshold computes scores: in a long row these are few.
        u32 words[GROUP / 4][4];
        float bound;
#pragma unroll
        for (int part = 0; part < GROUP / 4; ++part) {
            stream.block((span.first + group) * (GROUP / 4) + part, 0, words[part]);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                // Added with the rounding of the score, so that it bounds the rounded score too.
                float own = plus(x[4 * part + e], gumbel_bound(words[part][e]));
                bound = part + e == 0 ? own : larger_or_nan(bound, own);
            }
        }
        if (__any_sync(ALL, !(bound < threshold))) {
            u32 at = u32(from + i64(group) * GROUP);
#pragma unroll
            for (int part = 0; part < GROUP / 4; ++part) {
                float v[4];
                Uniform::units(stream, (span.first + group) * (GROUP / 4) + part, words[part], v);
#pragma unroll
                for (int e = 0; e < 4; ++e) race.take(plus(x[4 * part + e], gumbel_of(v[e])), at + 4 * part + e);
            }
            threshold = race.best;
#pragma unroll
            for (u32 offset = WARP / 2; offset > 0; offset /= 2)
                if (offset < lanes) threshold = larger(threshold, exchange(threshold, offset));
        }
#endif
    }
    return race;
}

// The most groups that a row of at most 2^31 elements, counted in 32 bits, can have, wherever it begins.
DEVICE u32 groups_of(const Rows& rows) { return (u32(rows.len) + 2 * GROUP - 2) / GROUP; }

// ------------------------------------------------------------------------------------------------------------ results

// A row's result: its winner's index, or the one-hot.
struct IndexOut {
    u32* out;

    template <typename Team>
    __device__ __forceinline__ void write(Team team, u64 row, const Rows&, const Race& race) const {
        if (team.rank() == 0) out[row] = race.won() ? race.index : 0;
    }
};
struct OneHotOut {
    Element* out;

    // What the one-hot has where the winner is not.
    DEVICE Real rest(const Race& race) { return race.won() ? Real(0) : not_a_number(); }

    template <typename Team>
    __device__ __forceinline__ void write(Team team, u64 row, const Rows& rows, const Race& race) const {
        u64 start = row * rows.len;
        write(team, Span(start, u32(rows.len)), i64(0) - i64(start % GROUP), race);
    }
    template <typename Team>
    __device__ __forceinline__ void write(Team team, const Span& span, i64 from, const Race& race) const {
        for (u32 group = team.rank(); span.any(group); group += team.size()) {
            u32 at = u32(from + i64(group) * GROUP);
            Real y[GROUP];
#pragma unroll
            for (int e = 0; e < GROUP; ++e) y[e] = race.won() && at + e == race.index ? Real(1) : rest(race);
            store_line(out, span, group, y);
        }
    }
};

// Rows that one team races over.
template <typename Out, typename Team>
DEVICE void race_rows(Team team, const Element* x, const View& view, const Out& out, const Rows& rows, const Key& key) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u64 start = row * rows.len;
    Span span(start, u32(rows.len));
    Line line(x, view, span, row, start);
    Race race = join_team(team, race_span(team, Stream(key), line, span, i64(0) - i64(start % GROUP), groups_of(rows)));
    if (active) out.write(team, row, rows, race);
}

// ------------------------------------------------------------------------------------------- rows of several blocks

// A stretch of `groups` groups of a row for every block. How a row is cut does not show in the result.
struct Stretch {
    u64 row, start;
    i64 from;
    Span span;

    __device__ __forceinline__ Stretch(const Rows& rows, u32 pieces, u32 groups)
        : row(blockIdx.x / pieces),
          start(row * rows.len),
          from(i64(blockIdx.x % pieces) * groups * GROUP - i64(start % GROUP)),
          span(start, rows.len, u64(blockIdx.x % pieces) * groups, groups) {}
};

DEVICE void race_pieces(const Element* x, const View& view, Race* races, const Rows& rows, const Key& key, u32 pieces,
                        u32 groups) {
    Block team;
    Stretch stretch(rows, pieces, groups);
    Line line(x, view, stretch.span, stretch.row, stretch.start);
    Race race = join_team(team, race_span(team, Stream(key), line, stretch.span, stretch.from, groups));
    if (team.rank() == 0) races[blockIdx.x] = race;
}

template <typename Team>
DEVICE Race join_pieces(Team team, const Race* races, u32 pieces) {
    Race race = Race::none();
    for (u32 i = team.rank(); i < pieces; i += team.size()) race.join(races[i]);
    return join_team(team, race);
}

// ------------------------------------------------------------------------------------------------------------ columns

// What the threads of a column know of it, joined: known to all of them.
template <int V>
DEVICE void join_columns(Race (&race)[V]) {
    if (blockDim.y == 1) return;
    __shared__ ColumnRoom<V> bests;
    __shared__ u32 indices[COLUMN_THREADS * V];
    auto place = [](u32 y, int v) { return (y * blockDim.x + threadIdx.x) * V + v; };
#pragma unroll
    for (int v = 0; v < V; ++v) {
        // A NaN in place of the best score says that one took part.
        bests.at(threadIdx.y, v) = race[v].nan ? not_a_number() : race[v].best;
        indices[place(threadIdx.y, v)] = race[v].index;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) {
        race[v] = Race::none();
        for (u32 y = 0; y < blockDim.y; ++y) {
            Real best = bests.at(y, v);
            race[v].join(Race{best, indices[place(y, v)], best != best});
        }
    }
}

template <typename Out, int V>
DEVICE void race_columns(const Element* x, const View& view, const Out& out, const Rows& rows, const Key& key) {
    Columns<V> columns(rows);
    ColumnLine<V> line(x, view, columns);
    Stream stream(key);
    Race race[V];
#pragma unroll
    for (int v = 0; v < V; ++v) race[v] = Race::none();
#pragma unroll 1
    for (u64 k = threadIdx.y; k < columns.len; k += blockDim.y) {
        Real z[V];
        line.load(k, columns.len, -infinity(), z);
        if constexpr (V == 1) {
            z[0] = plus(z[0], draw_one<Gumbel>(stream, columns.index(k)));
        } else {
            Real noise[GROUP];
            draw_group<Gumbel>(stream, columns.index(k) / GROUP, noise);
#pragma unroll
            for (int v = 0; v < V; ++v) z[v] = plus(z[v], noise[v]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) race[v].take(z[v], u32(k));
    }
    join_columns(race);
    if (columns.active) out.write(columns, race);
}

struct ColumnIndexOut {
    u32* out;

    template <int V>
    __device__ __forceinline__ void write(const Columns<V>& columns, const Race (&race)[V]) const {
        if (threadIdx.y > 0) return;
#pragma unroll
        for (int v = 0; v < V; ++v) out[columns.row + v] = race[v].won() ? race[v].index : 0;
    }
};
struct ColumnOneHotOut {
    Element* out;

    template <int V>
    __device__ __forceinline__ void write(const Columns<V>& columns, const Race (&race)[V]) const {
        for (u64 k = threadIdx.y; k < columns.len; k += blockDim.y) {
            Real y[V];
#pragma unroll
            for (int v = 0; v < V; ++v)
                y[v] = race[v].won() && race[v].index == u32(k) ? Real(1) : OneHotOut::rest(race[v]);
            store_columns(out, columns, k, y);
        }
    }
};
