// The dtype that a file is compiled for: what an element is stored as, what it is computed in, and the way between.
//
// Every kernel file is compiled once for each dtype, so that a program loads the kernels of those alone that it uses.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#if defined(REPARAM_F32)
#define KERNEL(name) name##_f32
typedef float Element;
typedef float Real;
#elif defined(REPARAM_F64)
#define KERNEL(name) name##_f64
typedef double Element;
typedef double Real;
#elif defined(REPARAM_F16)
#define KERNEL(name) name##_f16
struct Element { u16 bits; };
typedef float Real;
#elif defined(REPARAM_BF16)
#define KERNEL(name) name##_bf16
struct Element { u16 bits; };
typedef float Real;
#else
#error "compile with one of -DREPARAM_F32, -DREPARAM_F64, -DREPARAM_F16 and -DREPARAM_BF16"
#endif

#define DEVICE static __device__ __forceinline__
// Kernels state their launch bounds with one block a multiprocessor as the least: left to itself, the compiler spills some
// registers to make room for more blocks.

// Elements that a thread works on side by side: whole blocks of random words, in 16-byte accesses (f64 takes two of them).
constexpr int GROUP = sizeof(Element) == 2 ? 8 : 4;
// Groups that a thread of a long row holds in registers.
constexpr int HELD = sizeof(Real) == 8 ? 4 : 32 / GROUP;

// Makes a value before a loop, so that the compiler does not make it again at every turn.
DEVICE void settle(u32& x) { asm volatile("" : "+r"(x)); }
DEVICE void settle(u64& x) { asm volatile("" : "+l"(x)); }
DEVICE void settle(const Element*& x) { asm volatile("" : "+l"(x)); }

DEVICE float float_of_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 bits_of_float(float x) { return __float_as_uint(x); }

DEVICE Real infinity() {
    if constexpr (sizeof(Real) == 8)
        return __longlong_as_double(0x7FF0000000000000LL);
    else
        return __uint_as_float(0x7F800000u);
}

DEVICE Real not_a_number() {
    if constexpr (sizeof(Real) == 8)
        return __longlong_as_double(0x7FF8000000000000LL);
    else
        return __uint_as_float(0x7FC00000u);
}

// ---------------------------------------------------------------------------------------------------- one element

DEVICE Real widen(Element x) {
#if defined(REPARAM_F16)
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#elif defined(REPARAM_BF16)
    return float_of_bits(u32(x.bits) << 16);
#else
    return x;
#endif
}

// To nearest, ties to even.
DEVICE Element narrow(Real x) {
#if defined(REPARAM_F16)
    Element y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
#elif defined(REPARAM_BF16)
    Element y;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    u32 bits = bits_of_float(x);
    y.bits = x != x ? u16(0x7FFF) : u16((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
#endif
    return y;
#else
    return x;
#endif
}

// -------------------------------------------------------------------------------------------------- a whole group

#if defined(REPARAM_F16) || defined(REPARAM_BF16)
DEVICE void widen_pair(u32 pair, Real& low, Real& high) {
#if defined(REPARAM_F16)
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(pair));
#else
    low = float_of_bits(pair << 16);
    high = float_of_bits(pair & 0xFFFF0000u);
#endif
}

DEVICE u32 narrow_pair(Real low, Real high) {
#if __CUDA_ARCH__ >= 800
    u32 pair;
#if defined(REPARAM_F16)
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
#else
    return u32(narrow(low).bits) | u32(narrow(high).bits) << 16;
#endif
}
#endif

// A group as it lies in memory.
struct Raw {
#if defined(REPARAM_F64)
    double2 half[2];
#else
    uint4 words;
#endif
};

// A whole group at an address of 16 bytes' alignment. In PTX, since the compiler was seen to take such accesses apart, and
// volatile, since a gradient may replace its operand: what is read and written keeps its order.
DEVICE Raw load_raw(const Element* from) {
    Raw raw;
#if defined(REPARAM_F64)
    asm volatile("ld.global.v2.f64 {%0, %1}, [%2];" : "=d"(raw.half[0].x), "=d"(raw.half[0].y) : "l"(from));
    asm volatile("ld.global.v2.f64 {%0, %1}, [%2];" : "=d"(raw.half[1].x), "=d"(raw.half[1].y) : "l"(from + 2));
#else
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(raw.words.x), "=r"(raw.words.y), "=r"(raw.words.z), "=r"(raw.words.w)
                 : "l"(from));
#endif
    return raw;
}

DEVICE void widen_raw(const Raw& raw, Real (&x)[GROUP]) {
#if defined(REPARAM_F64)
    x[0] = raw.half[0].x, x[1] = raw.half[0].y, x[2] = raw.half[1].x, x[3] = raw.half[1].y;
#elif defined(REPARAM_F32)
    x[0] = float_of_bits(raw.words.x), x[1] = float_of_bits(raw.words.y);
    x[2] = float_of_bits(raw.words.z), x[3] = float_of_bits(raw.words.w);
#else
    widen_pair(raw.words.x, x[0], x[1]);
    widen_pair(raw.words.y, x[2], x[3]);
    widen_pair(raw.words.z, x[4], x[5]);
    widen_pair(raw.words.w, x[6], x[7]);
#endif
}

// The larger elements of pairs; a NaN loses to a number.
#if (defined(REPARAM_F16) || defined(REPARAM_BF16)) && __CUDA_ARCH__ >= 800
#define HAS_LARGER_PAIRS
DEVICE u32 larger_pair(u32 a, u32 b) {
    u32 c;
#if defined(REPARAM_F16)
    asm("max.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
#else
    asm("max.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
#endif
    return c;
}
#endif

DEVICE void load_group(const Element* from, Real (&x)[GROUP]) { widen_raw(load_raw(from), x); }

DEVICE void store_group(Element* to, const Real (&x)[GROUP]) {
#if defined(REPARAM_F64)
    asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(to), "d"(x[0]), "d"(x[1]) : "memory");
    asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(to + 2), "d"(x[2]), "d"(x[3]) : "memory");
#elif defined(REPARAM_F32)
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3])
                 : "memory");
#else
    u32 a = narrow_pair(x[0], x[1]), b = narrow_pair(x[2], x[3]);
    u32 c = narrow_pair(x[4], x[5]), d = narrow_pair(x[6], x[7]);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
#endif
}
