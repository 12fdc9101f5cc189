// gumbel_top_k: the k largest of logits plus Gumbel noise in each row, in descending order; the lower index first where scores
// tie.
//
// A row with NaN or +inf gives 0 ... k - 1. One with fewer than k logits above -inf gives those, then the lowest of the other
// indices: -inf is a score like any other, below all of them.
#include "race.cuh"

// Threads of a block that works on a row, or a part of one.
constexpr u32 THREADS = 256;
// Elements that a block takes at a time.
constexpr u32 STEP = THREADS * GROUP;
// The most that a block draws.
constexpr u32 MOST = 1024;
// Candidates that a block holds: those it draws and a step's, a power of two.
constexpr u32 ROOM = GROUP == 8 ? 4096 : 2048;
// Groups that a lane of a warp holds.
constexpr int LANE_GROUPS = 16 / (GROUP * (sizeof(Real) / 4));
// Candidates of a tile that is sorted in shared memory.
constexpr u32 SORT_TILE = 2048;
constexpr u32 NONE = 0xFFFFFFFFu;

static_assert(MOST + STEP <= ROOM, "a step must fit behind what is drawn");

// A score and its index, in the order of the result. NaN and +inf are above all scores: whatever else a row holds, the first of
// its order then says so. The index is as wide as the score, so that all bytes of it are its own.
struct Rank {
    Ordered score, index;

    DEVICE Rank none() { return Rank{0, NONE}; }
    DEVICE Rank of(Real score, Ordered index) {
        // The sum makes -0 a 0, of which it is not below.
        return Rank{score < infinity() ? ordered(plus(score, Real(0))) : ~Ordered(0), index};
    }
    __device__ __forceinline__ bool before(const Rank& other) const {
        return score > other.score || (score == other.score && index < other.index);
    }
    __device__ __forceinline__ bool improper() const { return score == ~Ordered(0); }
};

DEVICE Rank exchange(const Rank& rank, u32 offset) {
    return Rank{exchange(rank.score, offset), exchange(rank.index, offset)};
}

// Where a row's indices go.
struct Drawn {
    u32* first;
    u64 step;

    __device__ __forceinline__ Drawn(u32* out, const Rows& rows, u64 row, u32 k)
        : first(out + (row / rows.inner * k * rows.inner + row % rows.inner)), step(rows.inner) {}
    __device__ __forceinline__ void put(u32 place, const Rank& rank, bool improper) const {
        first[place * step] = improper ? place : u32(rank.index);
    }
};

// ------------------------------------------------------------------------------------------------- short rows, by lanes

// A row across memory, element by element.
struct Across {
    const Element* data;
    u64 stride, start, inner;

    __device__ __forceinline__ Across(const Element* x, const View& view, const Rows& rows, u64 row)
        : data(x + row_base(view, row)),
          stride(view.stride),
          start(row / rows.inner * rows.len * rows.inner + row % rows.inner),
          inner(rows.inner) {}
    __device__ __forceinline__ Real score(const Stream& stream, u64 k) const {
        return plus(widen(data[k * stride]), draw_one<Gumbel>(stream, start + k * inner));
    }
};

