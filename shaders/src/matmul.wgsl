// x * weight^T, any number of rows, in register tiles: a lane computes TILE_M x TILE_N outputs, its
// workgroup LANES_M x LANES_N such tiles. With STAGE = 1 a workgroup first decodes 32 columns of its weights and its x into
// workgroup memory; with STAGE = 0 lanes read for themselves, which suits adapters whose barriers are dear: where LANES_M
// is 1 a workgroup's lanes read the same x.
// Lane (i, j) owns the rows i + a * LANES_M and the pairs of columns j + b * LANES_N of its workgroup's tile.
// Linked with one of weight_*.wgsl, one of act_*.wgsl and one of epilogue_*.wgsl.

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

const LANES_M: u32 = 8u;
const LANES_N: u32 = 8u;
const TILE_M: u32 = 4u;
const TILE_N: u32 = 4u;
const STAGE: u32 = 1u;

const LANES: u32 = LANES_M * LANES_N;
const GROUP_M: u32 = LANES_M * TILE_M;
const GROUP_N: u32 = LANES_N * TILE_N;
const STAGE_STRIDE: u32 = 9u; // quads to a staged row of 32 values: odd, so that rows spread over the banks

var<workgroup> staged_x: array<vec4<f32>, STAGE * GROUP_M * STAGE_STRIDE + 1u>;
var<workgroup> staged_weight: array<vec4<f32>, STAGE * GROUP_N * STAGE_STRIDE + 1u>;

fn stage(first_m: u32, first_n: u32, block: u32, lane: u32) {
    for (var i = lane; i < GROUP_M * 8u; i += LANES) {
        let row = min(first_m + i / 8u, params.rows - 1u);
        staged_x[(i / 8u) * STAGE_STRIDE + i % 8u] = act_load(x[(row * params.blocks + block) * 8u + i % 8u]);
    }
    for (var n = lane; n < GROUP_N; n += LANES) {
        let values = weight_block(min(first_n + n, params.cols - 1u), block);
        for (var i = 0u; i < 8u; i++) {
            staged_weight[n * STAGE_STRIDE + i] = values.quads[i];
        }
    }
}

// Of a lane's n-th column within the tile.
fn tile_col(lane_n: u32, n: u32) -> u32 {
    return 2u * (lane_n + n / 2u * LANES_N) + n % 2u;
}

@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first_m = group.y * GROUP_M;
    let first_n = group.x * GROUP_N;
    let lane_m = select(lane / LANES_N, 0u, LANES_M == 1u);
    let lane_n = lane % LANES_N;
    var sums: array<array<f32, TILE_N>, TILE_M>;
    for (var block = 0u; block < params.blocks; block++) {
        if STAGE == 1u {
            workgroupBarrier(); // the last stretch may still be read
            stage(first_m, first_n, block, lane);
            workgroupBarrier();
            for (var i = 0u; i < 8u; i++) {
                var values: array<vec4<f32>, TILE_N>;
                for (var n = 0u; n < TILE_N; n++) {
                    values[n] = staged_weight[tile_col(lane_n, n) * STAGE_STRIDE + i];
                }
                for (var m = 0u; m < TILE_M; m++) {
                    let quad = staged_x[(lane_m + m * LANES_M) * STAGE_STRIDE + i];
                    for (var n = 0u; n < TILE_N; n++) {
                        sums[m][n] += dot(quad, values[n]);
                    }
                }
            }
        } else {
            var quads: array<array<vec4<f32>, 8>, TILE_M>;
            for (var m = 0u; m < TILE_M; m++) {
                let row = min(first_m + lane_m + m * LANES_M, params.rows - 1u);
                for (var i = 0u; i < 8u; i++) {
                    quads[m][i] = act_load(x[(row * params.blocks + block) * 8u + i]);
                }
            }
            for (var n = 0u; n < TILE_N; n++) {
                let values = weight_block(min(first_n + tile_col(lane_n, n), params.cols - 1u), block);
                for (var m = 0u; m < TILE_M; m++) {
                    for (var i = 0u; i < 8u; i++) {
                        sums[m][n] += dot(quads[m][i], values.quads[i]);
                    }
                }
            }
        }
    }
    for (var m = 0u; m < TILE_M; m++) {
        for (var n = 0u; n < TILE_N; n += 2u) {
            epilogue_pair(first_m + lane_m + m * LANES_M, first_n + tile_col(lane_n, n), vec2<f32>(sums[m][n], sums[m][n + 1u]));
        }
    }
}
