//! `matmul.wgsl`: any number of rows times a weight matrix of any format, in register tiles.

use crate::DispatchCost;
use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::layout::gpu_struct;
use crate::linear::{LinearParams, Product};
use crate::link::wgsl;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `matmul` and `matmul_coop`.
    pub struct MatmulParams {
        /// Rows of out: `x_rows`, once a split.
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
        /// Rows of x.
        pub x_rows: u32,
        /// Stretches that a split sums.
        pub split_blocks: u32,
    }
}

/// Shape: `[rows, cols, inner]`.
pub static KERNEL: Kernel = Kernel {
    name: "matmul",
    source: wgsl!("parts/matmul_forms", "matmul"),
    parts: &[PartKind::Weight, PartKind::Act, PartKind::Epilogue],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
    immediates: MatmulParams::LAYOUT,
    structs: &[],
    tunables: &[
        Tunable { name: "LANES_M", values: &[8, 1, 16] },
        Tunable { name: "LANES_N", values: &[8, 16, 32, 64] },
        Tunable { name: "TILE_M", values: &[4, 1, 2, 6, 8, 12, 16] },
        Tunable { name: "TILE_N", values: &[4, 2, 8] },
        Tunable { name: "STAGES", values: &[1, 0, 2] },
        Tunable { name: "DEPTH", values: &[32, 64] },
    ],
    dims: &["rows", "cols", "inner"],
    legal: |limits, shape, schedule| {
        let [lanes_m, lanes_n, tile_m, tile_n, stages, depth] = schedule.values[..] else { return false };
        let lanes = lanes_m * lanes_n;
        let (group_m, group_n) = (lanes_m * tile_m, lanes_n * tile_n);
        // Sums, the stage on its way, and what is multiplied now.
        let staged = 4 * (group_m * depth / 4).div_ceil(lanes) + 32 * (group_n * depth / 32).div_ceil(lanes);
        let registers = tile_m * tile_n + staged + 4 * tile_n + 4;
        lanes <= limits.max_workgroup_lanes
            && lanes >= 32
            && tile_m * tile_n <= 64
            && staged_bytes(schedule) <= limits.max_workgroup_bytes
            // Staging pays where a workgroup shares what it loads; alone, lanes that all read their own x do not.
            && if stages == 0 { lanes_m == 1 && depth == 32 } else { lanes_m > 1 && tile_m <= 8 && registers <= 208 }
            && shape[1].div_ceil(group_n) <= limits.max_workgroups
            && shape[0].div_ceil(group_m) <= limits.max_workgroups
    },
};

impl MatmulParams {
    /// A product that is not split.
    pub fn whole(params: &LinearParams) -> Self {
        let &LinearParams { rows, cols, blocks, weight_row_quads, weight_blocks, .. } = params;
        let &LinearParams { first_col, out_stride, bias, add, activation, .. } = params;
        MatmulParams {
            rows,
            cols,
            blocks,
            weight_row_quads,
            weight_blocks,
            first_col,
            out_stride,
            bias,
            add,
            activation,
            x_rows: rows,
            split_blocks: blocks,
        }
    }

    /// The same product in parts of `split_blocks` stretches, `[splits, rows, cols or one more]`, for `split_sum` to add.
    pub fn split(params: &LinearParams, split_blocks: u32) -> Self {
        let splits = params.blocks.div_ceil(split_blocks);
        MatmulParams {
            rows: params.rows * splits,
            first_col: 0,
            out_stride: params.cols.next_multiple_of(2),
            bias: 0,
            add: 0,
            split_blocks,
            ..MatmulParams::whole(params)
        }
    }

    /// Parts of the sums.
    pub fn splits(&self) -> u32 {
        self.blocks.div_ceil(self.split_blocks)
    }
}

fn staged_bytes(schedule: &Schedule) -> u32 {
    let [group_m, group_n] = group(schedule);
    let [.., stages, depth] = schedule.values[..] else { panic!("a schedule of {}", KERNEL.name) };
    (stages * (group_m + group_n) * (depth / 4 + 1) + 2) * 16
}

/// What a dispatch does, and the sum of its parts where it is split.
pub fn cost(product: &Product, schedule: &Schedule) -> DispatchCost {
    let workgroup_bytes = if KERNEL.value(schedule, "STAGES") > 0 { staged_bytes(schedule) } else { 0 };
    DispatchCost::product(product, group(schedule), product.act_bytes, workgroup_bytes)
}

/// Outputs of a workgroup: rows and columns.
pub fn group(schedule: &Schedule) -> [u32; 2] {
    let value = |name| KERNEL.value(schedule, name);
    [value("LANES_M") * value("TILE_M"), value("LANES_N") * value("TILE_N")]
}

/// Workgroups of a dispatch.
pub fn workgroups(params: &MatmulParams, schedule: &Schedule) -> [u32; 3] {
    let [group_m, group_n] = group(schedule);
    let (m, n) = (params.x_rows.div_ceil(group_m), params.cols.div_ceil(group_n));
    if KERNEL.value(schedule, "STAGES") > 0 { [m, n, params.splits()] } else { [n, m, params.splits()] }
}
