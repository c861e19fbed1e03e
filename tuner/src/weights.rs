//! All models of one adapter type, and their file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Error, Model};

mod file;

/// All models of one adapter type.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// As the dataset's.
    pub adapter_type: String,
    /// As the dataset's.
    pub adapter: String,
    /// As the dataset's.
    pub driver: String,
    /// As the dataset's.
    pub date: String,
    /// Of the file that they were trained on.
    pub dataset_sha256: String,
    /// By space: a hash of the kernels' text and tunables.
    pub kernel_hashes: BTreeMap<String, String>,
    /// What an evaluation found, as whoever made them noted it.
    pub scores: serde_json::Value,
    /// One a space.
    pub models: Vec<Model>,
}

impl Weights {
    /// The safetensors file: the same bytes for the same weights.
    pub fn to_bytes(&self) -> Vec<u8> {
        file::write(self)
    }

    /// Reads a safetensors file from memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// `Weights`: no safetensors, metadata or a tensor that is missing, of another type or shape or out of its bounds,
    /// or a number that is none.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Weights, Error> {
        file::read(bytes).map_err(|message| Error::Weights { name: name.to_owned(), message })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Io`: it cannot be read. `Weights`: see [`Weights::from_bytes`].
    pub fn read(path: &Path) -> Result<Weights, Error> {
        let bytes = crate::dataset::read_bounded(path, file::MOST_BYTES)?;
        Weights::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Writes a file beside `path`, then renames it to `path`.
    ///
    /// # Errors
    /// `Io`: it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        crate::dataset::write_whole(path, &self.to_bytes())
    }

    /// The model of a space.
    pub fn model(&self, space: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.space().name == space)
    }
}
