//! Which weights an adapter gets: the user's, those in the program, or the nearest that may serve.

use super::tuner::Level;
use super::{all_spaces, kernel_hash, spaces};
use crate::cost::AdapterClass;
use raglan_shaders::matvec_int8;
use raglan_tuner::{MOST_CANDIDATES, Model, Weights};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What is in the program, by adapter type: files of `tuner/data/`.
const SHIPPED: &[(&str, &[u8])] = &[("llvmpipe-8", include_bytes!("../../tuner/data/llvmpipe-8/weights.safetensors"))];

/// The variable that leaves them out, so that no weights serve but the user's.
const WITHOUT_SHIPPED: &str = "RAGLAN_NO_SHIPPED_WEIGHTS";

/// The name of a file of weights, in the folder of its adapter type.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

/// The largest file that is read as weights: those of 4 × 48 candidates take a few hundred KiB.
const MOST_BYTES: u64 = 64 << 20;

/// An adapter, as far as weights are chosen by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterKey {
    /// As [`super::adapter_type`] says.
    pub adapter_type: String,
    /// The driver's name and version.
    pub driver: String,
    /// Its class.
    pub class: AdapterClass,
}

/// Which weights a model is of.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Origin {
    /// The file, or what stands for it.
    pub name: String,
    /// What was measured.
    pub adapter: String,
    /// With which driver.
    pub driver: String,
    /// When.
    pub date: String,
    /// Of the kernels that were measured.
    pub kernel_hash: String,
    /// What an evaluation found, as whoever made them noted it.
    pub scores: serde_json::Value,
}

/// What was found for the spaces.
#[derive(Debug, Clone, Default)]
pub struct Found {
    models: BTreeMap<&'static str, (Arc<Model>, Level)>,
    origins: BTreeMap<&'static str, Origin>,
    /// What a user should know of it.
    pub notes: Vec<String>,
    /// What went wrong on the way.
    pub warnings: Vec<String>,
}

impl Found {
    /// The model of a space.
    pub fn model(&self, space: &str) -> Option<&Model> {
        self.models.get(space).map(|(model, _)| &**model)
    }

    /// How far it is to be trusted.
    pub fn level(&self, space: &str) -> Level {
        self.models.get(space).map_or(Level::Defaults, |(_, level)| *level)
    }

    /// Which weights it is of.
    pub fn origin(&self, space: &str) -> Option<&Origin> {
        self.origins.get(space)
    }

    pub(super) fn remove(&mut self, space: &str) {
        self.models.remove(space);
    }

    /// The same for a run whose inputs are of another type than those that were measured, or that rounds them to 8 bits.
    #[must_use]
    pub fn for_inputs(mut self, measured: bool, int8: bool) -> Found {
        if !measured {
            for (name, (model, level)) in self.models.iter_mut().filter(|(_, (_, level))| *level < Level::Analytical) {
                (*model, *level) = (Arc::new(model.without_mlp()), Level::Analytical);
                self.notes.push(format!("{name}: {level}; what was measured had f16 inputs"));
            }
        }
        let knows_int8 = |model: &Model| model.candidates().iter().any(|one| one.kernel == matvec_int8::KERNEL.name);
        if int8 && self.model(spaces::LINEAR_FEW).is_some_and(|model| !knows_int8(model)) {
            self.remove(spaces::LINEAR_FEW);
            self.notes.push(format!(
                "{}: {}, since nothing was measured in 8 bits",
                spaces::LINEAR_FEW,
                Level::Defaults
            ));
        }
        self
    }
}

/// Weights and where they came from.
struct Source {
    name: String,
    weights: Weights,
}

/// What serves an adapter: weights of its type, the user's under `dir` before those in the program; then those of the nearest
/// type of its class and vendor; where their kernels have changed since, their constants alone. What a file says wrong is told
/// and passed over.
pub fn find(key: &AdapterKey, dir: Option<&Path>) -> Found {
    let mut found = Found::default();
    let own = sources(key, dir, &mut found.warnings);
    serve(key, &own, &mut found);
    found
}

impl Found {
    /// What such weights serve an adapter with, the nearest first.
    pub fn of(key: &AdapterKey, weights: Vec<Weights>) -> Found {
        let mut found = Found::default();
        let named = |weights: Weights| Source { name: weights.adapter_type.clone(), weights };
        let mut sources: Vec<Source> = weights.into_iter().map(named).collect();
        sources.retain(|source| may_serve(key, &source.weights.adapter_type));
        nearest_first(key, &mut sources);
        serve(key, &sources, &mut found);
        found
    }
}

