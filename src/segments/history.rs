//! Histories of operations against a model of the memory: bytes are read as operations, the moves are done on an array
//! in the order that the GPU would, and every table must find its own content after each step. For tests and fuzzing.

use super::{MAX_SEGMENTS, Move, Policy, Segment, Segments, Table};

/// What a sequence should find.
struct Expected {
    table: Table,
    /// What was written at each position.
    content: Vec<u32>,
    /// Positions below are not kept.
    first: usize,
    /// Positions below are written.
    written: usize,
    settled: bool,
}

/// An allocator, the memory that it manages, and what should be in it.
pub struct History {
    /// The allocator.
    pub segments: Segments,
    memory: Vec<u32>,
    live: Vec<Expected>,
    next_content: u32,
    /// Slots out of use.
    held: usize,
}

/// Reads numbers from bytes; zeros after the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }
}

impl History {
    /// An allocator without tables.
    pub fn new(capacity: usize, policy: Policy) -> History {
        let segments = Segments::with_policy(capacity, policy);
        let memory = vec![u32::MAX; segments.capacity()];
        History { segments, memory, live: Vec::new(), next_content: 0, held: 0 }
    }

    /// Runs a whole history: the first bytes choose capacity and policy, the others operations. Ends with everything freed.
    ///
    /// # Panics
    /// If anything that should hold does not.
    pub fn run(bytes: &[u8]) -> History {
        let mut bytes = Bytes(bytes);
        let quantum = if bytes.next().is_multiple_of(4) { 64 } else { 16 };
        let capacity = 64 + bytes.next() * 16;
        let policy = Policy {
            quantum,
            max_moved_share: bytes.next() as f64 / 255.0,
            segment_price: bytes.next() * 8,
            quiet_share: [0.0, 0.5][bytes.next() % 2],
            ..Policy::default()
        };
        let mut history = History::new(capacity, policy);
        while !bytes.0.is_empty() {
            history.operation(bytes.next(), bytes.next(), bytes.next());
        }
        history.end();
        history
    }

    /// One operation, chosen by `kind`, on a table chosen by `which`, of a size given by `size`.
    pub fn operation(&mut self, kind: usize, which: usize, size: usize) {
        let index = if self.live.is_empty() { 0 } else { which % self.live.len() };
        match kind % 16 {
            0 | 1 => {
                let table = self.segments.admit();
                let settled = false;
                self.live.push(Expected { table, content: Vec::new(), first: 0, written: 0, settled });
                self.extend(self.live.len() - 1, 1 + size);
            }
            2 => self.hold(which * 16 + size, 16),
            15 => {
                // As in decoding: every table by one.
                for index in 0..self.live.len() {
                    self.extend(index, 1);
                }
                self.step(1 + size / 8, 0);
            }
            _ if self.live.is_empty() => {}
            3 | 4 => self.extend(index, 1 + size),
            5 => self.extend(index, 1 + size % 20),
            6 => self.truncate(index, size),
            7 => self.release_front(index, size),
            8 => self.fork(index, size),
            9 => self.free(index),
            10 => {
                self.live[index].settled = true;
                self.segments.settle(self.live[index].table);
            }
            _ => self.step(size / (1 + which % 8), kind / 16),
        }
        self.segments.check();
    }

    fn hold(&mut self, first_slot: usize, count: usize) {
        // A few only, and only where that is free.
        let quantum = self.segments.policy().quantum;
        let (first, end) = (first_slot / quantum * quantum, (first_slot + count).next_multiple_of(quantum));
        let taken = |segments: &Segments| {
            segments.ids().any(|id| segments.span(id).first_slot < end && first < segments.end(id))
        };
        if self.held < 4 * quantum && end <= self.segments.capacity() && !taken(&self.segments) {
            self.segments.hold(first_slot, count);
            self.held += end - first;
        }
    }

    fn extend(&mut self, index: usize, more: usize) {
        let expected = &self.live[index];
        // A table asks for more when all that it had is written; a settled one does not.
        if expected.settled || expected.written < expected.content.len() {
            return;
        }
        let table = expected.table;
        let tokens = expected.content.len() + more;
        let before = (self.state(), self.segments.moves.clone());
        if self.segments.extend(table, tokens) {
            let expected = &mut self.live[index];
            for _ in 0..more {
                expected.content.push(self.next_content);
                self.next_content += 1;
            }
            assert_eq!(self.segments.reach(table), tokens);
        } else {
            assert_eq!(before, (self.state(), self.segments.moves.clone()), "a refusal changes nothing");
        }
    }

    /// Everything that a caller can see.
    fn state(&self) -> (usize, Vec<Vec<Segment>>) {
        let segments = self.live.iter().map(|expected| self.segments.segments(expected.table).to_vec());
        (self.segments.free_slots(), segments.collect())
    }

