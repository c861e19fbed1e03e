// Rotary position embedding of queries and keys, and the append of keys and values to the cache, in one dispatch:
// pair (i, i + rotary_dim / 2) of a head turns by position * inv_freq[i]; other columns pass.
// With norms (Qwen3), every query and key head is first normalised by its root mean square.
// One workgroup a token and head, over the query heads, the key heads and the value heads in turn.
// cos and sin come from a small table, made in f64, by the addition theorem: position = 1024 * high + low; its first 1024
// rows are for low, times the attention factor, the others for 1024 * high.
// What is quantised goes through workgroup memory, rotate.wgsl's `rotate_row`: a key loses its channels' means; what takes 4 bits, and the
// queries of such keys, is rotated; the row's largest value, or its span, gives the scale and minimum, rounded outwards to bf16, by
// which its columns are rounded and packed.
// Linked with rotate.wgsl, one type of keys and values (kv_*.wgsl), one of act_*.wgsl and one of reduce_*.wgsl.
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
    rotation: u32,      // columns that are rotated together, a power of two that divides head_dim; 1: none
}

var<immediate> params: RopeAppendParams;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;               // [tokens, qkv_stride]
@group(0) @binding(1) var<storage, read> token_places: array<vec2<u32>>; // [tokens]: position, slot
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;        // [1024 + positions / 1024, rotary_dim / 2]: cos, sin
@group(0) @binding(3) var<storage, read> q_norm: array<f32>;            // [head_dim]
@group(0) @binding(4) var<storage, read> k_norm: array<f32>;            // [head_dim]
@group(0) @binding(5) var<storage, read_write> q: array<act>;           // [tokens, num_heads, head_stride]
@group(0) @binding(6) var<storage, read_write> k: array<kv_cell>;       // [num_kv_heads, slots, head_stride]
@group(0) @binding(7) var<storage, read_write> v: array<kv_cell>;       // [num_kv_heads, slots, head_stride]
@group(0) @binding(8) var<storage, read_write> scales: array<atomic<u32>>; // [num_kv_heads, slots, KV_SCALE_WORDS]
@group(0) @binding(9) var<storage, read> k_mean: array<f32>;            // [num_kv_heads, head_stride]; read where there are scales

const LANES: u32 = 32u;
const LOW_POSITIONS: u32 = 1024u;
const QUERY: u32 = 0u;
const KEY: u32 = 1u;
const VALUE: u32 = 2u;
const IS_SCALED: bool = KV_SCALE_WORDS > 0u;
const LEAST: f32 = 0x1p-96; // of scales: less is nothing, and its inverse may be infinite

struct Head {
    kind: u32,
    index: u32,
    base: u32,    // where it is written
    staged: bool, // whether it goes through `rotate_row`, to be rotated or quantised
}

fn store(head: Head, col: u32, value: f32) {
    if head.staged {
        rotate_row[col] = value;
    } else if head.kind == QUERY {
        q[head.base + col] = act_store(vec4<f32>(value)).x;
    } else if head.kind == KEY {
        k[head.base + col] = kv_key_cell(vec4<f32>(value), vec4<f32>());
    } else {
        v[head.base + col] = kv_value_cell(vec4<f32>(value), vec4<f32>());
    }
}

// What a channel of keys has everywhere, which softmax does not see.
fn mean(head: Head, col: u32) -> f32 {
    if IS_SCALED && head.kind == KEY {
        return k_mean[head.index * params.head_stride + col];
    }
    return 0.0;
}

// The next bf16 away from zero, in the high bits.
fn outwards(value: f32) -> u32 {
    return (bitcast<u32>(value) + 0xffffu) & 0xffff0000u;
}

fn column(col: u32, factor: f32) -> f32 {
    return clamp(rotate_row[col] * factor, -65504.0, 65504.0);
}

fn quants(first: u32, factor: f32, minimum: f32, inverse: f32, lowest: f32, highest: f32) -> vec4<f32> {
    var four: vec4<f32>;
    for (var i = 0u; i < 4u; i++) {
        let quant = round((column(min(first + i, ROTATE_MOST_COLS - 1u), factor) - minimum) * inverse);
        four[i] = select(0.0, clamp(quant, lowest, highest), first + i < params.head_dim);
    }
    return four;
}

