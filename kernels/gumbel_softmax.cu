// gumbel_softmax: softmax((logits + g) / tau) with g the Gumbel noise of a key; and its straight-through form, the one-hot
// at the largest score with the gradient of the relaxed sample at the same noise.
#include "gradient.cuh"
#include "race.cuh"
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

// ------------------------------------------------------------------------------------------------------------- one-hot

#define HOT_SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Key key

__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_softmax_st_lanes)(LOGITS, Element* out, HOT_SHAPE, u32 lanes) {
    race_rows(Lanes{lanes}, x, view, OneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(512) KERNEL(gumbel_softmax_st_block)(LOGITS, Element* out, HOT_SHAPE) {
    race_rows(Block{}, x, view, OneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(512)
    KERNEL(gumbel_softmax_st_pieces)(LOGITS, Race* races, HOT_SHAPE, u32 pieces, u32 groups) {
    race_pieces(x, view, races, rows, key, pieces, groups);
}
// Every block writes its own stretch of the one-hot.
__global__ void __launch_bounds__(512)
    KERNEL(gumbel_softmax_st_join)(const Race* races, Element* out, Rows rows, u32 pieces, u32 groups) {
    Block team;
    Stretch stretch(rows, pieces, groups);
    Race race = join_pieces(team, races + stretch.row * pieces, pieces);
    OneHotOut{out}.write(team, stretch.span, stretch.from, race);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(gumbel_softmax_st_columns)(LOGITS, Element* out, HOT_SHAPE) {
    race_columns<ColumnOneHotOut, GROUP>(x, view, ColumnOneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1)
    KERNEL(gumbel_softmax_st_columns_one)(LOGITS, Element* out, HOT_SHAPE) {
    race_columns<ColumnOneHotOut, 1>(x, view, ColumnOneHotOut{out}, rows, key);
}

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
