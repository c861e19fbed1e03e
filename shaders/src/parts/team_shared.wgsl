// Sums over teams of TEAM consecutive lanes, through workgroup memory. All lanes of the workgroup must come along.
// Needs `const LANES`, `const TEAM`, a power of two that divides it, and `const TEAM_VALUES`: the values that each lane brings.

struct TeamBuiltins {
    @builtin(local_invocation_index) lane: u32,
}

var<workgroup> team_values: array<f32, LANES * TEAM_VALUES>;

fn team_lane(builtins: TeamBuiltins) -> u32 {
    return builtins.lane;
}

// Every value becomes its sum over the team, in each of its lanes.
fn team_sum(builtins: TeamBuiltins, values: ptr<function, array<f32, TEAM_VALUES>>) {
    if TEAM == 1u {
        return;
    }
    for (var i = 0u; i < TEAM_VALUES; i++) {
        team_values[i * LANES + builtins.lane] = (*values)[i];
    }
    workgroupBarrier();
    let first = builtins.lane / TEAM * TEAM;
    for (var i = 0u; i < TEAM_VALUES; i++) {
        var sum = 0.0;
        for (var mate = 0u; mate < TEAM; mate++) {
            sum += team_values[i * LANES + first + mate];
        }
        (*values)[i] = sum;
    }
    workgroupBarrier(); // the next call may overwrite team_values
}
