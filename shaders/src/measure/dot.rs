//! `dot.wgsl`: how fast lanes multiply packed int8.

use crate::GpuStruct;
use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;

gpu_struct! {
    /// Immediates of `dot.wgsl`.
    pub struct MeasureDotParams {
        /// Turns of the loop.
        pub steps: u32,
        /// Four packed int8.
        pub factor: u32,
    }
}

/// Operations of one lane in one turn of the loop: 8 chains of four products and four sums.
pub const STEP_OPS: u64 = 8 * 8;

/// Shape: `[steps]`. Any number of workgroups.
pub static KERNEL: Kernel = Kernel {
    name: "measure_dot",
    source: include_str!("dot.wgsl"),
    parts: &[],
    bindings: &[Access::ReadWrite],
    immediates: MeasureDotParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 512] }],
    dims: &["steps"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// The CPU twin, exact.
///
/// - returns `[lanes]`
pub fn twin(params: &MeasureDotParams, lanes: usize) -> Vec<i32> {
    let dot = |x: u32| -> i32 {
        let product = |(a, b): (u8, u8)| i32::from(a as i8) * i32::from(b as i8);
        x.to_le_bytes().into_iter().zip(params.factor.to_le_bytes()).map(product).sum()
    };
    let lane = |lane: usize| {
        let first = (lane as u32).wrapping_mul(0x0103_0507) as i32;
        let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|index: i32| (0..params.steps).fold(first.wrapping_add(index), |x, _| x.wrapping_add(dot(x as u32))));
        (a ^ b).wrapping_add(c ^ d) ^ (e ^ f).wrapping_add(g ^ h)
    };
    (0..lanes).map(lane).collect()
}
