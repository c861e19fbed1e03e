//! The whole decoder in f64, put together from the kernels' twins, and how far rounding may carry its logits.

use super::data::Random;
use super::twins::attention_wanted;
use raglan_models::{Activation, Checkpoint, LayerRole, ModelSpec, Role, Tensor};
use raglan_shaders::attention::TwinSequence;
use raglan_shaders::gated_activation::{self, GatedActivationParams};
use raglan_shaders::rms_norm::{self, RmsNormParams};
use raglan_shaders::rope_append::{self, RopeAppendParams};
use raglan_shaders::{Tolerance, Wanted, accuracy, linear};
use std::collections::HashMap;

/// A model in f64.
pub(super) struct Reference {
    pub(super) spec: ModelSpec,
    weights: HashMap<Role, Vec<f64>>,
}

/// Moves what every kernel writes by a random part of the error that its twin test allows it.
pub(super) struct Noise {
    pub(super) random: Random,
    /// Whether inputs of products and of attention are stored in f16.
    pub(super) f16: bool,
}

impl Noise {
    /// What a kernel may write instead of `want`.
    fn disturb(noise: &mut Option<Noise>, tolerance: Tolerance, is_act: bool, want: Wanted) -> Vec<f64> {
        let Some(Noise { random, f16 }) = noise else { return want.values };
        let tolerance = if *f16 && is_act { tolerance.stored_f16() } else { tolerance };
        let allowed = tolerance.allowed(&want);
        want.values.iter().zip(allowed).map(|(value, allowed)| value + allowed * f64::from(random.value())).collect()
    }
}

impl Reference {
    /// # Errors
    /// If a tensor cannot be read.
    pub(super) fn new(checkpoint: &Checkpoint) -> Result<Reference, raglan_models::Error> {
        let spec = checkpoint.spec().clone();
        let mut weights = HashMap::new();
        for role in spec.roles() {
            if let Some(tensor) = checkpoint.tensor(role)? {
                weights.insert(role, decode(&tensor));
            }
        }
        Ok(Reference { spec, weights })
    }

    /// Rounds the weights of products to f16, as kernels of cooperative matrices do.
    pub(super) fn round_weights(&mut self) {
        use LayerRole::{Down, Gate, K, O, Q, Up, V};
        let is_matrix = |role: &Role| matches!(role, Role::LmHead | Role::Layer(_, Q | K | V | O | Gate | Up | Down));
        for (_, values) in self.weights.iter_mut().filter(|(role, _)| is_matrix(role)) {
            values.iter_mut().for_each(|value| *value = half::f16::from_f64(*value).to_f64());
        }
    }

    /// Logits of every token: `[tokens, vocab_size]`.
    pub(super) fn forward(&self, tokens: &[u32], mut noise: Option<Noise>) -> Vec<f64> {
        let (spec, hidden) = (&self.spec, self.spec.hidden_size);
        let embedding = &self.weights[&Role::Embedding];
        let mut residual: Vec<f64> =
            tokens.iter().flat_map(|&token| embedding[token as usize * hidden..][..hidden].iter().copied()).collect();
        for layer in 0..spec.layers.len() {
            let role = |role| Role::Layer(layer, role);
            let normed = self.norm(&residual, role(LayerRole::InputNorm), &mut noise);
            let attended = self.attention(layer, &normed, tokens.len(), &mut noise);
            let delta = self.linear(&attended, role(LayerRole::O), role(LayerRole::OBias), &mut noise);
            residual = add(&residual, &delta, hidden, &mut noise);

            let normed = self.norm(&residual, role(LayerRole::PostAttentionNorm), &mut noise);
            let gate = self.linear(&normed, role(LayerRole::Gate), role(LayerRole::GateBias), &mut noise);
            let up = self.linear(&normed, role(LayerRole::Up), role(LayerRole::UpBias), &mut noise);
            let activated = self.activation(&gate, &up, &mut noise);
            let delta = self.linear(&activated, role(LayerRole::Down), role(LayerRole::DownBias), &mut noise);
            residual = add(&residual, &delta, hidden, &mut noise);
        }
        let normed = self.norm(&residual, Role::FinalNorm, &mut noise);
        let head = if spec.has.lm_head { Role::LmHead } else { Role::Embedding };
        self.product(&normed, &self.weights[&head], &[], hidden, &mut noise)
    }

    fn norm(&self, residual: &[f64], weight: Role, noise: &mut Option<Noise>) -> Vec<f64> {
        let (cols, eps) = (self.spec.hidden_size, self.spec.rms_norm_eps as f32);
        let params = RmsNormParams { cols: cols as u32, eps, ..RmsNormParams::default() };
        let row = |row: &[f64], noise: &mut Option<Noise>| {
            let norm = rms_norm::twin(&params, row, &self.weights[&weight]);
            Noise::disturb(noise, Tolerance::f32(cols), true, Wanted::plain(norm))
        };
        residual.chunks_exact(cols).flat_map(|chunk| row(chunk, noise)).collect()
    }

