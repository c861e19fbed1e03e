// Weights in ggml's Q4_1: x = d * q + m, q of 4 bits, 32 values a block.
// A row holds the quants of all blocks (16 bytes each), then their d and m (two f16). A unit is a block.
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl and weight_nibbles.wgsl.

const WEIGHT_TERMS: u32 = 2u;
const WEIGHT_ZERO: i32 = 0;

struct WeightUnit {
    word: vec4<u32>,
    scale: u32,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads;
    let scale = weight_words[base * 4u + params.weight_blocks * 4u + unit];
    return WeightUnit(weight[base + unit], scale);
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return unpack2x16float(words.scale);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return weight_nibbles(words.word, i);
}
