// Weights in ggml's Q5_0: x = d * (q - 16), q of 5 bits, 32 values a block.
// A row holds the low bits of all blocks (16 bytes each), then their high bits (4 bytes), then their d (f16).
// Needs `params.weight_row_quads`: 16-byte words from one row to the next, and `params.weight_blocks`: blocks of a row.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // the same buffer, for scales

fn weight_half(index: u32) -> f32 {
    let pair = unpack2x16float(weight_words[index / 2u]);
    return select(pair.x, pair.y, index % 2u == 1u);
}

// The fifth bits of the values 4 i .. 4 i + 3, each at bit 4 of its byte.
fn weight_fifth(high: u32, i: u32) -> u32 {
    let bits = high >> (4u * i);
    return ((bits & 1u) << 4u) | ((bits & 2u) << 11u) | ((bits & 4u) << 18u) | ((bits & 8u) << 25u);
}

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads;
    let d = weight_half(base * 8u + params.weight_blocks * 10u + block);
    let high = weight_words[base * 4u + params.weight_blocks * 4u + block];
    let word = weight[base + block];
    var out: WeightBlock;
    for (var i = 0u; i < 4u; i++) {
        let first = (word[i] & 0x0f0f0f0fu) | weight_fifth(high, i);
        let second = ((word[i] >> 4u) & 0x0f0f0f0fu) | weight_fifth(high, i + 4u);
        out.quads[i] = d * (vec4<f32>(unpack4xU8(first)) - 16.0);
        out.quads[i + 4u] = d * (vec4<f32>(unpack4xU8(second)) - 16.0);
    }
    return out;
}

// A unit is one 16-byte word of quants: a block.
const WEIGHT_GROUPS: u32 = 1u;
const WEIGHT_GROUP_QUADS: u32 = 8u;
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

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit * 8u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    let pair = unpack2x16float(words.d);
    return vec2<f32>(select(pair.x, pair.y, unit % 2u == 1u), 0.0);
}

fn weight_zero(words: WeightUnit) -> i32 {
    return WEIGHT_ZERO;
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    return ((words.word[i % 4u] >> (4u * (i / 4u))) & 0x0f0f0f0fu) | weight_fifth(words.high, i);
}

// The four bytes of a word less `zero`, exactly: the f32 of bits 0x4b000000 + n is 2^23 + n.
fn weight_bytes(word: u32, zero: f32) -> vec4<f32> {
    let bytes = vec4<u32>(word, word, word >> 16u, word >> 16u) & vec4<u32>(0xffu, 0xff00u, 0xffu, 0xff00u);
    let large = bitcast<vec4<f32>>(bytes | vec4<u32>(0x4b000000u));
    let base = vec4<f32>(8388608.0, 32768.0, 8388608.0, 32768.0) + zero;
    return large * vec4<f32>(1.0, 0.00390625, 1.0, 0.00390625) - base;
}

fn weight_floats(words: WeightUnit, unit: u32, group: u32, i: u32) -> vec4<f32> {
    return weight_bytes(weight_quants(words, unit, group, i), f32(WEIGHT_ZERO));
}
