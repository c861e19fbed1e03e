//! `raglan bench depth`: the time of a token over the context before it, the limit, and the straight line through both.

use super::super::Result;
use super::super::global::Global;
use super::super::load::{checkpoint, longest, open_gpu};
use super::super::output::{bytes, note, number};
use super::super::progress::Bar;
use super::super::refused;
use super::report::Report;
use super::{CommonArgs, ended, measure, write};
use raglan::EngineOptions;
use raglan::bench::depth::{CLIFF, Depths, Excess, Fit, fits};
use raglan::bench::models::{self, Held, Row};
use raglan::engine::{Memory, Offer};
use raglan::gpu::Gpu;
use raglan::models::{Checkpoint, Synthetic, synthetic};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Time tokens behind contexts of growing depth, and fit a straight line.
///
/// The cache is filled with random numbers, so that the depth of a long context costs nothing to reach; --real-prefill reads
/// each context instead. Depths double from the first to the last, or without a last as far as the cache goes: 1024.. and
/// 1024..131072; or are a list. The fit is time = a + b · depth, of the least squares of relative residuals, for the times and for
/// the limit; a depth at which even the fastest repetition takes a tenth longer than the line says is told as a cliff.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As for generate, or synthetic:NAME[:FORMAT]; several by commas or by --model again [default: as for generate]
    #[arg(short, long, value_name = "M", value_delimiter = ',')]
    model: Vec<String>,

    /// Tokens of context: FIRST..[LAST], or a list
    #[arg(short, long, value_name = "DEPTHS", default_value = "1024..")]
    depth: Depths,

    /// Tokens that are decoded at each depth [default: 32, on software 8]
    #[arg(short = 'n', long = "gen", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    generate: Option<u32>,

    /// Really read the contexts, rather than fill the cache with random numbers
    #[arg(long)]
    real_prefill: bool,

    /// Run the first N layers of a synthetic model alone, on an adapter that is too small for all: times are of these layers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,

    /// A picture of the time a token over the depth, beside its limit
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

/// What a model's rows come to.
#[derive(Serialize)]
pub(super) struct Curve {
    model: String,
    kv_type: String,
    /// Layers that were run, and those of the model.
    layers: usize,
    model_layers: usize,
    /// `real` or `filled`.
    contexts: &'static str,
    /// Of the times; `None` of fewer than three depths.
    fit: Option<Fit>,
    /// Of the limit.
    limit_fit: Option<Fit>,
    /// The first's slope over the second's.
    slope_over_limit: Option<f64>,
    /// The largest share by which the fastest repetition at a depth takes longer than the first says, and where.
    excess: Option<f64>,
    excess_depth: Option<f64>,
    /// Whether that is over `cliff_share`.
    cliff: Option<bool>,
    cliff_share: f64,
    /// Of what the weights leave of the adapter's memory, the share that keys and values took in the engine that ran the deepest
    /// row.
    share_of_room: Option<f64>,
    /// Weights apart, keys and values apart: bytes of everything else that it held.
    other_bytes: Option<u64>,
    /// Its memory; `None` where no row has a time.
    memory: Option<Memory>,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let names: Vec<Option<&str>> = match &args.model[..] {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let checkpoints = names.into_iter().map(|name| opened(name, args.layers)).collect::<Result<Vec<_>>>()?;
    let gpu = open_gpu(global)?;
    let mut report = Report::new(measure(&gpu)?);
    let tokens = args.generate.map_or(if gpu.is_software() { 8 } else { 32 }, |tokens| tokens as usize);
    let deadline = args.common.deadline();
    let bar = Bar::count("bench", false);
    for (checkpoint, model_layers) in &checkpoints {
        // As long as fits, where nothing else was asked for.
        let mut engine = global.engine_options(1);
        engine.max_context.get_or_insert(EngineOptions::AS_LONG_AS_FITS);
        let memory = Memory::of(&Offer::of(&gpu, &engine), checkpoint, &engine)?;
        let depths = args.depth.of(memory.longest_context, tokens);
        bar.aside(|| log::info!("{}: {}", checkpoint.path().display(), longest(&memory)));
        let options = models::Options {
            tests: Depths::tests(&depths, tokens),
            repetitions: args.common.repetitions as usize,
            real_prefill: args.real_prefill,
            timed: false,
            deadline,
            // What the depths need is enough.
            engine: EngineOptions { max_context: None, ..engine },
        };
        let mut progress = |what: &str, done: usize, total: usize| {
            bar.say(what.to_owned());
            bar.set(done as u64, total as u64);
        };
        let (rows, _) = models::run(&gpu, checkpoint, &report.adapter, &options, &mut progress, &mut |_| ());
        report.curves.push(Curve::new(&gpu, (checkpoint, *model_layers), args.real_prefill, &rows));
        report.rows.extend(rows);
    }
    drop(bar);
    if let Some(path) = &args.plot {
        write(path, &report.depth_plot())?;
    }
    report.print(args.common.output.output)?;
    ended(report.rows.iter().filter(|row| row.error.is_some()).count(), report.rows.len())
}

/// A checkpoint, or the first layers of a synthetic one, and the layers of all of it.
fn opened(name: Option<&str>, layers: Option<u32>) -> Result<(Checkpoint, usize)> {
    let whole = checkpoint(name, false)?;
    let all = whole.spec().layers.len();
    let (Some(layers), true) = (layers, whole.is_synthetic()) else {
        if layers.is_some() {
            return refused(format!(
                "--layers: {} is no synthetic model, of which a part can be run",
                whole.path().display()
            ));
        }
        return Ok((whole, all));
    };
    let name = whole.path().display().to_string();
    if layers as usize >= all {
        note(format_args!("{name} has {all} layers: all of them are run"));
    }
    let part = Synthetic::parse(name.strip_prefix(synthetic::PREFIX).unwrap_or(&name))?.with_layers(layers as usize);
    Ok((Checkpoint::synthetic(part), all))
}

impl Curve {
    fn new(gpu: &Gpu, (checkpoint, model_layers): (&Checkpoint, usize), real: bool, rows: &[Row]) -> Curve {
        let (fit, limit_fit) = fits(rows);
        let excess = fit.and_then(|fit| Excess::of(&fit, rows));
        let deepest = rows.iter().filter(|row| row.held.is_some()).max_by_key(|row| row.depth);
        let held = deepest.and_then(|row| row.held.clone());
        let budget = gpu.summary().memory.as_ref().map(|memory| memory.available_bytes());
        let share = |(held, budget): (&Held, u64)| {
            held.memory.kv_bytes as f64 / budget.saturating_sub(held.memory.weight_bytes).max(1) as f64
        };
        Curve {
            model: checkpoint.path().display().to_string(),
            kv_type: rows.first().map_or(String::new(), |row| row.kv_type.clone()),
            layers: checkpoint.spec().layers.len(),
            model_layers,
            contexts: if real { "real" } else { "filled" },
            slope_over_limit: fit.zip(limit_fit).map(|(fit, limit)| fit.us_per_1k / limit.us_per_1k),
            excess: excess.map(|excess| excess.share),
            excess_depth: excess.map(|excess| excess.depth),
            cliff: excess.map(|excess| excess.is_cliff()),
            cliff_share: CLIFF,
            share_of_room: held.as_ref().zip(budget).map(share),
            other_bytes: held.as_ref().map(|held| held.other_bytes),
            fit,
            limit_fit,
            memory: held.map(|held| held.memory),
        }
    }

