//! `column_squares.wgsl`: how large each input column of a product is.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `column_squares.wgsl`.
    pub struct ColumnSquaresParams {
        /// Rows of x.
        pub rows: u32,
        /// Quads of a row of x.
        pub quads: u32,
        /// Where the row of sums begins, in quads.
        pub first: u32,
    }
}

/// Shape: `[rows, cols]`.
pub static KERNEL: Kernel = Kernel {
    name: "column_squares",
    source: include_str!("column_squares.wgsl"),
    parts: &[PartKind::Act],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: ColumnSquaresParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[64, 32, 128, 256] }],
    dims: &["rows", "cols"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[1].div_ceil(4 * schedule.values[0]) <= limits.max_workgroups
    },
};

/// Workgroups of a dispatch.
pub fn workgroups(params: &ColumnSquaresParams, schedule: &Schedule) -> [u32; 3] {
    [params.quads.div_ceil(schedule.values[0]), 1, 1]
}

/// The CPU twin: what becomes of one column's sum.
pub fn twin(sum: f64, column: impl Iterator<Item = f64>) -> f64 {
    column.fold(sum, |sum, x| sum + x * x)
}
