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
