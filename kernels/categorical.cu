// categorical: an exact draw by inversion in two levels, with the tiles, the stream and so the index of the CPU
// (src/categorical/cpu.rs says in which order everything is summed).
//
// Which tile is drawn depends on sums whose last bits the CPU's order decides. Here they are first summed in an order, and with
// exponentials, that suit the device; where the word falls so near to a boundary between two tiles that this could matter,
// which it does for one row in some hundreds at most, the row's sums are taken again as the CPU takes them.
//
// A row that is all -inf, or holds NaN or +inf, gives 0.
#include "columns.cuh"

// Elements of a tile, and of a tile's share of a lane.
constexpr u32 TILE = 1024;
constexpr u32 SHARE = TILE / WARP;
constexpr u32 CHOOSE_THREADS = 256;
// How far a tile's share of the row may be from the CPU's, relative to the row's sum: for f32, 2^-22 for the exponential,
// 2^-23 |x| for its argument (which counts most for x about -8 in a tile of 1,024), 15 + 11 roundings of two sums.
constexpr Real UNCERTAIN = sizeof(Real) == 8 ? Real(1e-12) : Real(6e-6);

// A tile's maximum and its sum of exponentials relative to that.
struct Tile {
    Real max, sum;
};

// floor(e 2^50) for e in [0, 1].
DEVICE u64 weight_of(Real e) {
    if constexpr (sizeof(Real) == 8) {
        return __double2ull_rz(times(e, Real(1125899906842624.0)));
    } else {
        // In two halves of 25 bits, each exact.
        Real scaled = times(e, Real(33554432.0));
        u32 whole = __float2uint_rz(scaled);
        u32 rest = __float2uint_rz(times(minus(scaled, Real(__uint2float_rn(whole))), Real(33554432.0)));
        return (u64(whole) << 25) + rest;
    }
}

DEVICE Real exact_exponential(Real x, Real max) { return exact_exp_scaled(times(minus(x, max), unit_scale(x))); }

// A row's two words of 64 bits, each of a word and its second word.
struct Words {
    u64 tile, element;

    __device__ __forceinline__ Words(const Key& key, u64 row) {
        Stream stream(key);
        u32 words[4], seconds[4];
        stream.block(row / 2, 0, words);
        stream.block(row / 2, SECOND, seconds);
        bool odd = row % 2;
        tile = join(odd ? words[2] : words[0], odd ? seconds[2] : seconds[0]);
        element = join(odd ? words[3] : words[1], odd ? seconds[3] : seconds[1]);
    }
    DEVICE u64 join(u32 word, u32 second) { return u64(word) << 32 | second; }
};

DEVICE bool proper(Real max) { return max > -infinity() && max < infinity(); }
DEVICE Real pivot_of(Real max) { return max == -infinity() ? Real(0) : max; }

// A row's elements, one at a time.
struct Elements {
    const Element* data;
    u64 stride;

    __device__ __forceinline__ Elements(const Element* x, const View& view, u64 row)
        : data(x + row_base(view, row)), stride(view.stride) {}
    __device__ __forceinline__ Real at(u64 k) const { return widen(data[k * stride]); }
};

// -------------------------------------------------------------------------------------------------- the sums of tiles

// A warp's tile. In base 2 from one multiplication: what the rounding of max * log2(e) takes from every argument is given
// back to the sum.
DEVICE Tile tile_of(const Real (&x)[SHARE], Real max) {
    max = Lanes{WARP}.reduce<Max, 0>(max);
    Real from = pivot_of(max), scale = unit_scale(from), shift = from * scale;
    Real back = fmadd(from, scale, -shift);
    // Four chains: fewer roundings one after the other, and room to overlap.
    Real sums[4] = {0, 0, 0, 0};
#pragma unroll
    for (u32 i = 0; i < SHARE; ++i) sums[i % 4] += exp_scaled(fmadd(x[i], scale, -shift));
    Real sum = Lanes{WARP}.reduce<Sum, 1>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    return Tile{max, sum * exp_scaled(-back)};
}

