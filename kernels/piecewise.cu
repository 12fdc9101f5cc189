// Functions that are linear but for two kinks, and their slopes, as src/piecewise.rs has them.
#include "elementwise.cuh"

struct Linear {
    typedef Silent Noise;
    // lower kink, upper kink, then slope and value below, between and above, and the anchor between
    typedef Parameters<9> Numbers;

    DEVICE Real at(const Real (&x)[1], Real, const Numbers& p) {
        bool below = x[0] < p[0], above = p[1] < x[0];
        Real slope = below ? p[2] : above ? p[6] : p[4];
        Real value = below ? p[3] : above ? p[7] : p[5];
        Real anchor = below ? p[0] : above ? p[1] : p[8];
        // Not through infinity times 0.
        return slope == Real(0) ? value : fmadd(minus(x[0], anchor), slope, value);
    }
};

struct Slope {
    typedef Silent Noise;
    // lower kink, upper kink, slope below, at the lower kink, between, at the upper kink, above
    typedef Parameters<7> Numbers;

    DEVICE Real at(const Real (&x)[2], Real, const Numbers& p) {
        Real slope = p[6];
        if (x[0] <= p[1]) slope = p[5];
        if (x[0] < p[1]) slope = p[4];
        if (x[0] <= p[0]) slope = p[3];
        if (x[0] < p[0]) slope = p[2];
        return times_slope(number_or(x[0], slope), x[1]);
    }
};

ELEMENTWISE_1(piecewise_linear, Linear)
ELEMENTWISE_2(piecewise_slope, Slope)
