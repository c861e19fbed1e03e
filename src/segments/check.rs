//! The invariants, as code: for tests.

use super::spans::{LEFT_WALL, RIGHT_WALL, Role};
use super::{MAX_SEGMENTS, Segments};

impl Segments {
    /// Checks every invariant of the records: for tests.
    ///
    /// # Panics
    /// If one does not hold.
    #[doc(hidden)]
    pub fn check(&self) {
        let ids: Vec<_> = self.ids().collect();
        assert_eq!((ids[0], ids[ids.len() - 1]), (LEFT_WALL, RIGHT_WALL));
        let in_use = self.spans.iter().filter(|span| span.role != Role::Vacant).count();
        assert_eq!(ids.len(), in_use, "every span in use lies in the arena once");
        assert_eq!(self.vacant_spans.len() + in_use, self.spans.len(), "vacant records");
        for pair in ids.windows(2) {
            assert_eq!(self.span(pair[1]).left, pair[0], "links");
            assert!(self.end(pair[0]) <= self.span(pair[1]).first_slot, "spans do not overlap");
        }
        let taken = ids.iter().map(|&id| self.span(id)).filter(|span| !matches!(span.role, Role::Target(_)));
        assert_eq!(self.free, self.capacity - taken.map(|span| span.slots).sum::<usize>(), "free slots");
        for &id in &ids {
            self.check_span(id);
        }
        let mut pieces = 0;
        for (index, state) in self.tables.iter().enumerate().filter(|(_, state)| !state.vacant) {
            assert!(state.pieces.len() <= MAX_SEGMENTS, "the cap on segments");
            assert!(state.before <= state.reach && state.first <= state.reach);
            let mut at = state.first;
            for piece in 0..state.pieces.len() {
                let (start, end) = state.range(piece);
                let span = self.span(state.pieces[piece].span);
                assert_eq!(start, at, "table {index}: no hole");
                assert!(start <= end && (start < end || state.pieces.len() == 1), "table {index}: no empty piece");
                assert!(
                    start >= span.first_position && end <= span.first_position + span.slots,
                    "table {index}: in its span"
                );
                assert!(span.users.contains(&(index as u32)), "table {index}: a user of its spans");
                at = end;
            }
            assert_eq!(at, state.reach, "table {index}: its pieces reach its end");
            pieces += state.pieces.len();
        }
        assert_eq!(pieces, ids.iter().map(|&id| self.span(id).users.len()).sum::<usize>(), "references");
        let growing = self.tables.iter().filter(|state| !state.vacant && !state.settled).count();
        assert_eq!(self.growing, growing, "growing tables");
        let targets = ids.iter().filter(|&&id| matches!(self.span(id).role, Role::Target(_))).count();
        assert_eq!(self.copies.len(), targets, "copies ahead");
        assert_eq!(self.moved, self.moves.iter().map(|m| m.count).sum::<usize>(), "rows of this step");
        assert!(self.moved <= self.max_moved_slots(), "the bound on a step's moves");
    }

    fn check_span(&self, id: u32) {
        let span = self.span(id);
        match span.role {
            Role::Live => {
                let needs = self.needs(id);
                let quantum = self.policy.quantum;
                assert!(span.slots > 0 && span.slots.is_multiple_of(quantum), "whole quanta");
                assert!(needs.first - span.first_position < quantum, "no quantum kept at the front");
                let end = span.first_position + span.slots;
                assert!(needs.end <= end && end - needs.end < quantum, "no quantum kept at the end");
                if let Some(writer) = span.writer {
                    let state = &self.tables[writer as usize];
                    assert_eq!(state.pieces.last().map(|piece| piece.span), Some(id), "a writer grows its last span");
                    assert!(state.reach >= needs.end, "a writer overwrites nothing that others need");
                }
                if let Some((target, copied)) = span.copy {
                    assert_eq!(self.span(target).role, Role::Target(id), "a copy has its place");
                    let base = self.span(target).first_position;
                    assert!(base <= span.first_position, "a place has room for all that is left");
                    assert!(copied <= needs.written.max(needs.first).max(base), "only what is final is copied ahead");
                    assert!(self.copies.contains(&id));
                }
            }
            Role::Target(source) => {
                assert_eq!(self.span(source).copy.map(|copy| copy.0), Some(id), "a place has its copy")
            }
            Role::Fixed => assert!(span.users.is_empty()),
            Role::Vacant => panic!("a vacant record in the arena"),
        }
    }
}
