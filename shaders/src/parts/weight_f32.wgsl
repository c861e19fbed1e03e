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
