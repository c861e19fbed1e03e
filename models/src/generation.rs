//! `generation_config.json`: how a model's makers would have its answers sampled, and which tokens end them.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::Error;

/// The sampling defaults of a checkpoint; what it does not say is `None`, for the caller to choose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer, ascending.
    pub eos_token_ids: Vec<u32>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Whether to sample at all; without it the most likely token is taken.
    pub do_sample: Option<bool>,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// Samples among the likeliest tokens that hold this share of the probability.
    pub top_p: Option<f32>,
    /// Samples among this many of the likeliest tokens; 0 among all.
    pub top_k: Option<u32>,
    /// Leaves out tokens less likely than this share of the likeliest.
    pub min_p: Option<f32>,
    /// Divides the positive logits of tokens that were there before, and multiplies the negative ones.
    pub repetition_penalty: Option<f32>,
}

#[derive(Deserialize)]
struct File {
    eos_token_id: Option<Value>,
    bos_token_id: Option<Value>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// `generation_config.json` of a checkpoint, or where that is absent or names no end tokens, those of `config.json`, as
    /// transformers falls back to; `None` where there is neither, as in GGUF.
    ///
    /// # Errors
    /// A file that cannot be read, or anything that [`GenerationConfig::parse`] refuses.
    pub fn open(checkpoint: &Checkpoint) -> Result<Option<GenerationConfig>, Error> {
        let read = |name: &str| {
            let bytes = checkpoint.file(name)?;
            bytes.map(|bytes| GenerationConfig::parse(&checkpoint.path().join(name), &bytes)).transpose()
        };
        let generation = read("generation_config.json")?;
        if generation.as_ref().is_some_and(|config| !config.eos_token_ids.is_empty()) {
            return Ok(generation);
        }
        let Some(config) = read("config.json")? else { return Ok(generation) };
        let GenerationConfig { eos_token_ids, bos_token_id, .. } = config;
        let generation = generation.unwrap_or_default();
        let bos_token_id = generation.bos_token_id.or(bos_token_id);
        Ok(Some(GenerationConfig { eos_token_ids, bos_token_id, ..generation }))
    }

    /// Reads the bytes of the file at `path`.
    ///
    /// # Errors
    /// Not UTF-8, not JSON, a field of another type; an id that is negative or over 32 bits, a temperature that is negative, a
    /// share outside 0 to 1, a repetition penalty that is not positive.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<GenerationConfig, Error> {
        let file: File = serde_json::from_slice(bytes)
            .map_err(|e| Error::malformed(path, "the file", e, "JSON as transformers writes it"))?;
        let within = |field: &str, value: Option<f64>, low: f64, high: f64| match value {
            Some(value) if value < low || value > high => {
                Err(Error::malformed(path, field, value, format!("a number from {low} to {high}")))
            }
            value => Ok(value.map(|value| value as f32)),
        };
        let top_k = match file.top_k {
            // Some files say -1 for all.
            Some(-1) => Some(0),
            Some(k) => Some(u32::try_from(k).map_err(|_| Error::malformed(path, "top_k", k, "a whole number from 0"))?),
            None => None,
        };
        Ok(GenerationConfig {
            eos_token_ids: ids(path, "eos_token_id", file.eos_token_id)?,
            bos_token_id: ids(path, "bos_token_id", file.bos_token_id)?.first().copied(),
            do_sample: file.do_sample,
            temperature: within("temperature", file.temperature, 0.0, 100.0)?,
            top_p: within("top_p", file.top_p, 0.0, 1.0)?,
            top_k,
            min_p: within("min_p", file.min_p, 0.0, 1.0)?,
            repetition_penalty: within("repetition_penalty", file.repetition_penalty, 0.01, 100.0)?,
        })
    }
}

/// An id, a list of them, or null.
fn ids(path: &Path, field: &str, value: Option<Value>) -> Result<Vec<u32>, Error> {
    let items = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    let id = |item: &Value| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::malformed(path, field, item, "a token id or a list of them"))
    };
    let mut ids = items.iter().map(id).collect::<Result<Vec<u32>, Error>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, Error> {
        GenerationConfig::parse(Path::new("generation_config.json"), text.as_bytes())
    }

    #[test]
    fn one_id_and_a_list_of_ids_are_both_read() {
        let one = parse(
            r#"{"eos_token_id": 2, "bos_token_id": 1, "do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20}"#,
        );
        let one = one.expect("parses");
        assert_eq!((one.eos_token_ids.as_slice(), one.bos_token_id), (&[2][..], Some(1)));
        assert_eq!(
            (one.do_sample, one.temperature, one.top_p, one.top_k),
            (Some(true), Some(0.6), Some(0.95), Some(20))
        );
        assert_eq!((one.min_p, one.repetition_penalty), (None, None));
        let list = parse(r#"{"eos_token_id": [128009, 128001, 128009], "bos_token_id": null, "min_p": 0.05}"#)
            .expect("parses");
        assert_eq!(
            (list.eos_token_ids.as_slice(), list.bos_token_id, list.min_p),
            (&[128001, 128009][..], None, Some(0.05))
        );
        assert_eq!(parse("{}").expect("parses"), GenerationConfig::default());
        assert_eq!(parse(r#"{"top_k": -1}"#).expect("parses").top_k, Some(0));
    }

    #[test]
    fn hostile_values_are_refused_with_the_field() {
        for (text, field) in [
            (r#"{"eos_token_id": -1}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1, "x"]}"#, "eos_token_id"),
            (r#"{"eos_token_id": 4294967296}"#, "eos_token_id"),
            (r#"{"temperature": -0.5}"#, "temperature"),
            (r#"{"temperature": 1e300}"#, "temperature"),
            (r#"{"top_p": 1.5}"#, "top_p"),
            (r#"{"top_k": 5000000000}"#, "top_k"),
            (r#"{"min_p": -1}"#, "min_p"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            (r#"{"temperature": NaN}"#, "line 1"),
            ("[", "the file"),
            ("\u{FEFF}{}", "the file"),
        ] {
            let refusal = parse(text).expect_err(text).to_string();
            assert!(refusal.starts_with("generation_config.json: ") && refusal.contains(field), "{refusal}");
        }
    }
}
