//! Shared prefixes: a fork uses the same spans.

use super::spans::TableState;
use super::{Segments, Table};

impl Segments {
    /// A table that shares the positions of another below `len`: no row is copied. Its own go to a span of its own,
    /// except that the first of several tables to grow past a shared end does so in place.
    ///
    /// # Panics
    /// If `len` is past the table's reach.
    pub fn fork(&mut self, table: Table, len: usize) -> Table {
        let from = self.table(table);
        assert!(len <= from.reach, "a fork of {len} positions of {}", from.reach);
        let mut state = TableState { settled: false, ..from.clone() };
        state.pieces.retain(|piece| piece.start < len);
        state.first = state.first.min(len);
        state.reach = len;
        state.before = state.before.min(len);
        let fork = self.new_table(state);
        for index in 0..self.table(fork).pieces.len() {
            let span = self.table(fork).pieces[index].span;
            self.span_mut(span).users.push(fork.0);
        }
        self.growing += 1;
        self.counters.forks += 1;
        fork
    }
}
