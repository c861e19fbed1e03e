// Joins the partial results of query rows whose keys were split over several items, by their log-sum-exp, in order.
// A workgroup takes one merge, one kv head and one of the packed rows, a lane a column of the head. Lanes find the weights of a
// part each, then all read PARTS parts at a time. Sums are taken part by part in order, and a part that saw no key changes
// nothing, so that a row's result does not depend on where its list of parts begins.
// Linked with one of act_*.wgsl and one of reduce_*.wgsl.
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

const LANES: u32 = 128u;
const PARTS: u32 = 16u;
const LOWEST: f32 = -3.0e38;

var<workgroup> staged_start: array<u32, LANES>;        // of a part's sums
var<workgroup> staged_weight: array<vec2<f32>, LANES>; // what a part's sums count, and its weights together

@compute @workgroup_size(LANES)
fn attention_merge(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let merge = merges[params.first_merge + group.x];
    let packed = group.y;
    if packed >= merge.rows * params.group {
        return;
    }
    let base = group.z * params.partials + packed;
    var own = LOWEST;
    for (var i = reduce.lane; i < merge.parts; i += LANES) {
        own = max(own, partial_weight[base + part_starts[merge.first_part + i]].x);
    }
    let largest = reduce_max4(reduce, vec4<f32>(own)).x;
    let row = merge.first_row + packed / params.group;
    let head = group.z * params.group + packed % params.group;
    for (var first_col = 0u; first_col < params.head_dim; first_col += LANES) {
        let col = first_col + reduce.lane;
        let read_col = min(col, params.head_dim - 1u);
        var sum = 0.0;
        var total = 0.0;
        for (var first = 0u; first < merge.parts; first += LANES) {
            let count = min(LANES, merge.parts - first);
            workgroupBarrier(); // the last parts are read
            if reduce.lane < count {
                let at = base + part_starts[merge.first_part + first + reduce.lane];
                let weight = partial_weight[at];
                let rescale = exp2(weight.x - largest);
                staged_start[reduce.lane] = at * params.head_stride;
                staged_weight[reduce.lane] = vec2<f32>(rescale, weight.y * rescale);
            }
            workgroupBarrier();
            var values: array<f32, PARTS>;
            for (var part = 0u; part < count; part += PARTS) {
                for (var i = 0u; i < PARTS; i++) {
                    // A part past the end repeats the last one, without weight.
                    values[i] = partial_sum[staged_start[min(part + i, count - 1u)] + read_col];
                }
                for (var i = 0u; i < PARTS; i++) {
                    let weight = select(vec2<f32>(), staged_weight[min(part + i, count - 1u)], part + i < count);
                    sum = fma(values[i], weight.x, sum);
                    total += weight.y;
                }
            }
        }
        if col < params.head_dim {
            out[row * params.out_stride + head * params.head_dim + col] = act_store(vec4<f32>(sum / total)).x;
        }
    }
}
