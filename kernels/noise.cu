// uniform, gumbel, exponential, logistic and normal: noise tensors by key.
#include "view.cuh"

// Rounding to a half type must not take a uniform draw to an end of the open interval.
struct UnitBounds {
    DEVICE Real of(Real v) {
#if defined(REPARAM_F16)
        return fminf(fmaxf(v, 1.0f / 16777216.0f), 1.0f - 1.0f / 2048.0f);
#elif defined(REPARAM_BF16)
        return fminf(v, 1.0f - 1.0f / 256.0f);
#else
        return v;
#endif
    }
};
// Nor an exponential one to 0.
struct AboveZero {
    DEVICE Real of(Real x) {
#if defined(REPARAM_F16)
        return fmaxf(x, 1.0f / 16777216.0f);
#else
        return x;
#endif
    }
};
struct NoBounds {
    DEVICE Real of(Real x) { return x; }
};

// Writes n variates, a group at a time.
template <typename Noise, typename Bounds>
DEVICE void draw(Element* out, u64 n, const Key& key) {
    Stream stream(key);
    u64 step = u64(gridDim.x) * blockDim.x;
#pragma unroll 1
    for (u64 group = u64(blockIdx.x) * blockDim.x + threadIdx.x; group * GROUP < n; group += step) {
        Real x[GROUP];
        draw_group<Noise>(stream, group, x);
#pragma unroll
        for (int e = 0; e < GROUP; ++e) x[e] = Bounds::of(x[e]);
        u64 first = group * GROUP;
        if (first + GROUP <= n) {
            store_group(out + first, x);
        } else {
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                if (first + e < n) out[first + e] = narrow(x[e]);
        }
    }
}

#define NOISE(name, Noise, Bounds)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        KERNEL(name)(Element * out, u64 n, const __grid_constant__ Key key) {                                           \
        draw<Noise, Bounds>(out, n, key);                                                                               \
    }

NOISE(uniform, Uniform, UnitBounds)
NOISE(gumbel, Gumbel, NoBounds)
NOISE(exponential, Exponential, AboveZero)
NOISE(logistic, Logistic, NoBounds)
NOISE(normal, Normal, NoBounds)
