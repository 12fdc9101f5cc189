// The forward engine: a tempered softmax or log-softmax of scores along rows or columns.
//
// A row that is all -inf, or holds NaN or +inf, comes out as NaN; no other row is touched by it.
#pragma once
#include "team.cuh"
#include "view.cuh"

// What an op works on: the logits, or the logits plus Gumbel noise.
struct Plain {
    static constexpr bool NOISY = false;
    __device__ __forceinline__ explicit Plain(const Key&) {}
    __device__ __forceinline__ void perturb(u64, Real (&)[GROUP]) const {}
    __device__ __forceinline__ Real perturbed(u64, Real x) const { return x; }
};
struct Perturbed {
    static constexpr bool NOISY = true;
    Stream stream;
    __device__ __forceinline__ explicit Perturbed(const Key& key) : stream(key) {}
    // Adds the noise of a group.
    __device__ __forceinline__ void perturb(u64 group, Real (&x)[GROUP]) const {
        Real noise[GROUP];
        draw_group<Gumbel>(stream, group, noise);
#pragma unroll
        for (int e = 0; e < GROUP; ++e) x[e] = plus(x[e], noise[e]);
    }
    // With the noise of one element.
    __device__ __forceinline__ Real perturbed(u64 element, Real x) const {
        return plus(x, draw_one<Gumbel>(stream, element));
    }
};

// What is written for each element.
enum Form { SOFTMAX, LOG_SOFTMAX };

// The maximum as it is subtracted: 0 for a row that is all -inf, whose exponentials are then 0 and not NaN.
DEVICE Real pivot(Real max) { return max == -infinity() ? Real(0) : max; }

// What finishes an element: the inverse of the sum of exponentials, or that sum's logarithm.
template <Form FORM>
DEVICE Real norm_of(Real sum) {
    if (FORM == SOFTMAX) return reciprocal(sum);
    // The logarithm is that of positive numbers.
    return sum > Real(0) && sum < infinity() ? -neg_ln(sum) : not_a_number();
}

// -------------------------------------------------------------------------------------------------------------- rows

// A team's share of a span's scores.
template <int K>
struct Share {
    Real z[K][GROUP];

    // -inf where there is no group.
    template <typename Scores, typename Team>
    __device__ __forceinline__ void load(const Scores& scores, const Line& line, const Span& span, Team team) {
        // All loads are under way before the first is used.
        load_share<K>(line, span, team, -infinity(), z);
        if (Scores::NOISY) {
#pragma unroll
            for (int i = 0; i < K; ++i) {
                u32 group = team.template first<K>() + i * team.step();
                if (span.any(group)) scores.perturb(span.first + group, z[i]);
            }
        }
    }

    __device__ __forceinline__ Real max() const {
        Real m = -infinity();
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) m = larger(m, z[i][e]);
        return m;
    }

    // The sum of exponentials, which replace the scores where `KEEP`.
    template <bool KEEP>
    __device__ __forceinline__ Real exponentials(Real max, Real scale) {
        Real sum = 0;
#pragma unroll
        for (int i = 0; i < K; ++i)
#pragma unroll
            for (int e = 0; e < GROUP; ++e) {
                Real y = exp_scaled((z[i][e] - max) * scale);
                if (KEEP) z[i][e] = y;
                sum += y;
            }
        return sum;
    }

    // The result of an element from its score, or, where they were kept, its exponential.
    template <Form FORM, bool KEPT>
    DEVICE Real finish(Real z, Real max, Real norm, const RowTau& tau) {
        if (FORM == LOG_SOFTMAX) return (z - max) * tau.inverse - norm;
        return (KEPT ? z : exp_scaled((z - max) * tau.scale)) * norm;
    }
};

// A whole row that a team holds in registers, up to its last step: what is left to finish an element with.
template <typename Scores, Form FORM, int K, typename Team>
DEVICE void softmax_of_row(Team team, const Scores& scores, const Line& line, const Span& span, const RowTau& tau,
                           Share<K>& share, Real& max, Real& norm) {
    share.load(scores, line, span, team);
    max = pivot(team.template reduce<Max, 0>(share.max()));
    Real sum = share.template exponentials<FORM == SOFTMAX>(max, tau.scale);
    norm = norm_of<FORM>(team.template reduce<Sum, 1>(sum));
}

