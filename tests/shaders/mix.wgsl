// A kernel for the tests of the GPU layer: y = 3 y + x + add, in wrapping integers, so that the order of dispatches shows.

struct MixParams {
    len: u32,
    add: u32,
}

var<immediate> params: MixParams;

@group(0) @binding(0) var<storage, read> x: array<u32>;        // [len]
@group(0) @binding(1) var<storage, read_write> y: array<u32>;  // [len]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn mix(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.len {
        y[id.x] = 3u * y[id.x] + x[id.x] + params.add;
    }
}
