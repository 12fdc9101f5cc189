// binary_concrete, binary_concrete_st, hard_concrete and hard_concrete_l0: relaxed, straight-through and hard gates.
#include "elementwise.cuh"

// Formulas, as src/binary_concrete/cpu.rs has them.

// exp(-|v|) and 1 / (1 + exp(-|v|)), from which neither y = sigmoid(v) nor 1 - y loses digits at either end.
struct Parts {
    Real e, r;
    __device__ __forceinline__ explicit Parts(Real v) {
        e = exp_of(v < 0 ? v : -v);
        r = reciprocal(plus(Real(1), e));
    }
};
DEVICE Real sigmoid(Real v) {
    Parts parts(v);
    return v < 0 ? parts.e * parts.r : parts.r;
}
DEVICE Real sigmoid_slope(Real v) {
    Parts parts(v);
    return parts.e * parts.r * parts.r;
}

// Within the finite numbers above 0: a noisy logit of 0 then stays 0, and one of infinity what it is, at any temperature.
DEVICE Real bounded(Real inverse) {
    constexpr bool wide = sizeof(Real) == 8;
    constexpr Real least = wide ? Real(2.2250738585072014e-308) : Real(1.17549435e-38f);
    constexpr Real most = wide ? Real(1.7976931348623157e308) : Real(3.40282347e38f);
    return inverse < least ? least : inverse > most ? most : inverse;
}

// The nearest finite number.
DEVICE Real held_finite(Real x) {
    constexpr Real most = sizeof(Real) == 8 ? Real(1.7976931348623157e308) : Real(3.40282347e38f);
    return x < -most ? -most : x > most ? most : x;
}

// What becomes of a relaxed gate, of the noisy logit z and v = z / tau; `slope` is the derivative by v, `slope_at` the same of
// the gate itself.
struct Concrete {
    DEVICE Real of(Real, Real v, Real, Real) { return sigmoid(v); }
    DEVICE Real slope(Real v, Real, Real) { return sigmoid_slope(v); }
    DEVICE Real slope_at(Real y, Real, Real) { return y * (Real(1) - y); }
};
struct StraightThrough {
    DEVICE Real slope(Real v, Real, Real) { return sigmoid_slope(v); }
    // What is neither is not a number, and stays that.
    DEVICE Real of(Real z, Real, Real, Real) { return z > 0 ? Real(1) : z <= 0 ? Real(0) : z; }
};
struct Hard {
    DEVICE Real stretched(Real v, const Parts& parts, Real low, Real width) {
        return fmadd(v < 0 ? parts.e * parts.r : parts.r, width, low);
    }
    DEVICE Real of(Real, Real v, Real low, Real width) {
        Real s = stretched(v, Parts(v), low, width);
        // Written so that a NaN passes.
        return s < 0 ? Real(0) : s > 1 ? Real(1) : s;
    }
    DEVICE Real slope(Real v, Real low, Real width) {
        Parts parts(v);
        Real s = stretched(v, parts, low, width);
        return s <= 0 || s >= 1 ? Real(0) : parts.e * parts.r * parts.r * width;
    }
    DEVICE Real slope_at(Real s, Real low, Real width) {
        return s <= 0 || s >= 1 ? Real(0) : (s - low) * ((low + width) - s) * reciprocal(width);
    }
};

// Of the logits: 1 / tau and the gate's limits are numbers.
template <typename Gate>
struct Fixed {
    typedef Logistic Noise;
    typedef Parameters<3> Numbers;
    DEVICE Real at(const Real (&x)[1], Real noise, const Numbers& p) {
        Real z = plus(x[0], noise);
        return Gate::of(z, z * bounded(p[0]), p[1], p[2]);
    }
};
// Of logits and gradient.
template <typename Gate>
struct FixedGradient {
    typedef Logistic Noise;
    typedef Parameters<3> Numbers;
    DEVICE Real at(const Real (&x)[2], Real noise, const Numbers& p) {
        Real inverse = bounded(p[0]);
        return Gate::slope(plus(x[0], noise) * inverse, p[1], p[2]) * x[1] * inverse;
    }
};
// Of result and gradient.
template <typename Gate>
struct FixedGradientAt {
    typedef Silent Noise;
    typedef Parameters<3> Numbers;
    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) {
        return Gate::slope_at(x[0], p[1], p[2]) * x[1] * bounded(p[0]);
    }
};
// Of logits and temperatures.
template <typename Gate>
struct Learned {
    typedef Logistic Noise;
    typedef Parameters<2> Numbers;
    DEVICE Real at(const Real (&x)[2], Real noise, const Numbers& p) {
        Real z = plus(x[0], noise);
        return Gate::of(z, z * inverse_of(x[1]), p[0], p[1]);
    }
};
// Of logits, temperatures and gradient.
template <typename Gate>
struct LearnedGradient {
    typedef Logistic Noise;
    typedef Parameters<2> Numbers;
    DEVICE Real at(const Real (&x)[3], Real noise, const Numbers& p) {
        Real inverse = inverse_of(x[1]);
        return Gate::slope(plus(x[0], noise) * inverse, p[0], p[1]) * x[2] * inverse;
    }
};
// Of result, temperatures and gradient.
template <typename Gate>
struct LearnedGradientAt {
    typedef Silent Noise;
    typedef Parameters<2> Numbers;
    DEVICE Real at(const Real (&x)[3], Real, const Numbers& p) {
        return Gate::slope_at(x[0], p[0], p[1]) * x[2] * inverse_of(x[1]);
    }
};
template <typename Gate>
struct TauGradient {
    typedef Logistic Noise;
    typedef Parameters<2> Numbers;
    DEVICE Real at(const Real (&x)[3], Real noise, const Numbers& p) {
        Real inverse = inverse_of(x[1]);
        Real v = plus(x[0], noise) * inverse, slope = Gate::slope(v, p[0], p[1]);
        // An infinite v has a slope of 0, and no part in the gradient.
        return slope == 0 ? Real(0) * x[2] : -(slope * v * x[2] * inverse);
    }
};

