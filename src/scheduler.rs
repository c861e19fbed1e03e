//! Which tokens run in the next step. Knows no GPU, no clock, and neither prefill nor decode: a sequence has tokens, and so
//! many of them are computed.
//!
//! A step first takes the sequences that need one token, then admits what waits, then fills what is left with longer gaps,
//! all within a number of tokens and a predicted time. Sequences that wait are admitted by rank, which is the step of
//! their arrival less what their priority is worth: so age outweighs priority in the end. When slots run out, prefixes
//! that nobody uses go first, then the last by rank gives way; the first never does, so there is always progress. For a
//! while after that more slots are kept free, or it would come back only to give way again.

mod admission;
mod build;
mod choose;
mod prefixes;
mod step;

use crate::batch::{Batch, StepLimits};
use crate::cost::{Load, StepCost};
use crate::request::{Event, FinishReason, RequestId};
use crate::segments::{Move, Segment, SlotGroups};
use crate::sequence::{Saved, Sequence};
use prefixes::Prefixes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use step::Step;

/// How sequences share the adapter.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Predicted time of a step at most, in microseconds: what keeps a watchdog away.
    pub max_step_us: f64,
    /// By how much tokens of long gaps may lengthen a step that others wait for, in microseconds; where answers alone would
    /// fill a step, they leave as much of it. One token is computed however long its context takes to read.
    pub max_delay_us: f64,
    /// Steps of waiting that one level of priority is worth.
    pub priority_steps: u64,
    /// Sequences that may be admitted before one that came earlier and has no room yet.
    pub overtakes: usize,
    /// Bytes of host memory for keys and values of preempted sequences.
    pub host_bytes: u64,
    /// Whether prefixes are shared between requests, and kept after them.
    pub prefix_cache: bool,
    /// Shared prefixes have a multiple of this many tokens.
    pub fork_quantum: usize,
    /// Rows moved in the background at most, as a share of those read.
    pub move_share: f64,
    /// When a sequence has given way, as many slots as it had are kept free at admission beside the head-room: this share
    /// of all at most …
    pub spare_share: f64,
    /// … and fewer and fewer: 1 / e of them after so many steps.
    pub spare_steps: f64,
    /// Positions that a sequence may have.
    pub max_positions: usize,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        SchedulerOptions {
            max_step_us: 150e3,
            max_delay_us: 50e3,
            priority_steps: 256,
            overtakes: 32,
            host_bytes: 2 << 30,
            prefix_cache: true,
            fork_quantum: 1,
            move_share: 0.01,
            spare_share: 0.125,
            spare_steps: 2048.0,
            max_positions: usize::MAX,
        }
    }
}

/// A batch, what must happen to the cache before it, and whose samples its rows of logits are.
#[derive(Debug, Default, Clone)]
pub struct Scheduled {
    /// In order, before the batch and its own moves.
    pub before: Vec<CacheOp>,
    /// What runs.
    pub batch: Batch,
    /// For each row of logits, the request that its sample belongs to.
    pub sampled: Vec<RequestId>,
    /// Counts the steps.
    pub step: u64,
    /// What it does.
    pub load: Load,
    /// How long that should take.
    pub predicted_us: f64,
}

/// What happens to keys and values between two steps.
#[derive(Debug, Clone)]
pub enum CacheOp {
    /// Rows are copied, by KV group and in order.
    Move(Vec<Vec<Move>>),
    /// The rows of a sequence go to the host.
    Save {
        /// What is saved, its bytes still empty.
        saved: Saved,
        /// Where they lie in every KV group, by position.
        segments: SmallVec<[SmallVec<[Segment; 8]>; 2]>,
    },
    /// The rows of a sequence come back from `saved`.
    Restore {
        /// What was saved.
        saved: Saved,
        /// Where they go in every KV group, by position: some of what was saved.
        segments: SmallVec<[SmallVec<[Segment; 8]>; 2]>,
    },
}

