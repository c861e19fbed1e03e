// Weights in ggml's Q8_0: x = d * q, q of 8 signed bits, 32 values a block.
// A row holds the quants of all blocks (32 bytes each), then their d (f16).
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
    let base = row * params.weight_row_quads;
    let d = weight_half(base * 8u + params.weight_blocks * 16u + block);
    var out: WeightBlock;
    for (var i = 0u; i < 2u; i++) {
        let word = weight[base + block * 2u + i];
        out.quads[4u * i] = d * vec4<f32>(unpack4xI8(word.x));
        out.quads[4u * i + 1u] = d * vec4<f32>(unpack4xI8(word.y));
        out.quads[4u * i + 2u] = d * vec4<f32>(unpack4xI8(word.z));
        out.quads[4u * i + 3u] = d * vec4<f32>(unpack4xI8(word.w));
    }
    return out;
}
