//! `read.wgsl`: how fast memory is read.

use crate::GpuStruct;
use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;

gpu_struct! {
    /// Immediates of `read.wgsl`.
    pub struct MeasureReadParams {
        /// 16-byte words to read.
        pub quads: u32,
    }
}

/// Shape: `[16-byte words]`. Any number of workgroups.
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

/// The CPU twin: `words` as `[quads, 4]` over so many lanes in all.
pub fn twin(words: &[u32], lanes: usize) -> Vec<u32> {
    let mut out = vec![0; lanes];
    for (index, quad) in words.chunks_exact(4).enumerate() {
        out[index % lanes] ^= quad.iter().fold(0, |sum, word| sum ^ word);
    }
    out
}
