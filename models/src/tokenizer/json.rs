//! `tokenizer.json` → the parts of a tokenizer.
//!
//! The `tokenizers` crate trusts its files: it panics on a truncated decoder, a bad character map, a template that names an absent
//! token. So the byte-pair model is built here from checked lists, post-processors are read here, and of the other parts only the
//! kinds listed below are handed on, as JSON that has been parsed whole.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::bpe::{FieldNames, ID_LIMIT, Vocabulary};
use super::decoding::Stage;
use super::post_processor;
use super::{Parts, Surround};
use crate::error::Error;

const FIELDS: FieldNames = FieldNames { tokens: "model.vocab", merges: "model.merges", unk_token: "model.unk_token" };

const NORMALIZERS: &[&str] =
    &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Replace", "Prepend", "Sequence"];

const PRE_TOKENIZERS: &[&str] =
    &["ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Metaspace", "Sequence"];

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default = "yes")]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: VocabField,
    merges: Option<Vec<Merge>>,
    unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

/// A map of tokens to ids with nothing lost: a JSON map type would keep one of two equal keys. Unigram models have a list here.
enum VocabField {
    Map(Vec<(String, u32)>),
    List,
}

impl<'de> Deserialize<'de> for VocabField {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<VocabField, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = VocabField;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabField, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tokens.push(entry);
                }
                Ok(VocabField::Map(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<VocabField, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(VocabField::List)
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

/// Reads the bytes of the `tokenizer.json` at `path`.
///
/// # Errors
/// Not UTF-8, not JSON, a field of another type; ids or tokens that are there twice, merges that name absent tokens; a model other
/// than BPE, and a normalizer, pre-tokenizer, post-processor or decoder that is not in the lists of this file.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Parts, Error> {
    let file: File = serde_json::from_slice(bytes)
        .map_err(|e| Error::malformed(path, "the file", e, "JSON as the tokenizers library writes it"))?;
    let mut vocabulary = vocabulary(path, file.model)?;
    let added = added_tokens(path, file.added_tokens, &mut vocabulary.tokens)?;
    let stages = match &file.decoder {
        None => vec![Stage::JoinSpaces],
        Some(decoder) => Stage::list(path, decoder)?,
    };
    let surround = match &file.post_processor {
        None => Surround::default(),
        Some(processor) => post_processor::surround(path, processor)?,
    };
    Ok(Parts {
        model: vocabulary.build(path, FIELDS)?,
        added,
        normalizer: part::<NormalizerWrapper>(path, "normalizer", file.normalizer, NORMALIZERS)?,
        pre_tokenizer: part::<PreTokenizerWrapper>(path, "pre_tokenizer", file.pre_tokenizer, PRE_TOKENIZERS)?,
        decoder: part(path, "decoder", file.decoder, super::decoding::DECODERS)?,
        stages,
        surround,
    })
}

fn vocabulary(path: &Path, model: Model) -> Result<Vocabulary, Error> {
    let kind = model.kind.as_deref().unwrap_or(if model.merges.is_some() { "BPE" } else { "absent" });
    let (VocabField::Map(tokens), "BPE", Some(merges)) = (model.vocab, kind, model.merges) else {
        return Err(Error::unsupported(path, "model.type", format!("{kind:?}"), "\"BPE\""));
    };
    if model.dropout.is_some_and(|p| p != 0.0) {
        return Err(Error::unsupported(path, "model.dropout", "not zero", "none: equal text gives equal tokens"));
    }
    let affixes = [
        ("model.continuing_subword_prefix", model.continuing_subword_prefix),
        ("model.end_of_word_suffix", model.end_of_word_suffix),
    ];
    for (field, affix) in affixes {
        if let Some(text) = affix.filter(|text| !text.is_empty()) {
            return Err(Error::unsupported(path, field, format!("{text:?}"), "none"));
        }
    }
    let merges = merges
        .into_iter()
        .enumerate()
        .map(|(index, merge)| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Joined(line) => split_merge(&line).ok_or_else(|| {
                let wanted = "two tokens with a space between";
                Error::malformed(path, format!("model.merges[{index}]"), format!("{line:?}"), wanted)
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Vocabulary {
        tokens,
        merges,
        unk_token: model.unk_token,
        fuse_unk: model.fuse_unk,
        byte_fallback: model.byte_fallback,
        ignore_merges: model.ignore_merges,
    })
}

/// `"a b"` → `("a", "b")`; the left token has at least one character, which may itself be a space.
pub(super) fn split_merge(line: &str) -> Option<(String, String)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line[first..].find(' ')?;
    let right = &line[space + 1..];
    (!right.is_empty() && !right.contains(' ')).then(|| (line[..space].to_owned(), right.to_owned()))
}

/// The added tokens, with the ids that the file gives them.
///
/// The library numbers tokens that the vocabulary lacks from the vocabulary's length on. Where the file says otherwise they are put
/// into the vocabulary, where an id can be had; no merge leads to them.
fn added_tokens(path: &Path, added: Vec<Added>, tokens: &mut Vec<(String, u32)>) -> Result<Vec<AddedToken>, Error> {
    let wanted: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
    let known: std::collections::HashMap<String, u32> =
        tokens.iter().filter(|(token, _)| wanted.contains(token.as_str())).cloned().collect();
    let mut seen = HashSet::new();
    let mut absent = Vec::new();
    for token in &added {
        let field = || format!("added_tokens[{:?}].id", token.content);
        if token.id >= ID_LIMIT {
            return Err(Error::malformed(path, field(), token.id, format!("an id below {ID_LIMIT}")));
        }
        if token.content.is_empty() || !seen.insert(token.content.as_str()) {
            return Err(Error::malformed(path, field(), "of an empty or repeated token", "each token once"));
        }
        match known.get(&token.content) {
            Some(id) if *id != token.id => {
                return Err(Error::malformed(path, field(), token.id, format!("{id}, as model.vocab has it")));
            }
            Some(_) => {}
            None => absent.push((token.content.clone(), token.id)),
        }
    }
    if !absent.iter().zip(tokens.len()..).all(|((_, id), next)| *id as usize == next) {
        tokens.extend(absent);
    } else {
        let used: HashSet<u32> = tokens.iter().map(|(_, id)| *id).collect();
        if let Some((token, id)) = absent.iter().find(|(_, id)| used.contains(id)) {
            let field = format!("added_tokens[{token:?}].id");
            return Err(Error::malformed(path, field, format!("{id}, as another token's"), "an id of its own"));
        }
    }
    let rules = |t: Added| {
        AddedToken::from(t.content, t.special)
            .single_word(t.single_word)
            .lstrip(t.lstrip)
            .rstrip(t.rstrip)
            .normalized(t.normalized)
    };
    Ok(added.into_iter().map(rules).collect())
}

/// A part of the pipeline, if it and all that it is made of are of known kinds.
fn part<T: DeserializeOwned>(
    path: &Path,
    field: &str,
    value: Option<Value>,
    supported: &[&str],
) -> Result<Option<T>, Error> {
    let Some(value) = value else { return Ok(None) };
    check_kinds(path, field, &value, supported)?;
    serde_json::from_value(value)
        .map(Some)
        .map_err(|e| Error::malformed(path, field, e, "as the tokenizers library writes it"))
}

fn check_kinds(path: &Path, field: &str, value: &Value, supported: &[&str]) -> Result<(), Error> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("absent");
    if !supported.contains(&kind) {
        return Err(Error::unsupported(path, format!("{field}.type"), format!("{kind:?}"), supported.join(", ")));
    }
    if let Some(pattern) = value.get("pattern")
        && pattern.as_object().is_some_and(|p| p.values().any(|text| text.as_str() == Some("")))
    {
        return Err(Error::malformed(path, format!("{field}.pattern"), "empty", "a pattern"));
    }
    for list in ["normalizers", "pretokenizers", "decoders"] {
        for (index, inner) in value.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            check_kinds(path, &format!("{field}.{list}[{index}]"), inner, supported)?;
        }
    }
    Ok(())
}
