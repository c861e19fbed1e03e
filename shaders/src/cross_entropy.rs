//! `cross_entropy.wgsl`: the loss of known next tokens, for perplexity.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `cross_entropy.wgsl`.
    pub struct CrossEntropyParams {
        /// Columns that count.
        pub cols: u32,
        /// From one row of logits to the next.
        pub stride: u32,
    }
}

/// Shape: `[rows, cols]`. Workgroups: one a row.
pub static KERNEL: Kernel = Kernel {
    name: "cross_entropy",
    source: include_str!("cross_entropy.wgsl"),
    parts: &[PartKind::Reduce],
    bindings: &[Access::Read, Access::Read, Access::ReadWrite],
    immediates: CrossEntropyParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 128, 512] }],
    dims: &["rows", "cols"],
    legal: |limits, shape, schedule| {
        let lanes = schedule.values[0];
        lanes <= limits.max_workgroup_lanes
            && lanes * 16 <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
    },
};

/// The CPU twin on one row.
pub fn twin(logits: &[f64], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln() + largest - logits[target]
}
