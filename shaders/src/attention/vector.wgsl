// Causal attention, vector form: few query rows against a run of keys, which is read once for ROWS of the packed rows
// (row * group + head in group).
// A workgroup takes one kv head, ROWS packed rows and one item. Its lanes form teams that walk the keys side by side, KEYS at
// a time: a team reads a row of K and of V together, a word a lane, and every lane has its columns of the queries and of the
// sums of values in registers. Softmax is online, in base 2, on each team's own; the teams are joined at the end.
// Quantised keys meet queries in two signed bytes a column; the scale of a value goes into its weight, and minima are summed
// once for all columns.
// Linked with attention_forms.wgsl, one of act_*.wgsl, one type of keys and values (kv_*.wgsl) and one of team_*.wgsl.
// Source: Dao 2023, arXiv:2307.08691, algorithm 1; split runs: Dao et al. 2023, "Flash-Decoding".

@group(0) @binding(1) var<storage, read> k: array<kv_key_word>;    // [num_kv_heads, slots, HEAD_STRIDE]
@group(0) @binding(2) var<storage, read> v: array<kv_value_word>;  // [num_kv_heads, slots, HEAD_STRIDE]

const LANES: u32 = 128u;
const TEAM: u32 = 8u;
const ROWS: u32 = 4u;
const KEYS: u32 = 4u;
const HEAD_STRIDE: u32 = 64u;

const TEAMS: u32 = LANES / TEAM;
const TEAM_VALUES: u32 = ROWS * KEYS;                      // scores of a team at a time
const QUADS: u32 = HEAD_STRIDE / 4u;
const WORDS: u32 = QUADS / KV_QUADS;                       // of a key
const LANE_WORDS: u32 = (WORDS + TEAM - 1u) / TEAM;
const LANE_QUADS: u32 = LANE_WORDS * KV_QUADS;
const LOWEST: f32 = -1.0e38; // of maxima: above ATTENTION_MASKED, so that a masked key's weight is zero whatever else a team saw
const IS_SCALED: bool = KV_SCALE_WORDS > 0u;
const QUERY_STEPS: f32 = 32512.0; // 127 * 256: of a lane's largest column to zero
const LEAST: f32 = 1e-30;         // less is nothing beside any other term, and QUERY_STEPS over it may be infinite

var<workgroup> team_weight: array<vec2<f32>, TEAMS * ROWS>; // maximum, sum of weights
var<workgroup> team_result: array<vec4<f32>, TEAMS * QUADS>;

