// Products of cooperative matrices from registers: eight accumulators a subgroup, each plus a product of its own in every step.
// Nothing is loaded in the loop, so the rate is that of the matrix units; no two chains have the same factors, so none can be
// left out for another.
// Linked with one of coop_*.wgsl.

struct MeasureMatrixParams {
    steps: u32,
}

var<immediate> params: MeasureMatrixParams;

@group(0) @binding(0) var<storage, read> x: array<f16>;           // [6, COOP_SIDE, COOP_SIDE]: four of A, two of B
@group(0) @binding(1) var<storage, read_write> out: array<f32>;   // [workgroups, subgroups, 8, COOP_SIDE, COOP_SIDE]

const LANES: u32 = 128u;

@compute @workgroup_size(LANES)
fn measure_matrix(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let size = COOP_SIDE * COOP_SIDE;
    let a0 = coopLoadT<coop_a>(&x[0], COOP_SIDE);
    let a1 = coopLoadT<coop_a>(&x[size], COOP_SIDE);
    let a2 = coopLoadT<coop_a>(&x[2u * size], COOP_SIDE);
    let a3 = coopLoadT<coop_a>(&x[3u * size], COOP_SIDE);
    let b0 = coopLoadT<coop_b>(&x[4u * size], COOP_SIDE);
    let b1 = coopLoadT<coop_b>(&x[5u * size], COOP_SIDE);
    var c0: coop_c;
    var c1: coop_c;
    var c2: coop_c;
    var c3: coop_c;
    var c4: coop_c;
    var c5: coop_c;
    var c6: coop_c;
    var c7: coop_c;
    for (var step = 0u; step < params.steps; step++) {
        c0 = coopMultiplyAdd(a0, b0, c0);
        c1 = coopMultiplyAdd(a0, b1, c1);
        c2 = coopMultiplyAdd(a1, b0, c2);
        c3 = coopMultiplyAdd(a1, b1, c3);
        c4 = coopMultiplyAdd(a2, b0, c4);
        c5 = coopMultiplyAdd(a2, b1, c5);
        c6 = coopMultiplyAdd(a3, b0, c6);
        c7 = coopMultiplyAdd(a3, b1, c7);
    }
    let first = (group.x * subgroups + subgroup) * 8u * size;
    coopStoreT(c0, &out[first], COOP_SIDE);
    coopStoreT(c1, &out[first + size], COOP_SIDE);
    coopStoreT(c2, &out[first + 2u * size], COOP_SIDE);
    coopStoreT(c3, &out[first + 3u * size], COOP_SIDE);
    coopStoreT(c4, &out[first + 4u * size], COOP_SIDE);
    coopStoreT(c5, &out[first + 5u * size], COOP_SIDE);
    coopStoreT(c6, &out[first + 6u * size], COOP_SIDE);
    coopStoreT(c7, &out[first + 7u * size], COOP_SIDE);
}
