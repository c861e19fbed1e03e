//! `raglan perplexity`: how well a model foretells a text.

use super::global::Global;
use super::load::{Model, ModelArgs};
use super::output::{print_json, print_line};
use super::progress::{Bar, Spinner};
use super::{Result, refused};
use raglan::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Windows are read in steps of so many tokens, which bounds the memory for logits.
const ROWS: usize = 256;

/// Measure how well a model foretells a text.
///
/// The text, its line ends made \n, is cut into windows that do not overlap; every token but a window's first is scored.
/// A shorter window at the end counts too.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// A file of UTF-8 text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,

    /// Tokens of a window [default: 1024, or the positions that the model was trained for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,

    /// Stop after so many windows [default: all of the text]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,

    /// One JSON object: perplexity, nll (mean, in nats), tokens (scored), windows, window
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let text = std::fs::read_to_string(&args.text).map_err(|source| Error::Io { path: args.text.clone(), source })?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let start = Instant::now();
    let model = Model::open(args.model.model.as_deref(), args.json)?;
    let positions = model.checkpoint.spec().max_position_embeddings;
    let window = args.window.map_or(positions.min(1024), |window| window as usize);
    if window > positions {
        log::warn!("a window of {window} tokens is longer than the {positions} that the model was trained for");
    }
    let tokens = {
        let _spinner = Spinner::new("splitting the text into tokens".to_owned(), args.json);
        model.text(", so it reads no text")?.encode(&text, false)?
    };
    let windows: Vec<&[u32]> = tokens.chunks(window).filter(|window| window.len() > 1).collect();
    let windows = &windows[..windows.len().min(args.windows.map_or(usize::MAX, |windows| windows as usize))];
    if windows.is_empty() {
        return refused(format!("{} has {} tokens, wanted 2 or more", args.text.display(), tokens.len()));
    }

    let mut options = global.engine_options(ROWS);
    let longest = windows[0].len();
    options.max_context.get_or_insert(longest);
    let mut engine = model.load_stepper(global, &options, start, args.json)?;
    if engine.capacity() < longest {
        return refused(format!(
            "a window of {longest} tokens does not fit the KV cache of {}: give a smaller --window",
            engine.capacity()
        ));
    }
    let bar = Bar::count("scoring", args.json);
    let (mut sum, mut scored) = (0.0f64, 0u64);
    for (index, window) in windows.iter().enumerate() {
        bar.set(index as u64, windows.len() as u64);
        sum += engine.losses(window)?.into_iter().map(f64::from).sum::<f64>();
        scored += window.len() as u64 - 1;
        bar.say(format!("perplexity {:.3}", (sum / scored as f64).exp()));
        bar.set(index as u64 + 1, windows.len() as u64);
    }
    drop(bar);

    let nll = sum / scored as f64;
    if !nll.is_finite() {
        return Err(Error::NotANumber);
    }
    if args.json {
        return print_json(&serde_json::json!({
            "perplexity": nll.exp(),
            "nll": nll,
            "tokens": scored,
            "windows": windows.len(),
            "window": window,
        }));
    }
    let count = windows.len();
    print_line(format_args!("perplexity {:.4} (nll {nll:.6} over {scored} tokens of {count} windows)", nll.exp()))
}
