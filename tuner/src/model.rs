//! What picks: a portfolio, the prior of its candidates, and the MLP that corrects it.

use crate::features::{Features, MOST_FEATURES, OF_PRIOR};
use crate::mlp::Mlp;
use crate::numbers::{QUAD, Quad, at_least, at_most, exp_f32};
use crate::prior::{Lanes, Prior, Word};
use crate::{Candidate, Cost, Space};

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

    /// The portfolio, at most [`crate::MOST_CANDIDATES`].
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
        let mut word = Word::NONE;
        self.fill(shape, costs, &mut word);
        log_us.copy_from_slice(&word.log_us[..log_us.len()]);
    }

    /// The candidate of the least predicted time; none where all are illegal. Allocates nothing.
    ///
    /// # Panics
    /// As [`Model::predict`].
    pub fn pick(&self, shape: &[f32], costs: &[Cost]) -> Option<Pick> {
        let mut word = Word::NONE;
        self.fill(shape, costs, &mut word);
        let (log_us, _) = word.log_us.as_chunks::<QUAD>();
        let least = least_of(log_us.iter().map(|quad| Quad::from(*quad)));
        let mut at = Quad::from([0.0, 1.0, 2.0, 3.0]);
        let index = least_of(log_us.iter().map(|quad| {
            let here = Quad::from(*quad).simd_eq(Quad::splat(least)).select(at, Quad::splat(f32::INFINITY));
            at += Quad::splat(QUAD as f32);
            here
        })) as usize;
        (least < f32::INFINITY).then(|| Pick { index, us: exp_f32(least) })
    }

    /// The same portfolio with the prior alone.
    pub fn without_mlp(&self) -> Model {
        Model { on_prior: true, members: Vec::new(), ..self.clone() }
    }

    #[inline(always)]
    fn fill(&self, shape: &[f32], costs: &[Cost], word: &mut Word) {
        assert_eq!(shape.len(), self.space.dims.len(), "{}", self.space.name);
        assert_eq!(costs.len(), self.candidates.len(), "{}", self.space.name);
        self.base(costs, word);
        if !self.members.is_empty() {
            let of_prior = if self.on_prior { prior_features(word) } else { [0.0; OF_PRIOR] };
            let mut features = [0.0; MOST_FEATURES];
            let features = self.features.fill(shape, of_prior, &mut features);
            let share = 1.0 / self.members.len() as f32;
            for member in &self.members {
                member.add_to(features, &word.traits, share, &mut word.log_us);
            }
        }
        let (barred, _) = word.barred.as_chunks();
        for (out, barred) in word.log_us.as_chunks_mut::<QUAD>().0.iter_mut().zip(barred) {
            // Whatever is no number counts as slow.
            *out = (at_least(at_most(Quad::from(*out), BOUND), -BOUND) + Quad::from(*barred)).to_array();
        }
    }

    /// What the MLP's word is added to: the prior's logarithms, or zeros.
    #[inline(always)]
    pub(crate) fn base(&self, costs: &[Cost], word: &mut Word) {
        self.prior.word(costs, word);
        let (factors, _) = self.factors.as_chunks::<QUAD>();
        for (out, factors) in word.log_us.as_chunks_mut::<QUAD>().0.iter_mut().zip(factors) {
            *out = if self.on_prior { Quad::from(*out) + Quad::from(*factors) } else { Quad::ZERO }.to_array();
        }
    }
}

/// The least number.
#[inline(always)]
fn least_of(quads: impl Iterator<Item = Quad>) -> f32 {
    let [a, b, c, d] = quads.fold(Quad::splat(f32::INFINITY), |least, quad| quad.fast_min(least)).to_array();
    a.min(b).min(c.min(d))
}

/// The least of the prior's logarithms over the legal candidates, and how far their mean lies above it.
#[inline(always)]
pub(crate) fn prior_features(word: &Word) -> [f32; OF_PRIOR] {
    let (mut sum, mut count, mut least) = (Quad::ZERO, Quad::ZERO, Quad::splat(f32::INFINITY));
    let (logs, _) = word.log_us.as_chunks::<QUAD>();
    let (barred, _) = word.barred.as_chunks::<QUAD>();
    for (log, barred) in logs.iter().zip(barred) {
        let (log, barred) = (Quad::from(*log), Quad::from(*barred));
        let is_legal = barred.simd_eq(Quad::ZERO);
        sum += is_legal & log;
        count += is_legal & Quad::splat(1.0);
        least = (log + barred).fast_min(least);
    }
    let add = |quad: Quad| quad.to_array().iter().sum::<f32>();
    let count = add(count);
    if count == 0.0 {
        return [0.0; OF_PRIOR];
    }
    let least = least_of([least].into_iter());
    [least, add(sum) / count - least]
}
