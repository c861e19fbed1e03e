//! What can go wrong for reasons outside this package: files of measurements and of weights, and what they hold.

use std::path::PathBuf;

/// Every failure of the tuner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Bytes that are no dataset, or one that breaks its own rules.
    #[error("{name}: no dataset of the tuner: {message}")]
    Dataset {
        /// The file, or what stands for it.
        name: String,
        /// What was met and what was wanted.
        message: String,
    },
    /// Bytes that are no weights, or ones that break their own rules.
    #[error("{name}: no weights of the tuner: {message}")]
    Weights {
        /// The file, or what stands for it.
        name: String,
        /// What was met and what was wanted.
        message: String,
    },
    /// A text that names no candidate.
    #[error("{text:?} names no candidate: {message}")]
    Candidate {
        /// What was read.
        text: String,
        /// What was wanted.
        message: String,
    },
    /// A dataset from which nothing can be learned.
    #[error("nothing to train on: {message}")]
    NothingToTrain {
        /// What is lacking.
        message: String,
    },
}
