// What a product does with its sums: out = sum (+ bias), or out += sum (+ bias), in f32.
// Needs `params.rows`, `params.cols`, `params.first_col`, `params.out_stride`, `params.bias` and `params.add`.

@group(0) @binding(3) var<storage, read> bias: array<f32>;             // [out_stride]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;        // [rows, out_stride]

fn epilogue_store(row: u32, col: u32, sum: f32) {
    if col >= params.cols {
        return;
    }
    var value = sum;
    if params.bias == 1u {
        value += bias[params.first_col + col];
    }
    let at = row * params.out_stride + params.first_col + col;
    if params.add == 1u {
        value += out[at];
    }
    out[at] = value;
}

// The sums of columns `col` and `col + 1` of a row; `col` is even. What is past the end is not stored.
fn epilogue_pair(row: u32, col: u32, sums: vec2<f32>) {
    if row < params.rows {
        epilogue_store(row, col, sums.x);
        epilogue_store(row, col + 1u, sums.y);
    }
}
