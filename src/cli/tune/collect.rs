//! `raglan tune collect`: measures candidates on this adapter.

use super::super::Result;
use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{note, number, print_json, print_line};
use super::super::progress::Bar;
use super::files;
use raglan::Error;
use raglan::gpu::Gpu;
use raglan::tune::{self, Options};
use raglan::tuner::{Dataset, Split, split};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Measure this adapter: many shapes, each by many schedules, in interleaved rounds
///
/// Every schedule's output is compared with the default's before its time counts. What is measured is written as it comes; Ctrl-C
/// keeps it, and the same command goes on where it ended.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// All the time it may take, compiling included [default: 10, on software 8]
    #[arg(long, value_name = "N", value_parser = minutes)]
    minutes: Option<f64>,

    /// The dataset; a started one of this adapter and these kernels is gone on with [default: this user's]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Only these of linear_few, linear_many, attention_vector and attention_tile
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    spaces: Vec<String>,

    /// Shapes of a space at most
    #[arg(long, value_name = "N")]
    shapes: Option<usize>,

    /// Candidates of a space at most [default: 48, on software 22]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=48))]
    candidates: Option<u8>,

    /// One JSON object: dataset, adapter, adapter_type, clock, seconds, sha256, rows, failed, spaces
    #[arg(long)]
    json: bool,
}

impl Args {
    /// All spaces, for so long.
    pub(super) fn lasting(minutes: f64) -> Args {
        Args { minutes: Some(minutes), ..Args::default() }
    }
}

/// What was collected of a space.
#[derive(Debug, Default, serde::Serialize)]
struct Collected {
    train_shapes: usize,
    new_m_shapes: usize,
    new_nk_shapes: usize,
    candidates: usize,
    rows: usize,
    times: usize,
    failed: usize,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let gpu = open_gpu(global)?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => files::user_folder(&files::type_of(&gpu)).join(files::DATASET),
    };
    let begun = std::time::Instant::now();
    let (dataset, _) = collected(global, &gpu, args, &path)?;
    let seconds = begun.elapsed().as_secs_f64();
    let spaces = summary(&dataset);
    let failed: usize = spaces.values().map(|space| space.failed).sum();
    if args.json {
        return print_json(&serde_json::json!({
            "dataset": path,
            "adapter": dataset.header.adapter,
            "adapter_type": dataset.header.adapter_type,
            "clock": dataset.header.clock,
            "seconds": seconds,
            "sha256": dataset.sha256()?,
            "rows": dataset.rows.len(),
            "failed": failed,
            "spaces": spaces,
        }));
    }
    let rows = number(dataset.rows.len());
    print_line(format_args!(
        "{}: {rows} rows of {}, {failed} failed, {seconds:.0} s",
        path.display(),
        dataset.header.adapter
    ))?;
    for (name, space) in &spaces {
        let Collected { train_shapes, new_m_shapes, new_nk_shapes, candidates, times, .. } = space;
        let shapes = train_shapes + new_m_shapes + new_nk_shapes;
        print_line(format_args!(
            "   {name}: {shapes} shapes ({train_shapes} to train on, {new_m_shapes} of new rows, {new_nk_shapes} of new sizes), \
             up to {candidates} candidates, {} times",
            number(*times)
        ))?;
    }
    Ok(())
}

/// Collects into `path`, with a bar; whether Ctrl-C ended it.
///
/// # Errors
/// As [`tune::collect()`].
pub(super) fn collected(global: &Global, gpu: &Gpu, args: &Args, path: &Path) -> Result<(Dataset, bool)> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let on_interrupt = move || {
        // A second one ends the program at once; the file then has what was written last.
        if stopper.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("ending; what was measured is kept");
    };
    ctrlc::set_handler(on_interrupt).map_err(|error| Error::Failed { message: error.to_string() })?;
    let minutes = args.minutes.unwrap_or(if gpu.is_software() { 8.0 } else { 10.0 });
    let options = Options {
        time: Duration::from_secs_f64(60.0 * minutes),
        spaces: args.spaces.clone(),
        inputs: global.inputs(),
        out: Some(path.to_owned()),
        most_shapes: args.shapes.unwrap_or(usize::MAX),
        most_candidates: args.candidates.map(usize::from),
        pilot: None,
    };
    let bar = Bar::count("collecting", false);
    let dataset = tune::collect(gpu, &options, &stop, &mut |what, elapsed_s, total_s| {
        bar.say(what.to_owned());
        bar.set(elapsed_s as u64, total_s.ceil() as u64);
    })?;
    Ok((dataset, stop.load(Ordering::Relaxed)))
}

fn summary(dataset: &Dataset) -> BTreeMap<String, Collected> {
    let mut spaces: BTreeMap<String, Collected> = BTreeMap::new();
    for space in &dataset.header.spaces {
        let rows: Vec<_> = dataset.rows.iter().filter(|row| row.space == space.name).collect();
        let mut shapes: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        let mut collected = Collected { rows: rows.len(), ..Collected::default() };
        for row in rows {
            let bits: Vec<u32> = row.shape.iter().map(|number| number.to_bits()).collect();
            let measured = row.times_us.iter().filter(|us| us.is_finite()).count();
            collected.times += measured;
            collected.failed += usize::from(row.failure.is_some());
            if !shapes.contains_key(&bits) {
                match split(space, &row.shape) {
                    Split::Train => collected.train_shapes += 1,
                    Split::NewM => collected.new_m_shapes += 1,
                    Split::NewNk => collected.new_nk_shapes += 1,
                }
            }
            *shapes.entry(bits).or_default() += 1;
        }
        collected.candidates = shapes.values().copied().collect::<BTreeSet<_>>().last().copied().unwrap_or(0);
        spaces.insert(space.name.clone(), collected);
    }
    spaces
}

/// Minutes that are over zero.
pub(super) fn minutes(text: &str) -> std::result::Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes: &f64| *minutes > 0.0 && *minutes <= 10_000.0);
    minutes.ok_or_else(|| format!("{text:?} is no time over 0"))
}