impl CacheOp {
    /// Slots whose rows pass between the adapter and the host, in the KV group with the most.
    fn host_slots(&self) -> usize {
        match self {
            CacheOp::Move(_) => 0,
            CacheOp::Save { segments, .. } | CacheOp::Restore { segments, .. } => {
                segments.iter().map(|list| list.iter().map(|segment| segment.count).sum()).max().unwrap_or(0)
            }
        }
    }
}

/// What has happened since the scheduler was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SchedulerStats {
    /// Sequences with slots.
    pub running: usize,
    /// Sequences without.
    pub waiting: usize,
    /// Tokens computed, those that were computed again included.
    pub computed_tokens: u64,
    /// Tokens of prompts that were found computed.
    pub cached_tokens: u64,
    /// Sequences that lost their slots for a while.
    pub preemptions: u64,
    /// Those of them whose keys and values went to the host.
    pub swaps: u64,
}

/// A sequence's place among the others: the step of its arrival less its priority's worth; then who came first.
type Rank = (i64, RequestId);

/// Sequences that wait and that run.
#[derive(Debug)]
pub struct Scheduler {
    limits: StepLimits,
    options: SchedulerOptions,
    cost: StepCost,
    sequences: FxHashMap<RequestId, Sequence>,
    waiting: BTreeSet<Rank>,
    /// Ascending.
    running: Vec<Rank>,
    prefixes: Prefixes,
    /// What happens to the cache before the next step that is given out.
    before: Vec<CacheOp>,
    /// Of requests that started, or ended outside a commit.
    events: Vec<Event>,
    /// Steps given out.
    steps: u64,
    /// Rows that may be moved in the background.
    move_credit: f64,
    /// Slots kept free at admission beside the head-room: answers have lately turned out longer than there was room for.
    spare_slots: f64,
    /// Host memory that preempted sequences hold.
    host_bytes: u64,
    stats: SchedulerStats,
}

impl Scheduler {
    /// No sequences.
    pub fn new(limits: StepLimits, options: SchedulerOptions, cost: StepCost) -> Self {
        let prefixes = Prefixes::new(options.prefix_cache, options.fork_quantum);
        Scheduler {
            limits,
            options,
            cost,
            sequences: FxHashMap::default(),
            waiting: BTreeSet::new(),
            running: Vec::new(),
            prefixes,
            before: Vec::new(),
            events: Vec::new(),
            steps: 0,
            move_credit: 0.0,
            spare_slots: 0.0,
            host_bytes: 0,
            stats: SchedulerStats::default(),
        }
    }

    /// Queues a sequence.
    pub fn add(&mut self, mut sequence: Sequence) {
        let worth = i64::from(sequence.priority).saturating_mul(self.options.priority_steps as i64);
        sequence.rank = (self.steps as i64).saturating_sub(worth);
        sequence.blocks = self.prefixes.blocks(&sequence.tokens);
        self.waiting.insert((sequence.rank, sequence.request));
        self.sequences.insert(sequence.request, sequence);
    }

