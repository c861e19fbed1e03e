//! Which waiting sequences get slots.

use super::prefixes::{Found, Holder};
use super::{CacheOp, Rank, Scheduler, clip};
use crate::request::{Event, RequestId};
use crate::segments::{SlotGroups, Tables};
use crate::sequence::Saved;

/// Waiting sequences that are looked at in a step.
const LOOKED_AT: usize = 64;

impl Scheduler {
    /// Gives slots to sequences that wait, by rank. One that finds no room lets some others pass, then they wait with it; one
    /// whose prompt another is about to compute waits for that and is in nobody's way.
    pub(super) fn admit(&mut self, slots: &mut SlotGroups) {
        let order: Vec<Rank> = self.waiting.iter().take(LOOKED_AT).copied().collect();
        let mut blocked: Option<RequestId> = None;
        for rank in order {
            if self.running.len() >= self.limits.max_sequences {
                break;
            }
            let found = self.prefixes.find(&self.sequences[&rank.1], &self.sequences, slots);
            let source = match found {
                Found::Soon => continue,
                Found::Nothing => None,
                Found::Prefix { holder, len } => Some((holder, len)),
            };
            // Who passes another takes no kept prefix away.
            let may_evict = blocked.is_none();
            if self.admit_one(rank, source, may_evict, slots) {
                if let Some(request) = blocked {
                    self.sequences.get_mut(&request).expect("it waits").overtaken += 1;
                }
            } else {
                blocked.get_or_insert(rank.1);
            }
            if blocked.is_some_and(|request| self.sequences[&request].overtaken >= self.options.overtakes) {
                break;
            }
        }
    }

    fn admit_one(
        &mut self,
        rank: Rank,
        source: Option<(Holder, usize)>,
        may_evict: bool,
        slots: &mut SlotGroups,
    ) -> bool {
        let tokens = self.sequences[&rank.1].tokens.len();
        let shared = source.map_or(0, |(_, len)| len);
        // A share of the source is taken first, so that making room cannot take it away.
        let tables = match source {
            None => slots.admit(),
            Some((Holder::Kept(id), len)) => slots.fork(self.prefixes.touch(id), len),
            Some((Holder::Running(request), len)) => {
                let tables = self.sequences[&request].tables.as_ref().expect("a running sequence has tables");
                slots.fork(tables, len)
            }
        };
        let chunk = self.limits.max_batch_tokens;
        let running = self.running.iter().map(|rank| &self.sequences[&rank.1]);
        let running = running.filter_map(|sequence| Some((sequence.tables.as_ref()?, sequence.tokens.len())));
        let owed = slots.owed(running, chunk);
        let wanted = tokens - shared + self.spare_slots as usize;
        // Alone, it takes what there is.
        let alone = self.running.is_empty();
        let fits = |slots: &SlotGroups| alone || slots.may_admit(wanted, chunk, &owed);
        // Nothing that is kept goes for one that would not come in all the same.
        if !fits(slots) && (!may_evict || !slots.could_admit(wanted)) {
            slots.free(tables);
            return false;
        }
        while !(fits(slots) && slots.reserve(&tables, tokens)) {
            if !may_evict || !self.prefixes.evict(slots) {
                slots.free(tables);
                return false;
            }
        }
        self.start(rank, tables, shared, slots);
        true
    }

    fn start(&mut self, rank: Rank, tables: Tables, shared: usize, slots: &mut SlotGroups) {
        self.waiting.remove(&rank);
        let place = self.running.partition_point(|other| *other < rank);
        self.running.insert(place, rank);
        let sequence = self.sequences.get_mut(&rank.1).expect("it waits");
        sequence.computed = shared.max(sequence.assumed);
        let saved = sequence.saved.take();
        self.host_bytes -= saved.as_ref().map_or(0, |saved| saved.host_bytes);
        if sequence.cached_tokens.is_none() {
            sequence.cached_tokens = Some(shared);
            self.stats.cached_tokens += shared as u64;
            self.events.push(Event::Started { request: rank.1, cached_tokens: shared });
        }
        match saved.filter(|saved| saved.end > shared).map(|saved| (saved.end, restore(saved, &tables, shared, slots)))
        {
            None => sequence.tables = Some(tables),
            Some((end, Some(op))) => {
                sequence.computed = end;
                sequence.tables = Some(tables);
                self.moves_first(slots);
                self.before.push(op);
            }
            Some((_, None)) => {
                // What was to come back has no room: all is computed again.
                slots.free(tables);
                sequence.computed = 0;
                sequence.tables = Some(slots.admit());
            }
        }
        self.prefixes.note(rank.1, &self.sequences[&rank.1].tokens);
    }
}

/// Slots for what was saved behind the `shared` first tokens; `None` where there are none.
fn restore(saved: Saved, tables: &Tables, shared: usize, slots: &mut SlotGroups) -> Option<CacheOp> {
    slots.release_unseen(tables, saved.end);
    if !slots.extend(tables, saved.end) {
        return None;
    }
    // The tables of windows began with a whole quantum, of which the front is not restored.
    slots.release_unseen(tables, saved.end);
    let mut segments = slots.segments(tables);
    for (list, &first) in segments.iter_mut().zip(&saved.first_positions) {
        clip(list, shared.max(first), saved.end);
    }
    Some(CacheOp::Restore { saved, segments })
}
