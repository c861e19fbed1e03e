//! `tile.wgsl`: attention of many query rows.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES};
use crate::kernel::{Access, Kernel, Tunable};
use crate::{GpuStruct, PartKind};

/// Shape: `[items, packed rows, head_stride]`. Workgroups: items × packed rows / LANES × kv heads.
pub static KERNEL: Kernel = Kernel {
    name: "attention_tile",
    source: include_str!("tile.wgsl"),
    parts: &[PartKind::Act, PartKind::Kv],
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
        Tunable { name: "LANES", values: &[32, 16, 64] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride"],
    legal: |limits, shape, schedule| {
        let [lanes, head_stride] = schedule.values[..] else { return false };
        lanes <= limits.max_workgroup_lanes
            && head_stride == shape[2]
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(lanes) <= limits.max_workgroups
    },
};
