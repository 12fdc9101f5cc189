// Functions of up to three elements, the noise at their place and a few numbers, applied element by element: the CUDA side of
// src/elementwise.rs, which hands over the arguments.
//
// A formula is a struct
//
//     struct Sample {
//         typedef Normal Noise;          // a map of noise.cuh, or Silent
//         typedef Parameters<0> Numbers; // as many as its counterpart's `parameters`
//         DEVICE Real at(const Real (&x)[2], Real noise, const Numbers& p) { ... }
//     };
//
// and ELEMENTWISE_2(name, Sample) defines its kernels `name`, for operands that are all contiguous, and `name_strided`.
#pragma once
#include "view.cuh"

// No noise.
struct Silent {};
template <typename Noise>
constexpr bool DRAWN = true;
template <>
constexpr bool DRAWN<Silent> = false;

// Numbers that every element sees, read from constant memory where they are used.
template <int P>
struct Parameters {
    Real value[P];
    __device__ __forceinline__ Real operator[](int i) const { return value[i]; }
};
template <>
struct Parameters<0> {};

// `slope`, but where `x` is NaN, that.
DEVICE Real number_or(Real x, Real slope) { return x == x ? slope : x; }
// `slope g`, and 0 where the slope is 0, whatever the gradient is.
DEVICE Real times_slope(Real slope, Real g) { return slope == Real(0) ? Real(0) : times(slope, g); }

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

struct Operand {
    const Element* data;
    const View& view;
};

template <typename Formula, bool VECTOR, typename... Operands>
DEVICE void elementwise(Element* out, u64 n, const Key& key, const typename Formula::Numbers& p, Operands... operands) {
    constexpr int N = sizeof...(Operands);
    Stream stream(key);
    u64 step = u64(gridDim.x) * blockDim.x;
#pragma unroll 1
    for (u64 group = u64(blockIdx.x) * blockDim.x + threadIdx.x; group * GROUP < n; group += step) {
        u64 first = group * GROUP;
        Real x[N][GROUP], noise[GROUP];
        int operand = 0;
        (load_any<VECTOR>(operands.data, operands.view, first, n, x[operand++]), ...);
        if constexpr (DRAWN<typename Formula::Noise>) draw_group<typename Formula::Noise>(stream, group, noise);
#pragma unroll
        for (int e = 0; e < GROUP; ++e) {
            Real here[N];
#pragma unroll
            for (int k = 0; k < N; ++k) here[k] = x[k][e];
            x[0][e] = Formula::at(here, DRAWN<typename Formula::Noise> ? noise[e] : Real(0), p);
        }
        if (first + GROUP <= n) {
            store_group(out + first, x[0]);
        } else {
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                if (first + e < n) out[first + e] = narrow(x[0][e]);
        }
    }
}

#define ELEMENTWISE_OPERAND(x) const Element *x, const __grid_constant__ View x##_view
#define ELEMENTWISE_REST(Formula)                                                                                       \
    Element *out, u64 n, const __grid_constant__ Key key, const __grid_constant__ Formula::Numbers p

#define ELEMENTWISE_1(name, Formula)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        KERNEL(name)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_REST(Formula)) {                                               \
        elementwise<Formula, true>(out, n, key, p, Operand{a, a_view});                                                 \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                \
        KERNEL(name##_strided)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_REST(Formula)) {                                     \
        elementwise<Formula, false>(out, n, key, p, Operand{a, a_view});                                                \
    }

#define ELEMENTWISE_2(name, Formula)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        KERNEL(name)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_OPERAND(b), ELEMENTWISE_REST(Formula)) {                       \
        elementwise<Formula, true>(out, n, key, p, Operand{a, a_view}, Operand{b, b_view});                             \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                \
        KERNEL(name##_strided)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_OPERAND(b), ELEMENTWISE_REST(Formula)) {             \
        elementwise<Formula, false>(out, n, key, p, Operand{a, a_view}, Operand{b, b_view});                            \
    }

#define ELEMENTWISE_3(name, Formula)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                \
        KERNEL(name)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_OPERAND(b), ELEMENTWISE_OPERAND(c),                            \
                     ELEMENTWISE_REST(Formula)) {                                                                       \
        elementwise<Formula, true>(out, n, key, p, Operand{a, a_view}, Operand{b, b_view}, Operand{c, c_view});         \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                \
        KERNEL(name##_strided)(ELEMENTWISE_OPERAND(a), ELEMENTWISE_OPERAND(b), ELEMENTWISE_OPERAND(c),                  \
                               ELEMENTWISE_REST(Formula)) {                                                             \
        elementwise<Formula, false>(out, n, key, p, Operand{a, a_view}, Operand{b, b_view}, Operand{c, c_view});        \
    }
