//! A byte-pair vocabulary from outside, checked before the `tokenizers` crate sees it: that crate panics on merges whose result is
//! in no vocabulary.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};

use crate::error::Error;

/// No vocabulary in use comes near; an id above it is damage, and tables indexed by ids stay small.
pub(super) const ID_LIMIT: u32 = 1 << 24;

/// What a file says of its byte-pair model.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    /// Tokens with their ids, in the order of the file.
    pub(super) tokens: Vec<(String, u32)>,
    /// Pairs, the one to be merged first at the front.
    pub(super) merges: Vec<(String, String)>,
    /// Stands for a character that no token spells.
    pub(super) unk_token: Option<String>,
    /// A run of unknown characters is one unknown token.
    pub(super) fuse_unk: bool,
    /// A character that no token spells becomes its bytes' tokens, `<0x00>` to `<0xFF>`.
    pub(super) byte_fallback: bool,
    /// A piece of text that is a token is that token, whatever the merges would make of it.
    pub(super) ignore_merges: bool,
}

/// The names under which a file keeps its vocabulary, for messages.
#[derive(Clone, Copy)]
pub(super) struct FieldNames {
    /// The list of tokens.
    pub(super) tokens: &'static str,
    /// The list of merges.
    pub(super) merges: &'static str,
    /// The unknown token.
    pub(super) unk_token: &'static str,
}

impl Vocabulary {
    /// The model, with every statement of the file checked.
    ///
    /// # Errors
    /// An empty vocabulary, a token or an id that is there twice, an id of [`ID_LIMIT`] or more, a merge with a part or a result
    /// that is no token, an unknown token that is no token.
    pub(super) fn build(self, path: &Path, fields: FieldNames) -> Result<BPE, Error> {
        let ids = self.ids(path, fields)?;
        let mut merged = String::new();
        for (index, (left, right)) in self.merges.iter().enumerate() {
            merged.clear();
            merged.push_str(left);
            merged.push_str(right);
            for token in [left, right, &merged] {
                if !ids.contains_key(token.as_str()) {
                    let field = format!("{}[{index}]", fields.merges);
                    let met = format!("{left:?} + {right:?}, and {token:?} is no token");
                    return Err(Error::malformed(path, field, met, "two tokens that join to a token"));
                }
            }
        }
        if let Some(unk) = &self.unk_token
            && !ids.contains_key(unk.as_str())
        {
            return Err(Error::malformed(path, fields.unk_token, format!("{unk:?}"), "a token of the vocabulary"));
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(self.tokens.into_iter().collect::<Vocab>(), self.merges)
            .fuse_unk(self.fuse_unk)
            .byte_fallback(self.byte_fallback)
            .ignore_merges(self.ignore_merges);
        if let Some(unk) = self.unk_token {
            builder = builder.unk_token(unk);
        }
        builder.build().map_err(|e| Error::malformed(path, fields.merges, e, "byte-pair merges"))
    }

    /// Token → id, once both are known to be one-to-one.
    fn ids(&self, path: &Path, fields: FieldNames) -> Result<HashMap<&str, u32>, Error> {
        if self.tokens.is_empty() {
            return Err(Error::malformed(path, fields.tokens, "empty", "at least one token"));
        }
        let mut ids = HashMap::with_capacity(self.tokens.len());
        let mut used = HashSet::with_capacity(self.tokens.len());
        for (token, id) in &self.tokens {
            let field = || format!("{}[{token:?}]", fields.tokens);
            if *id >= ID_LIMIT {
                return Err(Error::malformed(path, field(), id, format!("an id below {ID_LIMIT}")));
            }
            if !used.insert(*id) {
                return Err(Error::malformed(path, field(), format!("{id}, as another token's"), "an id of its own"));
            }
            if let Some(other) = ids.insert(token.as_str(), *id) {
                return Err(Error::malformed(
                    path,
                    field(),
                    format!("there twice, as {other} and {id}"),
                    "one id a token",
                ));
            }
        }
        Ok(ids)
    }
}
