//! A step while it is put together: what was chosen, and what there is room for.

use super::Rank;
use crate::batch::StepLimits;
use crate::cost::Load;
use crate::request::RequestId;
use crate::segments::SlotGroups;
use crate::sequence::Sequence;
use rustc_hash::{FxHashMap, FxHashSet};

/// The tokens of one sequence in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub(super) rank: Rank,
    pub(super) tokens: usize,
    load: Load,
    adjustments: usize,
}

/// What was chosen, and what there is still room for.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) chosen: Vec<Chosen>,
    members: FxHashSet<RequestId>,
    pub(super) load: Load,
    /// Predicted time that it may take, in microseconds.
    pub(super) bound_us: f64,
    /// Predicted time that long gaps may make the step take, in microseconds.
    pub(super) delay_bound_us: f64,
    tokens: usize,
    sequences: usize,
    adjustments: usize,
}

impl Step {
    pub(super) fn new(limits: &StepLimits) -> Self {
        Step {
            chosen: Vec::new(),
            members: FxHashSet::default(),
            load: Load::default(),
            bound_us: 0.0,
            delay_bound_us: 0.0,
            tokens: limits.max_batch_tokens,
            sequences: limits.max_sequences,
            adjustments: limits.max_adjustments,
        }
    }

    /// Whether no sequence finds room any more.
    pub(super) fn is_full(&self) -> bool {
        self.tokens == 0 || self.sequences == 0
    }

    pub(super) fn has(&self, rank: Rank) -> bool {
        self.members.contains(&rank.1)
    }

    /// As many of `wanted` tokens of a sequence as there is room for.
    pub(super) fn tokens_for(&self, sequence: &Sequence, wanted: usize) -> usize {
        let tokens = wanted.min(self.tokens);
        // Its penalties may find room in a later step only.
        let last = tokens == sequence.ready();
        if last && sequence.occurrences().len() > self.adjustments { tokens - 1 } else { tokens }
    }

    /// Takes room for `tokens` of a sequence.
    pub(super) fn choose(&mut self, rank: Rank, tokens: usize, sequence: &Sequence, load: Load) {
        let adjustments = if tokens == sequence.ready() { sequence.occurrences().len() } else { 0 };
        self.tokens -= tokens;
        self.sequences -= 1;
        self.adjustments -= adjustments;
        self.load = self.load + load;
        self.members.insert(rank.1);
        self.chosen.push(Chosen { rank, tokens, load, adjustments });
    }

    /// Gives the room of a sequence back, where it was chosen.
    pub(super) fn remove(&mut self, rank: Rank) {
        if !self.members.remove(&rank.1) {
            return;
        }
        let place = self.chosen.iter().position(|chosen| chosen.rank == rank).expect("a member was chosen");
        let chosen = self.chosen.remove(place);
        self.tokens += chosen.tokens;
        self.sequences += 1;
        self.adjustments += chosen.adjustments;
        self.load.tokens -= chosen.load.tokens;
        self.load.keys -= chosen.load.keys;
        self.load.pairs -= chosen.load.pairs;
    }

    /// The chosen sequences as they were chosen; where some share their first slots, sorted by where they lie, so that
    /// those over one prefix are neighbours.
    pub(super) fn in_order(&self, sequences: &FxHashMap<RequestId, Sequence>, slots: &SlotGroups) -> Vec<Chosen> {
        let places = |chosen: &Chosen| {
            let tables = sequences[&chosen.rank.1].tables.as_ref().expect("a chosen sequence has tables");
            slots.group(0).segments(tables[0])
        };
        let mut firsts: Vec<_> = self.chosen.iter().filter_map(|c| places(c).first().map(|s| s.first_slot)).collect();
        firsts.sort_unstable();
        let mut chosen = self.chosen.clone();
        if firsts.windows(2).any(|pair| pair[0] == pair[1]) {
            chosen.sort_by_cached_key(|c| places(c).iter().map(|s| s.first_slot).collect::<Vec<_>>());
        }
        chosen
    }
}
