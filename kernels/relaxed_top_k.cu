// relaxed_top_k: k times a = softmax(w / tau), y += a, w += ln(1 - a), from w = logits plus Gumbel noise; its gradient, for
// which the iterations are computed again; and the k-hot at the indices that gumbel_top_k drew.
//
// With w = z + c, where z are the perturbed logits and c what the iterations have added so far. The share that the largest
// class leaves, where 1 - a would cancel, is that of all others: their exponentials are counted from the second largest, so
// that neither their sum nor its logarithm underflows.
//
// A team works on a row in memory of its own, in which every thread reads what it wrote itself: no barrier is needed but
// those of the reductions. A row with fewer than k logits above -inf, or with NaN or +inf, comes out as NaN.
#include "softmax.cuh"

// A class's score, and what it is made of. The index is as wide as they are, so that all bytes of it are its own.
struct Lead {
    Real w, z, c;
    Ordered index;

    DEVICE Lead none() { return Lead{-infinity(), 0, 0, 0xFFFFFFFFu}; }
    __device__ __forceinline__ bool before(const Lead& other) const {
        return w > other.w || (w == other.w && index < other.index);
    }
};

DEVICE Lead exchange(const Lead& lead, u32 offset) {
    return Lead{exchange(lead.w, offset), exchange(lead.z, offset), exchange(lead.c, offset), exchange(lead.index, offset)};
}

template <int SLOT>
DEVICE Lead first_of(Lanes team, Lead lead) {
#pragma unroll
    for (u32 offset = WARP / 2; offset > 0; offset /= 2)
        if (offset < team.lanes) {
            Lead other = exchange(lead, offset);
            if (other.before(lead)) lead = other;
        }
    return lead;
}
// Room as in Block::reduce: two calls that follow each other name different slots.
template <int SLOT>
DEVICE Lead first_of(Block, Lead lead) {
    __shared__ Lead warps[WARP];
    lead = first_of<SLOT>(Lanes{WARP}, lead);
    if (blockDim.x == WARP) return lead;
    u32 lane = threadIdx.x % WARP;
    if (lane == 0) warps[threadIdx.x / WARP] = lead;
    __syncthreads();
    lead = lane < blockDim.x / WARP ? warps[lane] : Lead::none();
    return first_of<SLOT>(Lanes{WARP}, lead);
}

// What an iteration found out of its row.
struct Step {
    Real share;        // of the largest class
    Real factor;       // the share of another is its exponential times this
    Real inverse_rest; // of the sum of the others' exponentials; 0 where there is no other
    Real gap;          // how far the second largest is below the largest
    u64 top;           // the largest class
};

// ln(1 - share) of the largest class, where the others sum up to `rest` relative to the second and `rest q` to the first.
DEVICE Real ln_left(Real share, Real rest, Real q, Real gap, Real inverse) {
    if (share <= Real(0.5)) return -neg_ln_1m(share);
    if (rest == Real(0)) return -infinity();
    Real total = 1 + rest * q;
    if (rest * q > Real(1e-20)) return -neg_ln(rest * q / total);
    return gap * inverse - neg_ln(rest / total);
}

// A row and a team's memory for it.
template <typename Team>
struct Work {
    Team team;
    u32 len;
    Real *z, *c, *y;
    Step* steps;
    Real* e; // of one iteration, or of all

    __device__ __forceinline__ Work(Team team, const Rows& rows, u64 number, char* scratch, u64 bytes)
        : team(team), len(u32(rows.len)) {
        char* own = scratch + number * bytes;
        steps = reinterpret_cast<Step*>(own);
        z = nullptr, c = nullptr, y = nullptr, e = nullptr;
    }
    __device__ __forceinline__ void lay_out(u32 k) {
        z = reinterpret_cast<Real*>(steps + k);
        c = z + len, y = c + len, e = y + len;
    }

