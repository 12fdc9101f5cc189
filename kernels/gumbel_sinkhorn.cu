// gumbel_sinkhorn: Sinkhorn's iteration on exp((scores + g) / tau), its gradient, and the permutation with the largest sum. A
// block for each (n, n) matrix of a (matrices, n, n) tensor; src/gumbel_sinkhorn/solver.rs explains frames and scales.
#include "team.cuh"
#include "view.cuh"

constexpr u32 THREADS = 256;
// The largest side of the two matrices that shared memory has room for.
constexpr u32 SIDE = sizeof(Real) == 8 ? 48 : 64;
// Terms of a sum in one chain, as on the CPU.
constexpr u32 CHAIN = 16;
// Scales stay below this, and above its inverse.
constexpr Real LIMIT = Real(1073741824);
// Vectors of n that a matrix needs beside its records: potentials in two parts each, scales, sums, and three for the way back.
constexpr u32 VECTORS = 10;

// What is computed.
struct Job {
    u32 n;
    u32 iterations;
    // Whether noise is added.
    u32 noisy;
    // Values of scratch for each matrix.
    u64 room;
};

// The elements of a matrix, shared out: a thread's are blockDim.x apart.
struct Walk {
    u32 n, i, j, rows, columns, at;
    __device__ __forceinline__ explicit Walk(u32 n)
        : n(n), i(threadIdx.x / n), j(threadIdx.x % n), rows(blockDim.x / n), columns(blockDim.x % n), at(threadIdx.x) {}
    __device__ __forceinline__ bool more() const { return i < n; }
    __device__ __forceinline__ void next() {
        at += blockDim.x, i += rows, j += columns;
        if (j >= n) j -= n, ++i;
    }
};

// put(i, Op over j of f(i, j)) for every row, by lanes of a warp.
template <typename Op, typename F, typename Put>
DEVICE void over_rows(u32 n, F f, Put put) {
    u32 lanes = n > 64 ? 32 : n > 32 ? 16 : n > 16 ? 8 : n > 4 ? 4 : 1;
    u32 rank = threadIdx.x & (lanes - 1), side_by_side = blockDim.x / lanes;
#pragma unroll 1
    for (u32 first = 0; first < n; first += side_by_side) {
        u32 i = first + threadIdx.x / lanes;
        Real total = Op::identity();
        if (i < n) {
            for (u32 from = rank; from < n; from += CHAIN * lanes) {
                Real part = Op::identity();
                for (u32 j = from; j < n && j < from + CHAIN * lanes; j += lanes) part = Op::of(part, f(i, j));
                total = Op::of(total, part);
            }
        }
#pragma unroll
        for (u32 offset = WARP / 2; offset > 0; offset /= 2)
            if (offset < lanes) total = Op::of(total, exchange(total, offset));
        if (i < n && rank == 0) put(i, total);
    }
}

// One room for all sums over columns, each of which ends with a barrier.
DEVICE Real* column_room() {
    __shared__ Real room[THREADS];
    return room;
}

// put(j, Op over i of f(i, j)) for every column, by threads that share a column's rows where there are more than columns.
template <typename Op, typename F, typename Put>
DEVICE void over_columns(u32 n, F f, Put put) {
    Real* parts = column_room();
    u32 groups = n < blockDim.x ? blockDim.x / n : 1;
#pragma unroll 1
    for (u32 first = 0; first < n; first += blockDim.x) {
        u32 group = groups > 1 ? threadIdx.x / n : 0, j = groups > 1 ? threadIdx.x % n : first + threadIdx.x;
        Real total = Op::identity();
        if (group < groups && j < n) {
            for (u32 from = group; from < n; from += CHAIN * groups) {
                Real part = Op::identity();
                for (u32 i = from; i < n && i < from + CHAIN * groups; i += groups) part = Op::of(part, f(i, j));
                total = Op::of(total, part);
            }
        }
        if (groups > 1) {
            parts[threadIdx.x] = total;
            __syncthreads();
            if (threadIdx.x < n)
                for (u32 g = 1; g < groups; ++g) total = Op::of(total, parts[g * n + threadIdx.x]);
            else
                j = n;
            __syncthreads();
        }
        if (j < n) put(j, total);
    }
}