extern "C" __global__ void __launch_bounds__(128)
    KERNEL(categorical_tiles)(const Element* x, const __grid_constant__ View view, Tile* out,
                              const __grid_constant__ Rows rows, u32 tiles) {
    // Blocks of a row take its tiles a warp each.
    u32 warps = blockDim.x / WARP, blocks = (tiles + warps - 1) / warps;
    u32 row = blockIdx.x / blocks, lane = threadIdx.x % WARP;
    u32 number = (blockIdx.x - row * blocks) * warps + threadIdx.x / WARP;
    if (number >= tiles) return;
    u64 first = u64(number) * TILE, len = rows.len;
    Real z[SHARE], max;
    if (view.vector && len % GROUP == 0 && first + TILE <= len) {
        const Element* from = x + (row * len + first) + lane * GROUP;
        Raw raw[SHARE / GROUP];
#pragma unroll
        for (u32 i = 0; i < SHARE / GROUP; ++i) raw[i] = load_raw(from + i * WARP * GROUP);
#pragma unroll
        for (u32 i = 0; i < SHARE / GROUP; ++i) {
            Real group[GROUP];
            widen_raw(raw[i], group);
#pragma unroll
            for (int e = 0; e < GROUP; ++e) z[i * GROUP + e] = group[e];
        }
#if defined(HAS_LARGER_PAIRS)
        // Two at a time, before they are widened.
        u32 pair = raw[0].words.x;
#pragma unroll
        for (u32 i = 0; i < SHARE / GROUP; ++i) {
            if (i > 0) pair = larger_pair(pair, raw[i].words.x);
            pair = larger_pair(pair, raw[i].words.y);
            pair = larger_pair(pair, larger_pair(raw[i].words.z, raw[i].words.w));
        }
        Real other;
        widen_pair(pair, max, other);
        max = larger(max, other);
#else
        max = z[0];
#pragma unroll
        for (u32 i = 1; i < SHARE; ++i) max = larger(max, z[i]);
#endif
    } else {
        max = -infinity();
        Elements elements(x, view, row);
#pragma unroll
        for (u32 i = 0; i < SHARE; ++i) {
            u64 k = first + i * WARP + lane;
            z[i] = k < len ? elements.at(k) : -infinity();
            max = larger(max, z[i]);
        }
    }
    Tile tile = tile_of(z, max);
    if (lane == 0) out[u64(row) * tiles + number] = tile;
}

// Rows that lie across memory: neighbouring threads take neighbouring columns of one tile.
extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)
    KERNEL(categorical_tiles_columns)(const Element* x, const __grid_constant__ View view, Tile* out,
                                      const __grid_constant__ Rows rows, u32 tiles) {
    u32 tile = blockIdx.x % tiles;
    u64 column = u64(blockIdx.x / tiles) * blockDim.x + threadIdx.x;
    bool active = column < rows.count;
    u64 row = active ? column : rows.count - 1;
    Elements elements(x, view, row);
    u64 first = u64(tile) * TILE, end = first + TILE < rows.len ? first + TILE : rows.len;
    Real max = -infinity(), sum = 0;
#pragma unroll 1
    for (u64 k = first + threadIdx.y; k < end; k += 8 * blockDim.y) {
        Real z[8], next = max, here = 0;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            z[i] = k + i * blockDim.y < end ? elements.at(k + i * blockDim.y) : -infinity();
            next = larger(next, z[i]);
        }
        Real from = pivot_of(next), scale = unit_scale(from);
#pragma unroll
        for (u32 i = 0; i < 8; ++i) here += exp_scaled((z[i] - from) * scale);
        sum = sum * exp_scaled((max - from) * scale) + here;
        max = next;
    }
    __shared__ ColumnRoom<1> maxima, sums;
    maxima.at(threadIdx.y, 0) = max;
    sums.at(threadIdx.y, 0) = sum;
    __syncthreads();
    if (threadIdx.y > 0 || !active) return;
    for (u32 y = 1; y < blockDim.y; ++y) max = larger(max, maxima.at(y, 0));
    Real from = pivot_of(max), total = 0;
    for (u32 y = 0; y < blockDim.y; ++y)
        total += sums.at(y, 0) * exp_scaled((maxima.at(y, 0) - from) * unit_scale(from));
    out[row * tiles + tile] = Tile{max, total};
}

// ----------------------------------------------------------------------------------------------------- scans of blocks

// What the threads before this one add up to; and what all do.
template <typename T>
DEVICE T scan(T x, T& total) {
    __shared__ T warps[CHOOSE_THREADS / WARP];
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    T sum = x;
#pragma unroll
    for (u32 offset = 1; offset < WARP; offset *= 2) {
        T other = __shfl_up_sync(ALL, sum, offset);
        if (lane >= offset) sum += other;
    }
    if (lane == WARP - 1) warps[warp] = sum;
    __syncthreads();
    T before = 0;
    total = 0;
#pragma unroll
    for (u32 i = 0; i < CHOOSE_THREADS / WARP; ++i) {
        if (i < warp) before += warps[i];
        total += warps[i];
    }
    return before + (sum - x);
}

