// The parts of a product that was split over its inner columns, added in order: out = sum over splits (+ bias …).
// A lane adds a pair of columns of one row.
// Linked with one of act_*.wgsl and one of epilogue_*.wgsl.

struct SplitSumParams {
    rows: u32,              // of out
    cols: u32,              // of out in this binding
    first_col: u32,         // where this binding's columns start in out and bias
    out_stride: u32,        // from one row of out to the next
    bias: u32,              // 1: add bias
    add: u32,               // 1: add to what out holds
    activation: u32,        // of a gated epilogue: 0: SiLU, 1: GELU's tanh form
    splits: u32,
}

var<immediate> params: SplitSumParams;

@group(0) @binding(0) var<storage, read> parts: array<vec2<f32>>;      // [splits, rows, pairs of cols]
@group(0) @binding(1) var<storage, read> unused_1: array<u32>;         // an epilogue's bindings come after a product's three
@group(0) @binding(2) var<storage, read> unused_2: array<u32>;

const LANES: u32 = 128u;

@compute @workgroup_size(LANES)
fn split_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pairs = (params.cols + 1u) / 2u;
    let pair = group.x * LANES + lane;
    if pair >= pairs {
        return;
    }
    var sums = vec2<f32>();
    for (var split = 0u; split < params.splits; split++) {
        sums += parts[(split * params.rows + group.y) * pairs + pair];
    }
    epilogue_pair(group.y, 2u * pair, sums);
}
