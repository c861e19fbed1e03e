//! `vector.wgsl`: attention of few query rows.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES};
use crate::kernel::{Access, Kernel, Tunable};
use crate::{GpuStruct, PartKind};

/// Packed rows to a workgroup.
pub const PACKED_ROWS: u32 = 4;

/// Shape: `[items, packed rows, head_stride]`. Workgroups: items × packed rows / [`PACKED_ROWS`] × kv heads.
pub static KERNEL: Kernel = Kernel {
    name: "attention_vector",
    source: include_str!("vector.wgsl"),
    parts: &[PartKind::Act, PartKind::Kv, PartKind::Reduce],
    bindings: &[
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
    ],
    immediates: AttentionParams::LAYOUT,
    structs: &[AttentionItem::LAYOUT],
    tunables: &[
        Tunable { name: "LANES", values: &[64, 32, 128] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride"],
    legal: |limits, shape, schedule| {
        let [lanes, head_stride] = schedule.values[..] else { return false };
        lanes <= limits.max_workgroup_lanes
            && head_stride == shape[2]
            && (head_stride + 2 * lanes) * 16 <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(PACKED_ROWS) <= limits.max_workgroups
    },
};
