//! The forward pass: embed → layers → logits, one line an op. Model families are data.

mod size;
mod watch;

pub use size::StepShape;
pub use watch::{Watch, Watched};

use crate::batch::{Batch, StepLimits};
use crate::error::Error;
use crate::gpu::{Buffer, Gpu};
use crate::kv_cache::{KvCache, KvShape, KvTypes, LayerShape};
use crate::ops::{Kernels, Norm, Ops, Partials, Product, RopeShape, Rows, Types};
use crate::plan::{AttentionShape, Capacity, KvGroup, Numerics};
use crate::schedules::ProductKey;
use crate::weights::{LayerWeights, Matrix, Piece, Weights};
use raglan_models::{LayerSpec, ModelSpec};
use raglan_shaders::attention::AttentionItem;
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::move_rows::RowMove;
use raglan_shaders::{BLOCK, rope_append, rotation, round_up};

/// A model on the GPU: weights, and the memory that one step works in.
#[derive(Debug)]
pub struct Decoder {
    spec: ModelSpec,
    weights: Weights,
    shape: RopeShape,
    /// The KV groups.
    groups: Vec<KvGroup>,
    rope: Buffer,
    inputs: Inputs,
    scratch: Scratch,
    /// Gathers what matrices are multiplied by, where somebody asks.
    watch: Option<Watch>,
}

/// The arrays of a step on the GPU.
#[derive(Debug)]
struct Inputs {
    token_ids: Buffer,
    /// One a KV group.
    places: Vec<Buffer>,
    logit_rows: Buffer,
    moves: Buffer,
    partials: Partials,
}

/// What a step computes on the way, `[max_batch_tokens, …]` each.
#[derive(Debug)]
struct Scratch {
    residual: Rows,
    normed: Rows,
    qkv: Rows,
    /// One a KV group; groups of one stride share theirs.
    q: Vec<Rows>,
    attended: Rows,
    /// Empty where gates and ups are in turn in every layer.
    gate_up: Rows,
    activated: Rows,
    /// Two, so that a step's logits outlive the submission of the next.
    logits: [Rows; 2],
}