// a - b, and what its rounding lost.
DEVICE Real less(Real a, Real b, Real& lost) {
    Real sum = minus(a, b), part = minus(sum, a);
    lost = minus(minus(a, minus(sum, part)), plus(b, part));
    return sum;
}

// A float's exponent, and 2 to the minus that.
DEVICE int exponent_of(Real x) {
    if constexpr (sizeof(Real) == 8)
        return int(u32(bits_of_double(x) >> 52) & 0x7FF) - 1023;
    else
        return int(bits_of_float(x) >> 23 & 0xFF) - 127;
}
DEVICE Real power_of_two(int e) {
    if constexpr (sizeof(Real) == 8)
        return double_of_bits(u64(e + 1023) << 52);
    else
        return float_of_bits(u32(e + 127) << 23);
}

// One matrix, and the room that it needs. All that is written is read after a barrier.
struct Matrix {
    u32 n;
    Real scale;
    // What a scale's factor of 2 is to a potential, in two parts.
    Real octave, octave_rest;
    Real *z, *k, *m, *d;
    Real *rows, *rows_low, *columns, *columns_low, *a, *b, *sums, *d_rows, *d_columns, *weights;
    // The scales after each half step; for each frame the potentials, the other side's scales and the half step that made it.
    Real *steps, *frames;

    // Past the vectors, `rest` holds z, and where shared memory has no room k, then what the way back needs.
    __device__ __forceinline__ Matrix(u32 n, const RowTau& tau, Real* shared, Real* vectors, Real* rest, bool back, u32 steps_)
        : n(n), scale(tau.scale) {
        u64 whole = u64(n) * n;
        Real unit = sizeof(Real) == 8 ? Real(0.693147180559945309417) : Real(1);
        Real unit_rest = sizeof(Real) == 8 ? Real(2.3190468138462996e-17) : Real(0);
        octave = unit / scale;
        octave_rest = (fmadd(-octave, scale, unit) + unit_rest) / scale;
        z = rest, rest += whole;
        if (shared) {
            k = shared, m = shared + whole;
        } else {
            k = rest, rest += whole;
            m = rest;
            if (back) rest += whole;
        }
        d = rest;
        if (back) rest += whole;
        steps = rest;
        frames = rest + u64(steps_) * n;
        rows = vectors, rows_low = rows + n, columns = rows_low + n, columns_low = columns + n;
        a = columns_low + n, b = a + n, sums = b + n, d_rows = sums + n, d_columns = d_rows + n, weights = d_columns + n;
    }

