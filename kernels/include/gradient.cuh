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

// A team's share of both operands.
template <typename Family, int K>
struct Pair {
    Real a[K][GROUP], g[K][GROUP];

    template <typename Team>
    __device__ __forceinline__ void load_gradient(const Line& line, const Span& span, Team team) {
        load(g, line, span, team, Real(0));
    }
    template <typename Team>
    __device__ __forceinline__ void load_result(const Line& line, const Span& span, Team team) {
        load(a, line, span, team, Family::outside());
    }
    template <typename Team>
    DEVICE void load(Real (&to)[K][GROUP], const Line& line, const Span& span, Team team, Real outside) {
#pragma unroll
        for (int i = 0; i < K; ++i) {
            u32 group = team.rank() + i * team.size();
            if (span.any(group)) {
                line.load(span, group, outside, to[i]);
            } else {
#pragma unroll
                for (int e = 0; e < GROUP; ++e) to[i][e] = outside;
            }
        }
    }

    // The largest element, and the largest gradient where the elements are that large.
    template <typename Team>
    __device__ __forceinline__ void find_top(Team team, Real& top, Real& shift) const {
        top = shift = -infinity();
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) top = larger(top, a[i][e]);
        top = team.template reduce<Max, 0>(top);
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e)
                if (a[i][e] == top) shift = larger(shift, g[i][e]);
        shift = team.template reduce<Max, 1>(shift);
    }

    template <typename Team>
    __device__ __forceinline__ Real terms(Team team, Real shift) const {
        Real sum = 0;
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) sum += Family::term(a[i][e], g[i][e], shift);
        return team.template reduce<Sum, 0>(sum);
    }

    template <typename Team>
    __device__ __forceinline__ void store(Element* out, const Span& span, Team team, Real shift, Real sum, Real inverse) {
#pragma unroll
        for (int i = 0; i < K; ++i) {
#pragma unroll
            for (int e = 0; e < GROUP; ++e) g[i][e] = Family::score(a[i][e], g[i][e], shift, sum) * inverse;
            u32 group = team.rank() + i * team.size();
            if (span.any(group)) store_line(out, span, group, g[i]);
        }
    }

    // All that a row held in registers needs.
    template <typename Team>
    __device__ __forceinline__ void finish(Element* out, const Span& span, Team team, Real inverse, bool active) {
        Real top, shift = 0;
        if (Family::SHIFTS) find_top(team, top, shift);
        Real sum = terms(team, shift);
        if (active) store(out, span, team, shift, sum, inverse);
    }
};

template <typename Family, int K, typename Team>
DEVICE void gradient_rows(Team team, const Element* a, const View& a_view, const Element* g, const View& g_view,
                          Element* out, const Rows& rows, const Tau& tau) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u64 start = row * rows.len;
    Span span(start, rows.len, 0, K * team.size());
    Pair<Family, K> pair;
    pair.load_result(Line(a, a_view, span, row, start), span, team);
    pair.load_gradient(Line(g, g_view, span, row, start), span, team);
    pair.finish(out, span, team, RowTau(tau, row).inverse, active);
}

// That of the relaxed sample at the same noise, which is drawn again: rounded as it would have been stored.
template <int K, typename Team>
DEVICE void straight_through_rows(Team team, const Element* x, const View& x_view, const Element* g, const View& g_view,
                                  Element* out, const Rows& rows, const Tau& tau, const Key& key) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    u64 start = row * rows.len;
    Span span(start, rows.len, 0, K * team.size());
    RowTau row_tau(tau, row);
    Pair<SoftmaxFamily, K> pair;
    {
        Line line(x, x_view, span, row, start);
        Share<K> share = softmax_of_row<Perturbed, SOFTMAX, K>(team, Perturbed(key), line, span, row_tau);
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) pair.a[i][e] = widen(narrow(share.z[i][e]));
    }
    pair.load_gradient(Line(g, g_view, span, row, start), span, team);
    pair.finish(out, span, team, row_tau.inverse, active);
}

// ------------------------------------------------------------------------------------------ rows of several blocks

template <typename Family>
DEVICE void gradient_pieces(const Element* a, const View& a_view, const Element* g, const View& g_view, Part* parts,
                            const Rows& rows, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    Pair<Family, HELD> pair;
    pair.load_result(Line(a, a_view, piece.span, piece.row, piece.start), piece.span, team);
    pair.load_gradient(Line(g, g_view, piece.span, piece.row, piece.start), piece.span, team);
    Part part = Part::none();
    if (Family::SHIFTS) {
        pair.find_top(team, part.top, part.shift);
        Real weight = 0;
#pragma unroll
        for (int i = 0; i < HELD; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) weight += pair.a[i][e];
        part.weight = team.reduce<Sum, 1>(weight);
    }
    part.sum = pair.terms(team, part.shift);
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
    Pair<Family, HELD> pair;
    pair.load_result(Line(a, a_view, piece.span, piece.row, piece.start), piece.span, team);
    pair.load_gradient(Line(g, g_view, piece.span, piece.row, piece.start), piece.span, team);
    pair.store(out, piece.span, team, shift, sum, RowTau(tau, piece.row).inverse);
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
        if (x == top) shift = larger(shift, y);
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
