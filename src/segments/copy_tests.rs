//! What is copied ahead of a move, row by row.

use super::*;

/// Slots of the first span.
const FIRST: usize = 1984;
/// Slots that a table has left free after it.
const HOLE: usize = 640;
/// Slots of the second span, behind the hole.
const SECOND: usize = 256;

/// A table in two spans of `FIRST` and up to `SECOND` positions, of which the second could come to the end of the first; the
/// slots from `held` on are out of use.
fn two_spans(second: usize, held: usize) -> (Segments, Table) {
    let mut segments = Segments::with_policy(4096, Policy { quiet_share: 0.0, ..Policy::default() });
    let table = segments.admit();
    assert!(segments.extend(table, 512));
    let between = segments.admit();
    assert!(segments.extend(between, HOLE));
    segments.settle(between);
    assert!(segments.extend(table, FIRST));
    assert!(segments.extend(table, FIRST + second));
    segments.hold(held, 4096 - held);
    segments.free(between);
    let places: Vec<_> = segments.segments(table).iter().map(|s| (s.first_slot, s.count)).collect();
    assert_eq!(places, [(0, FIRST), (FIRST + HOLE, second)]);
    segments.note_written(table, FIRST + second);
    segments.take_moves();
    (segments, table)
}

/// The moves of a step with so many rows to spend.
fn step(segments: &mut Segments, rows: usize) -> Vec<Move> {
    segments.plan_moves(rows);
    segments.check();
    let moves = segments.take_moves();
    assert!(rows_of(&moves) <= rows);
    moves
}

fn rows_of(moves: &[Move]) -> usize {
    moves.iter().map(|m| m.count).sum()
}

#[test]
fn every_row_is_copied_once_and_none_that_is_not_there() {
    let (mut segments, table) = two_spans(SECOND - 6, 2880);
    let moves: Vec<Move> = (0..4).flat_map(|_| step(&mut segments, 64)).collect();
    let mut next = FIRST + HOLE;
    for m in &moves {
        assert_eq!((m.from, m.to), (next, next - HOLE), "in order, without a hole");
        next += m.count;
    }
    assert_eq!(rows_of(&moves), SECOND - 6);
    let whole = Segment { first_slot: 0, first_position: 0, count: FIRST + SECOND - 6 };
    assert_eq!(segments.segments(table).as_slice(), [whole]);
    assert!(step(&mut segments, 64).is_empty());
}

#[test]
fn what_is_cut_and_written_anew_is_copied_anew() {
    let (mut segments, table) = two_spans(SECOND, 2880);
    assert_eq!(rows_of(&step(&mut segments, 64)) + rows_of(&step(&mut segments, 64)), 128);
    segments.truncate(table, FIRST + 40);
    segments.check();
    assert!(segments.extend(table, FIRST + SECOND));
    segments.take_moves();
    segments.note_written(table, FIRST + SECOND);
    let moves = step(&mut segments, SECOND);
    assert_eq!(moves, [Move { from: FIRST + HOLE + 40, to: FIRST + 40, count: SECOND - 40 }]);
    assert_eq!(segments.segments(table).len(), 1);
}

#[test]
fn a_copy_is_given_up_where_its_place_is_too_small_for_what_has_grown() {
    let (mut segments, table) = two_spans(SECOND, 3136);
    assert_eq!(rows_of(&step(&mut segments, 64)), 64);
    let other = segments.admit();
    assert!(segments.extend(other, HOLE - SECOND));
    let place = segments.segments(other)[0];
    assert_eq!(place.first_slot, FIRST + SECOND, "right behind the place of the copy");
    assert!(segments.extend(table, FIRST + SECOND + 128));
    segments.take_moves();
    let moves = step(&mut segments, 1000);
    let end = place.first_slot + place.count;
    assert!(moves.iter().all(|m| m.to + m.count <= place.first_slot || m.to >= end), "{moves:?}");
    assert_eq!(segments.segments(other).as_slice(), [place]);
    assert_eq!(segments.counters().copies_aborted, 1);
}

#[test]
fn only_what_is_written_is_copied_ahead() {
    let (mut segments, table) = two_spans(SECOND - 6, 2880);
    segments.note_written(table, FIRST + 48);
    assert_eq!(rows_of(&step(&mut segments, 128)), 48);
    assert_eq!(rows_of(&step(&mut segments, 128)), 0);
    segments.note_written(table, FIRST + 64);
    assert_eq!(rows_of(&step(&mut segments, 128)), 16);
    // To grow is to say that all before is written.
    assert!(segments.extend(table, FIRST + SECOND - 5));
    segments.take_moves();
    assert_eq!(rows_of(&step(&mut segments, 128)), 128);
}

#[test]
fn no_more_is_written_of_a_fork_than_of_what_it_was_made_from() {
    let (mut segments, table) = two_spans(SECOND, 2880);
    segments.note_written(table, FIRST + 48);
    let fork = segments.fork(table, FIRST + 200);
    assert_eq!(rows_of(&step(&mut segments, 128)), 48);
    segments.note_written(fork, FIRST + 1000);
    assert_eq!(rows_of(&step(&mut segments, 128)), 128, "up to the end of the fork");
    segments.check();
}

#[test]
fn an_empty_table_begins_in_the_quantum_of_the_first_position_that_it_needs() {
    let mut segments = Segments::new(1024);
    let table = segments.admit();
    segments.release_front(table, 1000);
    segments.check();
    assert_eq!((segments.first_position(table), segments.reach(table), segments.slots_of(table)), (992, 992, 0));
    assert!(segments.extend(table, 1010));
    segments.check();
    assert_eq!(segments.slots_of(table), 32);
    let wanted = Segment { first_slot: 0, first_position: 992, count: 18 };
    assert_eq!(segments.segments(table).as_slice(), [wanted]);
    segments.release_front(table, 1000);
    assert_eq!((segments.first_position(table), segments.slots_of(table)), (1000, 32));
    segments.free(table);
    assert_eq!(segments.free_slots(), 1024);
}