    fn linear(&self, x: &[f64], weight: Role, bias: Role, noise: &mut Option<Noise>) -> Vec<f64> {
        let inner = self.spec.shape(weight)[1];
        let bias = self.weights.get(&bias).map_or(&[][..], Vec::as_slice);
        self.product(x, &self.weights[&weight], bias, inner, noise)
    }

    fn product(&self, x: &[f64], weight: &[f64], bias: &[f64], inner: usize, noise: &mut Option<Noise>) -> Vec<f64> {
        let absolute = |values: &[f64]| -> Vec<f64> { values.iter().map(|value| value.abs()).collect() };
        let size = absolute(weight);
        let mut out = Vec::new();
        for row in x.chunks_exact(inner) {
            let values = linear::twin(row, weight, bias, inner);
            // Nobody asks for the scale of an exact run.
            let scale = match noise {
                Some(_) => linear::twin(&absolute(row), &size, &absolute(bias), inner),
                None => Vec::new(),
            };
            out.extend(Noise::disturb(noise, Tolerance::f32(inner + 1), false, Wanted::scaled(values, scale)));
        }
        out
    }

    fn attention(&self, layer: usize, normed: &[f64], tokens: usize, noise: &mut Option<Noise>) -> Vec<f64> {
        let (spec, head_dim) = (&self.spec, self.spec.head_dim);
        let role = |role| Role::Layer(layer, role);
        let q = self.linear(normed, role(LayerRole::Q), role(LayerRole::QBias), noise);
        let k = self.linear(normed, role(LayerRole::K), role(LayerRole::KBias), noise);
        let v = self.linear(normed, role(LayerRole::V), role(LayerRole::VBias), noise);
        let q = self.rope(layer, &q, spec.num_attention_heads, LayerRole::QNorm, noise);
        let k = self.rope(layer, &k, spec.num_key_value_heads, LayerRole::KNorm, noise);
        let v = Noise::disturb(noise, Tolerance::f32(0), true, Wanted::scaled(v.clone(), vec![0.0; v.len()]));
        let window = spec.layers[layer].sliding_window.unwrap_or(0);
        let sequence = TwinSequence { q: &q, k: &k, v: &v };
        let (heads, kv_heads) = (spec.num_attention_heads, spec.num_key_value_heads);
        // An adapter with cooperative matrices has weights in f16 as well.
        let is_coop = noise.as_ref().is_some_and(|noise| noise.f16);
        let want = attention_wanted(&sequence, heads, kv_heads, head_dim, window, is_coop);
        Noise::disturb(noise, Tolerance::f32(tokens), true, want)
    }

    fn rope(&self, layer: usize, x: &[f64], heads: usize, norm: LayerRole, noise: &mut Option<Noise>) -> Vec<f64> {
        let (spec, head_dim) = (&self.spec, self.spec.head_dim);
        let params = RopeAppendParams { eps: spec.rms_norm_eps as f32, ..RopeAppendParams::default() };
        let norm = self.weights.get(&Role::Layer(layer, norm)).map_or(&[][..], Vec::as_slice);
        let inv_freq = if spec.layers[layer].rope { spec.rope.inv_freq() } else { Vec::new() };
        let chain = 4 + norm.len();
        let mut out = Vec::with_capacity(x.len());
        for (index, head) in x.chunks_exact(head_dim).enumerate() {
            let position = (index / heads) as u32;
            let turned = rope_append::twin(&params, head, norm, &inv_freq, spec.rope.attention_factor(), position);
            let largest = turned.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            let want = Wanted::scaled(turned, vec![largest; head_dim]);
            out.extend(Noise::disturb(noise, Tolerance::f32(chain), true, want));
        }
        out
    }

    fn activation(&self, gate: &[f64], up: &[f64], noise: &mut Option<Noise>) -> Vec<f64> {
        let activation = match self.spec.hidden_act {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
        };
        let params = GatedActivationParams { activation, ..GatedActivationParams::default() };
        let mut want =
            Wanted::plain(gate.iter().zip(up).map(|(&gate, &up)| gated_activation::twin(&params, gate, up)).collect());
        want.inherited = want.scale.iter().zip(gate).map(|(scale, &gate)| scale * accuracy::exp(gate)).collect();
        Noise::disturb(noise, Tolerance::f32(2), true, want)
    }
}

fn add(residual: &[f64], delta: &[f64], cols: usize, noise: &mut Option<Noise>) -> Vec<f64> {
    let rows = residual.chunks_exact(cols).zip(delta.chunks_exact(cols));
    rows.flat_map(|(residual, delta)| {
        let sum = residual.iter().zip(delta).map(|(a, b)| a + b).collect();
        Noise::disturb(noise, Tolerance::f32(1), false, Wanted::plain(sum))
    })
    .collect()
}

fn decode(tensor: &Tensor<'_>) -> Vec<f64> {
    let format = crate::weights::weight_format(tensor.format);
    let row_bytes = tensor.format.row_bytes(tensor.cols).expect("rows are whole blocks");
    let mut rows = vec![0; tensor.rows * row_bytes];
    tensor.write_rows(0..tensor.rows, &mut rows);
    format.decode(&rows)
}
