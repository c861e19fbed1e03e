//! `argmax.wgsl`: greedy sampling.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

/// What a row without a number samples.
pub const NONE: u32 = u32::MAX;

gpu_struct! {
    /// Immediates of `argmax.wgsl`.
    pub struct ArgmaxParams {
        /// Columns that count.
        pub cols: u32,
        /// From one row of logits to the next.
        pub stride: u32,
    }
}

/// Shape: `[rows, cols]`. Workgroups: one a row.
pub static KERNEL: Kernel = Kernel {
    name: "argmax",
    source: include_str!("argmax.wgsl"),
    parts: &[PartKind::Reduce],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: ArgmaxParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 128, 512] }],
    dims: &["rows", "cols"],
    legal: |limits, shape, schedule| {
        let lanes = schedule.values[0];
        lanes <= limits.max_workgroup_lanes
            && lanes * 16 <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
            && shape[1] <= 1 << 24
    },
};

/// The CPU twin on one row.
pub fn twin(logits: &[f32]) -> u32 {
    let mut best: Option<(usize, f32)> = None;
    for (col, &logit) in logits.iter().enumerate() {
        if logit > best.map_or(-3.4e38, |(_, value)| value) {
            best = Some((col, logit));
        }
    }
    best.map_or(NONE, |(col, _)| col as u32)
}
