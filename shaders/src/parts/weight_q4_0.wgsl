// Weights in ggml's Q4_0: x = d * (q - 8), q of 4 bits, 32 values a block.
// A row holds the quants of all blocks (16 bytes each), then their d (f16). A unit is a block.
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl, weight_half.wgsl and weight_nibbles.wgsl.

const WEIGHT_TERMS: u32 = 1u;
const WEIGHT_ZERO: i32 = 8;

struct WeightUnit {
    word: vec4<u32>,
    d: u32, // with a neighbour's
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads;
    let scale = weight_words[base * 4u + (params.weight_blocks * 8u + unit) / 2u];
    return WeightUnit(weight[base + unit], scale);
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(weight_half_of(words.d, unit), 0.0);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return weight_nibbles(words.word, i);
}
