// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) under a key that is given by value or lies in device memory.
#pragma once
#include "element.cuh"

// A draw's key as it is launched with.
struct Key {
    u64 seed;
    u64 stream;
    // Where this is given, seed and stream are read from there when the kernel runs.
    const u64* device;
};

// In the counter's last word: selects the words that refine those of the plain counter.
constexpr u32 SECOND = 0x80000000u;

// What a thread needs of a key. All of it is the same in every thread, so that the round keys live in uniform registers.
struct Stream {
    u32 key[2];
    u32 stream[2];

    DEVICE u64 wide_product(u32 a, u32 b) {
        // In PTX, since the compiler makes more of the product of two widened words.
        u64 product;
        asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
        return product;
    }

    __device__ __forceinline__ explicit Stream(const Key& from) {
        u64 seed = from.seed, number = from.stream;
        if (from.device) seed = from.device[0], number = from.device[1];
        key[0] = u32(seed), key[1] = u32(seed >> 32);
        stream[0] = u32(number), stream[1] = u32(number >> 32);
    }

    // The words of elements 4 index .. 4 index + 3; with `SECOND` set in `selector` those that refine them.
    __device__ __forceinline__ void block(u64 index, u32 selector, u32 (&words)[4]) const {
        u32 c0 = u32(index), c1 = u32(index >> 32), c2 = stream[0], c3 = stream[1] | selector;
#pragma unroll
        for (u32 round = 0; round < 10; ++round) {
            u64 p0 = wide_product(c0, 0xD2511F53u), p1 = wide_product(c2, 0xCD9E8D57u);
            c0 = u32(p1 >> 32) ^ c1 ^ (key[0] + round * 0x9E3779B9u);
            c2 = u32(p0 >> 32) ^ c3 ^ (key[1] + round * 0xBB67AE85u);
            c1 = u32(p1), c3 = u32(p0);
        }
        words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
    }
};
