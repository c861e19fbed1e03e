//! How near picks come to exhaustive search on shapes that training never saw.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::table::{Measured, Table};
use crate::{Candidate, Dataset, Latency, Space, Split, Weights};

mod choose;

use choose::Choosers;

/// A choice is slower than the default candidate where it takes so many times as long.
const SLOWER: f64 = 1.02;

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
    /// Geometric mean of the three best by prediction, each timed once.
    pub calibrated: f64,
    /// Geometric mean of exhaustive search against itself.
    pub noise_floor: f64,
    /// Of every way to choose.
    pub methods: Methods,
    /// Candidates of the portfolio.
    pub portfolio: usize,
    /// Whether the analytical prior is part of the predictions.
    pub on_prior: bool,
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

/// What a way to choose came to on one shape: its share of exhaustive search, and how it stands to the default candidate.
#[derive(Clone, Copy)]
struct Outcome {
    split: Split,
    share: f64,
    slower_than_default: bool,
}

/// Outcomes of every way to choose; where one chose nothing that was measured, the shape is not among its.
#[derive(Default)]
struct Outcomes {
    model: Vec<Outcome>,
    calibrated: Vec<Outcome>,
    single_best: Vec<Outcome>,
    buckets: Vec<Outcome>,
    nearest: Vec<Outcome>,
    analytical: Vec<Outcome>,
    rules: Vec<Outcome>,
    exhaustive: Vec<Outcome>,
}

impl Outcomes {
    fn append(&mut self, mut other: Outcomes) {
        let pairs = [
            (&mut self.model, &mut other.model),
            (&mut self.calibrated, &mut other.calibrated),
            (&mut self.single_best, &mut other.single_best),
            (&mut self.buckets, &mut other.buckets),
            (&mut self.nearest, &mut other.nearest),
            (&mut self.analytical, &mut other.analytical),
            (&mut self.rules, &mut other.rules),
            (&mut self.exhaustive, &mut other.exhaustive),
        ];
        for (all, more) in pairs {
            all.append(more);
        }
    }

    fn methods(&self) -> Methods {
        let all = |outcomes: &[Outcome]| scores(outcomes, &|_| true);
        Methods {
            model: all(&self.model),
            calibrated: all(&self.calibrated),
            single_best: all(&self.single_best),
            buckets: all(&self.buckets),
            nearest: all(&self.nearest),
            analytical: all(&self.analytical),
            rules: all(&self.rules),
            exhaustive: all(&self.exhaustive),
        }
    }

    fn splits(&self) -> Splits {
        let of = |wanted: Split| scores(&self.model, &|split| split == wanted);
        Splits { new_m: of(Split::NewM), new_nk: of(Split::NewNk) }
    }
}

/// Scores weights, and other ways to choose, on the NewM and NewNk shapes of a dataset.
///
/// Exhaustive search chooses by the medians of set A; every choice is scored by the means of set B, measured apart. A way's
/// share is exhaustive search's time over its own, at most 1. [`Report::latency_ns`] is left for the caller.
pub fn evaluate(dataset: &Dataset, weights: &Weights, rules: Rules<'_>) -> Report {
    let mut report = Report {
        kernel_hash: weights.kernel_hashes.clone(),
        dataset_sha256: dataset.sha256().unwrap_or_default(),
        ..Report::default()
    };
    let mut all = Outcomes::default();
    for model in &weights.models {
        let Some(space) = dataset.space(&model.space().name).filter(|space| *space == model.space()) else { continue };
        let table = Table::new(dataset, space);
        let choosers = Choosers::new(space, &table, model);
        let mut outcomes = Outcomes::default();
        for split in [Split::NewM, Split::NewNk] {
            for shape in table.of(split) {
                let record = score_shape(space, shape, &choosers, &table, rules, &mut outcomes);
                report.shapes.extend(record);
            }
        }
        let methods = outcomes.methods();
        let kernel = SpaceReport {
            scores: methods.model,
            splits: outcomes.splits(),
            calibrated: methods.calibrated.geometric_mean,
            noise_floor: methods.exhaustive.geometric_mean,
            methods,
            portfolio: model.candidates().len(),
            on_prior: model.has_prior(),
        };
        report.kernels.insert(space.name.clone(), kernel);
        all.append(outcomes);
    }
    report.methods = all.methods();
    report.splits = all.splits();
    report.scores = report.methods.model;
    report.calibrated = report.methods.calibrated.geometric_mean;
    report.noise_floor = report.methods.exhaustive.geometric_mean;
    report
}

