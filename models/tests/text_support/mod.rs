//! The tokenizers that tests can have: the small committed ones, and the large ones where they have been fetched.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raglan_models::hub::Cache;
use raglan_models::{Checkpoint, Tokenizer, TokenizerConfig};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What the reference library makes of some texts.
#[derive(Deserialize)]
pub(crate) struct Goldens {
    pub(crate) texts: Vec<String>,
    pub(crate) families: BTreeMap<String, Family>,
}

/// One tokenizer's ids and texts.
#[derive(Deserialize)]
pub(crate) struct Family {
    #[serde(default)]
    pub(crate) sha256: String,
    pub(crate) vocab: usize,
    pub(crate) with_special: Vec<Vec<u32>>,
    pub(crate) without_special: Vec<Vec<u32>>,
    pub(crate) decoded: Vec<String>,
    pub(crate) decoded_with_special: Option<Vec<String>>,
}

impl Family {
    /// The large goldens decode the ids without special tokens around and skip none; the small ones the other way round.
    pub(crate) fn decoded_ids(&self, index: usize) -> &[u32] {
        if self.skips_special() { &self.with_special[index] } else { &self.without_special[index] }
    }

    pub(crate) fn skips_special(&self) -> bool {
        self.decoded_with_special.is_some()
    }
}

pub(crate) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizers").join(name)
}

pub(crate) fn goldens(name: &str) -> Goldens {
    let bytes = std::fs::read(golden_path(name)).expect("is committed");
    serde_json::from_slice(&bytes).expect("is JSON")
}

/// A committed tokenizer by the name it has in `small_goldens.json`.
pub(crate) fn small(name: &str) -> Tokenizer {
    let path = match name {
        "tiny_stories" => Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-stories/tokenizer.json"),
        _ => golden_path(&format!("{name}.json")),
    };
    open(&path).expect("is committed")
}

fn open(path: &Path) -> Result<Tokenizer, raglan_models::Error> {
    let bytes = std::fs::read(path).expect("is there");
    Tokenizer::from_json(path, &bytes, &TokenizerConfig::default())
}

/// The golden families whose `tokenizer.json`, by its digest, lies in a folder of the cache or of `$RAGLAN_TOKENIZERS`.
pub(crate) fn tokenizers_at_hand(goldens: &Goldens) -> BTreeMap<String, Tokenizer> {
    let at_hand = goldens.families.keys().filter_map(|name| Some((name.clone(), path_of(goldens, name)?)));
    at_hand.map(|(name, path)| (name, open(&path).expect("the reference library opens it"))).collect()
}

/// Where the `tokenizer.json` of a golden family lies.
pub(crate) fn path_of(goldens: &Goldens, name: &str) -> Option<PathBuf> {
    let entries = folders().into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path().join("tokenizer.json")).find(|path| {
        let Ok(bytes) = std::fs::read(path) else { return false };
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        digest == goldens.families[name].sha256
    })
}

fn folders() -> Vec<PathBuf> {
    let given = std::env::var_os("RAGLAN_TOKENIZERS").map(PathBuf::from);
    given.into_iter().chain([Cache::from_env().root().join("tokenizers")]).collect()
}

/// The default model, if `tools/fetch-model` has fetched it.
pub(crate) fn default_model() -> Option<Checkpoint> {
    let path = Cache::from_env().default_model()?;
    Some(Checkpoint::open(&path).expect("opens"))
}
