//! `adjust_logits.wgsl`: repetition, presence and frequency penalties.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// One penalised logit.
    pub struct LogitAdjustment {
        /// Row of the logits.
        pub row: u32,
        /// Column of the logits.
        pub token: u32,
        /// The repetition penalty; 1 for none.
        pub repetition: f32,
        /// What to subtract after it.
        pub subtract: f32,
    }
}

gpu_struct! {
    /// Immediates of `adjust_logits.wgsl`.
    pub struct AdjustLogitsParams {
        /// Adjustments.
        pub count: u32,
        /// From one row of logits to the next.
        pub stride: u32,
    }
}

const NO_PARTS: &[PartKind] = &[];

/// Shape: `[adjustments]`. Workgroups: adjustments / LANES.
pub static KERNEL: Kernel = Kernel {
    name: "adjust_logits",
    source: include_str!("adjust_logits.wgsl"),
    parts: NO_PARTS,
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: AdjustLogitsParams::LAYOUT,
    structs: &[LogitAdjustment::LAYOUT],
    tunables: &[Tunable { name: "LANES", values: &[64, 32, 128] }],
    dims: &["adjustments"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0].div_ceil(schedule.values[0]) <= limits.max_workgroups
    },
};

/// The CPU twin on one logit.
pub fn twin(adjustment: &LogitAdjustment, logit: f64) -> f64 {
    let penalty = f64::from(adjustment.repetition);
    let scaled = if logit > 0.0 { logit / penalty } else { logit * penalty };
    scaled - f64::from(adjustment.subtract)
}
