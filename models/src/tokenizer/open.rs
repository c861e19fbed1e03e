//! The tokenizer of a checkpoint.

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::generation::GenerationConfig;
use crate::gguf::Metadata;
use crate::tokenizer::{GgufVocabulary, Tokenizer, TokenizerConfig};

impl Tokenizer {
    /// The tokenizer of a checkpoint, with every token that ends an answer as the checkpoint's files list them. `None` where the
    /// checkpoint has none: it then runs on token ids.
    ///
    /// # Errors
    /// Files that cannot be read, that are at odds with themselves, or that ask for a kind of tokenizer that is not supported.
    pub fn open(checkpoint: &Checkpoint) -> Result<Option<Tokenizer>, Error> {
        if let Some(metadata) = checkpoint.metadata() {
            let Some(vocabulary) = GgufVocabulary::read(metadata)? else { return Ok(None) };
            return Tokenizer::from_gguf(checkpoint.path(), &vocabulary).map(Some);
        }
        let folder = checkpoint.path();
        let Some(bytes) = checkpoint.file("tokenizer.json")? else {
            if checkpoint.file("tokenizer.model")?.is_some() {
                log::warn!(
                    "{}: tokenizer.model is not read; AutoTokenizer of transformers saves it as tokenizer.json",
                    folder.display()
                );
            }
            return Ok(None);
        };
        let config = TokenizerConfig::open(checkpoint)?;
        let mut tokenizer = Tokenizer::from_json(&folder.join("tokenizer.json"), &bytes, &config)?;
        if let Some(generation) = GenerationConfig::open(checkpoint)? {
            tokenizer.add_eos_token_ids(generation.eos_token_ids);
        }
        Ok(Some(tokenizer))
    }
}

impl TokenizerConfig {
    /// `tokenizer_config.json` of a folder, or `special_tokens_map.json` where older tools wrote just that.
    ///
    /// # Errors
    /// A file that cannot be read, or a field of another type than it has in transformers.
    pub fn open(checkpoint: &Checkpoint) -> Result<TokenizerConfig, Error> {
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            if let Some(bytes) = checkpoint.file(name)? {
                return TokenizerConfig::parse(&checkpoint.path().join(name), &bytes);
            }
        }
        Ok(TokenizerConfig::default())
    }
}

impl GgufVocabulary {
    /// The vocabulary in a GGUF file's metadata; `None` where there is none.
    ///
    /// # Errors
    /// A key of another type than the format gives it, an id over 32 bits.
    pub fn read(metadata: &Metadata) -> Result<Option<GgufVocabulary>, Error> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let Some(model) = metadata.text(&key("model"))? else { return Ok(None) };
        let malformed = |name: &str, met: u64| Error::malformed(metadata.path(), key(name), met, "a token id");
        let id = |name: &str| match metadata.unsigned(&key(name))? {
            Some(id) => u32::try_from(id).map(Some).map_err(|_| malformed(name, id)),
            None => Ok(None),
        };
        let texts = |name: &str| Ok::<_, Error>(metadata.texts(&key(name))?.unwrap_or_default().to_vec());
        let kinds = metadata.integers(&key("token_type"))?.unwrap_or_default();
        let scores = metadata.floats(&key("scores"))?.unwrap_or_default();
        Ok(Some(GgufVocabulary {
            model: model.into(),
            pre: metadata.text(&key("pre"))?.map(str::to_owned),
            tokens: texts("tokens")?,
            token_types: kinds.iter().map(|kind| i32::try_from(*kind).unwrap_or(i32::MAX)).collect(),
            scores: scores.iter().map(|score| *score as f32).collect(),
            merges: texts("merges")?,
            bos_token_id: id("bos_token_id")?,
            eos_token_id: id("eos_token_id")?,
            end_token_ids: id("eot_token_id")?.into_iter().chain(id("eom_token_id")?).collect(),
            unknown_token_id: id("unknown_token_id")?,
            add_bos_token: metadata.flag(&key("add_bos_token"))?,
            add_eos_token: metadata.flag(&key("add_eos_token"))?,
            add_space_prefix: metadata.flag(&key("add_space_prefix"))?,
        }))
    }
}
