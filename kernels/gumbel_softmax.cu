// gumbel_softmax: softmax((logits + g) / tau) with g the Gumbel noise of a key; and the gradient of its straight-through
// form, that of the relaxed sample at the same noise. The one-hot itself is drawn by one_hot.cu.
#include "gradient.cuh"
#include "softmax_columns.cuh"

// Twice the registers of softmax_gradient's: drawing noise takes them.
constexpr u32 BLOCK_THREADS = 512;

#define LOGITS const Element *x, const __grid_constant__ View view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Tau tau, const __grid_constant__ Key key

extern "C" {

// ------------------------------------------------------------------------------------------------------ relaxed sample

__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_softmax_lanes)(LOGITS, Element* out, SHAPE, u32 lanes) {
    softmax_rows<Perturbed, SOFTMAX, 1>(Lanes{lanes}, x, view, out, rows, tau, key);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(gumbel_softmax_block)(LOGITS, Element* out, SHAPE) {
    softmax_rows<Perturbed, SOFTMAX, HELD>(Block{}, x, view, out, rows, tau, key);
}
__global__ void __launch_bounds__(PIECE_THREADS, 1)
    KERNEL(gumbel_softmax_pieces)(LOGITS, Stats* stats, SHAPE, u32 pieces) {
    softmax_pieces<Perturbed>(x, view, stats, rows, tau, key, pieces);
}
__global__ void __launch_bounds__(PIECE_THREADS, 1)
    KERNEL(gumbel_softmax_join)(LOGITS, const Stats* stats, Element* out, SHAPE, u32 pieces) {
    softmax_join<Perturbed, SOFTMAX>(x, view, stats, out, rows, tau, key, pieces);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(gumbel_softmax_columns)(LOGITS, Element* out, SHAPE) {
    softmax_columns<Perturbed, SOFTMAX, GROUP>(x, view, out, rows, tau, key);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(gumbel_softmax_columns_one)(LOGITS, Element* out, SHAPE) {
    softmax_columns<Perturbed, SOFTMAX, 1>(x, view, out, rows, tau, key);
}

// -------------------------------------------------------------------------------------------- straight-through

// The gradient of the one-hot. Longer rows, and columns, draw the relaxed sample into the gradient's own tensor and let
// softmax_gradient replace it there.
__global__ void __launch_bounds__(128, 1)
    KERNEL(gumbel_softmax_st_gradient_lanes)(LOGITS, const Element* g, const __grid_constant__ View g_view, Element* out,
                                             SHAPE, u32 lanes) {
    straight_through_rows<1>(Lanes{lanes}, x, view, g, g_view, out, rows, tau, key);
}
__global__ void __launch_bounds__(BLOCK_THREADS, 1)
    KERNEL(gumbel_softmax_st_gradient_block)(LOGITS, const Element* g, const __grid_constant__ View g_view, Element* out,
                                             SHAPE) {
    straight_through_rows<HELD>(Block{}, x, view, g, g_view, out, rows, tau, key);
}
}
