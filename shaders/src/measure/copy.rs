//! `copy.wgsl`: how fast memory is copied. Its twin is the copy itself.

use crate::GpuStruct;
use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;

gpu_struct! {
    /// Immediates of `copy.wgsl`.
    pub struct MeasureCopyParams {
        /// 16-byte words to copy.
        pub quads: u32,
        /// Of them to a workgroup: workgroups times chunk reach `quads`.
        pub chunk: u32,
    }
}

/// Shape: `[16-byte words]`. Workgroups: as many as their chunks need.
pub static KERNEL: Kernel = Kernel {
    name: "measure_copy",
    source: include_str!("copy.wgsl"),
    parts: &[],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: MeasureCopyParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 512] }],
    dims: &["quads"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};