    /// A few lines of words.
    pub(super) fn words(&self) -> String {
        let mut text = format!("\n{}, KV {}", self.model, self.kv_type);
        if self.layers < self.model_layers {
            let _ = write!(
                text,
                ": {} of {} layers alone, and nothing is scaled up to the whole",
                self.layers, self.model_layers
            );
        }
        let _ = writeln!(text, "\n");
        let line = |name: &str, fit: &Fit| format!("- {name}: {:.4} ms + {:.3} µs a 1K tokens", fit.ms, fit.us_per_1k);
        match (&self.fit, &self.limit_fit) {
            (Some(fit), Some(limit)) => {
                let (r2, share, at) = (fit.r2, 100.0 * fit.worst_residual, number(fit.worst_depth as u64));
                let _ =
                    writeln!(text, "{}; r² {r2:.5}, worst residual {share:.1} % at {at}", line("time a token", fit));
                if let Some((excess, depth)) = self.excess.zip(self.excess_depth) {
                    let _ = writeln!(
                        text,
                        "- {}: the fastest time at a depth is over the line by {:.1} % at most, at {} ({:.0} % is a cliff)",
                        if self.cliff == Some(true) { "a cliff" } else { "no cliff" },
                        100.0 * excess,
                        number(depth as u64),
                        100.0 * self.cliff_share
                    );
                }
                let _ = writeln!(
                    text,
                    "{}; the slope is {:.2} × that",
                    line("the limit", limit),
                    self.slope_over_limit.unwrap_or(f64::NAN)
                );
            }
            _ => {
                let _ = writeln!(text, "- no line: fewer than three depths have times");
            }
        }
        let Some((memory, other_bytes)) = self.memory.as_ref().zip(self.other_bytes) else { return text };
        let (ran, fits) = (number(memory.longest_context), number(memory.fits));
        let _ = writeln!(text, "- the engine that ran the deepest held {ran} tokens, of {fits} that there is room for");
        let share =
            self.share_of_room.map_or(String::new(), |share| format!(", {:.2} % of what weights leave", 100.0 * share));
        let _ = writeln!(
            text,
            "- {} a token; cache {}{share}; all other memory {}",
            bytes(memory.slot_bytes),
            bytes(memory.kv_bytes),
            bytes(other_bytes)
        );
        text
    }
}