    // The perturbed logits; whether `k` of them are above -inf. What an iteration leaves of a class can be chosen again, so that a
    // row with fewer need not run out.
    __device__ __forceinline__ bool load(const Element* x, const View& view, const Rows& rows, u64 row, const Stream& stream,
                                         u32 k) {
        const Element* own = x + row_base(view, row);
        u64 start = row / rows.inner * rows.len * rows.inner + row % rows.inner;
        Real there = 0; // exact as long as it matters: memory holds no k beyond 2^24
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            z[i] = plus(widen(own[i * view.stride]), draw_one<Gumbel>(stream, start + i * rows.inner));
            c[i] = 0;
            y[i] = 0;
            if (z[i] > -infinity() && there < Real(k)) there += 1;
        }
        return team.template reduce<Sum, 1>(there) >= Real(k);
    }

    // One iteration; whether the row had a class to choose.
    __device__ __forceinline__ bool iterate(Real* e, const RowTau& tau, Step& step) {
        Lead first = Lead::none(), second = Lead::none();
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            Lead lead{z[i] + c[i], z[i], c[i], i};
            if (lead.before(first))
                second = first, first = lead;
            else if (lead.before(second))
                second = lead;
        }
        Lead own = first;
        first = first_of<0>(team, first);
        second = first_of<1>(team, own.index == first.index ? second : own);
        bool other = second.w > -infinity();
        Real z_from = other ? second.z : Real(0), c_from = other ? second.c : Real(0);
        // The difference of two numbers and that of what was added to them: each is more exact than that of the sums. None is
        // above 0, which the roundings of a tie may be.
        auto below = [&](Real z, Real c) {
            Real d = (z - z_from) + (c - c_from);
            return d > Real(0) ? Real(0) : d;
        };
        step.gap = other ? -((first.z - z_from) + (first.c - c_from)) : Real(0);
        step.gap = step.gap > Real(0) ? Real(0) : step.gap;
        step.top = first.index;
        Compensated sum{0, 0};
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            e[i] = i == u32(first.index) ? Real(0) : exp_scaled(below(z[i], c[i]) * tau.scale);
            sum.add(e[i]);
        }
        Real rest = team.template reduce<Sum, 0>(sum.sum);
        Real q = other ? exp_scaled(step.gap * tau.scale) : Real(0), total = 1 + rest * q;
        step.share = Real(1) / total;
        step.factor = q / total;
        step.inverse_rest = rest > Real(0) ? Real(1) / rest : Real(0);
        Real left = ln_left(step.share, rest, q, step.gap, tau.inverse);
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            bool top = i == u32(first.index);
            Real a = e[i] * step.factor;
            y[i] += top ? step.share : a;
            c[i] += top ? left : -neg_ln_1m(a);
        }
        return first.w > -infinity() && first.w < infinity() && rest == rest;
    }

    // An iteration's part of the gradient: `lambda`, that of w behind it, becomes that of w before it; and the part of the
    // gradient of tau. `lambda / (1 - a)` of the largest class is never formed: in the sums it meets 1 - a again.
    template <bool TO_TAU>
    __device__ __forceinline__ Real retreat(const Real* e, const Element* g, u64 stride, Real* lambda, const Step& step,
                                            Real inverse) {
        Real own = 0, shift = widen(g[step.top * stride]);
        Compensated sum{0, 0};
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            if (i == step.top) own = lambda[i];
            Real a = e[i] * step.factor, v = (widen(g[i * stride]) - shift) - lambda[i] / (1 - a);
            sum.add(a * v);
        }
        Real mean = team.template reduce<Sum, 0>(sum.sum);
        own = team.template reduce<Sum, 1>(own);
        Real from_top = step.share * own * step.inverse_rest, d_top = step.share * (-own - mean) * inverse;
        Compensated tau{0, 0};
#pragma unroll 1
        for (u32 i = team.rank(); i < len; i += team.size()) {
            Real a = e[i] * step.factor, v = (widen(g[i * stride]) - shift) - lambda[i] / (1 - a);
            Real d = i == step.top ? d_top : (a * (v - mean) + from_top * e[i]) * inverse;
            lambda[i] += d;
            // (w - w of the second) / tau = ln e; one that underflowed weighs nothing.
            if (TO_TAU && e[i] > Real(0)) tau.add(d * neg_ln(e[i]));
        }
        Real part = tau.sum;
        if (TO_TAU && team.rank() == 0 && d_top != Real(0)) part += d_top * step.gap * inverse;
        return part;
    }
};