    // z = scores + g; false, in every thread, where they make no matrix: a row or a column that is all -inf, NaN or +inf.
    __device__ __forceinline__ bool load(const Element* x, const View& view, const Job& job, const Key& key) {
        u64 start = u64(blockIdx.x) * n * n;
        Stream stream(key);
        bool bad = false;
        // A thread makes whole blocks of random words.
        u64 end = start + u64(n) * n;
#pragma unroll 1
        for (u64 block = start / 4 + threadIdx.x; block * 4 < end; block += blockDim.x) {
            Real g[4] = {0, 0, 0, 0};
            if (job.noisy) Gumbel::draw(stream, block, g);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                u64 at = block * 4 + e;
                if (at < start || at >= end) continue;
                Real value = plus(g[e], widen(x[view.vector ? at : row_base(view, at)]));
                bad |= !(value < infinity());
                z[at - start] = value;
            }
        }
        __syncthreads();
        auto score = [&](u32 i, u32 j) { return z[i * n + j]; };
        auto largest = [&](u32, Real value) { bad |= value == -infinity(); };
        over_rows<Max>(n, score, largest);
        over_columns<Max>(n, score, largest);
        return !__syncthreads_or(bad);
    }

    // k = z - rows - columns.
    __device__ __forceinline__ void differences() {
#pragma unroll 1
        for (Walk w(n); w.more(); w.next()) {
            Real lost, more;
            Real x = less(less(z[w.at], rows[w.i], lost), columns[w.j], more);
            Real rest = minus(minus(plus(lost, more), rows_low[w.i]), columns_low[w.j]);
            // A forbidden entry stays -inf; its rest is not a number.
            k[w.at] = rest <= infinity() ? plus(x, rest) : x;
        }
        __syncthreads();
    }

    // k = exp((k - rows - columns) / tau), with the low part of the side whose largest entries then become 0.
    __device__ __forceinline__ void exponentials(bool of_rows) {
#pragma unroll 1
        for (Walk w(n); w.more(); w.next())
            k[w.at] = exp_scaled(times(minus(k[w.at], of_rows ? rows_low[w.i] : columns_low[w.j]), scale));
        __syncthreads();
    }

    __device__ __forceinline__ void new_frame(bool of_rows) {
        Real *high = of_rows ? columns : rows, *low = of_rows ? columns_low : rows_low, *scales = of_rows ? b : a;
        Real *own = of_rows ? rows : columns, *own_low = of_rows ? rows_low : columns_low;
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
            // The other side's scales pass to its potentials but for their mantissas.
            int e = exponent_of(scales[j]);
            Real step = times(Real(e), octave);
            Real step_rest = plus(fmadd(Real(e), octave, -step), times(Real(e), octave_rest));
            Real lost, sum = less(high[j], step, lost);
            Real rest = plus(lost, minus(low[j], step_rest));
            Real whole = plus(sum, rest);
            high[j] = whole;
            low[j] = minus(rest, minus(whole, sum));
            scales[j] = times(scales[j], power_of_two(-e));
            own[j] = 0, own_low[j] = 0;
        }
        __syncthreads();
        for (int part = 0; part < 2; ++part) {
            differences();
            Real* to = part == 0 ? own : own_low;
            auto value = [&](u32 i, u32 j) { return k[i * n + j]; };
            auto put = [&](u32 at, Real value) { to[at] = value; };
            if (of_rows)
                over_rows<Max>(n, value, put);
            else
                over_columns<Max>(n, value, put);
            __syncthreads();
        }
        exponentials(of_rows);
    }

    // New scales of a side; whether, in every thread, all are within the limits.
    __device__ __forceinline__ bool sum(bool of_rows) {
        bool outside = false;
        Real* to = of_rows ? a : b;
        auto put = [&](u32 at, Real sum) {
            outside |= sum < Real(1) / LIMIT || sum > LIMIT;
            to[at] = Real(1) / sum;
        };
        if (of_rows)
            over_rows<Sum>(n, [&](u32 i, u32 j) { return k[i * n + j] * b[j]; }, put);
        else
            over_columns<Sum>(n, [&](u32 i, u32 j) { return k[i * n + j] * a[i]; }, put);
        return !__syncthreads_or(outside);
    }

    // Runs the iteration; with KEEP, the way back can be taken. The last frame.
    template <bool KEEP>
    __device__ __forceinline__ u32 solve(u32 iterations) {
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) columns[j] = 0, columns_low[j] = 0, b[j] = 1;
        __syncthreads();
        u32 made = 0;
