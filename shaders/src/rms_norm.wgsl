// Root-mean-square norm of chosen rows: out = residual * weight / sqrt(mean(residual * residual) + eps).
// One workgroup a row; lanes stride over quads of columns. Padding columns hold zeros and stay zero.
// Linked with one of act_*.wgsl and one of reduce_*.wgsl.
// Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.

struct RmsNormParams {
    cols: u32,
    stride_quads: u32,  // from one row to the next, in residual and out
    eps: f32,
    gather: u32,        // 1: row r is rows[r] of residual; 0: row r
}

var<immediate> params: RmsNormParams;

@group(0) @binding(0) var<storage, read> residual: array<vec4<f32>>;  // [tokens, stride]
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;    // [cols, padded with zeros]
@group(0) @binding(2) var<storage, read> rows: array<u32>;            // [rows]
@group(0) @binding(3) var<storage, read_write> out: array<act4>;      // [rows, stride]

const LANES: u32 = 128u;

@compute @workgroup_size(LANES)
fn rms_norm(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    var row = group.x;
    if params.gather == 1u {
        row = rows[row];
    }
    let read_base = row * params.stride_quads;
    let write_base = group.x * params.stride_quads;
    let quads = (params.cols + 3u) / 4u;
    var squares = vec4<f32>();
    for (var quad = reduce.lane; quad < quads; quad += LANES) {
        let value = residual[read_base + quad];
        squares += value * value;
    }
    let sum = reduce_sum4(reduce, squares);
    let scale = inverseSqrt((sum.x + sum.y + sum.z + sum.w) / f32(params.cols) + params.eps);
    for (var quad = reduce.lane; quad < quads; quad += LANES) {
        out[write_base + quad] = act_store(residual[read_base + quad] * weight[quad] * scale);
    }
}
