// Joins the partial results of query rows whose keys were split over several items, by their log-sum-exp.
// A workgroup takes one merge and one of its packed rows; lanes stride over the columns of a head.
// Linked with one of act_*.wgsl.
// Source: Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3, over whole runs.

struct AttentionMerge {
    first_row: u32,  // the first query row, a token of the batch
    rows: u32,
    kv_head: u32,
    partial: u32,    // the first item's partial results; the next item's follow after rows * group
    parts: u32,      // items
}

struct AttentionMergeParams {
    group: u32,       // query heads to a kv head
    head_dim: u32,
    head_stride: u32,
    out_stride: u32,  // from one row of out to the next
    first_merge: u32,
}

var<immediate> params: AttentionMergeParams;

@group(0) @binding(0) var<storage, read> merges: array<AttentionMerge>;
@group(0) @binding(1) var<storage, read> partial_sum: array<f32>;           // [partials, head_stride]: not divided
@group(0) @binding(2) var<storage, read> partial_weight: array<vec2<f32>>;  // [partials]: maximum, sum of weights
@group(0) @binding(3) var<storage, read_write> out: array<act>;             // [tokens, num_heads * head_dim, padded]

const LANES: u32 = 32u;

@compute @workgroup_size(LANES)
fn attention_merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let merge = merges[params.first_merge + group.x];
    let packed_rows = merge.rows * params.group;
    let packed = group.y;
    if packed >= packed_rows {
        return;
    }
    var largest = partial_weight[merge.partial + packed].x;
    for (var i = 1u; i < merge.parts; i++) {
        largest = max(largest, partial_weight[merge.partial + i * packed_rows + packed].x);
    }
    let row = merge.first_row + packed / params.group;
    let head = merge.kv_head * params.group + packed % params.group;
    for (var col = lane; col < params.head_dim; col += LANES) {
        var sum = 0.0;
        var total = 0.0;
        for (var i = 0u; i < merge.parts; i++) {
            let at = merge.partial + i * packed_rows + packed;
            let weight = partial_weight[at];
            let rescale = exp2(weight.x - largest);
            total += weight.y * rescale;
            sum += partial_sum[at * params.head_stride + col] * rescale;
        }
        out[row * params.out_stride + head * params.head_dim + col] = act_store(vec4<f32>(sum / total)).x;
    }
}