// The scores stay in registers; the best of them leaves k times.
template <bool ACROSS>
DEVICE void draw_lanes(const Element* x, const View& view, u32* out, const Rows& rows, const Key& key, u32 k, u32 lanes) {
    Lanes team{lanes};
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Stream stream(key);
    Ordered own[LANE_GROUPS][GROUP];
    u32 head = ACROSS ? 0 : u32(start % GROUP);
    auto index_of = [&](int i, int e) { return (team.rank() + i * lanes) * GROUP + e - head; };
#pragma unroll
    for (int i = 0; i < LANE_GROUPS; ++i)
#pragma unroll
        for (int e = 0; e < GROUP; ++e) own[i][e] = 0;
    if constexpr (ACROSS) {
        Across line(x, view, rows, row);
#pragma unroll
        for (int i = 0; i < LANE_GROUPS; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) {
                u32 index = index_of(i, e);
                if (index < len) own[i][e] = Rank::of(line.score(stream, index), index).score;
            }
    } else {
        Span span(start, len);
        Line line(x, view, span, row, start);
#pragma unroll
        for (int i = 0; i < LANE_GROUPS; ++i) {
            u32 group = team.rank() + i * lanes;
            if (span.any(group)) {
                Real z[GROUP], noise[GROUP];
                line.load(span, group, Real(0), z);
                draw_group<Gumbel>(stream, span.first + group, noise);
#pragma unroll
                for (int e = 0; e < GROUP; ++e)
                    if (span.holds(group * GROUP + e)) own[i][e] = Rank::of(plus(z[e], noise[e]), 0).score;
            }
        }
    }
    auto best_of_own = [&]() {
        Rank best = Rank::none();
#pragma unroll
        for (int i = 0; i < LANE_GROUPS; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                if (own[i][e] > best.score) best = Rank{own[i][e], index_of(i, e)};
        return best;
    };
    Drawn drawn(out, rows, row, k);
    Rank mine = best_of_own();
    bool improper = false;
#pragma unroll 1
    for (u32 place = 0; place < k; ++place) {
        Rank best = mine;
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2)
            if (offset < lanes) {
                Rank other = exchange(best, offset);
                if (other.before(best)) best = other;
            }
        improper = improper || best.improper();
        if (active && team.rank() == 0) drawn.put(place, best, improper);
        if (u32(mine.index) == u32(best.index)) {
#pragma unroll
            for (int i = 0; i < LANE_GROUPS; ++i)
#pragma unroll
                for (int e = 0; e < GROUP; ++e)
                    if (index_of(i, e) == u32(best.index)) own[i][e] = 0;
            mine = best_of_own();
        }
    }
}

// ---------------------------------------------------------------------------------------------- longer rows, by blocks

// Of the pairs that a sort compares at a stride, the first of pair i.
DEVICE u32 first_of_pair(u32 i, u32 stride) { return (i & ~(stride - 1)) << 1 | (i & (stride - 1)); }

// Puts a power of two of candidates into order; all threads of the block call it.
DEVICE void sort_shared(Rank* ranks, u32 count) {
    for (u32 size = 2; size <= count; size *= 2)
        for (u32 stride = size / 2; stride > 0; stride /= 2) {
            for (u32 i = threadIdx.x; i < count / 2; i += THREADS) {
                u32 low = first_of_pair(i, stride), high = low | stride;
                Rank a = ranks[low], b = ranks[high];
                if ((low & size) == 0 ? b.before(a) : a.before(b)) ranks[low] = b, ranks[high] = a;
            }
            __syncthreads();
        }
}

// The candidates of a block: all that were among the k best when they came. The order in which threads append them does not
// show, since they are sorted by scores and indices.
struct Candidates {
    Rank* ranks;
    u32* count;
    u32 k;
    // The k-th best when they were last cut; what does not come before it changes nothing.
    Rank last;
    u32 reached;

    __device__ __forceinline__ Candidates(Rank* ranks, u32* count, u32 k)
        : ranks(ranks), count(count), k(k), last(Rank::none()), reached(0) {
        if (threadIdx.x == 0) *count = 0;
        __syncthreads();
    }

    // Whether something at or above a score may matter. A number that is not one, such as what `last` is at first, says yes.
    __device__ __forceinline__ bool matters(Real bound) const { return !(bound < from_ordered(last.score)); }

    __device__ __forceinline__ void take(const Rank& rank) {
        if (rank.before(last)) {
            u32 at = atomicAdd(count, 1);
            ranks[at] = rank;
            reached = at + 1;
        }
    }

    // In order; those behind the k best are gone. Returns how many there are.
    __device__ __forceinline__ u32 cut() {
        __syncthreads();
        u32 there = *count, whole = 2;
        while (whole < there) whole *= 2;
        for (u32 i = there + threadIdx.x; i < whole; i += THREADS) ranks[i] = Rank::none();
        __syncthreads();
        sort_shared(ranks, whole);
        u32 left = there < k ? there : k;
        if (there >= k) last = ranks[k - 1];
        if (threadIdx.x == 0) *count = left;
        reached = 0;
        __syncthreads();
        return left;
    }

