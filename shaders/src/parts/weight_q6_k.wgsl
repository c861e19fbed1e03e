// Weights in ggml's Q6_K: x = d * scale * (q - 32), q of 6 bits, a scale of 8 signed bits to 16 values; super-blocks of 256.
// A row holds 13 16-byte words a super-block (low bits 8, high bits 4, scales 1), then their d (f16).
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl and weight_half.wgsl.

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let row_base = row * params.weight_row_quads;
    let super_block = block / 8u;
    let base = row_base + super_block * 13u;
    let upper = (block % 8u) / 4u;
    let quarter = block % 4u;
    let d = weight_half(row_base * 8u + params.weight_blocks * 104u + super_block);
    let scale_pair = weight_words[(base + 12u) * 4u + upper * 2u + quarter / 2u] >> (16u * (quarter % 2u));
    let scales = d * vec4<f32>(unpack4xI8(scale_pair));
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let low = weight[base + upper * 4u + (quarter % 2u) * 2u + i] >> vec4<u32>(4u * (quarter / 2u));
        let high = weight[base + 8u + upper * 2u + i] >> vec4<u32>(2u * quarter);
        let word = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
        let scale = select(scales.x, scales.y, i == 1u);
        out.quads[4u * i] = scale * (vec4<f32>(unpack4xU8(word.x)) - 32.0);
        out.quads[4u * i + 1u] = scale * (vec4<f32>(unpack4xU8(word.y)) - 32.0);
        out.quads[4u * i + 2u] = scale * (vec4<f32>(unpack4xU8(word.z)) - 32.0);
        out.quads[4u * i + 3u] = scale * (vec4<f32>(unpack4xU8(word.w)) - 32.0);
    }
    return out;
}

// A unit is 32 bytes of low bits and 16 of high bits: of each quarter of half a super-block the first or the last 16 values.
const WEIGHT_GROUPS: u32 = 4u;
const WEIGHT_GROUP_QUADS: u32 = 4u;
const WEIGHT_TERMS: u32 = 1u;
const WEIGHT_ZERO: i32 = 32;

struct WeightUnit {
    low: array<vec4<u32>, 2>, // of the quarters 0 and 2, of 1 and 3
    high: vec4<u32>,
    scales: vec2<u32>,        // two bytes a quarter
    d: u32,                   // with a neighbour's
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let row_base = row * params.weight_row_quads;
    let base = row_base + (unit / 4u) * 13u;
    let upper = unit % 4u / 2u;
    let low = base + upper * 4u + unit % 2u;
    let scales = (base + 12u) * 4u + upper * 2u;
    var out: WeightUnit;
    out.low[0] = weight[low];
    out.low[1] = weight[low + 2u];
    out.high = weight[base + 8u + upper * 2u + unit % 2u];
    out.scales = vec2<u32>(weight_words[scales], weight_words[scales + 1u]);
    out.d = weight_words[row_base * 4u + (params.weight_blocks * 104u + unit / 4u) / 2u];
    return out;
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit / 2u * 32u + group * 8u + unit % 2u * 4u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    let d = weight_half_of(words.d, unit / 4u);
    let scale = bitcast<i32>(words.scales[group / 2u] << (24u - 16u * (group % 2u) - 8u * (unit % 2u))) >> 24u;
    return vec2<f32>(d * f32(scale), 0.0);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    let low = (words.low[group % 2u][i] >> (4u * (group / 2u))) & 0x0f0f0f0fu;
    return low | (((words.high[i] >> (2u * group)) & 0x03030303u) << 4u);
}
