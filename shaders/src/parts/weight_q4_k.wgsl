// Weights in ggml's Q4_K: x = d * scale * q - dmin * minimum, q of 4 bits; a super-block of 256 holds eight stretches of 32.
// A super-block is nine 16-byte words: d, dmin and packed scales; then the quants, two stretches to 32 bytes.
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
    let base = row * params.weight_row_quads + (block / 8u) * 9u;
    let sub = block % 8u;
    let head = weight[base];
    let scale = unpack2x16float(head.x) * weight_k_scale(head.yzw, sub);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let word = (weight[base + 1u + (sub / 2u) * 2u + i] >> vec4<u32>(4u * (sub % 2u))) & vec4<u32>(0x0f0f0f0fu);
        out.quads[4u * i] = scale.x * vec4<f32>(unpack4xU8(word.x)) - scale.y;
        out.quads[4u * i + 1u] = scale.x * vec4<f32>(unpack4xU8(word.y)) - scale.y;
        out.quads[4u * i + 2u] = scale.x * vec4<f32>(unpack4xU8(word.z)) - scale.y;
        out.quads[4u * i + 3u] = scale.x * vec4<f32>(unpack4xU8(word.w)) - scale.y;
    }
    return out;
}