#pragma unroll 1
        for (u32 step = 0; step < 2 * iterations; ++step) {
            bool of_rows = step % 2 == 0;
            // Two ways to a new frame, so that there is one place that makes it.
            bool fits = step > 0 && sum(of_rows);
            if (!fits) {
                new_frame(of_rows);
                // Before the barrier of the sums: the next half step writes the other side's scales.
                if (KEEP) {
                    Real* frame = frames + made * (5 * u64(n) + 1);
                    const Real* other = of_rows ? b : a;
                    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
                        frame[j] = rows[j], frame[n + j] = rows_low[j];
                        frame[2 * u64(n) + j] = columns[j], frame[3 * u64(n) + j] = columns_low[j];
                        frame[4 * u64(n) + j] = other[j];
                    }
                    if (threadIdx.x == 0) frame[5 * u64(n)] = Real(step);
                }
                sum(of_rows);
                ++made;
            }
            if (KEEP) {
                const Real* own = of_rows ? a : b;
                for (u32 j = threadIdx.x; j < n; j += blockDim.x) steps[u64(step) * n + j] = own[j];
            }
        }
        __syncthreads();
        return made - 1;
    }

    __device__ __forceinline__ const Real* frame_at(u32 frame) const { return frames + frame * (5 * u64(n) + 1); }

    __device__ __forceinline__ void old_frame(u32 frame) {
        const Real* from = frame_at(frame);
        bool of_rows = u32(from[5 * u64(n)]) % 2 == 0;
        // Differences are taken without the low part of the side that was normalised, as they were.
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
            rows[j] = from[j], rows_low[j] = of_rows ? Real(0) : from[n + j];
            columns[j] = from[2 * u64(n) + j], columns_low[j] = of_rows ? from[3 * u64(n) + j] : Real(0);
        }
        __syncthreads();
        differences();
        for (u32 j = threadIdx.x; j < n; j += blockDim.x)
            if (of_rows)
                rows_low[j] = from[n + j];
            else
                columns_low[j] = from[3 * u64(n) + j];
        __syncthreads();
        exponentials(of_rows);
    }

    // d += k m, and m = 0.
    __device__ __forceinline__ void settle() {
#pragma unroll 1
        for (Walk w(n); w.more(); w.next()) d[w.at] = fmadd(k[w.at], m[w.at], d[w.at]), m[w.at] = 0;
        __syncthreads();
    }

    // From the gradient of the result in m, that of z / tau in d.
    __device__ __forceinline__ void back(u32 iterations) {
        u32 frame = solve<true>(iterations);
        // The last half step together with the exponential, where the gradient's means cancel.
        over_columns<Sum>(
            n, [&](u32 i, u32 j) { return k[i * n + j] * a[i] * m[i * n + j]; },
            [&](u32 j, Real sum) { weights[j] = sum * b[j]; });
        __syncthreads();
#pragma unroll 1
        for (Walk w(n); w.more(); w.next()) m[w.at] = minus(m[w.at], weights[w.j]) * (a[w.i] * b[w.j]), d[w.at] = 0;
        __syncthreads();
        over_rows<Sum>(
            n, [&](u32 i, u32 j) { return k[i * n + j] * m[i * n + j]; }, [&](u32 i, Real sum) { d_rows[i] = -sum; });
        __syncthreads();
#pragma unroll 1
        for (u32 step = 2 * iterations - 1; step-- > 0;) {
            if (step < u32(frame_at(frame)[5 * u64(n)])) {
                settle();
                --frame;
                old_frame(frame);
            }
            bool of_rows = step % 2 == 0, first = step == u32(frame_at(frame)[5 * u64(n)]);
            const Real* own = steps + u64(step) * n;
            const Real* other = first ? frame_at(frame) + 4 * u64(n) : own - n;
            const Real* arriving = of_rows ? d_rows : d_columns;
            for (u32 j = threadIdx.x; j < n; j += blockDim.x) weights[j] = arriving[j] * own[j];
            __syncthreads();
            const Real *left = of_rows ? weights : other, *right = of_rows ? other : weights;
#pragma unroll 1
            for (Walk w(n); w.more(); w.next()) m[w.at] = fmadd(left[w.i], right[w.j], m[w.at]);
            if (of_rows)
                over_columns<Sum>(
                    n, [&](u32 i, u32 j) { return k[i * n + j] * weights[i]; },
                    [&](u32 j, Real sum) { d_columns[j] = -(sum * other[j]); });
            else
                over_rows<Sum>(
                    n, [&](u32 i, u32 j) { return k[i * n + j] * weights[j]; },
                    [&](u32 i, Real sum) { d_rows[i] = -(sum * other[i]); });
            __syncthreads();
        }
        settle();
    }
};

#define SCORES const Element *x, const __grid_constant__ View view
#define JOB u32 n, u32 iterations, u32 noisy, u64 room
#define CALL JOB, const __grid_constant__ Tau tau, const __grid_constant__ Key key

DEVICE void fill(Element* out, u32 n, Real value) {
    for (u64 at = threadIdx.x; at < u64(n) * n; at += blockDim.x) out[at] = narrow(value);
}