@compute @workgroup_size(LANES)
fn attention_vector(@builtin(workgroup_id) group: vec3<u32>, builtins: TeamBuiltins) {
    let kv_head = group.x;
    let first = group.y * ROWS;
    let item = items[params.first_item + group.z];
    let packed_rows = item.rows * params.group;
    if first >= packed_rows {
        return;
    }
    let last = packed_rows - 1u;
    let lane = team_lane(builtins);
    let team = lane / TEAM;
    let mate = lane % TEAM;

    var query: array<kv_query, ROWS * LANE_QUADS>;
    var query_unit: array<f32, ROWS>;  // of quantised keys' queries: what 1 stands for
    var query_total: array<f32, ROWS>; // and the sum of this lane's columns
    var minima: array<f32, ROWS>;      // of quantised values: the sum of weights times minima
    var sums: array<vec4<f32>, ROWS * LANE_QUADS>;
    var largest: array<f32, ROWS>;
    var total: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        // A packed row past the end repeats the last one; its result is not stored. Columns past the end are zero.
        let packed = min(first + r, last);
        let head = kv_head * params.group + packed % params.group;
        let base = ((item.first_row + packed / params.group) * params.num_heads + head) * QUADS;
        var columns: array<vec4<f32>, LANE_QUADS>;
        for (var i = 0u; i < LANE_QUADS; i++) {
            let word = mate + i / KV_QUADS * TEAM;
            let quad = act_load(q[base + min(word, WORDS - 1u) * KV_QUADS + i % KV_QUADS]) * params.scale_log2;
            columns[i] = select(vec4<f32>(), quad, word < WORDS);
        }
        var inverse = 1.0;
        if IS_SCALED {
            var most = vec4<f32>();
            var total = vec4<f32>();
            for (var i = 0u; i < LANE_QUADS; i++) {
                most = max(most, abs(columns[i]));
                total += columns[i];
            }
            let size = max(max(max(most.x, most.y), max(most.z, most.w)), LEAST);
            inverse = QUERY_STEPS / size;
            query_unit[r] = size / QUERY_STEPS;
            query_total[r] = total.x + total.y + (total.z + total.w);
            minima[r] = 0.0;
        }
        for (var i = 0u; i < LANE_QUADS; i++) {
            query[r * LANE_QUADS + i] = kv_query_of(columns[i], inverse);
            sums[r * LANE_QUADS + i] = vec4<f32>();
        }
        largest[r] = LOWEST;
        total[r] = 0.0;
    }

    // Keys that all rows see: [all_from, all_end), counted from the item's first.
    let first_end = item.row_position + first / params.group + 1u;
    let last_end = item.row_position + min(first + ROWS - 1u, last) / params.group + 1u;
    let all_end = min(max(first_end, item.first_position) - item.first_position, item.count);
    var all_from = 0u;
    if params.window > 0u {
        all_from = max(max(last_end, params.window) - params.window, item.first_position) - item.first_position;
    }
    let plane = kv_head * params.slots;
    var k_words: array<kv_key_word, KEYS * LANE_WORDS>;
    var v_words: array<kv_value_word, KEYS * LANE_WORDS>;
    var key_scales: array<kv_scale, KEYS>;
    var products: array<kv_product, TEAM_VALUES>; // [ROWS, KEYS]
    var scores: array<f32, TEAM_VALUES>; // [ROWS, KEYS], then their weights
    for (var step = 0u; step < item.count; step += TEAMS * KEYS) {
        for (var key = 0u; key < KEYS; key++) {
            // A key past the end repeats the last one, masked; a word past the end the last word, against zeros.
            let near = min(step + key * TEAMS + team, item.count - 1u);
            let base = (plane + item.first_slot + near) * WORDS;
            for (var i = 0u; i < LANE_WORDS; i++) {
                let at = base + min(mate + i * TEAM, WORDS - 1u);
                k_words[key * LANE_WORDS + i] = k[at];
                v_words[key * LANE_WORDS + i] = v[at];
            }
            key_scales[key] = attention_scale(plane + item.first_slot + near);
        }
        for (var i = 0u; i < TEAM_VALUES; i++) {
            products[i] = kv_product();
        }
        for (var i = 0u; i < KEYS * LANE_WORDS; i++) {
            let quads = kv_keys(k_words[i]);
            for (var r = 0u; r < ROWS; r++) {
                let score = r * KEYS + i / LANE_WORDS;
                for (var j = 0u; j < KV_QUADS; j++) {
                    products[score] = kv_dot(products[score], quads[j], query[r * LANE_QUADS + i % LANE_WORDS * KV_QUADS + j]);
                }
            }
        }
        for (var i = 0u; i < TEAM_VALUES; i++) {
            scores[i] = kv_score(products[i], query_unit[i / KEYS], query_total[i / KEYS], key_scales[i % KEYS]);
        }
        team_sum(builtins, &scores);
        if step < all_from || step + TEAMS * KEYS > all_end {
            for (var i = 0u; i < TEAM_VALUES; i++) {
                let key = step + i % KEYS * TEAMS + team;
                let position = item.first_position + key;
                let end = item.row_position + min(first + i / KEYS, last) / params.group + 1u;
                let seen = key < item.count && position < end && (params.window == 0u || position + params.window >= end);
                scores[i] = select(ATTENTION_MASKED, scores[i], seen);
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            var next = largest[r];
            for (var key = 0u; key < KEYS; key++) {
                next = max(next, scores[r * KEYS + key]);
            }
            // Rare once a few keys were seen.
            if next > largest[r] {
                let rescale = exp2(largest[r] - next);
                largest[r] = next;
                total[r] *= rescale;
                minima[r] *= rescale;
                for (var i = 0u; i < LANE_QUADS; i++) {
                    sums[r * LANE_QUADS + i] *= rescale;
                }
            }
            for (var key = 0u; key < KEYS; key++) {
                scores[r * KEYS + key] = exp2(scores[r * KEYS + key] - next);
                total[r] += scores[r * KEYS + key];
                if IS_SCALED {
                    let scale = kv_value_scale(key_scales[key]);
                    minima[r] = fma(scores[r * KEYS + key], scale.y, minima[r]);
                    scores[r * KEYS + key] *= scale.x;
                }
            }
        }
        for (var i = 0u; i < KEYS * LANE_WORDS; i++) {
            let quads = kv_values(v_words[i]);
            for (var r = 0u; r < ROWS; r++) {
                let weight = vec4<f32>(scores[r * KEYS + i / LANE_WORDS]);
                for (var j = 0u; j < KV_QUADS; j++) {
                    let at = r * LANE_QUADS + i % LANE_WORDS * KV_QUADS + j;
                    sums[at] = fma(weight, quads[j], sums[at]);
                }
            }
        }
    }

    if mate == 0u {
        for (var r = 0u; r < ROWS; r++) {
            team_weight[r * TEAMS + team] = vec2<f32>(largest[r], total[r]);
        }
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
        var row_largest = LOWEST;
        for (var i = 0u; i < TEAMS; i++) {
            row_largest = max(row_largest, team_weight[r * TEAMS + i].x);
        }
        var row_total = 0.0;
        for (var i = 0u; i < TEAMS; i++) {
            row_total += team_weight[r * TEAMS + i].y * exp2(team_weight[r * TEAMS + i].x - row_largest);
        }
        let rescale = exp2(largest[r] - row_largest);
        for (var i = 0u; i < LANE_QUADS; i++) {
            let word = mate + i / KV_QUADS * TEAM;
            if word < WORDS {
                let sum = select(sums[r * LANE_QUADS + i], sums[r * LANE_QUADS + i] + minima[r], IS_SCALED);
                team_result[team * QUADS + word * KV_QUADS + i % KV_QUADS] = sum * rescale;
            }
        }
        workgroupBarrier();
        let packed = first + r;
        let partial = kv_head * params.partials + item.partial + packed;
        let row = item.first_row + packed / params.group;
        let head = kv_head * params.group + packed % params.group;
        let is_partial = item.partial != ATTENTION_DIRECT;
        if packed <= last && is_partial && lane == 0u {
            partial_weight[partial] = vec2<f32>(row_largest, row_total);
        }
        for (var col = lane; col < HEAD_STRIDE && packed <= last; col += LANES) {
            var sum = 0.0;
            for (var i = 0u; i < TEAMS; i++) {
                sum += team_result[i * QUADS + col / 4u][col % 4u];
            }
            if is_partial {
                partial_sum[partial * HEAD_STRIDE + col] = sum;
            } else if col < params.head_dim {
                out[row * params.out_stride + head * params.head_dim + col] = act_store(vec4<f32>(sum / row_total)).x;
            }
        }
        workgroupBarrier(); // the next row overwrites team_result
    }
}
