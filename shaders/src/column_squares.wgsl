// sums[first + c] += the sum of x[r, c]² over all rows r: how large each input column of a product is.
// A lane adds up four columns.
// Linked with one of act_*.wgsl.

struct ColumnSquaresParams {
    rows: u32,
    quads: u32,  // of a row of x
    first: u32,  // where the row of sums begins, in quads
}

var<immediate> params: ColumnSquaresParams;

@group(0) @binding(0) var<storage, read> x: array<act4>;                // [rows, quads]
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<f32>>;  // [.., quads]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn column_squares(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quad = group.x * LANES + lane;
    if quad >= params.quads {
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var row = 0u; row < params.rows; row += 1u) {
        let value = act_load(x[row * params.quads + quad]);
        sum += value * value;
    }
    sums[params.first + quad] += sum;
}
