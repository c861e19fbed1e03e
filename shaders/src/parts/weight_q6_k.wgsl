// Weights in ggml's Q6_K: x = d * scale * (q - 32), q of 6 bits, a scale of 8 signed bits to 16 values; super-blocks of 256.
// A row holds 13 16-byte words a super-block (low bits 8, high bits 4, scales 1), then their d (f16).
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

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let row_base = row * params.weight_row_quads;
    let super_block = block / 8u;
    let base = row_base + super_block * 13u;
    let upper = (block % 8u) / 4u;
    let quarter = block % 4u;
    let d = weight_half(row_base * 8u + params.weight_blocks * 104u + super_block);
    let scale_pair = weight_words[(base + 12u) * 4u + upper * 2u + quarter / 2u] >> (16u * (quarter % 2u));
    let scales = d * vec4<f32>(unpack4xI8(scale_pair));
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let low = weight[base + upper * 4u + (quarter % 2u) * 2u + i] >> vec4<u32>(4u * (quarter / 2u));
        let high = weight[base + 8u + upper * 2u + i] >> vec4<u32>(2u * quarter);
        let word = (low & vec4<u32>(0x0f0f0f0fu)) | ((high & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
        let scale = select(scales.x, scales.y, i == 1u);
        out.quads[4u * i] = scale * (vec4<f32>(unpack4xU8(word.x)) - 32.0);
        out.quads[4u * i + 1u] = scale * (vec4<f32>(unpack4xU8(word.y)) - 32.0);
        out.quads[4u * i + 2u] = scale * (vec4<f32>(unpack4xU8(word.z)) - 32.0);
        out.quads[4u * i + 3u] = scale * (vec4<f32>(unpack4xU8(word.w)) - 32.0);
    }
    return out;
}
