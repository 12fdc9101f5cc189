// The backward engine of the softmax family: from the result `a` and its gradient `g`, row by row, a sum of both and then
// the gradient of every element.
//
// Gradients are counted from that of the row's largest element. The shift changes nothing in exact arithmetic, where the
// gradients of a row's scores sum to 0, and everything in rounded arithmetic: the gradient of a class of probability near 1
// is a difference of nearly equal numbers, and at the largest element that difference becomes exact.
#pragma once
#include "softmax.cuh"

// y = softmax(score): y (g - <y, g>), level ln y.
struct SoftmaxFamily {
    static constexpr bool SHIFTS = true;
    DEVICE Real outside() { return 0; }
    DEVICE Real term(Real a, Real g, Real shift) { return a * (g - shift); }
    // The gradient of the tempered score, that is, tau times that of the logit.
    DEVICE Real score(Real a, Real g, Real shift, Real sum) { return a * ((g - shift) - sum); }
    // That of the logit. The product with 1 / tau is in the difference already: exact where the element is the largest, and
    // elsewhere wrong by a rounding of the sum at most, of which the largest element's gradient has more.
    struct Finish {
        Real shift, sum, inverse;
        __device__ __forceinline__ Finish(Real shift, Real sum, Real inverse)
            : shift(shift), sum(-sum * inverse), inverse(inverse) {}
        __device__ __forceinline__ Real of(Real a, Real g) const { return a * fmadd(g - shift, inverse, sum); }
    };
    // The tempered score up to a constant of the row.
    DEVICE Real level(Real a) { return -neg_ln(a); }
    // y ln y tends to 0 with y; the logarithm is that of normal numbers.
    DEVICE bool vanishes(Real a) { return a < Real(sizeof(Real) == 8 ? 2.2250738585072014e-308 : 1.17549435e-38); }
};

// l = log softmax(score): g - exp(l) sum g, level l; all 0 where l is -inf, since such a score is a mask.
struct LogSoftmaxFamily {
    static constexpr bool SHIFTS = false;
    DEVICE Real outside() { return -infinity(); }
    DEVICE Real term(Real, Real g, Real) { return g; }
    DEVICE Real score(Real a, Real g, Real, Real sum) {
        return vanishes(a) ? Real(0) : fmadd(-exp_scaled(a * unit_scale(a)), sum, g);
    }
    struct Finish {
        Real sum, inverse;
        __device__ __forceinline__ Finish(Real, Real sum, Real inverse) : sum(sum), inverse(inverse) {}
        __device__ __forceinline__ Real of(Real a, Real g) const { return score(a, g, 0, sum) * inverse; }
    };
    DEVICE Real level(Real a) { return a; }
    DEVICE bool vanishes(Real a) { return a <= -infinity(); }
};

// What is known of a part of a row: its largest element and the gradient there, the sum of its elements, and the sum of the
// family's terms relative to that gradient.
struct Part {
    Real top, shift, weight, sum;

    DEVICE Part none() { return Part{-infinity(), 0, 0, 0}; }

    // The sum of terms relative to another gradient.
    __device__ __forceinline__ Real sum_from(Real other) const { return sum + (shift - other) * weight; }

    DEVICE Part join(const Part& a, const Part& b) {
        Part both;
        both.top = larger(a.top, b.top);
        both.shift = a.top > b.top ? a.shift : b.top > a.top ? b.shift : larger(a.shift, b.shift);
        both.weight = a.weight + b.weight;
        both.sum = a.sum_from(both.shift) + b.sum_from(both.shift);
        return both;
    }
};

// A team's share of one operand.
template <int K>
struct Operand {
    Real x[K][GROUP];
};

