// Weights in f32.
// A stretch of 32 values is eight quads.
// Needs `params.weight_row_quads`: 16-byte words from one row to the next.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // unused: a format without scales

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads + block * 8u;
    var out: WeightBlock;
    for (var i = 0u; i < 8u; i++) {
        out.quads[i] = bitcast<vec4<f32>>(weight[base + i]);
    }
    return out;
}

// A unit is one 16-byte word.
const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 1u;
const WEIGHT_TERMS: u32 = 0u;

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

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(words.word);
}