    // To be called by all threads after every step: makes room for another. Only the thread that came last knows how far they
    // are, and that is enough.
    __device__ __forceinline__ void make_room() {
        if (__syncthreads_or(reached > ROOM - STEP)) cut();
    }
};

// Takes in a stretch of a row, lazily: only a warp in which some bound matters computes scores.
DEVICE void collect(Candidates& best, const Stream& stream, const Line& line, const Span& span, i64 from, u32 groups) {
#pragma unroll 1
    for (u32 base = 0; base < groups; base += THREADS) {
        u32 group = base + threadIdx.x;
        Real x[GROUP];
        line.load(span, group, -infinity(), x);
        u32 at = u32(from + i64(group) * GROUP);
#if defined(REPARAM_F64)
        Real noise[GROUP];
        draw_group<Gumbel>(stream, span.first + group, noise);
#pragma unroll
        for (int e = 0; e < GROUP; ++e)
            if (span.holds(group * GROUP + e)) best.take(Rank::of(plus(x[e], noise[e]), at + e));
#else
        u32 words[GROUP / 4][4];
        bool matters = false;
#pragma unroll
        for (int part = 0; part < GROUP / 4; ++part) {
            stream.block((span.first + group) * (GROUP / 4) + part, 0, words[part]);
#pragma unroll
            for (int e = 0; e < 4; ++e)
                matters = best.matters(plus(x[4 * part + e], gumbel_bound(words[part][e]))) || matters;
        }
        if (__any_sync(ALL, matters)) {
#pragma unroll
            for (int part = 0; part < GROUP / 4; ++part) {
                float v[4];
                Uniform::units(stream, (span.first + group) * (GROUP / 4) + part, words[part], v);
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (span.holds(group * GROUP + 4 * part + e))
                        best.take(Rank::of(plus(x[4 * part + e], gumbel_of(v[e])), at + 4 * part + e));
            }
        }
#endif
        best.make_room();
    }
}

// The same for a row across memory, a group of elements a thread.
DEVICE void collect(Candidates& best, const Stream& stream, const Across& line, u64 len) {
#pragma unroll 1
    for (u64 base = 0; base < len; base += STEP) {
#pragma unroll 1
        for (u32 e = 0; e < GROUP; ++e) {
            u64 index = base + e * THREADS + threadIdx.x;
            if (index < len) best.take(Rank::of(line.score(stream, index), u32(index)));
        }
        best.make_room();
    }
}

DEVICE void put_all(const Candidates& best, const Drawn& drawn, u32 left) {
    bool improper = best.ranks[0].improper();
    for (u32 place = threadIdx.x; place < left; place += THREADS) drawn.put(place, best.ranks[place], improper);
}

#define LOGITS const Element *x, const __grid_constant__ View view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Key key, u32 k
#define CANDIDATES                \
    __shared__ Rank ranks[ROOM];  \
    __shared__ u32 count;         \
    Candidates best(ranks, &count, k)

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_top_k_lanes)(LOGITS, u32* out, SHAPE, u32 lanes) {
    draw_lanes<false>(x, view, out, rows, key, k, lanes);
}
__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_top_k_lanes_across)(LOGITS, u32* out, SHAPE, u32 lanes) {
    draw_lanes<true>(x, view, out, rows, key, k, lanes);
}

__global__ void __launch_bounds__(THREADS, 1) KERNEL(gumbel_top_k_block)(LOGITS, u32* out, SHAPE) {
    CANDIDATES;
    u64 row = blockIdx.x, start = row * rows.len;
    Span span(start, u32(rows.len));
    collect(best, Stream(key), Line(x, view, span, row, start), span, i64(0) - i64(start % GROUP), groups_of(rows));
    u32 left = best.cut();
    put_all(best, Drawn(out, rows, row, k), left);
}
__global__ void __launch_bounds__(THREADS, 1) KERNEL(gumbel_top_k_block_across)(LOGITS, u32* out, SHAPE) {
    CANDIDATES;
    u64 row = blockIdx.x;
    collect(best, Stream(key), Across(x, view, rows, row), rows.len);
    u32 left = best.cut();
    put_all(best, Drawn(out, rows, row, k), left);
}

