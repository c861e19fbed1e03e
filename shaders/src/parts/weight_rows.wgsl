// Rows of weights of any format: how they are bound, and what 32 decoded values come in.
// Needs `params.weight_row_quads`: 16-byte words from one row to the next; where scales lie behind all quants of a row, also
// `params.weight_blocks`: blocks of a row.

struct WeightBlock {
    quads: array<vec4<f32>, 8>,
}

@group(0) @binding(0) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_words: array<u32>; // the same buffer, for scales behind the quants
