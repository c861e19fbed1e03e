//! Reads a short text to find what quantised keys lose before they are rounded, and tells which layers their type does not suit.

use super::EngineOptions;
use super::options::base_types;
use crate::batch::{Batch, StepLimits};
use crate::cost::AdapterClass;
use crate::decoder::{Decoder, attention_shape, kv_shape};
use crate::error::Error;
use crate::gpu::{Gpu, StepRing};
use crate::kv_cache::{Fidelity, KvCache, KvTypes, Turn, fidelity, spread};
use crate::ops::{Kernels, Ops, Types};
use crate::plan::Planner;
use crate::sampler::Sampler;
use crate::segments::{QUANTUM, Segment};
use crate::weights::Weights;
use half::f16;
use raglan_models::ModelSpec;
use raglan_shaders::kv_rows::Side;
use raglan_shaders::{KvType, rotation};
use std::time::Instant;

/// Tokens that are read at most: enough for means within a twentieth of what rows differ by; on a software adapter, which takes
/// seconds for them, for a tenth.
const MOST_TOKENS: usize = 512;
const SOFTWARE_TOKENS: usize = 128;

/// Tokens of a step: few, so that it is short on any adapter, and the same everywhere, so that it computes the same.
const STEP_TOKENS: usize = 32;

/// Rows of a head that are rounded to see how well they are held.
const LOOKED_ROWS: usize = 64;

/// What rounding may move of a row, as a share of how far rows differ, before it is told. In int4 SmolLM2-135M-Instruct (weights in
/// Q4_1) has up to 0.19 in 27 of its 30 layers, and 0.24, 0.22 and 0.22 in layers 2, 11 and 19. Perplexity of 510 tokens of wikitext-2
/// is 29.22 in int4 and 27.69 in f16, and 28.31 where layers 2 and 11 are f16: two layers of thirty cost more than all others. In int8
/// all have less than 0.04, and perplexity is 27.65.
const MOST_ERROR: f64 = 0.2;

/// What was found of a layer.
#[derive(Debug, Clone)]
pub(super) struct LayerFound {
    /// What keys lose: `[num_kv_heads, head_dim]`.
    pub(super) mean: Vec<f64>,
    /// The head whose keys are held worst.
    pub(super) keys: Fidelity,
    /// The head whose values are held worst.
    pub(super) values: Fidelity,
}

/// Reads the text that `options` give, or seeded random tokens, with a cache of floats that is freed again, and finds what each
/// quantised layer's keys lose for contexts of up to `positions` tokens. `None` for layers of floats. Gives the weights back.
///
/// # Errors
/// If the adapter was lost or has no room for a few tokens.
pub(super) fn find(
    gpu: &Gpu,
    spec: &ModelSpec,
    weights: Weights,
    (types, kv_types): (&Types, &KvTypes),
    options: &EngineOptions,
    positions: usize,
) -> Result<(Weights, Vec<Option<LayerFound>>), Error> {
    let began = Instant::now();
    let most = if gpu.is_software() { SOFTWARE_TOKENS } else { MOST_TOKENS };
    let tokens = text(options, spec, most);
    let reader = Reader::new(gpu, spec, weights, types, kv_types, tokens.len())?;
    // Fewer where there is no room for more.
    let count = tokens.len().min(reader.cache.slots[0]);
    log::info!("keys and values: reading {count} tokens to find what quantised keys lose");
    reader.read(gpu, &tokens[..count])?;
    let mut found = Vec::new();
    for layer in 0..spec.layers.len() {
        let kv = kv_types.of_layer(layer);
        let of_layer = || -> Result<LayerFound, Error> {
            let rows = reader.rows(gpu, layer, count)?;
            Ok(look(spec, layer, kv_types, rows, positions))
        };
        found.push(kv.is_quantised().then(of_layer).transpose()?);
    }
    log::info!("keys and values: {count} tokens read in {:.0} ms", 1e3 * began.elapsed().as_secs_f64());
    Ok((reader.decoder.into_weights(), found))
}

/// What is read.
fn text(options: &EngineOptions, spec: &ModelSpec, most: usize) -> Vec<u32> {
    let most = most.min(spec.max_position_embeddings).max(1);
    let in_vocabulary = |token: &u32| (*token as usize) < spec.vocab_size;
    match &options.kv_calibration {
        Some(tokens) if !tokens.is_empty() && tokens.iter().all(in_vocabulary) => {
            tokens.iter().copied().take(most).collect()
        }
        _ => {
            let mut state = 0x9e37_79b9_7f4a_7c15u64;
            let next = |_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                ((state >> 33) % spec.vocab_size as u64) as u32
            };
            (0..most).map(next).collect()
        }
    }
}

