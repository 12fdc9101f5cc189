// tempered_softmax and tempered_log_softmax.
#include "softmax_columns.cuh"

// Without noise to draw, there are registers for twice the threads.
constexpr u32 BLOCK_THREADS = sizeof(Real) == 8 ? 512 : 1024;

#define LOGITS const Element *x, const __grid_constant__ View view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Tau tau

#define FORM(name, form)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128, 1) KERNEL(name##_lanes)(LOGITS, Element * out, SHAPE, u32 lanes) {   \
        softmax_rows<Plain, form, 1>(Lanes{lanes}, x, view, out, rows, tau, Key{});                                     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(name##_block)(LOGITS, Element * out, SHAPE) {   \
        softmax_rows<Plain, form, HELD>(BlockOf<BLOCK_THREADS / WARP>{}, x, view, out, rows, tau, Key{});                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(PIECE_THREADS, 1)                                                        \
        KERNEL(name##_join)(LOGITS, const Stats* stats, Element* out, SHAPE, u32 pieces) {                             \
        softmax_join<Plain, form>(x, view, stats, out, rows, tau, Key{}, pieces);                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(name##_columns)(LOGITS, Element * out, SHAPE) { \
        softmax_columns<Plain, form, GROUP>(x, view, out, rows, tau, Key{});                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1)                                                       \
        KERNEL(name##_columns_one)(LOGITS, Element * out, SHAPE) {                                                     \
        softmax_columns<Plain, form, 1>(x, view, out, rows, tau, Key{});                                               \
    }

FORM(tempered_softmax, SOFTMAX)
FORM(tempered_log_softmax, LOG_SOFTMAX)

// The same for both.
extern "C" __global__ void __launch_bounds__(PIECE_THREADS, 1)
    KERNEL(tempered_softmax_pieces)(LOGITS, Stats* stats, SHAPE, u32 pieces) {
    softmax_pieces<Plain>(x, view, stats, rows, tau, Key{}, pieces);
}
