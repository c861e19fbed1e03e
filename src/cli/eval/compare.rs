//! Every format against the reference.

use super::super::global::Global;
use super::super::load::{Model, open_gpu};
use super::super::output::{print, print_json};
use super::super::{Result, refused};
use super::watch::{Watch, stop_flag};
use super::{CommonArgs, ended, name, options, pictures, split, tables, write};
use raglan::eval::{self, End, Job, Text};
use std::path::PathBuf;
use std::time::Instant;

/// Tokens of a step: few enough that their logits pass memory, many enough that nobody waits for single rows.
const CHUNK: u16 = 256;

/// Rows of a step that is computed by the kernels of few rows, which sum in another order: up to 4 norm their inputs within the
/// products, on software too. There 8 rows gave the reference's bits, and 4 a mean KL of 1.1e-8 in f16
/// (`eval --model tiny --window 160 --chunk 64 --kv f16 --floor-chunk 4`).
const FLOOR_CHUNK: u16 = 4;

/// What `--json` prints.
pub(super) const SCHEMA: &str = "\
With --json: {model, adapter, version, window, chunk, floor_chunk, temp_bytes, seconds,
  texts: [{name, windows, tokens}],
  rows: [{role: reference|floor|format, weights, kv, kv_bytes_per_token, seconds, error, all: STATS, texts: [STATS]}]}
STATS, of all texts or of each in turn: {rows, scored, perplexity, nll, perplexity_change_percent,
  perplexity_change_error_percent, kl_mean, kl_p99, kl_max, top1_agreement, clear_rows, clear_top1_agreement,
  by_position: [{from, to, rows, kl_mean, kl_max, top1_agreement}]}
Shares are of 1, divergences and losses in nats; clear rows are those whose margin exceeds 0.1;
perplexity_change_error_percent is the standard error of the change, null of a single token. A row with an error has no STATS and
makes the exit code 1.";

#[derive(Debug, clap::Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Tokens of a window [default: 1024, or the positions that the model was trained for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,

    /// Windows of each text
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    windows: u32,

    /// Tokens of a step at most
    #[arg(long, value_name = "N", default_value_t = CHUNK, value_parser = clap::value_parser!(u16).range(1..=2048))]
    chunk: u16,

    /// Tokens of a step of the floor's: so few by default that they are added up in another order
    #[arg(long, value_name = "N", default_value_t = FLOOR_CHUNK, value_parser = clap::value_parser!(u16).range(1..=2048))]
    floor_chunk: u16,

    /// Where the reference's logits go meanwhile, 4 bytes each [default: the system's folder for such]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &CompareArgs) -> Result {
    let (common, start) = (&args.common, Instant::now());
    let (formats, files) = (common.formats(global)?, common.read()?);
    let model = Model::open(common.model.model.as_deref(), common.json)?;
    let window = window(args, global, model.checkpoint.spec().max_position_embeddings)?;
    let tokenizer = model.text(", so it reads no text")?;
    // What attention leans on where there is nothing to see.
    let begin = tokenizer.encode("", true)?;
    if window < begin.len() + 2 {
        return refused(format!("a window of {window} tokens, wanted {} or more", begin.len() + 2));
    }
    let mut texts = Vec::new();
    for (path, text) in files {
        let tokens = split(tokenizer, &text, common.json)?;
        let windows = tokens.chunks(window - begin.len()).filter(|window| window.len() > 1);
        let windows = windows.take(args.windows as usize).map(|window| [&begin[..], window].concat());
        let windows: Vec<Vec<u32>> = windows.collect();
        if windows.is_empty() {
            return refused(format!("{} has {} tokens, wanted 2 or more", path.display(), tokens.len()));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        texts.push(Text { name, windows });
    }
    let mut engine = options(global, &model)?;
    let longest = texts.iter().flat_map(|text| &text.windows).map(Vec::len).max().unwrap_or(0);
    if [args.chunk, args.floor_chunk]
        .map(|chunk| longest.min(chunk.into()))
        .windows(2)
        .all(|steps| steps[0] == steps[1])
    {
        return refused(eval::same_steps(longest.min(args.chunk.into())));
    }
    engine.max_context.get_or_insert(longest);
    let temp_dir = args.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let gpu = open_gpu(global)?;
    let stop = stop_flag()?;
    let job = Job {
        gpu: &gpu,
        checkpoint: &model.checkpoint,
        texts: &texts,
        unscored: begin.len(),
        formats: &formats,
        chunk: args.chunk.into(),
        floor_chunk: args.floor_chunk.into(),
        engine: &engine,
        end: End { deadline: common.deadline(), stop: &stop },
        temp_dir: &temp_dir,
    };
    let mut watch = Watch::new(common.json);
    let report = eval::compare(&job, &mut |progress| watch.hear(progress))?;
    drop(watch);

    let name = name(&model);
    if let Some(path) = &common.plot {
        write(path, &pictures::divergence(&name, &report))?;
    }
    if common.json {
        let mut all = serde_json::json!({
            "model": name,
            "adapter": gpu.summary().name,
            "version": env!("CARGO_PKG_VERSION"),
            "window": window,
            "seconds": start.elapsed().as_secs_f64(),
        });
        tables::add(&mut all, &report);
        print_json(&all)?;
    } else {
        let head = format!(
            "{name} on {}: windows of {window} tokens in steps of {}, the floor's of {}\n",
            gpu.summary().name,
            report.chunk,
            report.floor_chunk
        );
        print(&(head + &tables::divergence(&report)))?;
    }
    ended(report.rows.iter().filter(|row| row.error.is_some()).count(), report.rows.len())
}

/// Tokens of a window: what was asked for, where the model was trained for that or the user insists.
fn window(args: &CompareArgs, global: &Global, positions: usize) -> Result<usize> {
    let Some(window) = args.window else { return Ok(positions.min(1024)) };
    let window = window as usize;
    if window > positions && global.max_context.is_none_or(|most| (most as usize) < window) {
        return refused(format!(
            "a window of {window} tokens is longer than the {positions} that the model was trained for; --max-context {window} \
             reads it all the same"
        ));
    }
    Ok(window)
}
