//! Names of models on the hub.

use std::fmt;

/// `org/name`, or `org/name:file` for one file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `org/name`.
    pub repository: String,
    /// A `.gguf` file in it; without one the repository is a folder of safetensors.
    pub file: Option<String>,
}

impl HubName {
    /// Reads a name; `None` where it is not of that form or could lead out of the cache.
    pub fn parse(text: &str) -> Option<HubName> {
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let (org, name) = repository.split_once('/')?;
        let whole =
            is_plain(org) && is_plain(name) && file.is_none_or(|file| is_plain_path(file) && file.ends_with(".gguf"));
        whole.then(|| HubName { repository: repository.into(), file: file.map(str::to_owned) })
    }

    /// The folder of the repository in the cache.
    pub(super) fn folder(&self) -> String {
        self.repository.replace('/', "--")
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

/// Letters, digits, `.`, `_` and `-`, without a dot at either end: safe as the name of a file on every system and in an address.
pub(super) fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=128).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('.') && !name.ends_with('.')
}

/// Plain names with `/` between, few enough to be somebody's folders.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.split('/').count() <= 4 && path.split('/').all(is_plain)
}