fn quantise(reduce: ReduceBuiltins, head: Head, slot: u32, factor: f32) {
    let cell_cols = select(KV_KEY_COLS, KV_VALUE_COLS, head.kind == VALUE);
    let is_signed = cell_cols == 4u;
    var span = vec2<f32>(-65504.0);
    for (var col = reduce.lane; col < params.head_dim; col += LANES) {
        let value = column(col, factor);
        span = max(span, vec2<f32>(value, -value));
    }
    let most = reduce_max4(reduce, span.xyxy);
    var minimum_bits = bitcast<u32>(-most.y);
    minimum_bits = select(minimum_bits & 0xffff0000u, outwards(-most.y), -most.y < 0.0);
    let minimum = select(bitcast<f32>(minimum_bits), 0.0, is_signed);
    let step = select((most.x - minimum) / 15.0, max(most.x, most.y) / 127.0, is_signed);
    let scale_bits = outwards(max(step, LEAST));
    let inverse = 1.0 / bitcast<f32>(scale_bits);
    let lowest = select(0.0, -127.0, is_signed);
    let highest = select(15.0, 127.0, is_signed);
    for (var cell = reduce.lane; cell < params.head_stride / cell_cols; cell += LANES) {
        let low = quants(cell * cell_cols, factor, minimum, inverse, lowest, highest);
        let high = quants(cell * cell_cols + 4u, factor, minimum, inverse, lowest, highest);
        if head.kind == KEY {
            k[head.base + cell] = kv_key_cell(low, high);
        } else {
            v[head.base + cell] = kv_value_cell(low, high);
        }
    }
    if reduce.lane > 0u {
        return;
    }
    let at = head.index * params.slots + slot;
    if KV_SCALE_WORDS == 1u {
        // A key and its value, of two workgroups, share a word.
        let shift = select(0u, 16u, head.kind == VALUE);
        atomicAnd(&scales[at], 0xffff0000u >> shift);
        atomicOr(&scales[at], (scale_bits >> 16u) << shift);
    } else {
        atomicStore(&scales[2u * at + head.kind - KEY], (scale_bits >> 16u) | bitcast<u32>(minimum));
    }
}

@compute @workgroup_size(LANES)
fn rope_append(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let token = group.x;
    let place = token_places[token];
    var kind = QUERY;
    var index = group.y;
    var read_base = token * params.qkv_stride + index * params.head_dim;
    var write_base = (token * params.num_heads + index) * params.head_stride;
    if group.y >= params.num_heads {
        kind = KEY;
        index = group.y - params.num_heads;
        var col = params.k_col;
        var cell_cols = KV_KEY_COLS;
        if index >= params.num_kv_heads {
            kind = VALUE;
            index -= params.num_kv_heads;
            col = params.v_col;
            cell_cols = KV_VALUE_COLS;
        }
        read_base = token * params.qkv_stride + col + index * params.head_dim;
        write_base = (index * params.slots + place.y) * (params.head_stride / cell_cols);
    }
    let is_rotated = params.rotation > 1u && select(KV_KEY_COLS, KV_VALUE_COLS, kind == VALUE) == 8u;
    let head = Head(kind, index, write_base, IS_SCALED && (kind != QUERY || is_rotated));

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
            store(head, first_col, first - mean(head, first_col));
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
        store(head, i, first - mean(head, i));
        store(head, i + half, second - mean(head, i + half));
    }
    if !head.staged {
        return;
    }
    workgroupBarrier();
    var factor = 1.0;
    if is_rotated {
        factor = rotate(reduce.lane);
    }
    if kind != QUERY {
        quantise(reduce, head, place.y, factor);
        return;
    }
    for (var col = reduce.lane; col < params.head_dim; col += LANES) {
        q[write_base + col] = act_store(vec4<f32>(rotate_row[col] * factor)).x;
    }
}
