//! `raglan tune evaluate`: how near picks come to exhaustive search on shapes that training never saw.

use super::super::Result;
use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{print, print_json, print_line};
use super::super::progress::Spinner;
use super::files::InUse;
use super::{files, pictures, tables};
use raglan::Error;
use raglan::schedules::{Level, spaces};
use raglan::tuner::{self, Dataset, Latency, Report, Weights};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Score weights on the shapes of a dataset that training never saw, beside other ways to choose
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `tune collect` measured [default: this adapter's newest: the user's, or that of tuner/data]
    #[arg(long, value_name = "F")]
    dataset: Option<PathBuf>,

    /// What `tune train` made [default: those in use on this adapter]
    #[arg(long, value_name = "F")]
    weights: Option<PathBuf>,

    /// One JSON object: geometric_mean, p5, p1, worst, splits, calibrated, noise_floor, latency_ns, kernels, levels, other_kernels, …
    #[arg(long)]
    json: bool,

    /// A folder for pictures: time lost by shape and by size, predicted over measured time
    #[arg(long, value_name = "DIR")]
    plot_dir: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    // Two files are scored where there is no adapter.
    let gpu = match (&args.dataset, &args.weights) {
        (Some(_), Some(_)) => None,
        _ => Some(open_gpu(global)?),
    };
    let in_use = gpu.as_ref().filter(|_| args.weights.is_none()).map(files::in_use);
    let (name, weights) = match (&args.weights, &in_use) {
        (None, Some(in_use)) => files::weights_in_use(in_use)?,
        (path, _) => files::read_weights(path.as_deref().expect("without an adapter both are given"))?,
    };
    let path = match (&args.dataset, &gpu) {
        (None, Some(gpu)) => files::newest_dataset(&files::type_of(gpu))?,
        (path, _) => path.clone().expect("without an adapter both are given"),
    };
    let dataset = Dataset::read(&path)?;
    let spinner = Spinner::new("scoring".to_owned(), false);
    let report = scored(&dataset, &weights);
    drop(spinner);
    if let Some(folder) = &args.plot_dir {
        draw(folder, &report, &dataset)?;
    }
    let from = [name, path.display().to_string()];
    let from = [from[0].as_str(), from[1].as_str()];
    let (levels, others) = (in_use.as_ref().map(levels), other_kernels(&dataset, &weights));
    if args.json {
        let mut all = value(&report, &weights, from);
        if let Some(levels) = levels {
            all["levels"] = serde_json::to_value(levels).expect("keys are strings");
        }
        all["other_kernels"] = others.into();
        return print_json(&all);
    }
    for (space, level) in levels.into_iter().flatten() {
        print_line(format_args!("{space}: {level}"))?;
    }
    for space in others {
        print_line(format_args!(
            "{space}: the dataset was measured with other kernels than the weights were trained on"
        ))?;
    }
    show(&report, &weights, from, false)
}

/// How far what an adapter picks by is to be trusted, by space.
fn levels(in_use: &InUse) -> BTreeMap<&'static str, Level> {
    spaces::ALL.iter().map(|space| (*space, in_use.found.level(space))).collect()
}

/// The spaces of weights that a dataset has measured with other kernels.
fn other_kernels(dataset: &Dataset, weights: &Weights) -> Vec<String> {
    let measured = |space: &String| dataset.header.kernel_hashes.get(space);
    let differs = |(space, hash): &(&String, &String)| measured(space).is_some_and(|measured| measured != *hash);
    weights.kernel_hashes.iter().filter(differs).map(|(space, _)| space.clone()).collect()
}

/// The report of weights on a dataset, how long they take to pick among it.
pub(super) fn scored(dataset: &Dataset, weights: &Weights) -> Report {
    let mut report = tuner::evaluate(dataset, weights, &dataset.rules());
    report.latency_ns = latency(weights);
    report
}

/// The slowest of the models, by each number.
fn latency(weights: &Weights) -> Latency {
    weights.models.iter().map(tuner::latency).fold(Latency::default(), |slowest, met| Latency {
        cold_p50: slowest.cold_p50.max(met.cold_p50),
        cold_p99: slowest.cold_p99.max(met.cold_p99),
        memory_p50: slowest.memory_p50.max(met.memory_p50),
        memory_p99: slowest.memory_p99.max(met.memory_p99),
        warm_p50: slowest.warm_p50.max(met.warm_p50),
        warm_p99: slowest.warm_p99.max(met.warm_p99),
        memo_p50: slowest.memo_p50.max(met.memo_p50),
        memo_p99: slowest.memo_p99.max(met.memo_p99),
    })
}

/// Writes the pictures into a folder.
///
/// # Errors
/// If it cannot be written.
pub(super) fn draw(folder: &Path, report: &Report, dataset: &Dataset) -> Result {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    for (name, text) in pictures::all(report, dataset) {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
}

/// A report as JSON; `from` are the names of the weights and of the dataset.
pub(super) fn value(report: &Report, weights: &Weights, from: [&str; 2]) -> Value {
    let mut all = serde_json::to_value(report).expect("keys are strings");
    all["adapter_type"] = weights.adapter_type.as_str().into();
    all["adapter"] = weights.adapter.as_str().into();
    all["driver"] = weights.driver.as_str().into();
    all["date"] = weights.date.as_str().into();
    all["weights"] = from[0].into();
    all["dataset"] = from[1].into();
    all
}

/// Prints a report.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn show(report: &Report, weights: &Weights, from: [&str; 2], json: bool) -> Result {
    if json {
        return print_json(&value(report, weights, from));
    }
    let of = format!("{} · weights of {}, {} · dataset {}", weights.adapter, weights.date, from[0], from[1]);
    print(&tables::markdown(report, &of))
}
