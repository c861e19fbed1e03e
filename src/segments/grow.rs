//! Growth: in place where the next slots are free, else the cheapest way that keeps the cap and the bound on moves.

use super::spans::{Piece, Role, Span, SpanId};
use super::{MAX_SEGMENTS, Segments, Table};
use smallvec::SmallVec;

/// Neighbouring gaps, from the one after `first` to the one after `last`: sliding the spans between brings them together.
#[derive(Debug, Clone, Copy)]
struct Window {
    first: SpanId,
    last: SpanId,
    /// Free slots in it.
    free: usize,
    /// Slots of the spans between.
    cost: usize,
}

/// A way to grow.
#[derive(Debug)]
enum Way {
    /// Slide spans, then grow in place.
    Slide(Window),
    /// Move the spans from this piece on into the largest gap, with the growth.
    Gather(usize),
    /// Fill the gap after the last span with so many slots, then open spans in these gaps.
    Open(usize, SmallVec<[(SpanId, usize); MAX_SEGMENTS]>),
    /// Slide spans, then open one between.
    Hollow(Window),
}

impl Segments {
    /// Makes the table reach `tokens` positions. `false`, with nothing changed, where the slots, the cap on segments or the
    /// rows that a step may move do not allow it.
    ///
    /// When a table asks for more than it had, in a later step, the rows of all that it had must be written by the steps
    /// before: they may be copied ahead from then on.
    pub fn extend(&mut self, table: Table, tokens: usize) -> bool {
        let (quantum, step) = (self.policy.quantum, self.step);
        let state = &mut self.tables[table.0 as usize];
        if tokens <= state.reach {
            return true;
        }
        if let Some(&Piece { span, .. }) = state.pieces.last() {
            let span = &self.spans[span as usize];
            if span.writer == Some(table.0) {
                let end = span.first_position + span.slots;
                let more = tokens.saturating_sub(end).next_multiple_of(quantum);
                let gap = self.spans[span.right as usize].first_slot - (span.first_slot + span.slots);
                if more <= gap {
                    let last = state.pieces[state.pieces.len() - 1].span;
                    state.grow_to(tokens, step);
                    self.spans[last as usize].slots += more;
                    self.free -= more;
                    return true;
                }
            }
        }
        let grown = self.extend_blocked(table, tokens);
        self.counters.refused += u64::from(!grown);
        grown
    }

    /// As `extend`, where the next slots are not free: moves more than usual, gives up copies ahead and merges the table's
    /// spans where nothing else helps.
    fn extend_blocked(&mut self, table: Table, tokens: usize) -> bool {
        if self.try_grow(table, tokens, self.usual_rows()) {
            return true;
        }
        if self.wanted(table, tokens).1 > self.free {
            return false;
        }
        // To move much of the cache takes as long as to read it; to compute what gives way instead takes far longer.
        if self.try_grow(table, tokens, self.movable_rows()) {
            return true;
        }
        if self.copies.is_empty() && self.table(table).pieces.len() < 2 {
            return false;
        }
        let before = self.clone();
        self.abort_copies();
        loop {
            if self.try_grow(table, tokens, self.movable_rows()) {
                return true;
            }
            if !self.merge_now(table, self.movable_rows()) {
                *self = before;
                return false;
            }
        }
    }

    /// The last span, if the table may grow it since no other needs what lies past the table's reach; and the slots
    /// wanted past its end, or past the table's reach.
    fn wanted(&self, table: Table, tokens: usize) -> (Option<SpanId>, usize) {
        let state = self.table(table);
        let own = state.pieces.last().map(|piece| piece.span).filter(|&span| self.needs(span).end <= state.reach);
        let end = match own {
            Some(span) => self.span(span).first_position + self.span(span).slots,
            None => self.first_of_span(table),
        };
        (own, self.quanta(tokens.saturating_sub(end)))
    }

