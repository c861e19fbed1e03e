//! `raglan bench shapes`: what each way of choosing schedules picks for many shapes, and what that takes.

use super::super::global::Global;
use super::super::load::open_gpu;
use super::super::output::{print, print_json};
use super::super::progress::Bar;
use super::super::tune::in_use_from;
use super::super::{Result, refused, shape};
use super::{CommonArgs, Output, ended};
use clap::ValueEnum;
use raglan::Error;
use raglan::schedules;
use raglan::tune::{Probe, Timed};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The share of `--max-seconds` after which nothing is searched: the rest is for what the other modes pick.
const SEARCHING: f64 = 0.75;

/// Products and attention of many shapes, each by what every mode picks for it.
///
/// The picks of one shape are timed in turn. Exhaustive search measures every candidate, and its choice anew; it ends at three
/// quarters of --max-seconds. Where no weights serve a shape, the modes that ask them say so in place of a time.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON with a list `shapes` of texts as `raglan tune show` takes them, as tools/peers/dynamic.json
    #[arg(long, value_name = "FILE")]
    shapes: PathBuf,

    /// Ways of choosing: hand-written rules, one for all shapes, predicted, exhaustive search
    #[arg(
        long,
        value_name = "MODE,…",
        value_enum,
        value_delimiter = ',',
        default_value = "off,default,predict,exhaustive"
    )]
    modes: Vec<Mode>,

    /// What `tune train` made [default: those in use on this adapter]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

/// How schedules are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Off,
    Default,
    Predict,
    Exhaustive,
}

impl From<Mode> for schedules::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => schedules::Mode::Off,
            Mode::Default => schedules::Mode::Default,
            Mode::Predict => schedules::Mode::Predict,
            Mode::Exhaustive => schedules::Mode::Exhaustive,
        }
    }
}

/// A file of shapes; what else is in it is for people.
#[derive(serde::Deserialize)]
struct File {
    shapes: Vec<String>,
}

/// A shape by one mode; or one that has no times, which says why.
#[derive(Debug, Serialize)]
struct Row {
    op: &'static str,
    shape: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tuner: Option<schedules::Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    us_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    us_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let shapes = read(&args.shapes)?;
    let gpu = open_gpu(global)?;
    let in_use = in_use_from(&gpu, args.weights.as_deref())?;
    let mut probe = Probe::new(&gpu, global.inputs())?;
    let modes: Vec<schedules::Mode> = args.modes.iter().map(|&mode| mode.into()).collect();
    let deadline = args.common.deadline();
    let searching = args.common.max_seconds.map(|seconds| Duration::from_secs(seconds).mul_f64(SEARCHING));
    let search_until = searching.and_then(|searching| Instant::now().checked_add(searching));
    let bar = Bar::count("bench", false);
    let mut rows = Vec::new();
    for (done, (text, shape)) in shapes.iter().enumerate() {
        bar.say(text.chars().take(60).collect());
        bar.set(done as u64, shapes.len() as u64);
        let op = if matches!(shape, shape::Shape::Product(_)) { "linear" } else { "attention" };
        let fails = |tuner: Option<schedules::Mode>, error: String| Row {
            op,
            shape: text.clone(),
            tuner,
            candidate: None,
            us: None,
            us_min: None,
            us_max: None,
            error: Some(error),
        };
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            rows.push(fails(None, "the time was over before it began".to_owned()));
            continue;
        }
        let shape = shape.of(&gpu, global.inputs());
        match probe.time(shape, |space| in_use.found.model(space), &modes, search_until) {
            Ok(Ok(all)) => rows.extend(all.into_iter().map(|one| match one {
                Ok(timed) => row(op, text, timed),
                Err((mode, message)) => fails(Some(mode), message),
            })),
            Ok(Err(message)) => rows.push(fails(None, message)),
            Err(error) => rows.push(fails(None, error.to_string())),
        }
    }
    drop(bar);
    match args.common.output.output {
        Output::Json => print_json(&serde_json::json!({
            "adapter": gpu.summary(),
            "adapter_type": in_use.adapter_type,
            "is_software": gpu.is_software(),
            "levels": schedules::spaces::ALL.iter().map(|space| (*space, in_use.found.level(space))).collect::<BTreeMap<_, _>>(),
            "version": env!("CARGO_PKG_VERSION"),
            "rows": rows,
        }))?,
        Output::Csv => return refused("shapes are printed as md or json"),
        Output::Md => print(&markdown(&gpu.summary().name, gpu.is_software(), &rows))?,
    }
    ended(rows.iter().filter(|row| row.error.is_some()).count(), rows.len())
}

