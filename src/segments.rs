//! The slot allocator: which slots of the KV cache belong to which sequence. No GPU.
//!
//! A *span* is a contiguous run of slots that holds consecutive positions; a *table* is what one sequence (or a kept
//! prefix) has: a short list of spans, in order of position. Tables share a span after a [`fork`](Segments::fork), and a
//! move changes one record whatever the number of tables. A table grows in place at the end of its last span, where no
//! other needs those positions. What no table needs of a span, at its front or its end, is free again at once, in whole
//! quanta; between two spans lies a *gap*.
//!
//! Growth that meets a neighbour takes the cheapest of: slide spans within a stretch of the arena so that their gaps come
//! together, gather the last spans in the largest gap, open another span. In the background spans of one table are
//! merged, by copying ahead where that takes more rows than a step may move.
//!
//! The GPU does everything in order: a step's moves run after all earlier steps and before the step's own appends and
//! attention. So a move may copy any row that an earlier step wrote, and a slot may be used again as soon as it is free.

mod background;
mod check;
mod fork;
mod groups;
mod grow;
mod moves;
mod policy;
mod spans;

#[cfg(test)]
mod copy_tests;
#[cfg(any(test, fuzzing))]
pub mod history;
#[cfg(test)]
mod tests;

pub use groups::{SlotGroups, Tables};
pub use moves::Move;
pub use policy::{Counters, Policy};

use smallvec::SmallVec;
use spans::{Piece, Span, SpanId, TableState};

/// Slots are given out in multiples of this.
pub const QUANTUM: usize = 16;

/// Runs that a table may have.
pub const MAX_SEGMENTS: usize = 8;

/// A contiguous run of slots that holds consecutive positions of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first slot.
    pub first_slot: usize,
    /// The position whose keys lie there.
    pub first_position: usize,
    /// Positions that lie there.
    pub count: usize,
}

/// A sequence's, or a kept prefix's, slots in one KV group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(u32);

/// Free and used slots of one KV group.
#[derive(Debug, Clone)]
pub struct Segments {
    policy: Policy,
    capacity: usize,
    /// Slots of no span; what a copy ahead has reserved counts, since that is given up when it is wanted.
    free: usize,
    /// By id; the first two are the walls at both ends of the arena.
    spans: Vec<Span>,
    vacant_spans: Vec<SpanId>,
    tables: Vec<TableState>,
    vacant_tables: Vec<u32>,
    /// Tables that are in use and may grow.
    growing: usize,
    /// Spans that are copied ahead, oldest first.
    copies: Vec<SpanId>,
    /// Of this step.
    moves: Vec<Move>,
    /// Rows of `moves`.
    moved: usize,
    /// Counts `take_moves`.
    step: u64,
    counters: Counters,
}

impl Segments {
    /// All of `capacity` slots free, under the default policy; a last part of a quantum is not used.
    pub fn new(capacity: usize) -> Self {
        Self::with_policy(capacity, Policy::default())
    }