fn serve(key: &AdapterKey, sources: &[Source], found: &mut Found) {
    for space in all_spaces() {
        let name = spaces::ALL.into_iter().find(|name| *name == space.name).expect("every space is listed");
        let hash = kernel_hash(name);
        let fits = |source: &Source| -> Option<(Level, Model)> {
            let model = source.weights.model(name)?;
            if model.space() != space || model.candidates().is_empty() || model.candidates().len() > MOST_CANDIDATES {
                return None;
            }
            let is_own = source.weights.adapter_type == key.adapter_type;
            let is_current = source.weights.kernel_hashes.get(name) == Some(&hash);
            Some(match (is_own, is_current) {
                (true, true) if source.weights.driver == key.driver => (Level::Exact, model.clone()),
                (true, true) => (Level::OtherDriver, model.clone()),
                (false, true) => (Level::Nearest, model.clone()),
                (_, false) => (Level::Analytical, model.without_mlp()),
            })
        };
        let fitting = sources.iter().filter_map(|source| fits(source).map(|(level, model)| (level, source, model)));
        // Of equals the first: sources come nearest first.
        let Some((level, source, model)) = fitting.min_by_key(|(level, ..)| *level) else {
            if !sources.is_empty() {
                found.notes.push(format!("{name}: {}, since no weights fit", Level::Defaults));
            }
            continue;
        };
        if level != Level::Exact {
            found.notes.push(format!("{name}: {level} ({})", source.name));
        }
        let weights = &source.weights;
        let origin = Origin {
            name: source.name.clone(),
            adapter: weights.adapter.clone(),
            driver: weights.driver.clone(),
            date: weights.date.clone(),
            kernel_hash: weights.kernel_hashes.get(name).cloned().unwrap_or_default(),
            scores: weights.scores.clone(),
        };
        found.origins.insert(name, origin);
        found.models.insert(name, (Arc::new(model), level));
    }
}

/// All weights that may serve: the user's of this type, the program's of this type, then others of the same class and vendor, the
/// nearest name first.
fn sources(key: &AdapterKey, dir: Option<&Path>, warnings: &mut Vec<String>) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut add = |name: String, adapter_type: &str, weights: Result<Weights, raglan_tuner::Error>| match weights {
        Ok(weights) if weights.adapter_type == adapter_type => sources.push(Source { name, weights }),
        Ok(weights) => {
            warnings.push(format!("{name}: weights of {:?} under the name of {adapter_type}", weights.adapter_type))
        }
        Err(error) => warnings.push(format!("{error}; it is passed over, `raglan tune` makes it anew")),
    };
    for adapter_type in installed(key, dir) {
        let path = dir.map(|dir| dir.join(&adapter_type).join(WEIGHTS_FILE)).unwrap_or_default();
        let name = path.display().to_string();
        match std::fs::metadata(&path) {
            Ok(file) if file.len() <= MOST_BYTES => add(name, &adapter_type, Weights::read(&path)),
            Ok(file) => {
                let message = format!("{} bytes, more than {MOST_BYTES}", file.len());
                add(name.clone(), &adapter_type, Err(raglan_tuner::Error::Weights { name, message }));
            }
            Err(_) => {}
        }
    }
    let without = std::env::var_os(WITHOUT_SHIPPED).is_some_and(|value| !value.is_empty() && value != "0");
    let shipped = if without { &[] } else { SHIPPED };
    for (adapter_type, bytes) in shipped.iter().filter(|(name, _)| may_serve(key, name)) {
        let name = format!("{adapter_type}, in the program");
        let weights = Weights::from_bytes(&name, bytes);
        add(name, adapter_type, weights);
    }
    nearest_first(key, &mut sources);
    sources
}

fn nearest_first(key: &AdapterKey, sources: &mut [Source]) {
    sources.sort_by_key(|source| std::cmp::Reverse(nearness(&key.adapter_type, &source.weights.adapter_type)));
}

/// The folders of adapter types under `dir` that may serve.
fn installed(key: &AdapterKey, dir: Option<&Path>) -> Vec<String> {
    let entries = dir.and_then(|dir| std::fs::read_dir(dir).ok());
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| may_serve(key, name)).collect();
    names.sort();
    names
}