// Few long rows: the k best of every stretch, then those of all.
__global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_top_k_pieces)(LOGITS, Rank* drawn, SHAPE, u32 pieces, u32 groups) {
    CANDIDATES;
    Stretch stretch(rows, pieces, groups);
    Line line(x, view, stretch.span, stretch.row, stretch.start);
    collect(best, Stream(key), line, stretch.span, stretch.from, groups);
    u32 left = best.cut();
    Rank* own = drawn + u64(blockIdx.x) * k;
    for (u32 i = threadIdx.x; i < k; i += THREADS) own[i] = i < left ? ranks[i] : Rank::none();
}
__global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_top_k_join)(const Rank* drawn, u32* out, const __grid_constant__ Rows rows, u32 k, u32 pieces) {
    CANDIDATES;
    u64 row = blockIdx.x;
    u32 all = pieces * k;
    const Rank* own = drawn + row * all;
#pragma unroll 1
    for (u32 base = 0; base < all; base += THREADS) {
        u32 i = base + threadIdx.x;
        // A place that no candidate filled comes before nothing.
        if (i < all) best.take(own[i]);
        best.make_room();
    }
    u32 left = best.cut();
    put_all(best, Drawn(out, rows, row, k), left);
}

// -------------------------------------------------------------------------------------------- draws of more than MOST

// Every score of every row, `padded` candidates a row, a power of two.
__global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_top_k_keys)(LOGITS, Rank* ranks, const __grid_constant__ Rows rows, const __grid_constant__ Key key,
                              u32 padded) {
    u64 i = u64(blockIdx.x) * THREADS + threadIdx.x, row = i / padded, index = i % padded;
    if (row >= rows.count) return;
    Rank rank = Rank::none();
    if (index < rows.len) rank = Rank::of(Across(x, view, rows, row).score(Stream(key), index), u32(index));
    ranks[i] = rank;
}
// The steps from `from` to `to` of a bitonic sort whose strides are inside a tile.
__global__ void __launch_bounds__(THREADS, 1) KERNEL(gumbel_top_k_sort)(Rank* ranks, u32 padded, u32 from, u32 to) {
    __shared__ Rank tile[SORT_TILE];
    u64 first = u64(blockIdx.x) * SORT_TILE;
    for (u32 i = threadIdx.x; i < SORT_TILE; i += THREADS) tile[i] = ranks[first + i];
    __syncthreads();
    u32 place = u32(first & (padded - 1));
    for (u32 size = from; size <= to; size *= 2)
        for (u32 stride = size / 2 < SORT_TILE / 2 ? size / 2 : SORT_TILE / 2; stride > 0; stride /= 2) {
            for (u32 i = threadIdx.x; i < SORT_TILE / 2; i += THREADS) {
                u32 low = first_of_pair(i, stride), high = low | stride;
                Rank a = tile[low], b = tile[high];
                // The last size is that of the whole row, which is all in one order.
                bool falling = size == padded || ((place + low) & size) == 0;
                if (falling ? b.before(a) : a.before(b)) tile[low] = b, tile[high] = a;
            }
            __syncthreads();
        }
    for (u32 i = threadIdx.x; i < SORT_TILE; i += THREADS) ranks[first + i] = tile[i];
}
// One step whose stride is a tile or more.
__global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_top_k_merge)(Rank* ranks, u32 padded, u32 size, u32 stride) {
    u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    u64 inside = i & (stride - 1), low = (i - inside) * 2 | inside, high = low | stride;
    Rank a = ranks[low], b = ranks[high];
    bool falling = size == padded || (u32(low & (padded - 1)) & size) == 0;
    if (falling ? b.before(a) : a.before(b)) ranks[low] = b, ranks[high] = a;
}
__global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_top_k_write)(const Rank* ranks, u32* out, const __grid_constant__ Rows rows, u32 k, u32 padded) {
    u64 i = u64(blockIdx.x) * THREADS + threadIdx.x, row = i / k;
    if (row >= rows.count) return;
    const Rank* own = ranks + row * padded;
    Drawn(out, rows, row, k).put(u32(i % k), own[i % k], own[0].improper());
}
}
