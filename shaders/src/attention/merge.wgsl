// Joins the partial results of query rows whose keys were split over several items, by their log-sum-exp, in order.
// A workgroup takes one merge, one kv head and one of the packed rows; lanes stride over the columns of a head.
// Linked with one of act_*.wgsl.
// Source: Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3, over whole runs.

struct AttentionMerge {
    first_row: u32,   // the first query row, a token of the batch
    rows: u32,
    first_part: u32,  // of its parts in part_starts
    parts: u32,
}

struct AttentionMergeParams {
    group: u32,        // query heads to a kv head
    head_dim: u32,
    head_stride: u32,
    out_stride: u32,   // from one row of out to the next
    partials: u32,     // rows of partial results of a kv head
    first_merge: u32,
}

var<immediate> params: AttentionMergeParams;

@group(0) @binding(0) var<storage, read> merges: array<AttentionMerge>;
@group(0) @binding(1) var<storage, read> part_starts: array<u32>;           // where the first packed row of a merge lies
@group(0) @binding(2) var<storage, read> partial_sum: array<f32>;           // [num_kv_heads, partials, head_stride]: not divided
@group(0) @binding(3) var<storage, read> partial_weight: array<vec2<f32>>;  // [num_kv_heads, partials]: maximum, sum of weights
@group(0) @binding(4) var<storage, read_write> out: array<act>;             // [tokens, num_heads * head_dim, padded]

const LANES: u32 = 32u;

@compute @workgroup_size(LANES)
fn attention_merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let merge = merges[params.first_merge + group.x];
    let packed = group.y;
    if packed >= merge.rows * params.group {
        return;
    }
    let base = group.z * params.partials + packed;
    var largest = partial_weight[base + part_starts[merge.first_part]].x;
    for (var i = 1u; i < merge.parts; i++) {
        largest = max(largest, partial_weight[base + part_starts[merge.first_part + i]].x);
    }
    let row = merge.first_row + packed / params.group;
    let head = group.z * params.group + packed % params.group;
    for (var col = lane; col < params.head_dim; col += LANES) {
        var sum = 0.0;
        var total = 0.0;
        for (var i = 0u; i < merge.parts; i++) {
            let at = base + part_starts[merge.first_part + i];
            let weight = partial_weight[at];
            let rescale = exp2(weight.x - largest);
            total += weight.y * rescale;
            sum += partial_sum[at * params.head_stride + col] * rescale;
        }
        out[row * params.out_stride + head * params.head_dim + col] = act_store(vec4<f32>(sum / total)).x;
    }
}
