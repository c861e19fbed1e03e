// Copies a buffer: out = x, 16 bytes at a time, four in flight a lane. On a few words it is a dispatch that does next to
// nothing, by which the cost of a dispatch itself is measured.

struct MeasureCopyParams {
    quads: u32,  // 16-byte words
}

var<immediate> params: MeasureCopyParams;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;          // [quads]
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;  // [quads]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn measure_copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let stride = groups.x * LANES;
    var quad = id.x;
    while quad + 3u * stride < params.quads {
        let a = x[quad];
        let b = x[quad + stride];
        let c = x[quad + 2u * stride];
        let d = x[quad + 3u * stride];
        out[quad] = a;
        out[quad + stride] = b;
        out[quad + 2u * stride] = c;
        out[quad + 3u * stride] = d;
        quad += 4u * stride;
    }
    for (; quad < params.quads; quad += stride) {
        out[quad] = x[quad];
    }
}
