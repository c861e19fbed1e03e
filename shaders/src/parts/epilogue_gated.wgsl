// What the product of interleaved gate and up rows does with its sums: out = activation(gate) * up. Column 2 i is a gate and
// column 2 i + 1 its up; out has half as many columns. Padding columns of out stay zero: gate and up are zero there.
// Linked with activation.wgsl and one of act_*.wgsl. Needs `params.rows`, `params.cols`, `params.first_col`, `params.out_stride`,
// `params.bias` and `params.activation`; `first_col` and `cols` are even, and `out_stride` is that of out.

@group(0) @binding(3) var<storage, read> bias: array<f32>;             // [cols of all bindings]
@group(0) @binding(4) var<storage, read_write> out: array<act>;        // [rows, out_stride]

// The sums of columns `col` and `col + 1` of a row; `col` is even. What is past the end is not stored.
fn epilogue_pair(row: u32, col: u32, sums: vec2<f32>) {
    if row >= params.rows || col >= params.cols {
        return;
    }
    var both = sums;
    if params.bias == 1u {
        both += vec2<f32>(bias[params.first_col + col], bias[params.first_col + col + 1u]);
    }
    // One of four is wanted, and the compiler keeps one.
    let gated = activation(vec4<f32>(both.x)).x * both.y;
    out[row * params.out_stride + (params.first_col + col) / 2u] = act_store(vec4<f32>(gated)).x;
}
