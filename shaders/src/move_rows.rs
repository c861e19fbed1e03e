//! `move_rows.wgsl`: rows of the KV cache to other slots.

use crate::GpuStruct;
use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;

gpu_struct! {
    /// Rows to copy within the arenas of a layer; the two places may overlap.
    pub struct RowMove {
        /// The first slot to read.
        pub from_slot: u32,
        /// The first slot to write.
        pub to_slot: u32,
        /// Slots.
        pub count: u32,
    }
}

gpu_struct! {
    /// Immediates of `move_rows.wgsl`.
    pub struct MoveRowsParams {
        /// Key and value heads.
        pub num_kv_heads: u32,
        /// Slots of a head's plane.
        pub slots: u32,
        /// 16-byte words of a row.
        pub row_words: u32,
        /// Of them to a workgroup: a power of two, at most LANES.
        pub group_words: u32,
        /// The first move of this dispatch.
        pub first_move: u32,
    }
}

/// Shape: `[moves, planes, row words]`; its moves touch nothing of each other's. Workgroups: [`workgroups`].
pub static KERNEL: Kernel = Kernel {
    name: "move_rows",
    source: include_str!("move_rows.wgsl"),
    parts: &[],
    bindings: &[Access::Read, Access::ReadWrite, Access::ReadWrite],
    immediates: MoveRowsParams::LAYOUT,
    structs: &[RowMove::LAYOUT],
    tunables: &[Tunable { name: "LANES", values: &[256, 32, 64, 128] }, Tunable { name: "TILE", values: &[4, 1, 8] }],
    dims: &["moves", "planes", "row_words"],
    legal: |limits, shape, schedule| {
        schedule.values[0] <= limits.max_workgroup_lanes
            && shape[0] <= limits.max_workgroups
            && shape[1] <= limits.max_workgroups
            && shape[2].div_ceil(group_words(shape[2])) <= limits.max_workgroups
    },
};

/// Words of a row to a workgroup: 64 bytes, so that a long slide of one sequence is shared by several.
pub fn group_words(row_words: u32) -> u32 {
    row_words.next_power_of_two().min(4)
}

/// Rows of a tile: what a workgroup reads before it writes.
pub fn tile_rows(params: &MoveRowsParams, schedule: &crate::Schedule) -> u32 {
    KERNEL.value(schedule, "LANES") / params.group_words * KERNEL.value(schedule, "TILE")
}

/// Workgroups of a dispatch of `moves`.
pub fn workgroups(params: &MoveRowsParams, moves: usize) -> [u32; 3] {
    [moves as u32, 2 * params.num_kv_heads, params.row_words.div_ceil(params.group_words)]
}

/// The CPU twin: `moves` one after the other in an arena `[num_kv_heads, slots, row]`, as if each were read whole before
/// it is written. `row` counts elements of `T`.
pub fn twin<T: Copy>(arena: &mut [T], slots: usize, row: usize, moves: &[RowMove]) {
    for plane in arena.chunks_exact_mut(slots * row) {
        for rows in moves {
            let from = rows.from_slot as usize * row..(rows.from_slot + rows.count) as usize * row;
            plane.copy_within(from, rows.to_slot as usize * row);
        }
    }
}
