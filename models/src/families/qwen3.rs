//! Qwen3: a norm a head on queries and keys, and biases where the configuration says so.

use super::{Defaults, Family, decoder, windows};
use crate::config::Config;
use crate::{Error, ModelSpec};

pub(super) const FAMILY: Family =
    Family { name: "qwen3", architecture: "Qwen3ForCausalLM", gguf_interleaved: false, read };

fn read(config: &Config) -> Result<ModelSpec, Error> {
    let defaults =
        Defaults { tie_word_embeddings: false, num_key_value_heads: Some(32), head_dim: Some(128), rope_theta: 1e4 };
    let mut spec = decoder(config, FAMILY.name, defaults)?;
    spec.has.qk_norm = true;
    spec.has.qkv_bias = config.flag("attention_bias")?;
    spec.has.o_bias = spec.has.qkv_bias;
    let first = config.index("max_window_layers")?.unwrap_or(28);
    windows(config, &mut spec, |layer| layer >= first)?;
    Ok(spec)
}
