// What every form of causal attention is given: items, each some query rows against a run of keys, and where their results go.
// A kernel binds `k` and `v` itself, in the pieces or words of its type of keys and values, and has a `const HEAD_STRIDE`: columns of a
// head in the cache.
// Linked with one type of keys and values (kv_*.wgsl) and one of act_*.wgsl.

struct AttentionItem {
    first_row: u32,       // the first query row, a token of the batch
    rows: u32,            // query rows
    first_slot: u32,      // of the first key
    count: u32,           // keys
    first_position: u32,  // of the first key
    row_position: u32,    // of the first query row
    partial: u32,         // where the packed rows start in the partial results of a kv head, or ATTENTION_DIRECT
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
@group(0) @binding(3) var<storage, read> items: array<AttentionItem>;
@group(0) @binding(4) var<storage, read_write> out: array<act>;                  // [tokens, num_heads * head_dim, padded]
@group(0) @binding(5) var<storage, read_write> partial_sum: array<f32>;          // [num_kv_heads, partials, HEAD_STRIDE]: not divided
@group(0) @binding(6) var<storage, read_write> partial_weight: array<vec2<f32>>; // [num_kv_heads, partials]: maximum, sum of weights
@group(0) @binding(7) var<storage, read> scales: array<kv_scale>;                // [num_kv_heads, slots], where there are any

const ATTENTION_DIRECT: u32 = 0xffffffffu;
const ATTENTION_MASKED: f32 = -3.0e38; // finite, so that a row that sees no key of the run makes no NaN

fn attention_scale(slot: u32) -> kv_scale {
    if KV_SCALE_WORDS == 0u {
        return kv_scale();
    }
    return scales[slot];
}
