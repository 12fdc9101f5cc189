// Elementary functions, operation for operation as src/math.rs has them: IEEE add, multiply, fused multiply-add, divide,
// square root and integer operations in one order, so that noise and every index drawn from it have the CPU's bits. The
// intrinsics keep the compiler from contracting a product and a sum.
//
// At the end those of the relaxed results, which are promised to a tolerance and may use the hardware's exponential.
#pragma once
#include "element.cuh"

DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
DEVICE double plus(double a, double b) { return __dadd_rn(a, b); }
DEVICE float minus(float a, float b) { return __fsub_rn(a, b); }
DEVICE double minus(double a, double b) { return __dsub_rn(a, b); }
DEVICE float times(float a, float b) { return __fmul_rn(a, b); }
DEVICE double times(double a, double b) { return __dmul_rn(a, b); }
// a b + c, rounded once.
DEVICE float fmadd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fmadd(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float root(float x) { return __fsqrt_rn(x); }
DEVICE double root(double x) { return __dsqrt_rn(x); }

// c0 + c1 x + ... by Horner's rule.
template <typename T>
DEVICE T horner(T, T c) {
    return c;
}
template <typename T, typename... C>
DEVICE T horner(T x, T c, C... rest) {
    return fmadd(horner(x, T(rest)...), x, c);
}

// ------------------------------------------------------------------------------------------------------------- f32

// The exponent field of x / 2^round for a mantissa in [2/3, 4/3), as a multiple of 2^23.
DEVICE u32 exponent_field(float x) { return (bits_of_float(x) - 0x3F2AAAABu) & 0xFF800000u; }

// -ln(1 - u) for u in [-1/3, 1/3].
DEVICE float neg_ln_near_one(float u) {
    float p = horner(u, 0.49999937f, 0.33333197f, 0.2500782f, 0.20011169f, 0.16415952f, 0.13995802f, 0.15388583f,
                     0.14026378f);
    return fmadd(times(u, u), p, u);
}

// ln 2 / 2^23: an exponent field converts without a shift.
constexpr float LN_2_OF_FIELD = 0.693147180559945309417f / 8388608.0f;

// -ln(1 - u) - e ln 2 for u in [-1/3, 1/3], e given as its exponent field.
DEVICE float neg_ln_reduced(float u, u32 exponent) {
    return fmadd(-__int2float_rn(int(exponent)), LN_2_OF_FIELD, neg_ln_near_one(u));
}

// -ln(x) for positive normal x.
DEVICE float neg_ln(float x) {
    u32 e = exponent_field(x);
    return neg_ln_reduced(minus(1.0f, float_of_bits(bits_of_float(x) - e)), e);
}

// -ln(1 - v) for v in [0, 1), no digit of a small v lost.
DEVICE float neg_ln_1m(float v) {
    u32 e = exponent_field(minus(1.0f, v));
    // s = 2^-e, and u = 1 - s (1 - v) from v itself, so that no digit of a small v is lost.
    float s = float_of_bits(0x3F800000u - e);
    return neg_ln_reduced(fmadd(v, s, minus(1.0f, s)), e);
}

// ln(1 + x) for x from 0 to a quarter of the largest number: as above, with -x for v.
DEVICE float ln_1p(float x) {
    u32 e = exponent_field(plus(1.0f, x));
    float s = float_of_bits(0x3F800000u - e);
    return -neg_ln_reduced(fmadd(-x, s, minus(1.0f, s)), e);
}

// -ln(1 - v) of p = min(v, 1 - v) in (0, 1/2], which is 1 - v where `upper`.
DEVICE float exponential_of(float p, bool upper) {
    u32 e = exponent_field(upper ? p : minus(1.0f, p));
    // As for the Gumbel: 1 - s (1 - v) from whichever of v and 1 - v is small.
    float s = float_of_bits(0x3F800000u - e);
    return neg_ln_reduced(fmadd(upper ? -p : p, s, upper ? 1.0f : minus(1.0f, s)), e);
}

// ln(1 - p) - ln p for p in (0, 1/2], of which `rest` is 1 - 2 p to the last digit.
DEVICE float logistic_magnitude(float p, float rest) {
    // From 1/3 on both logarithms have the exponent -1, which cancels: ln(1 + rest) - ln(1 - rest) is left.
    bool centre = p >= float_of_bits(0x3EAAAAABu);
    u32 e = exponent_field(p);
    float m = float_of_bits(bits_of_float(p) - e);
    float low = centre ? rest : minus(1.0f, m), high = centre ? -rest : p;
    float k = centre ? 0.0f : __int2float_rn(int(e));
    return fmadd(-k, LN_2_OF_FIELD, minus(neg_ln_near_one(low), neg_ln_near_one(high)));
}
// -ln(-ln(1 - v)) for v in (0, 1).
DEVICE float gumbel_of(float v) { return neg_ln(neg_ln_1m(v)); }

// Inverse of the normal tail: |z| with P(|Z| > |z|) = t, from t and x = 1 - t, both exact to the last digit, is x times one of
// two polynomials of w = -ln(1 - x^2): the second where w is 5 or more.
DEVICE float normal_argument(float t, float x) { return neg_ln(times(t, plus(x, 1.0f))); }
DEVICE float normal_centre(float w) {
    float y = minus(w, 2.5f);
    return horner(y, 2.1233137f, 0.3488027f, -0.0059081586f, -0.0017730319f, 0.0003091355f, -6.209552e-6f, -4.985613e-6f,
                  4.851963e-7f, 3.986351e-8f);
}
DEVICE float normal_tail(float w) {
    float y = minus(root(w), 3.0f);
    return horner(y, 4.0064344f, 1.4165834f, 0.013340653f, -0.010815304f, 0.008156892f, -0.0050630216f, 0.0018353562f,
                  -2.1756012e-5f, -0.00023404932f, 5.7303856e-5f);
}

// What a difference to the maximum is multiplied by before `exact_exp_scaled`, for a temperature of 1.
DEVICE float unit_scale(float) { return 1.44269504088896340736f; }

// 2^x for x not above 0; below the smallest normal number it is 0.
DEVICE float exact_exp_scaled(float x) {
    // Rounds to the nearest integer, ties to even, and leaves it in the low bits; beyond its range the result is 0 anyway.
    float shifted = plus(x, 12582912.0f);
    float f = minus(x, minus(shifted, 12582912.0f));
    float p = horner(f, 0.693147180559945309417f, 0.24022648f, 0.055503324f, 0.009618438f, 0.00133989f, 0.00015353334f);
    float y = times(fmadd(f, p, 1.0f), float_of_bits((bits_of_float(shifted) << 23) + 0x3F800000u));
    return x < -126.0f ? 0.0f : y;
}

// ------------------------------------------------------------------------------------------------------------- f64

DEVICE u64 bits_of_double(double x) { return u64(__double_as_longlong(x)); }
DEVICE double double_of_bits(u64 bits) { return __longlong_as_double(i64(bits)); }

// The exponent field of x for a mantissa in [sqrt(1/2), sqrt(2)).
DEVICE u64 exponent_field(double x) { return (bits_of_double(x) - 0x3FE6A09E667F3BCDull) & 0xFFF0000000000000ull; }

// ln(1 + m) + e ln 2 for 1 + m in [sqrt(1/2), sqrt(2)), e given as its exponent field.
DEVICE double ln_reduced(double m, u64 exponent) {
    // Biased and shifted down, the exponent is a small positive integer: the low bits of 2^52 + itself.
    u64 biased = (exponent + (1023ull << 52)) >> 52;
    double k = minus(double_of_bits(biased | 0x4330000000000000ull), 4503599627370496.0 + 1023.0);
    double s = __ddiv_rn(m, plus(m, 2.0));
    double z = times(s, s);
    double p = horner(z, 0.6666666666666735, 0.3999999999940942, 0.2857142874366239, 0.22222198432149784, 0.1818357216161805,
                     0.15313837699209373, 0.14798198605116586);
    double r = times(z, p);
    double half_square = times(times(m, m), 0.5);
    double low = fmadd(s, plus(half_square, r), times(k, 1.9082149292705877e-10));
    return fmadd(k, 0.6931471803691238, minus(m, minus(half_square, low)));
}

DEVICE double neg_ln(double x) {
    u64 e = exponent_field(x);
    return -ln_reduced(minus(double_of_bits(bits_of_double(x) - e), 1.0), e);
}

DEVICE double neg_ln_1m(double v) {
    u64 e = exponent_field(minus(1.0, v));
    double s = double_of_bits(0x3FF0000000000000ull - e);
    return -ln_reduced(fmadd(-v, s, minus(s, 1.0)), e);
}

DEVICE double ln_1p(double x) {
    u64 e = exponent_field(plus(1.0, x));
    double s = double_of_bits(0x3FF0000000000000ull - e);
    return ln_reduced(fmadd(x, s, minus(s, 1.0)), e);
}

DEVICE double exponential_of(double p, bool upper) {
    u64 e = exponent_field(upper ? p : minus(1.0, p));
    double s = double_of_bits(0x3FF0000000000000ull - e);
    return -ln_reduced(fmadd(upper ? p : -p, s, upper ? -1.0 : minus(s, 1.0)), e);
}

DEVICE double logistic_magnitude(double p, double rest) {
    // From 2^-1.5 on both logarithms have the exponent -1, which cancels: ln(1 + rest) - ln(1 - rest) is left.
    bool centre = p >= double_of_bits(0x3FD6A09E667F3BCDull);
    u64 e_low = exponent_field(p), e_high = exponent_field(minus(1.0, p));
    double s = double_of_bits(0x3FF0000000000000ull - e_high);
    double low = centre ? -rest : minus(double_of_bits(bits_of_double(p) - e_low), 1.0);
    double high = centre ? rest : fmadd(-p, s, minus(s, 1.0));
    return minus(ln_reduced(high, centre ? 0 : e_high), ln_reduced(low, centre ? 0 : e_low));
}
DEVICE double gumbel_of(double v) { return neg_ln(neg_ln_1m(v)); }

DEVICE double normal_magnitude(double t, double x) {
    double w = neg_ln(times(t, plus(x, 1.0)));
    double y = minus(w, 3.125);
    double p = horner(y, 2.3386207100265937, 0.3396349587011406, -0.008532899177272787, -0.0010475115695007657,
                     0.0002640820495640187, -1.963285282243133e-05, -1.9310650670412107e-06, 5.988894344399987e-07,
                     -4.111170708297901e-08, -5.816144303092077e-09, 1.4866365460101351e-09, -7.658497918053742e-11,
                     -1.834897780256385e-11, 3.724238463171141e-12, -1.1540706466094584e-13, -5.732635511457603e-14,
                     9.401979248006968e-15, 2.8548756065763303e-17, -1.896801266464398e-16, 1.5829429932856653e-17,
                     1.8676624173399083e-18, -2.3925988335281647e-19, -6.0690020905968595e-21);
    if (w >= 6.25) {
        double r = root(w);
        if (r >= 4.0) {
            y = minus(r, 5.3);
            p = horner(y, 7.287412535487795, 1.428591372172323, -0.0004186349298730976, -0.00019708363953163652,
                     7.319562506755481e-05, -1.8555299074548155e-05, 4.1027781355896975e-06, -8.448959515839895e-07,
                     1.6840386294211666e-07, -3.475561981575607e-08, 8.871581975903502e-09, -3.4898469008666948e-09,
                     1.7029275378795242e-09, -7.337956113397565e-10, 3.549715904864077e-10, -2.110985047854053e-10,
                     7.059054035850526e-11, 5.904211803080654e-13, -3.954767750797801e-12);
        } else {
            y = minus(r, 3.25);
            p = horner(y, 4.36127285516533, 1.4216508658102573, 0.007595620204052577, -0.0053050099467249244,
                     0.0035234312013050105, -0.0023875821876146617, 0.00134815478572704, -0.0005020988842417426,
                     3.398497568308222e-05, 9.656940660819418e-05, -6.691732961279803e-05, 1.7642607124958155e-05,
                     4.132112597441464e-06, -5.6762191817481994e-06, 2.1291643002895103e-06, 2.5561239892001734e-08,
                     -3.929063593430534e-07, 1.2843965735785856e-07, 4.607826465127839e-09);
        }
    }
    return times(p, x);
}

DEVICE double unit_scale(double) { return 1.0; }

DEVICE double two_to_the(u32 n) { return double_of_bits(u64(n + 1023u) << 52); }

// exp(x) = y 2^n with y in [1/sqrt 2, sqrt 2], by argument reduction and polynomial; n as a double and as an integer.
DEVICE double exp_reduced(double x, double& n, u32& bits) {
    double shifted = plus(times(x, 1.4426950408889634074), 6755399441055744.0);
    n = minus(shifted, 6755399441055744.0);
    bits = u32(bits_of_double(shifted));
    double r = fmadd(-n, 0.6931471803691238, x);
    r = fmadd(-n, 1.9082149292705877e-10, r);
    double p = horner(r, 0.5000000000000011, 0.16666666666666413, 0.04166666666653001, 0.008333333333494715,
                     0.0013888888943674527, 0.0001984126950601039, 2.4801493047271412e-5, 2.755758691247337e-6,
                     2.7630268557282933e-7, 2.4999880312177517e-8);
    return plus(fmadd(times(r, r), p, r), 1.0);
}

// exp(x) for x not above 0; below the smallest normal number it is 0.
DEVICE double exact_exp_scaled(double x) {
    double n;
    u32 bits;
    double y = exp_reduced(x, n, bits);
    return x < -708.0 ? 0.0 : times(y, two_to_the(bits));
}

// ----------------------------------------------------------------------------------------------- relaxed results only

// exp((z - max) / tau) of (z - max) * scale(tau).
DEVICE float exp_scaled(float x) {
    // Within 2 units in the last place, and flushed to 0 below the smallest normal number, as on the CPU.
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE double exp_scaled(double x) { return exact_exp_scaled(x); }

// 1 / x within a unit in the last place.
DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE double reciprocal(double x) { return 1.0 / x; }

// What a difference to the maximum is multiplied by before `exp_scaled`: finite and above 0, so that a difference of 0
// stays 0 and one of -inf stays -inf at any temperature.
DEVICE float exp_scale(float tau) {
    return fminf(fmaxf(1.44269504088896340736f / tau, 1.17549435e-38f), 3.40282347e38f);
}
DEVICE double exp_scale(double tau) { return fmin(fmax(1.0 / tau, 2.2250738585072014e-308), 1.7976931348623157e308); }
DEVICE float inverse_of(float tau) { return fminf(fmaxf(1.0f / tau, 1.17549435e-38f), 3.40282347e38f); }
DEVICE double inverse_of(double tau) { return exp_scale(tau); }

// exp(x), to the precision of the CPU's over the whole range.
DEVICE float exp_of(float x) {
    // The bounds are where the result rounds to 0 and to infinity; written so that a NaN passes.
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = __fmaf_rn(x, 1.44269504088896340736f, 12582912.0f);
    float n = minus(shifted, 12582912.0f);
    // x log2(e) - n with the rest of log2(e), so that a large argument costs no digits.
    float f = fmadd(x, 1.44269504088896340736f, -n);
    f = fmadd(x, 1.92596299112661746887e-8f, f);
    // In two steps: 2^n may be out of the range of normal numbers where the product is not.
    int whole = int(bits_of_float(shifted) << 9) >> 9, half = whole >> 1;
    float y = exp_scaled(f) * float_of_bits(u32(half + 127) << 23);
    return y * float_of_bits(u32(whole - half + 127) << 23);
}
DEVICE double exp_of(double x) {
    x = x < -746.0 ? -746.0 : x;
    x = x > 710.0 ? 710.0 : x;
    double n;
    u32 bits;
    double y = exp_reduced(x, n, bits);
    int half = int(bits) >> 1;
    return times(times(y, two_to_the(u32(half))), two_to_the(bits - u32(half)));
}

// exp(x) - 1 - x without cancellation.
DEVICE float exp_minus_linear(float x) {
    float p = horner(x, 0.5f, 0.1666667f, 0.04166665f, 0.0083327545f, 0.0013889461f, 0.00020078203f, 2.4882002e-5f);
    float square = times(x, x);
    return square <= 0.49f ? times(square, p) : minus(minus(exp_of(x), 1.0f), x);
}
DEVICE double exp_minus_linear(double x) {
    double p = horner(x, 0.5, 0.16666666666666666, 0.04166666666666666, 0.00833333333333334, 0.0013888888888891457,
                     0.00019841269841258373, 2.480158729843276e-5, 2.755731923120774e-6, 2.75573210682052e-7,
                     2.5052106384712755e-8, 2.0876204011633576e-9, 1.6059221878343228e-10, 1.1552876199763263e-11,
                     7.663900747896911e-13);
    double square = times(x, x);
    return square <= 0.49 ? times(square, p) : minus(minus(exp_of(x), 1.0), x);
}

// exp(x) - 1.
template <typename T>
DEVICE T expm1_of(T x) {
    return times(x, x) <= T(0.49) ? plus(exp_minus_linear(x), x) : minus(exp_of(x), T(1));
}