fn row(op: &'static str, text: &str, timed: Timed) -> Row {
    let Timed { mode, candidate, us, us_min, us_max } = timed;
    Row {
        op,
        shape: text.to_owned(),
        tuner: Some(mode),
        candidate: Some(candidate.to_string()),
        us: Some(us),
        us_min: Some(us_min),
        us_max: Some(us_max),
        error: None,
    }
}

/// Texts with their shapes; a model's text is as many as it has.
fn read(path: &Path) -> Result<Vec<(String, shape::Shape)>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let file: File = match serde_json::from_slice(&bytes) {
        Ok(file) => file,
        Err(error) => return refused(format!("{}: no file of shapes: {error}", path.display())),
    };
    let mut shapes = Vec::new();
    for (index, text) in file.shapes.iter().enumerate() {
        match shape::parse(text) {
            Ok(all) => shapes.extend(all.into_iter().map(|(name, shape)| match name {
                Some(name) => (format!("{text} {name}"), shape),
                None => (text.clone(), shape),
            })),
            Err(message) => return refused(format!("{}: shape {}: {message}", path.display(), index + 1)),
        }
    }
    Ok(shapes)
}

/// A line a shape and mode, and how each mode does against the others.
fn markdown(adapter: &str, is_software: bool, rows: &[Row]) -> String {
    let mut text = format!("{adapter}\n");
    if is_software {
        text += "Software: it proves that all runs, and its times say nothing about a GPU.\n";
    }
    text += "\n| shape | by | picked | µs | least – most |\n| --- | --- | --- | ---: | ---: |\n";
    let mut best: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows {
        let Some(us) = row.us else {
            let (by, error) = (row.tuner.map_or("–", name), row.error.as_deref().unwrap_or_default());
            let _ = writeln!(text, "| {} | {by} | {error} | – | – |", row.shape);
            continue;
        };
        let least = best.entry(&row.shape).or_insert(us);
        *least = least.min(us);
        let (mode, candidate) = (row.tuner.map(name).unwrap_or_default(), row.candidate.as_deref().unwrap_or_default());
        let (low, high) = (row.us_min.unwrap_or(us), row.us_max.unwrap_or(us));
        let _ = writeln!(text, "| {} | {mode} | {candidate} | {us:.2} | {low:.2} – {high:.2} |", row.shape);
    }
    text += "\n| by | shapes | share of the fastest here, geometric mean |\n| --- | ---: | ---: |\n";
    let modes = [schedules::Mode::Off, schedules::Mode::Default, schedules::Mode::Predict, schedules::Mode::Exhaustive];
    for mode in modes.into_iter().filter(|mode| rows.iter().any(|row| row.tuner == Some(*mode) && row.us.is_some())) {
        let of = rows.iter().filter(|row| row.tuner == Some(mode));
        let logs: Vec<f64> = of.filter_map(|row| Some((best.get(row.shape.as_str())? / row.us?).ln())).collect();
        let mean = (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp();
        let _ = writeln!(text, "| {} | {} | {mean:.4} |", name(mode), logs.len());
    }
    text
}

fn name(mode: schedules::Mode) -> &'static str {
    match mode {
        schedules::Mode::Off => "off",
        schedules::Mode::Default => "default",
        schedules::Mode::Predict => "predict",
        schedules::Mode::Exhaustive => "exhaustive",
    }
}
