//! The small files beside quantised weights: `config.json` with what was done to them, and those of the tokenizer.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::target::QuantizeTo;
use crate::families::FAMILIES;
use crate::{Activation, Checkpoint, Error, ModelSpec, RopeScaling, Tokenizer};

/// Files that say nothing of weights: they go with them as they are.
const COPIED: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
];

/// What was done, as compressed-tensors tells it.
pub(super) fn quantization_config(to: QuantizeTo, embedding: bool, ignore: &[String]) -> Value {
    let weights = json!({
        "num_bits": to.bits.count(),
        "type": "int",
        "symmetric": to.symmetric,
        "strategy": "group",
        "group_size": to.group,
        "dynamic": false,
        "actorder": null,
        "block_structure": null,
        "observer": "minmax",
        "observer_kwargs": {},
    });
    let targets = if embedding { vec!["Linear", "Embedding"] } else { vec!["Linear"] };
    let group =
        json!({ "targets": targets, "weights": weights, "input_activations": null, "output_activations": null });
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": { "group_0": group },
        "ignore": ignore,
        "kv_cache_scheme": null,
        "global_compression_ratio": null,
    })
}

/// Writes all of a checkpoint but its weights to `folder`. Says what could not be written.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for files of the checkpoint that are none; [`Error::Unsupported`] for a GGUF file that
/// `config.json` has no words for.
pub(super) fn write_small_files(
    checkpoint: &Checkpoint,
    folder: &Path,
    quantization: Value,
) -> Result<Vec<String>, Error> {
    let path = checkpoint.path();
    let mut notes = Vec::new();
    let mut config = match checkpoint.file("config.json")? {
        Some(bytes) => serde_json::from_slice::<Map<String, Value>>(&bytes)
            .map_err(|error| Error::malformed(path.join("config.json"), "the file", error, "a JSON object"))?,
        None => config_of(checkpoint.spec()),
    };
    config.retain(|key, _| !["quantization_config", "compression_config"].contains(&key.as_str()));
    config.insert("quantization_config".into(), quantization);
    write_json(folder, "config.json", &Value::Object(config))?;
    if ModelSpec::from_config(&folder.join("config.json"))? != *checkpoint.spec() {
        let met = "a shape, a bias or a scaling of RoPE that config.json has no words for";
        return Err(Error::unsupported(
            path,
            "the model",
            met,
            "what a config.json can say; take the folder that the file was made from",
        ));
    }
    if checkpoint.metadata().is_none() {
        for name in COPIED {
            if let Some(bytes) = checkpoint.file(name)? {
                std::fs::write(folder.join(name), bytes).map_err(Error::io(folder.join(name)))?;
            }
        }
        return Ok(notes);
    }
    match Tokenizer::open(checkpoint)? {
        Some(tokenizer) => {
            for (name, file) in tokenizer.files(checkpoint)? {
                write_json(folder, name, &file)?;
            }
            notes.push(format!(
                "{}: tokenizer and chat template were made anew from the file's metadata",
                path.display()
            ));
        }
        None => notes
            .push(format!("{} has no tokenizer: copy one into the folder, or it runs on token ids", path.display())),
    }
    Ok(notes)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), Error> {
    std::fs::write(folder.join(name), format!("{value:#}\n")).map_err(Error::io(folder.join(name)))
}

/// A configuration in the words of `config.json`.
fn config_of(spec: &ModelSpec) -> Map<String, Value> {
    let architecture = FAMILIES.iter().find(|family| family.name == spec.family).map(|family| family.architecture);
    let mut config = json!({
        "architectures": [architecture],
        "model_type": spec.family,
        "dtype": "float16",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.layers.len(),
        "num_attention_heads": spec.num_attention_heads,
        "num_key_value_heads": spec.num_key_value_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.max_position_embeddings,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope.theta,
        "tie_word_embeddings": !spec.has.lm_head,
        "attention_bias": spec.has.qkv_bias,
        "mlp_bias": spec.has.mlp_bias,
        "hidden_act": match spec.hidden_act {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        },
    });
    let mut set = |key: &str, value: Value| config[key] = value;
    if spec.rope.rotary_dim != spec.head_dim {
        set("partial_rotary_factor", json!(spec.rope.rotary_dim as f64 / spec.head_dim as f64));
    }
    if let Some(scaling) = scaling_of(&spec.rope.scaling) {
        set("rope_scaling", scaling);
    }
    let window = spec.layers.iter().find_map(|layer| layer.sliding_window);
    set("sliding_window", json!(window));
    if spec.family != "mistral" {
        set("use_sliding_window", json!(window.is_some()));
    }
    if window.is_some() {
        let kind = |windowed: bool| if windowed { "sliding_attention" } else { "full_attention" };
        set("layer_types", spec.layers.iter().map(|layer| kind(layer.sliding_window.is_some())).collect());
    }
    if spec.layers.iter().any(|layer| !layer.rope) {
        set("no_rope_layers", spec.layers.iter().map(|layer| u8::from(layer.rope)).collect());
    }
    match config {
        Value::Object(config) => config,
        _ => unreachable!("an object was written above"),
    }
}

/// `None` where there is none, or one that only a GGUF file tells.
fn scaling_of(scaling: &RopeScaling) -> Option<Value> {
    Some(match scaling {
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "original_max_position_embeddings": original_max_position_embeddings,
            "attention_factor": attention_factor,
            "truncate": truncate,
        }),
        _ => return None,
    })
}
