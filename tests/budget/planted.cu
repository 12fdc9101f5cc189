// A kernel that keeps every rule of the budget, and what breaks them, one at a time.
#if defined(PLANT_SPILL)
// 32 registers a thread, for twice as many values.
#define BOUNDS __launch_bounds__(1024, 2)
#else
#define BOUNDS __launch_bounds__(256)
#endif

extern "C" __global__ void BOUNDS planted_f32(const float* x, float* y, unsigned n, unsigned place) {
    unsigned group = blockIdx.x * blockDim.x + threadIdx.x;
    if (group >= n) return;
    float v[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float* from = x + 4 * (group + half * n);
#if defined(PLANT_SCALAR_LOAD)
        if (half == 1) {
#pragma unroll
            for (int e = 0; e < 4; ++e) v[half][e] = from[e];
            continue;
        }
#endif
        float4 four = *reinterpret_cast<const float4*>(from);
        v[half][0] = four.x, v[half][1] = four.y, v[half][2] = four.z, v[half][3] = four.w;
    }
#if defined(PLANT_SPILL)
    // Their mean is taken from each, so that all are held at once.
    float held[64], mean = 0;
#pragma unroll
    for (int i = 0; i < 64; ++i) held[i] = x[8 * n + group + i * n], mean += held[i] / 64;
#pragma unroll
    for (int i = 0; i < 64; ++i) y[8 * n + group + i * n] = held[i] - mean;
#endif
#if defined(PLANT_LOCAL_ARRAY)
    // Registers have no index that is known only at run time.
    float local[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) local[i] = v[0][i % 4] * i;
    local[place % 64] += v[1][0];
    v[0][0] = local[group % 64];
#endif
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
#if defined(PLANT_FP64)
            v[half][e] = float(double(v[half][e]) * 1.1);
#elif defined(PLANT_WORK)
            v[half][e] = exp2f(v[half][e]) * 1.1f;
#else
            v[half][e] *= 1.1f;
#endif
        }
        float* to = y + 4 * (group + half * n);
#if defined(PLANT_SCALAR_STORES)
#pragma unroll
        for (int e = 0; e < 4; ++e) to[e] = v[half][e];
#else
        *reinterpret_cast<float4*>(to) = make_float4(v[half][0], v[half][1], v[half][2], v[half][3]);
#endif
    }
}