// The row of a thread of teams of lanes. Threads past the last row work on the last one, and store nothing.
DEVICE u64 row_of(Lanes team) { return (u64(blockIdx.x) * blockDim.x + threadIdx.x) / team.lanes; }
// That of a block: the same in all its threads, which keeps what follows from it in uniform registers.
template <u32 WARPS>
DEVICE u64 row_of(BlockOf<WARPS>) {
    return blockIdx.x;
}

template <typename Scores, Form FORM, int K, typename Team>
DEVICE void softmax_rows(Team team, const Element* x, const View& view, Element* out, const Rows& rows, const Tau& tau,
                         const Key& key) {
    u64 row = row_of(team);
    bool active = Team::EXACT || row < rows.count;
    row = active ? row : rows.count - 1;
    u32 len = u32(rows.len);
    u64 start = row * len;
    Span span(start, len);
    Line line(x, view, span, row, start);
    RowTau row_tau(tau, row);
    Share<K> share;
    Real max, norm;
    softmax_of_row<Scores, FORM, K>(team, Scores(key), line, span, row_tau, share, max, norm);
    if (active)
        store_share<K>(out, span, team, [&](int i, int e) {
            return Share<K>::template finish<FORM, true>(share.z[i][e], max, norm, row_tau);
        });
}

// ------------------------------------------------------------------------------------------ rows of several blocks

// Threads of a block that works on a piece of a row: of PIECE elements, whatever the device, so that the order of sums is
// the same on all.
constexpr u32 PIECE_THREADS = 256;
constexpr u32 PIECE_GROUPS = PIECE_THREADS * HELD;

// The piece of a row that a block works on.
struct Piece {
    u64 row, start;
    Span span;

    __device__ __forceinline__ Piece(const Rows& rows, u32 pieces)
        : row(blockIdx.x / pieces),
          start(row * rows.len),
          span(start, rows.len, u64(blockIdx.x % pieces) * PIECE_GROUPS, PIECE_GROUPS) {}
};

// A piece's maximum and its sum of exponentials relative to that.
struct Stats {
    Real max, sum;
};

template <typename Scores>
DEVICE void softmax_pieces(const Element* x, const View& view, Stats* stats, const Rows& rows, const Tau& tau,
                           const Key& key, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    Share<HELD> share;
    share.load(Scores(key), Line(x, view, piece.span, piece.row, piece.start), piece.span, team);
    Real max = team.reduce<Max, 0>(share.max());
    Real sum = share.template exponentials<false>(pivot(max), RowTau(tau, piece.row).scale);
    sum = team.reduce<Sum, 1>(sum);
    if (team.rank() == 0) stats[blockIdx.x] = Stats{max, sum};
}

template <typename Scores, Form FORM>
DEVICE void softmax_join(const Element* x, const View& view, const Stats* stats, Element* out, const Rows& rows,
                         const Tau& tau, const Key& key, u32 pieces) {
    Block team;
    Piece piece(rows, pieces);
    RowTau row_tau(tau, piece.row);
    const Stats* own = stats + piece.row * pieces;
    Real max = -infinity();
    for (u32 i = team.rank(); i < pieces; i += team.size()) max = larger(max, own[i].max);
    max = pivot(team.reduce<Max, 0>(max));
    Real sum = 0;
    for (u32 i = team.rank(); i < pieces; i += team.size())
        sum += own[i].sum * exp_scaled((own[i].max - max) * row_tau.scale);
    sum = team.reduce<Sum, 1>(sum);
    Share<HELD> share;
    share.load(Scores(key), Line(x, view, piece.span, piece.row, piece.start), piece.span, team);
    Real norm = norm_of<FORM>(sum);
    store_share<HELD>(out, piece.span, team, [&](int i, int e) {
        return Share<HELD>::template finish<FORM, false>(share.z[i][e], max, norm, row_tau);
    });
}
