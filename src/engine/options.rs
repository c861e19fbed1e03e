//! What an engine is started with, and what that means for its scheduler.

use crate::cost::{AdapterClass, ModelCost};
use crate::error::Error;
use crate::kv_cache::{KvShape, KvTypes};
use crate::ops::{Dtype, Types};
use crate::plan::CHUNK;
use crate::scheduler::SchedulerOptions;
use crate::schedules::Mode;
use raglan_models::{Checkpoint, ModelSpec, QuantizeTo, RopeOverride};
use raglan_shaders::{AdapterLimits, KvType};
use std::path::PathBuf;

/// What an engine is started with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Slots of the KV cache, or [`EngineOptions::AS_LONG_AS_FITS`]; `None` takes what `kv_memory` holds, else the model's positions, or as many as there is room for.
    pub max_context: Option<usize>,
    /// Bytes that the KV cache may take; `None` is bounded by the adapter's memory alone.
    pub kv_memory: Option<u64>,
    /// Tokens of one step at most.
    pub max_batch_tokens: usize,
    /// Sequences of one step at most.
    pub max_sequences: usize,
    /// Steps in flight: 1 collects each before the next is submitted, 2 after.
    pub pipeline: usize,
    /// The type of matrix products' inputs, of keys and of values.
    pub dtype: Dtype,
    /// What takes the place of the checkpoint's RoPE scaling; the positions that the model reaches follow.
    pub rope_scaling: Option<RopeOverride>,
    /// The types of keys and values, where they are others.
    pub kv_types: Option<KvTypes>,
    /// A text by which the mean of quantised keys is found; `None` takes random tokens.
    pub kv_calibration: Option<Vec<u32>>,
    /// What the weights are quantised to as they are loaded, embedding and `lm_head` apart.
    pub quantize: Option<QuantizeTo>,
    /// Logits are the same bits whatever runs beside a sequence, in which chunks it is computed and where it lies.
    pub deterministic: bool,
    /// A few rows meet weights that are stored in blocks in 8 bits, rounded 16 or 32 values at a time.
    pub int8_activations: bool,
    /// Predicted time of a step at most, in milliseconds; `None` keeps far from the adapter's watchdog.
    pub max_step_ms: Option<f64>,
    /// By how much a prompt that is being read may lengthen a step of running answers, in milliseconds; `None` takes a
    /// third of the longest step.
    pub max_delay_ms: Option<f64>,
    /// Whether requests share the keys and values of equal prefixes, and leave theirs for later ones.
    pub prefix_cache: bool,
    /// Bytes of host memory for the keys and values of sequences that gave way to others; 0 computes them again.
    pub swap_memory: u64,
    /// How schedules are chosen.
    pub tuner: Mode,
    /// Whether the three best by prediction are timed for the model's products when it is loaded.
    pub calibrate: bool,
    /// Where a user's weights of the tuner lie, a folder an adapter type.
    pub tuner_dir: Option<PathBuf>,
    /// The class whose schedules are taken instead of the adapter's own: for tests of what runs on hardware.
    #[doc(hidden)]
    pub class: Option<AdapterClass>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            max_context: None,
            kv_memory: None,
            max_batch_tokens: 512,
            max_sequences: 64,
            pipeline: 2,
            dtype: Dtype::default(),
            rope_scaling: None,
            kv_types: None,
            kv_calibration: None,
            quantize: None,
            deterministic: false,
            int8_activations: false,
            max_step_ms: None,
            max_delay_ms: None,
            prefix_cache: true,
            swap_memory: 2 << 30,
            tuner: Mode::default(),
            calibrate: false,
            tuner_dir: None,
            class: None,
        }
    }
}

impl EngineOptions {
    /// A `max_context` that asks for the longest that there is room for; where every layer has a window, and slots bound
    /// nothing, for the model's positions.
    pub const AS_LONG_AS_FITS: usize = usize::MAX;

    /// A checkpoint's model, with the RoPE scaling that is wanted.
    pub fn spec(&self, checkpoint: &Checkpoint) -> ModelSpec {
        let spec = checkpoint.spec();
        self.rope_scaling.map_or_else(|| spec.clone(), |scaling| scaling.apply(spec))
    }

    /// The types of the layers' keys and values on an adapter of such limits.
    ///
    /// # Errors
    /// If the model has fewer layers than they name, or one is f16 where the adapter does not compute in f16.
    pub fn kv_types(&self, limits: &AdapterLimits, layers: usize) -> Result<KvTypes, Error> {
        let kv_types = self.kv_types.clone().unwrap_or_else(|| Types::within(limits, self.dtype).kv.into());
        kv_types.check(layers)?;
        if kv_types.of_layers(layers).contains(&KvType::F16) && !limits.shader_f16 {
            let message = "keys and values in f16: the adapter does not compute in f16, or is not to".to_owned();
            return Err(Error::Request { message });
        }
        Ok(kv_types)
    }
}

/// The same layers in floats, as `types` say; those that are floats keep their type.
pub(super) fn base_types(types: &Types, kv_types: &KvTypes, layers: usize) -> KvTypes {
    let of = |(layer, kv): (usize, KvType)| (layer..layer + 1, if kv.is_quantised() { types.kv } else { kv });
    let layers = kv_types.of_layers(layers).into_iter().enumerate().map(of).collect();
    KvTypes { layers, ..KvTypes::from(types.kv) }
}

pub(super) fn scheduler_options(options: &EngineOptions, class: AdapterClass) -> SchedulerOptions {
    // Nothing watches a software adapter, and its steps are slow.
    let max_step_ms = options.max_step_ms.unwrap_or(if class == AdapterClass::Software { 6000.0 } else { 150.0 });
    let max_delay_ms = options.max_delay_ms.unwrap_or(max_step_ms / 3.0);
    SchedulerOptions {
        max_step_us: 1e3 * max_step_ms,
        max_delay_us: 1e3 * max_delay_ms,
        host_bytes: options.swap_memory,
        prefix_cache: options.prefix_cache,
        fork_quantum: if options.deterministic { CHUNK } else { 1 },
        ..SchedulerOptions::default()
    }
}

/// What of a model decides the time of its steps.
pub(super) fn model_cost(spec: &ModelSpec, shape: &KvShape, windows: &[Option<usize>], weight_bytes: u64) -> ModelCost {
    let hidden = spec.hidden_size as f64;
    let (heads, kv_heads) = (spec.num_attention_heads as f64, spec.num_key_value_heads as f64);
    let head_dim = spec.head_dim as f64;
    let layer_params =
        hidden * head_dim * (2.0 * heads + 2.0 * kv_heads) + 3.0 * hidden * spec.intermediate_size as f64;
    let layers = spec.layers.len() as f64;
    ModelCost {
        weight_bytes: weight_bytes as f64,
        token_flops: 2.0 * layers * layer_params,
        slot_bytes: shape.slot_bytes() as f64,
        // Products with keys and with values, two operations each.
        pair_flops: 4.0 * layers * heads * head_dim,
        window: windows.first().copied().flatten().filter(|_| windows.windows(2).all(|pair| pair[0] == pair[1])),
    }
}
