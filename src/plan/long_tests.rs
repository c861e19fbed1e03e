//! Millions of slots: the allocator keeps every sequence's rows together, and the planner finds each of them once. No adapter.

use super::*;
use crate::segments::{Move, Segment, Segments, Table};
use raglan_shaders::attention::DIRECT;
use raglan_shaders::{AdapterLimits, KvType};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SLOTS: usize = 1 << 22;

fn planner(numerics: Numerics, class: AdapterClass, window: Option<usize>) -> Planner {
    let groups = vec![KvGroup { window, kv: KvType::F16 }];
    let shape = AttentionShape { num_heads: 4, num_kv_heads: 1, head_dim: 64, groups, numerics };
    let limits = StepLimits { max_batch_tokens: 64, max_sequences: 8, max_adjustments: 0 };
    Planner::new(shape, class, &AdapterLimits::most(), &limits)
}

/// Consecutive positions in consecutive slots: (position, slot, count).
type Run = (usize, usize, usize);

/// Joins runs that lie side by side.
fn joined(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let follows = (run.0 + run.2, run.1 + run.2) == (next.0, next.1);
        run.2 += if follows { next.2 } else { 0 };
        follows
    });
    runs
}

/// Every key that a row sees is in just one of its items, where its segments say; and all that is counted fits 32 bits and the
/// buffers.
fn check(planner: &Planner, batch: &Batch, plan: &Plan, what: &str) {
    let (group, window) = (&batch.groups[0], planner.shape.groups[0].window);
    let mut seen: Vec<Vec<Run>> = vec![Vec::new(); batch.tokens()];
    for item in &plan.items {
        assert!(item.partial == DIRECT || (item.partial as usize) < planner.capacity.partials, "{what}: {item:?}");
        for row in 0..item.rows {
            let end = (item.first_position + item.count).min(item.row_position + row + 1);
            if end > item.first_position {
                let count = (end - item.first_position) as usize;
                let run = (item.first_position as usize, item.first_slot as usize, count);
                seen[(item.first_row + row) as usize].push(run);
            }
        }
    }
    for merge in &plan.merges {
        let parts = &plan.parts[merge.first_part as usize..(merge.first_part + merge.parts) as usize];
        assert!(parts.iter().all(|part| (*part as usize) < planner.capacity.partials), "{what}: {merge:?}");
    }
    for sequence in 0..batch.sequences() {
        let own = group.segment_indptr[sequence] as usize..group.segment_indptr[sequence + 1] as usize;
        let rows = batch.q_indptr[sequence] as usize..batch.q_indptr[sequence + 1] as usize;
        for (row, met) in rows.clone().zip(&seen[rows]) {
            let end = batch.positions[row] as usize + 1;
            let from = window.map_or(0, |window| end.saturating_sub(window));
            let clipped = |(position, slot, count): Run| {
                let skip = from.saturating_sub(position).min(count);
                let count = (count - skip).min(end.saturating_sub(position + skip));
                (count > 0).then_some((position + skip, slot + skip, count))
            };
            let segments = group.segments[own.clone()].iter().map(|s| (s.first_position, s.first_slot, s.count));
            let want = joined(segments.filter_map(clipped).collect());
            let met = joined(met.iter().copied().filter_map(clipped).collect());
            assert_eq!(met, want, "{what}: row {row} at {}", end - 1);
            let last = want.last().expect("a row sees itself");
            let slot = group.slots[row] as usize;
            assert_eq!(slot, last.1 + last.2 - 1, "{what}: a row's own slot");
            assert!(slot < SLOTS, "{what}: slot {slot}");
        }
    }
}

