//! Which tokens run in the next step. Knows no GPU, no clock, and neither prefill nor decode.

use crate::batch::{Batch, StepLimits};
use crate::request::{Event, FinishReason, RequestId};
use crate::segments::Segments;
use crate::sequence::{InFlightToken, Sequence};
use raglan_shaders::adjust_logits::LogitAdjustment;
use raglan_shaders::embedding::SAMPLED;
use raglan_shaders::top_k::TopKRow;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// A batch, and whose samples its rows of logits are.
#[derive(Debug, Default)]
pub struct Scheduled {
    /// What runs.
    pub batch: Batch,
    /// For each row of logits, the request that its sample belongs to.
    pub sampled: Vec<RequestId>,
    /// The requests that have tokens in the batch.
    pub members: Vec<RequestId>,
    /// Counts the steps.
    pub step: u64,
}

impl Scheduled {
    fn has(&self, sequence: &Sequence) -> bool {
        self.members.contains(&sequence.request)
    }
}

/// Sequences that wait and that run; first come, first served.
#[derive(Debug)]
pub struct Scheduler {
    limits: StepLimits,
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    /// Ended outside a commit: no room, or cancelled.
    ended: Vec<Event>,
    /// Steps given out.
    steps: u64,
}

/// Whether a sequence has the slots that it needs.
enum MadeRoom {
    /// It has.
    Yes,
    /// It had to leave the running ones.
    Left,
    /// It has to wait: whether it has ended is decided by a token that is not known yet.
    Wait,
}

impl Scheduler {
    /// No sequences.
    pub fn new(limits: StepLimits) -> Self {
        Scheduler { limits, waiting: VecDeque::new(), running: Vec::new(), ended: Vec::new(), steps: 0 }
    }

    /// Queues a sequence.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Whether nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.ended.is_empty()
    }

    /// Ends a request at once and gives its slots back; does nothing where it has ended already.
    pub fn cancel(&mut self, request: RequestId, slots: &mut Segments) {
        self.end(request, FinishReason::Cancelled, slots);
    }

    /// Events of requests that ended outside a commit.
    pub fn take_ended(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ended)
    }

    /// The sequence of a request that has not ended.
    pub fn sequence(&self, request: RequestId) -> Option<&Sequence> {
        self.running.iter().chain(&self.waiting).find(|s| s.request == request)
    }

    /// The next step's batch; `None` where every sequence waits for a sample that only the host can read, or none is left.
    pub fn next_batch(&mut self, slots: &mut Segments) -> Option<Scheduled> {
        let mut step = Scheduled { batch: Batch::new(), step: self.steps, ..Scheduled::default() };
        let mut room = Room { tokens: self.limits.max_batch_tokens, split_rows: self.limits.max_split_rows };
        // Sequences that need one token go first, so that no prompt stalls a running answer.
        for short in [true, false] {
            let mut index = 0;
            while index < self.running.len() {
                let ready = self.running[index].ready();
                if ready > 0 && (ready == 1) == short && !step.has(&self.running[index]) {
                    let tokens = room.tokens_for(&self.running[index], ready);
                    match if tokens > 0 { self.make_room(index, tokens, slots, &step) } else { MadeRoom::Wait } {
                        MadeRoom::Yes => self.push(index, tokens, &mut room, &mut step),
                        MadeRoom::Left => continue,
                        MadeRoom::Wait => {}
                    }
                }
                index += 1;
            }
        }
        while self.running.len() < self.limits.max_sequences && room.tokens > 0 {
            let Some(next) = self.waiting.front_mut() else { break };
            let tokens = next.ready().min(room.tokens);
            if tokens == 0 || !slots.extend(&mut next.segments, next.computed + tokens) {
                break;
            }
            let next = self.waiting.pop_front().expect("the front was there");
            self.running.push(next);
            let index = self.running.len() - 1;
            let tokens = room.tokens_for(&self.running[index], tokens);
            self.push(index, tokens, &mut room, &mut step);
        }
        self.steps += u64::from(step.batch.tokens() > 0);
        (step.batch.tokens() > 0).then_some(step)
    }

    /// Takes a collected step's samples, one a row of logits; `None` for a request that ended meanwhile.
    pub fn commit(&mut self, step: &Scheduled, samples: &[Option<u32>], slots: &mut Segments) -> Vec<Event> {
        let mut events = Vec::new();
        for (&request, &sample) in step.sampled.iter().zip(samples) {
            let (Some(sequence), Some(token)) = (self.sequence_mut(request), sample) else { continue };
            // The next step may be under way already, with a token of its own in flight.
            if sequence.in_flight.is_some_and(|token| token.step == step.step) {
                sequence.in_flight = None;
            }
            if sequence.sampling.eos_token_ids.contains(&token) {
                self.end(request, FinishReason::Stop, slots);
                continue;
            }
            sequence.tokens.push(token);
            events.push(Event::Token { request, token });
            if sequence.generated() >= sequence.sampling.max_tokens {
                self.end(request, FinishReason::Length, slots);
            }
        }
        events.append(&mut self.ended);
        events
    }

    /// Makes the slots of sequence `index` reach `tokens` more, preempting the newest sequences where none are left.
    fn make_room(&mut self, index: usize, tokens: usize, slots: &mut Segments, step: &Scheduled) -> MadeRoom {
        loop {
            let sequence = &mut self.running[index];
            let reach = sequence.computed + tokens;
            if slots.extend(&mut sequence.segments, reach) {
                return MadeRoom::Yes;
            }
            let newest = (0..self.running.len()).rev().find(|&i| !step.has(&self.running[i])).unwrap_or(index);
            if newest <= index {
                if self.running.len() > 1 {
                    self.preempt(index, slots);
                    return MadeRoom::Left;
                }
                let Sequence { request, in_flight, .. } = self.running[index];
                if in_flight.is_some() {
                    return MadeRoom::Wait;
                }
                self.end(request, FinishReason::Length, slots);
                return MadeRoom::Left;
            }
            self.preempt(newest, slots);
        }
    }

    /// Takes a sequence's slots; it starts again when there is room.
    fn preempt(&mut self, index: usize, slots: &mut Segments) {
        let mut sequence = self.running.remove(index);
        slots.free(&mut sequence.segments);
        sequence.computed = 0;
        self.waiting.push_front(sequence);
    }

    fn push(&mut self, index: usize, tokens: usize, room: &mut Room, step: &mut Scheduled) {
        if tokens == 0 {
            return;
        }
        let adjustments = self.limits.max_adjustments - step.batch.adjustments.len();
        let sequence = &mut self.running[index];
        let known = sequence.tokens.len();
        let end = sequence.computed + tokens;
        let ids = (sequence.computed..end).map(|place| match sequence.in_flight {
            Some(token) if place == known => SAMPLED | token.row,
            _ => sequence.tokens[place],
        });
        let last = end == known + usize::from(sequence.in_flight.is_some());
        if last && adjustments < penalties_len(sequence) {
            return; // its penalties find room in a later step
        }
        step.batch.push(ids, sequence.computed, &sequence.segments);
        sequence.computed = end;
        room.spend(sequence, tokens);
        if last {
            let row = step.batch.want_last_logits();
            sequence.in_flight = Some(InFlightToken { step: step.step, row });
            step.batch.adjustments.extend(penalties(sequence, row));
            if sequence.sampling.temperature > 0.0 {
                step.batch.top_rows.push(TopKRow { row, inverse_temperature: 1.0 / sequence.sampling.temperature });
            }
            step.sampled.push(sequence.request);
        } else {
            sequence.in_flight = None;
        }
        step.members.push(sequence.request);
    }

    fn end(&mut self, request: RequestId, reason: FinishReason, slots: &mut Segments) {
        let running = self.running.iter().position(|s| s.request == request).map(|i| self.running.remove(i));
        let waiting = || self.waiting.iter().position(|s| s.request == request).and_then(|i| self.waiting.remove(i));
        if let Some(mut sequence) = running.or_else(waiting) {
            slots.free(&mut sequence.segments);
            self.ended.push(Event::Finished { request, reason });
        }
    }

    fn sequence_mut(&mut self, request: RequestId) -> Option<&mut Sequence> {
        self.running.iter_mut().chain(&mut self.waiting).find(|s| s.request == request)
    }
}

