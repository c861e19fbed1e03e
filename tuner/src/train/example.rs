//! A shape as training sees it.

use crate::features::{MOST_FEATURES, OF_PRIOR};
use crate::model::prior_features;
use crate::numbers::{exp, ln_f64};
use crate::prior::{Lanes, TRAITS, Word};
use crate::table::{Measured, Table};
use crate::{Cost, MOST_CANDIDATES, Model, Split};

/// How far above the best, as a logarithm, a candidate's weight falls by a factor of e.
const NEAR: f64 = 0.2;
/// What the farthest candidate weighs beside the best.
const FAR_WEIGHT: f64 = 0.1;

/// A shape of training. Lanes are candidates; those that were not to be run weigh nothing.
pub(super) struct Example {
    pub(super) shape: Vec<f32>,
    pub(super) features: Vec<f32>,
    pub(super) traits: [Lanes; TRAITS],
    /// What the MLP's word is added to.
    pub(super) base: Lanes,
    /// Natural logarithm of µs.
    pub(super) target: Lanes,
    /// Logarithm over the best's time.
    pub(super) regret: Lanes,
    /// Their sum is 1.
    pub(super) weight: Lanes,
}

/// The examples of the Train split, and the model with the constants that standardise its features.
pub(super) fn examples(model: Model, table: &Table<'_>, ids: &[usize]) -> (Model, Vec<Example>) {
    let shapes: Vec<&Measured<'_>> =
        table.of(Split::Train).filter(|shape| ids.iter().any(|id| shape.us(*id).is_some())).collect();
    let mut made: Vec<(Example, [f32; OF_PRIOR])> = shapes.iter().map(|shape| example(&model, shape, ids)).collect();
    let mut model = model;
    let raw: Vec<(&[f32], [f32; OF_PRIOR])> =
        made.iter().map(|(e, of_prior)| (e.shape.as_slice(), *of_prior)).collect();
    model.features.standardise(&raw);
    for (example, of_prior) in &mut made {
        let mut features = [0.0; MOST_FEATURES];
        example.features = model.features.fill(&example.shape, *of_prior, &mut features).to_vec();
    }
    (model, made.into_iter().map(|(example, _)| example).collect())
}

fn example(model: &Model, shape: &Measured<'_>, ids: &[usize]) -> (Example, [f32; OF_PRIOR]) {
    let costs: Vec<Cost> = ids.iter().map(|id| shape.rows.get(id).map_or(Cost::ILLEGAL, |row| row.cost)).collect();
    let mut word = Word::NONE;
    model.base(&costs, &mut word);
    let of_prior = if model.on_prior { prior_features(&word) } else { [0.0; OF_PRIOR] };
    let Word { log_us: mut base, mut traits, .. } = word;
    let zero = [0.0; MOST_CANDIDATES];
    let (mut target, mut regret, mut weight) = (zero, zero, zero);
    // The best of the portfolio: what can be chosen.
    let times: Vec<Option<f64>> = ids.iter().map(|id| shape.us(*id)).collect();
    let best = times.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    for (at, us) in times.iter().enumerate() {
        if let Some(us) = us {
            let over = ln_f64(us / best);
            target[at] = ln_f64(*us) as f32;
            regret[at] = over.min(ln_f64(crate::table::WORST)) as f32;
            weight[at] = (FAR_WEIGHT + exp(-over / NEAR)) as f32;
        }
    }
    // What must not run has no prior either.
    for at in (0..MOST_CANDIDATES).filter(|at| weight[*at] == 0.0) {
        base[at] = 0.0;
        traits.iter_mut().for_each(|lanes| lanes[at] = 0.0);
    }
    let sum: f32 = weight.iter().sum();
    for weight in &mut weight {
        *weight /= sum;
    }
    let example = Example { shape: shape.shape.to_vec(), features: Vec::new(), traits, base, target, regret, weight };
    (example, of_prior)
}
