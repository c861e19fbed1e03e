//! `embedding.wgsl`: token ids → rows of the residual stream.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

/// Set in an entry of `token_ids` that names a row of the last step's samples.
pub const SAMPLED: u32 = 1 << 31;

gpu_struct! {
    /// Immediates of `embedding.wgsl`.
    pub struct EmbeddingParams {
        /// The matrix row that this binding starts with.
        pub first_row: u32,
        /// Rows in this binding.
        pub rows: u32,
        /// Stretches of 32 columns.
        pub blocks: u32,
        /// 16-byte words from one weight row to the next.
        pub weight_row_quads: u32,
        /// File blocks of a weight row.
        pub weight_blocks: u32,
    }
}

/// Shape: `[tokens, cols]`. Workgroups: one a token.
pub static KERNEL: Kernel = Kernel {
    name: "embedding",
    source: include_str!("embedding.wgsl"),
    parts: &[PartKind::Weight],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: EmbeddingParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[64, 32, 128] }],
    dims: &["tokens", "cols"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// The CPU twin: rows of `weight` (`[rows, cols]`, decoded) that `token_ids` name.
///
/// - returns `[tokens, cols]`
///
/// # Panics
/// If an id, resolved through `samples`, is not a row.
pub fn twin(weight: &[f64], cols: usize, token_ids: &[u32], samples: &[u32]) -> Vec<f64> {
    let resolve = |&id: &u32| if id & SAMPLED != 0 { samples[(id & !SAMPLED) as usize] } else { id };
    token_ids.iter().map(resolve).flat_map(|id| weight[id as usize * cols..][..cols].iter().copied()).collect()
}
