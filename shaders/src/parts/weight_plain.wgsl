// Weights that are floats themselves, without scales. A unit is one 16-byte word.
// Linked with weight_rows.wgsl and one of weight_f32.wgsl, weight_f16.wgsl and weight_bf16.wgsl.

const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_TERMS: u32 = 0u;
const WEIGHT_WORDS: u32 = 8u / WEIGHT_GROUP_QUADS; // of a stretch of 32 values

struct WeightUnit {
    word: vec4<u32>,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    return WeightUnit(weight[row * params.weight_row_quads + unit]);
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * WEIGHT_GROUP_QUADS;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(1.0, 0.0);
}

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads + block * WEIGHT_WORDS;
    var out: WeightBlock;
    for (var i = 0u; i < WEIGHT_WORDS; i++) {
        let words = WeightUnit(weight[base + i]);
        for (var j = 0u; j < WEIGHT_GROUP_QUADS; j++) {
            out.quads[i * WEIGHT_GROUP_QUADS + j] = weight_floats(words, i, 0u, j);
        }
    }
    return out;
}
