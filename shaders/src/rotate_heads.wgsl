// Rotates every head of rows of activations in place: attention over rotated values turns back.
// One workgroup a row and head.
// Linked with rotate.wgsl and one of act_*.wgsl.

struct RotateHeadsParams {
    head_dim: u32,
    rotation: u32,  // columns that are rotated together, a power of two that divides head_dim
    stride: u32,    // from one row to the next
}

var<immediate> params: RotateHeadsParams;

@group(0) @binding(0) var<storage, read_write> x: array<act>;  // [rows, num_heads * head_dim, padded]

const LANES: u32 = 32u;

@compute @workgroup_size(LANES)
fn rotate_heads(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let base = group.x * params.stride + group.y * params.head_dim;
    for (var col = lane; col < params.head_dim; col += LANES) {
        rotate_row[col] = act_load(act4(x[base + col])).x;
    }
    workgroupBarrier();
    let factor = rotate(lane);
    for (var col = lane; col < params.head_dim; col += LANES) {
        x[base + col] = act_store(vec4<f32>(rotate_row[col] * factor)).x;
    }
}
