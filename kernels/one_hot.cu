// The one-hot at each row's largest logit plus Gumbel noise: the draw that gumbel_softmax_st and the other estimators of a
// one-hot share.
#include "race.cuh"

#define LOGITS const Element *x, const __grid_constant__ View view
#define SHAPE const __grid_constant__ Rows rows, const __grid_constant__ Key key

extern "C" {

__global__ void __launch_bounds__(128, 1) KERNEL(one_hot_lanes)(LOGITS, Element* out, SHAPE, u32 lanes) {
    race_rows(Lanes{lanes}, x, view, OneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(512) KERNEL(one_hot_block)(LOGITS, Element* out, SHAPE) {
    race_rows(Block{}, x, view, OneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(512)
    KERNEL(one_hot_pieces)(LOGITS, Race* races, SHAPE, u32 pieces, u32 groups) {
    race_pieces(x, view, races, rows, key, pieces, groups);
}
// Every block writes its own stretch of the one-hot.
__global__ void __launch_bounds__(512)
    KERNEL(one_hot_join)(const Race* races, Element* out, Rows rows, u32 pieces, u32 groups) {
    Block team;
    Stretch stretch(rows, pieces, groups);
    Race race = join_pieces(team, races + stretch.row * pieces, pieces);
    OneHotOut{out}.write(team, stretch.span, stretch.from, race);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1) KERNEL(one_hot_columns)(LOGITS, Element* out, SHAPE) {
    race_columns<ColumnOneHotOut, GROUP>(x, view, ColumnOneHotOut{out}, rows, key);
}
__global__ void __launch_bounds__(COLUMN_THREADS, 1)
    KERNEL(one_hot_columns_one)(LOGITS, Element* out, SHAPE) {
    race_columns<ColumnOneHotOut, 1>(x, view, ColumnOneHotOut{out}, rows, key);
}
}
