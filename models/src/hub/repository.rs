//! The files of a model: which to fetch, all from one commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Progress;
use super::cache::COMPLETE;
use super::client::{Hub, RemoteFile};
use super::download;
use super::name::{HubName, is_plain};
use crate::error::Error;

/// Beside `config.json` and the weights; none of them must be there.
const SMALL_FILES: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "quantize_config.json",
];

/// Says from which commit the files of a folder are, so that a download that is taken up again does not mix two.
const COMMIT: &str = ".commit";

const INDEX: &str = "model.safetensors.index.json";

/// Files besides weights are a few megabytes; what is larger is something else.
const SMALL_BYTES: u64 = 256 << 20;

/// A 700B model has fewer.
const MAX_SHARDS: usize = 1000;

/// A file to fetch.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a HubName,
    pub(super) file: &'a str,
    pub(super) url: String,
    pub(super) remote: RemoteFile,
}

impl Wanted<'_> {
    pub(super) fn failed(&self, reason: String) -> Error {
        Error::Hub { name: self.name.to_string(), url: self.url.clone(), reason }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::HashMap<String, String>,
}

impl Hub {
    /// The path of a model in the cache, fetched first where it is not whole there. What is whole is not asked for again: delete it to
    /// have a newer one.
    ///
    /// # Errors
    /// [`Error::Offline`] where it is not in the cache and the network may not be used; [`Error::Hub`] where the hub does not give it;
    /// [`Error::Malformed`] for an index that names files which no folder may hold; [`Error::Io`] where the cache cannot be written.
    pub fn fetch(&self, name: &HubName, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, Error> {
        if let Some(path) = self.cache.find(name) {
            return Ok(path);
        }
        if self.offline {
            let mut cached = self.cache.models_here().join(", ");
            if cached.is_empty() {
                cached = "nothing".into();
            }
            return Err(Error::Offline { name: name.to_string(), cache: self.cache.root().into(), cached });
        }
        let folder = self.cache.folder(name);
        let commit = std::fs::read_to_string(folder.join(COMMIT)).ok().filter(|commit| is_plain(commit));
        let mut files = Files { hub: self, name, folder: &folder, commit, progress };
        match &name.file {
            Some(file) => files.required(file, u64::MAX),
            None => files.folder(),
        }
    }
}

/// The files of one repository on their way into one folder.
struct Files<'a> {
    hub: &'a Hub,
    name: &'a HubName,
    folder: &'a Path,
    /// Known from the first file on.
    commit: Option<String>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Files<'_> {
    fn revision(&self) -> &str {
        self.commit.as_deref().unwrap_or("main")
    }

    fn folder(&mut self) -> Result<PathBuf, Error> {
        if self.optional("config.json", SMALL_BYTES)?.is_none() {
            let reason = "it has no config.json: name one of its .gguf files as org/name:file.gguf, or a repository of safetensors";
            let url = self.hub.url(self.name, self.revision(), "config.json");
            return Err(Error::Hub { name: self.name.to_string(), url, reason: reason.into() });
        }
        for file in SMALL_FILES {
            self.optional(file, SMALL_BYTES)?;
        }
        match self.optional(INDEX, SMALL_BYTES)? {
            None => {
                self.required("model.safetensors", u64::MAX)?;
            }
            Some(path) => {
                let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
                for shard in shards(&path, &bytes)? {
                    self.required(&shard, u64::MAX)?;
                }
            }
        }
        let complete = self.folder.join(COMPLETE);
        std::fs::write(&complete, self.revision()).map_err(Error::io(&complete))?;
        Ok(self.folder.into())
    }

    fn required(&mut self, file: &str, limit: u64) -> Result<PathBuf, Error> {
        self.optional(file, limit)?.ok_or_else(|| Error::Hub {
            name: self.name.to_string(),
            url: self.hub.url(self.name, self.revision(), file),
            reason: "the repository is there and this file is not: look at its page for the exact name".into(),
        })
    }

    /// Fetches a file unless it is here already; `None` where the repository has none of that name.
    fn optional(&mut self, file: &str, limit: u64) -> Result<Option<PathBuf>, Error> {
        let target = self.folder.join(file);
        if target.is_file() {
            return Ok(Some(target));
        }
        let url = self.hub.url(self.name, self.revision(), file);
        let Some(remote) = self.hub.look(self.name, &url)? else { return Ok(None) };
        if self.commit.is_none()
            && let Some(commit) = &remote.commit
        {
            let path = self.folder.join(COMMIT);
            std::fs::create_dir_all(self.folder).map_err(Error::io(self.folder))?;
            std::fs::write(&path, commit).map_err(Error::io(&path))?;
            self.commit = Some(commit.clone());
        }
        let url = self.hub.url(self.name, self.revision(), file);
        let wanted = Wanted { name: self.name, file, url, remote };
        if let Some(size) = wanted.remote.size.filter(|size| *size > limit) {
            return Err(wanted.failed(format!("{size} bytes, where at most {limit} are expected")));
        }
        download::fetch(self.hub, &wanted, &target, self.progress)?;
        Ok(Some(target))
    }
}

/// The files that an index names.
///
/// # Errors
/// [`Error::Malformed`] for what is no index, for names that are no plain file names, and for too many.
fn shards(path: &Path, bytes: &[u8]) -> Result<BTreeSet<String>, Error> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|e| Error::malformed(path, "weight_map", e, "tensors with their files"))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(bad) = shards.iter().find(|shard| !is_plain(shard) || !shard.ends_with(".safetensors")) {
        let wanted = "a plain file name that ends in .safetensors";
        return Err(Error::malformed(path, "weight_map", format!("{bad:?}"), wanted));
    }
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(Error::malformed(
            path,
            "weight_map",
            format!("{} files", shards.len()),
            format!("1 to {MAX_SHARDS}"),
        ));
    }
    Ok(shards)
}
