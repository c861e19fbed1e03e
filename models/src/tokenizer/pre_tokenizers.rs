//! The splits of byte-level vocabularies that GGUF files name in `tokenizer.ggml.pre` rather than spell out.

use std::path::Path;

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use crate::error::Error;

/// How text is cut before merging, and what goes with it.
pub(super) struct PreTokenizer {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: PreTokenizerWrapper,
    /// A piece that is a token is not merged from its bytes.
    pub(super) ignore_merges: bool,
    /// What `add_bos_token` is when the file does not say.
    pub(super) add_bos_token: bool,
}

/// Llama 3: contractions in any case, up to three digits, words with one character before them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen2: Llama 3's with digits one by one.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tekken (Mistral Nemo and later): words are cut where small letters meet capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What llama.cpp does for files from before there was a name: punctuation, GPT-2's words, digits in threes.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

const SUPPORTED: &str = "default, gpt-2, smollm, llama-bpe, qwen2, tekken";

/// The pre-tokenizer of that name; a file without one has `default`.
///
/// Source: `llm_tokenizer_bpe` and `llama_vocab::impl::load` of llama.cpp for the names, the `tokenizer.json` of each model for what
/// they stand for (Qwen2's has a normalizer that llama.cpp leaves out).
///
/// # Errors
/// A name that is not known: a wrong split gives tokens that the model never saw.
pub(super) fn named(path: &Path, name: &str) -> Result<PreTokenizer, Error> {
    let bytes = |use_regex: bool| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex));
    let plain =
        |pre_tokenizer| PreTokenizer { normalizer: None, pre_tokenizer, ignore_merges: false, add_bos_token: false };
    Ok(match name {
        "gpt-2" | "olmo" | "phi-2" => plain(bytes(true)),
        "smollm" | "starcoder" | "refact" => {
            let digits = PreTokenizerWrapper::Digits(Digits::new(true));
            plain(PreTokenizerWrapper::Sequence(Sequence::new(vec![digits, bytes(true)])))
        }
        "default" => plain(splits(&DEFAULT)),
        "llama-bpe" | "llama3" | "llama-v3" => {
            PreTokenizer { ignore_merges: true, add_bos_token: true, ..plain(splits(&[LLAMA3])) }
        }
        "qwen2" | "deepseek-r1-qwen" => {
            PreTokenizer { normalizer: Some(NormalizerWrapper::NFC(NFC)), ..plain(splits(&[QWEN2])) }
        }
        "tekken" => PreTokenizer { ignore_merges: true, add_bos_token: true, ..plain(splits(&[TEKKEN])) },
        other => return Err(Error::unsupported(path, "tokenizer.ggml.pre", format!("{other:?}"), SUPPORTED)),
    })
}

/// Cuts at each pattern in turn, then bytes.
fn splits(patterns: &[&str]) -> PreTokenizerWrapper {
    let mut steps: Vec<PreTokenizerWrapper> = patterns
        .iter()
        .map(|pattern| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            PreTokenizerWrapper::Split(split.expect("the patterns of this file are compiled by a test"))
        })
        .collect();
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
    PreTokenizerWrapper::Sequence(Sequence::new(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_pre_tokenizer_and_an_unknown_one_is_refused_by_name() {
        for name in SUPPORTED.split(", ") {
            assert!(named(Path::new("m.gguf"), name).is_ok(), "{name}");
        }
        let refusal = named(Path::new("m.gguf"), "viking").err().map(|e| e.to_string());
        assert!(refusal.is_some_and(|text| text.contains("viking") && text.contains("tokenizer.ggml.pre")));
    }
}
