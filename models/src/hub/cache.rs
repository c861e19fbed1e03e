//! Where fetched models are kept.

use std::path::{Path, PathBuf};

use super::name::HubName;

/// The file of the default model in the cache, as `tools/fetch-model` leaves it.
pub const DEFAULT_MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Written last into a fetched folder.
pub(super) const COMPLETE: &str = ".complete";

/// A folder of models and tokenizers that can be fetched again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in that folder, which need not be there.
    pub fn at(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// `$RAGLAN_CACHE`; else `raglan` in the system's folder for caches: `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches` on
    /// macOS, `%LOCALAPPDATA%` on Windows; else `.raglan-cache` where the program was started.
    pub fn from_env() -> Cache {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = folder("RAGLAN_CACHE") {
            return Cache::at(root);
        }
        let system = if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            std::env::home_dir().map(|home| home.join("Library/Caches"))
        } else {
            folder("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        };
        Cache::at(system.map_or_else(|| ".raglan-cache".into(), |caches| caches.join("raglan")))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the default model belongs.
    pub fn default_path(&self) -> PathBuf {
        self.models().join(DEFAULT_MODEL_FILE)
    }

    /// The default model, if it is here: from `tools/fetch-model`, or from the hub.
    pub fn default_model(&self) -> Option<PathBuf> {
        let from_hub = HubName::parse(super::DEFAULT_MODEL).and_then(|name| self.find(&name));
        Some(self.default_path()).filter(|path| path.is_file()).or(from_hub)
    }

    /// A model of the hub, if all of it is here.
    pub fn find(&self, name: &HubName) -> Option<PathBuf> {
        let folder = self.folder(name);
        match &name.file {
            Some(file) => Some(folder.join(file)).filter(|path| path.is_file()),
            None => folder.join(COMPLETE).is_file().then_some(folder),
        }
    }

    /// Every model that is here whole, by the name to ask for it.
    pub fn models_here(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.default_path().is_file() {
            names.push("smollm2-135m".to_owned());
        }
        for entry in std::fs::read_dir(self.models()).into_iter().flatten().flatten() {
            let file_name = entry.file_name();
            let Some((org, name)) = file_name.to_str().and_then(|folder| folder.split_once("--")) else { continue };
            let repository = format!("{org}/{name}");
            if entry.path().join(COMPLETE).is_file() {
                names.push(repository.clone());
            }
            for file in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let file = file.file_name();
                names.extend(file.to_str().filter(|f| f.ends_with(".gguf")).map(|file| format!("{repository}:{file}")));
            }
        }
        names.sort();
        names
    }

    pub(super) fn folder(&self, name: &HubName) -> PathBuf {
        self.models().join(name.folder())
    }

    fn models(&self) -> PathBuf {
        self.root.join("models")
    }
}