/// What of a model decides the plan of its attention and the size of its cache.
///
/// # Errors
/// If its heads are wider than the kernels are made for, or `kv_types` name a layer that it does not have.
pub fn attention_shape(spec: &ModelSpec, kv_types: &KvTypes) -> Result<AttentionShape, Error> {
    kv_types.check(spec.layers.len())?;
    let mut groups = Vec::new();
    for group in layer_groups(spec, kv_types) {
        group.kv.head_stride(spec.head_dim).ok_or(Error::HeadTooWide { met: spec.head_dim })?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(AttentionShape {
        num_heads: spec.num_attention_heads,
        num_kv_heads: spec.num_key_value_heads,
        head_dim: spec.head_dim,
        groups,
        numerics: Numerics::Fast,
    })
}

/// The KV group of every layer.
fn layer_groups(spec: &ModelSpec, kv_types: &KvTypes) -> impl Iterator<Item = KvGroup> {
    let group =
        |(layer, spec): (usize, &LayerSpec)| KvGroup { window: spec.sliding_window, kv: kv_types.of_layer(layer) };
    spec.layers.iter().enumerate().map(group)
}

/// What a slot of a model's cache takes.
pub fn kv_shape(spec: &ModelSpec, attention: &AttentionShape, kv_types: &KvTypes) -> KvShape {
    let layer = |group: KvGroup| {
        let place = attention.groups.iter().position(|listed| *listed == group);
        LayerShape { group: place.expect("every group is listed"), kv: group.kv }
    };
    KvShape {
        layers: layer_groups(spec, kv_types).map(layer).collect(),
        num_kv_heads: attention.num_kv_heads,
        head_dim: attention.head_dim,
        rotate: kv_types.rotate,
    }
}

impl Decoder {
    /// A decoder for contexts of up to `max_positions`.
    ///
    /// # Errors
    /// If the adapter has no room, or a step's memory passes a binding.
    pub fn new(
        gpu: &Gpu,
        spec: &ModelSpec,
        weights: Weights,
        kernels: &Kernels,
        limits: &StepLimits,
        max_positions: usize,
    ) -> Result<Decoder, Error> {
        let attention = kernels.planner.shape();
        let starts = &weights.layers[0].qkv.starts;
        let shape = RopeShape {
            num_heads: spec.num_attention_heads,
            num_kv_heads: spec.num_key_value_heads,
            head_dim: spec.head_dim,
            rotary_dim: spec.rope.rotary_dim,
            k_col: starts[1],
            v_col: starts[2],
        };
        let table = rope_append::table(&spec.rope.inv_freq(), spec.rope.attention_factor(), max_positions);
        let rope = gpu.buffer("rope table", size_of_val(&table[..]) as u64)?;
        gpu.upload(&rope, 0, bytemuck::cast_slice(&table))?;
        let inputs = Inputs::new(gpu, limits, kernels.planner.capacity(), attention)?;
        let scratch = Scratch::new(gpu, spec, &weights, &kernels.types, limits, attention)?;
        let groups = attention.groups.clone();
        Ok(Decoder { spec: spec.clone(), weights, shape, groups, rope, inputs, scratch, watch: None })
    }

    /// Its weights, for another decoder.
    pub fn into_weights(self) -> Weights {
        self.weights
    }

    /// The model.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Gathers what matrices are multiplied by from now on, or no longer; gives what did until now.
    pub fn set_watch(&mut self, watch: Option<Watch>) -> Option<Watch> {
        std::mem::replace(&mut self.watch, watch)
    }

    /// Every product of a step: what it is but for its rows, and whether those are rows of logits.
    pub fn products(&self) -> Vec<(ProductKey, bool)> {
        let pieces = |matrix: &Matrix, normed: bool, gated: bool, of_logits: bool| -> Vec<(ProductKey, bool)> {
            let key = |piece: &Piece| ProductKey {
                cols: piece.rows,
                inner: matrix.inner,
                format: piece.format,
                normed,
                gated,
            };
            matrix.pieces.iter().map(|piece| (key(piece), of_logits)).collect()
        };
        let layer = |w: &LayerWeights| {
            [
                pieces(&w.qkv, true, false, false),
                pieces(&w.o, false, false, false),
                pieces(&w.gate_up, true, w.gate_up.interleaved, false),
                pieces(&w.down, false, false, false),
            ]
            .concat()
        };
        let lm_head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embedding);
        self.weights.layers.iter().flat_map(layer).chain(pieces(lm_head, true, false, true)).collect()
    }

    /// The logits of a step of such a parity.
    pub fn logits(&self, parity: usize) -> &Rows {
        &self.scratch.logits[parity]
    }

    /// Writes a step's arrays to the GPU; comes before the step's first dispatch.
    pub fn write_inputs(&self, ops: &mut Ops<'_>, batch: &Batch) {
        let inputs = &self.inputs;
        ops.recorder.write(&inputs.token_ids, 0, bytemuck::cast_slice(&batch.token_ids));
        for (group, buffer) in batch.groups.iter().zip(&inputs.places) {
            let places: Vec<[u32; 2]> = batch.positions.iter().zip(&group.slots).map(|(&p, &s)| [p, s]).collect();
            ops.recorder.write(buffer, 0, bytemuck::cast_slice(&places));
        }
        ops.recorder.write(&inputs.logit_rows, 0, bytemuck::cast_slice(&batch.logit_rows));
        ops.recorder.write(&inputs.moves, 0, bytemuck::cast_slice(&ops.plan.moves));
        ops.recorder.write(&inputs.partials.items, 0, bytemuck::cast_slice(&ops.plan.items));
        ops.recorder.write(&inputs.partials.parts, 0, bytemuck::cast_slice(&ops.plan.parts));
        ops.recorder.write(&inputs.partials.merges, 0, bytemuck::cast_slice(&ops.plan.merges));
    }

    /// Records a step's moves and its forward pass; `samples` are the last step's. Returns logits `[logit_rows, vocab_size, padded]`,
    /// in one of two buffers by `parity`.
    pub fn forward(&self, ops: &mut Ops<'_>, batch: &Batch, kv: &KvCache, samples: &Buffer, parity: usize) -> &Rows {
        let (spec, shape, inputs, s) = (&self.spec, &self.shape, &self.inputs, &self.scratch);
        let tokens = batch.tokens();
        let norm = |weight| Norm { weight, cols: spec.hidden_size, eps: spec.rms_norm_eps, gather: None };
        let unturned = RopeShape { rotary_dim: 0, ..*shape };

        for layer in &kv.layers {
            ops.move_rows((layer, kv.slots[layer.group]), shape, &inputs.moves);
        }
        ops.embedding(&self.weights.embedding, &inputs.token_ids, samples, tokens, &s.residual); // [tokens, hidden]
        for (layer, w) in self.weights.layers.iter().enumerate() {
            let rope = if spec.layers[layer].rope { shape } else { &unturned };
            let group = kv.layers[layer].group;
            let (arenas, places) = ((&kv.layers[layer], kv.slots[group]), &inputs.places[group]);
            let q = &s.q[group];
            let qk_norm = w.qk_norm.as_ref().map(|(q, k)| (q, k, spec.rms_norm_eps));

            if let Some(watch) = &self.watch {
                ops.rms_norm(&s.residual, norm(&w.input_norm), tokens, &s.normed);
                watch.add(ops, layer, Watched::Qkv, &s.normed, tokens);
            }
            ops.norm_linear(&s.residual, norm(&w.input_norm), &w.qkv, tokens, &s.normed, Product::Stored(&s.qkv)); // [tokens, q + k + v]
            ops.rope_append(&s.qkv, places, tokens, rope, &self.rope, qk_norm, q, arenas); // [tokens, q]
            ops.attention(q, arenas, shape, self.groups[group].window, &inputs.partials, &s.attended); // [tokens, q]
            if kv.layers[layer].rotates_values() != w.o_rotated {
                ops.rotate_heads(&s.attended, tokens, shape, rotation(spec.head_dim)); // [tokens, q]
            }
            if let Some(watch) = &self.watch {
                watch.add(ops, layer, Watched::O, &s.attended, tokens);
            }
            ops.linear(&s.attended, &w.o, tokens, Product::Added(&s.residual)); // [tokens, hidden]

            let mlp_norm = norm(&w.post_attention_norm);
            if let Some(watch) = &self.watch {
                ops.rms_norm(&s.residual, mlp_norm, tokens, &s.normed);
                watch.add(ops, layer, Watched::GateUp, &s.normed, tokens);
            }
            if w.gate_up.interleaved {
                let gated = Product::Gated(&s.activated, spec.hidden_act);
                ops.norm_linear(&s.residual, mlp_norm, &w.gate_up, tokens, &s.normed, gated); // [tokens, intermediate]
            } else {
                ops.norm_linear(&s.residual, mlp_norm, &w.gate_up, tokens, &s.normed, Product::Stored(&s.gate_up)); // [tokens, gate + up]
                ops.gated_activation(&s.gate_up, w.gate_up.starts[1], tokens, spec.hidden_act, &s.activated); // [tokens, intermediate]
            }
            if let Some(watch) = &self.watch {
                watch.add(ops, layer, Watched::Down, &s.activated, tokens);
            }
            ops.linear(&s.activated, &w.down, tokens, Product::Added(&s.residual)); // [tokens, hidden]
        }
        let (rows, logits) = (batch.logit_rows.len(), &s.logits[parity]);
        if rows > 0 {
            let lm_head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embedding);
            let final_norm = Norm { gather: Some(&inputs.logit_rows), ..norm(&self.weights.final_norm) };
            ops.norm_linear(&s.residual, final_norm, lm_head, rows, &s.normed, Product::Stored(logits)); // [rows, vocab]
        }
        logits
    }
}