// The smallest of all threads' numbers.
DEVICE u32 least(u32 x) {
    __shared__ u32 warps[CHOOSE_THREADS / WARP];
#pragma unroll
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) x = min(x, __shfl_xor_sync(ALL, x, offset));
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warps[0];
#pragma unroll
    for (u32 i = 1; i < CHOOSE_THREADS / WARP; ++i) x = min(x, warps[i]);
    return x;
}

// ------------------------------------------------------------------------------------------------- the choice of a tile

constexpr u32 NONE = 0xFFFFFFFFu;

// A warp's tile in the CPU's order: 256 lanes, of which this thread has eight, then halves down to one.
DEVICE Tile exact_tile(const Elements& elements, u64 first, u64 len) {
    u32 lane = threadIdx.x % WARP;
    auto at = [&](u32 slot) {
        u64 k = first + slot;
        return k < len ? elements.at(k) : -infinity();
    };
    Real max = -infinity();
#pragma unroll 4
    for (u32 i = 0; i < SHARE; ++i) max = larger(max, at(i * WARP + lane));
    max = Lanes{WARP}.reduce<Max, 0>(max);
    Real from = pivot_of(max), sums[8];
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        u32 slot = i * WARP + lane;
        Real sum = plus(exact_exponential(at(slot), from), exact_exponential(at(slot + 256), from));
        sum = plus(sum, exact_exponential(at(slot + 512), from));
        sums[i] = plus(sum, exact_exponential(at(slot + 768), from));
    }
#pragma unroll
    for (u32 half = 4; half > 0; half /= 2)
#pragma unroll
        for (u32 i = 0; i < half; ++i) sums[i] = plus(sums[i], sums[i + half]);
    Real sum = sums[0];
#pragma unroll
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) sum = plus(sum, __shfl_down_sync(ALL, sum, offset));
    return Tile{max, sum};
}

// The CPU's choice, from sums in the CPU's order, by one thread.
DEVICE u32 exact_choice(const Tile* own, u32 tiles, u64 word) {
    Real max = -infinity();
    for (u32 i = 0; i < tiles; ++i)
        if (own[i].max > max) max = own[i].max;
    if (!proper(max)) return NONE;
    auto weight = [&](u32 i) { return times(double(own[i].sum), double(exact_exponential(own[i].max, max))); };
    double total = 0;
    for (u32 i = 0; i < tiles; ++i) total = plus(total, weight(i));
    if (total != total) return NONE;
    double high = __uint2double_rn(u32(word >> 32)), low = __uint2double_rn(u32(word));
    double unit = times(plus(high, times(plus(low, 0.5), TWO_M32)), TWO_M32);
    double target = times(fmin(unit, 0.99999999999999988898), total), sum = 0;
    u32 last = NONE;
    for (u32 i = 0; i < tiles; ++i) {
        double w = weight(i);
        if (w > 0) {
            sum = plus(sum, w);
            last = i;
            if (sum > target) break;
        }
    }
    return last;
}

// The tile that a word chooses, the same in all threads; NONE in a row without proper weights.
DEVICE u32 choose_tile(const Elements& elements, Tile* own, u32 tiles, u64 len, u64 word) {
    u32 per_thread = (tiles + CHOOSE_THREADS - 1) / CHOOSE_THREADS;
    u32 begin = min(threadIdx.x * per_thread, tiles), end = min(begin + per_thread, tiles);
    Real max = -infinity();
    for (u32 i = begin; i < end; ++i) max = larger(max, own[i].max);
    max = Block{}.reduce<Max, 0>(max);
    if (!proper(max)) return NONE;
    auto weight = [&](u32 i) { return own[i].sum * exact_exponential(own[i].max, max); };
    Real sum = 0, total;
    for (u32 i = begin; i < end; ++i) sum += weight(i);
    Real reached = scan(sum, total);
    if (total != total) return NONE;
    Real unit = (Real(u32(word >> 32)) + Real(u32(word)) * Real(TWO_M32)) * Real(TWO_M32);
    Real target = unit * total, margin = UNCERTAIN * total;
    u32 found = NONE;
    bool certain = true;
    for (u32 i = begin; i < end; ++i) {
        reached += weight(i);
        Real beyond = reached - target;
        if (beyond <= margin && beyond >= -margin) certain = false;
        if (beyond > 0 && found == NONE) found = i;
    }
    // A thread that is not certain names a number below every tile's.
    u32 chosen = least(certain ? (found == NONE ? NONE : found + 1) : 0);
    if (chosen != 0 && chosen != NONE) return chosen - 1;
    __syncthreads();
    for (u32 i = threadIdx.x / WARP; i < tiles; i += CHOOSE_THREADS / WARP) {
        Tile tile = exact_tile(elements, u64(i) * TILE, len);
        if (threadIdx.x % WARP == 0) own[i] = tile;
    }
    __syncthreads();
    __shared__ u32 choice;
    if (threadIdx.x == 0) choice = exact_choice(own, tiles, word);
    __syncthreads();
    return choice;
}

