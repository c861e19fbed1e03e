//! Moves: spans that go elsewhere, spans that become one, and the order in which the GPU copies.

use super::spans::{Needs, Role, Span, SpanId};
use super::{MAX_SEGMENTS, Segments};

/// Rows to copy before a step's attention; source and destination may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// First slot read.
    pub from: usize,
    /// First slot written.
    pub to: usize,
    /// Slots.
    pub count: usize,
}

impl Move {
    fn conflicts(&self, other: &Move) -> bool {
        let meet = |a: usize, a_count: usize, b: usize, b_count: usize| a < b + b_count && b < a + a_count;
        meet(self.to, self.count, other.to, other.count)
            || meet(self.to, self.count, other.from, other.count)
            || meet(self.from, self.count, other.to, other.count)
    }
}

impl Segments {
    /// The moves in groups, to be run in order: within a group no move writes what another reads or writes.
    pub fn rounds(moves: &[Move]) -> Vec<Vec<Move>> {
        let mut rounds: Vec<Vec<Move>> = Vec::new();
        for next in moves {
            let after = rounds.iter().rposition(|round| round.iter().any(|earlier| earlier.conflicts(next)));
            let round = after.map_or(0, |round| round + 1);
            if round == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[round].push(*next);
        }
        rounds
    }

    pub(super) fn record(&mut self, from: usize, to: usize, count: usize) {
        if count == 0 || from == to {
            return;
        }
        self.counters.moved += count as u64;
        self.counters.moved_quiet += if self.quiet() { count as u64 } else { 0 };
        self.moved += count;
        self.moves.push(Move { from, to, count });
    }

    /// Moves a live span so that its first slot is `to`; its place in the order stays.
    pub(super) fn shift(&mut self, id: SpanId, to: usize) {
        let Needs { first, filled, .. } = self.needs(id);
        let span = self.span_mut(id);
        let (from, skipped) = (span.first_slot, first - span.first_position);
        span.first_slot = to;
        self.record(from + skipped, to + skipped, filled.saturating_sub(first));
    }

    /// Moves a live span into the gap after `left`, with its first slot `to`.
    pub(super) fn relocate(&mut self, id: SpanId, left: SpanId, to: usize) {
        self.abort_copy(id);
        self.shift(id, to);
        if left != id {
            self.unlink(id);
            self.link(left, id);
        }
    }

    /// Whether `right`, which follows `left` in a table, could become one span with it: no table needs more of `left`.
    pub(super) fn joinable(&self, left: SpanId, right: SpanId) -> bool {
        self.needs(left).end == self.needs(right).first
    }

    /// Makes one span of two that touch in the arena and follow one another in a table.
    pub(super) fn join(&mut self, left: SpanId, right: SpanId) {
        self.abort_copy(left);
        self.abort_copy(right);
        let Span { users, writer, slots, .. } = self.span(right).clone();
        for &user in &users {
            let pieces = &mut self.tables[user as usize].pieces;
            let index = pieces.iter().position(|piece| piece.span == right).expect("a span's user has a piece of it");
            if index > 0 && pieces[index - 1].span == left {
                pieces.remove(index);
            } else {
                pieces[index].span = left;
                self.span_mut(left).users.push(user);
            }
        }
        self.span_mut(left).slots += slots;
        self.span_mut(left).writer = writer;
        self.remove(right);
        self.counters.merged += 1;
    }

    /// Joins two neighbours of the arena if they follow one another in a table.
    pub(super) fn join_neighbours(&mut self, left: SpanId, right: SpanId) {
        let (a, b) = (self.span(left), self.span(right));
        let meet = a.role == Role::Live
            && b.role == Role::Live
            && self.end(left) == b.first_slot
            && a.first_position + a.slots == b.first_position
            && a.users.iter().any(|user| {
                let pieces = &self.tables[*user as usize].pieces;
                pieces.windows(2).any(|pair| pair[0].span == left && pair[1].span == right)
            });
        if meet && self.joinable(left, right) {
            self.join(left, right);
        }
    }

