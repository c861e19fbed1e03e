//! Text ↔ token ids.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use crate::error::Error;
use crate::text_stream::TextStream;

mod bpe;
mod config;
pub(crate) mod decoding;
mod gguf;
mod json;
mod open;
mod post_processor;
mod pre_tokenizers;
mod save;
mod windows;

pub use config::TokenizerConfig;
use decoding::Stage;
pub use gguf::GgufVocabulary;

/// A byte-pair tokenizer with its special tokens; cloning it is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    eos_token_ids: Vec<u32>,
}

struct Inner {
    path: PathBuf,
    pipeline: tokenizers::Tokenizer,
    stages: Vec<Stage>,
    surround: Surround,
    vocab_size: usize,
    bos_token_id: Option<u32>,
}

/// Ids around a text.
#[derive(Debug, Clone, Default, PartialEq)]
struct Surround {
    before: Vec<u32>,
    after: Vec<u32>,
}

/// What every source of a tokenizer is turned into.
struct Parts {
    model: BPE,
    added: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    decoder: Option<DecoderWrapper>,
    stages: Vec<Stage>,
    surround: Surround,
}

impl Tokenizer {
    /// The tokenizer in the bytes of the `tokenizer.json` at `path`, with the special tokens that `config` names.
    ///
    /// # Errors
    /// Not UTF-8, not JSON, contents at odds with themselves, special tokens that are in no vocabulary; a kind of model, normalizer,
    /// pre-tokenizer, post-processor or decoder that is not supported, by name.
    pub fn from_json(path: &Path, bytes: &[u8], config: &TokenizerConfig) -> Result<Tokenizer, Error> {
        let mut tokenizer = Tokenizer::assemble(path, json::parse(path, bytes)?)?;
        let id = |field: &str, token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => tokenizer.id_of(token).map(Some).ok_or_else(|| {
                let field = format!("{field} of the tokenizer's configuration");
                Error::malformed(path, field, format!("{token:?}"), "a token of the vocabulary")
            }),
        };
        let bos = id("bos_token", &config.bos_token)?;
        let eos = id("eos_token", &config.eos_token)?;
        let inner = Arc::get_mut(&mut tokenizer.inner).expect("no clone has been handed out");
        if let (Some(wanted), Some(bos)) = (config.add_bos_token, bos) {
            inner.surround.before.retain(|id| *id != bos);
            if wanted {
                inner.surround.before.insert(0, bos);
            }
        }
        if let (Some(wanted), Some(eos)) = (config.add_eos_token, eos) {
            inner.surround.after.retain(|id| *id != eos);
            if wanted {
                inner.surround.after.push(eos);
            }
        }
        inner.bos_token_id = bos;
        tokenizer.add_eos_token_ids(eos);
        Ok(tokenizer)
    }

    /// The tokenizer in the metadata of the GGUF file at `path`.
    ///
    /// # Errors
    /// Lists of unequal length, repeated tokens, ids out of range, merges that name absent tokens; a `tokenizer.ggml.model` or
    /// `tokenizer.ggml.pre` that is not supported, by name.
    pub fn from_gguf(path: &Path, vocabulary: &GgufVocabulary) -> Result<Tokenizer, Error> {
        let mut tokenizer = Tokenizer::assemble(path, vocabulary.parts(path)?)?;
        let inner = Arc::get_mut(&mut tokenizer.inner).expect("no clone has been handed out");
        inner.bos_token_id = vocabulary.bos_token_id;
        tokenizer.add_eos_token_ids(vocabulary.eos_token_ids());
        Ok(tokenizer)
    }

    fn assemble(path: &Path, parts: Parts) -> Result<Tokenizer, Error> {
        let refused = |e: tokenizers::Error| Error::malformed(path, "the tokenizer", e, "parts that fit together");
        let mut pipeline = tokenizers::Tokenizer::new(parts.model);
        pipeline.with_normalizer(parts.normalizer).map_err(refused)?;
        pipeline.with_pre_tokenizer(parts.pre_tokenizer);
        pipeline.with_decoder(parts.decoder);
        pipeline.add_tokens(parts.added).map_err(refused)?;
        let last = pipeline.get_vocab(true).into_values().max().unwrap_or(0);
        for id in parts.surround.before.iter().chain(&parts.surround.after) {
            if pipeline.id_to_token(*id).is_none() {
                return Err(Error::malformed(
                    path,
                    "the post-processor",
                    format!("to add token {id}"),
                    "ids of the vocabulary",
                ));
            }
        }
        let inner = Inner {
            path: path.to_owned(),
            pipeline,
            stages: parts.stages,
            surround: parts.surround,
            vocab_size: last as usize + 1,
            bos_token_id: None,
        };
        Ok(Tokenizer { inner: Arc::new(inner), eos_token_ids: Vec::new() })
    }

    /// The ids of a text; special tokens that are spelled in it are found. With `add_special` the ids that the model wants around a
    /// lone text are added: leave them out where a chat template has written them.
    ///
    /// # Errors
    /// A normalizer or a split that fails on this text, by backtracking without end.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.pipeline.encode_fast(text, false).map_err(|e| self.failed("encoding", &e))?;
        if !add_special {
            return Ok(encoding.get_ids().to_vec());
        }
        let Surround { before, after } = &self.inner.surround;
        Ok([before, encoding.get_ids(), after].concat())
    }

    /// The text of ids; ids that are in no vocabulary spell nothing, and with `skip_special` neither do special tokens.
    ///
    /// # Errors
    /// A decoder whose pattern fails on this text, by backtracking without end.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        // Not left to the library, which compares normalized spellings and so passes over some special tokens.
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !(skip_special && self.is_special(*id))).collect();
        self.inner.pipeline.decode(&ids, false).map_err(|e| self.failed("decoding", &e))
    }

    /// The text of ids that come one by one: the pieces, joined, are what [`Tokenizer::decode`] makes of the whole.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.clone(), &self.inner.stages, skip_special)
    }

    /// One more than the largest id. A model may have more rows than that, and a damaged one fewer.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The tokens that end an answer, ascending; none where the checkpoint names none.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// More tokens that end an answer, as `generation_config.json` lists them.
    pub fn add_eos_token_ids(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.eos_token_ids.extend(ids);
        self.eos_token_ids.sort_unstable();
        self.eos_token_ids.dedup();
    }

    /// The token that begins a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.inner.bos_token_id
    }

    /// The id of a token by its exact spelling in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.pipeline.token_to_id(token)
    }

    /// The spelling of a token in the vocabulary, which for most is not the text that it stands for.
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.pipeline.id_to_token(id)
    }

    /// Whether a token marks something rather than spelling it.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .pipeline
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    fn failed(&self, field: &str, reason: &tokenizers::Error) -> Error {
        Error::malformed(&self.inner.path, field, reason, "a pattern that ends")
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.inner.path)
            .field("vocab_size", &self.inner.vocab_size)
            .field("eos_token_ids", &self.eos_token_ids)
            .finish_non_exhaustive()
    }
}
