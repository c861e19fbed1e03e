// What both forms of a product of few rows are given, x * weight^T, and how they end.
// Linked with one of input_*.wgsl, of reduce_*.wgsl and of epilogue_*.wgsl. Needs `const TILE_M` and `const TILE_N`, the rows and
// columns of a workgroup.

struct MatvecParams {
    rows: u32,              // of x and out
    cols: u32,              // of out in this binding: rows of the weights
    blocks: u32,            // of 32 columns of x
    weight_row_quads: u32,
    weight_blocks: u32,
    first_col: u32,         // where this binding's columns start in out and bias
    out_stride: u32,        // from one row of out to the next
    bias: u32,              // 1: add bias
    add: u32,               // 1: add to what out holds
    activation: u32,        // of a gated epilogue: 0: SiLU, 1: GELU's tanh form
    norm_cols: u32,         // normed inputs: columns that count
    eps: f32,               // normed inputs: added to the mean square
    gather: u32,            // normed inputs, 1: row r is gather[r]
}

var<immediate> params: MatvecParams;

// What the lanes of a workgroup have summed, of its columns from `first_n` on and rows from `first_m` on, goes to the epilogue; with
// normed inputs the squares of x give the factor of a row.
fn matvec_finish(
    reduce: ReduceBuiltins,
    first_m: u32,
    first_n: u32,
    sums: ptr<function, array<array<f32, TILE_N>, TILE_M>>,
    squares: ptr<function, array<f32, TILE_M>>,
) {
    var norms: array<f32, TILE_M>;
    if INPUT_NORMED == 1u {
        for (var m = 0u; m < TILE_M; m += 4u) {
            var four = vec4<f32>();
            for (var i = 0u; i < min(4u, TILE_M); i++) {
                four[i] = (*squares)[m + i];
            }
            let total = reduce_sum4(reduce, four);
            for (var i = 0u; i < min(4u, TILE_M); i++) {
                norms[m + i] = inverseSqrt(total[i] / f32(params.norm_cols) + params.eps);
            }
        }
    }
    for (var m = 0u; m < TILE_M; m++) {
        for (var n = 0u; n < TILE_N; n += 4u) {
            var four = vec4<f32>();
            for (var i = 0u; i < min(4u, TILE_N); i++) {
                four[i] = (*sums)[m][n + i];
            }
            var total = reduce_sum4(reduce, four);
            if INPUT_NORMED == 1u {
                total *= norms[m];
            }
            if reduce.lane < min(4u, TILE_N) / 2u {
                let pair = select(total.xy, total.zw, reduce.lane == 1u);
                epilogue_pair(first_m + m, first_n + n + 2u * reduce.lane, pair);
            }
        }
    }
}
