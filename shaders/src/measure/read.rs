//! `read.wgsl`: how fast memory is read.

use crate::GpuStruct;
use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;

gpu_struct! {
    /// Immediates of `read.wgsl`.
    pub struct MeasureReadParams {
        /// 16-byte words to read.
        pub quads: u32,
        /// Of them to a workgroup: workgroups times chunk reach `quads`.
        pub chunk: u32,
    }
}

/// Shape: `[16-byte words]`. Workgroups: as many as their chunks need.
pub static KERNEL: Kernel = Kernel {
    name: "measure_read",
    source: include_str!("read.wgsl"),
    parts: &[],
    bindings: &[Access::Read, Access::ReadWrite],
    immediates: MeasureReadParams::LAYOUT,
    structs: &[],
    tunables: &[Tunable { name: "LANES", values: &[256, 64, 512] }],
    dims: &["quads"],
    legal: |limits, _, schedule| schedule.values[0] <= limits.max_workgroup_lanes,
};

/// The CPU twin: `words` as `[quads, 4]` over workgroups of so many lanes.
///
/// - returns `[workgroups, lanes]`
pub fn twin(words: &[u32], chunk: usize, lanes: usize) -> Vec<u32> {
    let mut out = Vec::new();
    for chunk in words.chunks(4 * chunk) {
        let mut sums = vec![0; lanes];
        for (index, quad) in chunk.chunks_exact(4).enumerate() {
            sums[index % lanes] ^= quad.iter().fold(0, |sum, word| sum ^ word);
        }
        out.append(&mut sums);
    }
    out
}
