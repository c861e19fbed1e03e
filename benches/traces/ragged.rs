//! The scheduler and the slot allocator of the library, as the engine drives them, without a GPU.

use super::machine::{Machine, limits};
use super::replay::{Counts, Held, Ran, Runner};
use super::workloads::Lengths;
use raglan::request::{Event, Request, RequestId, SamplingParams};
use raglan::scheduler::{CacheOp, Scheduled, Scheduler, SchedulerOptions};
use raglan::segments::{Policy, Segment, SlotGroups};
use raglan::sequence::Sequence;
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// The library's policy.
pub(crate) struct Ragged {
    scheduler: Scheduler,
    slots: SlotGroups,
    machine: Machine,
    /// Requests that have not ended.
    live: BTreeSet<RequestId>,
    step: Scheduled,
}

impl Ragged {
    /// No sequences, all slots free. Traces hold lengths and no text, so no prefix is shared.
    pub(crate) fn new(machine: &Machine) -> Ragged {
        let options = SchedulerOptions { prefix_cache: false, ..SchedulerOptions::default() };
        Ragged {
            scheduler: Scheduler::new(limits(), options, machine.cost.clone()),
            slots: SlotGroups::new(&[(None, machine.capacity)], &Policy::default()),
            machine: machine.clone(),
            live: BTreeSet::new(),
            step: Scheduled::default(),
        }
    }
}

impl Runner for Ragged {
    fn add(&mut self, number: u64, lengths: Lengths) {
        let sampling = SamplingParams { max_tokens: lengths.answer, ..SamplingParams::default() };
        let request = Request::new(vec![0; lengths.prompt], sampling);
        self.scheduler.add(Sequence::new(RequestId(number), request));
        self.live.insert(RequestId(number));
    }

    fn waiting(&self) -> usize {
        self.scheduler.stats().waiting
    }

    fn begin(&mut self) -> Option<Ran> {
        self.step = self.scheduler.next_batch(&mut self.slots)?;
        let cost = &self.machine.cost;
        let (mut moved_before, mut swapped) = (0, 0);
        let rows = |lists: &[SmallVec<[Segment; 8]>]| lists.iter().flatten().map(|s| s.count).sum::<usize>();
        for op in &self.step.before {
            match op {
                CacheOp::Move(moves) => moved_before += moves.iter().flatten().map(|m| m.count).sum::<usize>(),
                CacheOp::Save { segments, .. } | CacheOp::Restore { segments, .. } => swapped += rows(segments),
            }
        }
        let moves = self.step.batch.groups.iter().flat_map(|group| group.moves.iter().flatten());
        let moved = moves.map(|m| m.count).sum::<usize>() + moved_before;
        Some(Ran {
            // The prediction has the moves of the batch, but not what comes before it.
            us: self.step.predicted_us + cost.move_us(moved_before) + cost.swap_us(swapped) / 2.0,
            keys: self.step.load.keys,
            moved,
            moves_us: cost.move_us(moved),
            generated: self.step.sampled.len(),
        })
    }

    fn end(&mut self) {
        let samples = vec![Some(0); self.step.sampled.len()];
        let events = self.scheduler.commit(&self.step, &samples, &mut self.slots);
        for event in events.iter().filter(|event| event.is_last()) {
            self.live.remove(&event.request());
            let whole = matches!(event, Event::Finished { .. });
            assert!(whole, "nothing fails without a GPU");
        }
    }

    fn held(&self) -> Vec<Held> {
        let held = |&request: &RequestId| {
            let sequence = self.scheduler.sequence(request)?;
            let tables = sequence.tables.as_ref()?;
            let group = self.slots.group(0);
            Some(Held {
                number: request.0,
                reserved: group.reach(tables[0]),
                computed: sequence.computed,
                segments: group.segments(tables[0]),
            })
        };
        self.live.iter().filter_map(held).collect()
    }

    fn counts(&self) -> Counts {
        let (stats, counters) = (self.scheduler.stats(), self.slots.group(0).counters());
        Counts { preemptions: stats.preemptions, swaps: stats.swaps, moved_below_half: counters.moved_quiet }
    }
}
