//! The vocabulary in a GGUF file's metadata → the parts of a tokenizer.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper};

use super::bpe::{FieldNames, Vocabulary};
use super::decoding::Stage;
use super::json::split_merge;
use super::{Parts, Surround, pre_tokenizers};
use crate::error::Error;

const FIELDS: FieldNames = FieldNames {
    tokens: "tokenizer.ggml.tokens",
    merges: "tokenizer.ggml.merges",
    unk_token: "tokenizer.ggml.unknown_token_id",
};

/// SentencePiece's mark for a space.
const SPACE: char = '\u{2581}';

/// Splitting a longer one in every place would take its square in time.
const TOKEN_BYTES: usize = 1024;

// `tokenizer.ggml.token_type`
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Tokens that end an answer whatever `eos_token_id` says: files for chat often name just one of several.
///
/// Source: the end-of-generation list of llama.cpp.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<EOT>",
];

/// The keys `tokenizer.ggml.*` of a GGUF file, as they stand in it.
#[derive(Debug, Clone, Default)]
pub struct GgufVocabulary {
    /// `model`: `gpt2` for byte-level BPE, `llama` for SentencePiece BPE.
    pub model: String,
    /// `pre`: the name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<String>,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `token_type`, by id; empty where the file has none.
    pub token_types: Vec<i32>,
    /// `scores`, by id, for `llama`.
    pub scores: Vec<f32>,
    /// `merges`, for `gpt2`: two tokens with a space between.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos_token_id: Option<u32>,
    /// `eos_token_id`.
    pub eos_token_id: Option<u32>,
    /// `eot_token_id`, `eom_token_id`: more tokens that end an answer.
    pub end_token_ids: Vec<u32>,
    /// `unknown_token_id`.
    pub unknown_token_id: Option<u32>,
    /// `add_bos_token`.
    pub add_bos_token: Option<bool>,
    /// `add_eos_token`.
    pub add_eos_token: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

impl GgufVocabulary {
    /// Every id that ends an answer.
    pub(super) fn eos_token_ids(&self) -> Vec<u32> {
        let known = |(id, token): (usize, &String)| {
            (ENDS.contains(&token.as_str()) && self.kind(id) != NORMAL).then_some(id as u32)
        };
        let listed = self.tokens.iter().enumerate().filter_map(known);
        self.eos_token_id.into_iter().chain(self.end_token_ids.iter().copied()).chain(listed).collect()
    }

    fn kind(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(NORMAL)
    }

    /// The parts of the tokenizer of the file at `path`.
    ///
    /// # Errors
    /// Lists of unequal length, repeated tokens, ids out of range, scores that are not numbers, merges that name absent tokens; a
    /// model or a pre-tokenizer that is not known.
    pub(super) fn parts(&self, path: &Path) -> Result<Parts, Error> {
        self.check(path)?;
        match self.model.as_str() {
            "gpt2" => self.byte_level(path),
            "llama" => self.sentence_piece(path),
            other => {
                let wanted = "gpt2 (byte-level BPE), llama (SentencePiece BPE)";
                Err(Error::unsupported(path, "tokenizer.ggml.model", format!("{other:?}"), wanted))
            }
        }
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let tokens = self.tokens.len();
        for (field, len) in [("token_type", self.token_types.len()), ("scores", self.scores.len())] {
            if len != 0 && len != tokens {
                let field = format!("tokenizer.ggml.{field}");
                return Err(Error::malformed(path, field, format!("{len} long"), format!("{tokens} as tokens")));
            }
        }
        let ids = [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("unknown_token_id", self.unknown_token_id),
        ];
        let ends = self.end_token_ids.iter().map(|id| ("eot_token_id or eom_token_id", Some(*id)));
        for (field, id) in ids.into_iter().chain(ends) {
            if let Some(id) = id.filter(|id| *id as usize >= tokens) {
                return Err(Error::malformed(
                    path,
                    format!("tokenizer.ggml.{field}"),
                    id,
                    format!("an id below {tokens}"),
                ));
            }
        }
        if let Some(id) = self.scores.iter().position(|score| score.is_nan()) {
            return Err(Error::malformed(path, format!("tokenizer.ggml.scores[{id}]"), "NaN", "a number"));
        }
        Ok(())
    }

    fn byte_level(&self, path: &Path) -> Result<Parts, Error> {
        let name = self.pre.as_deref().unwrap_or_else(|| {
            log::warn!("{}: tokenizer.ggml.pre is absent, taken as \"default\"", path.display());
            "default"
        });
        let pre = pre_tokenizers::named(path, name)?;
        let merge = |(index, line): (usize, &String)| {
            let field = format!("tokenizer.ggml.merges[{index}]");
            split_merge(line)
                .ok_or_else(|| Error::malformed(path, field, format!("{line:?}"), "two tokens with a space between"))
        };
        let vocabulary = Vocabulary {
            tokens: self.numbered(),
            merges: self.merges.iter().enumerate().map(merge).collect::<Result<_, _>>()?,
            ignore_merges: pre.ignore_merges,
            ..Vocabulary::default()
        };
        Ok(Parts {
            model: vocabulary.build(path, FIELDS)?,
            added: self.added(),
            normalizer: pre.normalizer,
            pre_tokenizer: Some(pre.pre_tokenizer),
            decoder: Some(DecoderWrapper::ByteLevel(ByteLevel::new(false, true, false))),
            stages: vec![Stage::ByteLevel],
            surround: self.surround(path, pre.add_bos_token)?,
        })
    }

