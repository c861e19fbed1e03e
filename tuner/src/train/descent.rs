//! Gradient descent over examples: Adam, with a running mean of the parameters as the result.
//!
//! Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019, arXiv:1711.05101, for the decay.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::example::Example;
use super::shuffle;
use crate::MOST_CANDIDATES;
use crate::mlp::{Mlp, Sizes, Trace};
use crate::numbers::{BLOCK, Block, exp};
use crate::prior::Lanes;

/// Passes between two looks at the shapes of validation.
pub(super) const CHECK: usize = 10;
/// How much of the MLP's word can be taken: little data can make it worse than none.
pub(super) const SHARES: [f32; 4] = [0.0, 0.3, 0.6, 1.0];
/// Examples of a step.
const BATCH: usize = 16;
const RATE: f32 = 3e-3;
const DECAY: f32 = 0.5;
/// Of the running mean, when it has run for a while.
const MEAN_DECAY: f32 = 0.995;
/// What a shape's level counts beside the candidates' differences, which are all that a choice needs.
const LEVEL: f32 = 0.1;
/// Errors of the logarithm beyond it count linearly.
const HUBER: f32 = 0.5;
/// How far apart, as logarithms, two predictions are that the softmin of validation takes as different.
const SOFT: f32 = 0.01;
/// What a candidate's level is worth that has no data, in examples.
const SHRINK: f32 = 2.0;

/// What to descend on.
pub(super) struct Descent<'a> {
    pub(super) examples: &'a [Example],
    pub(super) train: Vec<usize>,
    pub(super) valid: Vec<usize>,
    pub(super) sizes: Sizes,
    pub(super) epochs: usize,
    pub(super) seed: u64,
}

/// What came of it.
pub(super) struct Descended {
    pub(super) mlp: Mlp,
    /// After every [`CHECK`] passes, from none on, and with each of [`SHARES`] of the MLP's word: the sum of expected regrets
    /// over the shapes of validation.
    pub(super) scores: Vec<[f64; SHARES.len()]>,
}

pub(super) fn descend(descent: &Descent<'_>) -> Descended {
    let Sizes { first, second, outputs, .. } = descent.sizes;
    match (first, second, outputs) {
        (1, _, 1) => run::<1, 1, 1>(descent),
        (1, _, 2) => run::<1, 1, 2>(descent),
        (1, _, _) => run::<1, 1, 3>(descent),
        (2, 1, 1) => run::<2, 1, 1>(descent),
        (2, 1, 2) => run::<2, 1, 2>(descent),
        (2, 1, _) => run::<2, 1, 3>(descent),
        (2, _, 1) => run::<2, 2, 1>(descent),
        (2, _, 2) => run::<2, 2, 2>(descent),
        _ => run::<2, 2, 3>(descent),
    }
}

fn run<const F: usize, const S: usize, const O: usize>(descent: &Descent<'_>) -> Descended {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(descent.seed);
    let mut mlp = Mlp::new(descent.sizes, &mut rng);
    set_levels(&mut mlp, descent);
    let mut adam = Adam::new(&mlp);
    let mut mean = mlp.clone();
    let mut order = descent.train.clone();
    let mut gradient = vec![Block::ZERO; mlp.blocks.len()];
    let mut scores = vec![score::<F, S, O>(&mean, descent)];
    for epoch in 1..=descent.epochs {
        shuffle(&mut order, &mut rng);
        for batch in order.chunks(BATCH) {
            gradient.fill(Block::ZERO);
            for at in batch {
                let example = &descent.examples[*at];
                let (trace, log_us) = forward::<F, S, O>(&mlp, example);
                let slopes = slopes::<O>(example, &log_us, 1.0 / batch.len() as f32);
                mlp.learn::<F, S, O>(&example.features, &example.traits, &trace, &slopes, &mut gradient);
            }
            adam.step(&mut mlp, &gradient, &mut mean);
        }
        if epoch % CHECK == 0 {
            scores.push(score::<F, S, O>(&mean, descent));
        }
    }
    Descended { mlp: mean, scores }
}

/// Sets the last layer's biases to what the candidates' times are over the base on average.
fn set_levels(mlp: &mut Mlp, descent: &Descent<'_>) {
    let zero = [0.0_f32; MOST_CANDIDATES];
    let (mut sums, mut weights) = (zero, zero);
    for at in &descent.train {
        let e = &descent.examples[*at];
        for lane in 0..MOST_CANDIDATES {
            // A place's share, so that one weighs 1 where all weigh alike.
            let weight = e.weight[lane] * MOST_CANDIDATES as f32;
            sums[lane] += weight * (e.target[lane] - e.base[lane]);
            weights[lane] += weight;
        }
    }
    let overall = sums.iter().sum::<f32>() / weights.iter().sum::<f32>().max(1e-6);
    let begin = mlp.sizes.parts().last[1];
    for lane in 0..mlp.sizes.outputs * BLOCK {
        let level = (sums[lane] + SHRINK * overall) / (weights[lane] + SHRINK);
        mlp.blocks[begin + lane / BLOCK].0[lane % BLOCK] = level;
    }
}

