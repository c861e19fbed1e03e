//! `coop.wgsl`: attention of many query rows by cooperative matrices.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES, RaggedWork};
use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::link::wgsl;
use crate::{DispatchCost, GpuStruct, PartKind};

/// How far the maximum that weights are relative to may lag behind, in units of log2.
pub const LAG: f64 = 8.0;

/// Shape: `[items, packed rows, head_stride, word_values]`, the last by [`crate::KvType::word_values`]. Workgroups: items × packed rows / [`packed_rows`] × kv heads. Queries, keys and
/// values must be f16, and LANES is SUBGROUPS times the lanes of a subgroup.
///
/// With a side of 16, KEYS keys take 4 · KEYS operations for each row and column of a head, and KEYS / 4 bytes of fragments
/// from workgroup memory: a third of their time on an H100, at the 160 TFLOP/s that Vulkan reaches and 128 bytes a clock.
pub static KERNEL: Kernel = Kernel {
    name: "attention_coop",
    source: wgsl!("../parts/attention_forms", "coop"),
    parts: &[PartKind::Act, PartKind::Kv, PartKind::Coop],
    bindings: &[
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::Read,
    ],
    immediates: AttentionParams::LAYOUT,
    structs: &[AttentionItem::LAYOUT],
    tunables: &[
        Tunable { name: "LANES", values: &[128, 8, 16, 32, 64, 256] },
        Tunable { name: "SUBGROUPS", values: &[4, 1, 2] },
        Tunable { name: "KEYS", values: &[64, 32, 16] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride", "word_values"],
    legal: |limits, shape, schedule| {
        let [lanes, subgroups, keys, head_stride] = schedule.values[..] else { return false };
        let (side, subgroup_lanes) = (limits.coop_side, limits.max_subgroup_lanes);
        if side == 0 {
            return false;
        }
        let rows = subgroups * side;
        lanes == subgroups * subgroup_lanes
            && lanes <= limits.max_workgroup_lanes
            && subgroup_lanes.is_multiple_of(side)
            && keys >= subgroup_lanes / side
            && workgroup_bytes(schedule, side) <= limits.max_workgroup_bytes
            && head_stride == shape[2]
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(rows) <= limits.max_workgroups
    },
};

fn workgroup_bytes(schedule: &Schedule, side: u32) -> u32 {
    let [_, subgroups, keys, head_stride] = schedule.values[..] else { panic!("a schedule of {}", KERNEL.name) };
    let rows = subgroups * side;
    2 * keys.max(rows) * (head_stride + 8) + 4 * rows * (keys + 4) + 2 * rows * (keys + 8) + 16
}

/// What a dispatch does on an adapter whose matrices have such a side, with the merge behind it.
pub fn cost(work: &RaggedWork, schedule: &Schedule, coop_side: u32) -> DispatchCost {
    work.cost(packed_rows(schedule, coop_side), workgroup_bytes(schedule, coop_side))
}

/// Packed rows to a workgroup, by the side of the adapter's matrices.
pub fn packed_rows(schedule: &Schedule, coop_side: u32) -> u32 {
    KERNEL.value(schedule, "SUBGROUPS") * coop_side
}
