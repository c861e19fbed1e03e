//! `rotate_heads.wgsl`: attention's output over rotated values, turned back.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::link::wgsl;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `rotate_heads.wgsl`.
    pub struct RotateHeadsParams {
        /// Columns of a head, at most 256.
        pub head_dim: u32,
        /// Columns that are rotated together, by [`crate::rotation`].
        pub rotation: u32,
        /// From one row to the next.
        pub stride: u32,
    }
}

/// Shape: `[rows, heads]`. Workgroups: rows × heads.
pub static KERNEL: Kernel = Kernel {
    name: "rotate_heads",
    source: wgsl!("parts/rotate", "rotate_heads"),
    parts: &[PartKind::Act],
    bindings: &[Access::ReadWrite],
    immediates: RotateHeadsParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[32, 64] }],
    dims: &["rows", "heads"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1] <= limits.max_workgroups
    },
};