    /// All of `capacity` slots free; a last part of a quantum is not used.
    ///
    /// # Panics
    /// If the policy's quantum is no multiple of [`QUANTUM`].
    pub fn with_policy(capacity: usize, policy: Policy) -> Self {
        assert!(policy.quantum > 0 && policy.quantum.is_multiple_of(QUANTUM), "a quantum of {}", policy.quantum);
        let capacity = capacity / policy.quantum * policy.quantum;
        Segments {
            policy,
            capacity,
            free: capacity,
            spans: Span::walls(capacity),
            vacant_spans: Vec::new(),
            tables: Vec::new(),
            vacant_tables: Vec::new(),
            growing: 0,
            copies: Vec::new(),
            moves: Vec::new(),
            moved: 0,
            step: 1,
            counters: Counters::default(),
        }
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots that no table needs.
    pub fn free_slots(&self) -> usize {
        self.free
    }

    /// What has been done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The constants in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes free slots out of use for ever, and the rest of the quanta that they touch, so that tables must lie around
    /// them: for tests.
    ///
    /// # Panics
    /// If they are not free.
    pub fn hold(&mut self, first_slot: usize, count: usize) {
        let quantum = self.policy.quantum;
        let first = first_slot / quantum * quantum;
        let count = (first_slot + count).next_multiple_of(quantum) - first;
        self.abort_copies();
        let left = self.ids().take_while(|&id| self.span(id).first_slot <= first).last();
        let left = left.expect("the left wall lies before all slots");
        let fits = self.end(left) <= first && first + count <= self.span(self.span(left).right).first_slot;
        assert!(fits, "slots {first}..{} are free", first + count);
        self.insert(left, Span::held(first, count));
        self.free -= count;
    }

    /// A table without positions.
    pub fn admit(&mut self) -> Table {
        self.growing += 1;
        self.new_table(TableState::default())
    }

    /// One past the table's last position.
    pub fn reach(&self, table: Table) -> usize {
        self.table(table).reach
    }

    /// The first position that the table still has.
    pub fn first_position(&self, table: Table) -> usize {
        self.table(table).first
    }

    /// Where the table's positions lie now, in order: good until the next call that moves.
    pub fn segments(&self, table: Table) -> SmallVec<[Segment; MAX_SEGMENTS]> {
        let state = self.table(table);
        let mut segments = SmallVec::new();
        for index in 0..state.pieces.len() {
            let (start, end) = state.range(index);
            if start == end {
                continue; // all of a window was given back, but for the quantum that it grows on in
            }
            let span = self.span(state.pieces[index].span);
            let first_slot = span.first_slot + (start - span.first_position);
            segments.push(Segment { first_slot, first_position: start, count: end - start });
        }
        segments
    }

    /// Rows that this step moves until now.
    pub fn moving(&self) -> usize {
        self.moved
    }

    /// The rows of the table below `computed` are written, or will be by the steps that were submitted: only those are copied
    /// ahead of a move. Without this word they count as written when the table grows again.
    pub fn note_written(&mut self, table: Table, computed: usize) {
        let state = self.table_mut(table);
        state.before = computed.min(state.reach);
    }

    /// Slots that the table occupies, alone or with others.
    pub fn slots_of(&self, table: Table) -> usize {
        self.table(table).pieces.iter().map(|piece| self.span(piece.span).slots).sum()
    }

    /// Whether they could be free, if every settled table were freed.
    pub fn could_admit(&self, tokens: usize) -> bool {
        let settled = |user: &u32| self.tables[*user as usize].settled;
        let live = self.spans.iter().filter(|span| !span.users.is_empty() && span.users.iter().all(settled));
        self.quanta(tokens) + self.head_room() <= self.free + live.map(|span| span.slots).sum::<usize>()
    }

    /// Whether a new table of `tokens` positions and the head-room are free. Where nothing grows, no head-room is kept.
    pub fn may_admit(&self, tokens: usize) -> bool {
        self.quanta(tokens) + self.head_room() <= self.free
    }

    /// Positions from `tokens` on are not needed any more.
    pub fn truncate(&mut self, table: Table, tokens: usize) {
        let state = self.table_mut(table);
        if tokens >= state.reach {
            return;
        }
        state.reach = tokens;
        state.first = state.first.min(tokens);
        state.before = state.before.min(tokens);
        while let Some(&Piece { span, .. }) = self.table(table).pieces.last().filter(|piece| piece.start >= tokens) {
            self.table_mut(table).pieces.pop();
            self.leave(span, table);
        }
        if let Some(&Piece { span, .. }) = self.table(table).pieces.last() {
            self.trim(span);
        }
    }

    /// Positions below `position` are not needed any more: whole quanta come back. An empty table begins in that quantum.
    pub fn release_front(&mut self, table: Table, position: usize) {
        let quantum = self.policy.quantum;
        let state = self.table_mut(table);
        if state.pieces.is_empty() && position > state.reach {
            // What comes back to a window begins there.
            let start = position / quantum * quantum;
            (state.first, state.before, state.reach) = (start, start, start);
        }
        let position = position.min(state.reach);
        if position <= state.first {
            return;
        }
        state.first = position;
        while let Some(&Piece { span, start }) = self.table(table).pieces.first() {
            let state = self.table(table);
            let end = state.range(0).1;
            // A last quantum that is partly filled stays: the table grows on there.
            let stays = state.pieces.len() == 1 && !(end - self.span(span).first_position).is_multiple_of(quantum);
            if end > position || stays {
                self.table_mut(table).pieces[0].start = start.max(position.min(end));
                break;
            }
            self.table_mut(table).pieces.remove(0);
            self.leave(span, table);
        }
        if let Some(&Piece { span, .. }) = self.table(table).pieces.first()
            && position >= self.span(span).first_position + quantum
        {
            self.trim(span);
        }
    }

    /// Ends the table: what no other needs is free.
    pub fn free(&mut self, table: Table) {
        self.truncate(table, 0);
        self.growing -= usize::from(!self.table(table).settled);
        self.tables[table.0 as usize] = TableState { vacant: true, ..TableState::default() };
        self.vacant_tables.push(table.0);
    }

    /// The table will not grow any more: a kept prefix. Nothing keeps room for it.
    pub fn settle(&mut self, table: Table) {
        if !std::mem::replace(&mut self.table_mut(table).settled, true) {
            self.growing -= 1;
        }
        if let Some(&Piece { span, .. }) = self.table(table).pieces.last() {
            self.stop_writing(span, table);
        }
    }

    /// The moves of this step, in order, and the end of the step: called once in each, before its batch is built.
    pub fn take_moves(&mut self) -> Vec<Move> {
        let moves = self.take_moves_until_now();
        self.moved = 0;
        moves
    }

    /// The moves of this step until now, in order, for something that must come after them: what tables have then counts as
    /// written. They still count against what a step may move.
    pub fn take_moves_until_now(&mut self) -> Vec<Move> {
        self.step += 1;
        std::mem::take(&mut self.moves)
    }
}
