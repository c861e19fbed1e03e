// Weights in integers of 4 bits: x = scale * (q - zero), q from 0 to 15, 32 values a block.
// A row holds the quants of all blocks (16 bytes each), then their scales: a word's top 24 bits are an f32's, its low 8 the zero.
// Needs `params.weight_row_quads`: 16-byte words from one row to the next, and `params.weight_blocks`: blocks of a row.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // the same buffer, for scales

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads;
    let scale = weight_words[base * 4u + params.weight_blocks * 4u + block];
    let d = bitcast<f32>(scale & 0xffffff00u);
    let zero = f32(scale & 0xffu);
    var out: WeightBlock;
    let word = weight[base + block];
    for (var i = 0u; i < 4u; i++) {
        out.quads[i] = d * (vec4<f32>(unpack4xU8(word[i] & 0x0f0f0f0fu)) - zero);
        out.quads[i + 4u] = d * (vec4<f32>(unpack4xU8((word[i] >> 4u) & 0x0f0f0f0fu)) - zero);
    }
    return out;
}

// A unit is one 16-byte word of quants: a block.
const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 8u;
const WEIGHT_TERMS: u32 = 1u;

struct WeightUnit {
    word: vec4<u32>,
    scale: u32,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads;
    return WeightUnit(weight[base + unit], weight_words[base * 4u + params.weight_blocks * 4u + unit]);
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * 8u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(words.scale & 0xffffff00u), 0.0);
}

fn weight_zero(words: WeightUnit) -> i32 {
    return i32(words.scale & 0xffu);
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return (words.word[i % 4u] >> (4u * (i / 4u))) & 0x0f0f0f0fu;
}

// The four bytes of a word less `zero`, exactly: the f32 of bits 0x4b000000 + n is 2^23 + n.
fn weight_bytes(word: u32, zero: f32) -> vec4<f32> {
    let bytes = vec4<u32>(word, word, word >> 16u, word >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let large = bitcast<vec4<f32>>(bytes | vec4<u32>(0x4b000000u));
    let base = vec4<f32>(8388608.0, 32768.0, 8388608.0, 32768.0) + zero;
    return large * vec4<f32>(1.0, 0.00390625, 1.0, 0.00390625) - base;
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(weight_quants(words, unit, group, i), f32(words.scale & 0xffu));
}
