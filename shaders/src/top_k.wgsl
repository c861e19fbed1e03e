// The K largest logits of chosen rows, in no order, and the mass that they are a part of: the largest logit and the sum
// of exp((logit - largest) / temperature) over all columns. The host picks from the candidates, and reads the row back
// where they do not hold the mass that it needs.
// One workgroup a row: a radix select on the logits as ordered integers finds the K-th; one more pass collects.
// Linked with one of reduce_*.wgsl.

struct TopKRow {
    row: u32,                  // of the logits
    inverse_temperature: f32,
}

struct TopKSummary {
    largest: f32,
    total: f32,   // sum of exp((logit - largest) * inverse_temperature)
    left_out: u32, // logits equal to the smallest candidate that found no place
}

struct TopKParams {
    cols: u32,
    stride: u32,  // from one row of logits to the next
    k: u32,       // at most cols
}

var<immediate> params: TopKParams;

@group(0) @binding(0) var<storage, read> logits: array<f32>;                    // [rows, stride]
@group(0) @binding(1) var<storage, read> top_rows: array<TopKRow>;
@group(0) @binding(2) var<storage, read_write> candidates: array<vec2<u32>>;    // [top_rows, k]: column, logit's bits
@group(0) @binding(3) var<storage, read_write> summaries: array<TopKSummary>;   // [top_rows]

const LANES: u32 = 256u;

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> prefix: u32;   // the leading digits of the K-th largest
var<workgroup> wanted: u32;   // how many of those that share the prefix are still wanted
var<workgroup> above: atomic<u32>;
var<workgroup> equal: atomic<u32>;

// Larger logits have larger keys.
fn ordered(logit: f32) -> u32 {
    let bits = bitcast<u32>(logit);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

@compute @workgroup_size(LANES)
fn top_k(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let lane = reduce.lane;
    let base = top_rows[group.x].row * params.stride;
    let inverse_temperature = top_rows[group.x].inverse_temperature;
    var best = -3.4e38;
    for (var col = lane; col < params.cols; col += LANES) {
        best = max(best, logits[base + col]);
    }
    let largest = reduce_max4(reduce, vec4<f32>(best)).x;
    var sum = 0.0;
    for (var col = lane; col < params.cols; col += LANES) {
        sum += exp((logits[base + col] - largest) * inverse_temperature);
    }
    let total = reduce_sum4(reduce, vec4<f32>(sum)).x;

    if lane == 0u {
        prefix = 0u;
        wanted = params.k;
        atomicStore(&above, 0u);
        atomicStore(&equal, 0u);
    }
    for (var shift = 24i; shift >= 0i; shift -= 8i) {
        for (var i = lane; i < 256u; i += LANES) {
            atomicStore(&histogram[i], 0u);
        }
        workgroupBarrier();
        let known = prefix;
        for (var col = lane; col < params.cols; col += LANES) {
            let key = ordered(logits[base + col]);
            if shift == 24i || (key >> u32(shift + 8i)) == known {
                atomicAdd(&histogram[(key >> u32(shift)) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if lane == 0u {
            var digit = 255u;
            var left = wanted;
            while digit > 0u && atomicLoad(&histogram[digit]) < left {
                left -= atomicLoad(&histogram[digit]);
                digit -= 1u;
            }
            prefix = (known << 8u) | digit;
            wanted = left;
        }
        workgroupBarrier();
    }
    let threshold = prefix;
    let places_above = params.k - wanted;
    for (var col = lane; col < params.cols; col += LANES) {
        let logit = logits[base + col];
        let key = ordered(logit);
        var place = params.k;
        if key > threshold {
            place = atomicAdd(&above, 1u);
        } else if key == threshold {
            place = places_above + atomicAdd(&equal, 1u);
        }
        if place < params.k {
            candidates[group.x * params.k + place] = vec2<u32>(col, bitcast<u32>(logit));
        }
    }
    workgroupBarrier();
    if lane == 0u {
        summaries[group.x] = TopKSummary(largest, total, atomicLoad(&equal) - wanted);
    }
}
