// Causal attention, vector form: few query rows against a run of keys.
// A workgroup takes one item, one kv head and four of the packed rows (row * group + head in group). Its lanes stride over the keys
// for the scores and over the columns of a head for the sum of values; softmax is online, in base 2.
// Linked with one of act_*.wgsl, one of kv_*.wgsl and one of reduce_*.wgsl.
// Source: Dao 2023, arXiv:2307.08691, algorithm 1; split runs: Dao et al. 2023, "Flash-Decoding".

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
@group(0) @binding(2) var<storage, read> v: array<kv>;                           // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(3) var<storage, read> items: array<AttentionItem>;
@group(0) @binding(4) var<storage, read_write> out: array<act>;                  // [tokens, num_heads * head_dim, padded]
@group(0) @binding(5) var<storage, read_write> partial_sum: array<f32>;          // [num_kv_heads, partials, HEAD_STRIDE]: not divided
@group(0) @binding(6) var<storage, read_write> partial_weight: array<vec2<f32>>; // [num_kv_heads, partials]: maximum, sum of weights

const LANES: u32 = 64u;
const HEAD_STRIDE: u32 = 64u;

const QUADS: u32 = HEAD_STRIDE / 4u;
const COLS: u32 = (HEAD_STRIDE + LANES - 1u) / LANES; // columns of a head to a lane
const DIRECT: u32 = 0xffffffffu;
const MASKED: f32 = -3.0e38; // finite, so that a run with every key masked makes no NaN

var<workgroup> staged_q: array<vec4<f32>, HEAD_STRIDE>;  // [4 rows, QUADS]
var<workgroup> staged_weight: array<vec4<f32>, LANES>;   // [keys], of four rows

@compute @workgroup_size(LANES)
fn attention_vector(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let item = items[params.first_item + group.x];
    let kv_head = group.z;
    let packed_rows = item.rows * params.group;
    let first = group.y * 4u;
    if first >= packed_rows {
        return;
    }
    let lane = reduce.lane;
    for (var i = lane; i < 4u * QUADS; i += LANES) {
        // A packed row past the end repeats the last one; its result is not stored.
        let packed = min(first + i / QUADS, packed_rows - 1u);
        let row = item.first_row + packed / params.group;
        let head = kv_head * params.group + packed % params.group;
        staged_q[i] = act_load(q[(row * params.num_heads + head) * QUADS + i % QUADS]) * params.scale_log2;
    }
    workgroupBarrier();
    let ends = (min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(packed_rows - 1u)) / params.group)
        + item.row_position;
    let plane = kv_head * params.slots + item.first_slot;

    var largest = vec4<f32>(MASKED);
    var total = vec4<f32>();
    var sums: array<vec4<f32>, COLS>;
    for (var first_key = 0u; first_key < item.count; first_key += LANES) {
        let key = first_key + lane;
        var score = vec4<f32>(MASKED);
        if key < item.count {
            var dots = vec4<f32>();
            for (var i = 0u; i < QUADS; i++) {
                let quad = kv_load(k[(plane + key) * QUADS + i]);
                dots += vec4<f32>(dot(quad, staged_q[i]), dot(quad, staged_q[QUADS + i]),
                    dot(quad, staged_q[2u * QUADS + i]), dot(quad, staged_q[3u * QUADS + i]));
            }
            let position = vec4<u32>(item.first_position + key);
            var seen = position <= ends;
            if params.window > 0u {
                seen = seen & (position + params.window > ends);
            }
            score = select(score, dots, seen);
        }
        let next_largest = max(largest, reduce_max4(reduce, score));
        staged_weight[lane] = select(exp2(score - next_largest), vec4<f32>(), score <= vec4<f32>(MASKED));
        let rescale = exp2(largest - next_largest);
        largest = next_largest;
        workgroupBarrier();
        total *= rescale;
        for (var i = 0u; i < COLS; i++) {
            sums[i] *= rescale;
        }
        for (var i = 0u; i < min(LANES, item.count - first_key); i++) {
            let weights = staged_weight[i];
            total += weights;
            for (var c = 0u; c < COLS; c++) {
                let col = min(lane + c * LANES, HEAD_STRIDE - 1u);
                sums[c] += weights * f32(v[(plane + first_key + i) * HEAD_STRIDE + col]);
            }
        }
        // The next write to staged_weight comes after the barriers of reduce_max4.
    }
    for (var r = 0u; r < min(4u, packed_rows - first); r++) {
        let packed = first + r;
        let partial = kv_head * params.partials + item.partial + packed;
        if item.partial != DIRECT && lane == 0u {
            partial_weight[partial] = vec2<f32>(largest[r], total[r]);
        }
        let row = item.first_row + packed / params.group;
        let head = kv_head * params.group + packed % params.group;
        for (var c = 0u; c < COLS; c++) {
            let col = lane + c * LANES;
            if item.partial != DIRECT && col < HEAD_STRIDE {
                partial_sum[partial * HEAD_STRIDE + col] = sums[c][r];
            } else if item.partial == DIRECT && col < params.head_dim {
                let value = act_store(vec4<f32>(sums[c][r] / total[r])).x;
                out[row * params.out_stride + head * params.head_dim + col] = value;
            }
        }
    }
}
