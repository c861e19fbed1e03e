// Copies a buffer: out = x, 16 bytes at a time, four in flight a lane, a contiguous chunk a workgroup. On a few words it is a dispatch that does next to
// nothing, by which the cost of a dispatch itself is measured.

struct MeasureCopyParams {
    quads: u32,  // 16-byte words
    chunk: u32,  // of them to a workgroup
}

var<immediate> params: MeasureCopyParams;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;          // [quads]
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;  // [quads]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn measure_copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let end = min((group.x + 1u) * params.chunk, params.quads);
    var quad = group.x * params.chunk + lane;
    while quad + 3u * LANES < end {
        let a = x[quad];
        let b = x[quad + LANES];
        let c = x[quad + 2u * LANES];
        let d = x[quad + 3u * LANES];
        out[quad] = a;
        out[quad + LANES] = b;
        out[quad + 2u * LANES] = c;
        out[quad + 3u * LANES] = d;
        quad += 4u * LANES;
    }
    for (; quad < end; quad += LANES) {
        out[quad] = x[quad];
    }
}
