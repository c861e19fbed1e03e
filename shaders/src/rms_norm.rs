//! `rms_norm.wgsl`: the norm of every row, or of chosen ones.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `rms_norm.wgsl`.
    pub struct RmsNormParams {
        /// Columns that count.
        pub cols: u32,
        /// Quads from one row to the next.
        pub stride_quads: u32,
        /// Added to the mean square.
        pub eps: f32,
        /// 1 to take row `rows[r]` for row `r`.
        pub gather: u32,
    }
}

/// Shape: `[rows, cols]`. Workgroups: one a row.
pub static KERNEL: Kernel = Kernel {
    name: "rms_norm",
    source: include_str!("rms_norm.wgsl"),
    parts: &[PartKind::Act, PartKind::Reduce],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: RmsNormParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[128, 32, 64, 256] }],
    dims: &["rows", "cols"],
    legal: |limits, _, schedule| {
        let lanes = schedule.values[0];
        lanes <= limits.max_workgroup_lanes && lanes * 16 <= limits.max_workgroup_bytes
    },
};

/// The CPU twin on one row: `[cols]`.
pub fn twin(params: &RmsNormParams, residual: &[f64], weight: &[f64]) -> Vec<f64> {
    let mean = residual.iter().map(|x| x * x).sum::<f64>() / f64::from(params.cols);
    let scale = 1.0 / (mean + f64::from(params.eps)).sqrt();
    residual.iter().zip(weight).map(|(x, w)| x * w * scale).collect()
}
