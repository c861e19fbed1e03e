//! Where datasets and weights lie: the user's, and those of the source tree.

use super::super::Result;
use super::super::output::note;
use super::super::refused;
use raglan::cost::AdapterClass;
use raglan::gpu::Gpu;
use raglan::models::hub::Cache;
use raglan::schedules::{self, AdapterKey, Found, spaces};
use raglan::tuner::{Dataset, Weights};
use std::path::{Path, PathBuf};

/// A dataset's name in its folder.
pub(super) const DATASET: &str = "dataset.parquet";

/// Weights' name in their folder.
pub(super) const WEIGHTS: &str = schedules::WEIGHTS_FILE;

/// What an adapter's measurements go by.
pub(super) fn type_of(gpu: &Gpu) -> String {
    schedules::adapter_type(&gpu.summary().name, gpu.limits())
}

/// Where this user's datasets and weights lie, a folder an adapter type.
fn tuner_folder() -> PathBuf {
    Cache::from_env().root().join("tuner")
}

/// This user's folder for an adapter type.
pub(super) fn user_folder(adapter_type: &str) -> PathBuf {
    tuner_folder().join(adapter_type)
}

/// The newest dataset of an adapter type: the user's, or that of `tuner/data` under the current folder or beside the program.
///
/// # Errors
/// If there is none, or one cannot be read.
pub(super) fn newest_dataset(adapter_type: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let trees = std::iter::once(Path::new("")).chain(program.ancestors().skip(1));
    let mut places = vec![user_folder(adapter_type).join(DATASET)];
    places.extend(trees.map(|tree| tree.join("tuner/data").join(adapter_type).join(DATASET)));
    let mut newest: Option<(String, PathBuf)> = None;
    for place in places.into_iter().filter(|place| place.is_file()) {
        let date = Dataset::read(&place)?.header.date;
        if newest.as_ref().is_none_or(|(other, _)| *other < date) {
            newest = Some((date, place));
        }
    }
    match newest {
        Some((_, path)) => Ok(path),
        None => refused(format!(
            "nothing was measured on {adapter_type}: `raglan tune` does, or name a dataset ({} is where it would be)",
            user_folder(adapter_type).join(DATASET).display()
        )),
    }
}

/// What this adapter picks by.
pub(in crate::cli) struct InUse {
    /// What its measurements go by.
    pub(in crate::cli) adapter_type: String,
    /// Models, and how far they are to be trusted.
    pub(in crate::cli) found: Found,
}

/// What an adapter picks by; what was passed over is told.
pub(in crate::cli) fn in_use(gpu: &Gpu) -> InUse {
    let key = key_of(gpu);
    let found = schedules::find(&key, Some(&tuner_folder()));
    found.warnings.iter().for_each(note);
    InUse { adapter_type: key.adapter_type, found }
}

/// What an adapter would pick by if a file held all weights there are; without one, what it picks by.
///
/// # Errors
/// If the file is not there, is no weights, or holds none that may serve this adapter.
pub(in crate::cli) fn in_use_from(gpu: &Gpu, path: Option<&Path>) -> Result<InUse> {
    let Some(path) = path else { return Ok(in_use(gpu)) };
    let (name, weights) = read_weights(path)?;
    let (key, of) = (key_of(gpu), weights.adapter_type.clone());
    let found = Found::of(&key, vec![weights]);
    if spaces::ALL.iter().all(|space| found.model(space).is_none()) {
        return refused(format!("{name}: weights of {of} serve nothing on {}", key.adapter_type));
    }
    Ok(InUse { adapter_type: key.adapter_type, found })
}

fn key_of(gpu: &Gpu) -> AdapterKey {
    let summary = gpu.summary();
    let driver = format!("{} {}", summary.driver, summary.driver_info).trim().to_owned();
    let class = if gpu.is_software() { AdapterClass::Software } else { AdapterClass::Hardware };
    AdapterKey { adapter_type: type_of(gpu), driver, class }
}

/// The models that an adapter picks by as one set of weights, and the names of the files that they are from. What the set
/// says of where it was measured is its first model's.
///
/// # Errors
/// If there are none.
pub(super) fn weights_in_use(in_use: &InUse) -> Result<(String, Weights)> {
    let InUse { adapter_type, found } = in_use;
    let served =
        || spaces::ALL.into_iter().filter_map(|space| Some((space, found.model(space)?, found.origin(space)?)));
    let Some((_, _, first)) = served().next() else {
        return refused(format!("there are no weights for {adapter_type}: `raglan tune` makes some"));
    };
    let mut names: Vec<&str> = served().map(|(_, _, origin)| origin.name.as_str()).collect();
    names.dedup();
    let weights = Weights {
        adapter_type: adapter_type.clone(),
        adapter: first.adapter.clone(),
        driver: first.driver.clone(),
        date: first.date.clone(),
        dataset_sha256: String::new(),
        kernel_hashes: served().map(|(space, _, origin)| (space.to_owned(), origin.kernel_hash.clone())).collect(),
        scores: serde_json::Value::Null,
        models: served().map(|(_, model, _)| model.clone()).collect(),
    };
    Ok((names.join(", "), weights))
}

/// A file of weights, and its name.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read_weights(path: &Path) -> Result<(String, Weights)> {
    Ok((path.display().to_string(), Weights::read(path)?))
}
