// Inputs of a product for few rows: rows of activations, as they are.
// Linked after one of act_*.wgsl. Needs `params.blocks`: stretches of 32 columns of x.

@group(0) @binding(2) var<storage, read> x: array<act4>;               // [rows, blocks * 8]
@group(0) @binding(5) var<storage, read> norm: array<vec4<f32>>;       // unused: nothing is normed
@group(0) @binding(6) var<storage, read> gather: array<u32>;           // unused: rows are in order

const INPUT_NORMED: u32 = 0u;

// Where row `row` begins, in quads.
fn input_row(row: u32) -> u32 {
    return row * params.blocks * 8u;
}

fn input_load(row: u32, quad: u32) -> vec4<f32> {
    return act_load(x[row + quad]);
}

fn input_gain(quad: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}
