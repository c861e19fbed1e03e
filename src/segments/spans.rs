//! The records: spans in the order of the arena, and the tables that use them.

use super::{MAX_SEGMENTS, Segments, Table};
use smallvec::SmallVec;

/// Index of a span's record.
pub(super) type SpanId = u32;

/// The wall before slot 0.
pub(super) const LEFT_WALL: SpanId = 0;

/// The wall after the last slot.
pub(super) const RIGHT_WALL: SpanId = 1;

/// What a span's slots are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A wall, or slots out of use: never moves.
    Fixed,
    /// Rows that tables use.
    Live,
    /// Reserved: the span of this id is copied here ahead.
    Target(SpanId),
    /// A record not in use.
    Vacant,
}

/// A contiguous run of slots that holds consecutive positions.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) role: Role,
    pub(super) first_slot: usize,
    /// Whole quanta: no more than reach from `first_position` to the last position that a table needs.
    pub(super) slots: usize,
    /// The position in `first_slot`.
    pub(super) first_position: usize,
    /// Neighbours in the arena.
    pub(super) left: SpanId,
    pub(super) right: SpanId,
    /// Tables that use it.
    pub(super) users: SmallVec<[u32; 2]>,
    /// The table that grows it in place.
    pub(super) writer: Option<u32>,
    /// Where it is copied ahead, and the positions below which that is done.
    pub(super) copy: Option<(SpanId, usize)>,
}

impl Span {
    pub(super) fn new(role: Role, first_slot: usize, slots: usize, first_position: usize) -> Span {
        let (left, right) = (LEFT_WALL, RIGHT_WALL);
        let users = SmallVec::new();
        Span { role, first_slot, slots, first_position, left, right, users, writer: None, copy: None }
    }

    pub(super) fn held(first_slot: usize, slots: usize) -> Span {
        Span::new(Role::Fixed, first_slot, slots, 0)
    }

    pub(super) fn walls(capacity: usize) -> Vec<Span> {
        vec![Span::held(0, 0), Span::held(capacity, 0)]
    }
}

/// A table's part of a span: from `start` to the next piece, or to the table's reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) span: SpanId,
    pub(super) start: usize,
}

/// What a table has.
#[derive(Debug, Clone, Default)]
pub(super) struct TableState {
    /// In order of position, without holes.
    pub(super) pieces: SmallVec<[Piece; MAX_SEGMENTS]>,
    /// The first position that it needs.
    pub(super) first: usize,
    /// One past the last.
    pub(super) reach: usize,
    /// The reach before it grew last: the rows below it are written.
    pub(super) before: usize,
    /// When it grew last.
    pub(super) grown_in: u64,
    pub(super) settled: bool,
    pub(super) vacant: bool,
}

impl TableState {
    /// The positions of piece `index`.
    pub(super) fn range(&self, index: usize) -> (usize, usize) {
        let end = self.pieces.get(index + 1).map_or(self.reach, |next| next.start);
        (self.pieces[index].start, end)
    }

    pub(super) fn piece_of(&self, span: SpanId) -> usize {
        self.pieces.iter().position(|piece| piece.span == span).expect("a span's user has a piece of it")
    }

    /// The reach, growing to `tokens` in `step`.
    pub(super) fn grow_to(&mut self, tokens: usize, step: u64) {
        if self.grown_in != step {
            (self.before, self.grown_in) = (self.reach, step);
        }
        self.reach = tokens;
    }
}

/// The positions of a span that tables need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) first: usize,
    pub(super) end: usize,
    /// Below this, rows may be written.
    pub(super) filled: usize,
    /// Below this, rows are written, and never again.
    pub(super) written: usize,
}

impl Segments {
    pub(super) fn span(&self, id: SpanId) -> &Span {
        &self.spans[id as usize]
    }

    pub(super) fn span_mut(&mut self, id: SpanId) -> &mut Span {
        &mut self.spans[id as usize]
    }

    pub(super) fn table(&self, table: Table) -> &TableState {
        let state = &self.tables[table.0 as usize];
        assert!(!state.vacant, "table {} has not been freed", table.0);
        state
    }

    pub(super) fn table_mut(&mut self, table: Table) -> &mut TableState {
        let state = &mut self.tables[table.0 as usize];
        assert!(!state.vacant, "table {} has not been freed", table.0);
        state
    }

    pub(super) fn new_table(&mut self, state: TableState) -> Table {
        if let Some(id) = self.vacant_tables.pop() {
            self.tables[id as usize] = state;
            return Table(id);
        }
        self.tables.push(state);
        Table(self.tables.len() as u32 - 1)
    }

    /// `slots` up to whole quanta.
    pub(super) fn quanta(&self, slots: usize) -> usize {
        slots.next_multiple_of(self.policy.quantum)
    }

