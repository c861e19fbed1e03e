//! Llama 2, 3 and 3.1 onwards, SmolLM2, and the many models of the same form.

use super::{Defaults, Family, decoder};
use crate::config::Config;
use crate::{Error, ModelSpec};

pub(super) const FAMILY: Family =
    Family { name: "llama", architecture: "LlamaForCausalLM", gguf_interleaved: true, read };

fn read(config: &Config) -> Result<ModelSpec, Error> {
    let defaults = Defaults { tie_word_embeddings: false, num_key_value_heads: None, head_dim: None, rope_theta: 1e4 };
    let mut spec = decoder(config, FAMILY.name, defaults)?;
    spec.has.qkv_bias = config.flag("attention_bias")?;
    spec.has.o_bias = spec.has.qkv_bias;
    spec.has.mlp_bias = config.flag("mlp_bias")?;
    Ok(spec)
}
