//! The model families, as data: what each makes of a configuration. A new family is one file and one line of [`FAMILIES`].

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod smollm3;

use serde_json::Value;

use crate::config::Config;
use crate::{Activation, Error, LayerSpec, ModelSpec, Optional};

/// One family: its names, and how it reads a configuration.
pub(crate) struct Family {
    /// `model_type` of `config.json`, and `general.architecture` of a GGUF file.
    pub(crate) name: &'static str,
    /// The one of `architectures` that writes text.
    pub(crate) architecture: &'static str,
    /// Whether writers of GGUF files interleave the rows of q and k.
    pub(crate) gguf_interleaved: bool,
    read: fn(&Config) -> Result<ModelSpec, Error>,
}

/// Every family that can be run.
pub(crate) const FAMILIES: [Family; 5] =
    [llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY, smollm3::FAMILY];

/// What transformers takes where `config.json` says nothing.
struct Defaults {
    tie_word_embeddings: bool,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rope_theta: f64,
}

/// The model that a configuration describes.
///
/// # Errors
/// [`Error::Unsupported`] for a family or a feature that is not built; [`Error::Malformed`] for a number that no model
/// can have.
pub(crate) fn read(config: &Config) -> Result<ModelSpec, Error> {
    let name = config.text("model_type")?;
    let architectures = match config.get("architectures") {
        None => &[][..],
        Some(Value::Array(list)) => list,
        Some(other) => return Err(config.malformed("architectures", other, "an array of names")),
    };
    let of = |wanted: fn(&Family) -> &str| FAMILIES.iter().map(wanted).collect::<Vec<_>>().join(", ");
    let family = match (name, architectures.first()) {
        (Some(name), _) => FAMILIES.iter().find(|family| family.name == name),
        (None, Some(class)) => FAMILIES.iter().find(|family| *class == family.architecture),
        (None, None) => return Err(config.malformed("model_type", "absent", of(|family| family.name))),
    };
    let Some(family) = family else {
        let met = name.map_or_else(|| architectures[0].to_string(), str::to_owned);
        return Err(config.unsupported("model_type", met, of(|family| family.name)));
    };
    if let Some(other) = architectures.iter().find(|class| **class != family.architecture) {
        return Err(config.unsupported("architectures", other, of(|family| family.architecture)));
    }
    refuse_other_maths(config)?;
    (family.read)(config)
}

/// Keys that change the maths of a decoder, with the values that leave it as it is; anything else is refused.
/// (Keys of the families themselves are read by them.)
const NEUTRAL: [(&str, &[&str]); 37] = [
    ("num_experts", &["0"]),
    ("num_local_experts", &["0", "1"]),
    ("n_routed_experts", &["0"]),
    ("moe_intermediate_size", &["0"]),
    ("attn_logit_softcapping", &["0", "0.0"]),
    ("final_logit_softcapping", &["0", "0.0"]),
    ("logit_softcapping", &["0", "0.0"]),
    ("attention_sinks", &["false"]),
    ("use_attention_sinks", &["false"]),
    ("query_pre_attn_scalar", &[]),
    ("attention_multiplier", &[]),
    ("attn_scale", &[]),
    ("attn_temperature_tuning", &["false"]),
    ("embedding_multiplier", &["1", "1.0"]),
    ("residual_multiplier", &["1", "1.0"]),
    ("logits_scaling", &["1", "1.0"]),
    ("logit_scale", &["1", "1.0"]),
    ("scale_emb", &["1", "1.0"]),
    ("scale_depth", &[]),
    ("attention_chunk_size", &[]),
    ("clip_qkv", &[]),
    ("alibi", &["false"]),
    ("position_embedding_type", &["\"rope\"", "\"absolute\""]),
    ("rope_interleave", &["false"]),
    ("rope_interleaved", &["false"]),
    ("use_qk_norm", &["false"]),
    ("qk_layernorm", &["false"]),
    ("parallel_attn", &["false"]),
    ("use_parallel_residual", &["false"]),
    ("is_encoder_decoder", &["false"]),
    ("is_causal", &["true"]),
    ("use_bidirectional_attention", &["false"]),
    ("kv_lora_rank", &[]),
    ("q_lora_rank", &[]),
    ("mrope_section", &[]),
    ("cross_attention_layers", &["[]"]),
    ("hidden_size_per_layer_input", &["0"]),
];

