//! Bytes of what a decoder allocates beside its weights, before it does.

use crate::batch::StepLimits;
use crate::plan::{AttentionShape, Capacity};
use raglan_models::ModelSpec;
use raglan_shaders::attention::AttentionItem;
use raglan_shaders::attention::merge::AttentionMerge;
use raglan_shaders::move_rows::RowMove;
use raglan_shaders::{BLOCK, rope_append, round_up};

/// What decides the size of a step's arrays.
#[derive(Debug)]
pub struct StepShape<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Its attention.
    pub attention: &'a AttentionShape,
    /// What a step may hold.
    pub limits: &'a StepLimits,
    /// Bytes of an activation.
    pub act_bytes: usize,
    /// Whether gates and ups are in turn in every layer.
    pub gates_in_turn: bool,
    /// Positions of a sequence at most.
    pub max_positions: usize,
}

impl StepShape<'_> {
    /// Bytes of the arrays of a step: its inputs, work items, partial results, activations and logits, and the table of RoPE.
    pub fn bytes(&self) -> u64 {
        let table =
            rope_append::table_rows(self.max_positions) * (self.spec.rope.rotary_dim / 2) * size_of::<[f32; 2]>();
        self.input_bytes() + self.activation_bytes() + table as u64
    }

    fn input_bytes(&self) -> u64 {
        let (shape, limits) = (self.attention, self.limits);
        let capacity = Capacity::of(shape, limits);
        let places = shape.groups.len() * 8 * limits.max_batch_tokens;
        let ids = 4 * (limits.max_batch_tokens + limits.max_sequences);
        let items = capacity.moves * size_of::<RowMove>()
            + capacity.items * size_of::<AttentionItem>()
            + capacity.merges * size_of::<AttentionMerge>()
            + capacity.parts * size_of::<u32>();
        let partials = 4 * shape.num_kv_heads * capacity.partials * (shape.widest_stride() + 2);
        (places + ids + items + partials) as u64
    }

    fn activation_bytes(&self) -> u64 {
        let (spec, act) = (self.spec, self.act_bytes);
        let padded = |cols: usize| round_up(cols, BLOCK);
        let (hidden, mlp) = (padded(spec.hidden_size), padded(spec.intermediate_size));
        let (q, kv) = (spec.num_attention_heads * spec.head_dim, spec.num_key_value_heads * spec.head_dim);
        // Groups of one stride share their queries.
        let mut strides: Vec<_> =
            (0..self.attention.groups.len()).map(|group| self.attention.head_stride(group)).collect();
        strides.sort_unstable();
        strides.dedup();
        let of_token = 4 * hidden // residual
            + act * hidden // normed
            + 4 * (padded(q) + 2 * padded(kv))
            + act * spec.num_attention_heads * strides.iter().sum::<usize>()
            + act * padded(q) // attended
            + if self.gates_in_turn { 0 } else { 4 * 2 * mlp }
            + act * mlp;
        // Two rows of logits a sequence, so that a step's outlive the submission of the next.
        let logits = 2 * 4 * padded(spec.vocab_size) * self.limits.max_sequences;
        (of_token * self.limits.max_batch_tokens + logits) as u64
    }
}
