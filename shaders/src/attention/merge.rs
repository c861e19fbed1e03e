//! `merge.wgsl`: partial results of split runs → rows.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Query rows whose keys are split over several items.
    pub struct AttentionMerge {
        /// The first query row, a token of the batch.
        pub first_row: u32,
        /// Query rows.
        pub rows: u32,
        /// Where its list of parts starts: each the place of its first packed row in the partial results of a kv head.
        pub first_part: u32,
        /// Items that the rows are joined from, by position.
        pub parts: u32,
    }
}

gpu_struct! {
    /// Immediates of `merge.wgsl`.
    pub struct AttentionMergeParams {
        /// Query heads to a kv head.
        pub group: u32,
        /// Columns of a head.
        pub head_dim: u32,
        /// Columns of a partial sum.
        pub head_stride: u32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// Rows of partial results of a kv head.
        pub partials: u32,
        /// The first merge of this dispatch.
        pub first_merge: u32,
    }
}

/// Shape: `[merges, packed rows]`. Workgroups: merges × packed rows × kv heads.
pub static KERNEL: Kernel = Kernel {
    name: "attention_merge",
    source: include_str!("merge.wgsl"),
    parts: &[PartKind::Act, PartKind::Reduce],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: AttentionMergeParams::LAYOUT,
    structs: &[AttentionMerge::LAYOUT],
    tunables: &[Tunable { name: "LANES", values: &[128, 32, 64] }, Tunable { name: "PARTS", values: &[16, 1, 4] }],
    dims: &["merges", "packed_rows"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1] <= limits.max_workgroups
    },
};

/// The CPU twin on one packed row: joins the partial results of its items.
///
/// - `sums`: `[parts, head_dim]`, not divided; `weights`: `[parts]` of maximum and sum of weights
/// - returns `[head_dim]`
pub fn twin(sums: &[f64], weights: &[[f64; 2]], head_dim: usize) -> Vec<f64> {
    let largest = weights.iter().map(|weight| weight[0]).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = weights.iter().map(|weight| weight[1] * (weight[0] - largest).exp2()).sum();
    let mut out = vec![0.0; head_dim];
    for (sums, weight) in sums.chunks_exact(head_dim).zip(weights) {
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum * (weight[0] - largest).exp2() / total);
    }
    out
}
