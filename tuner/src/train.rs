//! From measurements to weights.
//!
//! Of each space: the portfolio, the prior's constants, then an inner cross-validation over groups that says whether the MLP
//! corrects the prior or speaks alone, and after how many passes it is at its best; then the members, on all shapes of
//! training.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::features::Features;
use crate::mlp::{MOST_HIDDEN, MOST_OUTPUTS, Sizes};
use crate::numbers::{BLOCK, ln_f64};
use crate::prior::{Sample, fit};
use crate::table::Table;
use crate::{Dataset, Error, MOST_CANDIDATES, Model, Space, Split, Weights, portfolio};

mod descent;
mod example;

use descent::{CHECK, Descent, SHARES, descend};
use example::Example;

/// Folds of the inner cross-validation, and how often it is done, each time with other folds: what it chooses hangs on few
/// shapes otherwise.
const FOLDS: usize = 4;
const REPEATS: usize = 3;
/// With fewer shapes of training the candidates' own levels over the prior are all that is learned.
const LEAST_SHAPES: usize = 16;
/// With fewer groups, folds are made of shapes.
const LEAST_GROUPS: usize = 8;
/// Members that weights may have.
pub(crate) const MOST_MEMBERS: usize = 8;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    /// All chance comes from it: the same seed and dataset train the same bytes.
    pub seed: u64,
    /// Widths of the two hidden layers, 16 or 32, the second no wider than the first; another is taken as the next of them.
    pub hidden: [usize; 2],
    /// MLPs whose predictions are averaged, 1 to 8.
    pub members: usize,
    /// At most so many passes over the shapes.
    pub epochs: usize,
    /// Whether the MLP corrects the prior: chosen by cross-validation where it is none.
    pub on_prior: Option<bool>,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions { seed: 1, hidden: [32, 32], members: 1, epochs: 400, on_prior: None }
    }
}

/// Trains a model for each space of a dataset that has shapes to train on. `progress` hears the space's name, what is
/// done and what there is to do.
///
/// # Errors
/// `NothingToTrain`: no space has a shape of the Train split with a time. `Dataset`: rows that break the rules.
pub fn train(
    dataset: &Dataset,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Weights, Error> {
    let mut models = Vec::new();
    for space in &dataset.header.spaces {
        let table = Table::new(dataset, space);
        if table.of(Split::Train).next().is_some() {
            models.push(train_space(dataset, space, &table, options, progress));
        }
    }
    if models.is_empty() {
        return Err(Error::NothingToTrain { message: "no shape of the Train split has a time".to_owned() });
    }
    let header = &dataset.header;
    Ok(Weights {
        adapter_type: header.adapter_type.clone(),
        adapter: header.adapter.clone(),
        driver: header.driver.clone(),
        date: header.date.clone(),
        dataset_sha256: dataset.sha256()?,
        kernel_hashes: header.kernel_hashes.clone(),
        scores: serde_json::Value::Null,
        models,
    })
}

fn train_space(
    dataset: &Dataset,
    space: &Space,
    table: &Table<'_>,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Model {
    let candidates = portfolio(dataset, &space.name);
    let ids: Vec<usize> = candidates.iter().filter_map(|candidate| table.id(candidate)).collect();
    let prior = fit(&samples(table, &ids));
    let factors = prior.factors(&candidates);
    let features = Features::new(space);
    let plain =
        Model { space: space.clone(), candidates, features, prior, factors, on_prior: true, members: Vec::new() };
    let variants: Vec<(Model, Vec<Example>)> = [true, false]
        .into_iter()
        .filter(|on_prior| options.on_prior.is_none_or(|wanted| wanted == *on_prior))
        .map(|on_prior| example::examples(Model { on_prior, ..plain.clone() }, table, &ids))
        .collect();

    let sizes = Sizes {
        inputs: plain.features.len(),
        first: options.hidden[0].div_ceil(BLOCK).clamp(1, MOST_HIDDEN),
        second: options.hidden[1].div_ceil(BLOCK).clamp(1, options.hidden[0].div_ceil(BLOCK).clamp(1, MOST_HIDDEN)),
        outputs: ids.len().div_ceil(BLOCK).clamp(1, MOST_OUTPUTS),
    };
    let seed = |role: usize| mixed(options.seed, &space.name, role);
    let members = options.members.clamp(1, MOST_MEMBERS);
    let folds: Vec<Vec<usize>> = (0..REPEATS).map(|repeat| folds(space, &variants[0].1, seed(1000 + repeat))).collect();
    let epochs = if variants[0].1.len() < LEAST_SHAPES { 0 } else { options.epochs };
    let validations = if variants[0].1.len() < FOLDS { 0 } else { variants.len() * FOLDS * REPEATS };
    let total = validations + members;

    let curves = in_parallel(
        validations,
        |job| {
            let (variant, repeat, fold) = (job / (FOLDS * REPEATS), job / FOLDS % REPEATS, job % FOLDS);
            let examples = &variants[variant].1;
            let (valid, train) = (0..examples.len()).partition(|at| folds[repeat][*at] == fold);
            descend(&Descent { examples, train, valid, sizes, epochs, seed: seed(1 + job) }).scores
        },
        &mut |done| progress(&space.name, done, total),
    );
    let best = best_of(&curves, &variants);
    let (model, examples) = &variants[best.variant];
    let members = if best.share > 0.0 { members } else { 0 };
    let members = in_parallel(
        members,
        |member| {
            let train = (0..examples.len()).collect();
            let seed = seed(500 + member);
            let descent = Descent { examples, train, valid: Vec::new(), sizes, epochs: best.epochs, seed };
            descend(&descent).mlp.quieter(best.share)
        },
        &mut |done| progress(&space.name, validations + done, total),
    );
    progress(&space.name, total, total);
    Model { members, ..model.clone() }
}

/// What the prior is fitted to: every candidate of the portfolio on every shape, those near the best above all.
fn samples<'a>(table: &Table<'a>, ids: &[usize]) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for shape in table.of(Split::Train) {
        for id in ids {
            let Some((row, us)) = shape.rows.get(id).and_then(|row| row.chosen_us().map(|us| (*row, us))) else {
                continue;
            };
            if !row.cost.is_legal() {
                continue;
            }
            samples.push(Sample {
                kernel: &row.candidate.kernel,
                cost: row.cost.as_f32(),
                log_us: ln_f64(us) as f32,
                weight: (0.1 + crate::numbers::exp(-shape.regret(*id) / 0.5)) as f32,
            });
        }
    }
    samples
}

