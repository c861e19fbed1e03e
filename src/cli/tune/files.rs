//! Where datasets and weights lie: the user's, and those of the source tree.

use super::super::Result;
use super::super::refused;
use raglan::gpu::Gpu;
use raglan::models::hub::Cache;
use raglan::schedules;
use raglan::tuner::{Dataset, Model, Weights};
use std::path::{Path, PathBuf};

/// A dataset's name in its folder.
pub(super) const DATASET: &str = "dataset.parquet";

/// Weights' name in their folder.
pub(super) const WEIGHTS: &str = "weights.safetensors";

/// What an adapter's measurements go by.
pub(super) fn type_of(gpu: &Gpu) -> String {
    schedules::adapter_type(&gpu.summary().name, gpu.limits())
}

/// This user's folder for an adapter type.
pub(super) fn user_folder(adapter_type: &str) -> PathBuf {
    Cache::from_env().root().join("tuner").join(adapter_type)
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
    weights: Option<Weights>,
}

impl InUse {
    /// The model of a space.
    pub(in crate::cli) fn model(&self, space: &str) -> Option<&Model> {
        self.weights.as_ref()?.model(space)
    }

    /// Which weights it is of.
    pub(super) fn weights(&self, _space: &str) -> Option<&Weights> {
        self.weights.as_ref()
    }

    /// How far it is to be trusted.
    pub(in crate::cli) fn level(&self, _space: &str) -> &'static str {
        if self.weights.is_some() { "exact" } else { "defaults" }
    }

    /// The same for people.
    pub(super) fn level_words(&self, space: &str) -> String {
        self.level(space).to_owned()
    }
}

/// What an adapter picks by.
pub(in crate::cli) fn in_use(gpu: &Gpu) -> InUse {
    let adapter_type = type_of(gpu);
    let weights = Weights::read(&user_folder(&adapter_type).join(WEIGHTS)).ok();
    InUse { adapter_type, weights }
}

/// The weights that an adapter picks by, and where they are from.
///
/// # Errors
/// If there are none, or the user's cannot be read.
pub(super) fn weights_in_use(gpu: &Gpu) -> Result<(String, Weights)> {
    let path = user_folder(&type_of(gpu)).join(WEIGHTS);
    if !path.is_file() {
        return refused(format!("there are no weights for {}: `raglan tune` makes some", type_of(gpu)));
    }
    read_weights(&path)
}

/// A file of weights, and its name.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read_weights(path: &Path) -> Result<(String, Weights)> {
    Ok((path.display().to_string(), Weights::read(path)?))
}
