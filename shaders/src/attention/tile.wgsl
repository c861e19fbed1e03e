// Causal attention, tile form: many query rows against a run of keys.
// A workgroup takes one item, one kv head and PACKED of the packed rows (row * group + head in group). TEAM lanes share ROWS of
// them, each with its share of the columns of the queries and of the sums of values in registers. All teams take the same
// keys, KEYS at a time, where they lie or STAGE of them at once, decoded, through workgroup memory; keys that no row of the
// workgroup sees are skipped. Softmax is online, in base 2.
// Linked with attention_forms.wgsl, one of act_*.wgsl, one type of keys and values (kv_*.wgsl) and one of team_*.wgsl.
// Source: Dao 2023, arXiv:2307.08691, algorithm 1.

@group(0) @binding(1) var<storage, read> k: array<kv_key_piece>;    // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(2) var<storage, read> v: array<kv_value_piece>;  // [num_kv_heads, slots, HEAD_STRIDE]

const LANES: u32 = 32u;
const TEAM: u32 = 1u;
const ROWS: u32 = 1u;
const KEYS: u32 = 4u;
const STAGE: u32 = 0u;
const HEAD_STRIDE: u32 = 64u;

const QUADS: u32 = HEAD_STRIDE / 4u;
const LANE_QUADS: u32 = QUADS / TEAM;
const PACKED: u32 = LANES / TEAM * ROWS;
const TEAM_VALUES: u32 = ROWS * KEYS;
const STEP: u32 = max(STAGE, KEYS);

var<workgroup> staged_k: array<kv4, STAGE * QUADS + 1u>; // [STAGE, QUADS]
var<workgroup> staged_v: array<kv4, STAGE * QUADS + 1u>; // [STAGE, QUADS]