    /// Grows in the cheapest way that moves at most `rows` rows; `false`, with nothing changed, if there is none.
    fn try_grow(&mut self, table: Table, tokens: usize, rows: usize) -> bool {
        let (own, more) = self.wanted(table, tokens);
        if more > self.free {
            return false;
        }
        if let Some(span) = own {
            self.span_mut(span).writer = Some(table.0);
        }
        match own {
            Some(span) if more <= self.gap_after(span) => self.enlarge(span, more),
            _ => {
                let Some(way) = self.cheapest_way(table, own, more, rows) else { return false };
                self.take_way(table, own, more, tokens, way);
            }
        }
        let step = self.step;
        self.table_mut(table).grow_to(tokens, step);
        true
    }

    fn cheapest_way(&self, table: Table, own: Option<SpanId>, more: usize, rows: usize) -> Option<Way> {
        let open = self.way_to_open(table, own, more);
        // Who is not here yet can wait for better gaps; who is here cannot.
        if self.quiet() && (open.is_some() || self.table(table).pieces.is_empty()) {
            return open.map(|(_, way)| way);
        }
        let slide = own.and_then(|span| self.window_through(span, more, rows)).map(|w| (w.cost, Way::Slide(w)));
        let gather = own.and_then(|_| self.way_to_gather(table, more, rows));
        let hollow = self.way_to_hollow(table, more, rows);
        // Of equals the first: what keeps spans where they are.
        let ways = [open, slide, gather, hollow].into_iter().flatten();
        ways.min_by_key(|(cost, _)| *cost).map(|(_, way)| way)
    }

    fn take_way(&mut self, table: Table, own: Option<SpanId>, more: usize, tokens: usize, way: Way) {
        match (way, own) {
            (Way::Slide(window), Some(span)) => {
                self.slide(window, span, more);
                self.enlarge(span, more);
                self.counters.slides += 1;
            }
            (Way::Gather(first), _) => {
                let ids: SmallVec<[SpanId; MAX_SEGMENTS]> =
                    self.table(table).pieces[first..].iter().map(|piece| piece.span).collect();
                for &id in &ids {
                    self.abort_copy(id);
                }
                let (left, _) = self.largest_gap();
                let to = self.place_after(left, self.gathered_slots(&ids) + more);
                self.gather(&ids, left, to);
                let grown = self.quanta(tokens - self.span(ids[0]).first_position);
                self.enlarge(ids[0], grown - self.span(ids[0]).slots);
                self.counters.gathers += 1;
            }
            (Way::Open(in_place, gaps), _) => {
                if let Some(span) = own {
                    self.enlarge(span, in_place);
                }
                for (left, slots) in gaps {
                    let to = self.place_after(left, slots);
                    self.open(table, left, to, slots);
                }
            }
            (Way::Hollow(window), _) => {
                let (hole, share) = self.slide(window, window.first, more);
                let lead =
                    if self.grows(window.first) { share / 2 / self.policy.quantum * self.policy.quantum } else { 0 };
                self.open(table, window.first, hole + lead, more);
                self.counters.slides += 1;
            }
            (Way::Slide(_), None) => unreachable!("a table that owns no end slides nothing to grow there"),
        }
    }

    fn enlarge(&mut self, span: SpanId, more: usize) {
        self.span_mut(span).slots += more;
        self.free -= more;
    }

    /// Opens a span after the table's last for its next positions.
    fn open(&mut self, table: Table, left: SpanId, to: usize, slots: usize) {
        let last = self.table(table).pieces.last().copied();
        let (start, first_position) = match last {
            Some(Piece { span, .. }) if self.span(span).writer == Some(table.0) => {
                self.stop_writing(span, table);
                let end = self.span(span).first_position + self.span(span).slots;
                (end, end)
            }
            _ => (self.table(table).reach, self.first_of_span(table)),
        };
        if let Some(Piece { span, .. }) = last.filter(|piece| piece.start == start) {
            // Kept of a window that was given back, to be grown in: but another table has grown there.
            self.table_mut(table).pieces.pop();
            self.leave(span, table);
        }
        let mut span = Span::new(Role::Live, to, slots, first_position);
        span.users.push(table.0);
        span.writer = (!self.table(table).settled).then_some(table.0);
        let span = self.insert(left, span);
        self.table_mut(table).pieces.push(Piece { span, start });
        self.free -= slots;
        self.counters.opened += 1;
    }