fn score_shape(
    space: &Space,
    shape: &Measured<'_>,
    choosers: &Choosers<'_>,
    table: &Table<'_>,
    rules: Rules<'_>,
    outcomes: &mut Outcomes,
) -> Option<ShapeRecord> {
    let rounds = |id: usize, rounds: &[usize]| {
        let row = shape.rows.get(&id)?;
        let times: Vec<f64> = rounds.iter().filter_map(|round| row.round_us(*round)).collect();
        (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
    };
    let least = |us: &dyn Fn(usize) -> Option<f64>| {
        let timed = shape.rows.keys().filter_map(|id| us(*id).map(|us| (us, *id)));
        timed.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, id)| id)
    };
    // What a collection that was cut off did not score would count for some ways to choose and not for others.
    if shape.rows.values().any(|row| row.chosen_us().is_some() && row.scored_us().is_none()) {
        return None;
    }
    let best = least(&|id| shape.rows[&id].chosen_us())?;
    let best_us = shape.rows[&best].scored_us()?;
    // A candidate that was run and has no time is slower than all; one that was not run has no score.
    let scored = |id: usize| {
        let row = shape.rows.get(&id).filter(|row| row.cost.is_legal())?;
        row.scored_us().or_else(|| shape.us(id).filter(|_| row.chosen_us().is_none()))
    };
    let default_us = choosers.default_candidate(shape).and_then(scored);
    let outcome = |id: Option<usize>| {
        let us = scored(id?)?;
        let slower_than_default = default_us.is_some_and(|default_us| us > SLOWER * default_us);
        Some(Outcome { split: shape.split, share: (best_us / us).min(1.0), slower_than_default })
    };
    let predicted = choosers.model(shape);
    let picked = choosers.id(predicted.pick);
    let ruled = rules(&space.name, shape.shape).and_then(|candidate| table.id(&candidate));
    let chosen = [
        ("model", picked, &mut outcomes.model),
        ("calibrated", choosers.calibrated(shape, &predicted), &mut outcomes.calibrated),
        ("single_best", choosers.single_best(shape), &mut outcomes.single_best),
        ("buckets", choosers.buckets(shape), &mut outcomes.buckets),
        ("nearest", choosers.nearest(shape), &mut outcomes.nearest),
        ("analytical", choosers.analytical(shape), &mut outcomes.analytical),
        ("rules", ruled, &mut outcomes.rules),
    ];
    let mut shares = BTreeMap::new();
    for (name, id, of) in chosen {
        if let Some(outcome) = outcome(id) {
            shares.insert(name, outcome.share);
            of.push(outcome);
        }
    }
    // Exhaustive search by one half of set A, against that by the other half, each way.
    let halves = [least(&|id| rounds(id, &[0])), least(&|id| rounds(id, &[1, 2]))];
    if let [Some(a), Some(b)] = halves.map(|id| id.and_then(scored)) {
        let share = (a.min(b) / a.max(b)).sqrt();
        shares.insert("exhaustive", share);
        outcomes.exhaustive.push(Outcome { split: shape.split, share, slower_than_default: false });
    }

    let picked_us = scored(picked?)?;
    Some(ShapeRecord {
        space: space.name.clone(),
        split: if shape.split == Split::NewNk { "new_nk" } else { "new_m" },
        shape: shape.shape.to_vec(),
        picked: choosers.text(picked?),
        best: choosers.text(best),
        predicted_us: predicted.pick.map_or(f64::NAN, |pick| f64::from(pick.us)),
        picked_us,
        best_us,
        default_us,
        share: (best_us / picked_us).min(1.0),
        shares,
    })
}

/// The scores of the outcomes of some splits; zeros where there are none.
fn scores(outcomes: &[Outcome], wanted: &dyn Fn(Split) -> bool) -> Scores {
    let kept: Vec<&Outcome> = outcomes.iter().filter(|outcome| wanted(outcome.split)).collect();
    let mut shares: Vec<f64> = kept.iter().map(|outcome| outcome.share).collect();
    shares.sort_by(f64::total_cmp);
    let Some(worst) = shares.first().copied() else { return Scores::default() };
    let count = shares.len() as f64;
    let percentile = |percent: f64| {
        let at = percent / 100.0 * (count - 1.0);
        let (below, above) = (shares[at.floor() as usize], shares[at.ceil() as usize]);
        below + (above - below) * at.fract()
    };
    Scores {
        shapes: shares.len(),
        geometric_mean: (shares.iter().map(|share| share.ln()).sum::<f64>() / count).exp(),
        p5: percentile(5.0),
        p1: percentile(1.0),
        worst,
        slower_than_default: kept.iter().filter(|outcome| outcome.slower_than_default).count() as f64 / count,
    }
}
