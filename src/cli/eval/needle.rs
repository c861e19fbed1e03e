//! Facts hidden in text.

use super::super::global::Global;
use super::super::load::{Model, open_gpu};
use super::super::output::{print, print_json};
use super::super::{Result, refused};
use super::kinds::{Counts, counts};
use super::watch::{Watch, stop_flag};
use super::{CommonArgs, ended, name, options, pictures, split, tables, write};
use raglan::eval::End;
use raglan::eval::needle::{self, Job};
use std::time::Instant;

/// The shortest context, where nothing is asked for; each next one is twice as long.
const SHORTEST: usize = 512;

/// The longest on a CPU that plays an adapter.
const LONGEST_ON_SOFTWARE: usize = 2048;

const SCHEMA: &str = "\
With --json: {model, adapter, version, seconds, lengths, depths, samples, seed, candidates,
  rows: [{weights, kv, seconds, error, cells: [{length, depth, chosen, written, margin, log_probability}]}]}
chosen and written are shares of 1 over the samples, depth is in percent, margin and log_probability in nats; a row with an
error has the cells that it had finished, and makes the exit code 1.";

/// Hide facts in text and ask for them at its end, at growing depth, in every format.
///
/// Each fact says a number, and the question at the end begins the sentence that the number ends. `chosen` is how often the
/// right one of eight numbers had the largest summed log-probability (chance is 0.125), `written` how often it was in what the
/// model wrote by itself. All formats get the same contexts; the text before a fact is read once for several depths.
#[derive(Debug, clap::Args)]
#[command(after_long_help = SCHEMA)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Tokens of the contexts, as 512,1K,2K [default: 512 and its doubles as far as the model was trained, on software to 2K]
    #[arg(long, value_name = "N,…", value_parser = counts)]
    lengths: Option<Counts>,

    /// How far into the text facts are, in percent
    #[arg(long, value_name = "N,…", default_value = "0,25,50,75,100", value_parser = counts)]
    depths: Counts,

    /// Facts for each length and depth
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,

    /// Same seed, same facts in the same places
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    let (common, start) = (&args.common, Instant::now());
    let (formats, files) = (common.formats(global)?, common.read()?);
    if let Some(depth) = args.depths.0.iter().find(|&&depth| depth > 100) {
        return refused(format!("--depths {depth}: wanted 0 to 100, in percent"));
    }
    let model = Model::open(common.model.model.as_deref(), common.json)?;
    let tokenizer = model.text(", so it reads no text")?;
    let text: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
    let filler = split(tokenizer, &text.join("\n"), common.json)?;
    let gpu = open_gpu(global)?;
    let lengths = match &args.lengths {
        Some(lengths) => lengths.0.clone(),
        None => {
            let trained = model.checkpoint.spec().max_position_embeddings;
            let most = if gpu.is_software() { trained.min(LONGEST_ON_SOFTWARE) } else { trained }.min(filler.len());
            let doubles = std::iter::successors(Some(SHORTEST), |length| length.checked_mul(2));
            let lengths: Vec<usize> = doubles.take_while(|&length| length <= most).collect();
            if lengths.is_empty() { vec![most] } else { lengths }
        }
    };
    let engine = options(global, &model)?;
    let stop = stop_flag()?;
    let job = Job {
        gpu: &gpu,
        checkpoint: &model.checkpoint,
        tokenizer,
        filler: &filler,
        lengths: &lengths,
        depths: &args.depths.0,
        samples: args.samples.into(),
        seed: args.seed,
        formats: &formats,
        engine: &engine,
        end: End { deadline: common.deadline(), stop: &stop },
    };
    let mut watch = Watch::new(common.json);
    let report = needle::run(&job, &mut |progress| watch.hear(progress))?;
    drop(watch);

    let name = name(&model);
    if let Some(path) = &common.plot {
        write(path, &pictures::needle(&name, &report))?;
    }
    if common.json {
        let mut all = serde_json::json!({
            "model": name,
            "adapter": gpu.summary().name,
            "version": env!("CARGO_PKG_VERSION"),
            "seconds": start.elapsed().as_secs_f64(),
        });
        tables::add(&mut all, &report);
        print_json(&all)?;
    } else {
        let head = format!(
            "{name} on {}: {} facts a cell, seed {}; chosen of {} numbers (chance {:.3}) / written\n",
            gpu.summary().name,
            report.samples,
            report.seed,
            report.candidates,
            1.0 / report.candidates as f64
        );
        print(&(head + &tables::needle(&report)))?;
    }
    ended(report.rows.iter().filter(|row| row.error.is_some()).count(), report.rows.len())
}
