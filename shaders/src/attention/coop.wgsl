// Causal attention, cooperative-matrix form: many query rows against a run of keys, f16 in, f32 sums.
// A workgroup takes one item, one kv head and ROWS of the packed rows (row * group + head in group), COOP_SIDE to a subgroup,
// which keeps their queries and their sums of values in fragments. KEYS keys at a time pass through workgroup memory, then
// their values through the same place. Scores go to workgroup memory, where lanes turn them into weights, as many to a row as
// a subgroup has. Softmax is online, in base 2. A row's weights are relative to a maximum that may lag behind the true one by
// a factor of 2^LAG, so that sums, which fragments cannot scale by row, seldom go through workgroup memory.
// What is quantised is decoded, and rounded to f16, when it is staged.
// Linked with attention_forms.wgsl, one of act_*.wgsl, one type of keys and values (kv_*.wgsl) and one of coop_*.wgsl.
// Source: Dao 2023, arXiv:2307.08691, algorithm 1.

struct CoopBuiltins {
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
}

@group(0) @binding(1) var<storage, read> k: array<kv_key_piece>;    // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(2) var<storage, read> v: array<kv_value_piece>;  // [num_kv_heads, slots, HEAD_STRIDE]

const LANES: u32 = 128u;
const SUBGROUPS: u32 = 4u;
const KEYS: u32 = 64u;
const HEAD_STRIDE: u32 = 64u;

const QUADS: u32 = HEAD_STRIDE / 4u;
const FRAGMENTS: u32 = HEAD_STRIDE / COOP_SIDE;       // along a head
const KEY_FRAGMENTS: u32 = KEYS / COOP_SIDE;
const ROWS: u32 = SUBGROUPS * COOP_SIDE;
const TEAM: u32 = LANES / ROWS;                       // lanes to a row of weights
const LANE_KEYS: u32 = KEYS / TEAM;
// Rows begin at multiples of 16 bytes, as fragments must, and neighbours in other banks.
const PITCH: u32 = HEAD_STRIDE + 8u;
const SCORE_PITCH: u32 = KEYS + 4u;
const WEIGHT_PITCH: u32 = KEYS + 8u;
const WORD_PITCH: u32 = PITCH / COOP_WORD;
const LAG: f32 = 8.0;        // weights up to 2^8 stay far below the largest f16

var<workgroup> staged: array<coop_word, max(KEYS, ROWS) * WORD_PITCH>; // queries; then keys, then values, of every step
var<workgroup> scores: array<f32, ROWS * SCORE_PITCH>;                 // [ROWS, KEYS]; sums of values on their way
var<workgroup> weights: array<f16, ROWS * WEIGHT_PITCH>;               // [ROWS, KEYS]
var<workgroup> grown: u32;                                             // whether some row's maximum has grown

// A scale is rounded up, so that what it decodes may pass the largest f16 by half a step.
fn halves(value: kv4) -> vec4<f16> {
    if KV_SCALE_WORDS == 0u {
        return vec4<f16>(value);
    }
    return vec4<f16>(clamp(value, kv4(-65504.0), kv4(65504.0)));
}

fn stage(row: u32, quad: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u / COOP_WORD; i++) {
        staged[row * WORD_PITCH + quad * (4u / COOP_WORD) + i] = coop_word_of(value, i);
    }
}