@compute @workgroup_size(LANES)
fn attention_tile(@builtin(workgroup_id) group: vec3<u32>, team: TeamBuiltins) {
    let item = items[params.first_item + group.x];
    let kv_head = group.z;
    let packed_rows = item.rows * params.group;
    let first = group.y * PACKED;
    if first >= packed_rows {
        return;
    }
    let lane = team_lane(team);
    let mate = lane % TEAM;
    let first_packed = first + lane / TEAM * ROWS; // of this team
    var query: array<vec4<f32>, ROWS * LANE_QUADS>;
    var sums: array<vec4<f32>, ROWS * LANE_QUADS>;
    var largest: array<f32, ROWS>;
    var total: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        // A packed row past the end repeats the last one; its result is not stored.
        let packed = min(first_packed + r, packed_rows - 1u);
        let row = (item.first_row + packed / params.group) * params.num_heads + kv_head * params.group + packed % params.group;
        for (var i = 0u; i < LANE_QUADS; i++) {
            query[r * LANE_QUADS + i] = act_load(q[row * QUADS + i * TEAM + mate]) * params.scale_log2;
            sums[r * LANE_QUADS + i] = vec4<f32>();
        }
        largest[r] = ATTENTION_MASKED;
        total[r] = 0.0;
    }

    // Keys that some row of this workgroup sees: [first_key, end_key), the same for all lanes. The first is a multiple of
    // KEYS, so that a row adds the same keys at a time in whatever tile it is; those that it does not see change nothing.
    let last_position = item.row_position + min(first + PACKED - 1u, packed_rows - 1u) / params.group;
    let end_key = min(item.count, max(last_position + 1u, item.first_position) - item.first_position);
    var first_key = 0u;
    if params.window > 0u {
        let seen_from = max(item.row_position + first / params.group + 1u, params.window) - params.window;
        first_key = (max(seen_from, item.first_position) - item.first_position) & ~(KEYS - 1u);
    }

    let plane = kv_head * params.slots + item.first_slot;
    for (var step = first_key; step < end_key; step += STEP) {
        if STAGE > 0u {
            workgroupBarrier(); // until the keys before are read
            for (var i = lane; i < STAGE * QUADS; i += LANES) {
                let slot = plane + min(step + i / QUADS, item.count - 1u);
                let at = slot * QUADS + i % QUADS;
                let scale = attention_scale(slot);
                staged_k[i] = kv_key_quad(k[at / KV_KEY_QUADS], at, scale);
                staged_v[i] = kv_value_quad(v[at / KV_VALUE_QUADS], at, scale);
            }
            workgroupBarrier();
        }
        for (var key = step; key < min(step + STEP, end_key); key += KEYS) {
            // Where each key's quads begin; a key past the end repeats the last one, masked.
            var base: array<u32, KEYS>;
            var key_scales: array<kv_scale, KEYS>;
            for (var c = 0u; c < KEYS; c++) {
                if STAGE == 0u {
                    key_scales[c] = attention_scale(plane + min(key + c, item.count - 1u));
                }
                base[c] = select((plane + min(key + c, item.count - 1u)) * QUADS, (key + c - step) * QUADS, STAGE > 0u) + mate;
            }
            var score: array<f32, TEAM_VALUES>; // [ROWS, KEYS]
            for (var i = 0u; i < LANE_QUADS; i++) {
                for (var c = 0u; c < KEYS; c++) {
                    let quad = key_quad(base[c] + i * TEAM, key_scales[c]);
                    for (var r = 0u; r < ROWS; r++) {
                        score[r * KEYS + c] = dot_add(query[r * LANE_QUADS + i], quad, score[r * KEYS + c]);
                    }
                }
            }
            team_sum(team, &score);
            for (var r = 0u; r < ROWS; r++) {
                let position = item.row_position + min(first_packed + r, packed_rows - 1u) / params.group;
                var next_largest = largest[r];
                for (var c = 0u; c < KEYS; c++) {
                    let key_position = item.first_position + key + c;
                    let is_seen = key_position <= position && key + c < item.count
                        && (params.window == 0u || key_position + params.window > position);
                    score[r * KEYS + c] = select(ATTENTION_MASKED, score[r * KEYS + c], is_seen);
                    next_largest = max(next_largest, score[r * KEYS + c]);
                }
                if next_largest > largest[r] {
                    let rescale = exp2(largest[r] - next_largest);
                    largest[r] = next_largest;
                    total[r] *= rescale;
                    for (var i = 0u; i < LANE_QUADS; i++) {
                        sums[r * LANE_QUADS + i] *= rescale;
                    }
                }
                for (var c = 0u; c < KEYS; c++) {
                    let masked = score[r * KEYS + c] <= ATTENTION_MASKED;
                    score[r * KEYS + c] = select(exp2(score[r * KEYS + c] - largest[r]), 0.0, masked);
                    total[r] += score[r * KEYS + c];
                }
            }
            for (var i = 0u; i < LANE_QUADS; i++) {
                for (var c = 0u; c < KEYS; c++) {
                    let quad = value_quad(base[c] + i * TEAM, key_scales[c]);
                    for (var r = 0u; r < ROWS; r++) {
                        sums[r * LANE_QUADS + i] += score[r * KEYS + c] * quad;
                    }
                }
            }
        }
    }

    for (var r = 0u; r < ROWS; r++) {
        let packed = first_packed + r;
        if packed >= packed_rows {
            return;
        }
        let partial = kv_head * params.partials + item.partial + packed;
        if item.partial != ATTENTION_DIRECT && mate == 0u {
            partial_weight[partial] = vec2<f32>(largest[r], total[r]);
        }
        let head = kv_head * params.group + packed % params.group;
        let at = (item.first_row + packed / params.group) * params.out_stride + head * params.head_dim;
        for (var i = 0u; i < LANE_QUADS; i++) {
            let sum = sums[r * LANE_QUADS + i];
            let value = act_store(sum / total[r]);
            for (var c = 0u; c < 4u; c++) {
                let col = 4u * (i * TEAM + mate) + c;
                if item.partial != ATTENTION_DIRECT {
                    partial_sum[partial * HEAD_STRIDE + col] = sum[c];
                } else if col < params.head_dim {
                    out[at + col] = value[c];
                }
            }
        }
    }
}

fn key_quad(at: u32, scale: kv_scale) -> vec4<f32> {
    if STAGE > 0u {
        return vec4<f32>(staged_k[at]);
    }
    return vec4<f32>(kv_key_quad(k[at / KV_KEY_QUADS], at, scale));
}

fn value_quad(at: u32, scale: kv_scale) -> vec4<f32> {
    if STAGE > 0u {
        return vec4<f32>(staged_v[at]);
    }
    return vec4<f32>(kv_value_quad(v[at / KV_VALUE_QUADS], at, scale));
}

// Four multiplications that each take the sum along.
fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return a.x * b.x + (a.y * b.y + (a.z * b.z + (a.w * b.w + sum)));
}
