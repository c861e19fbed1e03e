//! Twin test of `move_rows.wgsl`.

use crate::self_test::data::{Random, words};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::Schedule;
use raglan_shaders::move_rows::{KERNEL, MoveRowsParams, RowMove, group_words, tile_rows, twin, workgroups};

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_four() {
        return Ok(());
    }
    for (index, (row_words, num_kv_heads)) in [(4, 2), (1, 3), (2, 1), (3, 2), (6, 1), (16, 2)].into_iter().enumerate()
    {
        for schedule in rig.schedules(&KERNEL, &[64, 2 * num_kv_heads, row_words]) {
            let params = MoveRowsParams {
                num_kv_heads,
                slots: 0,
                k_words: row_words,
                v_words: row_words,
                v_group: group_words(row_words),
                scale_words: 0,
                k_group: group_words(row_words),
                first_move: 1,
            };
            let tile = tile_rows(&params, &schedule);
            let mut random = rig.random(index);
            for count in [1, tile - 1, tile, tile + 1, 3 * tile + 7, 1021] {
                for distance in [1, 16, tile / 2 + 1, count + 3] {
                    for up in [false, true] {
                        check_moves(rig, &schedule, params, &slides(&mut random, count, distance, up), &mut random)?;
                    }
                }
            }
        }
    }
    // One long slide by a quantum, either way.
    let params = MoveRowsParams {
        num_kv_heads: 1,
        slots: 0,
        k_words: 2,
        k_group: 2,
        v_words: 2,
        v_group: 2,
        scale_words: 0,
        first_move: 0,
    };
    for up in [false, true] {
        let mut random = rig.random(100);
        let (low, high) = (5, 21);
        let (from_slot, to_slot) = if up { (low, high) } else { (high, low) };
        let moves = [RowMove { from_slot, to_slot, count: 5003 }];
        check_moves(rig, &KERNEL.default_schedule(), params, &moves, &mut random)?;
    }
    Ok(())
}

/// A move that no dispatch runs, one of `count` rows by `distance`, and a few of other lengths behind it.
fn slides(random: &mut Random, count: u32, distance: u32, up: bool) -> Vec<RowMove> {
    let mut moves = vec![RowMove { from_slot: 0, to_slot: 2, count: 1 }];
    let mut next = 3;
    for count in [count, 1 + random.index(40) as u32, 17] {
        let (low, high) = (next, next + distance);
        let (from_slot, to_slot) = if up { (low, high) } else { (high, low) };
        moves.push(RowMove { from_slot, to_slot, count });
        next = high + count + random.index(3) as u32;
    }
    moves
}

fn check_moves(
    rig: &Rig<'_>,
    schedule: &Schedule,
    params: MoveRowsParams,
    moves: &[RowMove],
    random: &mut Random,
) -> Result<(), Failure> {
    let slots = moves.iter().map(|rows| rows.from_slot.max(rows.to_slot) + rows.count).max().unwrap_or(0) + 2;
    let params = MoveRowsParams { slots, ..params };
    let row = 4 * params.k_words as usize;
    let mut arena = || -> Vec<u32> {
        let numbers = 0..params.num_kv_heads as usize * slots as usize * row;
        numbers.map(|_| random.index(1 << 32) as u32).collect()
    };
    let mut want = [arena(), arena()];
    let inputs = [bytemuck::cast_slice(moves), bytemuck::cast_slice(&want[0][..]), bytemuck::cast_slice(&want[1][..])];
    let run = &moves[params.first_move as usize..];
    let variant = KERNEL.variant(&[], schedule.clone());
    let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups(&params, run.len()))?;
    for ((met, want), name) in met.iter().zip(&mut want).zip(["keys", "values"]) {
        twin(want, slots as usize, row, run);
        rig.same(|| format!("{variant}, {name}, {params:?}, {moves:?}, seed {}", random.seed), &words(met), want)?;
    }
    Ok(())
}
