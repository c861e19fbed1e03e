//! `raglan quantize`: a checkpoint as a smaller one.

use super::global::Global;
use super::interrupt::{self, Interruptible};
use super::load::{Model, open_gpu};
use super::output::{bytes, note, print_json, print_line};
use super::progress::{Bar, LoadingBar};
use super::{Result, refused};
use raglan::models::QuantizeTo;
use raglan::models::quantize::{FolderOptions, write_folder};
use raglan::{EngineOptions, Error, Importance, Loading, Stepper};
use std::path::{Path, PathBuf};

/// Tokens that see each other.
const WINDOW: usize = 512;

/// Write a model's weights as integers in groups, with the scale and zero point of the least error for each.
///
/// The folder is in the layout of compressed-tensors (pack-quantized). Readers that were checked: this program, for all of them;
/// transformers 5.23 with compressed-tensors 0.20, for symmetric ones (q8 and what ends in -sym; its loader expects unpacked zero
/// points). Memory stays bounded whatever the model's size.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder, a .gguf file, a name of the hub or a short one, or tiny
    #[arg(value_name = "M")]
    model: String,

    /// The folder to write, which must not be there yet
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// q8 (int8-g32-sym), q4 (int4-g32-zero), or int8 or int4 with -g32 or -g128 and -sym or -zero
    #[arg(long, value_name = "TO", default_value_t = QuantizeTo::Q8)]
    to: QuantizeTo,

    /// A file of UTF-8 text like what the model will read: errors count as much as what they are multiplied by there
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,

    /// Tokens of it that are read
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    calibration_tokens: u32,

    /// Modules that stay as they are: whole names or their ends, as down_proj
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "lm_head,embed_tokens")]
    keep: Vec<String>,

    /// One JSON object: path, to, group, quantized (matrices), bytes, notes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    if args.out.symlink_metadata().is_ok() {
        return refused(format!("{} is there already; name another folder", args.out.display()));
    }
    if global.quantize.is_some() {
        return refused("--quantize is for loading; --to says what is written");
    }
    let model = Model::open(Some(&args.model), args.json)?;
    let importance = match &args.calibration {
        Some(text) => Some(watch(global, &model, text, args.calibration_tokens as usize, args.json)?),
        None => None,
    };
    let keep: Vec<String> =
        args.keep.iter().map(|name| if name == "embed" { "embed_tokens" } else { name }.to_owned()).collect();
    let importance = |role| importance.as_ref().and_then(|importance| importance.of(role));
    interrupt::listen();
    let interruptible = Interruptible::begin();
    let interrupted = Some(interruptible.flag());
    let options = FolderOptions { to: args.to, keep: &keep, importance: &importance, shard_bytes: None, interrupted };
    let bar = Bar::count("quantising", args.json);
    let written = write_folder(&model.checkpoint, &args.out, &options, &mut |done, total| bar.set(done, total));
    drop((bar, interruptible));
    if let Err(error @ raglan::models::Error::Interrupted { .. }) = &written {
        note(error);
        interrupt::exit();
    }
    let written = written?;
    if args.json {
        return print_json(&serde_json::json!({
            "path": args.out,
            "to": args.to.to_string(),
            "group": written.group,
            "quantized": written.quantized,
            "bytes": written.bytes,
            "notes": written.notes,
        }));
    }
    written.notes.iter().for_each(note);
    print_line(format_args!(
        "{}: {} matrices in {} in groups of {}, {} of weights, which were {}",
        args.out.display(),
        written.quantized,
        args.to,
        written.group,
        bytes(written.bytes),
        bytes(model.checkpoint.weight_bytes()),
    ))
}

/// Runs a text through the model and gathers what its matrices are multiplied by.
fn watch(global: &Global, model: &Model, text: &Path, most_tokens: usize, quiet: bool) -> Result<Importance> {
    let read = std::fs::read_to_string(text).map_err(|source| Error::Io { path: text.into(), source })?;
    let tokens = model.text(", so it reads no text")?.encode(&read, false)?;
    let tokens = &tokens[..tokens.len().min(most_tokens)];
    let options = watching(global);
    let gpu = open_gpu(global)?;
    let bar = LoadingBar::new(quiet);
    let mut uploaded = |done, total| bar.set(Loading::Weights { done, total });
    let mut engine = Stepper::new(&gpu, &model.checkpoint, &options, &mut uploaded)?;
    drop(bar);
    let bar = Bar::count("watching activations", quiet);
    engine.importance(tokens, WINDOW, &mut |done, total| bar.set(done as u64, total as u64))
}

/// The engine that watches: weights as they are, and keys and values in floats, since a rotated cache has `o` read rotated columns,
/// and a lossy one what other inputs would be.
fn watching(global: &Global) -> EngineOptions {
    EngineOptions { max_context: Some(WINDOW), kv_types: None, quantize: None, ..global.engine_options(1) }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    #[test]
    fn activations_are_watched_with_a_cache_of_floats_and_weights_as_they_are() {
        let args = ["raglan", "--kv-type", "int4", "--quantize", "q4", "quantize", "tiny", "out"];
        let Cli { global, .. } = Cli::try_parse_from(args).expect("sound arguments");
        assert!(global.engine_options(1).kv_types.is_some() && global.engine_options(1).quantize.is_some());
        let options = watching(&global);
        assert!(options.kv_types.is_none() && options.quantize.is_none());
    }
}
