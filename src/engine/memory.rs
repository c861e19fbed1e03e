//! What an engine allocates on an adapter, computed before it does, and the longest context that this leaves room for.

use super::EngineOptions;
use super::limits::{CacheRoom, MOST_SLOTS, step_limits};
use crate::batch::StepLimits;
use crate::cost::AdapterClass;
use crate::decoder::{StepShape, attention_shape, kv_shape};
use crate::error::Error;
use crate::gpu::{Gpu, READ_BYTES, UPLOAD_BYTES};
use crate::kv_cache::{KvShape, KvTypes, UNREAD_BYTES};
use crate::ops::{ABSENT_BYTES, Types};
use crate::plan::{AttentionShape, CHUNK, Capacity, Numerics, split_bytes};
use crate::sampler::Sampler;
use crate::segments::QUANTUM;
use crate::weights::{GpuWeights, Rewrite};
use raglan_models::{Checkpoint, FormatUse, ModelSpec};
use raglan_shaders::AdapterLimits;

/// A storage binding at most, as wgpu has it on Vulkan and DX12.
pub const LARGEST_BINDING: u64 = (2 << 30) - 4;

/// The default context where the adapter does not tell its memory.
const UNKNOWN_MEMORY_CONTEXT: usize = 8192;

/// What a discrete GPU keeps free for its driver: pipelines, and blocks that small buffers share.
const DRIVER_BYTES: u64 = 128 << 20;

/// Drivers give memory in pages of up to 2 MiB: half a page is lost at the end of every large buffer. Where that is too little,
/// the cache is made smaller.
const LOST_BYTES: u64 = 1 << 20;

/// What an adapter offers an engine: one that is open, or a card that is not at hand.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Bytes that the engine may allocate; `None` where nobody tells.
    pub budget_bytes: Option<u64>,
    /// Whether nobody else uses that memory.
    pub is_its_own: bool,
    /// Decides schedules.
    pub class: AdapterClass,
    /// What kernels may count on.
    pub limits: AdapterLimits,
}

/// What keeps a context from being longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The adapter's memory.
    Memory,
    /// An arena of one layer has to lie within a storage binding.
    Binding,
    /// `kv_memory`.
    KvMemory,
    /// `max_context`.
    MaxContext,
    /// The positions that the model reaches.
    Positions,
    /// The adapter does not tell its memory, so that a short context is the default.
    MemoryUnknown,
}

/// The memory of an engine.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Memory {
    /// What the adapter offers.
    pub budget_bytes: Option<u64>,
    /// Weights, with their padding.
    pub weight_bytes: u64,
    /// The same by the format in which they lie there.
    #[serde(skip)]
    pub weight_formats: Vec<FormatUse>,
    /// What a step works in: activations, logits, work items, partial results, the table of RoPE.
    pub step_bytes: u64,
    /// Mapped memory through which inputs, outputs and weights go, which lies with the adapter or with the host.
    pub mapped_bytes: u64,
    /// What is kept free.
    pub free_bytes: u64,
    /// Bytes of one token's keys and values in all layers.
    pub slot_bytes: u64,
    /// Tokens of context that there is room for beside all that, whatever was asked for.
    pub fits: usize,
    /// What keeps it from being more.
    pub fits_bound_by: Bound,
    /// Slots of each KV group.
    pub slots: Vec<usize>,
    /// Bytes of the cache.
    pub kv_bytes: u64,
    /// Tokens that one sequence may have.
    pub longest_context: usize,
    /// What keeps it from being more.
    pub bound_by: Bound,
}

/// A [`Memory`], and what an engine is made of beside it.
pub(super) struct Arrangement {
    pub(super) memory: Memory,
    pub(super) kv_types: KvTypes,
    pub(super) attention: AttentionShape,
    pub(super) kv_shape: KvShape,
    pub(super) limits: StepLimits,
    pub(super) max_positions: usize,
    pub(super) quantum: usize,
    /// Mapped memory of a step's inputs.
    pub(super) input_bytes: u64,
}

impl Offer {
    /// What an open adapter offers.
    pub fn of(gpu: &Gpu, options: &EngineOptions) -> Offer {
        let own_class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
        Offer {
            budget_bytes: gpu.summary().memory.as_ref().map(|memory| memory.available_bytes()),
            is_its_own: gpu.summary().device_type == "discrete",
            class: options.class.unwrap_or(own_class),
            limits: gpu.limits().clone(),
        }
    }

