//! How much a step and the KV cache may hold on an adapter.

use super::EngineOptions;
use crate::batch::StepLimits;
use crate::decoder::{largest_array_bytes, logits_row_bytes};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::kv_cache::KvShape;
use crate::plan::AttentionShape;
use crate::segments::QUANTUM;
use raglan_models::ModelSpec;

/// Tokens of a step at most, whatever is asked for: what stays within the workgroups of a dispatch.
const MOST_BATCH_TOKENS: usize = 8192;

/// What a step may hold: the options, less where an array of a step would pass a binding.
pub(super) fn step_limits(
    gpu: &Gpu,
    spec: &ModelSpec,
    attention: &AttentionShape,
    options: &EngineOptions,
) -> Result<StepLimits, Error> {
    let binding = gpu.limits().max_binding_bytes;
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

/// What a discrete GPU keeps free at most; the cache is made smaller where that is too little.
const RESERVE_BYTES: u64 = 1 << 30;

/// The default context where the adapter does not tell its memory.
const UNKNOWN_MEMORY_CONTEXT: usize = 8192;

/// What decides how many slots each KV group gets.
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
    fn slots(&self, context: usize) -> Vec<usize> {
        let of = |window: &Option<usize>| match window {
            Some(window) => {
                let held = (window + self.max_batch_tokens).next_multiple_of(self.quantum) + 2 * self.quantum;
                context.min(held.saturating_mul(self.max_sequences))
            }
            None => context,
        };
        self.windows.iter().map(of).map(|slots| slots.next_multiple_of(self.quantum).max(self.quantum)).collect()
    }

    /// The longest context in all whose slots fit an adapter beside `weight_bytes`, and `kv_bytes` where they are given.
    fn longest_context(&self, gpu: &Gpu, weight_bytes: u64, kv_bytes: Option<u64>) -> usize {
        let binding = gpu.limits().max_binding_bytes;
        let memory = gpu.summary().memory.as_ref().map_or(u64::MAX, |memory| memory.available_bytes());
        // What stays for a step's scratch memory and the driver; memory that others use too is left a tenth, however large.
        let is_its_own = gpu.summary().device_type == "discrete";
        let rest = if is_its_own { (memory / 10).min(RESERVE_BYTES) } else { memory / 10 };
        let room = (memory - rest).saturating_sub(weight_bytes).min(kv_bytes.unwrap_or(u64::MAX));
        let fits = |quanta: usize| {
            let slots = self.slots(quanta * self.quantum);
            let largest = slots.iter().max().copied().unwrap_or(0) as u64 * self.shape.arena_slot_bytes();
            largest <= binding && self.shape.bytes(&slots) <= room
        };
        let (mut low, mut high) = (0, (u32::MAX as usize) / self.quantum);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle) { low = middle } else { high = middle }
        }
        low * self.quantum
    }

    /// Slots of every KV group: for what was asked for, else for the model's positions; never more than there is room for.
    ///
    /// # Errors
    /// If `kv_memory` does not hold a quantum of slots.
    pub(super) fn choose(
        &self,
        gpu: &Gpu,
        spec: &ModelSpec,
        weight_bytes: u64,
        options: &EngineOptions,
    ) -> Result<Vec<usize>, Error> {
        let least = self.shape.bytes(&self.slots(self.quantum));
        if let Some(bytes) = options.kv_memory.filter(|&bytes| bytes < least) {
            let tokens = self.quantum;
            let message = format!("kv_memory is {bytes} bytes; the least, {tokens} tokens, takes {least}");
            return Err(Error::Request { message });
        }
        let default = match (options.kv_memory, &gpu.summary().memory) {
            (Some(_), _) => usize::MAX / 2,
            (None, Some(_)) => spec.max_position_embeddings,
            // Without a word on memory, a cache for all positions of a long-context model could be larger than the machine.
            (None, None) => spec.max_position_embeddings.min(UNKNOWN_MEMORY_CONTEXT),
        };
        let wanted = options.max_context.unwrap_or(default);
        Ok(self.slots(wanted.min(self.longest_context(gpu, weight_bytes, options.kv_memory)).max(QUANTUM)))
    }
}

/// The most slots that fit beside the weights in every KV group: within a binding an arena, within the adapter's memory in
/// all.
pub fn longest_context(gpu: &Gpu, shape: &KvShape, weight_bytes: u64) -> usize {
    let windows = vec![None; shape.group_layers().len()];
    let room = CacheRoom { shape, windows: &windows, max_sequences: 1, max_batch_tokens: 1, quantum: QUANTUM };
    room.longest_context(gpu, weight_bytes, None)
}
