// gumbel_max: the index of the largest of logits plus Gumbel noise in each row.
#include "race.cuh"

#define LOGITS const Element *x, const __grid_constant__ View view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Key key

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(gumbel_max_lanes)(LOGITS, u32* out, SHAPE, u32 lanes) {
    race_rows(Lanes{lanes}, x, view, IndexOut{out}, rows, key);
}

__global__ void __launch_bounds__(512) KERNEL(gumbel_max_block)(LOGITS, u32* out, SHAPE) {
    race_rows(Block{}, x, view, IndexOut{out}, rows, key);
}

// Few long rows: the race of every stretch, then that of the winners, a warp a row.
__global__ void __launch_bounds__(512)
    KERNEL(gumbel_max_pieces)(LOGITS, Race* races, SHAPE, u32 pieces, u32 groups) {
    race_pieces(x, view, races, rows, key, pieces, groups);
}
__global__ void __launch_bounds__(128) KERNEL(gumbel_max_join)(const Race* races, u32* out, Rows rows, u32 pieces) {
    Lanes team{WARP};
    u64 row = row_of(team);
    if (row >= rows.count) return;
    IndexOut{out}.write(team, row, rows, join_pieces(team, races + row * pieces, pieces));
}

__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(gumbel_max_columns)(LOGITS, u32* out, SHAPE) {
    race_columns<ColumnIndexOut, GROUP>(x, view, ColumnIndexOut{out}, rows, key);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(gumbel_max_columns_one)(LOGITS, u32* out, SHAPE) {
    race_columns<ColumnIndexOut, 1>(x, view, ColumnIndexOut{out}, rows, key);
}
}