// What is done with both operands. They are variables of their own, not members of one: the compiler then keeps them in
// registers on every architecture.
template <typename Family, int K>
struct Backward {
    // The largest element, and the largest gradient where the elements are that large.
    template <typename Team>
    DEVICE void find_top(const Operand<K>& result, const Operand<K>& grad, Team team, Real& top, Real& shift) {
        top = shift = -infinity();
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) top = larger(top, result.x[i][e]);
        Real own = top;
        top = team.template reduce<Max, 0>(top);
        // Few threads have it.
        if (own == top) {
#pragma unroll
            for (int i = 0; i < K; ++i)
#pragma unroll
                for (int e = 0; e < GROUP; ++e)
                    shift = larger(shift, result.x[i][e] == top ? grad.x[i][e] : -infinity());
        }
        shift = team.largest(own == top, shift);
    }

    template <typename Team>
    DEVICE Real terms(const Operand<K>& result, const Operand<K>& grad, Team team, Real shift) {
        Real sum = 0;
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) sum += Family::term(result.x[i][e], grad.x[i][e], shift);
        return team.template reduce<Sum, 0>(sum);
    }

    template <typename Team>
    DEVICE void store(const Operand<K>& result, const Operand<K>& grad, Element* out, const Span& span, Team team,
                      Real shift, Real sum, Real inverse) {
        typename Family::Finish finish(shift, sum, inverse);
        store_share<K>(out, span, team, [&](int i, int e) { return finish.of(result.x[i][e], grad.x[i][e]); });
    }

    // All that a row held in registers needs.
    template <typename Team>
    DEVICE void finish(const Operand<K>& result, const Operand<K>& grad, Element* out, const Span& span, Team team,
                       Real inverse, bool active) {
        Real top, shift = 0;
        if (Family::SHIFTS) find_top(result, grad, team, top, shift);
        Real sum = terms(result, grad, team, shift);
        if (active) store(result, grad, out, span, team, shift, sum, inverse);
    }
};

template <typename Family, int K, typename Team>
DEVICE void gradient_rows(Team team, const Element* a, const View& a_view, const Element* g, const View& g_view,
                          Element* out, const Rows& rows, const Tau& tau) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Span span(start, len);
    Operand<K> result, grad;
    load_share<K>(Line(a, a_view, span, row, start), span, team, Family::outside(), result.x);
    load_share<K>(Line(g, g_view, span, row, start), span, team, Real(0), grad.x);
    Backward<Family, K>::finish(result, grad, out, span, team, RowTau(tau, row).inverse, active);
}

// That of the relaxed sample at the same noise, which is drawn again: rounded as it would have been stored.
template <int K, typename Team>
DEVICE void straight_through_rows(Team team, const Element* x, const View& x_view, const Element* g, const View& g_view,
                                  Element* out, const Rows& rows, const Tau& tau, const Key& key) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Span span(start, len);
    RowTau row_tau(tau, row);
    Operand<K> result, grad;
    {
        Line line(x, x_view, span, row, start);
        Share<K> share;
        Real max, norm;
        softmax_of_row<Perturbed, SOFTMAX, K>(team, Perturbed(key), line, span, row_tau, share, max, norm);
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) {
                Real y = Share<K>::template finish<SOFTMAX, true>(share.z[i][e], max, norm, row_tau);
                result.x[i][e] = widen(narrow(y));
            }
    }
    load_share<K>(Line(g, g_view, span, row, start), span, team, Real(0), grad.x);
    Backward<SoftmaxFamily, K>::finish(result, grad, out, span, team, row_tau.inverse, active);
}

// ------------------------------------------------------------------------------------------ rows of several blocks

