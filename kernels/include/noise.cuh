// From words to uniforms on the open interval, Gumbel, exponential, logistic and normal variates, as src/rng/maps.rs has them.
#pragma once
#include "math.cuh"
#include "philox.cuh"

constexpr double TWO_M31 = 1.0 / 2147483648.0;
constexpr double TWO_M32 = 1.0 / 4294967296.0;
constexpr double TWO_M33 = 0.5 / 4294967296.0;
// Below this word an f32 draw is refined by its second word.
constexpr u32 REFINED_BELOW = 256;

// (w + 1/2) 2^-32, capped below 1.
DEVICE float unit_of(u32 word) {
    float v = fmadd(__uint2float_rn(word), float(TWO_M32), float(TWO_M33));
    return fminf(v, 0.99999994f);
}
// (w + (w2 + 1/2) 2^-32) 2^-32 for a word below `REFINED_BELOW`.
DEVICE float unit_of(u32 word, u32 second) {
    float rest = fmadd(__uint2float_rn(second), float(TWO_M32), float(TWO_M33));
    return times(plus(__uint2float_rn(word), rest), float(TWO_M32));
}
DEVICE double wide_unit_of(u32 word, u32 second) {
    double rest = fmadd(__uint2double_rn(second), TWO_M32, TWO_M33);
    return fmin(times(plus(__uint2double_rn(word), rest), TWO_M32), 0.99999999999999988898);
}

// The sign from the word's top bit, the magnitude from the other 31; one branch for four elements, of which few are in a
// tail.
DEVICE void normals_of(const u32 (&words)[4], float (&z)[4]) {
    float w[4], rest[4], largest = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        u32 magnitude = words[e] & 0x7FFFFFFFu;
        // Both ends from integers: neither tail nor centre loses digits to a subtraction from one.
        float t = fmadd(__int2float_rn(int(magnitude)), float(TWO_M31), float(TWO_M32));
        rest[e] = fmadd(__int2float_rn(int(magnitude ^ 0x7FFFFFFFu)), float(TWO_M31), float(TWO_M32));
        w[e] = normal_argument(t, rest[e]);
        z[e] = normal_centre(w[e]);
        largest = fmaxf(largest, w[e]);
    }
    if (largest >= 5.0f) {
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (w[e] >= 5.0f) z[e] = normal_tail(w[e]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e)
        z[e] = float_of_bits(bits_of_float(times(z[e], rest[e])) ^ (words[e] & 0x80000000u));
}
DEVICE double wide_normal_of(u32 word, u32 second) {
    double magnitude = __uint2double_rn(word & 0x7FFFFFFFu);
    double t = times(plus(magnitude, fmadd(__uint2double_rn(second), TWO_M32, TWO_M33)), TWO_M31);
    double rest = plus(minus(2147483647.0, magnitude), fmadd(__uint2double_rn(~second), TWO_M32, TWO_M33));
    double z = normal_magnitude(t, times(rest, TWO_M31));
    return word >> 31 ? -z : z;
}

// The kinds of noise: the variates of a block's four elements.
//
// Where an f32 uniform needs its second word, which one block in four million does, the branch replaces uniforms alone, so
// that the code that follows is there once.
struct Uniform {
    // Whether the second word has digits to add, in f32.
    DEVICE bool coarse(u32 word) { return word < REFINED_BELOW; }
    DEVICE void draw(const Stream& stream, u64 block, float (&v)[4]) {
        u32 words[4];
        stream.block(block, 0, words);
        units(stream, block, words, v);
    }
    DEVICE void units(const Stream& stream, u64 block, const u32 (&words)[4], float (&v)[4]) {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] = unit_of(words[e]);
        if (__builtin_expect(min(min(words[0], words[1]), min(words[2], words[3])) < REFINED_BELOW, 0)) {
            u32 seconds[4];
            stream.block(block, SECOND, seconds);
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (words[e] < REFINED_BELOW) v[e] = unit_of(words[e], seconds[e]);
        }
    }
    DEVICE void draw(const Stream& stream, u64 block, double (&v)[4]) {
        u32 words[4], seconds[4];
        stream.block(block, 0, words);
        stream.block(block, SECOND, seconds);
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] = wide_unit_of(words[e], seconds[e]);
    }
};

struct Gumbel {
    DEVICE bool coarse(u32 word) { return word < REFINED_BELOW; }
    DEVICE float of(u32 word, u32 second, float) {
        return gumbel_of(word < REFINED_BELOW ? unit_of(word, second) : unit_of(word));
    }
    DEVICE double of(u32 word, u32 second, double) { return gumbel_of(wide_unit_of(word, second)); }
    template <typename T>
    DEVICE void draw(const Stream& stream, u64 block, T (&x)[4]) {
        Uniform::draw(stream, block, x);
#pragma unroll
        for (int e = 0; e < 4; ++e) x[e] = gumbel_of(x[e]);
    }
};