fn refuse_other_maths(config: &Config) -> Result<(), Error> {
    for (key, neutral) in NEUTRAL {
        let Some(value) = config.get(key) else { continue };
        let met = value.to_string();
        if !neutral.contains(&met.as_str()) {
            let met: String = met.chars().take(80).collect();
            let wanted = if neutral.is_empty() { "no such key".into() } else { neutral.join(", ") };
            return Err(config.unsupported(key, met, wanted));
        }
    }
    Ok(())
}

/// What all families read alike: shapes, norm, activation, RoPE, and layers that all see everything.
fn decoder(config: &Config, family: &'static str, defaults: Defaults) -> Result<ModelSpec, Error> {
    let hidden_size = config.needed_count("hidden_size")?;
    let num_attention_heads = config.needed_count("num_attention_heads")?;
    let kv_heads = config.count("num_key_value_heads")?.or(defaults.num_key_value_heads);
    let num_key_value_heads = kv_heads.unwrap_or(num_attention_heads);
    if !num_attention_heads.is_multiple_of(num_key_value_heads) {
        let wanted = format_args!("a divisor of num_attention_heads, which is {num_attention_heads}");
        return Err(config.malformed("num_key_value_heads", num_key_value_heads, wanted));
    }
    let head_dim = head_dim(config, hidden_size, num_attention_heads, defaults.head_dim)?;
    let (rope, max_position_embeddings) = config.rope(head_dim, defaults.rope_theta)?;
    let layer = LayerSpec { sliding_window: None, rope: true };
    let tied = config.stated_flag("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings);
    Ok(ModelSpec {
        family,
        vocab_size: config.needed_count("vocab_size")?,
        hidden_size,
        intermediate_size: config.needed_count("intermediate_size")?,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        max_position_embeddings,
        rms_norm_eps: config.positive("rms_norm_eps")?.unwrap_or(1e-6),
        hidden_act: activation(config)?,
        rope,
        layers: vec![layer; config.layer_count()?],
        has: Optional { lm_head: !tied, ..Optional::default() },
    })
}

fn head_dim(config: &Config, hidden_size: usize, heads: usize, default: Option<usize>) -> Result<usize, Error> {
    let head_dim = match config.count("head_dim")?.or(default) {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let wanted = format_args!("a divisor of hidden_size, which is {hidden_size}, where there is no head_dim");
            return Err(config.malformed("num_attention_heads", heads, wanted));
        }
    };
    if !head_dim.is_multiple_of(2) || head_dim.checked_mul(heads).is_none() {
        return Err(config.malformed("head_dim", head_dim, "an even number, since RoPE turns pairs"));
    }
    Ok(head_dim)
}

fn activation(config: &Config) -> Result<Activation, Error> {
    match config.text("hidden_act")? {
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some(other) => Err(config.unsupported("hidden_act", other, "silu, gelu_pytorch_tanh")),
    }
}

/// Gives layers their windows: by `layer_types` where it is there, else to the layers that `default` picks.
fn windows(config: &Config, spec: &mut ModelSpec, default: impl Fn(usize) -> bool) -> Result<(), Error> {
    let window = match config.flag("use_sliding_window")? {
        true if !config.says("sliding_window") => {
            return Err(config.malformed(
                "sliding_window",
                "absent",
                "a window or null, since use_sliding_window is true",
            ));
        }
        true => config.count("sliding_window")?,
        false => None,
    };
    let types = config.per_layer("layer_types", spec.layers.len())?;
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let slides = match types.map(|types| &types[i]) {
            None => window.is_some() && default(i),
            Some(kind) if *kind == "full_attention" => false,
            Some(kind) if *kind == "sliding_attention" => true,
            Some(other) => return Err(config.unsupported("layer_types", other, "full_attention, sliding_attention")),
        };
        layer.sliding_window = match (slides, window) {
            (false, _) => None,
            (true, Some(window)) => Some(window),
            (true, None) => {
                let met = "absent, null or switched off by use_sliding_window";
                return Err(config.malformed("sliding_window", met, "a window, since layer_types asks for it"));
            }
        };
    }
    Ok(())
}
