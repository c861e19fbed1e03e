//! How much a step and the KV cache may hold on an adapter.

use super::EngineOptions;
use crate::batch::StepLimits;
use crate::decoder::{largest_array_bytes, logits_row_bytes};
use crate::error::Error;
use crate::kv_cache::KvShape;
use crate::plan::AttentionShape;
use raglan_models::ModelSpec;

/// Tokens of a step at most, whatever is asked for: what stays within the workgroups of a dispatch.
const MOST_BATCH_TOKENS: usize = 8192;

/// What a step may hold: the options, less where an array of a step would pass a binding.
pub(super) fn step_limits(
    binding: u64,
    spec: &ModelSpec,
    attention: &AttentionShape,
    options: &EngineOptions,
) -> Result<StepLimits, Error> {
    let row_bytes = logits_row_bytes(spec);
    if spec.vocab_size > 1 << 24 || row_bytes > binding {
        return Err(Error::VocabularyTooLarge { met: spec.vocab_size, row_bytes, limit: binding });
    }
    let mut tokens = options.max_batch_tokens.clamp(1, MOST_BATCH_TOKENS);
    loop {
        let limits = StepLimits {
            max_batch_tokens: tokens,
            max_sequences: options.max_sequences.min(tokens).min((binding / row_bytes) as usize).max(1),
            // All that one sequence can ask for.
            max_adjustments: spec.vocab_size.max(4096),
        };
        let largest = largest_array_bytes(spec, attention, &limits);
        if largest <= binding {
            return Ok(limits);
        }
        if tokens == 1 {
            return Err(Error::StepTooLarge { bytes: largest, limit: binding });
        }
        tokens /= 2;
    }
}

/// What decides how many slots each KV group gets.
#[derive(Debug, Clone)]
pub(super) struct CacheRoom<'a> {
    /// What a slot takes.
    pub(super) shape: &'a KvShape,
    /// The window of each KV group.
    pub(super) windows: &'a [Option<usize>],
    /// Sequences that may run at once.
    pub(super) max_sequences: usize,
    /// Tokens that one of them may compute in a step.
    pub(super) max_batch_tokens: usize,
    /// Slots come in multiples of this.
    pub(super) quantum: usize,
}

impl CacheRoom<'_> {
    /// Slots of every KV group for contexts of `context` tokens in all: a group with a window needs no more than all its
    /// sequences can hold.
    pub(super) fn slots(&self, context: usize) -> Vec<usize> {
        let of = |window: &Option<usize>| match window {
            Some(window) => {
                let held = (window + self.max_batch_tokens).next_multiple_of(self.quantum) + 2 * self.quantum;
                context.min(held.saturating_mul(self.max_sequences))
            }
            None => context,
        };
        self.windows.iter().map(of).map(|slots| slots.next_multiple_of(self.quantum).max(self.quantum)).collect()
    }

    /// Bytes of the least cache, one quantum of slots.
    pub(super) fn least_bytes(&self) -> u64 {
        self.shape.bytes(&self.slots(self.quantum))
    }

    /// The longest context in all whose slots take no more than `bytes`.
    pub(super) fn within_bytes(&self, bytes: u64) -> usize {
        self.longest(|slots| self.shape.bytes(slots) <= bytes)
    }

    /// The longest context in all of whose slots no arena passes a binding, nor has more columns than kernels count.
    pub(super) fn within_binding(&self, binding: u64) -> usize {
        let arena = |slots: &usize| (*slots as u64).saturating_mul(self.shape.arena_slot_bytes());
        let columns = |slots: &usize| (*slots as u64).saturating_mul(self.shape.slot_columns());
        self.longest(|slots| slots.iter().all(|slots| arena(slots) <= binding && columns(slots) <= u32::MAX.into()))
    }

    /// The longest context in all whose slots are to the liking of `fits`, which longer ones are not. Slots are counted in
    /// 32 bits by the kernels.
    fn longest(&self, fits: impl Fn(&[usize]) -> bool) -> usize {
        let fits = |quanta: usize| fits(&self.slots(quanta * self.quantum));
        let (mut low, mut high) = (0, MOST_SLOTS / self.quantum);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle) { low = middle } else { high = middle }
        }
        low * self.quantum
    }

    /// Positions that one sequence alone may reach in such slots; `None` where every group gives back what is behind its
    /// window, so that slots bound nothing.
    pub(super) fn longest_sequence(&self, slots: &[usize]) -> Option<usize> {
        let slides =
            |window: Option<usize>, slots: usize| window.is_some_and(|window| slots >= window + 2 * self.quantum);
        let groups = self.windows.iter().zip(slots);
        let kept = groups.filter(|&(&window, &slots)| !slides(window, slots));
        kept.map(|(_, &slots)| slots).min()
    }
}

/// Slots of one KV group at most: half of what 32 bits count, so that sums of a slot and a number of tokens stay within them.
pub(super) const MOST_SLOTS: usize = 1 << 31;