template <typename Family>
DEVICE void gradient_pieces(const Element* a, const View& a_view, const Element* g, const View& g_view, Part* parts,
                            const Rows& rows, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    Operand<HELD> result, grad;
    load_share<HELD>(Line(a, a_view, piece.span, piece.row, piece.start), piece.span, team, Family::outside(), result.x);
    load_share<HELD>(Line(g, g_view, piece.span, piece.row, piece.start), piece.span, team, Real(0), grad.x);
    Part part = Part::none();
    if (Family::SHIFTS) {
        Backward<Family, HELD>::find_top(result, grad, team, part.top, part.shift);
        Real weight = 0;
#pragma unroll
        for (int i = 0; i < HELD; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) weight += result.x[i][e];
        part.weight = team.reduce<Sum, 1>(weight);
    }
    part.sum = Backward<Family, HELD>::terms(result, grad, team, part.shift);
    if (team.rank() == 0) parts[blockIdx.x] = part;
}

// `out` may be `a`, each group of which is read by the thread that replaces it.
template <typename Family>
DEVICE void gradient_join(const Element* a, const View& a_view, const Element* g, const View& g_view, const Part* parts,
                          Element* out, const Rows& rows, const Tau& tau, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    const Part* own = parts + piece.row * pieces;
    Real shift = 0;
    if (Family::SHIFTS) {
        Real top = -infinity();
        for (u32 i = team.rank(); i < pieces; i += team.size()) top = larger(top, own[i].top);
        top = team.reduce<Max, 0>(top);
        shift = -infinity();
        for (u32 i = team.rank(); i < pieces; i += team.size())
            if (own[i].top == top) shift = larger(shift, own[i].shift);
        shift = team.reduce<Max, 1>(shift);
    }
    Real sum = 0;
    for (u32 i = team.rank(); i < pieces; i += team.size())
        sum += Family::SHIFTS ? own[i].sum_from(shift) : own[i].sum;
    sum = team.reduce<Sum, 0>(sum);
    Operand<HELD> result, grad;
    load_share<HELD>(Line(a, a_view, piece.span, piece.row, piece.start), piece.span, team, Family::outside(), result.x);
    load_share<HELD>(Line(g, g_view, piece.span, piece.row, piece.start), piece.span, team, Real(0), grad.x);
    Backward<Family, HELD>::store(result, grad, out, piece.span, team, shift, sum, RowTau(tau, piece.row).inverse);
}

// ------------------------------------------------------------------------------------------------------ temperatures

// The gradient of the temperature of each row, in the scalar that it is computed in. Whatever the layout and the length: a
// team goes over its row element by element.
template <typename Family, typename Team>
DEVICE void tau_rows(Team team, const Element* a, const View& a_view, const Element* g, const View& g_view, Real* out,
                     const Rows& rows, const Tau& tau) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u64 rank = team.rank(), step = team.size();
    const Element* own_a = a + row_base(a_view, row);
    const Element* own_g = g + row_base(g_view, row);
    auto at = [&](u64 k, Real& x, Real& y) {
        x = widen(own_a[k * a_view.stride]);
        y = widen(own_g[k * g_view.stride]);
    };
    Real x, y, top = -infinity(), shift = -infinity();
    for (u64 k = rank; k < rows.len; k += step) {
        at(k, x, y);
        top = larger(top, x);
    }
    top = team.template reduce<Max, 0>(top);
    for (u64 k = rank; k < rows.len; k += step) {
        at(k, x, y);
        if (Family::SHIFTS && x == top) shift = larger(shift, y);
    }
    shift = team.template reduce<Max, 1>(shift);
    Compensated sum{0, 0};
    for (u64 k = rank; k < rows.len; k += step) {
        at(k, x, y);
        sum.add(Family::term(x, y, shift));
    }
    Real total = team.template reduce<Sum, 0>(sum.sum);
    Real level = Family::level(top);
    Compensated second{0, 0};
    for (u64 k = rank; k < rows.len; k += step) {
        at(k, x, y);
        Real term = Family::score(x, y, shift, total) * (Family::level(x) - level);
        second.add(Family::vanishes(x) ? Real(0) : term);
    }
    Real result = -team.template reduce<Sum, 1>(second.sum) / tau.each[row_base(tau.view, row)];
    if (active && rank == 0) out[row] = result;
}
