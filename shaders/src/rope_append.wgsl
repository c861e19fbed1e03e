// Rotary position embedding of queries and keys, and the append of keys and values to the cache, in one dispatch:
// pair (i, i + rotary_dim / 2) of a head turns by position * inv_freq[i]; other columns pass.
// With norms (Qwen3), every query and key head is first normalised by its root mean square.
// One workgroup a token and head, over the query heads, the key heads and the value heads in turn.
// cos and sin come from a small table, made in f64, by the addition theorem: position = 1024 * high + low; its first 1024
// rows are for low, times the attention factor, the others for 1024 * high.
// Linked with one of act_*.wgsl, one of kv_*.wgsl and one of reduce_*.wgsl.
// Source: Su et al. 2021, arXiv:2104.09864, eq. 34, in the half-split order of Hugging Face checkpoints.

struct RopeAppendParams {
    num_heads: u32,
    num_kv_heads: u32,
    head_dim: u32,
    rotary_dim: u32,    // 0: this layer does not turn
    qkv_stride: u32,    // from one row of qkv to the next
    k_col: u32,         // where keys start in a row of qkv
    v_col: u32,         // where values start
    head_stride: u32,   // from one head to the next in q, and from one slot to the next in k and v; padding stays zero
    slots: u32,         // of a head's plane in k and v
    norm: u32,          // 1: norm queries and keys
    eps: f32,
}

var<immediate> params: RopeAppendParams;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;               // [tokens, qkv_stride]
@group(0) @binding(1) var<storage, read> token_places: array<vec2<u32>>; // [tokens]: position, slot
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;        // [1024 + positions / 1024, rotary_dim / 2]: cos, sin
@group(0) @binding(3) var<storage, read> q_norm: array<f32>;            // [head_dim]
@group(0) @binding(4) var<storage, read> k_norm: array<f32>;            // [head_dim]
@group(0) @binding(5) var<storage, read_write> q: array<act>;           // [tokens, num_heads, head_stride]
@group(0) @binding(6) var<storage, read_write> k: array<kv>;            // [num_kv_heads, slots, head_stride]
@group(0) @binding(7) var<storage, read_write> v: array<kv>;            // [num_kv_heads, slots, head_stride]

const LANES: u32 = 32u;
const LOW_POSITIONS: u32 = 1024u;
const QUERY: u32 = 0u;
const KEY: u32 = 1u;
const VALUE: u32 = 2u;

fn store(kind: u32, base: u32, col: u32, value: f32) {
    if kind == QUERY {
        q[base + col] = act_store(vec4<f32>(value)).x;
    } else if kind == KEY {
        k[base + col] = kv_store(value);
    } else {
        v[base + col] = kv_store(value);
    }
}

@compute @workgroup_size(LANES)
fn rope_append(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let token = group.x;
    let place = token_places[token];
    var kind = QUERY;
    var head = group.y;
    var read_base = token * params.qkv_stride + head * params.head_dim;
    var write_base = (token * params.num_heads + head) * params.head_stride;
    if group.y >= params.num_heads {
        kind = KEY;
        head = group.y - params.num_heads;
        var col = params.k_col;
        if head >= params.num_kv_heads {
            kind = VALUE;
            head -= params.num_kv_heads;
            col = params.v_col;
        }
        read_base = token * params.qkv_stride + col + head * params.head_dim;
        write_base = (head * params.slots + place.y) * params.head_stride;
    }

    var scale = 1.0;
    if params.norm == 1u {
        var squares = 0.0;
        for (var col = reduce.lane; col < params.head_dim; col += LANES) {
            squares += qkv[read_base + col] * qkv[read_base + col];
        }
        let sum = reduce_sum4(reduce, vec4<f32>(squares)).x;
        scale = inverseSqrt(sum / f32(params.head_dim) + params.eps);
    }
    let half = params.rotary_dim / 2u;
    let position = place.x;
    // A lane owns both columns of its pairs, then single columns past the rotary ones.
    for (var i = reduce.lane; i < params.head_dim - half; i += LANES) {
        let single = i >= half;
        let first_col = select(i, i + half, single);
        var first = qkv[read_base + first_col];
        var second = 0.0;
        if !single {
            second = qkv[read_base + i + half];
        }
        if params.norm == 1u && kind == QUERY {
            first *= scale * q_norm[first_col];
            second *= scale * q_norm[min(i + half, params.head_dim - 1u)];
        } else if params.norm == 1u && kind == KEY {
            first *= scale * k_norm[first_col];
            second *= scale * k_norm[min(i + half, params.head_dim - 1u)];
        }
        if single {
            store(kind, write_base, first_col, first);
            continue;
        }
        if kind != VALUE {
            let low = rope[(position % LOW_POSITIONS) * half + i];
            let high = rope[(LOW_POSITIONS + position / LOW_POSITIONS) * half + i];
            let turn = vec2<f32>(low.x * high.x - low.y * high.y, low.x * high.y + low.y * high.x);
            let turned = first * turn.x - second * turn.y;
            second = second * turn.x + first * turn.y;
            first = turned;
        }
        store(kind, write_base, i, first);
        store(kind, write_base, i + half, second);
    }
}