    /// Moves the spans `ids`, which follow one another in a table, into the gap after `left` as one span from `to` on.
    pub(super) fn gather(&mut self, ids: &[SpanId], left: SpanId, to: usize) {
        debug_assert!(ids.len() <= MAX_SEGMENTS);
        let base = self.span(ids[0]).first_position;
        let (mut after, mut whole) = (left, ids[0]);
        for (index, &id) in ids.iter().enumerate() {
            let first = self.span(id).first_position;
            self.relocate(id, after, to + (first - base));
            if index > 0 {
                // The part of a quantum that the span before left empty is closed.
                let span = self.span_mut(whole);
                let slots = std::mem::replace(&mut span.slots, first - base);
                self.free = self.free + slots - (first - base);
                self.join(whole, id);
            }
            (after, whole) = (ids[0], ids[0]);
        }
        self.trim(whole);
    }

    /// Reserves the gap after `left` from `to` on as the place that a live span is copied to ahead.
    pub(super) fn begin_copy(&mut self, id: SpanId, left: SpanId, to: usize) {
        let Span { slots, first_position, .. } = *self.span(id);
        let target = self.insert(left, Span::new(Role::Target(id), to, slots, first_position));
        self.span_mut(id).copy = Some((target, first_position));
        self.copies.push(id);
        self.counters.copies_begun += 1;
    }

    /// Gives up what a span's copy ahead has reserved, if it has one.
    pub(super) fn abort_copy(&mut self, id: SpanId) {
        if let Some((target, _)) = self.span_mut(id).copy.take() {
            self.remove(target);
            self.copies.retain(|copy| *copy != id);
            self.counters.copies_aborted += 1;
        }
    }

    pub(super) fn abort_copies(&mut self) {
        while let Some(&id) = self.copies.last() {
            self.abort_copy(id);
        }
    }

    /// Copies ahead at most `rows` rows of a span; cuts over when that was the last. Returns the rows that it took.
    pub(super) fn advance_copy(&mut self, id: SpanId, rows: usize) -> usize {
        let Some((target, copied)) = self.span(id).copy else { return 0 };
        let Needs { first, filled, written, .. } = self.needs(id);
        let copied = copied.max(first);
        let rest = filled.saturating_sub(copied);
        let count = if rest <= rows { rest } else { rows.min(written.saturating_sub(copied)) };
        let from = self.span(id).first_slot + (copied - self.span(id).first_position);
        let to = self.span(target).first_slot + (copied - self.span(target).first_position);
        if !self.fit_target(id, target) {
            self.abort_copy(id);
            return 0;
        }
        self.record(from, to, count);
        self.span_mut(id).copy = Some((target, copied + count));
        if rest <= rows {
            self.cut_over(id, target);
        }
        count
    }

    /// Whether the place of a copy is as large as the span, which may have grown.
    fn fit_target(&mut self, id: SpanId, target: SpanId) -> bool {
        let end = self.span(id).first_position + self.span(id).slots;
        let wanted = end - self.span(target).first_position;
        let more = wanted.saturating_sub(self.span(target).slots);
        if more > self.gap_after(target) {
            return false;
        }
        self.span_mut(target).slots = wanted;
        true
    }

    fn cut_over(&mut self, id: SpanId, target: SpanId) {
        let left = self.span(target).left;
        let place = self.span(target).first_slot;
        let skipped = self.span(id).first_position - self.span(target).first_position;
        self.span_mut(id).copy = None;
        self.copies.retain(|copy| *copy != id);
        self.remove(target);
        self.unlink(id);
        // The span itself may have been the one before its target.
        let left = if left == id { self.span(id).left } else { left };
        self.link(left, id);
        self.span_mut(id).first_slot = place + skipped;
        self.join_around(id);
    }

    /// Joins a span that has come to a new place with its neighbours.
    pub(super) fn join_around(&mut self, id: SpanId) {
        let (left, right) = (self.span(id).left, self.span(id).right);
        self.join_neighbours(id, right);
        self.join_neighbours(left, id);
    }
}
