// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) under a key that is given by value or lies in device memory.
#pragma once
#include "element.cuh"

// A draw's key as it is launched with: the round keys are made beforehand.
struct Key {
    u32 round[20];
    u32 stream[2];
    // Where this is given, seed and stream are read from there when the kernel runs.
    const u64* device;
};

// In the counter's last word: selects the words that refine those of the plain counter.
constexpr u32 SECOND = 0x80000000u;

// What a thread needs of a key. All of it is the same in every thread, so that the round keys live in uniform registers.
struct Stream {
    u32 key[20];
    u32 stream[2];

    DEVICE u64 wide_product(u32 a, u32 b) {
        // In PTX, since the compiler makes more of the product of two widened words.
        u64 product;
        asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
        return product;
    }

    __device__ __forceinline__ explicit Stream(const Key& from) {
#pragma unroll
        for (int i = 0; i < 20; ++i) key[i] = from.round[i];
        stream[0] = from.stream[0], stream[1] = from.stream[1];
        if (from.device) {
            u64 seed = from.device[0], number = from.device[1];
#pragma unroll
            for (u32 i = 0; i < 10; ++i) {
                key[2 * i] = u32(seed) + i * 0x9E3779B9u;
                key[2 * i + 1] = u32(seed >> 32) + i * 0xBB67AE85u;
            }
            stream[0] = u32(number), stream[1] = u32(number >> 32);
        }
    }

    // The words of elements 4 index .. 4 index + 3; with `SECOND` set in `selector` those that refine them.
    __device__ __forceinline__ void block(u64 index, u32 selector, u32 (&words)[4]) const {
        u32 c0 = u32(index), c1 = u32(index >> 32), c2 = stream[0], c3 = stream[1] | selector;
#pragma unroll
        for (u32 round = 0; round < 10; ++round) {
            u64 p0 = wide_product(c0, 0xD2511F53u), p1 = wide_product(c2, 0xCD9E8D57u);
            c0 = u32(p1 >> 32) ^ c1 ^ key[2 * round];
            c2 = u32(p0 >> 32) ^ c3 ^ key[2 * round + 1];
            c1 = u32(p1), c3 = u32(p0);
        }
        words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
    }
};
