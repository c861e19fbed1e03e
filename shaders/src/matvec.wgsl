// x * weight^T for a few rows of x: bound by reading the weights, so each is read once.
// A workgroup computes TILE_N columns of out for up to TILE_M rows; its lanes stride over the columns of the weights.
// Linked with one of weight_*.wgsl, one of act_*.wgsl, one of reduce_*.wgsl and one of epilogue_*.wgsl.

struct LinearParams {
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
}

var<immediate> params: LinearParams;

@group(0) @binding(2) var<storage, read> x: array<act4>;               // [rows, blocks * 8]

const LANES: u32 = 64u;
const TILE_M: u32 = 1u;
const TILE_N: u32 = 4u;

@compute @workgroup_size(LANES)
fn matvec(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let first_n = group.x * TILE_N;
    let first_m = group.y * TILE_M;
    var sums: array<array<f32, TILE_N>, TILE_M>;
    for (var block = reduce.lane; block < params.blocks; block += LANES) {
        for (var n = 0u; n < TILE_N; n++) {
            // A row past the end repeats the last one; its sum is not stored.
            let values = weight_block(min(first_n + n, params.cols - 1u), block);
            for (var m = 0u; m < TILE_M; m++) {
                let base = (min(first_m + m, params.rows - 1u) * params.blocks + block) * 8u;
                for (var i = 0u; i < 8u; i++) {
                    sums[m][n] += dot(act_load(x[base + i]), values.quads[i]);
                }
            }
        }
    }
    for (var m = 0u; m < TILE_M; m++) {
        for (var n = 0u; n < TILE_N; n += 4u) {
            var four = vec4<f32>();
            for (var i = 0u; i < min(4u, TILE_N); i++) {
                four[i] = sums[m][n + i];
            }
            let total = reduce_sum4(reduce, four);
            if reduce.lane < min(4u, TILE_N) / 2u {
                let pair = select(total.xy, total.zw, reduce.lane == 1u);
                epilogue_pair(first_m + m, first_n + n + 2u * reduce.lane, pair);
            }
        }
    }
}
