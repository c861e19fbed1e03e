// Weights in ggml's Q8_0: x = d * q, q of 8 signed bits, 32 values a block.
// A row holds the quants of all blocks (32 bytes each), then their d (f16).
// Linked with weight_rows.wgsl, weight_bytes.wgsl and weight_half.wgsl.

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads;
    let d = weight_half(base * 8u + params.weight_blocks * 16u + block);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let word = weight[base + block * 2u + i];
        out.quads[4u * i] = d * vec4<f32>(unpack4xI8(word.x));
        out.quads[4u * i + 1u] = d * vec4<f32>(unpack4xI8(word.y));
        out.quads[4u * i + 2u] = d * vec4<f32>(unpack4xI8(word.z));
        out.quads[4u * i + 3u] = d * vec4<f32>(unpack4xI8(word.w));
    }
    return out;
}

// A unit is one 16-byte word: half a block.
const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 4u;
const WEIGHT_TERMS: u32 = 1u;

struct WeightUnit {
    word: vec4<u32>,
    d: u32, // with a neighbour's
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads;
    return WeightUnit(weight[base + unit], weight_words[base * 4u + (params.weight_blocks * 16u + unit / 2u) / 2u]);
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * 4u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(weight_half_of(words.d, unit / 2u), 0.0);
}

fn weight_zero(words: WeightUnit) -> i32 {
    return 0i;
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return words.word[i];
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(words.word[i] ^ 0x80808080u, 128.0);
}
