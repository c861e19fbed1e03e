// Sums and maxima over the lanes of a workgroup through workgroup memory alone; every lane gets the result.
// Needs `const LANES`, a power of two: the lanes of the workgroup.

struct ReduceBuiltins {
    @builtin(local_invocation_index) lane: u32,
}

var<workgroup> reduce_partial: array<vec4<f32>, LANES>;

fn reduce_sum4(builtins: ReduceBuiltins, value: vec4<f32>) -> vec4<f32> {
    reduce_partial[builtins.lane] = value;
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if builtins.lane < stride {
            reduce_partial[builtins.lane] += reduce_partial[builtins.lane + stride];
        }
        workgroupBarrier();
    }
    let sum = reduce_partial[0];
    workgroupBarrier(); // the next call may overwrite reduce_partial[0]
    return sum;
}

fn reduce_max4(builtins: ReduceBuiltins, value: vec4<f32>) -> vec4<f32> {
    reduce_partial[builtins.lane] = value;
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if builtins.lane < stride {
            reduce_partial[builtins.lane] = max(reduce_partial[builtins.lane], reduce_partial[builtins.lane + stride]);
        }
        workgroupBarrier();
    }
    let largest = reduce_partial[0];
    workgroupBarrier(); // the next call may overwrite reduce_partial[0]
    return largest;
}
