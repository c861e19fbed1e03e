// Products of packed int8: eight independent chains x = x + dot(x as four int8, factor). Each operand is the last result,
// so nothing can be left out; sums wrap.

struct MeasureDotParams {
    steps: u32,
    factor: u32,  // four packed int8
}

var<immediate> params: MeasureDotParams;

@group(0) @binding(0) var<storage, read_write> out: array<i32>;  // [workgroups * LANES]

const LANES: u32 = 256u;

fn turn(x: i32) -> i32 {
    return x + dot4I8Packed(bitcast<u32>(x), params.factor);
}

@compute @workgroup_size(LANES)
fn measure_dot(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = bitcast<i32>(id.x * 0x01030507u);
    var b = a + 1;
    var c = a + 2;
    var d = a + 3;
    var e = a + 4;
    var f = a + 5;
    var g = a + 6;
    var h = a + 7;
    for (var step = 0u; step < params.steps; step++) {
        a = turn(a);
        b = turn(b);
        c = turn(c);
        d = turn(d);
        e = turn(e);
        f = turn(f);
        g = turn(g);
        h = turn(h);
    }
    out[id.x] = ((a ^ b) + (c ^ d)) ^ ((e ^ f) + (g ^ h));
}
