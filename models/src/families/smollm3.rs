//! SmolLM3: every fourth layer, or those that the configuration lists, without RoPE.

use serde_json::Value;

use super::{Defaults, Family, decoder, windows};
use crate::config::Config;
use crate::{Error, ModelSpec};

pub(super) const FAMILY: Family =
    Family { name: "smollm3", architecture: "SmolLM3ForCausalLM", gguf_interleaved: true, read };

fn read(config: &Config) -> Result<ModelSpec, Error> {
    let defaults =
        Defaults { tie_word_embeddings: true, num_key_value_heads: Some(4), head_dim: None, rope_theta: 2e6 };
    let mut spec = decoder(config, FAMILY.name, defaults)?;
    spec.has.qkv_bias = config.flag("attention_bias")?;
    spec.has.o_bias = spec.has.qkv_bias;
    spec.has.mlp_bias = config.flag("mlp_bias")?;
    let interval = config.count("no_rope_layer_interval")?.unwrap_or(4);
    let stated = config.per_layer("no_rope_layers", spec.layers.len())?;
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        // The key is named for the layers without, and 1 in it means with.
        layer.rope = match stated.map(|stated| &stated[i]) {
            None => !(i + 1).is_multiple_of(interval),
            Some(Value::Bool(rope)) => *rope,
            Some(one_or_zero) => match one_or_zero.as_u64() {
                Some(rope @ (0 | 1)) => rope == 1,
                _ => {
                    return Err(config.malformed(
                        "no_rope_layers",
                        one_or_zero,
                        "0 (no RoPE) or 1 (RoPE) for each layer",
                    ));
                }
            },
        };
    }
    let with_rope: Vec<bool> = spec.layers.iter().map(|layer| layer.rope).collect();
    windows(config, &mut spec, |layer| !with_rope[layer])?;
    Ok(spec)
}