    /// What a card of so much memory offers that computes in f16 and has Vulkan's usual limits.
    pub fn of_card(budget_bytes: u64) -> Offer {
        let limits = AdapterLimits {
            max_workgroup_lanes: 1024,
            max_workgroup_bytes: 48 << 10,
            max_workgroups: 65_535,
            max_binding_bytes: LARGEST_BINDING,
            shader_f16: true,
            subgroups: true,
            min_subgroup_lanes: 32,
            max_subgroup_lanes: 32,
            coop_side: 16,
        };
        Offer { budget_bytes: Some(budget_bytes), is_its_own: true, class: AdapterClass::Hardware, limits }
    }

    /// What stays free: for the driver, and on an adapter of its own memory for what is lost between so many large buffers;
    /// memory that others use too is left a tenth.
    fn free_bytes(&self, large_buffers: usize) -> u64 {
        match (self.budget_bytes, self.is_its_own) {
            (None, _) => 0,
            (Some(budget), true) => (budget / 10).min(DRIVER_BYTES + LOST_BYTES * large_buffers as u64),
            (Some(budget), false) => budget / 10,
        }
    }
}

impl Memory {
    /// The memory of an engine with a model on an adapter, whose RoPE is scaled as the options say.
    ///
    /// # Errors
    /// If `kv_memory` does not hold a quantum of slots, the vocabulary or the heads are too large, or a step of one token
    /// passes a binding.
    pub fn of(offer: &Offer, checkpoint: &Checkpoint, options: &EngineOptions) -> Result<Memory, Error> {
        let spec = options.spec(checkpoint);
        Ok(arrange(offer, checkpoint, &spec, options)?.memory)
    }

    /// All that an engine holds on the adapter but weights, keys and values.
    pub fn other_bytes(&self) -> u64 {
        self.step_bytes + self.mapped_bytes
    }

    /// What the arenas were made for in the end.
    pub(super) fn set_slots(&mut self, slots: &[usize], longest: usize, kv_bytes: u64) {
        if self.slots != slots {
            (self.slots, self.kv_bytes, self.bound_by) = (slots.to_vec(), kv_bytes, Bound::Memory);
            self.longest_context = longest;
        }
    }
}

/// Decides how much of everything an engine has.
///
/// # Errors
/// As [`Memory::of`].
pub(super) fn arrange(
    offer: &Offer,
    checkpoint: &Checkpoint,
    spec: &ModelSpec,
    options: &EngineOptions,
) -> Result<Arrangement, Error> {
    let types = Types::within(&offer.limits, options.dtype);
    let kv_types = options.kv_types(&offer.limits, spec.layers.len())?;
    let mut attention = attention_shape(spec, &kv_types)?;
    let kv_shape = kv_shape(spec, &attention, &kv_types);
    let windows: Vec<_> = attention.groups.iter().map(|group| group.window).collect();
    let turned = |layer| kv_types.turned(layer, spec.head_dim);
    let weights = GpuWeights::of(checkpoint, &Rewrite { quantize: options.quantize, rotation: &turned });
    let room = CacheRoom {
        shape: &kv_shape,
        windows: &windows,
        max_sequences: options.max_sequences,
        max_batch_tokens: options.max_batch_tokens,
        quantum: if options.deterministic { CHUNK } else { QUANTUM },
    };
    let by_binding = room.within_binding(offer.limits.max_binding_bytes);
    // No sequence is longer than a cache that has all that the weights leave.
    let reach = match offer.budget_bytes {
        Some(budget) => by_binding.min(room.within_bytes(budget.saturating_sub(weights.bytes))),
        None => by_binding,
    };
    let positions = spec.max_position_embeddings;
    let asked = options.max_context.unwrap_or(0).max(positions);
    let max_positions = match room.longest_sequence(&room.slots(reach)) {
        Some(reach) => asked.min(reach.max(positions)),
        // Where every layer has a window the slots last for ever: as long as fits is what the model reaches.
        None if options.max_context == Some(EngineOptions::AS_LONG_AS_FITS) => positions,
        None => asked.min(MOST_SLOTS),
    };
    if options.deterministic {
        attention.numerics = Numerics::Deterministic { longest_context: max_positions };
    }
    let limits = step_limits(offer.limits.max_binding_bytes, spec, &attention, options)?;
    let room = CacheRoom { max_sequences: limits.max_sequences, max_batch_tokens: limits.max_batch_tokens, ..room };
    let step = StepShape {
        spec,
        attention: &attention,
        limits: &limits,
        act_bytes: types.act_bytes(),
        gates_in_turn: weights.gates_in_turn,
        max_positions,
    };
    let products = split_bytes(offer.class, attention.numerics);
    let unread = ABSENT_BYTES + UNREAD_BYTES;
    let step_bytes =
        step.bytes() + Sampler::bytes(spec.vocab_size, &limits) + products + unread + kv_shape.mean_bytes();
    let input_bytes = input_bytes(&attention, &limits);
    let ring = (options.pipeline as u64 + 1) * (input_bytes + Sampler::output_bytes(&limits));
    let mapped_bytes = ring + UPLOAD_BYTES + READ_BYTES;
    let free_bytes = offer.free_bytes(weights.buffers + 3 * spec.layers.len());
    let beside = weights.bytes + step_bytes + mapped_bytes + free_bytes;
    let left = offer.budget_bytes.map(|budget| budget.saturating_sub(beside));

    let by_memory = left.map_or(usize::MAX, |left| room.within_bytes(left));
    let (fits, fits_bound_by) =
        if by_memory < by_binding { (by_memory, Bound::Memory) } else { (by_binding, Bound::Binding) };
    let (wanted, wanted_by) = wanted(&room, spec, offer.budget_bytes.is_none(), options)?;
    let slots = room.slots(wanted.min(fits).max(QUANTUM));
    let longest_context = room.longest_sequence(&slots).map_or(max_positions, |longest| longest.min(max_positions));
    let bound_by = match room.longest_sequence(&slots) {
        None if max_positions > positions => Bound::MaxContext,
        None => Bound::Positions,
        Some(_) if fits < wanted => fits_bound_by,
        Some(_) => wanted_by,
    };
    let (fits, fits_bound_by) = match room.longest_sequence(&room.slots(fits)) {
        None => (max_positions, if max_positions > positions { Bound::MaxContext } else { Bound::Positions }),
        Some(_) => (fits, fits_bound_by),
    };
    let memory = Memory {
        budget_bytes: offer.budget_bytes,
        weight_bytes: weights.bytes,
        weight_formats: weights.formats,
        step_bytes,
        mapped_bytes,
        free_bytes,
        slot_bytes: kv_shape.slot_bytes(),
        fits,
        fits_bound_by,
        kv_bytes: kv_shape.bytes(&slots),
        slots,
        longest_context,
        bound_by,
    };
    let quantum = room.quantum;
    Ok(Arrangement { memory, kv_types, attention, kv_shape, limits, max_positions, quantum, input_bytes })
}

