//! What predicts: the models of an adapter in the kernels' own words, and how far they are to be trusted.

use super::attention::{self, AttentionChoice, AttentionStats, Form, KvHeads};
use super::linear::{self, FEW_ROWS, LinearChoice, LinearShape};
use super::narrow::narrow;
use super::store::Found;
use super::{Terms, spaces};
use crate::cost::AdapterClass;
use raglan_tuner::{Cost, MOST_CANDIDATES, Model};

/// How schedules are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By hand-written rules.
    Off,
    /// The one that is best over all shapes, where measurements of the adapter know it.
    Default,
    /// By predicted time.
    #[default]
    Predict,
    /// By what the adapter takes for the model's products, measured when it is loaded; attention by predicted time.
    Exhaustive,
}

/// How far what predicts a space is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Measured on this type of adapter, with this driver and these kernels.
    Exact,
    /// The same with another driver.
    OtherDriver,
    /// Measured on the nearest type of the same vendor, with these kernels.
    Nearest,
    /// Measured with other kernels or inputs: the constants of the adapter alone.
    Analytical,
    /// Nothing fits: hand-written rules.
    #[default]
    Defaults,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Level::Exact => "measured on this adapter type",
            Level::OtherDriver => "measured with another driver",
            Level::Nearest => "measured on the nearest adapter type",
            Level::Analytical => "the analytical model alone, since other kernels or inputs were measured",
            Level::Defaults => "hand-written rules",
        })
    }
}

/// The level of each space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[allow(missing_docs, reason = "the names are the spaces' own")]
pub struct Levels {
    pub linear_few: Level,
    pub linear_many: Level,
    pub attention_vector: Level,
    pub attention_tile: Level,
}

/// A model of products and its candidates.
#[derive(Debug)]
pub struct LinearModel {
    model: Model,
    /// One a candidate; none where this build has no such kernel or value.
    choices: Vec<Option<LinearChoice>>,
}

/// A model of one form of attention, for one model's heads, and its candidates.
#[derive(Debug)]
pub struct AttentionModel {
    model: Model,
    /// One a candidate; none where it must not or shall not run.
    choices: Vec<Option<AttentionChoice>>,
    /// Those that must not.
    refused: u64,
}

/// What a planner asks for predictions.
#[derive(Debug, Default)]
pub struct Tuner {
    mode: Mode,
    found: Found,
    linear: [Option<LinearModel>; 2],
    calibrate: bool,
}

impl Tuner {
    /// Asks what was found for an adapter, in such a mode.
    pub fn new(mode: Mode, calibrate: bool, found: Found) -> Tuner {
        let found = if mode == Mode::Off { Found::default() } else { found };
        let linear = [spaces::LINEAR_FEW, spaces::LINEAR_MANY].map(|space| {
            let model = found.model(space)?.clone();
            let choices = model.candidates().iter().map(LinearChoice::of).collect();
            Some(LinearModel { model, choices })
        });
        Tuner { mode, found, linear, calibrate }
    }

    /// Hand-written rules.
    pub fn off() -> Tuner {
        Tuner::new(Mode::Off, false, Found::default())
    }

    /// For runs whose sums must have one order: of products only what [`LinearChoice::sums_like`] `usual`, and nothing of attention.
    #[must_use]
    pub fn in_one_order(mut self, usual: &LinearChoice) -> Tuner {
        self.keep(|choice| choice.sums_like(usual));
        self.found.remove(spaces::ATTENTION_VECTOR);
        self.found.remove(spaces::ATTENTION_TILE);
        self
    }

    /// The same without some choices of products.
    #[must_use]
    pub fn without(mut self, refused: &[LinearChoice]) -> Tuner {
        self.keep(|choice| !refused.contains(choice));
        self
    }

    fn keep(&mut self, keep: impl Fn(&LinearChoice) -> bool) {
        for model in self.linear.iter_mut().flatten() {
            model.choices.iter_mut().for_each(|choice| *choice = choice.take().filter(&keep));
        }
    }

    /// What a user should know of where predictions come from.
    pub fn notes(&self) -> &[String] {
        &self.found.notes
    }

    /// Candidates of products that this build cannot run.
    pub fn refused(&self) -> u64 {
        let unknown = |model: &LinearModel| model.choices.iter().filter(|choice| choice.is_none()).count() as u64;
        self.linear.iter().flatten().map(unknown).sum()
    }

    /// How it chooses.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the best by prediction are timed when a model is loaded.
    pub fn calibrates(&self) -> bool {
        self.calibrate
    }

    /// How far its predictions are to be trusted.
    pub fn levels(&self) -> Levels {
        let level = |space| self.found.level(space);
        Levels {
            linear_few: level(spaces::LINEAR_FEW),
            linear_many: level(spaces::LINEAR_MANY),
            attention_vector: level(spaces::ATTENTION_VECTOR),
            attention_tile: level(spaces::ATTENTION_TILE),
        }
    }

    /// What predicts products of so many rows.
    pub fn linear(&self, rows: usize) -> Option<&LinearModel> {
        self.linear[usize::from(rows > FEW_ROWS)].as_ref()
    }

