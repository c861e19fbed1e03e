//! How much a step and the KV cache may hold on an adapter.

use super::EngineOptions;
use crate::batch::StepLimits;
use crate::decoder::{largest_array_bytes, logits_row_bytes};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::kv_cache::KvShape;
use crate::plan::AttentionShape;
use crate::segments::{MAX_SEGMENTS, QUANTUM};
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
            // A sequence of as many segments as there may be, and one more, has room for a token.
            max_split_rows: tokens.max(MAX_SEGMENTS + 1),
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

/// The default context where the adapter does not tell its memory.
const UNKNOWN_MEMORY_CONTEXT: usize = 8192;

/// Slots of the cache: what was asked for, else the model's positions; never more than a binding or the memory holds.
pub(super) fn slots(gpu: &Gpu, spec: &ModelSpec, shape: &KvShape, weight_bytes: u64, options: &EngineOptions) -> usize {
    // Without a word on memory, a cache for all positions of a long-context model could be larger than the machine.
    let default = match gpu.summary().memory {
        Some(_) => spec.max_position_embeddings,
        None => spec.max_position_embeddings.min(UNKNOWN_MEMORY_CONTEXT),
    };
    let wanted = options.max_context.unwrap_or(default).next_multiple_of(QUANTUM);
    wanted.min(longest_context(gpu, shape, weight_bytes)).max(QUANTUM)
}

/// The most slots that fit beside the weights: within a binding an arena, within the adapter's memory in all.
pub fn longest_context(gpu: &Gpu, shape: &KvShape, weight_bytes: u64) -> usize {
    let binding = gpu.limits().max_binding_bytes / shape.arena_slot_bytes();
    let memory = gpu.summary().memory.as_ref().map_or(u64::MAX, |memory| memory.available_bytes());
    // A tenth stays for a step's scratch memory and for others.
    let room = (memory / 10 * 9).saturating_sub(weight_bytes) / shape.slot_bytes();
    (binding.min(room) as usize) / QUANTUM * QUANTUM
}