    fn sentence_piece(&self, path: &Path) -> Result<Parts, Error> {
        if let Some(id) = self.tokens.iter().position(|token| token.len() > TOKEN_BYTES) {
            let met = format!("{} bytes long", self.tokens[id].len());
            return Err(Error::malformed(
                path,
                format!("{}[{id}]", FIELDS.tokens),
                met,
                format!("at most {TOKEN_BYTES}"),
            ));
        }
        let unk = self.unknown_token_id.map(|id| id as usize);
        let unk = unk.or_else(|| (0..self.tokens.len()).find(|id| self.kind(*id) == UNKNOWN));
        let vocabulary = Vocabulary {
            tokens: self.numbered(),
            merges: self.merges_by_score(),
            unk_token: unk.map(|id| self.tokens[id].clone()),
            fuse_unk: true,
            byte_fallback: true,
            ignore_merges: false,
        };
        let prefix = self.add_space_prefix.unwrap_or(true);
        let replace = |text: String, by: String| Replace::new(text, by).expect("a literal is a valid pattern");
        let mut normalizers = vec![NormalizerWrapper::Replace(replace(" ".to_owned(), SPACE.to_string()))];
        let mut decoders = vec![
            DecoderWrapper::Replace(replace(SPACE.to_string(), " ".to_owned())),
            DecoderWrapper::ByteFallback(ByteFallback::new()),
            DecoderWrapper::Fuse(Fuse::new()),
        ];
        let mut stages = vec![Stage::ReplaceChar(SPACE, " ".to_owned()), Stage::ByteFallback, Stage::Fuse];
        if prefix {
            normalizers.insert(0, NormalizerWrapper::Prepend(Prepend::new(SPACE.to_string())));
            decoders.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
            stages.push(Stage::Strip { content: ' ', start: 1, fused: true });
        }
        Ok(Parts {
            model: vocabulary.build(path, FIELDS)?,
            added: self.added(),
            normalizer: Some(NormalizerWrapper::Sequence(Sequence::new(normalizers))),
            pre_tokenizer: None,
            decoder: Some(DecoderWrapper::Sequence(DecoderSequence::new(decoders))),
            stages,
            surround: self.surround(path, true)?,
        })
    }

    fn numbered(&self) -> Vec<(String, u32)> {
        self.tokens.iter().cloned().zip(0..).collect()
    }

    /// Tokens that are found in a text before it is split.
    fn added(&self) -> Vec<AddedToken> {
        let token = |(id, token): (usize, &String)| match self.kind(id) {
            CONTROL | UNKNOWN => Some(AddedToken::from(token.clone(), true).normalized(false)),
            USER_DEFINED => Some(AddedToken::from(token.clone(), false).normalized(false)),
            _ => None,
        };
        self.tokens.iter().enumerate().filter_map(token).filter(|token| !token.content.is_empty()).collect()
    }

    fn surround(&self, path: &Path, add_bos_by_default: bool) -> Result<Surround, Error> {
        let asked = |flag: bool, id: Option<u32>, name: &str| match (flag, id) {
            (false, _) => Ok(Vec::new()),
            (true, Some(id)) => Ok(vec![id]),
            (true, None) => {
                let met = format!("absent, and add_{name}_token is true");
                Err(Error::malformed(path, format!("tokenizer.ggml.{name}_token_id"), met, "an id"))
            }
        };
        let add_bos = self.add_bos_token.unwrap_or(add_bos_by_default && self.bos_token_id.is_some());
        Ok(Surround {
            before: asked(add_bos, self.bos_token_id, "bos")?,
            after: asked(self.add_eos_token.unwrap_or(false), self.eos_token_id, "eos")?,
        })
    }

    /// SentencePiece joins the neighbours whose token has the best score; as a list of merges, that is every split of a token into
    /// two, tokens in order of score.
    ///
    /// Source: `generate_merges` in transformers' convert_slow_tokenizer.py.
    fn merges_by_score(&self) -> Vec<(String, String)> {
        let ids: HashMap<&str, usize> = self
            .tokens
            .iter()
            .enumerate()
            .filter(|(id, _)| self.kind(*id) == NORMAL)
            .map(|(id, token)| (token.as_str(), id))
            .collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| self.kind(*id) == NORMAL) {
            let score = self.scores.get(id).copied().unwrap_or(-(id as f32));
            let splits = token.char_indices().skip(1).filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some(((*ids.get(left)?, *ids.get(right)?), left, right))
            });
            let mut splits: Vec<_> = splits.collect();
            splits.sort_unstable_by_key(|(ids, ..)| *ids);
            let lengths = |text: &str| text.chars().count();
            merges.extend(splits.into_iter().map(|(_, l, r)| ((score, lengths(l), lengths(r)), (l, r))));
        }
        // Stable and descending, as Python sorts with reverse=True; no score is NaN.
        merges.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
        merges.into_iter().map(|(_, (left, right))| (left.to_owned(), right.to_owned())).collect()
    }
}
