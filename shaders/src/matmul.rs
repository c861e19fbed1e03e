//! `matmul.wgsl`: any number of rows times a weight matrix of any format, in register tiles.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::linear::LinearParams;
use crate::{GpuStruct, PartKind};

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("matmul.wgsl"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Epilogue],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: LinearParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "LANES_M", values: &[8, 1, 16] },
        Tunable { name: "LANES_N", values: &[8, 16, 32, 64] },
        Tunable { name: "TILE_M", values: &[4, 1, 2, 6, 8, 12, 16] },
        Tunable { name: "TILE_N", values: &[4, 2, 8] },
        Tunable { name: "STAGE", values: &[1, 0] },
    ],
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [lanes_m, lanes_n, tile_m, tile_n, stage] = schedule.values[..] else { return false };
        let lanes = lanes_m * lanes_n;
        let (group_m, group_n) = (lanes_m * tile_m, lanes_n * tile_n);
        lanes <= limits.max_workgroup_lanes
            && lanes >= 32
            && tile_m * tile_n <= 64
            && (stage * (group_m + group_n) * 9 + 2) * 16 <= limits.max_workgroup_bytes
            // Staging pays where a workgroup shares what it loads; alone, lanes that all read their own x do not.
            && (stage == 1 || lanes_m == 1)
            && (stage == 0 || (lanes_m > 1 && tile_m <= 8))
            && shape[1].div_ceil(group_n) <= limits.max_workgroups
            && shape[0].div_ceil(group_m) <= limits.max_workgroups
    },
};

/// Workgroups of a dispatch.
pub fn workgroups(params: &LinearParams, schedule: &Schedule) -> [u32; 3] {
    let value = |name| KERNEL.value(schedule, name);
    [
        params.cols.div_ceil(value("LANES_N") * value("TILE_N")),
        params.rows.div_ceil(value("LANES_M") * value("TILE_M")),
        1,
    ]
}
