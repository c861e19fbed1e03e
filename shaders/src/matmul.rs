//! `matmul.wgsl`: any number of rows times a weight matrix of any format, in register tiles.

use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `matmul.wgsl` and `matvec.wgsl`.
    pub struct LinearParams {
        /// Rows of x and out.
        pub rows: u32,
        /// Columns of out in this binding.
        pub cols: u32,
        /// Stretches of 32 columns of x.
        pub blocks: u32,
        /// 16-byte words from one weight row to the next.
        pub weight_row_quads: u32,
        /// File blocks of a weight row.
        pub weight_blocks: u32,
        /// Where this binding's columns start in out and bias.
        pub first_col: u32,
        /// From one row of out to the next.
        pub out_stride: u32,
        /// 1 to add the bias.
        pub bias: u32,
    }
}

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matmul",
    source: include_str!("matmul.wgsl"),
    parts: &[PartKind::Weight, PartKind::Act],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: LinearParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "LANES_M", values: &[8, 1, 16] },
        Tunable { name: "LANES_N", values: &[8, 16, 32, 64] },
        Tunable { name: "TILE_M", values: &[4, 1, 2, 6, 8, 12, 16] },
        Tunable { name: "TILE_N", values: &[4, 1, 2, 8] },
        Tunable { name: "STAGE", values: &[1, 0] },
    ],
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [lanes_m, lanes_n, tile_m, tile_n, stage] = schedule.values[..] else { return false };
        let lanes = lanes_m * lanes_n;
        let (group_m, group_n) = (lanes_m * tile_m, lanes_n * tile_n);
        lanes <= limits.max_workgroup_lanes
            && lanes >= 32
            && tile_m * tile_n <= 64
            && (stage * (group_m + group_n) * 9 + 2) * 16 <= limits.max_workgroup_bytes
            // Staging pays where a workgroup shares what it loads; alone, lanes that all read their own x do not.
            && (stage == 1 || lanes_m == 1)
            && (stage == 0 || (lanes_m > 1 && tile_m <= 8))
            && shape[1].div_ceil(group_n) <= limits.max_workgroups
            && shape[0].div_ceil(group_m) <= limits.max_workgroups
    },
};

/// Workgroups of a dispatch.
pub fn workgroups(params: &LinearParams, schedule: &Schedule) -> [u32; 3] {
    let value = |name| KERNEL.value(schedule, name);
    [
        params.cols.div_ceil(value("LANES_N") * value("TILE_N")),
        params.rows.div_ceil(value("LANES_M") * value("TILE_M")),
        1,
    ]
}

/// The CPU twin of `matmul.wgsl` and `matvec.wgsl`: out = x · weightᵀ + bias.
///
/// - `x`: `[rows, inner]`, `weight`: `[cols, inner]`, decoded; `bias`: `[cols]` or empty
/// - returns `[rows, cols]`
pub fn twin(x: &[f64], weight: &[f64], bias: &[f64], inner: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len() / inner * (weight.len() / inner));
    for row in x.chunks_exact(inner) {
        for (col, weights) in weight.chunks_exact(inner).enumerate() {
            let sum: f64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            out.push(sum + bias.get(col).copied().unwrap_or(0.0));
        }
    }
    out
}
