// improper_rows: which rows have nothing to draw from, being all -inf or holding NaN or +inf.
#include "softmax.cuh"

template <typename Team>
DEVICE void improper(Team team, const Element* x, const View& view, unsigned char* out, const Rows& rows) {
    u64 row = row_of(team);
    bool active = row < rows.count;
    row = active ? row : rows.count - 1;
    const Element* own = x + row_base(view, row);
    // The largest element, and +inf in place of a NaN.
    Real max = -infinity();
    for (u64 k = team.rank(); k < rows.len; k += team.size()) {
        Real z = widen(own[k * view.stride]);
        max = larger(max, z == z ? z : infinity());
    }
    max = team.template reduce<Max, 0>(max);
    if (active && team.rank() == 0) out[row] = !(max > -infinity() && max < infinity());
}

extern "C" {

__global__ void __launch_bounds__(128)
    KERNEL(improper_rows_lanes)(const Element* x, const __grid_constant__ View view, unsigned char* out,
                                const __grid_constant__ Rows rows, u32 lanes) {
    improper(Lanes{lanes}, x, view, out, rows);
}
__global__ void __launch_bounds__(512)
    KERNEL(improper_rows_block)(const Element* x, const __grid_constant__ View view, unsigned char* out,
                                const __grid_constant__ Rows rows) {
    improper(Block{}, x, view, out, rows);
}
}