    fn truncate(&mut self, index: usize, size: usize) {
        let quantum = self.segments.policy().quantum;
        let expected = &mut self.live[index];
        let shared =
            self.segments.table(expected.table).pieces.iter().any(|p| self.segments.span(p.span).users.len() > 1);
        let mut tokens = expected.content.len() * size / 255;
        if shared && quantum > 16 {
            tokens = tokens / quantum * quantum;
        }
        expected.content.truncate(tokens);
        expected.written = expected.written.min(tokens);
        expected.first = expected.first.min(tokens);
        self.segments.truncate(expected.table, tokens);
    }

    fn release_front(&mut self, index: usize, size: usize) {
        let expected = &mut self.live[index];
        let position = expected.content.len() * size / 255;
        expected.first = expected.first.max(position);
        self.segments.release_front(expected.table, position);
        assert_eq!(self.segments.first_position(expected.table), expected.first);
    }

    fn fork(&mut self, index: usize, size: usize) {
        let expected = &self.live[index];
        let quantum = self.segments.policy().quantum;
        // Rows not written yet are appended by both.
        let mut len = expected.content.len() * size / 255;
        if quantum > 16 {
            len = len / quantum * quantum;
        }
        let moved = self.segments.counters().moved;
        let table = self.segments.fork(expected.table, len);
        assert_eq!(moved, self.segments.counters().moved, "a fork copies nothing");
        let content = expected.content[..len].to_vec();
        let first = expected.first.min(len);
        let written = expected.written.min(len);
        self.live.push(Expected { table, content, first, written, settled: false });
    }

    fn free(&mut self, index: usize) {
        let expected = self.live.swap_remove(index);
        self.segments.free(expected.table);
    }

    /// Ends a step: moves, then appends; with `partial` above 0 some tables append only a part of what they reserved.
    fn step(&mut self, budget_slots: usize, partial: usize) {
        let before = self.segments.moved;
        self.segments.plan_moves(budget_slots);
        assert!(self.segments.moved - before <= budget_slots, "the budget is kept");
        let moves = self.segments.take_moves();
        assert!(moves.iter().map(|m| m.count).sum::<usize>() <= self.segments.max_moved_slots());
        self.run_moves(&moves);
        for (index, expected) in self.live.iter_mut().enumerate() {
            let mut end = expected.content.len();
            if partial > 0 && (index + partial).is_multiple_of(3) {
                end = expected.written + (end - expected.written) / 2;
            }
            for segment in self.segments.segments(expected.table) {
                for offset in 0..segment.count {
                    let position = segment.first_position + offset;
                    if (expected.written..end).contains(&position) {
                        self.memory[segment.first_slot + offset] = expected.content[position];
                    }
                }
            }
            expected.written = end;
        }
        self.compare();
    }

    fn run_moves(&mut self, moves: &[Move]) {
        let rounds = Segments::rounds(moves);
        assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), moves.len());
        for round in rounds {
            // Together: all reads of a round come before its writes.
            let rows: Vec<Vec<u32>> = round.iter().map(|m| self.memory[m.from..m.from + m.count].to_vec()).collect();
            for (m, rows) in round.iter().zip(rows) {
                self.memory[m.to..m.to + m.count].copy_from_slice(&rows);
            }
        }
    }

    /// Every table finds its own content, in no more runs than the cap, and the slots add up.
    fn compare(&self) {
        let mut owned = vec![false; self.segments.capacity()];
        for expected in &self.live {
            let segments = self.segments.segments(expected.table);
            assert!(segments.len() <= MAX_SEGMENTS);
            let quantum = self.segments.policy().quantum;
            let mut at = expected.first;
            for segment in segments {
                assert_eq!(segment.first_position, at);
                let span_start = segment.first_position.is_multiple_of(quantum) || at == expected.first;
                assert!(quantum == 16 || span_start, "a span starts at a multiple of the quantum");
                for offset in 0..segment.count {
                    owned[segment.first_slot + offset] = true;
                    let position = at + offset;
                    if position < expected.written {
                        let met = self.memory[segment.first_slot + offset];
                        assert_eq!(met, expected.content[position], "position {position} of {:?}", expected.table);
                    }
                }
                at += segment.count;
            }
            assert_eq!(at, expected.content.len().max(expected.first));
        }
        let owned = owned.iter().filter(|owned| **owned).count();
        assert!(owned + self.segments.free_slots() + self.held <= self.segments.capacity());
    }

    /// Frees all tables: every slot must come back.
    ///
    /// # Panics
    /// If one does not.
    pub fn end(&mut self) {
        self.step(64, 0);
        while !self.live.is_empty() {
            self.free(self.live.len() - 1);
            self.segments.check();
        }
        assert_eq!(self.segments.free_slots() + self.held, self.segments.capacity(), "all slots come back");
    }
}
