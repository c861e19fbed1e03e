// The column of the largest logit of every row, the lowest where several are equal; 0xffffffff where no logit is a number.
// One workgroup a row; lanes stride over the columns.
// Linked with one of reduce_*.wgsl.

struct ArgmaxParams {
    cols: u32,    // at most 2^24, so that f32 holds every index
    stride: u32,  // from one row of logits to the next
}

var<immediate> params: ArgmaxParams;

@group(0) @binding(0) var<storage, read> logits: array<f32>;          // [rows, stride]
@group(0) @binding(1) var<storage, read_write> samples: array<u32>;   // [rows]

const LANES: u32 = 256u;
const NONE: u32 = 0xffffffffu;
const LEAST: f32 = -3.4e38;

@compute @workgroup_size(LANES)
fn argmax(@builtin(workgroup_id) group: vec3<u32>, reduce: ReduceBuiltins) {
    let base = group.x * params.stride;
    var best = LEAST;
    var best_col = NONE;
    for (var col = reduce.lane; col < params.cols; col += LANES) {
        let logit = logits[base + col];
        if logit > best {
            best = logit;
            best_col = col;
        }
    }
    let largest = reduce_max4(reduce, vec4<f32>(best)).x;
    let mine = best_col != NONE && best == largest;
    let lowest = reduce_max4(reduce, vec4<f32>(select(LEAST, -f32(best_col), mine))).x;
    if reduce.lane == 0u {
        samples[group.x] = select(u32(max(-lowest, 0.0)), NONE, lowest == LEAST);
    }
}
