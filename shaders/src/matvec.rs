//! `matvec.wgsl`: a few rows times a weight matrix of any format.

use crate::DispatchCost;
use crate::kernel::{Access, AdapterLimits, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::linear::{LinearParams, Product};
use crate::link::wgsl;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `matvec.wgsl` and `matvec_int8.wgsl`: those of every product, and what norms its inputs.
    pub struct MatvecParams {
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
        /// Plain epilogue: 1 to add to what out holds.
        pub add: u32,
        /// Gated epilogue: 0 for SiLU, 1 for GELU's tanh form.
        pub activation: u32,
        /// Normed inputs: columns that count.
        pub norm_cols: u32,
        /// Normed inputs: added to the mean square.
        pub eps: f32,
        /// Normed inputs: 1 to take row `gather[r]` for row `r`.
        pub gather: u32,
    }
}

impl From<&LinearParams> for MatvecParams {
    /// With inputs that are not normed.
    fn from(params: &LinearParams) -> Self {
        MatvecParams {
            rows: params.rows,
            cols: params.cols,
            blocks: params.blocks,
            weight_row_quads: params.weight_row_quads,
            weight_blocks: params.weight_blocks,
            first_col: params.first_col,
            out_stride: params.out_stride,
            bias: params.bias,
            add: params.add,
            activation: params.activation,
            ..MatvecParams::default()
        }
    }
}

pub(crate) const BINDINGS: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite, Access::Read, Access::Read];

pub(crate) const TUNABLES: &[Tunable] = &[
    Tunable { name: "LANES", values: &[64, 32, 128, 256] },
    Tunable { name: "TILE_M", values: &[1, 2, 4, 8] },
    Tunable { name: "TILE_N", values: &[4, 2, 8] },
    Tunable { name: "UNROLL", values: &[2, 1, 4] },
];

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matvec",
    source: wgsl!("parts/matvec_forms", "matvec"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Input, PartKind::Reduce, PartKind::Epilogue],
    bindings: BINDINGS,
    immediates: MatvecParams::LAYOUT,
    structs: &[],
    tunables: TUNABLES,
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| legal(limits, shape, schedule, 32),
};

/// A lane's sums are `most_sums` at most, and the words that it has in flight eight.
pub(crate) fn legal(limits: &AdapterLimits, shape: &[u32], schedule: &Schedule, most_sums: u32) -> bool {
    let [lanes, tile_m, tile_n, unroll] = schedule.values[..] else { return false };
    lanes <= limits.max_workgroup_lanes
        && lanes * 16 <= limits.max_workgroup_bytes
        && tile_m * tile_n <= most_sums
        && tile_n * unroll <= 8
        && shape[1].div_ceil(tile_n) <= limits.max_workgroups
        && shape[0].div_ceil(tile_m) <= limits.max_workgroups
}

/// What a dispatch of this kernel or of `matvec_int8` does; `normed` where it norms its inputs, which are f32 then: every
/// workgroup does so for itself.
pub fn cost(product: &Product, schedule: &Schedule, normed: bool) -> DispatchCost {
    let value = |name| KERNEL.value(schedule, name);
    let (tile_m, tile_n) = (value("TILE_M"), value("TILE_N"));
    let x_bytes = if normed { 4 } else { product.act_bytes };
    let cost = DispatchCost::product(product, [tile_m, tile_n], x_bytes, 16 * value("LANES"));
    if !normed {
        return cost;
    }
    let each = cost.workgroups * product.inner as f64;
    cost.and(DispatchCost { bytes: 4.0 * each, flops: 4.0 * f64::from(tile_m) * each, ..DispatchCost::default() })
}

/// Workgroups of a dispatch.
pub fn workgroups(params: &MatvecParams, schedule: &Schedule) -> [u32; 3] {
    [params.cols.div_ceil(KERNEL.value(schedule, "TILE_N")), params.rows.div_ceil(KERNEL.value(schedule, "TILE_M")), 1]
}
