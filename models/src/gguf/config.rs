//! GGUF metadata in the words of `config.json`, so that one file a family reads both.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::{List, Metadata, Value};
use crate::config::Config;
use crate::families::{self, FAMILIES};
use crate::tensors::Tensors;
use crate::{Error, Format, ModelSpec, RopeScaling};

/// `general.architecture` as GGUF writers spell it; files of Mistral say llama.
const ARCHITECTURES: [&str; 4] = ["llama", "qwen2", "qwen3", "smollm3"];

/// `config.json`'s key, and what follows the architecture's name in a GGUF file.
const KEYS: [(&str, &str); 16] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"),
    ("rope_theta", "rope.freq_base"),
    ("rope_type", "rope.scaling.type"),
    ("factor", "rope.scaling.factor"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("beta_fast", "rope.scaling.yarn_beta_fast"),
    ("beta_slow", "rope.scaling.yarn_beta_slow"),
    ("partial_rotary_factor", "rope.dimension_count"),
];

/// Keys that change the maths, with the numbers (truth is 1) that leave it as it is; anything else is refused.
const NEUTRAL: [(&str, &[f64]); 22] = [
    ("expert_count", &[0.0]),
    ("attention.scale", &[0.0]),
    ("attention.causal", &[1.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.temperature_length", &[0.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attention.sliding_window_pattern", &[]),
    ("attention.output_scale", &[]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logit_scale", &[1.0]),
    ("embedding_scale", &[1.0]),
    ("residual_scale", &[1.0]),
    ("use_parallel_residual", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
    ("rope.freq_base_swa", &[]),
    ("rope.scaling.alpha", &[0.0]),
    ("rope.scaling.attn_factor", &[1.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[1.0, -1.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
];

/// The key as a GGUF file of `architecture` spells it; the words of `config.json` where it has none.
pub(crate) fn spelled(architecture: &str, key: &str) -> String {
    match KEYS.iter().find(|(json, _)| *json == key) {
        Some((_, gguf)) => format!("{architecture}.{gguf}"),
        None => key.into(),
    }
}

/// The model that a file's metadata and tensors describe, and whether its rows of q and k lie interleaved.
///
/// # Errors
/// [`Error::Unsupported`] for an architecture or a feature that is not built; [`Error::Malformed`] for a number that no
/// model can have.
pub(crate) fn spec(path: &Path, metadata: &Metadata, tensors: &Tensors) -> Result<(ModelSpec, bool), Error> {
    let field = "general.architecture";
    let Some(architecture) = metadata.text(field)? else {
        return Err(Error::malformed(path, field, "absent", ARCHITECTURES.join(", ")));
    };
    if !ARCHITECTURES.contains(&architecture) {
        return Err(Error::unsupported(path, field, architecture, ARCHITECTURES.join(", ")));
    }
    if let Some(kind) = metadata.text("general.type")?.filter(|kind| *kind != "model") {
        return Err(Error::unsupported(path, "general.type", kind, "model"));
    }
    let reader = Reader { path, metadata, architecture };
    reader.refuse_other_maths()?;
    let config = reader.config(tensors)?;
    let mut spec = families::read(&config)?;
    let there = |name: &str| tensors.entries.contains_key(name);
    spec.has.qkv_bias |= there("blk.0.attn_q.bias");
    spec.has.o_bias |= there("blk.0.attn_output.bias");
    spec.has.mlp_bias |= there("blk.0.ffn_gate.bias");
    let interleaved = FAMILIES.iter().any(|family| family.name == spec.family && family.gguf_interleaved);
    if interleaved && spec.rope.rotary_dim != spec.head_dim {
        let wanted = format_args!("{}, the whole head, since its rows are interleaved", spec.head_dim);
        return Err(Error::unsupported(path, reader.key("rope.dimension_count"), spec.rope.rotary_dim, wanted));
    }
    read_factors(&mut spec, tensors)?;
    Ok((spec, interleaved))
}

struct Reader<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Reader<'_> {
    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    fn refuse_other_maths(&self) -> Result<(), Error> {
        for (rest, neutral) in NEUTRAL {
            let key = self.key(rest);
            let number = match self.metadata.get(&key) {
                None => continue,
                Some(Value::Bool(flag)) => f64::from(u8::from(*flag)),
                Some(Value::List(_) | Value::Text(_)) => f64::NAN,
                Some(_) => self.metadata.number(&key)?.unwrap_or(f64::NAN),
            };
            if !neutral.contains(&number) {
                let met = self.metadata.get(&key).map(Value::short).unwrap_or_default();
                let names: Vec<String> = neutral.iter().map(f64::to_string).collect();
                let wanted = if neutral.is_empty() { "no such key".into() } else { names.join(", ") };
                return Err(Error::unsupported(self.path, key, met, wanted));
            }
        }
        let (key, value) = (self.key("attention.key_length"), self.key("attention.value_length"));
        match (self.metadata.unsigned(&key)?, self.metadata.unsigned(&value)?) {
            (Some(keys), Some(values)) if keys != values => {
                Err(Error::unsupported(self.path, value, values, format_args!("{keys}, as {key} says")))
            }
            _ => Ok(()),
        }
    }

    fn config(&self, tensors: &Tensors) -> Result<Config, Error> {
        let mut json = Map::new();
        let whole = [
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            "sliding_window",
        ];
        for key in whole {
            if let Some(number) = self.whole(&spelled(self.architecture, key))? {
                json.insert(key.into(), number.into());
            }
        }
        // GGUF has its own defaults, not those of transformers.
        if let Some(heads) = json.get("num_attention_heads").and_then(Json::as_u64).filter(|heads| *heads > 0) {
            json.entry("num_key_value_heads").or_insert(heads.into());
            if let Some(hidden) = json.get("hidden_size").and_then(Json::as_u64).filter(|size| size % heads == 0) {
                json.entry("head_dim").or_insert((hidden / heads).into());
            }
        }
        let eps = self.key("attention.layer_norm_rms_epsilon");
        let Some(number) = self.metadata.number(&eps)? else {
            return Err(Error::malformed(self.path, eps, "absent", "a number greater than 0"));
        };
        json.insert("rms_norm_eps".into(), number.into());
        let family = match json.get("sliding_window").and_then(Json::as_u64) {
            None | Some(0) => {
                json.remove("sliding_window");
                self.architecture
            }
            Some(_) if self.architecture == "llama" => "mistral",
            Some(window) => {
                let key = self.key("attention.sliding_window");
                return Err(Error::unsupported(self.path, key, window, "0, since the file does not say which layers"));
            }
        };
        json.insert("model_type".into(), family.into());
        let embedding = tensors.entries.get("token_embd.weight");
        let Some(vocab_size) = embedding.and_then(|entry| entry.shape.first()) else {
            let (path, name) = (self.path.into(), "token_embd.weight".into());
            return Err(Error::MissingTensor { path, name, wanted: Vec::new() });
        };
        json.insert("vocab_size".into(), (*vocab_size).into());
        json.insert("tie_word_embeddings".into(), (!tensors.entries.contains_key("output.weight")).into());
        let rope = self.rope(json.get("head_dim").and_then(Json::as_u64))?;
        json.insert("rope_parameters".into(), Json::Object(rope));
        Ok(Config::from_gguf(self.path, json, tensors.entries.len(), self.architecture))
    }

    /// A whole number, or an array of one number for all layers.
    fn whole(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(Value::List(List::Integers(list))) = self.metadata.get(key) else {
            return self.metadata.unsigned(key);
        };
        match list.first().map(|first| u64::try_from(*first)) {
            Some(Ok(first)) if list.iter().all(|number| u64::try_from(*number) == Ok(first)) => Ok(Some(first)),
            _ => Err(Error::unsupported(self.path, key, "an array of unequal numbers", "one number for all layers")),
        }
    }

    fn rope(&self, head_dim: Option<u64>) -> Result<Map<String, Json>, Error> {
        let mut rope = Map::new();
        let numbers = ["rope_theta", "original_max_position_embeddings", "beta_fast", "beta_slow", "factor"];
        for key in numbers {
            // An absent number is written as 0 by some.
            if let Some(number) =
                self.metadata.number(&spelled(self.architecture, key))?.filter(|number| *number != 0.0)
            {
                rope.insert(key.into(), number.into());
            }
        }
        if let Some(factor) = self.metadata.number(&self.key("rope.scale_linear"))?.filter(|factor| *factor != 0.0) {
            rope.entry("factor").or_insert(factor.into());
        }
        // A factor without a type is linear.
        let kind = match self.metadata.text(&self.key("rope.scaling.type"))? {
            Some("none") => "default",
            Some(kind) => kind,
            None if rope.contains_key("factor") => "linear",
            None => "default",
        };
        rope.insert("rope_type".into(), kind.into());
        if let (Some(rotary), Some(head_dim)) = (self.metadata.unsigned(&self.key("rope.dimension_count"))?, head_dim)
            && rotary != head_dim
        {
            rope.insert("partial_rotary_factor".into(), (rotary as f64 / head_dim as f64).into());
        }
        Ok(rope)
    }
}

/// `rope_freqs.weight`: what each frequency is divided by, as Llama 3.1's scaling is kept.
fn read_factors(spec: &mut ModelSpec, tensors: &Tensors) -> Result<(), Error> {
    let name = "rope_freqs.weight";
    let Some(entry) = tensors.entries.get(name) else { return Ok(()) };
    let path = tensors.path(entry);
    let wanted = vec![spec.rope.rotary_dim / 2];
    if entry.shape != wanted {
        return Err(Error::Shape { path: path.into(), name: name.into(), met: entry.shape.clone(), wanted });
    }
    tensors.format(name, entry, &[Format::F32])?;
    let chunks = tensors.bytes(entry).as_chunks().0.iter();
    let factors: Vec<f64> = chunks.map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
    if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        return Err(Error::malformed(path, format_args!("tensor {name}"), factor, "finite numbers greater than 0"));
    }
    let stretch = match spec.rope.scaling {
        RopeScaling::Default => 1.0,
        RopeScaling::Linear { factor } => factor,
        _ => {
            let key = "the RoPE scaling";
            return Err(Error::unsupported(path, key, "a scaling on top of rope_freqs.weight", "one of the two"));
        }
    };
    spec.rope.scaling = RopeScaling::Factors(factors.into_iter().map(|factor| factor * stretch).collect());
    Ok(())
}
