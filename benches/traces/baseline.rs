//! The two policies that the library's is compared with, under a scheduler with its rules: order of admission, tokens of a
//! step, bound on the delay, head-room and what is kept beside it, who gives way and whether it goes to the host. Only the
//! slots differ.

use super::machine::{Machine, limits};
use super::replay::{Counts, Held, Ran, Runner};
use super::workloads::Lengths;
use raglan::batch::StepLimits;
use raglan::cost::Load;
use raglan::scheduler::SchedulerOptions;
use raglan::segments::Policy;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Waiting sequences that are looked at in a step.
const LOOKED_AT: usize = 64;

/// Slots in units that lie anywhere: nothing moves, nothing is contiguous beyond a unit.
pub(crate) struct Units {
    /// Slots of a unit.
    unit: usize,
    /// Units in all, and those that are free.
    all: usize,
    free: usize,
    /// Whether a sequence has one unit, large enough for any.
    whole: bool,
}

impl Units {
    /// Pages of 16 slots.
    pub(crate) fn pages(capacity: usize) -> Units {
        Units { unit: 16, all: capacity / 16, free: capacity / 16, whole: false }
    }

    /// Equal shares, each large enough for the longest request.
    pub(crate) fn shares(capacity: usize, longest: usize) -> Units {
        Units { unit: longest, all: capacity / longest, free: capacity / longest, whole: true }
    }

    fn wanted(&self, tokens: usize) -> usize {
        if self.whole { 1 } else { tokens.div_ceil(self.unit) }
    }

    /// The library's head-room, of which shares need none.
    fn head_room(&self, growing: usize) -> usize {
        let policy = Policy::default();
        let share = |share: f64| ((self.all * self.unit) as f64 * share) as usize;
        let (least, most) = policy.head_room_share;
        if self.whole { 0 } else { (growing * policy.head_room_slots).max(share(least)).min(share(most)) }
    }

    fn may_admit(&self, tokens: usize, growing: usize) -> bool {
        self.wanted(tokens) * self.unit + self.head_room(growing) <= self.free * self.unit
    }

    /// Makes a sequence that has `held` units reach `tokens` positions.
    fn extend(&mut self, held: &mut usize, tokens: usize) -> bool {
        let more = self.wanted(tokens).saturating_sub(*held);
        if more > self.free {
            return false;
        }
        self.free -= more;
        *held += more;
        true
    }
}

/// A request on its way.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    tokens: usize,
    computed: usize,
    /// One past the last token of its answer.
    end: usize,
    units: usize,
    last_step: u64,
    overtaken: usize,
    /// Rows on the host.
    saved: usize,
}

impl Sequence {
    fn ready(&self) -> usize {
        self.tokens - self.computed
    }
}

/// What a step has room for, and what was chosen.
struct Step {
    chosen: Vec<(u64, usize, Load)>,
    load: Load,
    tokens: usize,
    sequences: usize,
    /// Rows to or from the host.
    swapped: usize,
}

/// A scheduler over units.
pub(crate) struct Baseline {
    units: Units,
    machine: Machine,
    limits: StepLimits,
    options: SchedulerOptions,
    sequences: BTreeMap<u64, Sequence>,
    waiting: BTreeSet<u64>,
    /// Ascending: by arrival.
    running: Vec<u64>,
    host_bytes: u64,
    /// Slots kept free at admission beside the head-room.
    spare_slots: f64,
    step: u64,
    chosen: Vec<(u64, usize, Load)>,
    counts: Counts,
}