// A row of several tiles for every block: chooses one of them, then an element in it. `tiles` of a row may be replaced.
extern "C" __global__ void __launch_bounds__(CHOOSE_THREADS, 1)
    KERNEL(categorical_choose)(const Element* x, const __grid_constant__ View view, Tile* stats, u32* out,
                               const __grid_constant__ Rows rows, const __grid_constant__ Key key, u32 tiles) {
    u64 row = blockIdx.x, len = rows.len;
    Elements elements(x, view, row);
    Words words(key, row);
    u32 tile = choose_tile(elements, stats + row * tiles, tiles, len, words.tile);
    if (tile == NONE) {
        if (threadIdx.x == 0) out[row] = 0;
        return;
    }
    constexpr u32 PER_THREAD = TILE / CHOOSE_THREADS;
    u64 first = u64(tile) * TILE + threadIdx.x * PER_THREAD;
    Real z[PER_THREAD], max = -infinity();
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        z[i] = first + i < len ? elements.at(first + i) : -infinity();
        max = larger(max, z[i]);
    }
    max = Block{}.reduce<Max, 1>(max);
    u64 weights[PER_THREAD], sum = 0, total;
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) sum += weights[i] = weight_of(exact_exponential(z[i], max));
    u64 reached = scan(sum, total);
    u64 target = __umul64hi(words.element, total);
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        // One thread's one element holds the target: sums are exact, and the total is above it.
        if (target >= reached && target < reached + weights[i]) out[row] = u32(first + i);
        reached += weights[i];
    }
}

// Rows of one tile: `lanes` threads a row.
extern "C" __global__ void __launch_bounds__(128)
    KERNEL(categorical_lanes)(const Element* x, const __grid_constant__ View view, u32* out,
                              const __grid_constant__ Rows rows, const __grid_constant__ Key key, u32 lanes) {
    Lanes team{lanes};
    u64 row = (u64(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u32 rank = team.rank(), len = u32(rows.len);
    Elements elements(x, view, row);
    Real max = -infinity(), nan = 0;
    for (u32 k = rank; k < len; k += lanes) {
        Real z = elements.at(k);
        max = larger(max, z);
        nan = z != z ? Real(1) : nan;
    }
    max = team.reduce<Max, 0>(max);
    nan = team.reduce<Max, 1>(nan);
    bool drawn = proper(max) && nan == Real(0);
    u64 total = 0;
    for (u32 k = rank; k < len; k += lanes) total += weight_of(exact_exponential(elements.at(k), max));
#pragma unroll
    for (u32 offset = WARP / 2; offset > 0; offset /= 2)
        if (offset < lanes) total += exchange(total, offset);
    u64 target = __umul64hi(Words(key, row).element, total), passed = 0;
    u32 index = NONE;
    for (u32 base = 0; base < len; base += lanes) {
        u32 k = base + rank;
        u64 own = k < len ? weight_of(exact_exponential(elements.at(k), max)) : 0, sum = own;
#pragma unroll
        for (u32 offset = 1; offset < WARP; offset *= 2) {
            u64 other = __shfl_up_sync(ALL, sum, offset);
            if (offset < lanes && rank >= offset) sum += other;
        }
        u64 before = passed + (sum - own);
        if (target >= before && target < before + own) index = k;
        passed += __shfl_sync(ALL, sum, (threadIdx.x % WARP & ~(lanes - 1)) + lanes - 1);
    }
    if (!active) return;
    if (!drawn) {
        if (rank == 0) out[row] = 0;
    } else if (index != NONE) {
        out[row] = index;
    }
}
