// The negative log-likelihood of a target column in every row of logits: log(sum(exp(logit))) - logit[target].
// One workgroup a row; lanes stride over the columns.
// Linked with one of reduce_*.wgsl.

struct CrossEntropyParams {
    cols: u32,
    stride: u32,  // from one row of logits to the next
}

var<immediate> params: CrossEntropyParams;

@group(0) @binding(0) var<storage, read> logits: array<f32>;       // [rows, stride]
@group(0) @binding(1) var<storage, read> targets: array<u32>;      // [rows]
@group(0) @binding(2) var<storage, read_write> nll: array<f32>;    // [rows]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let base = group.x * params.stride;
    var best = -3.4e38;
    for (var col = reduce.lane; col < params.cols; col += LANES) {
        best = max(best, logits[base + col]);
    }
    let largest = reduce_max4(reduce, vec4<f32>(best)).x;
    var sum = 0.0;
    for (var col = reduce.lane; col < params.cols; col += LANES) {
        sum += exp(logits[base + col] - largest);
    }
    let total = reduce_sum4(reduce, vec4<f32>(sum)).x;
    if reduce.lane == 0u {
        nll[group.x] = log(total) + largest - logits[base + targets[group.x]];
    }
}
