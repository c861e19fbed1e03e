//! Mistral: a sliding window on every layer or on none, and no biases.

use super::{Defaults, Family, decoder};
use crate::config::Config;
use crate::{Error, ModelSpec};

pub(super) const FAMILY: Family =
    Family { name: "mistral", architecture: "MistralForCausalLM", gguf_interleaved: true, read };

fn read(config: &Config) -> Result<ModelSpec, Error> {
    let defaults =
        Defaults { tie_word_embeddings: false, num_key_value_heads: Some(8), head_dim: None, rope_theta: 1e4 };
    let mut spec = decoder(config, FAMILY.name, defaults)?;
    // Not said is 4096, null is none.
    let window = if config.says("sliding_window") { config.count("sliding_window")? } else { Some(4096) };
    for layer in &mut spec.layers {
        layer.sliding_window = window;
    }
    let wanted = if window.is_some() { "sliding_attention" } else { "full_attention" };
    let types = config.per_layer("layer_types", spec.layers.len())?.unwrap_or_default();
    match types.iter().find(|kind| **kind != wanted) {
        Some(other) => Err(config.unsupported("layer_types", other, format_args!("{wanted} on every layer"))),
        None => Ok(spec),
    }
}
