//! Checkpoints made for tests: goldens copied and broken, and GGUF files written from them.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod gguf_file;

use std::fs;
use std::path::{Path, PathBuf};

use raglan_models::{Checkpoint, Error};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use gguf_file::{GgufFile, gguf_of, half_bytes};

/// A golden folder of the repository.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// A copy of a golden folder, without what only the goldens' readers need.
pub(crate) fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// A copy of a golden folder with keys of `config.json` set, or taken out by null.
pub(crate) fn with_config(name: &str, changes: &[(&str, Value)]) -> TempDir {
    let folder = copy_of(name);
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let object = config.as_object_mut().unwrap();
    for (key, value) in changes {
        match value {
            Value::String(text) if text == ABSENT => drop(object.remove(*key)),
            value => drop(object.insert((*key).into(), value.clone())),
        }
    }
    fs::write(path, config.to_string()).unwrap();
    folder
}

/// Takes a key out of `config.json` in [`with_config`].
pub(crate) const ABSENT: &str = "(absent)";

/// The message of a checkpoint that must be refused; it must hold each of `parts`.
pub(crate) fn refused(path: &Path, parts: &[&str]) -> Error {
    let error = match Checkpoint::open(path) {
        Ok(_) => panic!("{} was opened; the message should hold {parts:?}", path.display()),
        Err(error) => error,
    };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not hold {part:?}");
    }
    error
}

/// A safetensors file of a header and data.
pub(crate) fn safetensors_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Header (as JSON) and data of a safetensors file.
pub(crate) fn split_safetensors(path: &Path) -> (serde_json::Map<String, Value>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + header]).unwrap(), bytes[8 + header..].to_vec())
}
