// Sums over teams of TEAM consecutive lanes, by shuffles within subgroups. A team must not be larger than a subgroup.
// Needs `const TEAM`, a power of two, and `const TEAM_VALUES`: the values that each lane brings.

struct TeamBuiltins {
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) subgroup_lanes: u32,
    @builtin(subgroup_id) subgroup: u32,
}

// Counted along the subgroups, so that a team is never in two of them.
fn team_lane(builtins: TeamBuiltins) -> u32 {
    return builtins.subgroup * builtins.subgroup_lanes + builtins.subgroup_lane;
}

// Every value becomes its sum over the team, in each of its lanes.
fn team_sum(builtins: TeamBuiltins, values: ptr<function, array<f32, TEAM_VALUES>>) {
    for (var stride = 1u; stride < TEAM; stride *= 2u) {
        for (var i = 0u; i < TEAM_VALUES; i++) {
            (*values)[i] += subgroupShuffleXor((*values)[i], stride);
        }
    }
}
