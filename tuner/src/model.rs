//! What picks: a portfolio, the prior of its candidates, and the MLP that corrects it.

use crate::features::{Features, MOST_FEATURES, OF_PRIOR};
use crate::mlp::Mlp;
use crate::numbers::{BLOCK, exp_f32, greater, lesser};
use crate::prior::{CostColumns, Lanes, Prior, TRAITS};
use crate::{Candidate, Cost, MOST_CANDIDATES, Space};

/// Predicted logarithms are bounded by it, so that each is a number.
const BOUND: f32 = 60.0;

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Into the model's candidates.
    pub index: usize,
    /// Its predicted time in microseconds.
    pub us: f32,
}

/// What is known of one space on one adapter type.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub(crate) space: Space,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) features: Features,
    pub(crate) prior: Prior,
    /// Of each candidate's kernel, as logarithms.
    pub(crate) factors: Lanes,
    /// Whether the MLP corrects the prior, or speaks alone.
    pub(crate) on_prior: bool,
    /// Their words are averaged; none: the prior alone.
    pub(crate) members: Vec<Mlp>,
}

impl Model {
    /// What it chooses for.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The portfolio, at most [`MOST_CANDIDATES`].
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The single best of the portfolio over all shapes of training.
    pub fn default_candidate(&self) -> usize {
        0
    }

    /// Whether the analytical prior is part of its predictions.
    pub fn has_prior(&self) -> bool {
        self.on_prior
    }

    /// Natural logarithms of the predicted times in microseconds, infinite where a candidate is illegal. Allocates nothing.
    ///
    /// # Panics
    /// Where `shape` has not a number for each dim, or `costs` or `log_us` not one for each candidate.
    pub fn predict(&self, shape: &[f32], costs: &[Cost], log_us: &mut [f32]) {
        assert_eq!(log_us.len(), self.candidates.len(), "{}", self.space.name);
        log_us.copy_from_slice(&self.lanes(shape, costs)[..log_us.len()]);
    }

    /// The candidate of the least predicted time; none where all are illegal. Allocates nothing.
    ///
    /// # Panics
    /// As [`Model::predict`].
    pub fn pick(&self, shape: &[f32], costs: &[Cost]) -> Option<Pick> {
        let log_us = self.lanes(shape, costs);
        let least = least_of(&log_us);
        let mut places = [0.0; MOST_CANDIDATES];
        for (at, (place, log_us)) in places.iter_mut().zip(&log_us).enumerate() {
            *place = if *log_us == least { at as f32 } else { MOST_CANDIDATES as f32 };
        }
        let index = least_of(&places) as usize;
        (least < f32::INFINITY).then(|| Pick { index, us: exp_f32(least) })
    }

    /// The same portfolio with the prior alone.
    pub fn without_mlp(&self) -> Model {
        Model { on_prior: true, members: Vec::new(), ..self.clone() }
    }

    #[inline]
    fn lanes(&self, shape: &[f32], costs: &[Cost]) -> Lanes {
        assert_eq!(shape.len(), self.space.dims.len(), "{}", self.space.name);
        assert_eq!(costs.len(), self.candidates.len(), "{}", self.space.name);
        let columns = CostColumns::new(costs);
        let mut traits = [[0.0; MOST_CANDIDATES]; TRAITS];
        let mut out = self.base(&columns, &mut traits);
        if !self.members.is_empty() {
            let of_prior = if self.on_prior { prior_features(&out, &columns) } else { [0.0; OF_PRIOR] };
            let mut features = [0.0; MOST_FEATURES];
            let features = self.features.fill(shape, of_prior, &mut features);
            let share = 1.0 / self.members.len() as f32;
            for member in &self.members {
                member.add_to(features, &traits, share, &mut out);
            }
        }
        for (out, barred) in out.iter_mut().zip(&columns.barred) {
            // Whatever is no number counts as slow.
            *out = greater(lesser(*out, BOUND), -BOUND) + *barred;
        }
        out
    }

    /// What the MLP's word is added to: the prior's logarithms, or zeros.
    #[inline(always)]
    pub(crate) fn base(&self, columns: &CostColumns, traits: &mut [Lanes; TRAITS]) -> Lanes {
        let mut out = [0.0; MOST_CANDIDATES];
        self.prior.all(columns, &mut out, traits);
        if self.on_prior {
            for (out, factor) in out.iter_mut().zip(&self.factors) {
                *out += *factor;
            }
            out
        } else {
            [0.0; MOST_CANDIDATES]
        }
    }
}

/// The least number, by halves, so that no chain of comparisons is long.
#[inline(always)]
fn least_of(lanes: &Lanes) -> f32 {
    let (blocks, _) = lanes.as_chunks::<BLOCK>();
    let mut least = blocks[0];
    for block in &blocks[1..] {
        for (least, x) in least.iter_mut().zip(block) {
            *least = lesser(*least, *x);
        }
    }
    for half in [8, 4, 2, 1] {
        for at in 0..half {
            least[at] = lesser(least[at], least[at + half]);
        }
    }
    least[0]
}

/// The least of the prior's logarithms over the legal candidates, and how far their mean lies above it.
#[inline(always)]
pub(crate) fn prior_features(log_us: &Lanes, columns: &CostColumns) -> [f32; OF_PRIOR] {
    let (mut sum, mut count, mut least) = ([0.0; 4], [0.0; 4], [f32::INFINITY; 4]);
    let (logs, _) = log_us.as_chunks::<4>();
    let (barred, _) = columns.barred.as_chunks::<4>();
    for (logs, barred) in logs.iter().zip(barred) {
        for at in 0..4 {
            let legal = if barred[at] == 0.0 { 1.0 } else { 0.0 };
            sum[at] += legal * logs[at];
            count[at] += legal;
            let log = logs[at] + barred[at];
            least[at] = lesser(log, least[at]);
        }
    }
    let count: f32 = count.iter().sum();
    if count == 0.0 {
        return [0.0; OF_PRIOR];
    }
    let least = least.iter().fold(f32::INFINITY, |a, b| lesser(*b, a));
    [least, sum.iter().sum::<f32>() / count - least]
}
