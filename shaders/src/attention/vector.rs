//! `vector.wgsl`: attention of few query rows.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES, RaggedWork};
use crate::kernel::{Access, AdapterLimits, Kernel, Schedule, Tunable};
use crate::{DispatchCost, GpuStruct, PartKind};

/// The most packed rows to a workgroup.
pub const MOST_ROWS: u32 = 8;

/// Registers of a lane that a schedule may take by [`registers`]; GPUs have up to 255.
const MOST_REGISTERS: u32 = 224;

/// Shape: `[items, packed rows, head_stride]`. Workgroups: kv heads × packed rows / ROWS × items.
pub static KERNEL: Kernel = Kernel {
    name: "attention_vector",
    source: include_str!("vector.wgsl"),
    parts: &[PartKind::Act, PartKind::Kv, PartKind::Team],
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
        Tunable { name: "LANES", values: &[128, 32, 64] },
        Tunable { name: "TEAM", values: &[8, 1, 2, 4, 16] },
        Tunable { name: "ROWS", values: &[4, 1, 2, MOST_ROWS] },
        Tunable { name: "KEYS", values: &[4, 1, 2, 8] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride"],
    legal: |limits, shape, schedule| {
        let [lanes, team, rows, keys, head_stride] = schedule.values[..] else { return false };
        lanes <= limits.max_workgroup_lanes
            && (team <= limits.min_subgroup_lanes || !limits.subgroups)
            && head_stride == shape[2]
            // A team with more idle lanes than busy ones reads nothing faster than the next smaller.
            && 8 * team < 2 * head_stride
            && registers(team, rows, keys, head_stride) <= MOST_REGISTERS
            && workgroup_bytes(limits, lanes, [team, rows, keys, head_stride]) <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(rows) <= limits.max_workgroups
    },
};

/// Registers that a lane needs over f16: its columns of the queries and of the sums, the words of K and V in flight, the scores,
/// maxima and totals, and some for addresses.
pub fn registers(team: u32, rows: u32, keys: u32, head_stride: u32) -> u32 {
    let columns = 8 * (head_stride / 8).div_ceil(team);
    2 * rows * columns + keys * columns + rows * keys + 2 * rows + 16
}

/// What a dispatch does on such an adapter, with the merge behind it.
pub fn cost(work: &RaggedWork, schedule: &Schedule, limits: &AdapterLimits) -> DispatchCost {
    let [lanes, team, rows, keys, head_stride] = schedule.values[..] else { panic!("a schedule of {}", KERNEL.name) };
    work.cost(rows, workgroup_bytes(limits, lanes, [team, rows, keys, head_stride]))
}

fn workgroup_bytes(limits: &AdapterLimits, lanes: u32, [team, rows, keys, head_stride]: [u32; 4]) -> u32 {
    let teams = lanes / team;
    let shared = if limits.subgroups { 0 } else { 4 * lanes * rows * keys };
    teams * (4 * head_stride + 8 * rows) + shared
}
