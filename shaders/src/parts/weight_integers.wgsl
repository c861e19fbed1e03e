// Weights in integers in groups: x = scale * (q - zero). A block is `WEIGHT_BLOCK_VALUES` values.
// A row holds the quants of all blocks, then their scales: a word's top 24 bits are an f32's, its low 8 the zero.
// A unit is one 16-byte word of quants.
// Linked with weight_rows.wgsl, one of weight_i4.wgsl and weight_i8.wgsl, and one of weight_g32.wgsl and weight_g128.wgsl.

const WEIGHT_TERMS: u32 = 1u;
const WEIGHT_BLOCK_UNITS: u32 = WEIGHT_BLOCK_VALUES / (4u * WEIGHT_GROUP_QUADS);

struct WeightUnit {
    word: vec4<u32>,
    scale: u32,
}

// Of the block that a unit is of.
fn weight_scale_word(row: u32, unit: u32) -> u32 {
    let first = (row * params.weight_row_quads + params.weight_blocks * WEIGHT_BLOCK_UNITS) * 4u;
    return weight_words[first + unit / WEIGHT_BLOCK_UNITS];
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    return WeightUnit(weight[row * params.weight_row_quads + unit], weight_scale_word(row, unit));
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(words.scale & 0xffffff00u), 0.0);
}
