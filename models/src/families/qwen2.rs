//! Qwen2 and 2.5: biases on q, k and v, none on the output.

use super::{Defaults, Family, decoder, windows};
use crate::config::Config;
use crate::{Error, ModelSpec};

pub(super) const FAMILY: Family =
    Family { name: "qwen2", architecture: "Qwen2ForCausalLM", gguf_interleaved: false, read };

fn read(config: &Config) -> Result<ModelSpec, Error> {
    let defaults =
        Defaults { tie_word_embeddings: false, num_key_value_heads: Some(32), head_dim: None, rope_theta: 1e4 };
    let mut spec = decoder(config, FAMILY.name, defaults)?;
    spec.has.qkv_bias = true;
    let first = config.index("max_window_layers")?.unwrap_or(28);
    windows(config, &mut spec, |layer| layer >= first)?;
    Ok(spec)
}
