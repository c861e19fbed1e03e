//! A tokenizer as the files of a Hugging Face folder.

use serde_json::{Value, json};

use super::Tokenizer;
use crate::{Checkpoint, Error};

impl Tokenizer {
    /// The files, by name, that tell this tokenizer, the tokens that end an answer and the chat template of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a part of it cannot be written as JSON, or the template is no text.
    pub fn files(&self, checkpoint: &Checkpoint) -> Result<Vec<(&'static str, Value)>, Error> {
        let inner = &self.inner;
        let json = serde_json::to_value(&inner.pipeline)
            .map_err(|error| Error::malformed(&inner.path, "the tokenizer", error, "parts that JSON can tell"))?;
        let spelling = |id: u32| self.token_of(id);
        let eos = inner.surround.after.first().or(self.eos_token_ids.first()).copied();
        let template = match checkpoint.metadata() {
            Some(metadata) => metadata.text("tokenizer.chat_template")?.map(str::to_owned),
            None => None,
        };
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": inner.bos_token_id.and_then(spelling),
            "eos_token": eos.and_then(spelling),
            "add_bos_token": inner.bos_token_id.is_some_and(|bos| inner.surround.before.contains(&bos)),
            "add_eos_token": eos.is_some_and(|eos| inner.surround.after.contains(&eos)),
            "clean_up_tokenization_spaces": false,
        });
        if let Some(template) = template {
            config["chat_template"] = template.into();
        }
        let generation = json!({ "bos_token_id": inner.bos_token_id, "eos_token_id": self.eos_token_ids });
        Ok(vec![("tokenizer.json", json), ("tokenizer_config.json", config), ("generation_config.json", generation)])
    }
}