    /// Whether nothing waits or runs, and every event was taken.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty() && self.events.is_empty()
    }

    /// Ends a request at once and gives its slots back; does nothing where it has ended already.
    pub fn cancel(&mut self, request: RequestId, slots: &mut SlotGroups) {
        self.end(request, FinishReason::Cancelled, slots);
    }

    /// Ends a request that cannot go on, and keeps nothing of what it computed.
    pub fn fail(&mut self, request: RequestId, message: String, slots: &mut SlotGroups) {
        if let Some(mut sequence) = self.remove(request) {
            sequence.tables.take().into_iter().for_each(|tables| slots.free(tables));
            self.events.push(Event::Failed { request, message });
        }
    }

    /// Events of requests that started, or ended outside a commit.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The sequence of a request that has not ended.
    pub fn sequence(&self, request: RequestId) -> Option<&Sequence> {
        self.sequences.get(&request)
    }

    /// What has happened.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats { running: self.running.len(), waiting: self.waiting.len(), ..self.stats }
    }

    /// Hears how long a step took.
    pub fn observe(&mut self, step: &Scheduled, measured_us: f64) {
        self.cost.observe(step.predicted_us, measured_us);
    }

    /// Gives the slots of every kept prefix back.
    pub fn forget_prefixes(&mut self, slots: &mut SlotGroups) {
        while self.prefixes.evict(slots) {}
    }

    /// The next step's batch; `None` where every sequence waits for a sample that only the host can read, or none is left.
    pub fn next_batch(&mut self, slots: &mut SlotGroups) -> Option<Scheduled> {
        slots.plan_moves(self.move_credit as usize);
        self.spare_slots *= 1.0 - 1.0 / self.options.spare_steps;
        let mut step = Step::new(&self.limits);
        // Where one token takes as long as the bound, all that fits in about its time goes with it.
        step.bound_us = self.options.max_step_us.max(1.5 * self.cost.step_us(&self.cost.load(1, 0)));
        // Where prompts are read beside answers, they keep a part of the time.
        let any_long = self.running.iter().any(|rank| self.sequences[&rank.1].ready() > 1);
        let kept_us = if any_long { self.options.max_delay_us.min(step.bound_us / 2.0) } else { 0.0 };
        self.choose_short(slots, &mut step, kept_us);
        step.delay_bound_us = match step.chosen.is_empty() {
            true => step.bound_us,
            false => (self.cost.step_us(&step.load) + self.options.max_delay_us).min(step.bound_us),
        };
        self.admit(slots);
        self.choose_long(slots, &mut step);
        self.choose_short(slots, &mut step, 0.0);
        if step.chosen.is_empty() {
            return None;
        }
        Some(self.build(&step, slots))
    }

    /// Takes a collected step's samples, one a row of logits; `None` for a request that ended meanwhile.
    pub fn commit(&mut self, step: &Scheduled, samples: &[Option<u32>], slots: &mut SlotGroups) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        for (&request, &sample) in step.sampled.iter().zip(samples) {
            let (Some(sequence), Some(token)) = (self.sequences.get_mut(&request), sample) else { continue };
            // The next step may be under way already, with a token of its own in flight.
            if sequence.in_flight.is_some_and(|token| token.step == step.step) {
                sequence.in_flight = None;
            }
            if sequence.sampling.eos_token_ids.contains(&token) {
                self.end(request, FinishReason::Stop, slots);
            } else {
                sequence.push(token);
                events.push(Event::Token { request, token });
                if sequence.tables.is_some() {
                    self.prefixes.note(request, &sequence.tokens);
                }
                if sequence.generated() >= sequence.sampling.max_tokens {
                    self.end(request, FinishReason::Length, slots);
                }
            }
            events.append(&mut self.events);
        }
        events
    }

    fn end(&mut self, request: RequestId, reason: FinishReason, slots: &mut SlotGroups) {
        let Some(mut sequence) = self.remove(request) else { return };
        if let Some(tables) = sequence.tables.take() {
            let known = sequence.known();
            sequence.tokens.truncate(known);
            self.prefixes.keep(sequence.tokens, tables, slots);
        }
        self.events.push(Event::Finished { request, reason });
    }

    fn remove(&mut self, request: RequestId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&request)?;
        let rank = (sequence.rank, request);
        self.running.retain(|other| *other != rank);
        self.waiting.remove(&rank);
        self.prefixes.forget(request);
        self.host_bytes -= sequence.saved.take().map_or(0, |saved| saved.host_bytes);
        Some(sequence)
    }
}

/// Leaves of `segments` what holds the positions `from..to`.
fn clip(segments: &mut SmallVec<[Segment; 8]>, from: usize, to: usize) {
    for segment in segments.iter_mut() {
        let skip = from.saturating_sub(segment.first_position).min(segment.count);
        let first_position = segment.first_position + skip;
        let count = (segment.count - skip).min(to.saturating_sub(first_position));
        *segment = Segment { first_slot: segment.first_slot + skip, first_position, count };
    }
    segments.retain(|segment| segment.count > 0);
}
