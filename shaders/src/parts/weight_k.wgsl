// What ggml's Q4_K and Q5_K share: x = d * scale * q - dmin * minimum; a super-block of 256 holds eight stretches of 32.
// A super-block is `WEIGHT_K_QUADS` 16-byte words. The first holds d, dmin and packed scales; the last eight the low bits, two stretches
// to 32 bytes. A unit is one of these: 16 values of a stretch, and of the next those at the same places.
// Linked with weight_rows.wgsl and a format, which defines `WEIGHT_K_QUADS`, `weight_k_word` and a `WeightUnit` whose `head` is the
// first word.

const WEIGHT_GROUPS: u32 = 2u;
const WEIGHT_GROUP_QUADS: u32 = 4u;
const WEIGHT_TERMS: u32 = 2u;
const WEIGHT_ZERO: i32 = 0;

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
    let base = row * params.weight_row_quads + (block / 8u) * WEIGHT_K_QUADS;
    let sub = block % 8u;
    let head = weight[base];
    let scale = unpack2x16float(head.x) * weight_k_scale(head.yzw, sub);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let word = weight_k_word(base, sub, i);
        out.quads[4u * i] = scale.x * vec4<f32>(unpack4xU8(word.x)) - scale.y;
        out.quads[4u * i + 1u] = scale.x * vec4<f32>(unpack4xU8(word.y)) - scale.y;
        out.quads[4u * i + 2u] = scale.x * vec4<f32>(unpack4xU8(word.z)) - scale.y;
        out.quads[4u * i + 3u] = scale.x * vec4<f32>(unpack4xU8(word.w)) - scale.y;
    }
    return out;
}

fn weight_group_quad(unit: u32, group: u32) -> u32 {
    return unit / 2u * 16u + group * 8u + unit % 2u * 4u;
}

fn weight_scale(words: WeightUnit, unit: u32, group: u32) -> vec2<f32> {
    let scale = weight_k_scale(words.head.yzw, unit % 8u / 2u * 2u + group);
    return unpack2x16float(words.head.x) * scale * vec2<f32>(1.0, -1.0);
}