impl Baseline {
    /// No sequences.
    pub(crate) fn new(units: Units, machine: &Machine) -> Baseline {
        Baseline {
            units,
            machine: machine.clone(),
            limits: limits(),
            options: SchedulerOptions::default(),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: Vec::new(),
            host_bytes: 0,
            spare_slots: 0.0,
            step: 0,
            chosen: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn sequence(&mut self, number: u64) -> &mut Sequence {
        self.sequences.get_mut(&number).expect("it has not ended")
    }

    fn choose_short(&mut self, step: &mut Step) -> f64 {
        let mut order: Vec<u64> = self.running.iter().filter(|n| self.sequences[n].ready() == 1).copied().collect();
        order.sort_by_key(|number| self.sequences[number].last_step);
        let most_us = self.options.max_step_us;
        for number in order {
            let load = self.machine.cost.load(1, self.sequences[&number].computed);
            let late = !step.chosen.is_empty() && self.machine.cost.step_us(&(step.load + load)) > most_us;
            if late || step.tokens == 0 || step.sequences == 0 {
                break;
            }
            if self.sequences[&number].units > 0 && self.make_room(number, 1, step) {
                step.choose(number, 1, load);
            }
        }
        if step.chosen.is_empty() {
            return most_us;
        }
        (self.machine.cost.step_us(&step.load) + self.options.max_delay_us).min(most_us)
    }

    fn choose_long(&mut self, bound_us: f64, step: &mut Step) {
        let mut any = false;
        for number in self.running.clone() {
            let Sequence { computed, units, .. } = self.sequences[&number];
            let ready = self.sequences[&number].ready();
            if ready == 0 || units == 0 || step.chosen.iter().any(|chosen| chosen.0 == number) {
                continue;
            }
            if step.tokens == 0 || step.sequences == 0 {
                break;
            }
            let wanted = ready.min(step.tokens);
            let mut tokens = self.machine.cost.tokens_within(bound_us, &step.load, computed, wanted);
            if tokens < wanted && tokens >= 16 {
                tokens = tokens / 16 * 16;
            }
            if tokens == 0 && !any {
                tokens = 1;
            }
            if tokens == 0 {
                break;
            }
            if self.make_room(number, tokens, step) {
                step.choose(number, tokens, self.machine.cost.load(tokens, computed));
                any = true;
            }
        }
    }

    fn make_room(&mut self, number: u64, tokens: usize, step: &mut Step) -> bool {
        loop {
            let sequence = self.sequences.get_mut(&number).expect("it runs");
            if self.units.extend(&mut sequence.units, sequence.computed + tokens) {
                return true;
            }
            let last = *self.running.last().expect("it runs");
            if last == number {
                assert!(self.running.len() > 1, "a request that fits alone has room alone");
                return false;
            }
            self.preempt(last, step);
        }
    }

    fn preempt(&mut self, number: u64, step: &mut Step) {
        step.remove(number);
        self.running.retain(|other| *other != number);
        self.waiting.insert(number);
        self.counts.preemptions += 1;
        let held = (self.sequences[&number].units * self.units.unit) as f64;
        let most = self.options.spare_share * self.machine.capacity as f64;
        self.spare_slots = (self.spare_slots + held).min(most);
        let cost = self.machine.cost.clone();
        let (host_bytes, most_bytes, chunk) = (self.host_bytes, self.options.host_bytes, self.limits.max_batch_tokens);
        let sequence = self.sequence(number);
        let computed = std::mem::take(&mut sequence.computed);
        let units = std::mem::take(&mut sequence.units);
        let bytes = cost.slots_bytes(computed);
        let swaps = computed > 0
            && host_bytes + bytes <= most_bytes
            && cost.swap_us(computed) < cost.recompute_us(computed, chunk);
        if swaps {
            sequence.saved = computed;
            self.host_bytes += bytes;
            self.counts.swaps += 1;
            step.swapped += computed;
        }
        self.units.free += units;
    }

    fn admit(&mut self, step: &mut Step) {
        let order: Vec<u64> = self.waiting.iter().take(LOOKED_AT).copied().collect();
        let mut blocked: Option<u64> = None;
        for number in order {
            if self.running.len() >= self.limits.max_sequences {
                break;
            }
            if self.admit_one(number, step) {
                if let Some(first) = blocked {
                    self.sequence(first).overtaken += 1;
                }
            } else {
                blocked.get_or_insert(number);
            }
            if blocked.is_some_and(|first| self.sequences[&first].overtaken >= self.options.overtakes) {
                break;
            }
        }
    }

    fn admit_one(&mut self, number: u64, step: &mut Step) -> bool {
        let growing = self.running.len() + 1;
        let spare = if self.units.whole { 0 } else { self.spare_slots as usize };
        let sequence = self.sequences.get_mut(&number).expect("it waits");
        let fits = self.running.is_empty() || self.units.may_admit(sequence.tokens + spare, growing);
        if !fits || !self.units.extend(&mut sequence.units, sequence.tokens) {
            return false;
        }
        sequence.computed = std::mem::take(&mut sequence.saved);
        step.swapped += sequence.computed;
        self.host_bytes -= self.machine.cost.slots_bytes(sequence.computed);
        self.waiting.remove(&number);
        let place = self.running.partition_point(|other| *other < number);
        self.running.insert(place, number);
        true
    }
}

impl Step {
    fn choose(&mut self, number: u64, tokens: usize, load: Load) {
        self.tokens -= tokens;
        self.sequences -= 1;
        self.load = self.load + load;
        self.chosen.push((number, tokens, load));
    }

    fn remove(&mut self, number: u64) {
        let Some(place) = self.chosen.iter().position(|chosen| chosen.0 == number) else { return };
        let (_, tokens, load) = self.chosen.remove(place);
        self.tokens += tokens;
        self.sequences += 1;
        self.load.tokens -= load.tokens;
        self.load.keys -= load.keys;
        self.load.pairs -= load.pairs;
    }
}

impl Runner for Baseline {
    fn add(&mut self, number: u64, lengths: Lengths) {
        let Lengths { prompt, answer } = lengths;
        self.sequences.insert(number, Sequence { tokens: prompt, end: prompt + answer, ..Sequence::default() });
        self.waiting.insert(number);
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn begin(&mut self) -> Option<Ran> {
        let StepLimits { max_batch_tokens: tokens, max_sequences: sequences, .. } = self.limits;
        let mut step = Step { chosen: Vec::new(), load: Load::default(), tokens, sequences, swapped: 0 };
        self.spare_slots *= 1.0 - 1.0 / self.options.spare_steps;
        let bound_us = self.choose_short(&mut step);
        self.admit(&mut step);
        self.choose_long(bound_us, &mut step);
        if step.chosen.is_empty() {
            return None;
        }
        let mut generated = 0;
        for &(number, tokens, _) in &step.chosen {
            let at = self.step;
            let sequence = self.sequence(number);
            sequence.computed += tokens;
            sequence.last_step = at;
            generated += usize::from(sequence.ready() == 0);
        }
        self.step += 1;
        self.chosen = step.chosen;
        let cost = &self.machine.cost;
        let us = cost.step_us(&step.load) + cost.swap_us(step.swapped) / 2.0;
        Some(Ran { us, keys: step.load.keys, moved: 0, moves_us: 0.0, generated })
    }

    fn end(&mut self) {
        for (number, ..) in std::mem::take(&mut self.chosen) {
            let sequence = self.sequence(number);
            if sequence.ready() > 0 {
                continue;
            }
            sequence.tokens += 1;
            if sequence.tokens == sequence.end {
                self.units.free += sequence.units;
                self.sequences.remove(&number);
                self.running.retain(|other| *other != number);
            }
        }
    }

    fn held(&self) -> Vec<Held> {
        let held = |number: &u64| {
            let sequence = &self.sequences[number];
            // A token that was sampled has its slot in the step that computes it.
            let prompt_or_more = sequence.computed.max(sequence.tokens.min(sequence.units * self.units.unit));
            Held { number: *number, reserved: prompt_or_more, computed: sequence.computed, segments: SmallVec::new() }
        };
        self.running.iter().map(held).collect()
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