fn forward<const F: usize, const S: usize, const O: usize>(mlp: &Mlp, example: &Example) -> (Trace<F, S>, Lanes) {
    let trace = mlp.hidden::<F, S>(&example.features);
    let mut log_us = example.base;
    mlp.last::<F, S, O>(&trace, &example.traits, 1.0, &mut log_us);
    (trace, log_us)
}

/// The loss's derivatives by the predicted logarithms: weighted squared errors of the differences between candidates and,
/// for little, of the shape's level. (The expected regret of a softmin as a second term was tried and made picks worse: it
/// follows the noise among the near-best.)
fn slopes<const O: usize>(example: &Example, log_us: &Lanes, scale: f32) -> [Block; O] {
    let error = |lane: usize| log_us[lane] - example.target[lane];
    let level: f32 = (0..MOST_CANDIDATES).map(|lane| example.weight[lane] * error(lane)).sum();
    let mut slopes = [Block::ZERO; O];
    for lane in 0..O * BLOCK {
        let apart = (error(lane) - level).clamp(-HUBER, HUBER);
        let squared = 2.0 * example.weight[lane] * (apart + LEVEL * level.clamp(-HUBER, HUBER));
        slopes[lane / BLOCK].0[lane % BLOCK] = scale * squared;
    }
    slopes
}

/// The regret to expect of drawing candidates by a softmin of what is predicted: as a pick's, but smooth.
fn soft_regret(example: &Example, log_us: &Lanes) -> f64 {
    let legal = |lane: &usize| example.weight[*lane] > 0.0;
    let least = (0..MOST_CANDIDATES).filter(legal).map(|lane| log_us[lane]).fold(f32::INFINITY, f32::min);
    let (mut sum, mut regret) = (0.0, 0.0);
    for lane in (0..MOST_CANDIDATES).filter(legal) {
        let share = exp(f64::from((least - log_us[lane]) / SOFT));
        sum += share;
        regret += share * f64::from(example.regret[lane]);
    }
    regret / sum
}

fn score<const F: usize, const S: usize, const O: usize>(mlp: &Mlp, descent: &Descent<'_>) -> [f64; SHARES.len()] {
    let mut sums = [0.0; SHARES.len()];
    for at in &descent.valid {
        let example = &descent.examples[*at];
        let whole = forward::<F, S, O>(mlp, example).1;
        for (sum, share) in sums.iter_mut().zip(SHARES) {
            let mut log_us = example.base;
            log_us.iter_mut().zip(&whole).for_each(|(log_us, whole)| *log_us += share * (whole - *log_us));
            *sum += soft_regret(example, &log_us);
        }
    }
    sums
}

struct Adam {
    first: Vec<Block>,
    second: Vec<Block>,
    steps: i32,
    /// Powers of the decays.
    powers: [f32; 2],
    /// Where weights decay: not in biases and traits.
    decaying: Vec<bool>,
}

const FIRST_DECAY: f32 = 0.9;
const SECOND_DECAY: f32 = 0.999;

impl Adam {
    fn new(mlp: &Mlp) -> Adam {
        let zeros = vec![Block::ZERO; mlp.blocks.len()];
        let p = mlp.sizes.parts();
        let weights = [p.first, p.second, p.last, p.shared];
        let decaying = (0..mlp.blocks.len()).map(|at| weights.iter().any(|[begin, end]| (*begin..*end).contains(&at)));
        Adam { first: zeros.clone(), second: zeros, steps: 0, powers: [1.0; 2], decaying: decaying.collect() }
    }

    fn step(&mut self, mlp: &mut Mlp, gradient: &[Block], mean: &mut Mlp) {
        self.steps += 1;
        self.powers[0] *= FIRST_DECAY;
        self.powers[1] *= SECOND_DECAY;
        let (first_scale, second_scale) = (1.0 / (1.0 - self.powers[0]), 1.0 / (1.0 - self.powers[1]));
        let steps = self.steps as f32;
        let keep = ((1.0 + steps) / (10.0 + steps)).min(MEAN_DECAY);
        for (at, slopes) in gradient.iter().enumerate() {
            let decay = if self.decaying[at] { 1.0 - RATE * DECAY } else { 1.0 };
            for (lane, slope) in slopes.0.iter().enumerate() {
                let first = &mut self.first[at].0[lane];
                *first = FIRST_DECAY * *first + (1.0 - FIRST_DECAY) * slope;
                let second = &mut self.second[at].0[lane];
                *second = SECOND_DECAY * *second + (1.0 - SECOND_DECAY) * slope * slope;
                let weight = &mut mlp.blocks[at].0[lane];
                *weight = *weight * decay - RATE * (*first * first_scale) / ((*second * second_scale).sqrt() + 1e-8);
                let mean = &mut mean.blocks[at].0[lane];
                *mean = keep * *mean + (1.0 - keep) * *weight;
            }
        }
    }
}