    /// The spans in the order of the arena, walls included.
    pub(super) fn ids(&self) -> impl Iterator<Item = SpanId> {
        std::iter::successors(Some(LEFT_WALL), |&id| (id != RIGHT_WALL).then(|| self.span(id).right))
    }

    /// One past the span's last slot.
    pub(super) fn end(&self, id: SpanId) -> usize {
        self.span(id).first_slot + self.span(id).slots
    }

    /// Slots of the gap after a span: 0 after the right wall.
    pub(super) fn gap_after(&self, id: SpanId) -> usize {
        if id == RIGHT_WALL { 0 } else { self.span(self.span(id).right).first_slot - self.end(id) }
    }

    /// Whether the table of a span's end will grow there.
    pub(super) fn grows(&self, id: SpanId) -> bool {
        self.span(id).writer.is_some()
    }

    /// The span with the largest gap after it, the first of equals.
    pub(super) fn largest_gap(&self) -> (SpanId, usize) {
        let mut best = (LEFT_WALL, 0);
        for id in self.ids() {
            let gap = self.gap_after(id);
            if gap > best.1 {
                best = (id, gap);
            }
        }
        best
    }

    /// Where in the gap after `left` a span of `slots` goes: at its start, or in its middle where the span before the gap
    /// grows into it.
    pub(super) fn place_after(&self, left: SpanId, slots: usize) -> usize {
        let spare = self.gap_after(left) - slots;
        let lead = if self.grows(left) { spare / 2 / self.policy.quantum * self.policy.quantum } else { 0 };
        self.end(left) + lead
    }

    /// Puts a record into the arena, after the span `left`.
    pub(super) fn insert(&mut self, left: SpanId, span: Span) -> SpanId {
        let id = match self.vacant_spans.pop() {
            Some(id) => {
                *self.span_mut(id) = span;
                id
            }
            None => {
                self.spans.push(span);
                self.spans.len() as SpanId - 1
            }
        };
        self.link(left, id);
        id
    }

    pub(super) fn link(&mut self, left: SpanId, id: SpanId) {
        let right = self.span(left).right;
        (self.span_mut(id).left, self.span_mut(id).right) = (left, right);
        self.span_mut(left).right = id;
        self.span_mut(right).left = id;
    }

    pub(super) fn unlink(&mut self, id: SpanId) {
        let (left, right) = (self.span(id).left, self.span(id).right);
        self.span_mut(left).right = right;
        self.span_mut(right).left = left;
    }

    /// Takes a record out of the arena and of use.
    pub(super) fn remove(&mut self, id: SpanId) {
        self.unlink(id);
        *self.span_mut(id) = Span::new(Role::Vacant, 0, 0, 0);
        self.vacant_spans.push(id);
    }

    /// What the users of a live span need.
    pub(super) fn needs(&self, id: SpanId) -> Needs {
        let mut needs = Needs { first: usize::MAX, end: 0, filled: 0, written: 0 };
        for &user in &self.span(id).users {
            let state = &self.tables[user as usize];
            let (start, end) = state.range(state.piece_of(id));
            let filled = if state.grown_in == self.step { state.before } else { state.reach };
            needs.first = needs.first.min(start);
            needs.end = needs.end.max(end);
            needs.filled = needs.filled.max(filled.min(end));
            needs.written = needs.written.max(state.before.min(end));
        }
        needs
    }

    /// Gives back what no user of a span needs, in whole quanta.
    pub(super) fn trim(&mut self, id: SpanId) {
        let needs = self.needs(id);
        let quantum = self.policy.quantum;
        let span = &mut self.spans[id as usize];
        let dropped = (needs.first - span.first_position) / quantum * quantum;
        let slots = (needs.end - span.first_position - dropped).next_multiple_of(quantum);
        span.first_position += dropped;
        span.first_slot += dropped;
        self.free = self.free + span.slots - slots;
        span.slots = slots;
        if let Some((_, copied)) = &mut span.copy {
            *copied = (*copied).min(needs.written);
        }
        // A table that was cut below what another needs must not write there.
        if let Some(writer) = span.writer
            && self.tables[writer as usize].reach < needs.end
        {
            span.writer = None;
        }
    }

    /// A table, whose piece of it is gone, uses a span no more.
    pub(super) fn leave(&mut self, id: SpanId, table: Table) {
        self.stop_writing(id, table);
        let span = self.span_mut(id);
        span.users.retain(|user| *user != table.0);
        if !span.users.is_empty() {
            return self.trim(id);
        }
        self.free += self.span(id).slots;
        self.abort_copy(id);
        self.remove(id);
    }

    pub(super) fn stop_writing(&mut self, id: SpanId, table: Table) {
        let span = self.span_mut(id);
        if span.writer == Some(table.0) {
            span.writer = None;
        }
    }
}
