// Multiplies and adds from registers: eight independent chains x = x · factor + 1 of four numbers each, so that no result
// is waited for. The factor is known at run time alone, and every chain reaches the output, so nothing can be left out.
// Linked with one of act_*.wgsl.

struct MeasureMultiplyParams {
    steps: u32,
    factor: f32,
}

var<immediate> params: MeasureMultiplyParams;

@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;  // [workgroups * LANES]

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn measure_multiply(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = act4(act(params.factor));
    let one = act4(act(1.0));
    let start = act(id.x % 16u);
    var a = act4(start) + act4(act(0.0), act(0.25), act(0.5), act(0.75));
    var b = a + one;
    var c = b + one;
    var d = c + one;
    var e = d + one;
    var f = e + one;
    var g = f + one;
    var h = g + one;
    for (var step = 0u; step < params.steps; step++) {
        a = fma(a, factor, one);
        b = fma(b, factor, one);
        c = fma(c, factor, one);
        d = fma(d, factor, one);
        e = fma(e, factor, one);
        f = fma(f, factor, one);
        g = fma(g, factor, one);
        h = fma(h, factor, one);
    }
    let low = (act_load(a) + 2.0 * act_load(b)) + (3.0 * act_load(c) + 4.0 * act_load(d));
    let high = (5.0 * act_load(e) + 6.0 * act_load(f)) + (7.0 * act_load(g) + 8.0 * act_load(h));
    out[id.x] = low + high;
}
