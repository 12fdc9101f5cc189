// subgradient: hinge, maximum and minimum, and the largest element of each row. The functions of one element are in
// piecewise.cu.
#include "extreme.cuh"

// max(0, margin - target input), of input and target.
struct Hinge {
    typedef Silent Noise;
    typedef Parameters<1> Numbers; // margin
    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) {
        Real excess = fmadd(-x[1], x[0], p[0]);
        return excess <= Real(0) ? Real(0) : excess;
    }
};
// The gradient of the operand that comes first: of both and the result's gradient.
struct HingeSlope {
    typedef Silent Noise;
    typedef Parameters<2> Numbers; // margin, slope at the kink
    DEVICE Real at(const Real (&x)[3], Real, const Numbers& p) {
        Real excess = fmadd(-x[1], x[0], p[0]);
        Real slope = excess < Real(0) ? Real(0) : excess <= Real(0) ? p[1] : Real(1);
        return times_slope(number_or(excess, slope), times(-x[1], x[2]));
    }
};

// The larger of two, or with a sign of -1 the smaller; the first where they are equal.
struct Larger {
    typedef Silent Noise;
    typedef Parameters<1> Numbers; // sign
    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) {
        return number_or(x[1], x[0] * p[0] < x[1] * p[0] ? x[1] : x[0]);
    }
};
// The gradient of the operand that comes first: of both and the result's gradient.
struct LargerSlope {
    typedef Silent Noise;
    typedef Parameters<2> Numbers; // sign, the first operand's part at a tie
    DEVICE Real at(const Real (&x)[3], Real, const Numbers& p) {
        Real a = x[0] * p[0], b = x[1] * p[0];
        Real slope = b < a ? Real(1) : b <= a ? p[1] : Real(0);
        return times_slope(number_or(x[0], number_or(x[1], slope)), x[2]);
    }
};

ELEMENTWISE_2(subgradient_hinge, Hinge)
ELEMENTWISE_3(subgradient_hinge_slope, HingeSlope)
ELEMENTWISE_2(subgradient_larger, Larger)
ELEMENTWISE_3(subgradient_larger_slope, LargerSlope)

// x: rows; out: a value a row, or, with the gradient of that, as x.
#define ROWS const Element *x, const __grid_constant__ View view
#define GRAD const Element *grad, const __grid_constant__ View grad_view
#define OUT Element *out, const __grid_constant__ Rows rows, const __grid_constant__ Negation sign

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(subgradient_extreme_lanes)(ROWS, OUT, u32 lanes) {
    extreme_rows(Lanes{lanes}, x, view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(512) KERNEL(subgradient_extreme_block)(ROWS, OUT) {
    extreme_rows(Block{}, x, view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(COLUMN_THREADS) KERNEL(subgradient_extreme_columns)(ROWS, OUT) {
    extreme_columns<GROUP>(x, view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(COLUMN_THREADS) KERNEL(subgradient_extreme_columns_one)(ROWS, OUT) {
    extreme_columns<1>(x, view, out, rows, sign[0]);
}

__global__ void __launch_bounds__(128, 1) KERNEL(subgradient_shares_lanes)(ROWS, GRAD, OUT, u32 lanes) {
    share_rows(Lanes{lanes}, x, view, grad, grad_view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(512) KERNEL(subgradient_shares_block)(ROWS, GRAD, OUT) {
    share_rows(Block{}, x, view, grad, grad_view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(COLUMN_THREADS) KERNEL(subgradient_shares_columns)(ROWS, GRAD, OUT) {
    share_columns<GROUP>(x, view, grad, grad_view, out, rows, sign[0]);
}
__global__ void __launch_bounds__(COLUMN_THREADS) KERNEL(subgradient_shares_columns_one)(ROWS, GRAD, OUT) {
    share_columns<1>(x, view, grad, grad_view, out, rows, sign[0]);
}
}
