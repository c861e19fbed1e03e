//! From measurements to weights.

use crate::{Dataset, Error, Weights};

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    /// All chance comes from it: the same seed and dataset train the same bytes.
    pub seed: u64,
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// MLPs whose predictions are averaged.
    pub members: usize,
    /// At most so many passes over the shapes.
    pub epochs: usize,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions { seed: 1, hidden: 32, members: 1, epochs: 600 }
    }
}

/// Trains a model for each space of a dataset that has shapes to train on. `progress` hears the space's name, what is
/// done and what there is to do.
///
/// # Errors
/// `NothingToTrain`: no space has a shape of the Train split with a time. `Dataset`: rows that break the rules.
pub fn train(
    _dataset: &Dataset,
    _options: &TrainOptions,
    _progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Weights, Error> {
    Err(Error::NothingToTrain { message: "training comes next".to_owned() })
}
