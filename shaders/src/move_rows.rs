//! `move_rows.wgsl`: rows of the KV cache to other slots.

use crate::kernel::{Access, Kernel, Tunable};
use crate::layout::gpu_struct;
use crate::{GpuStruct, KvType};

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
        /// 16-byte words of a row of keys.
        pub k_words: u32,
        /// Of them to a workgroup: a power of two, at most LANES.
        pub k_group: u32,
        /// 16-byte words of a row of values.
        pub v_words: u32,
        /// Of them to a workgroup.
        pub v_group: u32,
        /// 4-byte words of a row of scales: 0, 1 or 2.
        pub scale_words: u32,
        /// The first move of this dispatch.
        pub first_move: u32,
    }
}

/// Shape: `[moves, planes, words of the longer rows]`; its moves touch nothing of each other's. Workgroups: [`workgroups`].
pub static KERNEL: Kernel = Kernel {
    name: "move_rows",
    source: include_str!("move_rows.wgsl"),
    parts: &[],
    bindings: &[Access::Read, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite],
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

impl MoveRowsParams {
    /// Moves of rows of such a type, `head_stride` columns each, from the first move on.
    pub fn of(kv: KvType, num_kv_heads: usize, slots: usize, head_stride: usize) -> MoveRowsParams {
        let [k_words, v_words] = [kv.k_row_bytes(head_stride), kv.v_row_bytes(head_stride)].map(|n| (n / 16) as u32);
        MoveRowsParams {
            num_kv_heads: num_kv_heads as u32,
            slots: slots as u32,
            k_words,
            k_group: group_words(k_words),
            v_words,
            v_group: group_words(v_words),
            scale_words: (kv.scale_bytes() / 4) as u32,
            first_move: 0,
        }
    }
}

/// Rows of a tile of keys: what a workgroup reads before it writes.
pub fn tile_rows(params: &MoveRowsParams, schedule: &crate::Schedule) -> u32 {
    KERNEL.value(schedule, "LANES") / params.k_group * KERNEL.value(schedule, "TILE")
}

/// Workgroups of a dispatch of `moves`: of keys, of values, and of scales where there are any.
pub fn workgroups(params: &MoveRowsParams, moves: usize) -> [u32; 3] {
    let planes = if params.scale_words == 0 { 2 } else { 3 } * params.num_kv_heads;
    let groups = params.k_words.div_ceil(params.k_group).max(params.v_words.div_ceil(params.v_group));
    [moves as u32, planes, groups]
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