// The nearer end of the open interval, which min(v, 1 - v) in (0, 1/2] is counted from, to its last digit on either side:
// all ones where that is 1, else 0, to be combined with both words by exclusive or.
DEVICE u32 nearer_end(u32 word) { return u32(int(word) >> 31); }
DEVICE float nearer_of(u32 magnitude) { return fmadd(__int2float_rn(int(magnitude)), float(TWO_M32), float(TWO_M33)); }
DEVICE double wide_nearer_of(u32 magnitude, u32 second) {
    return times(plus(__uint2double_rn(magnitude), fmadd(__uint2double_rn(second), TWO_M32, TWO_M33)), TWO_M32);
}

// Variates of the nearer end and of how far off it is.
template <typename Of>
struct TwoTailed {
    DEVICE bool coarse(u32 word) { return (word ^ nearer_end(word)) < REFINED_BELOW; }
    DEVICE float of(u32 word, u32 second, float) {
        u32 end = nearer_end(word);
        return Of::of(word, coarse(word) ? unit_of(word ^ end, second ^ end) : nearer_of(word ^ end));
    }
    DEVICE double of(u32 word, u32 second, double) {
        u32 end = nearer_end(word);
        return Of::of(word, second, wide_nearer_of(word ^ end, second ^ end));
    }
    DEVICE void draw(const Stream& stream, u64 block, float (&x)[4]) {
        u32 words[4];
        stream.block(block, 0, words);
        float p[4];
        u32 least = REFINED_BELOW;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            u32 magnitude = words[e] ^ nearer_end(words[e]);
            p[e] = nearer_of(magnitude);
            least = min(least, magnitude);
        }
        if (__builtin_expect(least < REFINED_BELOW, 0)) {
            u32 seconds[4];
            stream.block(block, SECOND, seconds);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                u32 end = nearer_end(words[e]);
                if ((words[e] ^ end) < REFINED_BELOW) p[e] = unit_of(words[e] ^ end, seconds[e] ^ end);
            }
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) x[e] = Of::of(words[e], p[e]);
    }
    DEVICE void draw(const Stream& stream, u64 block, double (&x)[4]) {
        u32 words[4], seconds[4];
        stream.block(block, 0, words);
        stream.block(block, SECOND, seconds);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            u32 end = nearer_end(words[e]);
            x[e] = Of::of(words[e], seconds[e], wide_nearer_of(words[e] ^ end, seconds[e] ^ end));
        }
    }
};

struct ExponentialOf {
    DEVICE float of(u32 word, float p) { return exponential_of(p, word >> 31); }
    DEVICE double of(u32 word, u32, double p) { return exponential_of(p, word >> 31); }
};
struct LogisticOf {
    // 1 - 2 min(v, 1 - v), from the words too: neither tail nor centre loses digits to a subtraction from one.
    DEVICE float of(u32 word, float p) {
        u32 rest = (word ^ nearer_end(word)) ^ 0x7FFFFFFFu;
        float x = logistic_magnitude(p, fmadd(__int2float_rn(int(rest)), float(TWO_M31), float(TWO_M32)));
        return float_of_bits(bits_of_float(x) ^ (~word & 0x80000000u));
    }
    DEVICE double of(u32 word, u32 second, double p) {
        u32 end = nearer_end(word), rest = (word ^ end) ^ 0x7FFFFFFFu;
        double tail = fmadd(__uint2double_rn(~(second ^ end)), TWO_M32, TWO_M33);
        double x = logistic_magnitude(p, times(plus(__uint2double_rn(rest), tail), TWO_M31));
        return end ? x : -x;
    }
};
typedef TwoTailed<ExponentialOf> Exponential;
typedef TwoTailed<LogisticOf> Logistic;

struct Normal {
    DEVICE void draw(const Stream& stream, u64 block, float (&x)[4]) {
        u32 words[4];
        stream.block(block, 0, words);
        normals_of(words, x);
    }
    DEVICE void draw(const Stream& stream, u64 block, double (&x)[4]) {
        u32 words[4], seconds[4];
        stream.block(block, 0, words);
        stream.block(block, SECOND, seconds);
#pragma unroll
        for (int e = 0; e < 4; ++e) x[e] = wide_normal_of(words[e], seconds[e]);
    }
};

// The variates of elements GROUP group .. GROUP group + GROUP - 1.
template <typename Noise>
DEVICE void draw_group(const Stream& stream, u64 group, Real (&x)[GROUP]) {
#pragma unroll
    for (int part = 0; part < GROUP / 4; ++part) {
        Real four[4];
        Noise::draw(stream, group * (GROUP / 4) + part, four);
#pragma unroll
        for (int e = 0; e < 4; ++e) x[4 * part + e] = four[e];
    }
}

// Not an index into the array, which would put it into local memory.
DEVICE u32 pick(const u32 (&words)[4], u32 at) {
    u32 low = at & 1 ? words[1] : words[0], high = at & 1 ? words[3] : words[2];
    return at & 2 ? high : low;
}

// The variate of one element: its word is picked before anything is made of it.
template <typename Noise>
DEVICE Real draw_one(const Stream& stream, u64 element) {
    u32 words[4], at = u32(element) % 4;
    stream.block(element / 4, 0, words);
    u32 word = pick(words, at), second = 0;
    if (sizeof(Real) == 8 || __builtin_expect(Noise::coarse(word), 0)) {
        stream.block(element / 4, SECOND, words);
        second = pick(words, at);
    }
    return Noise::of(word, second, Real());
}
