//! The slot allocator: which slots of the KV cache belong to which sequence. No GPU.
//!
//! A sequence owns contiguous runs of slots, the same in every layer; it grows in place while the next slots are free,
//! and opens another run, up to [`MAX_SEGMENTS`], when they are not.

use std::collections::BTreeMap;

/// Slots are given out in multiples of this.
pub const QUANTUM: usize = 16;

/// Runs that a sequence may have.
pub const MAX_SEGMENTS: usize = 8;

/// A contiguous run of slots that holds consecutive positions of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first slot.
    pub first_slot: usize,
    /// The position whose keys lie there.
    pub first_position: usize,
    /// Slots that the sequence may use.
    pub count: usize,
}

/// Free and used slots of one KV group.
#[derive(Debug)]
pub struct Segments {
    capacity: usize,
    /// Free runs: first slot → slots. No two touch.
    gaps: BTreeMap<usize, usize>,
}

impl Segments {
    /// All of `capacity` slots free; a last part of a quantum is not used.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity / QUANTUM * QUANTUM;
        let gaps = if capacity > 0 { BTreeMap::from([(0, capacity)]) } else { BTreeMap::new() };
        Segments { capacity, gaps }
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Free slots.
    pub fn free_slots(&self) -> usize {
        self.gaps.values().sum()
    }

    /// Takes free slots out of use, so that sequences must lie around them.
    ///
    /// # Panics
    /// If they are not free.
    pub fn hold(&mut self, first_slot: usize, count: usize) {
        self.take(first_slot, count);
    }

    /// Makes `segments` reach `tokens` positions, in place where the next slots are free. `false`, with nothing changed,
    /// where the slots or the cap on runs do not allow it.
    pub fn extend(&mut self, segments: &mut Vec<Segment>, tokens: usize) -> bool {
        let before = segments.len();
        let last_before = segments.last().copied();
        loop {
            let reach = segments.last().map_or(0, |s| s.first_position + s.count);
            if reach >= tokens {
                return true;
            }
            let wanted = (tokens - reach).next_multiple_of(QUANTUM);
            if let Some(last) = segments.last_mut()
                && let Some(&gap) = self.gaps.get(&(last.first_slot + last.count))
            {
                let taken = wanted.min(gap);
                self.take(last.first_slot + last.count, taken);
                last.count += taken;
                continue;
            }
            if segments.len() == MAX_SEGMENTS || self.gaps.is_empty() {
                self.undo(segments, before, last_before);
                return false;
            }
            let (first_slot, taken) = self.place(wanted);
            self.take(first_slot, taken);
            segments.push(Segment { first_slot, first_position: reach, count: taken });
        }
    }

    /// Gives every slot of `segments` back.
    pub fn free(&mut self, segments: &mut Vec<Segment>) {
        for segment in segments.drain(..) {
            self.give(segment.first_slot, segment.count);
        }
    }

    /// Where a new run of `wanted` slots goes, and how many it gets: the start of the arena where that is free, else the
    /// middle of the largest gap, so that both the run and its neighbour can grow.
    fn place(&self, wanted: usize) -> (usize, usize) {
        let (&start, &gap) = self.gaps.iter().max_by_key(|(start, gap)| (**gap, usize::MAX - **start)).expect("a gap");
        if start == 0 || gap <= wanted {
            return (start, gap.min(wanted));
        }
        let lead = (gap - wanted) / 2 / QUANTUM * QUANTUM;
        (start + lead, wanted)
    }

    fn take(&mut self, first: usize, count: usize) {
        let (&start, &gap) = self.gaps.range(..=first).next_back().expect("slots lie in a gap");
        assert!(first + count <= start + gap, "slots {first}..{} lie in a gap", first + count);
        self.gaps.remove(&start);
        if first > start {
            self.gaps.insert(start, first - start);
        }
        if first + count < start + gap {
            self.gaps.insert(first + count, start + gap - first - count);
        }
    }

    fn give(&mut self, mut first: usize, mut count: usize) {
        if let Some((&start, &gap)) = self.gaps.range(..first).next_back() {
            assert!(start + gap <= first, "slots {first}.. were free already");
            if start + gap == first {
                self.gaps.remove(&start);
                (first, count) = (start, gap + count);
            }
        }
        if let Some(next) = self.gaps.remove(&(first + count)) {
            count += next;
        }
        let was_free = self.gaps.insert(first, count);
        assert!(was_free.is_none(), "slots {first}.. were free already");
    }

    fn undo(&mut self, segments: &mut Vec<Segment>, before: usize, last_before: Option<Segment>) {
        for segment in segments.drain(before..) {
            self.give(segment.first_slot, segment.count);
        }
        if let (Some(last), Some(old)) = (segments.last_mut(), last_before) {
            let grown = last.count - old.count;
            *last = old;
            if grown > 0 {
                self.give(old.first_slot + old.count, grown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn a_lone_sequence_grows_in_place_to_the_last_slot() {
        let mut slots = Segments::new(1024);
        let mut segments = Vec::new();
        for tokens in 1..=1024 {
            assert!(slots.extend(&mut segments, tokens));
            assert_eq!(segments.len(), 1);
        }
        assert_eq!(slots.free_slots(), 0);
        assert!(!slots.extend(&mut segments, 1025));
        slots.free(&mut segments);
        assert_eq!(slots.gaps, BTreeMap::from([(0, 1024)]));
    }

    #[test]
    fn every_slot_has_one_owner_whatever_the_order() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut slots = Segments::new(2048);
            let mut live: Vec<(Vec<Segment>, usize)> = Vec::new();
            for _ in 0..300 {
                if live.is_empty() || rng.random_bool(0.2) {
                    live.push((Vec::new(), 0));
                }
                let index = rng.random_range(0..live.len());
                if rng.random_bool(0.1) {
                    slots.free(&mut live.swap_remove(index).0);
                } else {
                    let (segments, tokens) = &mut live[index];
                    let wanted = *tokens + rng.random_range(1..200);
                    let before = (segments.clone(), slots.gaps.clone());
                    if slots.extend(segments, wanted) {
                        *tokens = wanted;
                    } else {
                        assert_eq!(
                            (&before.0, &before.1),
                            (&*segments, &slots.gaps),
                            "seed {seed}: a refusal changes nothing"
                        );
                    }
                }
                check(&slots, &live, seed);
            }
        }
    }

    fn check(slots: &Segments, live: &[(Vec<Segment>, usize)], seed: u64) {
        let mut owners = vec![0; slots.capacity()];
        for (&start, &gap) in &slots.gaps {
            owners[start..start + gap].iter_mut().for_each(|o| *o += 1);
        }
        for (segments, tokens) in live {
            assert!(segments.len() <= MAX_SEGMENTS, "seed {seed}");
            let mut position = 0;
            for segment in segments {
                assert_eq!(segment.first_position, position, "seed {seed}");
                position += segment.count;
                owners[segment.first_slot..segment.first_slot + segment.count].iter_mut().for_each(|o| *o += 1);
            }
            assert!(position >= *tokens, "seed {seed}");
        }
        assert!(owners.iter().all(|&o| o == 1), "seed {seed}");
    }
}
