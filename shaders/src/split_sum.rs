//! `split_sum.wgsl`: the parts of a split product, added.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::linear::LinearParams;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates.
    pub struct SplitSumParams {
        /// Rows of out.
        pub rows: u32,
        /// Columns of out in this binding.
        pub cols: u32,
        /// Where this binding's columns start in out and bias.
        pub first_col: u32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// 1 to add the bias.
        pub bias: u32,
        /// Plain epilogue: 1 to add to what out holds.
        pub add: u32,
        /// Gated epilogue: 0 for SiLU, 1 for GELU's tanh form.
        pub activation: u32,
        /// Parts to add.
        pub splits: u32,
    }
}

/// Shape: `[rows, cols, splits]`.
pub static KERNEL: Kernel = Kernel {
    name: "split_sum",
    source: include_str!("split_sum.wgsl"),
    parts: &[PartKind::Act, PartKind::Epilogue],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: SplitSumParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[128, 32, 256] }],
    dims: &["rows", "cols", "splits"],
    legal: |limits, shape, schedule| {
        let lanes = schedule.values[0];
        lanes <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(2 * lanes) <= limits.max_workgroups
    },
};

impl SplitSumParams {
    /// What ends a product that was to end as `params` say.
    pub fn of(params: &LinearParams, splits: u32) -> Self {
        let &LinearParams { rows, cols, first_col, out_stride, bias, add, activation, .. } = params;
        SplitSumParams { rows, cols, first_col, out_stride, bias, add, activation, splits }
    }
}

/// Workgroups of a dispatch.
pub fn workgroups(params: &SplitSumParams, schedule: &Schedule) -> [u32; 3] {
    [params.cols.div_ceil(2 * KERNEL.value(schedule, "LANES")), params.rows, 1]
}

/// The CPU twin, with the plain epilogue: the sum of parts `[splits, rows, cols]`, and the bias `[cols]` or nothing.
pub fn twin(parts: &[f64], bias: &[f64], splits: usize, cols: usize) -> Vec<f64> {
    let count = parts.len() / splits;
    let sum = |at: usize| parts[at..].iter().step_by(count).sum::<f64>() + bias.get(at % cols).copied().unwrap_or(0.0);
    (0..count).map(sum).collect()
}
