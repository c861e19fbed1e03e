//! Twin test of `move_rows.wgsl`.

use crate::self_test::data::{Random, words};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::Schedule;
use raglan_shaders::move_rows::{KERNEL, MoveRowsParams, RowMove, group_words, tile_rows, twin, workgroups};

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_four() {
        return Ok(());
    }
    // 16-byte words of K and of V, 4-byte words of scales, heads.
    let shapes = [(4, 4, 0, 2), (1, 1, 2, 3), (2, 2, 1, 1), (3, 3, 0, 2), (6, 3, 2, 1), (16, 16, 0, 2)];
    for (index, (k_words, v_words, scale_words, num_kv_heads)) in shapes.into_iter().enumerate() {
        for schedule in rig.schedules(&KERNEL, &[64, 3 * num_kv_heads, k_words]) {
            let params = MoveRowsParams { first_move: 1, scale_words, ..params(num_kv_heads, [k_words, v_words]) };
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
    let params = params(1, [2, 2]);
    for up in [false, true] {
        let mut random = rig.random(100);
        let (low, high) = (5, 21);
        let (from_slot, to_slot) = if up { (low, high) } else { (high, low) };
        let moves = [RowMove { from_slot, to_slot, count: 5003 }];
        check_moves(rig, &KERNEL.default_schedule(), params, &moves, &mut random)?;
    }
    Ok(())
}

fn params(num_kv_heads: u32, [k_words, v_words]: [u32; 2]) -> MoveRowsParams {
    let [k_group, v_group] = [k_words, v_words].map(group_words);
    MoveRowsParams { num_kv_heads, slots: 0, k_words, k_group, v_words, v_group, scale_words: 0, first_move: 0 }
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
    let rows = [4 * params.k_words, 4 * params.v_words, params.scale_words].map(|words| words as usize);
    // Something has to be bound where there are no scales.
    let mut want = rows.map(|row| -> Vec<u32> {
        let numbers = 0..(params.num_kv_heads as usize * slots as usize * row).max(4);
        numbers.map(|_| random.index(1 << 32) as u32).collect()
    });
    let [k, v, scales] = [0, 1, 2].map(|i| bytemuck::cast_slice(&want[i][..]));
    let inputs = [bytemuck::cast_slice(moves), k, v, scales];
    let run = &moves[params.first_move as usize..];
    let variant = KERNEL.variant(&[], schedule.clone());
    let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups(&params, run.len()))?;
    for (((met, want), row), name) in met.iter().zip(&mut want).zip(rows).zip(["keys", "values", "scales"]) {
        if row > 0 {
            twin(want, slots as usize, row, run);
        }
        rig.same(|| format!("{variant}, {name}, {params:?}, {moves:?}, seed {}", random.seed), &words(met), want)?;
    }
    Ok(())
}