#[test]
fn contexts_of_millions_of_tokens_are_planned_to_the_last_key() {
    let deterministic = Numerics::Deterministic { longest_context: SLOTS };
    for (numerics, window) in [(Numerics::Fast, None), (Numerics::Fast, Some(1 << 21)), (deterministic, None)] {
        for class in [AdapterClass::Software, AdapterClass::Hardware] {
            let planner = planner(numerics, class, window);
            let what = format!("{numerics:?}, {class:?}, window {window:?}");
            for (rows, end) in [(1, SLOTS), (1, (1 << 20) + 1), (5, (1 << 21) - 1), (48, SLOTS - 7), (1, 131_073)] {
                // In two runs, the later positions before the earlier ones.
                let half = SLOTS / 2 / CHUNK * CHUNK;
                let segments = [
                    Segment { first_slot: half, first_position: 0, count: half },
                    Segment { first_slot: 0, first_position: half, count: half },
                ];
                let mut batch = Batch::new(1);
                batch.push((0..rows).map(|_| 0), end - rows as usize, &[segments]);
                check(&planner, &batch, &planner.plan(&batch), &format!("{what}, {rows} rows to {end}"));
            }
        }
    }
}

/// What lies in every slot: a sequence's number and a position; applied as the adapter applies moves.
struct Memory(Vec<u64>);

impl Memory {
    fn apply(&mut self, moves: &[Move]) {
        for &Move { from, to, count } in moves {
            self.0.copy_within(from..from + count, to);
        }
    }

    fn write(&mut self, segments: &[Segment], positions: Range<usize>, sequence: u64) {
        for segment in segments {
            let first = segment.first_position.max(positions.start);
            let end = (segment.first_position + segment.count).min(positions.end);
            for position in first..end {
                self.0[segment.first_slot + position - segment.first_position] = sequence << 32 | position as u64;
            }
        }
    }

    fn check(&self, segments: &[Segment], sequence: u64, what: &str) {
        let mut next = 0;
        for segment in segments {
            assert_eq!(segment.first_position, next, "{what}: positions without a hole");
            next += segment.count;
            let slots = &self.0[segment.first_slot..segment.first_slot + segment.count];
            let wrong =
                slots.iter().zip(segment.first_position..).position(|(met, at)| *met != sequence << 32 | at as u64);
            assert_eq!(wrong, None, "{what}: sequence {sequence}, {segment:?}");
        }
    }
}

#[test]
fn four_million_slots_keep_every_row_of_growing_sequences() {
    let planner = planner(Numerics::Fast, AdapterClass::Hardware, None);
    for seed in 0..3 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut segments, mut memory) = (Segments::new(SLOTS), Memory(vec![u64::MAX; SLOTS]));
        let mut live: Vec<(Table, u64, usize)> = Vec::new();
        let (mut refused, mut longest) = (0, 0);
        for step in 0..40u64 {
            let what = format!("seed {seed}, step {step}");
            if live.len() < 4 && rng.random_bool(0.6) {
                live.push((segments.admit(), step, 0));
            }
            if live.len() > 1 && rng.random_bool(0.15) {
                let (table, ..) = live.swap_remove(rng.random_range(0..live.len()));
                segments.free(table);
            }
            let mut grown = Vec::new();
            for (place, (table, _, reach)) in live.iter().enumerate() {
                let more = [1, 17, 5000, 300_000, 1 << 20][rng.random_range(0..5)];
                if segments.extend(*table, reach + more) {
                    grown.push((place, *reach..reach + more));
                } else {
                    refused += 1;
                }
            }
            memory.apply(&segments.take_moves());
            let mut batch = Batch::new(1);
            for (place, positions) in grown {
                let (table, sequence, reach) = &mut live[place];
                let places = segments.segments(*table);
                memory.write(&places, positions.clone(), *sequence);
                *reach = positions.end;
                longest = longest.max(positions.end);
                let rows = positions.len().min(1 + place);
                batch.push((0..rows).map(|_| 0), positions.end - rows, &[&places]);
            }
            segments.check();
            for (table, sequence, _) in &live {
                memory.check(&segments.segments(*table), *sequence, &what);
            }
            if batch.sequences() > 0 {
                check(&planner, &batch, &planner.plan(&batch), &what);
            }
        }
        assert!(longest > 1 << 20 && refused > 0, "seed {seed}: {longest} tokens, {refused} refused");
    }
}