// (matrices, n, n) scores -> (matrices, n, n) relaxed permutations.
template <bool SHARED>
DEVICE void relaxed(const Element* x, const View& view, Real* scratch, Element* out, const Job& job, const Tau& tau,
                    const Key& key) {
    __shared__ Real matrices[SHARED ? SIDE * SIDE : 1], sides[SHARED ? VECTORS * SIDE : 1];
    u32 n = job.n;
    Real* own = scratch + blockIdx.x * job.room;
    RowTau heat(tau, blockIdx.x);
    Matrix matrix(n, heat, SHARED ? matrices : nullptr, SHARED ? sides : own, SHARED ? own : own + VECTORS * n, false, 0);
    out += u64(blockIdx.x) * n * n;
    if (!matrix.load(x, view, job, key)) {
        fill(out, n, not_a_number());
        return;
    }
    matrix.solve<false>(job.iterations);
#pragma unroll 1
    for (Walk w(n); w.more(); w.next()) out[w.at] = narrow(matrix.k[w.at] * matrix.a[w.i] * matrix.b[w.j]);
}

// And the (matrices, n, n) gradient of the result -> that of the scores, or with TO_TAU one of the temperature a matrix.
template <bool SHARED, bool TO_TAU>
DEVICE void gradient(const Element* x, const View& view, const Element* g, const View& g_view, Real* scratch, Element* out,
                     Real* out_tau, const Job& job, const Tau& tau, const Key& key) {
    __shared__ Real matrices[SHARED ? 2 * SIDE * SIDE : 1], sides[SHARED ? VECTORS * SIDE : 1];
    u32 n = job.n;
    Real* own = scratch + blockIdx.x * job.room;
    RowTau heat(tau, blockIdx.x);
    Matrix matrix(n, heat, SHARED ? matrices : nullptr, SHARED ? sides : own, SHARED ? own : own + VECTORS * n, true,
                  2 * job.iterations);
    u64 start = u64(blockIdx.x) * n * n;
    if (!matrix.load(x, view, job, key)) {
        if (!TO_TAU)
            fill(out + start, n, not_a_number());
        else if (threadIdx.x == 0)
            out_tau[blockIdx.x] = not_a_number();
        return;
    }
#pragma unroll 1
    for (Walk w(n); w.more(); w.next()) {
        u64 at = start + w.at;
        matrix.m[w.at] = widen(g[g_view.vector ? at : row_base(g_view, at)]);
    }
    matrix.back(job.iterations);
    if (!TO_TAU) {
#pragma unroll 1
        for (Walk w(n); w.more(); w.next()) out[start + w.at] = narrow(matrix.d[w.at] * heat.inverse);
        return;
    }
    // -<d, z> / tau^2. Rows of d sum to 0, and scores counted from the row's largest keep more digits.
    Real *pivots = matrix.sums, *sums = matrix.weights;
    over_rows<Max>(
        n, [&](u32 i, u32 j) { return matrix.z[i * n + j]; }, [&](u32 i, Real value) { pivots[i] = value; });
    __syncthreads();
    over_rows<Sum>(
        n,
        [&](u32 i, u32 j) {
            Real value = matrix.z[i * n + j];
            return value == -infinity() ? Real(0) : matrix.d[i * n + j] * minus(value, pivots[i]);
        },
        [&](u32 i, Real sum) { sums[i] = sum; });
    __syncthreads();
    if (threadIdx.x > 0) return;
    Compensated total{0, 0};
    for (u32 i = 0; i < n; ++i) total.add(sums[i]);
    out_tau[blockIdx.x] = -total.sum * heat.inverse * heat.inverse;
}

// ---------------------------------------------------------------------------------------------------------- assignment

constexpr u32 NONE = 0xFFFFFFFFu;

// The least length, and of equal ones that of the first column.
DEVICE void lesser(double& length, u32& column, double other, u32 other_column) {
    if (other < length || (other == length && other_column < column)) length = other, column = other_column;
}

