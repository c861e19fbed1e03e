// Reads a buffer as fast as it can: out[lane] = xor of the 16-byte words that the lane reads, folded to one word.
// A workgroup reads one contiguous chunk, its lanes neighbouring words; eight loads of a lane are in flight before the first
// is needed.

struct MeasureReadParams {
    quads: u32,  // 16-byte words
    chunk: u32,  // of them to a workgroup
}

var<immediate> params: MeasureReadParams;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;          // [quads]
@group(0) @binding(1) var<storage, read_write> out: array<u32>;        // [workgroups * LANES]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn measure_read(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let end = min((group.x + 1u) * params.chunk, params.quads);
    var sum = vec4<u32>(0u);
    var quad = group.x * params.chunk + lane;
    while quad + 7u * LANES < end {
        let a = x[quad];
        let b = x[quad + LANES];
        let c = x[quad + 2u * LANES];
        let d = x[quad + 3u * LANES];
        let e = x[quad + 4u * LANES];
        let f = x[quad + 5u * LANES];
        let g = x[quad + 6u * LANES];
        let h = x[quad + 7u * LANES];
        sum ^= ((a ^ b) ^ (c ^ d)) ^ ((e ^ f) ^ (g ^ h));
        quad += 8u * LANES;
    }
    for (; quad < end; quad += LANES) {
        sum ^= x[quad];
    }
    out[group.x * LANES + lane] = (sum.x ^ sum.y) ^ (sum.z ^ sum.w);
}
