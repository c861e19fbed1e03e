// Causal attention, tile form: many query rows against a run of keys.
// A workgroup takes one item, one kv head and LANES of the packed rows (row * group + head in group), a lane each, with the
// lane's query and its sum of values in registers. All lanes read the same keys and values, four keys at a time; keys that no
// row of the workgroup sees are skipped. Softmax is online, in base 2.
// Linked with one of act_*.wgsl and one of kv_*.wgsl.
// Source: Dao 2023, arXiv:2307.08691, algorithm 1.

struct AttentionItem {
    first_row: u32,       // the first query row, a token of the batch
    rows: u32,            // query rows
    first_slot: u32,      // of the first key
    count: u32,           // keys
    first_position: u32,  // of the first key
    row_position: u32,    // of the first query row
    partial: u32,         // where the packed rows start in the partial results of a kv head, or DIRECT
}

struct AttentionParams {
    num_heads: u32,
    group: u32,           // query heads to a kv head
    head_dim: u32,
    slots: u32,           // of a head's plane
    window: u32,          // a query sees this many positions, its own among them; 0: all
    scale_log2: f32,      // softmax scale times log2(e)
    out_stride: u32,      // from one row of out to the next
    partials: u32,        // rows of partial results of a kv head
    first_item: u32,
}

var<immediate> params: AttentionParams;

@group(0) @binding(0) var<storage, read> q: array<act4>;                         // [tokens, num_heads, HEAD_STRIDE]
@group(0) @binding(1) var<storage, read> k: array<kv4>;                          // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(2) var<storage, read> v: array<kv4>;                          // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(3) var<storage, read> items: array<AttentionItem>;
@group(0) @binding(4) var<storage, read_write> out: array<act>;                  // [tokens, num_heads * head_dim, padded]
@group(0) @binding(5) var<storage, read_write> partial_sum: array<f32>;          // [num_kv_heads, partials, HEAD_STRIDE]: not divided
@group(0) @binding(6) var<storage, read_write> partial_weight: array<vec2<f32>>; // [num_kv_heads, partials]: maximum, sum of weights

const LANES: u32 = 32u;
const HEAD_STRIDE: u32 = 64u;

const QUADS: u32 = HEAD_STRIDE / 4u;
const DIRECT: u32 = 0xffffffffu;
const MASKED: f32 = -3.0e38; // finite, so that a row that sees no key of the run makes no NaN

@compute @workgroup_size(LANES)
fn attention_tile(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let item = items[params.first_item + group.x];
    let kv_head = group.z;
    let packed_rows = item.rows * params.group;
    let first = group.y * LANES;
    if first >= packed_rows {
        return;
    }
    // A packed row past the end repeats the last one; its result is not stored.
    let packed = min(first + lane, packed_rows - 1u);
    let row = item.first_row + packed / params.group;
    let head = kv_head * params.group + packed % params.group;
    let position = item.row_position + packed / params.group;
    var query: array<vec4<f32>, QUADS>;
    var sums: array<vec4<f32>, QUADS>;
    for (var i = 0u; i < QUADS; i++) {
        query[i] = act_load(q[(row * params.num_heads + head) * QUADS + i]) * params.scale_log2;
        sums[i] = vec4<f32>();
    }

    // Keys that some row of this workgroup sees: [first_key, end_key), the same for all lanes. The first is a multiple of
    // four, so that a row adds the same four keys at a time in whatever tile it is; fours that it does not see change nothing.
    let last_position = item.row_position + min(first + LANES - 1u, packed_rows - 1u) / params.group;
    let end_key = min(item.count, max(last_position + 1u, item.first_position) - item.first_position);
    var first_key = 0u;
    if params.window > 0u {
        let seen_from = max(item.row_position + first / params.group + 1u, params.window) - params.window;
        first_key = (max(seen_from, item.first_position) - item.first_position) & ~3u;
    }

    let plane = kv_head * params.slots + item.first_slot;
    var largest = MASKED;
    var total = 0.0;
    for (var key = first_key; key < end_key; key += 4u) {
        // A key past the end repeats the last one, masked.
        let keys = min(vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(item.count - 1u));
        let base = (vec4<u32>(plane) + keys) * QUADS;
        var score = vec4<f32>();
        for (var i = 0u; i < QUADS; i++) {
            score += vec4<f32>(dot(query[i], kv_load(k[base.x + i])), dot(query[i], kv_load(k[base.y + i])),
                dot(query[i], kv_load(k[base.z + i])), dot(query[i], kv_load(k[base.w + i])));
        }
        let key_position = vec4<u32>(item.first_position + key) + vec4<u32>(0u, 1u, 2u, 3u);
        var seen = (key_position <= vec4<u32>(position))
            & (vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(item.count));
        if params.window > 0u {
            seen = seen & (key_position + params.window > vec4<u32>(position));
        }
        score = select(vec4<f32>(MASKED), score, seen);
        let next_largest = max(largest, max(max(score.x, score.y), max(score.z, score.w)));
        let weight = select(vec4<f32>(), exp2(score - next_largest), seen);
        let rescale = exp2(largest - next_largest);
        largest = next_largest;
        total = total * rescale + weight.x + weight.y + weight.z + weight.w;
        for (var i = 0u; i < QUADS; i++) {
            sums[i] = sums[i] * rescale + weight.x * kv_load(v[base.x + i]) + weight.y * kv_load(v[base.y + i])
                + weight.z * kv_load(v[base.z + i]) + weight.w * kv_load(v[base.w + i]);
        }
    }

    if first + lane >= packed_rows {
        return;
    }
    let partial = kv_head * params.partials + item.partial + packed;
    if item.partial != DIRECT {
        partial_weight[partial] = vec2<f32>(largest, total);
    }
    for (var i = 0u; i < QUADS; i++) {
        let value = act_store(sums[i] / total);
        for (var c = 0u; c < 4u; c++) {
            let col = 4u * i + c;
            if item.partial != DIRECT {
                partial_sum[partial * HEAD_STRIDE + col] = sums[i][c];
            } else if col < params.head_dim {
                out[row * params.out_stride + head * params.head_dim + col] = value[c];
            }
        }
    }
}