    /// The position in the first slot of a span that the table would open at its reach: below it, if all spans before were
    /// given back within a quantum, so that the next ones start at whole quanta.
    fn first_of_span(&self, table: Table) -> usize {
        let state = self.table(table);
        if state.pieces.is_empty() { state.reach / self.policy.quantum * self.policy.quantum } else { state.reach }
    }

    /// The `k`-th span after a table's first costs `k` prices, so that the last ones are kept for need.
    fn price(&self, pieces: usize) -> usize {
        self.policy.segment_price * pieces
    }

    /// The gaps that hold `more` slots, largest first, and what they cost.
    fn way_to_open(&self, table: Table, own: Option<SpanId>, more: usize) -> Option<(usize, Way)> {
        let pieces = self.table(table).pieces.len();
        let quantum = self.policy.quantum;
        let in_place = own.map_or(0, |span| self.gap_after(span) / quantum * quantum).min(more);
        let mut largest: SmallVec<[(usize, SpanId); MAX_SEGMENTS + 1]> = SmallVec::new();
        for id in self.ids().filter(|id| in_place == 0 || Some(*id) != own) {
            let gap = self.gap_after(id) / quantum * quantum;
            if gap == 0 || (largest.len() + pieces == MAX_SEGMENTS && largest.last().is_none_or(|last| last.0 >= gap)) {
                continue;
            }
            let at = largest.partition_point(|&(size, _)| size >= gap);
            largest.insert(at, (gap, id));
            largest.truncate(MAX_SEGMENTS - pieces);
        }
        let (mut gaps, mut cost, mut left) = (SmallVec::new(), 0, more - in_place);
        for (gap, id) in largest {
            if left == 0 {
                break;
            }
            cost += self.price(pieces + gaps.len());
            gaps.push((id, gap.min(left)));
            left -= gap.min(left);
        }
        (left == 0).then_some((cost, Way::Open(in_place, gaps)))
    }

    /// Slots of spans as one.
    fn gathered_slots(&self, ids: &[SpanId]) -> usize {
        let last = ids[ids.len() - 1];
        self.span(last).first_position + self.span(last).slots - self.span(ids[0]).first_position
    }

    /// The most last spans that the largest gap holds together with the growth: each that is joined is worth its price.
    fn way_to_gather(&self, table: Table, more: usize, rows: usize) -> Option<(usize, Way)> {
        let pieces = &self.table(table).pieces;
        let (_, gap) = self.largest_gap();
        let mut best = None;
        let mut cost = 0;
        for first in (0..pieces.len()).rev() {
            let id = pieces[first].span;
            if first + 1 < pieces.len() && !self.joinable(id, pieces[first + 1].span) {
                break;
            }
            cost += self.span(id).slots;
            let ids: SmallVec<[SpanId; MAX_SEGMENTS]> = pieces[first..].iter().map(|piece| piece.span).collect();
            if cost > rows || self.gathered_slots(&ids) + more > gap {
                break;
            }
            let saved: usize = (first + 1..pieces.len()).map(|k| self.price(k)).sum();
            let net = cost.saturating_sub(saved);
            if best.as_ref().is_none_or(|(least, _)| net <= *least) {
                best = Some((net, Way::Gather(first)));
            }
        }
        best
    }

    fn way_to_hollow(&self, table: Table, more: usize, rows: usize) -> Option<(usize, Way)> {
        let pieces = self.table(table).pieces.len();
        if pieces == MAX_SEGMENTS {
            return None;
        }
        self.window_anywhere(more, rows).map(|window| (window.cost + self.price(pieces), Way::Hollow(window)))
    }

