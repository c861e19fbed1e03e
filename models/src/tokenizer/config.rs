//! `tokenizer_config.json`: which tokens begin and end a text, and the chat template.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// The part of `tokenizer_config.json` (or of `special_tokens_map.json`) that bears on text; everything else in it is about Python.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    /// The token before a text.
    pub bos_token: Option<String>,
    /// The token after an answer.
    pub eos_token: Option<String>,
    /// Stands for what no token spells.
    pub unk_token: Option<String>,
    /// Fills short rows of a batch, in training.
    pub pad_token: Option<String>,
    /// Whether encoding puts `bos_token` first; `None` leaves it to `tokenizer.json`.
    pub add_bos_token: Option<bool>,
    /// Whether encoding puts `eos_token` last; `None` leaves it to `tokenizer.json`.
    pub add_eos_token: Option<bool>,
    /// Templates by name; a lone template is called `default`.
    pub chat_templates: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct File {
    bos_token: Option<TokenField>,
    eos_token: Option<TokenField>,
    unk_token: Option<TokenField>,
    pad_token: Option<TokenField>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Value>,
}

/// Older files give a token's text, newer ones an object with its matching rules.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenField {
    Text(String),
    Object { content: String },
}

impl TokenField {
    fn text(self) -> String {
        match self {
            TokenField::Text(text) | TokenField::Object { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TokenizerConfig {
    /// Reads the bytes of the file at `path`.
    ///
    /// # Errors
    /// Not UTF-8, not JSON, a field of another type than it has in transformers.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<TokenizerConfig, Error> {
        let file: File = serde_json::from_slice(bytes)
            .map_err(|e| Error::malformed(path, "the file", e, "JSON as transformers writes it"))?;
        let chat_templates = match file.chat_template {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(template)) => vec![("default".to_owned(), template)],
            Some(list) => serde_json::from_value::<Vec<NamedTemplate>>(list)
                .map_err(|e| Error::malformed(path, "chat_template", e, "a template or a list of {name, template}"))?
                .into_iter()
                .map(|named| (named.name, named.template))
                .collect(),
        };
        Ok(TokenizerConfig {
            bos_token: file.bos_token.map(TokenField::text),
            eos_token: file.eos_token.map(TokenField::text),
            unk_token: file.unk_token.map(TokenField::text),
            pad_token: file.pad_token.map(TokenField::text),
            add_bos_token: file.add_bos_token,
            add_eos_token: file.add_eos_token,
            chat_templates,
        })
    }
    /// The template for a plain conversation; of several the one named `default`.
    ///
    /// # Errors
    /// A list of templates without a `default`.
    pub fn chat_template(&self, path: &Path) -> Result<Option<&str>, Error> {
        let default = self.chat_templates.iter().find(|(name, _)| name == "default");
        match default {
            None if !self.chat_templates.is_empty() => {
                let names: Vec<&str> = self.chat_templates.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::malformed(
                    path,
                    "chat_template",
                    format!("a list of {}", names.join(", ")),
                    "one named default",
                ))
            }
            found => Ok(found.map(|(_, template)| template.as_str())),
        }
    }
}