/// The fold of each example: whole groups, where there are enough, so that what is validated on is unseen as a whole.
fn folds(space: &Space, examples: &[Example], seed: u64) -> Vec<usize> {
    let grouped: Vec<usize> = (0..space.dims.len()).filter(|at| space.dims[*at].grouped).collect();
    let group = |example: &Example| grouped.iter().map(|at| example.shape[*at].to_bits()).collect::<Vec<u32>>();
    let mut groups: Vec<Vec<u32>> = examples.iter().map(group).collect();
    groups.sort_unstable();
    groups.dedup();
    let by_group = groups.len() >= LEAST_GROUPS;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..if by_group { groups.len() } else { examples.len() }).collect();
    shuffle(&mut order, &mut rng);
    let fold_of = |at: usize| order[at] % FOLDS;
    examples
        .iter()
        .enumerate()
        .map(
            |(at, example)| {
                if by_group { fold_of(groups.binary_search(&group(example)).unwrap_or(0)) } else { fold_of(at) }
            },
        )
        .collect()
}

/// What cross-validation chose.
struct Chosen {
    variant: usize,
    epochs: usize,
    /// Of the MLP's word.
    share: f32,
}

/// The variant, passes and share that make the least regret, by the curves of the folds; the first variant's levels as they
/// are where there are none.
fn best_of(curves: &[Vec<[f64; SHARES.len()]>], variants: &[(Model, Vec<Example>)]) -> Chosen {
    let mut best = (f64::INFINITY, Chosen { variant: 0, epochs: 0, share: 1.0 });
    for (variant, (folds, (model, _))) in curves.chunks(FOLDS * REPEATS).zip(variants).enumerate() {
        for check in 0..folds.iter().map(Vec::len).min().unwrap_or(0) {
            for (at, share) in SHARES.into_iter().enumerate() {
                // Without the prior there is nothing but the MLP's word.
                let sum = folds.iter().map(|fold| fold[check][at]).sum::<f64>();
                if sum < best.0 && (model.on_prior || share == 1.0) {
                    best = (sum, Chosen { variant, epochs: check * CHECK, share });
                }
            }
        }
    }
    best.1
}

/// Jobs on all cores; the results in order, whichever ends first. `heard` is told how many are done.
fn in_parallel<T: Send>(jobs: usize, run: impl Fn(usize) -> T + Sync, heard: &mut dyn FnMut(usize)) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(jobs);
    let mut done: Vec<(usize, T)> = Vec::with_capacity(jobs);
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..cores {
            let (send, next, run) = (send.clone(), &next, &run);
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || send.send((job, run(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for result in receive {
            done.push(result);
            heard(done.len());
        }
    });
    done.sort_by_key(|(job, _)| *job);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Puts a list in another order.
pub(crate) fn shuffle(list: &mut [usize], rng: &mut impl Rng) {
    for last in (1..list.len()).rev() {
        list.swap(last, (rng.next_u64() % (last as u64 + 1)) as usize);
    }
}

/// A seed for each role in each space.
fn mixed(seed: u64, space: &str, role: usize) -> u64 {
    let begin = seed ^ (role as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    space.bytes().fold(begin, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const _: () = assert!(MOST_CANDIDATES.is_multiple_of(BLOCK));