// (matrices, n, n) scores -> (matrices, n, n) permutation matrices of the largest sums: src/gumbel_sinkhorn/assignment.rs, operation
// for operation, columns shared out over the block. `vectors` holds for each matrix three vectors of double and four of u32.
DEVICE void assign(const Element* x, const View& view, Real* scratch, u64* vectors, Element* out, const Job& job, const Key& key) {
    __shared__ double lengths_of[2][THREADS / WARP];
    __shared__ u32 columns_of[2][THREADS / WARP];
    u32 n = job.n;
    Matrix matrix(n, RowTau(Tau{1, 1, nullptr, View{}}, 0), nullptr, nullptr, scratch + blockIdx.x * job.room, false, 0);
    out += u64(blockIdx.x) * n * n;
    // Loads past no matrix: k is not touched.
    if (!matrix.load(x, view, job, key)) {
        fill(out, n, not_a_number());
        return;
    }
    double* row_prices = reinterpret_cast<double*>(vectors + u64(blockIdx.x) * 5 * n);
    double *prices = row_prices + n, *lengths = prices + n;
    u32* before = reinterpret_cast<u32*>(lengths + n);
    u32 *done = before + n, *row_of = done + n, *column_of = row_of + n;
    double inf = double_of_bits(0x7FF0000000000000ull);
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) row_prices[j] = 0, prices[j] = 0, row_of[j] = NONE, column_of[j] = NONE;
    u32 parity = 0;
#pragma unroll 1
    for (u32 added = 0; added < n; ++added) {
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) lengths[j] = inf, done[j] = 0;
        __syncthreads();
        u32 row = added, end;
        double reached = 0;
#pragma unroll 1
        for (;;) {
            u32 best = NONE;
            double least = inf, base = minus(reached, row_prices[row]);
            for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
                if (done[j]) continue;
                double length = plus(base, minus(-double(matrix.z[row * n + j]), prices[j]));
                if (length < lengths[j]) lengths[j] = length, before[j] = row;
                if (lengths[j] < least) best = j, least = lengths[j];
            }
#pragma unroll
            for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
                double other = exchange(least, offset);
                lesser(least, best, other, exchange(best, offset));
            }
            if (threadIdx.x % WARP == 0)
                lengths_of[parity][threadIdx.x / WARP] = least, columns_of[parity][threadIdx.x / WARP] = best;
            __syncthreads();
            for (u32 warp = 0; warp < blockDim.x / WARP; ++warp)
                lesser(least, best, lengths_of[parity][warp], columns_of[parity][warp]);
            // Room is written again only after the barrier of the next turn.
            parity ^= 1;
            if (best == NONE) {
                fill(out, n, not_a_number());
                return;
            }
            if (threadIdx.x == best % blockDim.x) done[best] = 1;
            reached = least;
            end = best;
            if (row_of[best] == NONE) break;
            row = row_of[best];
        }
        __syncthreads();
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
            if (!done[j] || j == end) continue;
            double rest = minus(reached, lengths[j]);
            row_prices[row_of[j]] = plus(row_prices[row_of[j]], rest);
            prices[j] = minus(prices[j], rest);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            row_prices[added] = plus(row_prices[added], reached);
            for (u32 column = end;;) {
                u32 from = before[column];
                row_of[column] = from;
                u32 next = column_of[from];
                column_of[from] = column;
                column = next;
                if (from == added) break;
            }
        }
        __syncthreads();
    }
#pragma unroll 1
    for (Walk w(n); w.more(); w.next()) out[w.at] = narrow(column_of[w.i] == w.j ? Real(1) : Real(0));
}

#define GRADIENT SCORES, const Element *g, const __grid_constant__ View g_view

#define PATH(suffix, shared)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                           \
        KERNEL(gumbel_sinkhorn##suffix)(SCORES, Real * scratch, Element * out, CALL) {                                 \
        relaxed<shared>(x, view, scratch, out, Job{n, iterations, noisy, room}, tau, key);                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                           \
        KERNEL(gumbel_sinkhorn_gradient##suffix)(GRADIENT, Real * scratch, Element * out, CALL) {                      \
        gradient<shared, false>(x, view, g, g_view, scratch, out, nullptr, Job{n, iterations, noisy, room}, tau, key);   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                           \
        KERNEL(gumbel_sinkhorn_tau##suffix)(GRADIENT, Real * scratch, Real * out, CALL) {                              \
        gradient<shared, true>(x, view, g, g_view, scratch, nullptr, out, Job{n, iterations, noisy, room}, tau, key);    \
    }

PATH(_shared, true)
PATH(_global, false)

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    KERNEL(gumbel_sinkhorn_st)(SCORES, Real* scratch, u64* vectors, Element* out, JOB, const __grid_constant__ Key key) {
    assign(x, view, scratch, vectors, out, Job{n, iterations, noisy, room}, key);
}
