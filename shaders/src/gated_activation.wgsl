// out = activation(gate) * up, for every row of a gate|up matrix.
// A lane computes four columns. Padding columns of out stay zero: gate and up are zero there.
// Linked with activation.wgsl and one of act_*.wgsl.

struct GatedActivationParams {
    rows: u32,
    quads: u32,         // of a row of out
    up_quads: u32,      // where up starts in a row of gate_up
    stride_quads: u32,  // from one row of gate_up to the next
    activation: u32,    // 0: SiLU, 1: GELU's tanh form
}

var<immediate> params: GatedActivationParams;

@group(0) @binding(0) var<storage, read> gate_up: array<vec4<f32>>;  // [rows, stride]
@group(0) @binding(1) var<storage, read_write> out: array<act4>;     // [rows, quads]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn gated_activation(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quad = group.x * LANES + lane;
    let row = group.y;
    if quad >= params.quads {
        return;
    }
    let gate = gate_up[row * params.stride_quads + quad];
    let up = gate_up[row * params.stride_quads + params.up_quads + quad];
    out[row * params.quads + quad] = act_store(activation(gate) * up);
}