impl Inputs {
    fn new(gpu: &Gpu, limits: &StepLimits, capacity: Capacity, shape: &AttentionShape) -> Result<Inputs, Error> {
        let words = |label, count: usize| gpu.buffer(label, 4 * count.max(1) as u64);
        Ok(Inputs {
            token_ids: words("token ids", limits.max_batch_tokens)?,
            places: shape
                .groups
                .iter()
                .map(|_| words("positions and slots", 2 * limits.max_batch_tokens))
                .collect::<Result<_, Error>>()?,
            logit_rows: words("logit rows", limits.max_sequences)?,
            moves: words("moves", capacity.moves * size_of::<RowMove>() / 4)?,
            partials: Partials {
                items: words("attention items", capacity.items * size_of::<AttentionItem>() / 4)?,
                merges: words("attention merges", capacity.merges * size_of::<AttentionMerge>() / 4)?,
                parts: words("parts of merges", capacity.parts)?,
                sums: words("partial sums", shape.num_kv_heads * capacity.partials * shape.widest_stride())?,
                weights: words("partial weights", 2 * shape.num_kv_heads * capacity.partials)?,
            },
        })
    }
}

impl Scratch {
    fn new(
        gpu: &Gpu,
        spec: &ModelSpec,
        weights: &Weights,
        types: &Types,
        limits: &StepLimits,
        attention: &AttentionShape,
    ) -> Result<Scratch, Error> {
        let rows = |label, stride: usize, bytes: usize, rows: usize| -> Result<Rows, Error> {
            Ok(Rows { buffer: gpu.buffer(label, (rows * stride * bytes) as u64)?, stride })
        };
        let (tokens, act, layer) = (limits.max_batch_tokens, types.act_bytes(), &weights.layers[0]);
        let hidden = round_up(spec.hidden_size, BLOCK);
        let lm_head = weights.lm_head.as_ref().unwrap_or(&weights.embedding);
        let all_in_turn = weights.layers.iter().all(|layer| layer.gate_up.interleaved);
        let mut q: Vec<Rows> = Vec::new();
        for group in 0..attention.groups.len() {
            let stride = spec.num_attention_heads * attention.head_stride(group);
            let same = q.iter().find(|rows| rows.stride == stride).map(|rows| rows.buffer.clone());
            q.push(match same {
                Some(buffer) => Rows { buffer, stride },
                None => rows("q", stride, act, tokens)?,
            });
        }
        let logits = || rows("logits", lm_head.rows, 4, limits.max_sequences);
        Ok(Scratch {
            residual: rows("residual", hidden, 4, tokens)?,
            normed: rows("normed", hidden, act, tokens)?,
            qkv: rows("qkv", layer.qkv.rows, 4, tokens)?,
            q,
            attended: rows("attended", round_up(spec.num_attention_heads * spec.head_dim, BLOCK), act, tokens)?,
            gate_up: rows("gate up", layer.gate_up.rows, 4, if all_in_turn { 0 } else { tokens })?,
            activated: rows("activated", round_up(spec.intermediate_size, BLOCK), act, tokens)?,
            logits: [logits()?, logits()?],
        })
    }
}

/// Bytes of the largest array of a step within `limits`, its logits apart: none may pass a binding.
pub fn largest_array_bytes(spec: &ModelSpec, attention: &AttentionShape, limits: &StepLimits) -> u64 {
    let padded = |cols: usize| round_up(cols, BLOCK);
    let (heads, kv_heads) = (spec.num_attention_heads * spec.head_dim, spec.num_key_value_heads * spec.head_dim);
    let stride = padded(spec.hidden_size)
        .max(padded(heads) + 2 * padded(kv_heads))
        .max(spec.num_attention_heads * attention.widest_stride())
        .max(2 * padded(spec.intermediate_size));
    let capacity = Capacity::of(attention, limits);
    let partials = attention.num_kv_heads * capacity.partials * attention.widest_stride();
    let items = capacity.items * size_of::<AttentionItem>() / 4;
    4 * (stride * limits.max_batch_tokens).max(partials).max(items).max(4 * limits.max_adjustments) as u64
}

/// Bytes of a row of logits.
pub fn logits_row_bytes(spec: &ModelSpec) -> u64 {
    4 * round_up(spec.vocab_size, BLOCK) as u64
}
