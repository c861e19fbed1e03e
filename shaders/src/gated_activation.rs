//! `gated_activation.wgsl`: activation(gate) · up.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::link::wgsl;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `gated_activation.wgsl`.
    pub struct GatedActivationParams {
        /// Rows.
        pub rows: u32,
        /// Quads of a row of out.
        pub quads: u32,
        /// Where up starts in a row of gate|up, in quads.
        pub up_quads: u32,
        /// Quads from one row of gate|up to the next.
        pub stride_quads: u32,
        /// 0: SiLU, 1: the tanh form of GELU.
        pub activation: u32,
    }
}

/// Shape: `[rows, cols]`.
pub static KERNEL: Kernel = Kernel {
    name: "gated_activation",
    source: wgsl!("parts/activation", "gated_activation"),
    parts: &[PartKind::Act],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: GatedActivationParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[64, 32, 128, 256] }],
    dims: &["rows", "cols"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(4 * schedule.values[0]) <= limits.max_workgroups
    },
};

/// Workgroups of a dispatch.
pub fn workgroups(params: &GatedActivationParams, schedule: &Schedule) -> [u32; 3] {
    [params.quads.div_ceil(schedule.values[0]), params.rows, 1]
}

/// The CPU twin on one value.
pub fn twin(params: &GatedActivationParams, gate: f64, up: f64) -> f64 {
    match params.activation {
        0 => gate / (1.0 + (-gate).exp()) * up,
        _ => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh()) * up
        }
    }
}
