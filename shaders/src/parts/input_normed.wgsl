// Inputs of a product for few rows: rows of the residual stream, root-mean-square normed on the way. What is the same for
// a whole row, 1 / sqrt(mean(x * x) + eps), scales the sums when they are done; until then a lane multiplies by the norm's
// weights and adds squares up.
// Needs `params.blocks`: stretches of 32 columns of x, and `params.gather`.
// Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;          // [tokens, blocks * 8]
@group(0) @binding(5) var<storage, read> norm: array<vec4<f32>>;       // [blocks * 8]
@group(0) @binding(6) var<storage, read> gather: array<u32>;           // [rows]: row r is row gather[r] of x

const INPUT_NORMED: u32 = 1u;

// Where row `row` begins, in quads.
fn input_row(row: u32) -> u32 {
    if params.gather == 1u {
        return gather[row] * params.blocks * 8u;
    }
    return row * params.blocks * 8u;
}

fn input_load(row: u32, quad: u32) -> vec4<f32> {
    return x[row + quad];
}

fn input_gain(quad: u32) -> vec4<f32> {
    return norm[quad];
}
