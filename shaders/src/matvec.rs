//! `matvec.wgsl`: a few rows times a weight matrix of any format.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::linear::LinearParams;
use crate::{GpuStruct, PartKind};

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matvec",
    source: include_str!("matvec.wgsl"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Reduce, PartKind::Epilogue],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: LinearParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "LANES", values: &[64, 32, 128, 256] },
        Tunable { name: "TILE_M", values: &[1, 2, 4, 8] },
        Tunable { name: "TILE_N", values: &[4, 2, 8] },
    ],
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [lanes, tile_m, tile_n] = schedule.values[..] else { return false };
        lanes <= limits.max_workgroup_lanes
            && lanes * 16 <= limits.max_workgroup_bytes
            && tile_m * tile_n <= 32
            && shape[1].div_ceil(tile_n) <= limits.max_workgroups
            && shape[0].div_ceil(tile_m) <= limits.max_workgroups
    },
};

/// Workgroups of a dispatch.
pub fn workgroups(params: &LinearParams, schedule: &Schedule) -> [u32; 3] {
    [params.cols.div_ceil(KERNEL.value(schedule, "TILE_N")), params.rows.div_ceil(KERNEL.value(schedule, "TILE_M")), 1]
}
