//! What the AutoTuner may choose from, and what it chose: candidates of every kernel in the tuner's words, their legality and
//! their costs. No GPU.

pub mod attention;
pub mod linear;
#[doc(hidden)]
pub mod made_up;
mod narrow;
mod store;
mod table;
mod tuner;

pub use attention::{AttentionChoice, AttentionStats, Form, KvHeads};
pub use linear::{LinearChoice, LinearShape};
pub use store::{AdapterKey, Found, Origin, WEIGHTS_FILE, find};
pub use table::{Filling, LinearTable, Measure, ProductKey};
pub use tuner::{AttentionModel, Level, Levels, LinearModel, Mode, Tuner};

use crate::cost::AdapterClass;
use raglan_shaders::{AdapterLimits, DispatchCost, Kernel, Part, Schedule, kernel_hash as hash_of};
use raglan_shaders::{attention as kernels, matmul, matmul_coop, matvec, matvec_int8, rms_norm, split_sum};
use raglan_tuner::{Candidate, Cost, Space};

/// The names of the spaces.
pub mod spaces {
    /// Products of few rows.
    pub const LINEAR_FEW: &str = "linear_few";
    /// Products of more rows.
    pub const LINEAR_MANY: &str = "linear_many";
    /// Attention of few query rows of a sequence.
    pub const ATTENTION_VECTOR: &str = "attention_vector";
    /// Attention of many.
    pub const ATTENTION_TILE: &str = "attention_tile";
    /// All of them.
    pub const ALL: [&str; 4] = [LINEAR_FEW, LINEAR_MANY, ATTENTION_VECTOR, ATTENTION_TILE];
}

/// How many of the best by prediction are timed when a model is loaded, where that is asked for.
const CALIBRATED: usize = 3;

/// What of an adapter and of a run decides which choices may be made, and what they cost.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the adapter allows.
    pub limits: AdapterLimits,
    /// Its class.
    pub class: AdapterClass,
    /// The type of the inputs of products and attention.
    pub act: Part,
    /// Whether a few rows may meet weights in blocks in 8 bits.
    pub int8: bool,
    /// Bytes that the parts of a split product may take; 0: none is split.
    pub split_bytes: u64,
}

impl Terms {
    /// Bytes of one activation.
    pub fn act_bytes(&self) -> usize {
        if self.act == Part::ActF16 { 2 } else { 4 }
    }
}

/// Every space.
pub fn all_spaces() -> [&'static Space; 4] {
    let few = linear::space(1);
    let many = linear::space(linear::FEW_ROWS + 1);
    [few, many, attention::space(Form::Vector), attention::space(Form::Tile)]
}

/// A name for the code that a space's candidates run: measurements of other code are stale.
///
/// # Panics
/// If there is no such space.
pub fn kernel_hash(space: &str) -> String {
    match space {
        spaces::LINEAR_FEW | spaces::LINEAR_MANY => {
            let products = [&matvec::KERNEL, &matvec_int8::KERNEL, &matmul::KERNEL, &matmul_coop::KERNEL];
            hash_of(&[&products[..], &[&split_sum::KERNEL, &rms_norm::KERNEL]].concat())
        }
        spaces::ATTENTION_VECTOR => hash_of(&[&kernels::vector::KERNEL, &kernels::merge::KERNEL]),
        spaces::ATTENTION_TILE => hash_of(&[&kernels::tile::KERNEL, &kernels::coop::KERNEL, &kernels::merge::KERNEL]),
        _ => panic!("a space {space}"),
    }
}

/// A word for adapters that measurements hold for: the adapter's name without versions, and the lanes of its subgroups.
pub fn adapter_type(name: &str, limits: &AdapterLimits) -> String {
    // What stands in brackets is the driver's.
    let mut plain = String::new();
    let mut depth = 0;
    for c in name.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ if depth <= 0 => plain.push(c),
            _ => {}
        }
    }
    let words: Vec<String> = plain
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .filter(|word| !word.is_empty() && !word.contains('.'))
        .map(str::to_ascii_lowercase)
        .collect();
    let name = if words.is_empty() { "unknown".to_owned() } else { words.join("-") };
    format!("{name}-{}", limits.max_subgroup_lanes)
}

fn cost(cost: DispatchCost) -> Cost {
    let DispatchCost { bytes, flops, workgroups, workgroup_bytes } = cost;
    Cost { bytes, flops, workgroups, workgroup_bytes }
}

/// A kernel with its tunables, as the tuner writes it.
fn tunables(kernel: &Kernel, schedule: &Schedule) -> Candidate {
    let named = kernel.tunables.iter().zip(&schedule.values);
    Candidate {
        kernel: kernel.name.to_owned(),
        settings: named.map(|(tunable, &value)| (tunable.name.to_owned(), value)).collect(),
    }
}

/// The schedule that a candidate's settings and `given` ones make, and the settings that are no tunables; `None` where a
/// tunable has no or no such value.
fn schedule<'a>(
    kernel: &Kernel,
    candidate: &'a Candidate,
    given: &[(&str, u32)],
) -> Option<(Schedule, Vec<(&'a str, u32)>)> {
    let mut values = Schedule::default();
    for tunable in kernel.tunables {
        let given = given.iter().find(|(name, _)| *name == tunable.name).map(|(_, value)| *value);
        let own = || candidate.settings.iter().find(|(name, _)| name == tunable.name).map(|(_, value)| *value);
        let value = given.or_else(own)?;
        tunable.values.contains(&value).then(|| values.values.push(value))?;
    }
    let is_tunable = |name: &str| kernel.tunables.iter().any(|tunable| tunable.name == name);
    let rest = candidate.settings.iter().filter(|(name, _)| !is_tunable(name));
    Some((values, rest.map(|(name, value)| (name.as_str(), *value)).collect()))
}

#[cfg(test)]
mod tests;
