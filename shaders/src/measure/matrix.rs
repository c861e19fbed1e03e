//! `matrix.wgsl`: how fast subgroups multiply cooperative matrices.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `matrix.wgsl`.
    pub struct MeasureMatrixParams {
        /// Turns of the loop.
        pub steps: u32,
    }
}

/// Accumulators of a subgroup: products of one turn of the loop.
pub const ACCUMULATORS: usize = 8;
/// Matrices that they are products of: four left factors, each with two right ones.
pub const FACTORS: usize = 6;

/// Shape: `[steps]`. Any number of workgroups.
pub static KERNEL: Kernel = Kernel {
    name: "measure_matrix",
    source: include_str!("matrix.wgsl"),
    parts: &[PartKind::Coop],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: MeasureMatrixParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[128, 64, 256] }],
    dims: &["steps"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// The CPU twin, of one subgroup: `x` is `[6, side, side]`, four left factors and two right ones.
///
/// - returns `[8, side, side]`
pub fn twin(x: &[f64], side: usize, steps: u32) -> Vec<f64> {
    let matrix = |index: usize| &x[index * side * side..(index + 1) * side * side];
    let mut out = Vec::new();
    for accumulator in 0..ACCUMULATORS {
        let (a, b) = (matrix(accumulator / 2), matrix(4 + accumulator % 2));
        for row in 0..side {
            for col in 0..side {
                let sum: f64 = (0..side).map(|k| a[row * side + k] * b[k * side + col]).sum();
                out.push(f64::from(steps) * sum);
            }
        }
    }
    out
}
