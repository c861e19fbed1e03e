//! Moves of rows → the items of `move_rows.wgsl`.

use super::Plan;
use crate::batch::Batch;
use crate::segments::Move;
use raglan_shaders::move_rows::RowMove;
use std::ops::Range;

/// Moves of a step at most, and items that they are cut into.
pub const MOST_MOVES: usize = 1024;

/// Rows of an item, where there is room for as many items as that makes.
const PIECE_ROWS: usize = 128;

/// Rows of an item at most, where a move does not overlap itself.
pub(super) fn piece_rows(batch: &Batch) -> usize {
    let moves = || batch.groups.iter().flat_map(|group| &group.moves).flatten();
    let longest = moves().map(|m| m.count).max().unwrap_or(0);
    let mut piece = PIECE_ROWS;
    while piece < longest && moves().map(|m| m.count.div_ceil(piece)).sum::<usize>() > MOST_MOVES {
        piece *= 2;
    }
    piece
}

/// Writes the moves of a group, round by round. A move that does not overlap itself is cut for parallelism; one that does
/// is walked in order by one item. Returns the rounds.
pub(super) fn plan_moves(rounds: &[Vec<Move>], piece: usize, plan: &mut Plan) -> Range<usize> {
    let first_round = plan.rounds.len();
    for round in rounds.iter().filter(|round| !round.is_empty()) {
        let first = plan.moves.len();
        for &Move { from, to, count } in round {
            let step = if from.abs_diff(to) < count { count } else { piece };
            plan.moves.extend((0..count).step_by(step).map(|at| RowMove {
                from_slot: (from + at) as u32,
                to_slot: (to + at) as u32,
                count: step.min(count - at) as u32,
            }));
        }
        plan.rounds.push(first..plan.moves.len());
    }
    first_round..plan.rounds.len()
}