// The probability that a hard gate is not 0; the offset must not lift a mask.
struct Open {
    typedef Silent Noise;
    typedef Parameters<1> Numbers;
    DEVICE Real at(const Real (&x)[1], Real, const Numbers& p) { return sigmoid(x[0] + held_finite(p[0])); }
};
struct OpenGradient {
    typedef Silent Noise;
    typedef Parameters<1> Numbers;
    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) { return sigmoid_slope(x[0] + held_finite(p[0])) * x[1]; }
};

// The same of logits and temperatures, and their gradients: the number is the threshold that a temperature is multiplied by.
struct OpenLearned {
    typedef Silent Noise;
    typedef Parameters<1> Numbers;
    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) { return sigmoid(fmadd(-x[1], p[0], x[0])); }
};
struct OpenLearnedGradient {
    typedef Silent Noise;
    typedef Parameters<1> Numbers;
    DEVICE Real at(const Real (&x)[3], Real, const Numbers& p) { return sigmoid_slope(fmadd(-x[1], p[0], x[0])) * x[2]; }
};
struct OpenTauGradient {
    typedef Silent Noise;
    typedef Parameters<1> Numbers;
    DEVICE Real at(const Real (&x)[3], Real, const Numbers& p) {
        return -(sigmoid_slope(fmadd(-x[1], p[0], x[0])) * p[0] * x[2]);
    }
};

// The gradient of a gate that its slope can be told from: of the result, where that has digits enough.
#if defined(REPARAM_F32) || defined(REPARAM_F64)
template <typename Gate>
using Gradient = FixedGradientAt<Gate>;
template <typename Gate>
using GradientLearned = LearnedGradientAt<Gate>;
#else
template <typename Gate>
using Gradient = FixedGradient<Gate>;
template <typename Gate>
using GradientLearned = LearnedGradient<Gate>;
#endif

ELEMENTWISE_1(binary_concrete, Fixed<Concrete>)
ELEMENTWISE_2(binary_concrete_gradient, Gradient<Concrete>)
ELEMENTWISE_2(binary_concrete_learned, Learned<Concrete>)
ELEMENTWISE_3(binary_concrete_learned_gradient, GradientLearned<Concrete>)
ELEMENTWISE_3(binary_concrete_tau_gradient, TauGradient<Concrete>)
ELEMENTWISE_1(binary_concrete_st, Fixed<StraightThrough>)
ELEMENTWISE_2(binary_concrete_st_gradient, FixedGradient<StraightThrough>)
ELEMENTWISE_2(binary_concrete_st_learned, Learned<StraightThrough>)
ELEMENTWISE_3(binary_concrete_st_learned_gradient, LearnedGradient<StraightThrough>)
ELEMENTWISE_1(hard_concrete, Fixed<Hard>)
ELEMENTWISE_2(hard_concrete_gradient, Gradient<Hard>)
ELEMENTWISE_2(hard_concrete_learned, Learned<Hard>)
ELEMENTWISE_3(hard_concrete_learned_gradient, GradientLearned<Hard>)
ELEMENTWISE_3(hard_concrete_tau_gradient, TauGradient<Hard>)
ELEMENTWISE_1(hard_concrete_l0, Open)
ELEMENTWISE_2(hard_concrete_l0_gradient, OpenGradient)
ELEMENTWISE_2(hard_concrete_l0_learned, OpenLearned)
ELEMENTWISE_3(hard_concrete_l0_learned_gradient, OpenLearnedGradient)
ELEMENTWISE_3(hard_concrete_l0_tau_gradient, OpenTauGradient)
