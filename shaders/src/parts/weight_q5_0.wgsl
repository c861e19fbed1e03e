// Weights in ggml's Q5_0: x = d * (q - 16), q of 5 bits, 32 values a block.
// A row holds the low bits of all blocks (16 bytes each), then their high bits (4 bytes), then their d (f16). A unit is a block.
// Linked with weight_rows.wgsl, weight_bytes.wgsl, weight_zero.wgsl, weight_half.wgsl, weight_nibbles.wgsl and weight_fifth.wgsl.

const WEIGHT_TERMS: u32 = 1u;
const WEIGHT_ZERO: i32 = 16;

struct WeightUnit {
    word: vec4<u32>,
    high: u32,
    d: u32, // with a neighbour's
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads;
    let scale = weight_words[base * 4u + (params.weight_blocks * 10u + unit) / 2u];
    let high = weight_words[base * 4u + params.weight_blocks * 4u + unit];
    return WeightUnit(weight[base + unit], high, scale);
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(weight_half_of(words.d, unit), 0.0);
}
