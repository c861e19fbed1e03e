//! `matmul_coop.wgsl`: any number of rows times a weight matrix of any format, in cooperative matrices. Inputs are rounded to
//! f16, and so are the weights, what is beyond its range to the largest f16.

use crate::DispatchCost;
use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::linear::Product;
use crate::link::wgsl;
use crate::matmul::MatmulParams;
use crate::{GpuStruct, PartKind};

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matmul_coop",
    source: wgsl!("parts/matmul_forms", "matmul_coop"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Coop, PartKind::Epilogue],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: MatmulParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "SUBGROUP_LANES", values: &[32, 64, 8] },
        Tunable { name: "SUBGROUPS_M", values: &[2, 1, 4] },
        Tunable { name: "SUBGROUPS_N", values: &[2, 4, 1] },
        Tunable { name: "TILE_M", values: &[64, 32, 16, 8] },
        Tunable { name: "TILE_N", values: &[64, 32, 16, 8] },
        Tunable { name: "DEPTH", values: &[32, 64] },
        Tunable { name: "STAGES", values: &[2, 1] },
    ],
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [subgroup_lanes, subgroups_m, subgroups_n, tile_m, tile_n, depth, _] = schedule.values[..] else {
            return false;
        };
        let subgroups = subgroups_m * subgroups_n;
        let lanes = subgroups * subgroup_lanes;
        let (group_m, group_n) = (subgroups_m * tile_m, subgroups_n * tile_n);
        let side = limits.coop_side;
        // Two f16 to a register: the stage on its way, and the fragments that are multiplied now.
        let staged = (group_m * depth).div_ceil(2 * lanes) + 16 * (group_n * depth / 32).div_ceil(lanes);
        let fragments = (tile_m * side).div_ceil(2 * subgroup_lanes) + (side * side).div_ceil(2 * subgroup_lanes);
        let sums = tile_m * tile_n / subgroup_lanes;
        // Fewer than 32 lanes are a software adapter's, which takes seconds to compile more than a few fragments.
        let most_sums = if subgroup_lanes >= 32 { 128 } else { 32 };
        side > 0
            && subgroup_lanes == limits.max_subgroup_lanes
            && tile_m.is_multiple_of(side)
            && tile_n.is_multiple_of(side)
            && (2..=8).contains(&subgroups)
            && lanes <= limits.max_workgroup_lanes
            && workgroup_bytes(schedule, side) <= limits.max_workgroup_bytes
            && sums <= most_sums
            && sums + staged + fragments <= 208
            && shape[0].div_ceil(group_m) <= limits.max_workgroups
            && shape[1].div_ceil(group_n) <= limits.max_workgroups
    },
};

fn workgroup_bytes(schedule: &Schedule, side: u32) -> u32 {
    let [_, subgroups_m, subgroups_n, tile_m, tile_n, depth, stages] = schedule.values[..] else {
        panic!("a schedule of {}", KERNEL.name)
    };
    let (group_m, group_n) = (subgroups_m * tile_m, subgroups_n * tile_n);
    stages * (group_m + group_n) * (depth + 8) * 2 + subgroups_m * subgroups_n * side * side * 4
}

/// What a dispatch does on an adapter whose matrices have such a side, and the sum of its parts where it is split.
pub fn cost(product: &Product, schedule: &Schedule, coop_side: u32) -> DispatchCost {
    DispatchCost::product(product, group(schedule), product.act_bytes, workgroup_bytes(schedule, coop_side))
}

/// Outputs of a workgroup: rows and columns.
pub fn group(schedule: &Schedule) -> [u32; 2] {
    let value = |name| KERNEL.value(schedule, name);
    [value("SUBGROUPS_M") * value("TILE_M"), value("SUBGROUPS_N") * value("TILE_N")]
}

/// Workgroups of a dispatch.
pub fn workgroups(params: &MatmulParams, schedule: &Schedule) -> [u32; 3] {
    let [group_m, group_n] = group(schedule);
    [params.x_rows.div_ceil(group_m), params.cols.div_ceil(group_n), params.splits()]
}
