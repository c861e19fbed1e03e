//! Conversation → prompt, by the Jinja template that comes with a checkpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::gguf::Metadata;
use crate::tokenizer::TokenizerConfig;

mod python_json;

/// What a template may spend: an instruction or 64 bytes of text cost one, so that none runs on or fills the memory. A conversation of
/// a megabyte takes a hundredth of it. (minijinja 3.1 joins lists without counting: a template made to double one thirty times does get
/// through.)
const FUEL: u64 = 4_000_000;

/// The one template in an environment.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; templates refuse what they do not know.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of that role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// What a template is told besides the messages.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// Whether the prompt ends where the assistant is to go on.
    pub add_generation_prompt: bool,
    /// More variables by name, `enable_thinking` say; each template knows its own.
    pub variables: BTreeMap<String, serde_json::Value>,
}

impl Default for ChatOptions {
    fn default() -> ChatOptions {
        ChatOptions { add_generation_prompt: true, variables: BTreeMap::new() }
    }
}

/// A compiled chat template with the tokens that it may write.
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// The template of a checkpoint: `chat_template.jinja`, else the one in `tokenizer_config.json` (of several the one named
    /// `default`), else `tokenizer.chat_template` of a GGUF file. `None` where there is none, as in base models.
    ///
    /// # Errors
    /// Files that cannot be read or are not what transformers writes; a list of templates without a `default`; [`Error::Template`]
    /// for a template that does not parse.
    pub fn open(checkpoint: &Checkpoint) -> Result<Option<ChatTemplate>, Error> {
        if let Some(metadata) = checkpoint.metadata() {
            return ChatTemplate::from_gguf(metadata);
        }
        let config = TokenizerConfig::open(checkpoint)?;
        let path = checkpoint.path().join("chat_template.jinja");
        if let Some(bytes) = checkpoint.file("chat_template.jinja")? {
            let source = std::str::from_utf8(&bytes).map_err(|e| Error::malformed(&path, "the file", e, "UTF-8"))?;
            return ChatTemplate::new(&path, source, config.bos_token, config.eos_token).map(Some);
        }
        let config_path = checkpoint.path().join("tokenizer_config.json");
        let Some(source) = config.chat_template(&config_path)? else { return Ok(None) };
        ChatTemplate::new(&config_path, source, config.bos_token.clone(), config.eos_token.clone()).map(Some)
    }

    fn from_gguf(metadata: &Metadata) -> Result<Option<ChatTemplate>, Error> {
        let Some(source) = metadata.text("tokenizer.chat_template")? else { return Ok(None) };
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
        let token = |key: &str| {
            let id = metadata.unsigned(key)?.and_then(|id| usize::try_from(id).ok());
            Ok::<_, Error>(id.and_then(|id| tokens.get(id)).cloned())
        };
        let (bos, eos) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
        ChatTemplate::new(metadata.path(), source, bos, eos).map(Some)
    }

    /// Compiles a template that stands in the file at `path`.
    ///
    /// # Errors
    /// [`Error::Template`] where it is not Jinja as transformers understands it.
    pub fn new(
        path: &Path,
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<ChatTemplate, Error> {
        let mut environment = environment();
        let source = plain_generation_blocks(source);
        environment.add_template_owned(NAME, source).map_err(|e| failed(path, &e))?;
        Ok(ChatTemplate { path: path.into(), environment, bos_token, eos_token })
    }

    /// The prompt. It holds the special tokens that the template writes, so it is encoded without adding others.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses the conversation (with its own words), fails or does not end.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, Error> {
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        context.extend(options.variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        context.insert("messages", Value::from(Serde(messages)));
        context.insert("add_generation_prompt", options.add_generation_prompt.into());
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            if let Some(token) = token {
                context.insert(name, token.as_str().into());
            }
        }
        let template = self.environment.get_template(NAME).map_err(|e| failed(&self.path, &e))?;
        template.render(Value::from_pairs(context)).map_err(|e| failed(&self.path, &e))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Jinja as transformers sets it up.
///
/// Source: `_compile_jinja_template` in transformers' chat_template_utils.py.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters differ from each other"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", python_json::tojson);
    environment.add_function("raise_exception", |text: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_function("strftime_now", |format: &str| {
        jiff::fmt::strtime::format(format, &jiff::Zoned::now())
            .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
    });
    environment
}

/// `{% generation %}` marks the assistant's words for training and writes nothing; a block that is always taken does the same.
fn plain_generation_blocks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%").map(|at| at + 2) {
        let Some(len) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + len]);
        plain.push_str(before);
        let word = tag.trim_matches(['-', '+']).trim();
        plain.push_str(&match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.to_owned(),
        });
        rest = &rest[start + len..];
    }
    plain + rest
}

fn failed(path: &Path, error: &minijinja::Error) -> Error {
    let reason = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it does not end within {FUEL} steps"),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    Error::Template { path: path.into(), line: error.line().unwrap_or(1), reason }
}
