//! Which tokens run in a step, and the slots that they need.

use super::step::Step;
use super::{CacheOp, Rank, Scheduler, clip};
use crate::request::FinishReason;
use crate::segments::{Segment, SlotGroups};
use crate::sequence::Saved;
use smallvec::SmallVec;
use std::sync::Arc;

/// Whether a sequence has the slots that it needs.
enum MadeRoom {
    /// It has.
    Yes,
    /// It does not run any more.
    Ended,
    /// It has to wait.
    Wait,
}

impl Scheduler {
    /// Sequences that need one token: no prompt stalls a running answer. They leave `kept_us` of the step's time.
    pub(super) fn choose_short(&mut self, slots: &mut SlotGroups, step: &mut Step, kept_us: f64) {
        let short = |rank: &&Rank| self.sequences[&rank.1].ready() == 1;
        let mut order: Vec<Rank> = self.running.iter().filter(short).copied().collect();
        // Where a step has no time for all of them, those that were left out go first in the next.
        order.sort_by_key(|rank| self.sequences[&rank.1].last_step);
        for rank in order {
            let sequence = &self.sequences[&rank.1];
            let load = self.cost.load(1, sequence.computed);
            let late = !step.chosen.is_empty() && self.cost.step_us(&(step.load + load)) > step.bound_us - kept_us;
            if late || step.is_full() {
                break;
            }
            if sequence.tables.is_none() || step.has(rank) || step.tokens_for(sequence, 1) == 0 {
                continue;
            }
            if let MadeRoom::Yes = self.make_room(rank, 1, slots, step) {
                step.choose(rank, 1, &self.sequences[&rank.1], load);
            }
        }
    }

    /// Sequences with more tokens to compute, first come, first served, in the time that is left.
    pub(super) fn choose_long(&mut self, slots: &mut SlotGroups, step: &mut Step) {
        let mut any = false;
        let order = self.running.clone();
        for rank in order {
            let sequence = &self.sequences[&rank.1];
            let (ready, computed) = (sequence.ready(), sequence.computed);
            if ready <= 1 || sequence.tables.is_none() {
                continue;
            }
            if step.is_full() {
                break;
            }
            let most = slots.longest_chunk().min(self.options.max_positions.saturating_sub(computed).max(1));
            let wanted = step.tokens_for(sequence, ready.min(most));
            if wanted == 0 {
                continue;
            }
            let bound_us = step.delay_bound_us - self.cost.move_us(slots.moving());
            let mut tokens = self.cost.tokens_within(bound_us, &step.load, computed, wanted);
            if tokens < wanted && tokens >= 16 {
                // Whole tiles.
                tokens = tokens / 16 * 16;
            }
            // However tight the bound, the first of them gets on.
            if tokens == 0 && !any {
                tokens = 1;
            }
            if tokens == 0 {
                break;
            }
            if let MadeRoom::Yes = self.make_room(rank, tokens, slots, step) {
                let load = self.cost.load(tokens, computed);
                step.choose(rank, tokens, &self.sequences[&rank.1], load);
                any = true;
            }
        }
    }

    /// Makes the slots of a running sequence reach `tokens` more: kept prefixes go, then the last by rank gives way.
    fn make_room(&mut self, rank: Rank, tokens: usize, slots: &mut SlotGroups, step: &mut Step) -> MadeRoom {
        loop {
            let sequence = &self.sequences[&rank.1];
            let tables = sequence.tables.as_ref().expect("a running sequence has tables");
            slots.release_unseen(tables, sequence.computed);
            let reach = sequence.computed + tokens;
            if reach > self.options.max_positions {
                return self.end_when_known(rank, slots);
            }
            if slots.extend(tables, reach) {
                slots.note_written(tables, sequence.computed);
                return MadeRoom::Yes;
            }
            if self.prefixes.evict(slots) {
                continue;
            }
            let last = *self.running.last().expect("it runs");
            if last != rank {
                self.preempt(last, slots, step);
            } else if self.running.len() > 1 {
                // It keeps its slots until one before it ends or needs them.
                return MadeRoom::Wait;
            } else if sequence.gave_way_for != reach && slots.could_extend(tables, reach) {
                // There are slots, and no way to gather them in a step: it is placed anew.
                self.sequences.get_mut(&rank.1).expect("it runs").gave_way_for = reach;
                self.preempt(rank, slots, step);
                return MadeRoom::Ended;
            } else {
                return self.end_when_known(rank, slots);
            }
        }
    }

    /// Ends a sequence that cannot go on, unless a token that is not known yet may have ended it already.
    fn end_when_known(&mut self, rank: Rank, slots: &mut SlotGroups) -> MadeRoom {
        if self.sequences[&rank.1].in_flight.is_some() {
            return MadeRoom::Wait;
        }
        self.end(rank.1, FinishReason::Length, slots);
        MadeRoom::Ended
    }

    /// Takes a sequence's slots. Its keys and values go to the host where that is predicted to be faster than computing them
    /// again; it goes on when there is room.
    fn preempt(&mut self, rank: Rank, slots: &mut SlotGroups, step: &mut Step) {
        step.remove(rank);
        self.running.retain(|other| *other != rank);
        self.waiting.insert(rank);
        self.prefixes.forget(rank.1);
        self.stats.preemptions += 1;
        let sequence = self.sequences.get_mut(&rank.1).expect("a running sequence");
        let tables = sequence.tables.take().expect("a running sequence has tables");
        let computed = std::mem::replace(&mut sequence.computed, 0);
        let held = (0..slots.len()).map(|group| slots.group(group).slots_of(tables[group])).max().unwrap_or(0);
        let most = self.options.spare_share * slots.capacity() as f64;
        self.spare_slots = (self.spare_slots + held as f64).min(most);
        let host_bytes = self.cost.slots_bytes(held);
        let swaps = computed > 0
            && self.host_bytes + host_bytes <= self.options.host_bytes
            && self.cost.swap_us(held) < self.cost.recompute_us(computed, self.limits.max_batch_tokens);
        if swaps {
            let mut segments = slots.segments(&tables);
            segments.iter_mut().for_each(|list| clip(list, 0, computed));
            let first = |list: &SmallVec<[Segment; 8]>| list.first().map_or(computed, |s| s.first_position);
            let first_positions = segments.iter().map(first).collect();
            let saved = Saved { end: computed, first_positions, bytes: Arc::default(), host_bytes };
            sequence.saved = Some(saved.clone());
            self.host_bytes += host_bytes;
            self.stats.swaps += 1;
            self.moves_first(slots);
            self.before.push(CacheOp::Save { saved, segments });
        }
        slots.free(tables);
    }

    /// What was moved until now is copied before what happens next.
    pub(super) fn moves_first(&mut self, slots: &mut SlotGroups) {
        let moves = slots.take_moves_until_now();
        if moves.iter().any(|moves| !moves.is_empty()) {
            self.before.push(CacheOp::Move(moves));
        }
    }
}
