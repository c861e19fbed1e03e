// x * weight^T in cooperative matrices, f16 in and f32 out, any number of rows. A subgroup sums TILE_M x TILE_N outputs in
// fragments of COOP_SIDE x COOP_SIDE, its workgroup SUBGROUPS_M x SUBGROUPS_N such tiles. DEPTH columns of x and of the
// weights at a time go to workgroup memory, the weights decoded to f16; while a stage is multiplied, the next one is on its
// way into registers. Workgroup z of a split product sums the z-th stretch of `split_blocks` blocks into rows of its own.
// Linked with matmul_forms.wgsl, a weight format (weight_*.wgsl), one of act_*.wgsl, one of coop_*.wgsl and one of epilogue_*.wgsl.

const SUBGROUP_LANES: u32 = 32u;
const SUBGROUPS_M: u32 = 2u;
const SUBGROUPS_N: u32 = 2u;
const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const DEPTH: u32 = 32u;
const STAGES: u32 = 2u;

const SUBGROUPS: u32 = SUBGROUPS_M * SUBGROUPS_N;
const LANES: u32 = SUBGROUPS * SUBGROUP_LANES;
const GROUP_M: u32 = SUBGROUPS_M * TILE_M;
const GROUP_N: u32 = SUBGROUPS_N * TILE_N;
const FRAGMENTS_M: u32 = TILE_M / COOP_SIDE;
const FRAGMENTS_N: u32 = TILE_N / COOP_SIDE;
const FRAGMENT: u32 = COOP_SIDE * COOP_SIDE;
const QUADS: u32 = DEPTH / 4u;
const BLOCKS: u32 = DEPTH / 32u;
const STRIDE: u32 = DEPTH + 8u; // f16 to a staged row: 16 bytes more, so that eight rows spread over all banks
const LANE_QUADS: u32 = (GROUP_M * QUADS + LANES - 1u) / LANES;
const LANE_BLOCKS: u32 = (GROUP_N * BLOCKS + LANES - 1u) / LANES;

var<workgroup> staged_x: array<coop_word, STAGES * GROUP_M * STRIDE / COOP_WORD>;
var<workgroup> staged_weight: array<coop_word, STAGES * GROUP_N * STRIDE / COOP_WORD>;
var<workgroup> fragments: array<f32, SUBGROUPS * FRAGMENT>;

// A lane's share of a stage.
struct Stage {
    x: array<vec4<f16>, LANE_QUADS>,
    weight: array<array<vec4<f16>, 8>, LANE_BLOCKS>,
}

// The largest f16 stands for what is beyond it.
fn halves(value: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(value, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

// Columns and blocks of the weights past the end repeat the last one.
fn fetch(stage: ptr<function, Stage>, first_m: u32, first_n: u32, block: u32, end: u32, lane: u32) {
    for (var i = 0u; i < LANE_QUADS; i++) {
        (*stage).x[i] = vec4<f16>(matmul_quad(first_m, block, end, lane + i * LANES));
    }
    for (var i = 0u; i < LANE_BLOCKS; i++) {
        let at = lane + i * LANES;
        let values = weight_block(min(first_n + at / BLOCKS, params.cols - 1u), min(block + at % BLOCKS, end - 1u));
        for (var quad = 0u; quad < 8u; quad++) {
            (*stage).weight[i][quad] = halves(values.quads[quad]);
        }
    }
}

fn put(stage: ptr<function, Stage>, buffer: u32, lane: u32) {
    for (var i = 0u; i < LANE_QUADS; i++) {
        let at = lane + i * LANES;
        let to = (buffer * GROUP_M + at / QUADS) * STRIDE + at % QUADS * 4u;
        if at < GROUP_M * QUADS {
            for (var first = 0u; first < 4u; first += COOP_WORD) {
                staged_x[(to + first) / COOP_WORD] = coop_word_of((*stage).x[i], first);
            }
        }
    }
    for (var i = 0u; i < LANE_BLOCKS; i++) {
        let at = lane + i * LANES;
        let to = (buffer * GROUP_N + at / BLOCKS) * STRIDE + at % BLOCKS * 32u;
        if at < GROUP_N * BLOCKS {
            for (var first = 0u; first < 32u; first += COOP_WORD) {
                staged_weight[(to + first) / COOP_WORD] = coop_word_of((*stage).weight[i][first / 4u], first % 4u);
            }
        }
    }
}

@compute @workgroup_size(LANES)
fn matmul_coop(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // Rows first: workgroups that run together share their weights.
    let first_m = group.x * GROUP_M;
    let first_n = group.y * GROUP_N;
    let first = group.z * params.split_blocks;
    let end = min(first + params.split_blocks, params.blocks);
    let tile_m = subgroup / SUBGROUPS_N * TILE_M;
    let tile_n = subgroup % SUBGROUPS_N * TILE_N;

    // Zeros for all sums to start from.
    for (var i = lane; i < FRAGMENT; i += LANES) {
        fragments[i] = 0.0;
    }
    workgroupBarrier();
    var sums: array<array<coop_c, FRAGMENTS_N>, FRAGMENTS_M>;
    for (var m = 0u; m < FRAGMENTS_M; m++) {
        for (var n = 0u; n < FRAGMENTS_N; n++) {
            sums[m][n] = coopLoadT<coop_c>(&fragments[0], COOP_SIDE);
        }
    }

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
        for (var k = 0u; k < DEPTH; k += COOP_SIDE) {
            var a: array<coop_a, FRAGMENTS_M>;
            for (var m = 0u; m < FRAGMENTS_M; m++) {
                let row = buffer * GROUP_M + tile_m + m * COOP_SIDE;
                a[m] = coopLoadT<coop_a>(&staged_x[(row * STRIDE + k) / COOP_WORD], STRIDE / COOP_WORD);
            }
            for (var n = 0u; n < FRAGMENTS_N; n++) {
                let col = buffer * GROUP_N + tile_n + n * COOP_SIDE;
                let b = coopLoad<coop_b>(&staged_weight[(col * STRIDE + k) / COOP_WORD], STRIDE / COOP_WORD);
                for (var m = 0u; m < FRAGMENTS_M; m++) {
                    sums[m][n] = coopMultiplyAdd(a[m], b, sums[m][n]);
                }
            }
        }
        buffer = STAGES - 1u - buffer;
    }

    for (var m = 0u; m < FRAGMENTS_M; m++) {
        for (var n = 0u; n < FRAGMENTS_N; n++) {
            coopStoreT(sums[m][n], &fragments[subgroup * FRAGMENT], COOP_SIDE);
            workgroupBarrier();
            for (var i = lane; i < SUBGROUPS * FRAGMENT / 2u; i += LANES) {
                let owner = 2u * i / FRAGMENT;
                let row = first_m + owner / SUBGROUPS_N * TILE_M + m * COOP_SIDE + 2u * i % FRAGMENT / COOP_SIDE;
                let col = first_n + owner % SUBGROUPS_N * TILE_N + n * COOP_SIDE + 2u * i % COOP_SIDE;
                // The row `params.rows` is past the end of out.
                let out_row = select(params.rows, group.z * params.x_rows + row, row < params.x_rows);
                epilogue_pair(out_row, col, vec2<f32>(fragments[2u * i], fragments[2u * i + 1u]));
            }
            workgroupBarrier(); // the next fragments come to the same place
        }
    }
}
