//! Everything that can be wrong with a checkpoint, each with the file, the field, what was met and what was wanted.

use std::path::PathBuf;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file breaks the rules of its own format, or two of its statements disagree.
    #[error("{path}: {field} is {met}, wanted {wanted}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The key, tensor or header entry.
        field: String,
        /// What the file says.
        met: String,
        /// What it may say.
        wanted: String,
    },
    /// The file is sound, and asks for something that is not built.
    #[error("{path}: {field} is {met}, which is not supported; supported: {wanted}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key or tensor.
        field: String,
        /// What the file asks for.
        met: String,
        /// What is supported.
        wanted: String,
    },
    /// A tensor that the configuration asks for is in no file.
    #[error("{path}: tensor {name} is missing; the configuration asks for it with shape {wanted:?}", path = path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name as the file would spell it.
        name: String,
        /// Its shape, rows first.
        wanted: Vec<usize>,
    },
    /// A tensor that no part of the model reads: running without it would give wrong answers.
    #[error("{path}: tensor {name} is no part of a {family} model with this configuration, so answers would be wrong", path = path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The family that the configuration names.
        family: &'static str,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{path}: tensor {name} has shape {met:?}, the configuration asks for {wanted:?}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        met: Vec<usize>,
        /// The shape that the configuration asks for.
        wanted: Vec<usize>,
    },
    /// A number that every answer depends on is NaN or infinite.
    #[error("{path}: tensor {name} holds {met} at index {index}, wanted finite numbers; the file is damaged: fetch it again", path = path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Where in the tensor.
        index: usize,
        /// The number.
        met: f32,
    },
    /// The user ended it.
    #[error("{path}: stopped before it was whole; nothing is left of it", path = path.display())]
    Interrupted {
        /// What was being written.
        path: PathBuf,
    },
    /// A chat template does not parse, fails, or refuses the conversation.
    #[error("{path}: chat template, line {line}: {reason}; --no-chat-template does without it", path = path.display())]
    Template {
        /// The file that the template comes from.
        path: PathBuf,
        /// The line of the template, from 1.
        line: usize,
        /// What the template engine, or the template itself, says.
        reason: String,
    },
    /// A name that means no model.
    #[error("model {name:?} {reason}; a model is {known}")]
    UnknownModel {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What a model may be called.
        known: String,
    },
    /// The hub does not give a model.
    #[error("{name}: {url}: {reason}")]
    Hub {
        /// The model.
        name: String,
        /// The address that was asked.
        url: String,
        /// What came instead, and what to do.
        reason: String,
    },
    /// A model is not in the cache, and the network may not be used.
    #[error("{name} is not in the cache at {cache}, which has {cached}; unset RAGLAN_OFFLINE and HF_HUB_OFFLINE to fetch it", cache = cache.display())]
    Offline {
        /// The model.
        name: String,
        /// Where fetched models are kept.
        cache: PathBuf,
        /// What is there.
        cached: String,
    },
}

impl Error {
    /// [`Error::Malformed`] with its words given as anything that prints.
    pub(crate) fn malformed(
        path: impl Into<PathBuf>,
        field: impl ToString,
        met: impl ToString,
        wanted: impl ToString,
    ) -> Error {
        Error::Malformed {
            path: path.into(),
            field: field.to_string(),
            met: met.to_string(),
            wanted: wanted.to_string(),
        }
    }

    /// [`Error::Unsupported`] with its words given as anything that prints.
    pub(crate) fn unsupported(
        path: impl Into<PathBuf>,
        field: impl ToString,
        met: impl ToString,
        wanted: impl ToString,
    ) -> Error {
        Error::Unsupported {
            path: path.into(),
            field: field.to_string(),
            met: met.to_string(),
            wanted: wanted.to_string(),
        }
    }

    /// For `map_err`: [`Error::Io`] on `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
