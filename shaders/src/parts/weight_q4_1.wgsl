// Weights in ggml's Q4_1: x = d * q + m, q of 4 bits, 32 values a block.
// A row holds the quants of all blocks (16 bytes each), then their d and m (two f16).
// Needs `params.weight_row_quads`: 16-byte words from one row to the next, and `params.weight_blocks`: blocks of a row.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // the same buffer, for scales

fn weight_block(row: u32, block: u32) -> WeightBlock {
    let base = row * params.weight_row_quads;
    let scale = unpack2x16float(weight_words[base * 4u + params.weight_blocks * 4u + block]);
    let word = weight[base + block];
    var out: WeightBlock;
    for (var i = 0u; i < 4u; i++) {
        out.quads[i] = scale.x * vec4<f32>(unpack4xU8(word[i] & 0x0f0f0f0fu)) + scale.y;
        out.quads[i + 4u] = scale.x * vec4<f32>(unpack4xU8((word[i] >> 4u) & 0x0f0f0f0fu)) + scale.y;
    }
    return out;
}