@compute @workgroup_size(LANES)
fn attention_coop(@builtin(workgroup_id) group: vec3<u32>, in: CoopBuiltins) {
    let item = items[params.first_item + group.x];
    let kv_head = group.z;
    let packed_rows = item.rows * params.group;
    let first = group.y * ROWS;
    if first >= packed_rows {
        return;
    }
    let block = in.subgroup * COOP_SIDE; // the subgroup's first row
    var query: array<coop_a, FRAGMENTS>;
    for (var i = in.lane; i < ROWS * QUADS; i += LANES) {
        // A packed row past the end repeats the last one; its result is not stored.
        let packed = min(first + i / QUADS, packed_rows - 1u);
        let row = (item.first_row + packed / params.group) * params.num_heads + kv_head * params.group
            + packed % params.group;
        stage(i / QUADS, i % QUADS, vec4<f16>(q[row * QUADS + i % QUADS]));
    }
    workgroupBarrier();
    for (var f = 0u; f < FRAGMENTS; f++) {
        query[f] = coopLoadT<coop_a>(&staged[block * WORD_PITCH + f * COOP_SIDE / COOP_WORD], WORD_PITCH);
    }
    workgroupBarrier(); // keys take the queries' place

    // Keys that some row of this workgroup sees: [first_key, end_key).
    let last_position = item.row_position + min(first + ROWS - 1u, packed_rows - 1u) / params.group;
    let end_key = min(item.count, max(last_position + 1u, item.first_position) - item.first_position);
    var first_key = 0u;
    if params.window > 0u {
        let seen_from = max(item.row_position + first / params.group + 1u, params.window) - params.window;
        first_key = max(seen_from, item.first_position) - item.first_position;
    }
    // The row whose weights this lane makes, with the rest of its team; its keys: [first_seen, end).
    let team_lane = in.subgroup * (LANES / SUBGROUPS) + in.subgroup_lane;
    let row = team_lane / TEAM;
    let mate = team_lane % TEAM;
    let position = item.row_position + min(first + row, packed_rows - 1u) / params.group;
    let end = min(item.count, max(position + 1u, item.first_position) - item.first_position);
    var first_seen = 0u;
    if params.window > 0u {
        first_seen = max(max(position + 1u, params.window) - params.window, item.first_position) - item.first_position;
    }

    let plane = kv_head * params.slots + item.first_slot;
    var largest = ATTENTION_MASKED;
    var total = 0.0;
    var sums: array<coop_c, FRAGMENTS>;
    for (var key = first_key; key < end_key; key += KEYS) {
        // Slots past the end may hold anything, and no weight makes a NaN zero.
        for (var i = in.lane; i < KEYS * QUADS; i += LANES) {
            let at = key + i / QUADS;
            let slot = plane + min(at, item.count - 1u);
            let quad = slot * QUADS + i % QUADS;
            let value = halves(kv_key_quad(k[quad / KV_KEY_QUADS], quad, attention_scale(slot)));
            stage(i / QUADS, i % QUADS, select(vec4<f16>(), value, at < item.count));
        }
        if in.lane == 0u {
            grown = 0u;
        }
        workgroupBarrier();
        for (var n = 0u; n < KEY_FRAGMENTS; n++) {
            var score: coop_c;
            for (var f = 0u; f < FRAGMENTS; f++) {
                let at = n * COOP_SIDE * WORD_PITCH + f * COOP_SIDE / COOP_WORD;
                score = coopMultiplyAdd(query[f], coopLoad<coop_b>(&staged[at], WORD_PITCH), score);
            }
            coopStoreT(score, &scores[block * SCORE_PITCH + n * COOP_SIDE], SCORE_PITCH);
        }
        workgroupBarrier();

        for (var i = in.lane; i < KEYS * QUADS; i += LANES) {
            let at = key + i / QUADS;
            let slot = plane + min(at, item.count - 1u);
            let quad = slot * QUADS + i % QUADS;
            let value = halves(kv_value_quad(v[quad / KV_VALUE_QUADS], quad, attention_scale(slot)));
            stage(i / QUADS, i % QUADS, select(vec4<f16>(), value, at < item.count));
        }
        var lane_scores: array<f32, LANE_KEYS>;
        var next_largest = ATTENTION_MASKED;
        for (var i = 0u; i < LANE_KEYS; i++) {
            let col = i * TEAM + mate;
            let is_seen = key + col >= first_seen && key + col < end;
            lane_scores[i] = select(ATTENTION_MASKED, scores[row * SCORE_PITCH + col] * params.scale_log2, is_seen);
            next_largest = max(next_largest, lane_scores[i]);
        }
        for (var step = 1u; step < TEAM; step *= 2u) {
            next_largest = max(next_largest, subgroupShuffleXor(next_largest, step));
        }
        var rescale = 1.0;
        if next_largest > largest + LAG {
            rescale = exp2(largest - next_largest);
            largest = next_largest;
            grown = u32(key > first_key); // the first keys find sums of zero
        }
        total *= rescale;
        for (var i = 0u; i < LANE_KEYS; i++) {
            let weight = select(exp2(lane_scores[i] - largest), 0.0, lane_scores[i] <= ATTENTION_MASKED);
            total += weight;
            weights[row * WEIGHT_PITCH + i * TEAM + mate] = f16(weight);
        }
        if workgroupUniformLoad(&grown) != 0u {
            for (var f = 0u; f < FRAGMENTS; f += KEY_FRAGMENTS) {
                for (var i = 0u; i < min(KEY_FRAGMENTS, FRAGMENTS - f); i++) {
                    coopStoreT(sums[f + i], &scores[block * SCORE_PITCH + i * COOP_SIDE], SCORE_PITCH);
                }
                workgroupBarrier();
                for (var i = 0u; i < LANE_KEYS; i++) {
                    scores[row * SCORE_PITCH + i * TEAM + mate] *= rescale;
                }
                workgroupBarrier();
                for (var i = 0u; i < min(KEY_FRAGMENTS, FRAGMENTS - f); i++) {
                    sums[f + i] = coopLoadT<coop_c>(&scores[block * SCORE_PITCH + i * COOP_SIDE], SCORE_PITCH);
                }
                workgroupBarrier(); // the next fragments take their place
            }
        }
        for (var n = 0u; n < KEY_FRAGMENTS; n++) {
            let weight = coopLoadT<coop_a>(&weights[block * WEIGHT_PITCH + n * COOP_SIDE], WEIGHT_PITCH);
            for (var f = 0u; f < FRAGMENTS; f++) {
                let at = n * COOP_SIDE * WORD_PITCH + f * COOP_SIDE / COOP_WORD;
                sums[f] = coopMultiplyAdd(weight, coopLoadT<coop_b>(&staged[at], WORD_PITCH), sums[f]);
            }
        }
        workgroupBarrier(); // the next keys take the place of these values
    }

    for (var step = 1u; step < TEAM; step *= 2u) {
        total += subgroupShuffleXor(total, step);
    }
    let is_direct = item.partial == ATTENTION_DIRECT;
    let partial = kv_head * params.partials + item.partial + first;
    if !is_direct && mate == 0u && first + row < packed_rows {
        partial_weight[partial + row] = vec2<f32>(largest, total);
    }
    let divided = select(1.0, 1.0 / total, is_direct);
    for (var f = 0u; f < FRAGMENTS; f += KEY_FRAGMENTS) {
        for (var i = 0u; i < min(KEY_FRAGMENTS, FRAGMENTS - f); i++) {
            coopStoreT(sums[f + i], &scores[block * SCORE_PITCH + i * COOP_SIDE], SCORE_PITCH);
        }
        workgroupBarrier();
        for (var i = 0u; i < LANE_KEYS; i++) {
            scores[row * SCORE_PITCH + i * TEAM + mate] *= divided;
        }
        workgroupBarrier();
        for (var i = in.lane; i < min(ROWS, packed_rows - first) * KEYS; i += LANES) {
            let packed = first + i / KEYS;
            let col = f * COOP_SIDE + i % KEYS;
            let value = scores[i / KEYS * SCORE_PITCH + i % KEYS];
            if !is_direct && col < HEAD_STRIDE {
                partial_sum[(partial + i / KEYS) * HEAD_STRIDE + col] = value;
            } else if is_direct && col < params.head_dim {
                let head = kv_head * params.group + packed % params.group;
                let at = (item.first_row + packed / params.group) * params.out_stride + head * params.head_dim + col;
                out[at] = act_store(vec4<f32>(value)).x;
            }
        }
        workgroupBarrier(); // the next fragments take their place
    }
}
