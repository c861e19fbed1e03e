//! `matvec.wgsl`: a few rows times a weight matrix of any format.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `matvec.wgsl`.
    pub struct MatvecParams {
        /// Rows of x and out.
        pub rows: u32,
        /// Columns of out in this binding.
        pub cols: u32,
        /// Stretches of 32 columns of x.
        pub blocks: u32,
        /// 16-byte words from one weight row to the next.
        pub weight_row_quads: u32,
        /// File blocks of a weight row.
        pub weight_blocks: u32,
        /// Where this binding's columns start in out and bias.
        pub first_col: u32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// 1 to add the bias.
        pub bias: u32,
    }
}

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matvec",
    source: include_str!("matvec.wgsl"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Reduce],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: MatvecParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "LANES", values: &[64, 32, 128, 256] },
        Tunable { name: "TILE_M", values: &[1, 2, 4, 8] },
        Tunable { name: "TILE_N", values: &[4, 1, 2, 8] },
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
pub fn workgroups(params: &MatvecParams, schedule: &Schedule) -> [u32; 3] {
    [params.cols.div_ceil(KERNEL.value(schedule, "TILE_N")), params.rows.div_ceil(KERNEL.value(schedule, "TILE_M")), 1]
}
