// Reads a buffer as fast as it can: out[lane] = xor of every LANES · workgroups-th 16-byte word, folded to one word.
// Eight loads are in flight a lane before the first is needed; neighbouring lanes read neighbouring words.

struct MeasureReadParams {
    quads: u32,  // 16-byte words
}

var<immediate> params: MeasureReadParams;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;          // [quads]
@group(0) @binding(1) var<storage, read_write> out: array<u32>;        // [workgroups * LANES]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn measure_read(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let stride = groups.x * LANES;
    var sum = vec4<u32>(0u);
    var quad = id.x;
    while quad + 7u * stride < params.quads {
        let a = x[quad];
        let b = x[quad + stride];
        let c = x[quad + 2u * stride];
        let d = x[quad + 3u * stride];
        let e = x[quad + 4u * stride];
        let f = x[quad + 5u * stride];
        let g = x[quad + 6u * stride];
        let h = x[quad + 7u * stride];
        sum ^= ((a ^ b) ^ (c ^ d)) ^ ((e ^ f) ^ (g ^ h));
        quad += 8u * stride;
    }
    for (; quad < params.quads; quad += stride) {
        sum ^= x[quad];
    }
    out[id.x] = (sum.x ^ sum.y) ^ (sum.z ^ sum.w);
}
