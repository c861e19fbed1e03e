//! `raglan tune train`: from measurements to weights.

use super::super::Result;
use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{number, print_json, print_line};
use super::super::progress::Bar;
use super::files;
use raglan::tuner::{self, Dataset, TrainOptions, Weights};
use std::path::PathBuf;

/// Train weights on a dataset; the same seed gives the same bytes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `tune collect` measured [default: this adapter's newest]
    dataset: Option<PathBuf>,

    /// Where the weights go [default: weights.safetensors beside the dataset]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// All chance comes from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// One JSON object: weights, adapter_type, dataset_sha256, seed, scores, kernels
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let path = match &args.dataset {
        Some(path) => path.clone(),
        None => files::newest_dataset(&files::type_of(&open_gpu(global)?))?,
    };
    let dataset = Dataset::read(&path)?;
    let out = args.out.clone().unwrap_or_else(|| path.with_file_name(files::WEIGHTS));
    let weights = trained(&dataset, args.seed, false)?;
    weights.write(&out)?;
    let spaces = weights.models.iter().map(|model| (model.space().name.clone(), model.candidates().len()));
    if args.json {
        return print_json(&serde_json::json!({
            "weights": out,
            "adapter_type": weights.adapter_type,
            "dataset_sha256": weights.dataset_sha256,
            "seed": args.seed,
            "scores": weights.scores,
            "kernels": spaces.collect::<std::collections::BTreeMap<_, _>>(),
        }));
    }
    print_line(format_args!(
        "{}: trained on {} measurements of {}",
        out.display(),
        number(dataset.rows.len()),
        weights.adapter
    ))?;
    for (space, candidates) in spaces {
        print_line(format_args!("   {space}: {candidates} candidates"))?;
    }
    let mean = weights.scores["geometric_mean"].as_f64().unwrap_or_default();
    print_line(format_args!("   {mean:.4} of exhaustive search on unseen shapes; `raglan tune evaluate` says more"))
}

/// Weights of a dataset, their scores on its unseen shapes among them.
///
/// # Errors
/// If the dataset has nothing to train on.
pub(super) fn trained(dataset: &Dataset, seed: u64, quiet: bool) -> Result<Weights> {
    let bar = Bar::count("training", quiet);
    let options = TrainOptions { seed, ..TrainOptions::default() };
    let mut weights = tuner::train(dataset, &options, &mut |space, done, total| {
        bar.say(format!("training {space}"));
        bar.set(done as u64, total as u64);
    })?;
    drop(bar);
    let report = tuner::evaluate(dataset, &weights, &dataset.rules());
    let tuner::Scores { geometric_mean, p5, p1, worst, .. } = report.scores;
    weights.scores = serde_json::json!({
        "geometric_mean": geometric_mean,
        "p5": p5,
        "p1": p1,
        "worst": worst,
        "splits": report.splits,
        "calibrated": report.calibrated,
        "noise_floor": report.noise_floor,
    });
    Ok(weights)
}