DEVICE void sync(Lanes) { __syncwarp(); }
DEVICE void sync(Block) { __syncthreads(); }

// The number of a team, and of all.
DEVICE u64 number_of(Lanes team) { return (u64(blockIdx.x) * blockDim.x + threadIdx.x) / team.lanes; }
DEVICE u64 number_of(Block) { return blockIdx.x; }
DEVICE u64 teams(Lanes team) { return u64(gridDim.x) * blockDim.x / team.lanes; }
DEVICE u64 teams(Block) { return gridDim.x; }
// Teams of a warp go on together: all threads take part in every exchange. The first team's number decides.
DEVICE u64 first_number(Lanes team) { return number_of(team) & ~u64(WARP / team.lanes - 1); }
DEVICE u64 first_number(Block) { return blockIdx.x; }

#define LOGITS const Element *x, const __grid_constant__ View view
#define GRAD const Element *g, const __grid_constant__ View g_view
#define SHAPE                                                                                         \
    const __grid_constant__ Rows rows, const __grid_constant__ Tau tau, const __grid_constant__ Key key, u32 k, \
        u64 bytes
#define LOGITS_ARG const Element *x, const View &view
#define SHAPE_ARG const Rows &rows, const Tau &tau, const Key &key, u32 k, u64 bytes

template <typename Team>
DEVICE void relaxed(Team team, LOGITS_ARG, char* scratch, Element* out, SHAPE_ARG) {
    u64 number = number_of(team), ahead = number - first_number(team);
    Work<Team> work(team, rows, number, scratch, bytes);
    work.lay_out(k);
    Stream stream(key);
#pragma unroll 1
    for (u64 first = first_number(team); first < rows.count; first += teams(team)) {
        u64 row = first + ahead;
        bool active = row < rows.count;
        row = active ? row : rows.count - 1;
        RowTau row_tau(tau, row);
        bool proper = work.load(x, view, rows, row, stream, k);
#pragma unroll 1
        for (u32 i = 0; i < k; ++i) {
            Step step;
            proper = work.iterate(work.e, row_tau, step) && proper;
        }
        u64 start = row / rows.inner * rows.len * rows.inner + row % rows.inner;
        if (active)
            for (u32 i = team.rank(); i < work.len; i += team.size())
                out[start + i * rows.inner] = narrow(proper ? work.y[i] : not_a_number());
    }
}

template <bool TO_TAU, typename Team>
DEVICE void gradient(Team team, LOGITS_ARG, const Element* g, const View& g_view, char* scratch, Element* out, Real* tau_out,
                     SHAPE_ARG) {
    u64 number = number_of(team), ahead = number - first_number(team);
    Work<Team> work(team, rows, number, scratch, bytes);
    work.lay_out(k);
    Stream stream(key);
#pragma unroll 1
    for (u64 first = first_number(team); first < rows.count; first += teams(team)) {
        u64 row = first + ahead;
        bool active = row < rows.count;
        row = active ? row : rows.count - 1;
        RowTau row_tau(tau, row);
        bool proper = work.load(x, view, rows, row, stream, k);
#pragma unroll 1
        for (u32 i = 0; i < k; ++i) {
            Step step;
            proper = work.iterate(work.e + u64(i) * work.len, row_tau, step) && proper;
            // In a row that has run out of classes there is no largest.
            if (step.top >= work.len) step.top = 0;
            if (team.rank() == 0) work.steps[i] = step;
        }
        sync(team);
        const Element* own_g = g + row_base(g_view, row);
        for (u32 i = team.rank(); i < work.len; i += team.size()) work.y[i] = 0;
        Real total = 0;
#pragma unroll 1
        for (u32 i = k; i-- > 0;)
            total += work.template retreat<TO_TAU>(work.e + u64(i) * work.len, own_g, g_view.stride, work.y, work.steps[i],
                                                   row_tau.inverse);
        // Nobody may write the next row's steps while another reads these.
        sync(team);
        if (TO_TAU) {
            total = team.template reduce<Sum, 0>(total);
            if (active && team.rank() == 0) tau_out[row] = proper ? total : not_a_number();
        } else if (active) {
            u64 start = row / rows.inner * rows.len * rows.inner + row % rows.inner;
            for (u32 i = team.rank(); i < work.len; i += team.size())
                out[start + i * rows.inner] = narrow(proper ? work.y[i] : not_a_number());
        }
    }
}

