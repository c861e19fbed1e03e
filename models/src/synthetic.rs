//! Synthetic checkpoints: the shapes of a known model without its weights, which the runtime makes up on the adapter. What
//! they say is nonsense; how fast they run is what the real ones do.

use std::path::Path;

use crate::config::Config;
use crate::{Error, Format, ModelSpec, Role, families};

/// How a name begins that means a synthetic checkpoint.
pub const PREFIX: &str = "synthetic:";

/// Names, and what of their `config.json` decides shapes and rules.
///
/// Source: the `config.json` of meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-13b-hf, meta-llama/Llama-3.1-8B, Qwen/Qwen3-8B
/// and HuggingFaceTB/SmolLM2-135M; `tiny` is nobody's.
const CONFIGS: &[(&str, &str)] = &[
    (
        "llama-2-7b",
        r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
    ),
    (
        "llama-2-13b",
        r#"{"model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
            "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32000, "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
    ),
    (
        "llama-3.1-8b",
        r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 8192}}"#,
    ),
    (
        "qwen3-8b",
        r#"{"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "attention_bias": false,
            "tie_word_embeddings": false}"#,
    ),
    (
        "smollm2-135m",
        r#"{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true}"#,
    ),
    (
        "tiny",
        r#"{"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
    ),
];

/// A model's shapes and the format of its matrices.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    /// `llama-2-13b`, say.
    pub name: &'static str,
    /// The format of matrices; vectors are f32.
    pub format: Format,
    /// Shapes and rules; fewer layers than the model's, where a part of it is enough.
    pub spec: ModelSpec,
}

impl Synthetic {
    /// The names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CONFIGS.iter().map(|(name, _)| *name)
    }

    /// Reads `synthetic:NAME` or `synthetic:NAME:FORMAT`, in any case of letters; without a format it is f16.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] for another name or another format, with those that there are.
    pub fn parse(text: &str) -> Result<Synthetic, Error> {
        let rest = text.strip_prefix(PREFIX).unwrap_or(text);
        let (name, format) = rest.split_once(':').unwrap_or((rest, "f16"));
        let unknown = |reason, known| Error::UnknownModel { name: text.to_owned(), reason, known };
        let found = CONFIGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some(&(name, config)) = found else {
            let names = Synthetic::names().map(|name| format!("{PREFIX}{name}")).collect::<Vec<_>>();
            return Err(unknown("is no synthetic model", names.join(", ")));
        };
        let Some(format) = parse_format(format) else {
            return Err(unknown(
                "ends with no weight format",
                format!("{PREFIX}{name}:FORMAT with one of {}", format_names()),
            ));
        };
        let config = Config::parse(Path::new(text), config.as_bytes(), usize::MAX)?;
        Ok(Synthetic { name, format, spec: families::read(&config)? })
    }

    /// The same with no more than so many layers.
    #[must_use]
    pub fn with_layers(mut self, layers: usize) -> Synthetic {
        self.spec.layers.truncate(layers.max(1));
        self
    }

    /// `synthetic:llama-2-13b:q4_0`
    pub fn full_name(&self) -> String {
        format!("{PREFIX}{}:{}", self.name, self.format.name().to_ascii_lowercase())
    }

    /// The format of a tensor: f32 for a vector; where rows are no whole number of large blocks, the nearest format with
    /// small blocks, as makers of GGUF files do.
    pub(crate) fn format_of(&self, role: Role) -> Format {
        match self.spec.shape(role)[..] {
            [_, cols] if self.format.row_bytes(cols).is_some() => self.format,
            [_, _] => match self.format {
                Format::Q4K => Format::Q5_0,
                Format::Q5K => Format::Q5_1,
                Format::Q6K => Format::Q8_0,
                Format::I4G128 => Format::I4G32,
                Format::I8G128 => Format::I8G32,
                _ => Format::F16,
            },
            _ => Format::F32,
        }
    }
}

/// A weight format by ggml's name, or `q8` and `q4` for the plain ones; in any case of letters.
pub fn parse_format(name: &str) -> Option<Format> {
    match name.to_ascii_lowercase().as_str() {
        "q8" => Some(Format::Q8_0),
        "q4" => Some(Format::Q4_0),
        name => Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name)),
    }
}

fn format_names() -> String {
    let names: Vec<_> = Format::ALL.iter().map(|format| format.name().to_ascii_lowercase()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    #[test]
    fn every_name_has_as_many_parameters_as_its_model() {
        // As the model cards count them.
        for (name, wanted) in [
            ("llama-2-7b", 6_738_415_616),
            ("llama-2-13b", 13_015_864_320),
            ("llama-3.1-8b", 8_030_261_248),
            ("qwen3-8b", 8_190_735_360),
            ("smollm2-135m", 134_515_008),
        ] {
            let checkpoint = Checkpoint::synthetic(Synthetic::parse(&format!("synthetic:{name}")).expect(name));
            assert_eq!(checkpoint.parameters(), wanted, "{name}");
        }
    }

    #[test]
    fn names_and_formats_are_read_in_any_case_and_refused_with_what_there_is() {
        let name = |text: &str| Synthetic::parse(text).map(|synthetic| synthetic.full_name());
        assert_eq!(name("synthetic:llama-2-13b").ok().as_deref(), Some("synthetic:llama-2-13b:f16"));
        assert_eq!(name("synthetic:TINY:Q4").ok().as_deref(), Some("synthetic:tiny:q4_0"));
        assert_eq!(name("synthetic:tiny:q8").ok().as_deref(), Some("synthetic:tiny:q8_0"));
        assert_eq!(name("synthetic:tiny:q4_k").ok().as_deref(), Some("synthetic:tiny:q4_k"));
        let message = |text: &str| name(text).map_err(|error| error.to_string()).expect_err(text);
        assert!(message("synthetic:gpt-5").contains("synthetic:qwen3-8b"), "{}", message("synthetic:gpt-5"));
        assert!(message("synthetic:tiny:int3").contains("q6_k"), "{}", message("synthetic:tiny:int3"));
    }

    #[test]
    fn rows_without_whole_super_blocks_take_small_blocks() {
        let synthetic = Synthetic::parse("synthetic:smollm2-135m:q4_k").expect("it is there");
        let role = |role| Role::Layer(0, role);
        assert_eq!(synthetic.format_of(role(crate::LayerRole::Down)), Format::Q4K, "1536 columns");
        assert_eq!(synthetic.format_of(role(crate::LayerRole::Q)), Format::Q5_0, "576 columns");
        assert_eq!(synthetic.format_of(role(crate::LayerRole::InputNorm)), Format::F32);
        let integers = Synthetic::parse("synthetic:smollm2-135m:int4_g128").expect("it is there");
        assert_eq!(integers.format_of(role(crate::LayerRole::Down)), Format::I4G128, "1536 columns");
        assert_eq!(integers.format_of(role(crate::LayerRole::Q)), Format::I4G32, "576 columns");
        let checkpoint = Checkpoint::synthetic(synthetic.with_layers(1));
        let sizes: u64 = checkpoint.formats().iter().map(|used| used.bytes).sum();
        assert_eq!((checkpoint.spec().layers.len(), checkpoint.weight_bytes()), (1, sizes));
    }
}