/// The context in all that was asked for, else one of the model's positions.
fn wanted(
    room: &CacheRoom<'_>,
    spec: &ModelSpec,
    is_unknown: bool,
    options: &EngineOptions,
) -> Result<(usize, Bound), Error> {
    let positions = spec.max_position_embeddings;
    let by_kv_memory = match options.kv_memory {
        None => None,
        Some(bytes) if bytes < room.least_bytes() => {
            let (tokens, least) = (room.quantum, room.least_bytes());
            let message = format!("kv_memory is {bytes} bytes; the least, {tokens} tokens, takes {least}");
            return Err(Error::Request { message });
        }
        Some(bytes) => Some(room.within_bytes(bytes)),
    };
    Ok(match (options.max_context, by_kv_memory) {
        (Some(context), Some(held)) if held < context => (held, Bound::KvMemory),
        (Some(context), _) => (context, Bound::MaxContext),
        (None, Some(held)) => (held, if held > positions { Bound::Positions } else { Bound::KvMemory }),
        // Without a word on memory, a cache for all positions of a long-context model could be larger than the machine.
        (None, None) if is_unknown && positions > UNKNOWN_MEMORY_CONTEXT => {
            (UNKNOWN_MEMORY_CONTEXT, Bound::MemoryUnknown)
        }
        (None, None) => (positions, Bound::Positions),
    })
}

