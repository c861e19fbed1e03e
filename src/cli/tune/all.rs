//! Plain `raglan tune`: measures this adapter, trains, scores, and has this user's runs pick by what came of it.

use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{note, print_json, print_line};
use super::super::{Result, refused};
use super::{collect, evaluate, files, train};
use raglan::Error;
use raglan::tuner::Scores;
use std::path::PathBuf;
use std::time::Instant;

/// Minutes of all on hardware, and where a CPU plays the adapter.
const MINUTES: [f64; 2] = [10.0, 20.0];

/// Of them, for measuring; the rest trains and scores.
const MEASURING: f64 = 0.8;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// All the time it may take [default: 10, on software 20]
    #[arg(long, value_name = "N", value_parser = collect::minutes)]
    minutes: Option<f64>,

    /// All chance of training comes from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// A folder for pictures: time lost by shape and by size, predicted over measured time
    #[arg(long, value_name = "DIR")]
    plot_dir: Option<PathBuf>,

    /// Use what comes of it even where the hand-written rules score better
    #[arg(long)]
    force: bool,

    /// One JSON object: as evaluate's, and installed, seconds
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let begun = Instant::now();
    let gpu = open_gpu(global)?;
    let folder = files::user_folder(&files::type_of(&gpu));
    let minutes = args.minutes.unwrap_or(MINUTES[usize::from(gpu.is_software())]);
    let path = folder.join(files::DATASET);
    let what = collect::Args::lasting(MEASURING * minutes);
    let (dataset, stopped) = collect::collected(global, &gpu, &what, &path)?;
    if stopped {
        return Err(Error::Failed {
            message: "stopped; what was measured is kept, and `raglan tune` goes on with it".to_owned(),
        });
    }
    let weights = train::trained(&dataset, args.seed, false)?;
    let report = evaluate::scored(&dataset, &weights);
    if let Some(folder) = &args.plot_dir {
        evaluate::draw(folder, &report, &dataset)?;
    }
    let installed = folder.join(files::WEIGHTS);
    let Scores { shapes, geometric_mean: rules, .. } = report.methods.rules;
    if shapes > 0 && rules > report.scores.geometric_mean && !args.force {
        let met = report.scores.geometric_mean;
        return refused(format!(
            "not installed: the picks reach {met:.4} of exhaustive search, the hand-written rules {rules:.4}; `raglan tune` again \
             measures more, --force installs it all the same"
        ));
    }
    weights.write(&installed)?;
    let from = [installed.display().to_string(), path.display().to_string()];
    if args.json {
        let mut all = evaluate::value(&report, &weights, [&from[0], &from[1]]);
        all["installed"] = installed.display().to_string().into();
        all["seconds"] = begun.elapsed().as_secs_f64().into();
        return print_json(&all);
    }
    evaluate::show(&report, &weights, [&from[0], &from[1]], false)?;
    print_line(format_args!("\ninstalled for this user: {}", from[0]))?;
    note(format_args!("it took {:.1} minutes", begun.elapsed().as_secs_f64() / 60.0));
    Ok(())
}
