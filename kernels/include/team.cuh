// Threads that share a row, and what they find out together. The order of every reduction is fixed by the number of threads.
#pragma once
#include "element.cuh"

constexpr u32 WARP = 32;
constexpr u32 ALL = 0xFFFFFFFFu;

DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE double larger(double a, double b) { return fmax(a, b); }

struct Sum {
    DEVICE Real identity() { return 0; }
    DEVICE Real of(Real a, Real b) { return a + b; }
};
// The larger; a NaN loses to a number.
struct Max {
    DEVICE Real identity() { return -infinity(); }
    DEVICE Real of(Real a, Real b) { return larger(a, b); }
};

template <typename T>
DEVICE T exchange(T x, u32 offset) {
    return __shfl_xor_sync(ALL, x, offset);
}

// Numbers as unsigned integers of the same order; 0 is below all of them.
#if defined(REPARAM_F64)
typedef u64 Ordered;
DEVICE Ordered ordered(double x) {
    u64 bits = u64(__double_as_longlong(x));
    return bits ^ (i64(bits) < 0 ? ~0ull : 1ull << 63);
}
DEVICE double from_ordered(Ordered bits) {
    return __longlong_as_double(i64(bits ^ (i64(bits) < 0 ? 1ull << 63 : ~0ull)));
}
#else
typedef u32 Ordered;
DEVICE Ordered ordered(float x) {
    u32 bits = bits_of_float(x);
    return bits ^ (int(bits) < 0 ? ~0u : 1u << 31);
}
DEVICE float from_ordered(Ordered bits) { return float_of_bits(bits ^ (int(bits) < 0 ? 1u << 31 : ~0u)); }
#endif

// Up to a warp: `lanes` neighbours, a power of two, of which a warp holds several teams. All threads of a warp take part in
// every reduction.
struct Lanes {
    // Whether a thread's row may be past the last one.
    static constexpr bool EXACT = false;
    u32 lanes;

    __device__ __forceinline__ u32 rank() const { return threadIdx.x & (lanes - 1); }
    __device__ __forceinline__ u32 size() const { return lanes; }
    // The first group of this thread's share of K, and how far apart they are.
    template <int K>
    __device__ __forceinline__ u32 first() const {
        static_assert(K == 1, "a lane holds one group");
        return rank();
    }
    DEVICE u32 step() { return WARP; }

    __device__ __forceinline__ Real largest(bool given, Real x) const {
        return reduce<Max, 0>(given ? x : Max::identity());
    }

    template <typename Op, int SLOT>
    __device__ __forceinline__ Real reduce(Real x) const {
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2)
            if (offset < lanes) x = Op::of(x, exchange(x, offset));
        return x;
    }
};

// All threads of a block of up to WARPS warps.
template <u32 WARPS>
struct BlockOf {
    static constexpr bool EXACT = true;
    __device__ __forceinline__ u32 rank() const { return threadIdx.x; }
    __device__ __forceinline__ u32 size() const { return blockDim.x; }
    // A warp's groups follow each other, so that those of a thread are a constant apart.
    template <int K>
    __device__ __forceinline__ u32 first() const {
        return (threadIdx.x & ~(WARP - 1)) * K + (threadIdx.x & (WARP - 1));
    }
    DEVICE u32 step() { return WARP; }

    // The largest of what some threads of the block give, known to all of them afterwards. Which of them comes first does not
    // matter to a maximum.
    __device__ __forceinline__ Real largest(bool given, Real x) const {
        __shared__ Ordered room;
        if (threadIdx.x == 0) room = 0;
        __syncthreads();
        if (given) atomicMax(&room, ordered(x));
        __syncthreads();
        return from_ordered(room);
    }

    // Every combination of operation and slot has room of its own. Two reductions of one operation that follow each other name
    // different slots: room is written again only after a barrier that comes after its last read.
    template <typename Op, int SLOT>
    __device__ __forceinline__ Real reduce(Real x) const {
        __shared__ Real warps[WARP];
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2) x = Op::of(x, exchange(x, offset));
        if (blockDim.x == WARP) return x;
        u32 lane = threadIdx.x % WARP;
        if (lane == 0) warps[threadIdx.x / WARP] = x;
        __syncthreads();
        // Every warp finishes for itself, all in one order.
        x = lane % WARPS < blockDim.x / WARP ? warps[lane % WARPS] : Op::identity();
#pragma unroll
        for (u32 offset = WARPS / 2; offset > 0; offset /= 2) x = Op::of(x, exchange(x, offset));
        return x;
    }
};
using Block = BlockOf<16>;

// A sum with what its roundings lost (Kahan), for chains that may be long.
struct Compensated {
    Real sum, lost;

    __device__ __forceinline__ void add(Real x) {
        Real y = x - lost, next = sum + y;
        Real rest = (next - sum) - y;
        // A sum that overflows stays infinite: nothing that is not a number is carried.
        lost = rest - rest == Real(0) ? rest : Real(0);
        sum = next;
    }
};
