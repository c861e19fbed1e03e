// Rotates every head of rows of activations in place, in blocks of columns, by the normalised Hadamard matrix (Sylvester's, its own
// inverse): attention over rotated values turns back.
// One workgroup a row and head; sums and differences of columns whose indices differ in one bit, bit by bit.
// Linked with one of act_*.wgsl.
// Source: Ashkboos et al. 2024, "QuaRot", arXiv:2404.00456, section 4.

struct RotateHeadsParams {
    head_dim: u32,
    rotation: u32,  // columns that are rotated together, a power of two that divides head_dim
    stride: u32,    // from one row to the next
}

var<immediate> params: RotateHeadsParams;

@group(0) @binding(0) var<storage, read_write> x: array<act>;  // [rows, num_heads * head_dim, padded]

const LANES: u32 = 32u;
const MOST_COLS: u32 = 256u;

var<workgroup> row: array<f32, MOST_COLS>;

@compute @workgroup_size(LANES)
fn rotate_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let base = group.x * params.stride + group.y * params.head_dim;
    for (var col = lane; col < params.head_dim; col += LANES) {
        row[col] = act_load(act4(x[base + col])).x;
    }
    workgroupBarrier();
    for (var bit = 1u; bit < params.rotation; bit *= 2u) {
        for (var i = lane; i < params.head_dim / 2u; i += LANES) {
            let at = i / bit * bit + i;
            let sum = row[at] + row[at + bit];
            row[at + bit] = row[at] - row[at + bit];
            row[at] = sum;
        }
        workgroupBarrier();
    }
    let factor = inverseSqrt(f32(params.rotation));
    for (var col = lane; col < params.head_dim; col += LANES) {
        x[base + col] = act_store(vec4<f32>(row[col] * factor)).x;
    }
}
