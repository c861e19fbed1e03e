//! Properties over random histories, and the cases that the design names.

use super::history::History;
use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Long histories in an ordinary run; the fuzz target goes on from there.
const SEEDS: u64 = 40;

/// The bytes of a random history: parameters, then operations, decoding and a few kinds chosen by the seed more often.
fn random_bytes(seed: u64, operations: usize) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bytes: Vec<u8> = (0..5).map(|_| rng.random()).collect();
    let often: [u8; 4] = rng.random();
    for _ in 0..operations {
        let kind = match rng.random_range(0..10) {
            0..4 => 15,
            4..8 => often[rng.random_range(0..4)],
            _ => rng.random(),
        };
        bytes.extend([kind, rng.random(), rng.random()]);
    }
    bytes
}

fn run(seed: u64, bytes: &[u8]) -> History {
    let run = std::panic::catch_unwind(|| History::run(bytes));
    run.unwrap_or_else(|_| panic!("seed {seed}"))
}

#[test]
fn every_position_keeps_its_content_over_long_histories() {
    let mut total = Counters::default();
    for seed in 0..SEEDS {
        let history = run(seed, &random_bytes(seed, 1200));
        let counters = history.segments.counters();
        for (sum, count) in [
            (&mut total.moved, counters.moved),
            (&mut total.opened, counters.opened),
            (&mut total.slides, counters.slides),
            (&mut total.gathers, counters.gathers),
            (&mut total.merged, counters.merged),
            (&mut total.copies_begun, counters.copies_begun),
            (&mut total.copies_aborted, counters.copies_aborted),
            (&mut total.forks, counters.forks),
            (&mut total.refused, counters.refused),
        ] {
            *sum += count;
        }
    }
    assert!(
        total.slides > 100 && total.gathers > 100 && total.merged > 100 && total.forks > 100 && total.refused > 100,
        "{total:?}"
    );
    assert!(total.copies_begun - total.copies_aborted > 50, "{total:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_position_keeps_its_content_over_short_histories(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        History::run(&bytes);
    }
}

#[test]
fn a_lone_sequence_grows_in_place_to_the_last_whole_quantum() {
    let mut segments = Segments::new(1024 + 7);
    let table = segments.admit();
    for tokens in 1..=1024 {
        assert!(segments.extend(table, tokens));
        let wanted = Segment { first_slot: 0, first_position: 0, count: tokens };
        assert_eq!(segments.segments(table).as_slice(), [wanted]);
    }
    assert_eq!(segments.free_slots(), 0);
    assert!(!segments.extend(table, 1025));
    assert!(segments.take_moves().is_empty());
    segments.free(table);
    assert_eq!(segments.free_slots(), 1024);
}

#[test]
fn below_half_occupancy_nothing_moves_unless_the_cap_leaves_no_other_way() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut segments = Segments::new(16384);
        let mut live: Vec<Table> = Vec::new();
        for _ in 0..2000 {
            let used = segments.capacity() - segments.free_slots();
            if live.is_empty() || (used < 7000 && rng.random_bool(0.1)) {
                live.push(segments.admit());
            }
            for &table in &live {
                if segments.capacity() - segments.free_slots() < 8000 {
                    segments.extend(table, segments.reach(table) + rng.random_range(1..40));
                }
            }
            if rng.random_bool(0.1) {
                segments.free(live.swap_remove(rng.random_range(0..live.len())));
            }
            segments.plan_moves(1000);
            let most = live.iter().map(|table| segments.segments(*table).len()).max().unwrap_or(0);
            assert!(segments.take_moves().is_empty() || most >= MAX_SEGMENTS - 1, "seed {seed}");
        }
        assert_eq!(segments.counters().moved, segments.counters().moved_quiet, "seed {seed}");
    }
}

#[test]
fn a_window_holds_its_chunk_and_a_quantum_more() {
    for (window, chunk, others) in [(256, 32, 0), (256, 32, 3), (1024, 256, 2), (64, 16, 5)] {
        let mut segments = Segments::new((others + 1) * (window + chunk + QUANTUM) + 512);
        let tables: Vec<Table> = (0..=others).map(|_| segments.admit()).collect();
        for step in 1..=4 * window / chunk + 40 {
            for &table in &tables {
                segments.release_front(table, ((step - 1) * chunk).saturating_sub(window));
                assert!(segments.extend(table, step * chunk), "window {window}, step {step}");
                assert!(segments.slots_of(table) <= window + chunk + QUANTUM);
            }
            segments.plan_moves(64);
            segments.take_moves();
            segments.check();
        }
        for &table in &tables {
            let reach = segments.reach(table);
            segments.release_front(table, reach);
            assert!(segments.extend(table, reach + 1), "a window grows on after all of it was given back");
            segments.check();
        }
    }
}

#[test]
fn the_last_user_gives_a_shared_span_back() {
    let mut segments = Segments::new(4096);
    let first = segments.admit();
    assert!(segments.extend(first, 1000));
    segments.take_moves();
    let forks: Vec<Table> = (0..64).map(|_| segments.fork(first, 1000)).collect();
    assert_eq!(segments.free_slots(), 4096 - 1008);
    assert_eq!(segments.counters().moved, 0);
    for &fork in &forks {
        assert!(segments.extend(fork, 1010));
        segments.check();
    }
    assert_eq!(
        segments.free_slots(),
        4096 - 1024 - 63 * 16,
        "one grows in place, each other one has a span of its own"
    );
    segments.free(first);
    assert_eq!(segments.free_slots(), 4096 - 1024 - 63 * 16);
    for &fork in &forks {
        segments.free(fork);
        segments.check();
    }
    assert_eq!(segments.free_slots(), 4096);
}

#[test]
fn growth_moves_more_than_usual_rather_than_be_refused_but_no_more_than_the_bound() {
    for (max_moved_share, grown) in [(0.75, true), (0.5, false)] {
        let policy = Policy { max_moved_share, ..Policy::default() };
        let mut segments = Segments::with_policy(960, policy);
        let mut between = Vec::new();
        for index in 0..24 {
            let table = segments.admit();
            assert!(segments.extend(table, if index % 2 == 0 { 64 } else { 16 }));
            segments.settle(table);
            between.extend((index % 2 == 1).then_some(table));
        }
        between.into_iter().for_each(|table| segments.free(table));
        segments.take_moves();
        // Ten gaps of a quantum each, which nine tables part: too many for segments.
        let table = segments.admit();
        assert_eq!(segments.extend(table, 160), grown);
        segments.check();
        assert_eq!(segments.moving(), if grown { 9 * 64 } else { 0 });
        assert_eq!(segments.segments(table).len(), usize::from(grown));
    }
}

#[test]
fn head_room_is_kept_only_while_something_grows() {
    let mut segments = Segments::new(4096);
    assert!(segments.may_admit(4096) && !segments.may_admit(4097));
    let table = segments.admit();
    assert!(segments.extend(table, 96));
    assert!(!segments.may_admit(4000) && segments.may_admit(4000 - segments.head_room()));
    segments.settle(table);
    assert!(segments.may_admit(4000));
}

#[test]
fn conflicting_moves_are_in_different_rounds_and_others_in_one() {
    let slide = [Move { from: 64, to: 80, count: 32 }, Move { from: 32, to: 48, count: 32 }];
    assert_eq!(Segments::rounds(&slide).len(), 2);
    let apart = [Move { from: 0, to: 16, count: 16 }, Move { from: 64, to: 128, count: 64 }];
    assert_eq!(Segments::rounds(&apart), [apart.to_vec()]);
    assert!(Segments::rounds(&[]).is_empty());
}