/// What a step still has room for.
struct Room {
    tokens: usize,
    split_rows: usize,
}

impl Room {
    fn tokens_for(&self, sequence: &Sequence, ready: usize) -> usize {
        let tokens = ready.min(self.tokens);
        // A sequence may gain a segment in this very step.
        let segments = sequence.segments.len() + 1;
        if segments > 2 { tokens.min(self.split_rows / segments) } else { tokens }
    }

    fn spend(&mut self, sequence: &Sequence, tokens: usize) {
        self.tokens -= tokens;
        let segments = sequence.segments.len();
        self.split_rows = self.split_rows.saturating_sub(if segments > 1 { tokens * segments } else { 0 });
    }
}

/// Tokens that a penalised sequence holds, with how often they were generated.
fn occurrences(sequence: &Sequence) -> FxHashMap<u32, u32> {
    let mut counts = FxHashMap::default();
    for (place, &token) in sequence.tokens.iter().enumerate() {
        *counts.entry(token).or_insert(0) += u32::from(place >= sequence.prompt_len);
    }
    counts
}

fn penalties_len(sequence: &Sequence) -> usize {
    if sequence.sampling.has_penalties() { occurrences(sequence).len() } else { 0 }
}

/// The adjustments of a sequence's next logits, by token.
fn penalties(sequence: &Sequence, row: u32) -> Vec<LogitAdjustment> {
    let params = &sequence.sampling;
    if !params.has_penalties() {
        return Vec::new();
    }
    let mut counts: Vec<_> = occurrences(sequence).into_iter().collect();
    counts.sort_unstable();
    let adjustment = |(token, count): (u32, u32)| LogitAdjustment {
        row,
        token,
        repetition: params.repetition_penalty,
        subtract: if count > 0 { params.presence_penalty + params.frequency_penalty * count as f32 } else { 0.0 },
    };
    counts.into_iter().map(adjustment).collect()
}
