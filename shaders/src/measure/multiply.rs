//! `multiply.wgsl`: how fast lanes multiply and add, in f32 or f16.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, PartKind};

gpu_struct! {
    /// Immediates of `multiply.wgsl`.
    pub struct MeasureMultiplyParams {
        /// Turns of the loop.
        pub steps: u32,
        /// Below 1, so that numbers stay small.
        pub factor: f32,
    }
}

/// Operations of one lane in one turn of the loop: 8 chains of 4 numbers, a product and a sum each.
pub const STEP_FLOPS: u64 = 8 * 4 * 2;

/// Shape: `[steps]`. Any number of workgroups.
pub static KERNEL: Kernel = Kernel {
    name: "measure_multiply",
    source: include_str!("multiply.wgsl"),
    parts: &[PartKind::Act],
    bindings: &[Access::ReadWrite],
    immediates: MeasureMultiplyParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 512] }],
    dims: &["steps"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// The CPU twin.
///
/// - returns `[lanes, 4]`
pub fn twin(params: &MeasureMultiplyParams, lanes: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(4 * lanes);
    for lane in 0..lanes {
        for quarter in 0..4 {
            let chain = |index: usize| {
                let mut x = (lane % 16) as f64 + 0.25 * f64::from(quarter) + index as f64;
                for _ in 0..params.steps {
                    x = x * f64::from(params.factor) + 1.0;
                }
                (index + 1) as f64 * x
            };
            out.push((0..8).map(chain).sum());
        }
    }
    out
}