    /// What predicts a form of attention over such heads, where an item has up to `packed_rows` packed rows. What is compiled
    /// is kept small by what a few batches of up to `max_sequences` sequences would take.
    pub fn attention(&self, form: Form, heads: &KvHeads, packed_rows: usize, terms: &Terms) -> Option<AttentionModel> {
        // Nothing was measured over quantised caches, and the constants alone know nothing of what unpacking costs.
        if heads.kv.is_quantised() {
            return None;
        }
        let name = [spaces::ATTENTION_VECTOR, spaces::ATTENTION_TILE][form as usize];
        let model = self.found.model(name)?.clone();
        let read = |candidate| {
            let choice = AttentionChoice::of(candidate, heads.head_stride)?;
            (choice.form() == form && attention::legal(&choice, heads, packed_rows, terms)).then_some(choice)
        };
        let mut choices: Vec<Option<AttentionChoice>> = model.candidates().iter().map(read).collect();
        let refused = choices.iter().filter(|choice| choice.is_none()).count() as u64;
        if self.mode == Mode::Default {
            let default = model.default_candidate();
            choices
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| *index != default)
                .for_each(|(_, choice)| *choice = None);
        }
        let mut attention = AttentionModel { model, choices, refused };
        attention.narrow(heads, terms, self.gain(terms.class));
        attention.choices.iter().any(Option::is_some).then_some(attention)
    }

    /// How much, in the logarithm of time, a pipeline more must gain on average to be worth compiling: a software adapter
    /// takes up to a second for one.
    pub(super) fn gain(&self, class: AdapterClass) -> f32 {
        match class {
            AdapterClass::Software => 0.02,
            AdapterClass::Hardware => 0.0001,
        }
    }
}

impl LinearModel {
    /// Its candidates; those that this build cannot run stand for a choice that never is legal.
    pub(crate) fn choices(&self) -> Vec<LinearChoice> {
        let never = || LinearChoice {
            splits: u32::MAX,
            ..LinearChoice::whole(&raglan_shaders::matmul::KERNEL, Default::default())
        };
        self.choices.iter().map(|choice| choice.clone().unwrap_or_else(never)).collect()
    }

    /// The one that is best over all shapes.
    pub(super) fn default_index(&self) -> usize {
        self.model.default_candidate()
    }

    /// Logarithms of the predicted microseconds of every candidate, infinite where it must not run.
    pub(super) fn predict(&self, shape: &LinearShape, terms: &Terms, log_us: &mut [f32]) {
        let mut costs = [Cost::ILLEGAL; MOST_CANDIDATES];
        for (cost, choice) in costs.iter_mut().zip(&self.choices) {
            if let Some(choice) = choice.as_ref().filter(|choice| linear::legal(choice, shape, terms)) {
                *cost = linear::cost(choice, shape, terms);
            }
        }
        let count = self.choices.len();
        self.model.predict(&linear::descriptor(shape), &costs[..count], log_us);
        sanitize(&costs[..count], log_us);
    }
}

impl AttentionModel {
    /// One a candidate; none where it must not or shall not run.
    pub fn choices(&self) -> &[Option<AttentionChoice>] {
        &self.choices
    }

    /// Candidates that must not run on this adapter, or that this build does not know.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The candidate of the least predicted time and that time in microseconds.
    pub fn pick(&self, stats: &AttentionStats, terms: &Terms) -> Option<(usize, f32)> {
        let mut log_us = [f32::INFINITY; MOST_CANDIDATES];
        let log_us = &mut log_us[..self.choices.len()];
        self.predict(stats, terms, log_us);
        let (index, least) = log_us.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1))?;
        least.is_finite().then(|| (index, least.exp()))
    }

    fn predict(&self, stats: &AttentionStats, terms: &Terms, log_us: &mut [f32]) {
        let mut costs = [Cost::ILLEGAL; MOST_CANDIDATES];
        for (cost, choice) in costs.iter_mut().zip(&self.choices) {
            if let Some(choice) = choice {
                *cost = attention::cost(choice, stats, terms);
            }
        }
        let costs = &costs[..self.choices.len()];
        self.model.predict(&attention::descriptor(stats), costs, log_us);
        sanitize(costs, log_us);
    }

    /// Keeps what is worth compiling, by batches of few and many rows over short and long contexts.
    fn narrow(&mut self, heads: &KvHeads, terms: &Terms, gain: f32) {
        let mut points = Vec::new();
        for rows in (0..10).map(|power| 1usize << power) {
            for keys in (4..16).map(|power| 1u32 << power) {
                // Runs as long as each other, and one that is longer than all the rest.
                for (runs, of) in [(rows, rows), (rows.div_ceil(16), rows)] {
                    let mut counts = vec![keys; runs];
                    points.push(AttentionStats::of(*heads, of, &counts, keys as usize));
                    counts[0] *= 8;
                    points.push(AttentionStats::of(*heads, of, &counts, keys as usize));
                }
            }
        }
        let predicted: Vec<Vec<f32>> = points
            .iter()
            .map(|stats| {
                let mut log_us = vec![f32::INFINITY; self.choices.len()];
                self.predict(stats, terms, &mut log_us);
                log_us
            })
            .collect();
        let alike = |choice: &Option<AttentionChoice>| {
            let key = choice.as_ref().map(|choice| (choice.kernel, &choice.schedule));
            let same =
                |other: &Option<AttentionChoice>| other.as_ref().map(|other| (other.kernel, &other.schedule)) == key;
            self.choices.iter().position(same).expect("it is one of them")
        };
        let names: Vec<usize> = self.choices.iter().map(alike).collect();
        let weighed: Vec<(f32, &[f32])> = predicted.iter().map(|log_us| (1.0, &log_us[..])).collect();
        let keep = narrow(&weighed, &names, gain);
        for (choice, keep) in self.choices.iter_mut().zip(keep) {
            if !keep {
                *choice = None;
            }
        }
    }
}

/// What must not run is never chosen, and what is no time neither, whatever a model says.
fn sanitize(costs: &[Cost], log_us: &mut [f32]) {
    for (log_us, cost) in log_us.iter_mut().zip(costs) {
        if !cost.is_legal() || !log_us.is_finite() {
            *log_us = f32::INFINITY;
        }
        *log_us = log_us.max(-30.0);
    }
}
