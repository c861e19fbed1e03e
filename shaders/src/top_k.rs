//! `top_k.wgsl`: candidates for sampling on the host.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// A row to take candidates from.
    pub struct TopKRow {
        /// Row of the logits.
        pub row: u32,
        /// 1 / temperature.
        pub inverse_temperature: f32,
    }
}

gpu_struct! {
    /// What the candidates are a part of.
    pub struct TopKSummary {
        /// The largest logit.
        pub largest: f32,
        /// The sum of exp((logit - largest) / temperature) over the row.
        pub total: f32,
        /// Logits equal to the smallest candidate that found no place.
        pub left_out: u32,
    }
}

gpu_struct! {
    /// Immediates of `top_k.wgsl`.
    pub struct TopKParams {
        /// Columns that count.
        pub cols: u32,
        /// From one row of logits to the next.
        pub stride: u32,
        /// Candidates a row, at most `cols`.
        pub k: u32,
    }
}

/// Shape: `[rows, cols]`. Workgroups: one a row.
pub static KERNEL: Kernel = Kernel {
    name: "top_k",
    source: include_str!("top_k.wgsl"),
    parts: &[PartKind::Reduce],
    bindings: &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite],
    immediates: TopKParams::LAYOUT,
    structs: &[TopKRow::LAYOUT, TopKSummary::LAYOUT],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 128, 512] }],
    dims: &["rows", "cols"],
    legal: |limits, shape, schedule| {
        let lanes = schedule.values[0];
        lanes <= limits.max_workgroup_lanes
            && lanes * 16 + 2048 <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
    },
};

/// The CPU twin on one row: candidates (column, logit) from large to small, equal ones by column, and the sum.
pub fn twin(params: &TopKParams, row: &TopKRow, logits: &[f32]) -> (Vec<(u32, f32)>, f64) {
    let mut all: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let largest = f64::from(all[0].1);
    let total = logits.iter().map(|&l| ((f64::from(l) - largest) * f64::from(row.inverse_temperature)).exp()).sum();
    all.truncate(params.k as usize);
    (all, total)
}
