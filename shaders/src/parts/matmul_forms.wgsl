// What both forms of a product of many rows are given, x * weight^T, and how they read x.
// Linked with one of act_*.wgsl. Needs `const QUADS`: the quads of a row of x that are staged together.

struct MatmulParams {
    rows: u32,              // of out: x_rows, once a split
    cols: u32,              // of out in this binding: rows of the weights
    blocks: u32,            // of 32 columns of x
    weight_row_quads: u32,
    weight_blocks: u32,
    first_col: u32,         // where this binding's columns start in out and bias
    out_stride: u32,        // from one row of out to the next
    bias: u32,              // 1: add bias
    add: u32,               // 1: add to what out holds
    activation: u32,        // of a gated epilogue: 0: SiLU, 1: GELU's tanh form
    x_rows: u32,
    split_blocks: u32,
}

var<immediate> params: MatmulParams;

@group(0) @binding(2) var<storage, read> x: array<act4>;               // [x_rows, blocks * 8]

// The quad `at` of the rows of x from `first_m` on, in the stage of the blocks from `block` on: of a row past the end that of the last
// one, of a block from `end` on zero.
fn matmul_quad(first_m: u32, block: u32, end: u32, at: u32) -> act4 {
    let row = min(first_m + at / QUADS, params.x_rows - 1u);
    let source = block + at % QUADS / 8u;
    let quad = x[(row * params.blocks + min(source, end - 1u)) * 8u + at % 8u];
    return select(act4(), quad, source < end);
}
