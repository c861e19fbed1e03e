//! Replays lengths of requests against the slot allocator and the scheduler on a simulated clock, saturated, beside two
//! policies that are here for the comparison only.
//! usage: cargo bench --bench traces -- [--traces DIR] [--json] [--plot FILE.svg] [--workload NAME]
//!
//! DIR holds the Azure traces `AzureLLMInferenceTrace_conv.csv` and `_code.csv`; without it their lengths, and those of the
//! other workloads always, are drawn from distributions with the same moments. A row is the mean of two seeds, which draw
//! other lengths or take another part of a trace. Traces have lengths and no text, so the prefix cache is off.
//!
//! - `ragged`: the library's scheduler and allocator
//! - `paged16`: pages of 16 slots anywhere, which nothing ever moves
//! - `reserve`: a share of the cache for each sequence, large enough for the longest request
//!
//! All three have the same cost model, limits and order of admission: a sequence is admitted when slots for its whole
//! prompt are free beside the head-room, which is the same for `ragged` and `paged16`. *Utilisation* is the share of slots
//! that a sequence has asked for, *computed* the share whose rows are computed, both over simulated time.

#[path = "traces/baseline.rs"]
mod baseline;
#[path = "traces/machine.rs"]
mod machine;
#[path = "traces/plot.rs"]
mod plot;
#[path = "traces/ragged.rs"]
mod ragged;
#[path = "traces/replay.rs"]
mod replay;
#[path = "traces/report.rs"]
mod report;
#[path = "traces/workloads.rs"]
mod workloads;

use baseline::{Baseline, Units};
use indicatif::{ProgressBar, ProgressStyle};
use machine::Machine;
use plot::Film;
use ragged::Ragged;
use replay::{Measured, Runner, replay};
use report::Row;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use workloads::Lengths;

const USAGE: &str = "usage: cargo bench --bench traces -- [--traces DIR] [--json] [--plot FILE.svg] [--workload NAME]";
const POLICIES: [&str; 3] = ["ragged", "paged16", "reserve"];
const SEEDS: u64 = 2;
/// What is drawn where no workload is named.
const PLOTTED: &str = "conv";

#[derive(Default)]
struct Options {
    traces: Option<PathBuf>,
    json: bool,
    plot: Option<PathBuf>,
    workload: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value\n{USAGE}"));
            match word.as_str() {
                "--traces" => options.traces = Some(value()?.into()),
                "--workload" => options.workload = Some(value()?),
                "--plot" => options.plot = Some(value()?.into()),
                "--json" => options.json = true,
                "--bench" => {} // from cargo
                _ => return Err(format!("met {word}\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

/// A policy on a workload with a seed.
struct Job {
    name: &'static str,
    policy: &'static str,
    requests: std::sync::Arc<Vec<Lengths>>,
    film: Mutex<Film>,
    measured: Mutex<Measured>,
}

impl Job {
    fn run(&self, bar: &ProgressBar) {
        let machine = Machine::of(self.name);
        let longest =
            self.requests.iter().map(|r| r.prompt + r.answer).filter(|&tokens| tokens <= machine.capacity).max();
        let mut runner: Box<dyn Runner> = match self.policy {
            "ragged" => Box::new(Ragged::new(&machine)),
            "paged16" => Box::new(Baseline::new(Units::pages(machine.capacity), &machine)),
            _ => Box::new(Baseline::new(Units::shares(machine.capacity, longest.unwrap_or(1)), &machine)),
        };
        let mut film = self.film.lock().expect("no other thread has this job");
        let measured = replay(&self.requests, machine.capacity, runner.as_mut(), &mut film, &|| bar.inc(1));
        *self.measured.lock().expect("no other thread has this job") = measured;
    }
}

fn jobs(options: &Options) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    let names = match &options.workload {
        None => workloads::NAMES.to_vec(),
        Some(wanted) => workloads::NAMES.iter().copied().filter(|name| name == wanted).collect(),
    };
    if names.is_empty() {
        return Err(format!("--workload wants one of {}\n{USAGE}", workloads::NAMES.join(", ")));
    }
    let plotted = options.workload.as_deref().unwrap_or(PLOTTED);
    for name in names {
        let mut draws = Vec::new();
        for seed in 0..SEEDS {
            draws.push(std::sync::Arc::new(workloads::requests(name, options.traces.as_deref(), seed)?));
        }
        for policy in POLICIES {
            for (seed, requests) in draws.iter().enumerate() {
                let plot = options.plot.is_some() && policy == "ragged" && name == plotted && seed == 0;
                let film = if plot { Film::new(Machine::of(name).capacity, 120.0) } else { Film::off() };
                let (requests, measured) = (requests.clone(), Mutex::default());
                jobs.push(Job { name, policy, requests, film: Mutex::new(film), measured });
            }
        }
    }
    Ok(jobs)
}

/// Runs every job, on as many threads as there are cores.
fn run(jobs: &[Job]) {
    let all = jobs.iter().map(|job| job.requests.len() as u64).sum();
    let style = ProgressStyle::with_template("{bar:40} {percent} %, {elapsed} of about {duration}");
    let bar = ProgressBar::new(all).with_style(style.expect("the template is well formed"));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            job.run(&bar);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len()) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
}

fn traces() -> Result<(), String> {
    let options = Options::parse(std::env::args().skip(1))?;
    let jobs = jobs(&options)?;
    run(&jobs);
    let mut rows: Vec<Row> = jobs
        .chunks(SEEDS as usize)
        .map(|seeds| {
            let measured: Vec<Measured> =
                seeds.iter().map(|job| *job.measured.lock().expect("every thread has ended")).collect();
            let (name, policy) = (seeds[0].name, seeds[0].policy);
            Row::new(name, Machine::of(name).capacity, policy, &measured)
        })
        .collect();
    report::compare(&mut rows);
    if let Some(path) = &options.plot {
        let name = options.workload.as_deref().unwrap_or(PLOTTED);
        let film = &jobs.iter().find(|job| job.name == name).expect("it was run").film;
        let drawn = film.lock().expect("every thread has ended").draw(name);
        std::fs::write(path, drawn).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.json {
        println!("{}", report::json(&rows));
    } else {
        print!("{}", report::markdown(&rows));
    }
    Ok(())
}

fn main() -> ExitCode {
    match traces() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