/// Whether weights of `other` may serve: those of a software adapter never serve hardware, nor another vendor's.
fn may_serve(key: &AdapterKey, other: &str) -> bool {
    let vendor = |name: &str| name.split('-').next().map(str::to_owned);
    let is_software =
        |name: &str| ["llvmpipe", "lavapipe", "swiftshader", "softpipe"].iter().any(|word| name.contains(word));
    if is_software(other) && key.class == AdapterClass::Hardware {
        return false;
    }
    other == key.adapter_type
        || vendor(other) == vendor(&key.adapter_type)
            && is_software(other) == (key.class == AdapterClass::Software)
            && is_software(other) == is_software(&key.adapter_type)
}

/// How alike two types are: the same, then lanes of a subgroup, then how far their names are the same.
fn nearness(own: &str, other: &str) -> (bool, bool, usize) {
    let lanes = |name: &str| name.rsplit('-').next().map(str::to_owned);
    let common = own.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    (own == other, lanes(own) == lanes(other), common)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(adapter_type: &str, class: AdapterClass) -> AdapterKey {
        AdapterKey { adapter_type: adapter_type.to_owned(), driver: "driver 1".to_owned(), class }
    }

    #[test]
    fn software_never_serves_hardware_nor_one_vendor_another() {
        let h100 = key("nvidia-h100-pcie-32", AdapterClass::Hardware);
        assert!(may_serve(&h100, "nvidia-h100-pcie-32") && may_serve(&h100, "nvidia-a100-32"));
        assert!(!may_serve(&h100, "llvmpipe-8") && !may_serve(&h100, "amd-radeon-64"));
        let lavapipe = key("llvmpipe-8", AdapterClass::Software);
        assert!(may_serve(&lavapipe, "llvmpipe-4") && !may_serve(&lavapipe, "nvidia-a100-32"));
        // A run that takes hardware's schedules, on whatever adapter.
        assert!(!may_serve(&key("llvmpipe-8", AdapterClass::Hardware), "llvmpipe-8"));
        // Even where somebody calls a software adapter by a vendor's name.
        assert!(!may_serve(&key("nvidia-x-32", AdapterClass::Hardware), "nvidia-llvmpipe-32"));
    }

    #[test]
    fn weights_in_the_program_are_of_its_own_kernels() {
        for (adapter_type, bytes) in SHIPPED {
            let weights = Weights::from_bytes(adapter_type, bytes).expect("weights in the program are sound");
            assert_eq!(weights.adapter_type, *adapter_type);
            for space in spaces::ALL {
                let hash = weights.kernel_hashes.get(space);
                assert_eq!(
                    hash,
                    Some(&kernel_hash(space)),
                    "{adapter_type}: {space} is to be measured again: raglan tune"
                );
                assert!(weights.model(space).is_some(), "{adapter_type}: {space}");
            }
        }
    }

    #[test]
    fn other_inputs_than_were_measured_leave_the_constants_and_8_bits_the_rules() {
        let key = key("llvmpipe-8", AdapterClass::Software);
        let found = || find(&key, None);
        let other = found().for_inputs(false, false);
        assert!(spaces::ALL.iter().all(|space| other.level(space) == Level::Analytical));
        let int8 = found().for_inputs(true, true);
        assert_eq!(int8.level(spaces::LINEAR_FEW), Level::Defaults);
        assert_eq!(int8.level(spaces::LINEAR_MANY), found().level(spaces::LINEAR_MANY));
    }

    #[test]
    fn the_nearest_type_is_of_the_same_lanes_and_name() {
        let own = "nvidia-h100-pcie-32";
        let mut others = ["nvidia-h100-pcie-64", "nvidia-a100-32", "nvidia-h100-80gb-32", "nvidia-h100-pcie-32"];
        others.sort_by_key(|other| std::cmp::Reverse(nearness(own, other)));
        assert_eq!(others, ["nvidia-h100-pcie-32", "nvidia-h100-80gb-32", "nvidia-a100-32", "nvidia-h100-pcie-64"]);
    }

    #[test]
    fn a_broken_file_is_told_and_passed_over() {
        let dir = std::env::temp_dir().join(format!("raglan-tuner-{}", std::process::id()));
        let folder = dir.join("softpipe-8");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(folder.join(WEIGHTS_FILE), b"no weights at all").expect("a file can be written");
        let found = find(&key("softpipe-8", AdapterClass::Software), Some(&dir));
        std::fs::remove_dir_all(&dir).expect("the folder can be removed");
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        assert!(found.warnings[0].contains(WEIGHTS_FILE), "{:?}", found.warnings);
        assert!(spaces::ALL.iter().all(|space| found.level(space) == Level::Defaults));
        let absent = find(&key("softpipe-8", AdapterClass::Software), Some(Path::new("/nowhere")));
        assert!(absent.warnings.is_empty());
    }
}