// The k-hot, or NaN where the row had no k classes to draw.
template <typename Team>
DEVICE void k_hot(Team team, LOGITS_ARG, const u32* drawn, Element* out, const Rows& rows, u32 k) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    const Element* own = x + row_base(view, row);
    u64 outer = row / rows.inner, column = row % rows.inner;
    const u32* indices = drawn + (outer * k * rows.inner + column);
    Element* to = out + (outer * rows.len * rows.inner + column);
    // Classes above -inf, up to k of them a thread; and whether one is NaN or +inf.
    Real there = 0, improper = 0;
    for (u64 i = team.rank(); i < rows.len; i += team.size()) {
        Real z = widen(own[i * view.stride]);
        if (!(z < infinity())) improper = 1;
        if (z > -infinity() && there < Real(k)) there += 1;
    }
    improper = team.template reduce<Max, 0>(improper);
    there = team.template reduce<Sum, 0>(there);
    bool proper = improper == Real(0) && there >= Real(k);
    for (u64 i = team.rank(); active && i < rows.len; i += team.size())
        to[i * rows.inner] = narrow(proper ? Real(0) : not_a_number());
    sync(team);
    for (u32 j = team.rank(); active && proper && j < k; j += team.size())
        to[indices[j * rows.inner] * rows.inner] = narrow(Real(1));
}

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(relaxed_top_k_lanes)(LOGITS, char* scratch, Element* out, SHAPE, u32 lanes) {
    relaxed(Lanes{lanes}, x, view, scratch, out, rows, tau, key, k, bytes);
}
__global__ void __launch_bounds__(512, 1) KERNEL(relaxed_top_k_block)(LOGITS, char* scratch, Element* out, SHAPE) {
    relaxed(Block{}, x, view, scratch, out, rows, tau, key, k, bytes);
}

__global__ void __launch_bounds__(128, 1)
    KERNEL(relaxed_top_k_gradient_lanes)(LOGITS, GRAD, char* scratch, Element* out, SHAPE, u32 lanes) {
    gradient<false>(Lanes{lanes}, x, view, g, g_view, scratch, out, nullptr, rows, tau, key, k, bytes);
}
__global__ void __launch_bounds__(512, 1)
    KERNEL(relaxed_top_k_gradient_block)(LOGITS, GRAD, char* scratch, Element* out, SHAPE) {
    gradient<false>(Block{}, x, view, g, g_view, scratch, out, nullptr, rows, tau, key, k, bytes);
}

__global__ void __launch_bounds__(128, 1)
    KERNEL(relaxed_top_k_gradient_tau_lanes)(LOGITS, GRAD, char* scratch, Real* out, SHAPE, u32 lanes) {
    gradient<true>(Lanes{lanes}, x, view, g, g_view, scratch, nullptr, out, rows, tau, key, k, bytes);
}
__global__ void __launch_bounds__(512, 1)
    KERNEL(relaxed_top_k_gradient_tau_block)(LOGITS, GRAD, char* scratch, Real* out, SHAPE) {
    gradient<true>(Block{}, x, view, g, g_view, scratch, nullptr, out, rows, tau, key, k, bytes);
}

__global__ void __launch_bounds__(128, 1)
    KERNEL(gumbel_top_k_st_lanes)(LOGITS, const u32* drawn, Element* out, const __grid_constant__ Rows rows, u32 k, u32 lanes) {
    k_hot(Lanes{lanes}, x, view, drawn, out, rows, k);
}
__global__ void __launch_bounds__(512, 1)
    KERNEL(gumbel_top_k_st_block)(LOGITS, const u32* drawn, Element* out, const __grid_constant__ Rows rows, u32 k) {
    k_hot(Block{}, x, view, drawn, out, rows, k);
}
}
