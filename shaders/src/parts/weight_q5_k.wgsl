// Weights in ggml's Q5_K: x = d * scale * q - dmin * minimum, q of 5 bits; a super-block of 256 holds eight stretches of 32.
// A super-block is eleven 16-byte words: d, dmin and packed scales; two of fifth bits, bit s for stretch s; then the low bits.
// Needs `params.weight_row_quads`: 16-byte words from one row to the next.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // unused: a format without scales

// The scale and minimum of stretch `sub` of a super-block, 6 bits each, from its 12 packed bytes.
fn weight_k_scale(packed: vec3<u32>, sub: u32) -> vec2<f32> {
    let shift = 8u * (sub % 4u);
    if sub < 4u {
        return vec2<f32>(f32((packed.x >> shift) & 63u), f32((packed.y >> shift) & 63u));
    }
    let low = packed.z >> shift;
    let scale = (low & 15u) | (((packed.x >> (shift + 6u)) & 3u) << 4u);
    let minimum = ((low >> 4u) & 15u) | (((packed.y >> (shift + 6u)) & 3u) << 4u);
    return vec2<f32>(f32(scale), f32(minimum));
}

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads + (block / 8u) * 11u;
    let sub = block % 8u;
    let head = weight[base];
    let scale = unpack2x16float(head.x) * weight_k_scale(head.yzw, sub);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let low = (weight[base + 3u + (sub / 2u) * 2u + i] >> vec4<u32>(4u * (sub % 2u))) & vec4<u32>(0x0f0f0f0fu);
        let high = (weight[base + 1u + i] >> vec4<u32>(sub)) & vec4<u32>(0x01010101u);
        let word = low | (high << vec4<u32>(4u));
        out.quads[4u * i] = scale.x * vec4<f32>(unpack4xU8(word.x)) - scale.y;
        out.quads[4u * i + 1u] = scale.x * vec4<f32>(unpack4xU8(word.y)) - scale.y;
        out.quads[4u * i + 2u] = scale.x * vec4<f32>(unpack4xU8(word.z)) - scale.y;
        out.quads[4u * i + 3u] = scale.x * vec4<f32>(unpack4xU8(word.w)) - scale.y;
    }
    return out;
}

// A unit is one 16-byte word of low quants: 16 values of a stretch, and of the next those at the same places.
const WEIGHT_GROUPS: u32 = 2u;
const WEIGHT_GROUP_QUADS: u32 = 4u;
const WEIGHT_TERMS: u32 = 2u;
const WEIGHT_ZERO: i32 = 0;

struct WeightUnit {
    word: vec4<u32>,
    high: vec4<u32>,
    head: vec4<u32>,
}

fn weight_fetch(row: u32, unit: u32) -> WeightUnit {
    let base = row * params.weight_row_quads + (unit / 8u) * 11u;
    return WeightUnit(weight[base + 3u + unit % 8u], weight[base + 1u + unit % 2u], weight[base]);
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit / 2u * 16u + group * 8u + unit % 2u * 4u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    let scale = weight_k_scale(words.head.yzw, unit % 8u / 2u * 2u + group);
    return unpack2x16float(words.head.x) * scale * vec2<f32>(1.0, -1.0);
}

fn weight_zero(words: WeightUnit) -> i32 {
    return WEIGHT_ZERO;
}

fn weight_quants(words: WeightUnit, unit: u32, group: u32, i: u32) -> u32 {
    let high = (words.high[i] >> (unit % 8u / 2u * 2u + group)) & 0x01010101u;
    return ((words.word[i] >> (4u * group)) & 0x0f0f0f0fu) | (high << 4u);
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
