// The gradients of the softmax family, to the logits and to the temperatures: what tempered_softmax, tempered_log_softmax
// and gumbel_softmax share.
#include "gradient_columns.cuh"

// As many as leave a thread the registers for its share of both operands.
constexpr u32 BLOCK_THREADS = 512;

#define OPERANDS const Element *a, const __grid_constant__ View a_view, const Element *g, const __grid_constant__ View g_view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Tau tau

#define FAMILY(name, Family)                                                                                            \
    extern "C" __global__ void __launch_bounds__(128, 1) KERNEL(name##_lanes)(OPERANDS, Element * out, SHAPE, u32 lanes) {  \
        gradient_rows<Family, 1>(Lanes{lanes}, a, a_view, g, g_view, out, rows, tau);                                    \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) KERNEL(name##_block)(OPERANDS, Element * out, SHAPE) {  \
        gradient_rows<Family, HELD>(Block{}, a, a_view, g, g_view, out, rows, tau);                                      \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(PIECE_THREADS, 1)                                                         \
        KERNEL(name##_pieces)(OPERANDS, Part * parts, const __grid_constant__ Rows rows, u32 pieces) {                  \
        gradient_pieces<Family>(a, a_view, g, g_view, parts, rows, pieces);                                             \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(PIECE_THREADS, 1)                                                         \
        KERNEL(name##_join)(OPERANDS, const Part* parts, Element* out, SHAPE, u32 pieces) {                             \
        gradient_join<Family>(a, a_view, g, g_view, parts, out, rows, tau, pieces);                                     \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(name##_columns)(OPERANDS, Element * out, SHAPE) { \
        gradient_columns<Family, GROUP>(a, a_view, g, g_view, out, rows, tau);                                          \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1)                                                        \
        KERNEL(name##_columns_one)(OPERANDS, Element * out, SHAPE) {                                                    \
        gradient_columns<Family, 1>(a, a_view, g, g_view, out, rows, tau);                                              \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(128, 1) KERNEL(name##_tau_lanes)(OPERANDS, Real * out, SHAPE, u32 lanes) { \
        tau_rows<Family>(Lanes{lanes}, a, a_view, g, g_view, out, rows, tau);                                            \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(512, 1) KERNEL(name##_tau_block)(OPERANDS, Real * out, SHAPE) {           \
        tau_rows<Family>(Block{}, a, a_view, g, g_view, out, rows, tau);                                                \
    }

FAMILY(softmax_gradient, SoftmaxFamily)
FAMILY(log_softmax_gradient, LogSoftmaxFamily)