    fn may_slide(&self, id: SpanId) -> bool {
        self.span(id).role == Role::Live
    }

    /// The cheapest window with `more` free slots that has the gap after `span`, and no more than `rows` rows to slide.
    fn window_through(&self, span: SpanId, more: usize, rows: usize) -> Option<Window> {
        let mut window = Window { first: span, last: span, free: self.gap_after(span), cost: 0 };
        let mut best: Option<Window> = None;
        loop {
            while window.free < more {
                let next = self.span(window.last).right;
                if !self.may_slide(next) || window.cost + self.span(next).slots > rows {
                    break;
                }
                window.cost += self.span(next).slots;
                window.free += self.gap_after(next);
                window.last = next;
            }
            while window.last != span && window.free - self.gap_after(window.last) >= more {
                window.free -= self.gap_after(window.last);
                window.cost -= self.span(window.last).slots;
                window.last = self.span(window.last).left;
            }
            if window.free >= more && window.cost <= rows && best.is_none_or(|best| window.cost < best.cost) {
                best = Some(window);
            }
            let first = window.first;
            window.cost += self.span(first).slots;
            if !self.may_slide(first) || window.cost > best.map_or(rows, |best| best.cost) {
                return best;
            }
            window.first = self.span(first).left;
            window.free += self.gap_after(window.first);
        }
    }

    /// The cheapest window with `more` free slots, and no more than `rows` rows to slide.
    fn window_anywhere(&self, more: usize, rows: usize) -> Option<Window> {
        let mut best: Option<Window> = None;
        let mut window: Option<Window> = None;
        for id in self.ids() {
            let gap = self.gap_after(id);
            let alone = Window { first: id, last: id, free: gap, cost: 0 };
            let mut now = match window {
                Some(window) if self.may_slide(id) => {
                    Window { last: id, free: window.free + gap, cost: window.cost + self.span(id).slots, ..window }
                }
                _ => alone,
            };
            while now.first != id && (now.cost > rows || now.free - self.gap_after(now.first) >= more) {
                now.free -= self.gap_after(now.first);
                now.first = self.span(now.first).right;
                now.cost -= self.span(now.first).slots;
            }
            if now.free >= more && best.is_none_or(|best| now.cost < best.cost) {
                best = Some(now);
            }
            window = Some(now);
        }
        best
    }

    /// Slides the spans of a window so that a hole of `more` slots comes after the span `hole`; what else is free is
    /// shared equally by the hole and the spans that grow. Returns where the hole starts, and the share.
    fn slide(&mut self, window: Window, hole: SpanId, more: usize) -> (usize, usize) {
        let mut ids: SmallVec<[SpanId; 16]> = SmallVec::new();
        ids.push(window.first);
        while ids[ids.len() - 1] != window.last {
            ids.push(self.span(ids[ids.len() - 1]).right);
        }
        let quantum = self.policy.quantum;
        let sharers = 1 + ids.iter().filter(|id| **id != hole && self.grows(**id)).count();
        let share = (window.free - more) / sharers / quantum * quantum;
        let mut to: SmallVec<[(SpanId, usize); 16]> = SmallVec::new();
        let mut at = self.end(window.first);
        let mut found = at;
        for &id in &ids {
            if id != window.first {
                to.push((id, at));
                at += self.span(id).slots;
            }
            if id == hole {
                found = at;
                at += more;
            }
            at += if id == hole || self.grows(id) { share } else { 0 };
        }
        // Those that go left from the left, those that go right from the right: none lands on rows not yet moved.
        for &(id, first_slot) in &to {
            if first_slot < self.span(id).first_slot {
                self.shift(id, first_slot);
            }
        }
        for &(id, first_slot) in to.iter().rev() {
            if first_slot > self.span(id).first_slot {
                self.shift(id, first_slot);
            }
        }
        (found, share)
    }
}
