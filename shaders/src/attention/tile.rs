//! `tile.wgsl`: attention of many query rows.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES, RaggedWork};
use crate::kernel::{Access, Kernel, Schedule, Tunable};
use crate::link::wgsl;
use crate::{DispatchCost, GpuStruct, PartKind};

/// Shape: `[items, packed rows, head_stride, word_values]`, the last by [`crate::KvType::word_values`]. Workgroups: items × packed rows / [`packed_rows`] × kv heads.
///
/// Schedules of one TEAM and one KEYS are a numerics class: they add the same terms in the same order.
///
/// Queries and sums take 2 · ROWS · HEAD_STRIDE / TEAM registers of a lane, at most 128 unless a lane has a row alone. Staged
/// keys and values are read once for ROWS multiplications each, and the lanes of a team read neighbours, all teams the same.
pub static KERNEL: Kernel = Kernel {
    name: "attention_tile",
    source: wgsl!("../parts/attention_forms", "tile"),
    parts: &[PartKind::Act, PartKind::Kv, PartKind::Team],
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
        Tunable { name: "LANES", values: &[32, 16, 64, 128] },
        Tunable { name: "TEAM", values: &[1, 4, 8] },
        Tunable { name: "ROWS", values: &[1, 2, 4] },
        Tunable { name: "KEYS", values: &[4, 8] },
        Tunable { name: "STAGE", values: &[0, 16, 32] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride", "word_values"],
    legal: |limits, shape, schedule| {
        let [lanes, team, rows, _, stage, head_stride] = schedule.values[..] else { return false };
        // One lane a row is for adapters without a use for workgroup memory.
        let form = if team == 1 { rows == 1 && stage == 0 } else { lanes >= 64 && stage > 0 };
        form && lanes <= limits.max_workgroup_lanes
            && (!limits.subgroups || team <= limits.min_subgroup_lanes)
            && (head_stride / 4).is_multiple_of(team)
            && (rows == 1 || 2 * rows * head_stride / team <= 128)
            && workgroup_bytes(schedule) <= limits.max_workgroup_bytes
            && head_stride == shape[2]
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(packed_rows(schedule)) <= limits.max_workgroups
    },
};

/// Those of f32 keys and values, and of a team without subgroups.
fn workgroup_bytes(schedule: &Schedule) -> u32 {
    let [lanes, team, rows, keys, stage, head_stride] = schedule.values[..] else {
        panic!("a schedule of {}", KERNEL.name)
    };
    2 * (4 * stage * head_stride + 16) + if team > 1 { 4 * lanes * rows * keys } else { 4 * lanes * keys }
}

/// What a dispatch does, with the merge behind it.
pub fn cost(work: &RaggedWork, schedule: &Schedule) -> DispatchCost {
    work.cost(packed_rows(schedule), workgroup_bytes(schedule))
}

/// Packed rows to a workgroup.
pub fn packed_rows(schedule: &Schedule) -> u32 {
    let [lanes, team, rows, ..] = schedule.values[..] else { panic!("a schedule of {}", KERNEL.name) };
    lanes / team * rows
}