/// Bytes that a step's inputs take on their way to the adapter.
fn input_bytes(attention: &AttentionShape, limits: &StepLimits) -> u64 {
    let bytes = Capacity::of(attention, limits).input_bytes()
        + 16 * limits.max_adjustments
        + 8 * (1 + attention.groups.len()) * limits.max_batch_tokens
        + 32 * limits.max_sequences;
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_models::Synthetic;

    fn of(model: &str, budget_bytes: u64, options: EngineOptions) -> Memory {
        let checkpoint = Checkpoint::synthetic(Synthetic::parse(model).expect("it is there"));
        Memory::of(&Offer::of_card(budget_bytes), &checkpoint, &options).expect("it fits")
    }

    /// As a bench of the longest context has it.
    fn alone() -> EngineOptions {
        EngineOptions {
            max_sequences: 1,
            max_context: Some(EngineOptions::AS_LONG_AS_FITS),
            ..EngineOptions::default()
        }
    }

    #[test]
    fn a_large_card_holds_nearly_all_that_the_weights_leave_in_keys_and_values() {
        for model in ["synthetic:llama-2-13b", "synthetic:llama-2-13b:q8", "synthetic:llama-2-7b"] {
            let memory = of(model, 80 << 30, alone());
            let room = (80u64 << 30) - memory.weight_bytes;
            let share = memory.kv_bytes as f64 / room as f64;
            assert!(
                memory.other_bytes() <= 300_000_000,
                "{model}: {} bytes beside weights and cache",
                memory.other_bytes()
            );
            assert!(share >= 0.98, "{model}: {share} of what is left: {memory:?}");
            assert_eq!((memory.bound_by, memory.longest_context), (Bound::Memory, memory.fits));
        }
    }

    #[test]
    fn what_bounds_a_context_is_told() {
        let model = "synthetic:llama-2-7b:q4";
        let asked = |options: EngineOptions| {
            let memory = of(model, 24 << 30, EngineOptions { max_sequences: 1, ..options });
            (memory.longest_context, memory.bound_by)
        };
        assert_eq!(asked(EngineOptions::default()), (4096, Bound::Positions));
        let yarn = Some(raglan_models::RopeOverride::Yarn(4.0));
        assert_eq!(asked(EngineOptions { rope_scaling: yarn, ..EngineOptions::default() }), (16_384, Bound::Positions));
        assert_eq!(
            asked(EngineOptions { max_context: Some(1000), ..EngineOptions::default() }),
            (1008, Bound::MaxContext)
        );
        let slot = of(model, 24 << 30, alone()).slot_bytes;
        assert_eq!(slot, 32 * 2 * 4096 * 2);
        let kv_memory = Some(100 * slot);
        assert_eq!(asked(EngineOptions { kv_memory, ..EngineOptions::default() }), (96, Bound::KvMemory));
        assert_eq!(asked(alone()).1, Bound::Memory);
        // A layer's keys of 8 heads in f32 fill a binding at half a million tokens.
        let f32 = EngineOptions { dtype: crate::ops::Dtype::F32, ..alone() };
        let memory = of("synthetic:llama-3.1-8b:q4", 1 << 40, f32);
        assert_eq!(
            (memory.fits, memory.fits_bound_by),
            ((LARGEST_BINDING / (4 * 8 * 128)) as usize / 16 * 16, Bound::Binding)
        );
        let unknown = Offer { budget_bytes: None, ..Offer::of_card(0) };
        let checkpoint = Checkpoint::synthetic(Synthetic::parse("synthetic:qwen3-8b").expect("it is there"));
        let memory = Memory::of(&unknown, &checkpoint, &EngineOptions::default()).expect("it fits");
        assert_eq!((memory.longest_context, memory.bound_by), (8192, Bound::MemoryUnknown));
    }

    #[test]
    fn a_model_of_windows_alone_is_as_long_as_it_was_trained_for_or_as_was_typed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mistral_swa");
        let checkpoint = Checkpoint::open(std::path::Path::new(folder)).expect("the golden fixture opens");
        let offer = Offer::of_card(24 << 30);
        let of = |options: EngineOptions| Memory::of(&offer, &checkpoint, &options).expect("it fits");
        let positions = checkpoint.spec().max_position_embeddings;
        for deterministic in [false, true] {
            let memory = of(EngineOptions { deterministic, ..alone() });
            assert_eq!((memory.longest_context, memory.fits), (positions, positions), "{memory:?}");
            assert_eq!((memory.bound_by, memory.fits_bound_by), (Bound::Positions, Bound::Positions));
            assert!(memory.other_bytes() <= 300_000_000, "{memory:?}");
            let typed = Some(1_000_000);
            let memory = of(EngineOptions { deterministic, max_context: typed, ..alone() });
            assert_eq!((memory.longest_context, memory.bound_by), (1_000_000, Bound::MaxContext), "{memory:?}");
            assert_eq!(memory.fits, 1_000_000);
        }
    }

    #[test]
    fn less_memory_never_means_more_context() {
        let mut last = usize::MAX;
        for gib in [80, 48, 24, 20, 16, 15, 14, 8, 1] {
            let memory = of("synthetic:llama-2-7b", gib << 30, alone());
            assert!(memory.fits <= last, "{gib} GiB: {memory:?}");
            last = memory.fits;
            let held =
                memory.weight_bytes + memory.other_bytes() + memory.free_bytes + memory.fits as u64 * memory.slot_bytes;
            assert!(memory.fits == 0 || held <= gib << 30, "{gib} GiB: {memory:?}");
        }
        assert_eq!(last, 0);
    }
}