/// The model with a cache of floats.
struct Reader {
    kernels: Kernels,
    decoder: Decoder,
    cache: KvCache,
    sampler: Sampler,
    ring: StepRing,
}

impl Reader {
    fn new(
        gpu: &Gpu,
        spec: &ModelSpec,
        weights: Weights,
        types: &Types,
        kv_types: &KvTypes,
        tokens: usize,
    ) -> Result<Reader, Error> {
        let floats = base_types(types, kv_types, spec.layers.len());
        let attention = attention_shape(spec, &floats)?;
        let shape = kv_shape(spec, &attention, &floats);
        let limits = StepLimits { max_batch_tokens: STEP_TOKENS, max_sequences: 1, max_adjustments: 1 };
        let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
        let groups = attention.groups.len();
        let kernels = Kernels::new(gpu, *types, Planner::new(attention, class, gpu.limits(), &limits))?;
        let ring_bytes = kernels.planner.capacity().input_bytes() + 8 * (1 + groups) * STEP_TOKENS + 64;
        let cache = KvCache::allocate(gpu, &shape, &vec![tokens.next_multiple_of(QUANTUM); groups], QUANTUM)?;
        Ok(Reader {
            decoder: Decoder::new(gpu, spec, weights, &kernels, &limits, tokens)?,
            sampler: Sampler::new(gpu, spec.vocab_size, &limits)?,
            ring: gpu.step_ring(1, ring_bytes as u64, 16)?,
            kernels,
            cache,
        })
    }

    fn read(&self, gpu: &Gpu, tokens: &[u32]) -> Result<(), Error> {
        let groups = self.cache.slots.len();
        for (index, part) in tokens.chunks(STEP_TOKENS).enumerate() {
            let mut batch = Batch::new(groups);
            let all = [Segment { first_slot: 0, first_position: 0, count: tokens.len() }];
            batch.push(part.iter().copied(), index * STEP_TOKENS, &vec![all; groups]);
            let plan = self.kernels.planner.plan(&batch);
            let mut ops = Ops { recorder: gpu.begin_step(&self.ring), kernels: &self.kernels, plan: &plan };
            self.decoder.write_inputs(&mut ops, &batch);
            self.decoder.forward(&mut ops, &batch, &self.cache, self.sampler.samples(), 0);
            ops.recorder.submit()?.collect()?;
        }
        Ok(())
    }

    /// Keys and values of a layer: `[num_kv_heads, tokens, head_dim]` each.
    fn rows(&self, gpu: &Gpu, layer: usize, tokens: usize) -> Result<[Vec<f64>; 2], Error> {
        let all = vec![[Segment { first_slot: 0, first_position: 0, count: tokens }]; self.cache.slots.len()];
        let bytes = self.cache.save_layer(gpu, layer, &all)?;
        let (shape, kv) = (self.cache.shape(), self.cache.layers[layer].kv);
        let stride = shape.head_stride(kv);
        let values: Vec<f64> = match kv {
            KvType::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).into_iter().map(f64::from).collect(),
            _ => bytemuck::pod_collect_to_vec::<u8, f16>(&bytes).into_iter().map(f64::from).collect(),
        };
        let unpadded =
            |half: &[f64]| half.chunks_exact(stride).flat_map(|row| &row[..shape.head_dim]).copied().collect();
        let (keys, values) = values.split_at(values.len() / 2);
        Ok([unpadded(keys), unpadded(values)])
    }
}

/// The means of a layer's keys, zeros where they are not centred, and how well its type holds them and the values.
fn look(
    spec: &ModelSpec,
    layer: usize,
    kv_types: &KvTypes,
    [keys, values]: [Vec<f64>; 2],
    positions: usize,
) -> LayerFound {
    let (kv, head_dim) = (kv_types.of_layer(layer), spec.head_dim);
    let rotation = if kv_types.rotate { rotation(head_dim) } else { 0 };
    let inv_freq = if spec.layers[layer].rope { spec.rope.inv_freq() } else { Vec::new() };
    let (turn, zeros) = (Turn { inv_freq }, vec![0.0; head_dim]);
    let head = keys.len() / spec.num_key_value_heads;
    let looked = head.min(LOOKED_ROWS * head_dim);
    let mut found = LayerFound { mean: Vec::new(), keys: Fidelity::default(), values: Fidelity::default() };
    for (keys, values) in keys.chunks_exact(head).zip(values.chunks_exact(head)) {
        let unturned = turn.unturned(keys, head_dim);
        let differ = spread(&unturned, head_dim);
        // As they would lie all over the longest context.
        let spread_out = turn.turned(&unturned[..looked], head_dim, |row| row * positions * head_dim / looked);
        let average = turn.average(&unturned, head_dim, positions);
        let [centred, uncentred] =
            [&average, &zeros].map(|mean| fidelity(kv, Side::Key, &spread_out, mean, rotation, differ));
        // Channels that turn neither often nor hardly may lose by it.
        let (mean, held) = match kv_types.center && centred.error < uncentred.error {
            true => (average, centred),
            false => (zeros.clone(), uncentred),
        };
        found.mean.extend(mean);
        found.keys = found.keys.worse(held);
        let held = fidelity(kv, Side::Value, &values[..looked], &zeros, rotation, spread(values, head_dim));
        found.values = found.values.worse(held);
    }
    found
}

