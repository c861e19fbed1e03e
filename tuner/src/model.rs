//! What picks: a portfolio, the prior of its candidates, and the MLP that corrects it.

use crate::{Candidate, Cost, Space};

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
    space: Space,
    candidates: Vec<Candidate>,
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

    /// Natural logarithms of the predicted times in microseconds, infinite where a candidate is illegal. Allocates nothing.
    ///
    /// # Panics
    /// Where `shape` has not a number for each dim, or `costs` or `log_us` not one for each candidate.
    pub fn predict(&self, _shape: &[f32], costs: &[Cost], log_us: &mut [f32]) {
        for (log_us, cost) in log_us.iter_mut().zip(costs) {
            *log_us = if cost.is_legal() { (cost.bytes as f32).ln() } else { f32::INFINITY };
        }
    }

    /// The candidate of the least predicted time; none where all are illegal. Allocates nothing.
    ///
    /// # Panics
    /// As [`Model::predict`].
    pub fn pick(&self, shape: &[f32], costs: &[Cost]) -> Option<Pick> {
        let mut log_us = [f32::INFINITY; crate::MOST_CANDIDATES];
        self.predict(shape, costs, &mut log_us[..self.candidates.len()]);
        let (index, least) = log_us.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1))?;
        least.is_finite().then(|| Pick { index, us: least.exp() })
    }

    /// The same portfolio with the prior alone.
    pub fn without_mlp(&self) -> Model {
        self.clone()
    }
}
