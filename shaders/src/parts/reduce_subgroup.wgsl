// Sums and maxima over the lanes of a workgroup: within subgroups first, then over one value a subgroup in workgroup
// memory; every lane gets the result. Works for any subgroup size. Needs `const LANES`: the lanes of the workgroup.

struct ReduceBuiltins {
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

// A subgroup may be as small as one lane.
var<workgroup> reduce_partial: array<vec4<f32>, LANES>;

fn reduce_sum4(builtins: ReduceBuiltins, value: vec4<f32>) -> vec4<f32> {
    let mine = subgroupAdd(value);
    if builtins.subgroup_lane == 0u {
        reduce_partial[builtins.subgroup] = mine;
    }
    workgroupBarrier();
    var sum = reduce_partial[0];
    for (var i = 1u; i < builtins.subgroups; i++) {
        sum += reduce_partial[i];
    }
    workgroupBarrier(); // the next call may overwrite reduce_partial
    return sum;
}

fn reduce_max4(builtins: ReduceBuiltins, value: vec4<f32>) -> vec4<f32> {
    let mine = subgroupMax(value);
    if builtins.subgroup_lane == 0u {
        reduce_partial[builtins.subgroup] = mine;
    }
    workgroupBarrier();
    var largest = reduce_partial[0];
    for (var i = 1u; i < builtins.subgroups; i++) {
        largest = max(largest, reduce_partial[i]);
    }
    workgroupBarrier(); // the next call may overwrite reduce_partial
    return largest;
}
