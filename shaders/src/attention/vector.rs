//! `vector.wgsl`: attention of few query rows.

use super::{AttentionItem, AttentionParams, HEAD_STRIDES, RaggedWork};
use crate::kernel::{Access, AdapterLimits, Kernel, Schedule, Tunable};
use crate::link::wgsl;
use crate::{DispatchCost, GpuStruct, PartKind};

/// The most packed rows to a workgroup.
pub const MOST_ROWS: u32 = 8;

/// Registers of a lane that a schedule may take by [`registers`]; GPUs have up to 255.
const MOST_REGISTERS: u32 = 224;

/// A key or value of one row takes, by its type and without what is done once a key:
///
/// | type | bytes | K: integers | K: f32 | V: integers | V: f32 |
/// | --- | --- | --- | --- | --- | --- |
/// | f16 | 2 | | 1 conversion, 1 multiply-add | | 1 conversion, 1 multiply-add |
/// | int8 | 1 | 0.5 dot | | 1.5 | 1 subtraction, 1 multiply-add |
/// | int4 | 0.5 | 0.4 and 0.5 dot | | 1.1 | 1 subtraction, 1 multiply-add |
///
/// Dots (four products each) and multiply-adds are those of every further row too; the others serve all rows. A key and its value of
/// 128 columns in int4 are 136 bytes: at 3 TB/s an H100 reads 5.6 · 10¹² of their columns a second, and issues 5.1 instructions for
/// each (132 · 128 lanes at 1.7 GHz). One row needs 2.0, half of them for integers, of which it issues half as many; beside them
/// 25 or so a key and lane, 0.8 a column with 32 columns of K and V to a lane. So a row alone reads as fast as memory, and so do two;
/// four do not.
///
/// Shape: `[items, packed rows, head_stride, word_values]`, the last by [`crate::KvType::word_values`]. Workgroups: kv heads × packed rows / ROWS × items.
pub static KERNEL: Kernel = Kernel {
    name: "attention_vector",
    source: wgsl!("../parts/attention_forms", "vector"),
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
        Tunable { name: "LANES", values: &[128, 32, 64] },
        Tunable { name: "TEAM", values: &[8, 1, 2, 4, 16] },
        Tunable { name: "ROWS", values: &[4, 1, 2, MOST_ROWS] },
        Tunable { name: "KEYS", values: &[4, 1, 2, 8] },
        Tunable { name: "HEAD_STRIDE", values: &HEAD_STRIDES },
    ],
    dims: &["items", "packed_rows", "head_stride", "word_values"],
    legal: |limits, shape, schedule| {
        let [lanes, team, rows, keys, head_stride] = schedule.values[..] else { return false };
        let word_values = shape[3];
        lanes <= limits.max_workgroup_lanes
            && (team <= limits.min_subgroup_lanes || !limits.subgroups)
            && head_stride == shape[2]
            // A team with more idle lanes than busy ones reads nothing faster than the next smaller.
            && word_values.max(8) * team < 2 * head_stride
            && registers(team, rows, keys, head_stride, word_values) <= MOST_REGISTERS
            && workgroup_bytes(limits, lanes, [team, rows, keys, head_stride]) <= limits.max_workgroup_bytes
            && shape[0] <= limits.max_workgroups
            && shape[1].div_ceil(rows) <= limits.max_workgroups
    },
};

/// Registers that a lane needs: its columns of the queries and of the sums, the words of K and V in flight, the scores, maxima
/// and totals, and some for addresses. Floats are counted as f16. Of quantised keys, words of 16 values: a query takes two bytes a
/// column, K and V at most one each; besides, there are two words of scales a key, two sums a score while it is whole
/// numbers, and three numbers more a row.
pub fn registers(team: u32, rows: u32, keys: u32, head_stride: u32, word_values: u32) -> u32 {
    let word_values = word_values.max(8);
    let columns = word_values * (head_stride / word_values).div_ceil(team);
    if word_values == 8 {
        return 2 * rows * columns + keys * columns + rows * keys + 2 * rows + 16;
    }
    rows * columns + rows * columns / 2 + keys * columns / 2 + 2 * keys + 2 * rows * keys + 5 * rows + 16
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