/// Tells once which layers their type does not suit, and how to keep those in floats.
pub(super) fn warn(spec: &ModelSpec, (types, kv_types): (&Types, &KvTypes), found: &[Option<LayerFound>]) {
    let is_quantised = (0..spec.layers.len()).any(|layer| kv_types.of_layer(layer).is_quantised());
    if is_quantised && spec.has.qkv_bias && !kv_types.center {
        log::warn!(
            "keys of this family ({}) have biases, which take the range of quantised keys that are not centred: leave \
             :uncentred out",
            spec.family
        );
    }
    for (layer, found) in found.iter().enumerate() {
        if let Some(LayerFound { keys, values, .. }) = found {
            log::debug!("layer {layer}, {}: keys {keys:.4?}, values {values:.4?}", kv_types.of_layer(layer));
        }
    }
    if let Some((error, floats)) = unsuited(found, types.kv) {
        let kept = KvTypes { layers: [&kv_types.layers[..], &floats.layers].concat(), ..kv_types.clone() };
        let (named, float) = (named(kv_types, &floats), types.kv);
        log::warn!(
            "keys or values of layers {named} are rounded by up to {:.0} % of what they differ by, or those of the first token, on \
             which attention may rest: answers may suffer; --kv-type {kept} keeps these layers in {float}",
            100.0 * error
        );
    }
}

/// The layers that `floats` names, each with its own type: `0-1 (int4), 7 (k8v4)`.
fn named(kv_types: &KvTypes, floats: &KvTypes) -> String {
    let layers: Vec<usize> = floats.layers.iter().flat_map(|(layers, _)| layers.clone()).collect();
    let goes_on = |a: &usize, b: &usize| a + 1 == *b && kv_types.of_layer(*a) == kv_types.of_layer(*b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last} ({})", kv_types.of_layer(*first)),
        _ => format!("{} ({})", run[0], kv_types.of_layer(run[0])),
    };
    layers.chunk_by(goes_on).map(run).collect::<Vec<_>>().join(", ")
}

/// The worst error over [`MOST_ERROR`], and the layers that have such, each as `float`.
fn unsuited(found: &[Option<LayerFound>], float: KvType) -> Option<(f64, KvTypes)> {
    let (mut worst, mut kept) = (0.0, KvTypes::from(float));
    for (layer, found) in found.iter().enumerate() {
        let Some(LayerFound { keys, values, .. }) = found else { continue };
        let error = keys.error.max(keys.first_error).max(values.error).max(values.first_error);
        if error <= MOST_ERROR {
            continue;
        }
        worst = f64::max(worst, error);
        match kept.layers.last_mut() {
            Some((last, _)) if last.end == layer => last.end = layer + 1,
            _ => kept.layers.push((layer..layer + 1, float)),
        }
    }
    (!kept.layers.is_empty()).then_some((worst, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_with_large_errors_are_named_in_runs() {
        let of = |error: f64| {
            let held = Fidelity { error, ..Fidelity::default() };
            Some(LayerFound { mean: Vec::new(), keys: held, values: Fidelity::default() })
        };
        let over = 2.0 * MOST_ERROR;
        let found = [of(over), of(over), of(0.1), None, of(3.0 * MOST_ERROR)];
        let (worst, kept) = unsuited(&found, KvType::F16).expect("three are over");
        assert_eq!((worst, kept.to_string().as_str()), (3.0 * MOST_ERROR, "f16,0-1=f16,4=f16"));
        assert!(unsuited(&[of(0.1), None], KvType::F16).is_none());
        let types: KvTypes = "f16,0=int4,1=k8v4,3-4=int4".parse().expect("it is sound");
        assert_eq!(named(&types, &kept), "0 (int4), 1 (k8v4), 4 (int4)");
        assert_eq!(named(&KvType::Int4.into(), &kept), "0-1 (int4), 4 (int4)");
    }
}
