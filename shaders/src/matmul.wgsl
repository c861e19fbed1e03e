// x * weight^T, any number of rows, in register tiles: a lane computes TILE_M x TILE_N outputs, its
// workgroup LANES_M x LANES_N such tiles. With STAGES > 0 a workgroup decodes DEPTH columns of its weights and its x into one
// of STAGES buffers in workgroup memory; while they are multiplied, the next ones are on their way into registers. With
// STAGES = 0 lanes read for themselves, which suits adapters whose barriers are dear: where LANES_M is 1 a workgroup's
// lanes read the same x.
// Lane (i, j) owns the rows i + a * LANES_M and the pairs of columns j + b * LANES_N of its workgroup's tile.
// Workgroup z of a split product sums the z-th stretch of `split_blocks` blocks into rows of its own.
// Linked with matmul_forms.wgsl, a weight format (weight_*.wgsl), one of act_*.wgsl and one of epilogue_*.wgsl.

const LANES_M: u32 = 8u;
const LANES_N: u32 = 8u;
const TILE_M: u32 = 4u;
const TILE_N: u32 = 4u;
const STAGES: u32 = 1u;
const DEPTH: u32 = 32u;

const LANES: u32 = LANES_M * LANES_N;
const GROUP_M: u32 = LANES_M * TILE_M;
const GROUP_N: u32 = LANES_N * TILE_N;
const QUADS: u32 = DEPTH / 4u;
const BLOCKS: u32 = DEPTH / 32u;
const STRIDE: u32 = QUADS + 1u; // quads to a staged row: odd, so that rows spread over the banks
const LANE_QUADS: u32 = (GROUP_M * QUADS + LANES - 1u) / LANES;
const LANE_BLOCKS: u32 = (GROUP_N * BLOCKS + LANES - 1u) / LANES;

var<workgroup> staged_x: array<vec4<f32>, STAGES * GROUP_M * STRIDE + 1u>;
var<workgroup> staged_weight: array<vec4<f32>, STAGES * GROUP_N * STRIDE + 1u>;

// A lane's share of a stage.
struct Stage {
    x: array<act4, LANE_QUADS>,
    weight: array<WeightBlock, LANE_BLOCKS>,
}

// The column of a tile that is staged in row `place`: first all even ones, so that neighbouring lanes read neighbouring rows.
fn staged_col(place: u32) -> u32 {
    return place % (GROUP_N / 2u) * 2u + place / (GROUP_N / 2u);
}

// Columns and blocks of the weights past the end repeat the last one.
fn fetch(stage: ptr<function, Stage>, first_m: u32, first_n: u32, block: u32, end: u32, lane: u32) {
    for (var i = 0u; i < LANE_QUADS; i++) {
        (*stage).x[i] = matmul_quad(first_m, block, end, lane + i * LANES);
    }
    for (var i = 0u; i < LANE_BLOCKS; i++) {
        let at = lane + i * LANES;
        let col = first_n + staged_col(at / BLOCKS % GROUP_N);
        (*stage).weight[i] = weight_block(min(col, params.cols - 1u), min(block + at % BLOCKS, end - 1u));
    }
}

fn put(stage: ptr<function, Stage>, buffer: u32, lane: u32) {
    for (var i = 0u; i < LANE_QUADS; i++) {
        let at = lane + i * LANES;
        if at < GROUP_M * QUADS {
            staged_x[(buffer * GROUP_M + at / QUADS) * STRIDE + at % QUADS] = act_load((*stage).x[i]);
        }
    }
    for (var i = 0u; i < LANE_BLOCKS; i++) {
        let at = lane + i * LANES;
        if at < GROUP_N * BLOCKS {
            for (var quad = 0u; quad < 8u; quad++) {
                let to = (buffer * GROUP_N + at / BLOCKS) * STRIDE + at % BLOCKS * 8u + quad;
                staged_weight[to] = (*stage).weight[i].quads[quad];
            }
        }
    }
}

// Of a lane's n-th column within the tile.
fn tile_col(lane_n: u32, n: u32) -> u32 {
    return 2u * (lane_n + n / 2u * LANES_N) + n % 2u;
}

@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Staged, rows first: workgroups that run together share their weights.
    let tile = select(group.xy, group.yx, STAGES > 0u);
    let first_m = tile.y * GROUP_M;
    let first_n = tile.x * GROUP_N;
    let first = group.z * params.split_blocks;
    let end = min(first + params.split_blocks, params.blocks);
    let lane_m = select(lane / LANES_N, 0u, LANES_M == 1u);
    let lane_n = lane % LANES_N;
    var sums: array<array<f32, TILE_N>, TILE_M>;
    if STAGES > 0u {
        var stage: Stage;
        var buffer = 0u;
        fetch(&stage, first_m, first_n, first, end, lane);
        for (var block = first; block < end; block += BLOCKS) {
            if STAGES == 1u {
                workgroupBarrier(); // the last stage may still be read
            }
            put(&stage, buffer, lane);
            workgroupBarrier();
            // The last stage is fetched once more: a branch would keep the loads from overlapping the products.
            fetch(&stage, first_m, first_n, select(block, block + BLOCKS, block + BLOCKS < end), end, lane);
            for (var i = 0u; i < QUADS; i++) {
                var values: array<vec4<f32>, TILE_N>;
                for (var n = 0u; n < TILE_N; n++) {
                    let place = lane_n + n / 2u * LANES_N + n % 2u * (GROUP_N / 2u);
                    values[n] = staged_weight[(buffer * GROUP_N + place) * STRIDE + i];
                }
                for (var m = 0u; m < TILE_M; m++) {
                    let quad = staged_x[(buffer * GROUP_M + lane_m + m * LANES_M) * STRIDE + i];
                    for (var n = 0u; n < TILE_N; n++) {
                        // Four multiply-adds, where a dot product takes an addition more.
                        sums[m][n] += quad.x * values[n].x;
                        sums[m][n] += quad.y * values[n].y;
                        sums[m][n] += quad.z * values[n].z;
                        sums[m][n] += quad.w * values[n].w;
                    }
                }
            }
            buffer = max(STAGES, 1u) - 1u - buffer;
        }
    } else {
        for (var block = first; block < end; block++) {
            var quads: array<array<vec4<f32>, 8>, TILE_M>;
            for (var m = 0u; m < TILE_M; m++) {
                let row = min(first_m + lane_m + m * LANES_M, params.x_rows - 1u);
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
        let row = first_m + lane_m + m * LANES_M;
        // The row `params.rows` is past the end of out.
        let out_row = select(params.rows, group.z * params.x_rows + row, row < params.x_rows);
        for (var n = 0u; n < TILE_N; n += 2u) {
            epilogue_pair(out_row, first_n + tile_col(lane_n, n), vec2<f32>(sums[m][n], sums[m][n + 1u]));
        }
    }
}
