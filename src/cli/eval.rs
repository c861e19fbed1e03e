//! `raglan eval`: how far every format is from the model's own numbers, and whether it still finds what was said before.

mod compare;
mod kinds;
mod needle;
mod pictures;
mod tables;
mod watch;

use super::global::Global;
use super::load::{Model, ModelArgs};
use super::progress::Spinner;
use super::{Result, refused};
use clap::{Args as ClapArgs, Subcommand};
use kinds::Kinds;
use raglan::eval::Format;
use raglan::models::Tokenizer;
use raglan::shaders::KvType;
use raglan::{EngineOptions, Error};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Judge types of weights and of keys and values by the model's own numbers.
///
/// The reference is the model with its own weights and f16 keys and values (f32 where the adapter has no f16). Its logits are
/// computed once, to a file without a name that is gone when the program ends, and every other combination of --weights and
/// --kv is held against them row by row: perplexity and its change with the standard error of that (tokens taken for
/// independent), KL(reference ‖ format) in nats (mean, 99th percentile by nearest rank, maximum), how often the largest logit is
/// the same (of equal ones the first counts), and how often where the reference's largest logit leads the second by more than 0.1
/// (the difference of the two logits, in nats). The floor is the reference against itself read in steps of another size: what
/// rounding alone does.
///
/// Rows of one --weights have the same quantised weights but for o: where V has 4 bits and is rotated (k8v4, int4), o is rotated
/// before it is quantised.
///
/// Texts have their line ends made \n and are cut into windows that do not overlap. Each begins with what the model wants before
/// a text (its BOS), and nothing is told of the row after that. `eval needle` hides facts in the text and
/// asks for them.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_long_help = compare::SCHEMA)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    compare: compare::CompareArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Hide facts in text and ask for them at its end, at growing depth, in every format
    Needle(needle::Args),
}

#[derive(Debug, ClapArgs)]
struct CommonArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// A file of UTF-8 text; may be given again
    #[arg(long, value_name = "FILE", required = true)]
    text: Vec<PathBuf>,

    /// Types of weights: as-is, or what --quantize takes
    #[arg(long, value_name = "TO,…", default_value = "as-is")]
    weights: Kinds,

    /// Types of keys and values, as --kv-type takes them: what has a = goes on with the one before (int4,0-1=f16)
    #[arg(long, value_name = "TYPE,…", default_value = kinds::DEFAULT_KV)]
    kv: Kinds,

    /// Read nothing more after so many seconds; what is left says so
    #[arg(long, value_name = "S")]
    max_seconds: Option<u64>,

    /// One JSON object instead of tables; its keys are at the end of --help
    #[arg(long)]
    json: bool,

    /// A picture of what was found
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    match args.what {
        None => compare::run(global, &args.compare),
        Some(What::Needle(args)) => needle::run(global, &args),
    }
}

impl CommonArgs {
    /// Every type of weights with every type of keys and values.
    fn formats(&self, global: &Global) -> Result<Vec<Format>> {
        if global.kv_type.is_some() || global.quantize.is_some() {
            return refused(
                "eval compares several types: give them by --kv and --weights instead of --kv-type and --quantize",
            );
        }
        let pairs = self.weights.0.iter().flat_map(|weights| self.kv.0.iter().map(move |kv| (weights, kv)));
        let format = |(weights, kv): (&String, &String)| Format::new(weights, kv);
        pairs.map(format).collect::<std::result::Result<_, _>>().or_else(refused)
    }

    fn deadline(&self) -> Option<Instant> {
        self.max_seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)))
    }

    /// The files' texts.
    fn read(&self) -> Result<Vec<(&Path, String)>> {
        let read = |path: &'_ PathBuf| match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.replace("\r\n", "\n").replace('\r', "\n")),
            Err(source) => Err(Error::Io { path: path.clone(), source }),
        };
        self.text.iter().map(|path| Ok((path.as_path(), read(path)?))).collect()
    }
}

/// Tokens of a text.
fn split(tokenizer: &Tokenizer, text: &str, quiet: bool) -> Result<Vec<u32>> {
    let _spinner = Spinner::new("splitting the text into tokens".to_owned(), quiet);
    Ok(tokenizer.encode(text, false)?)
}

/// How engines are started, formats apart: calibrated as for who runs a model with them.
fn options(global: &Global, model: &Model) -> Result<EngineOptions> {
    model.tell_notes();
    let kv_types = Some(KvType::Int8.into());
    model.calibrated(&EngineOptions { kv_types, ..global.engine_options(1) })
}

/// What a model is called in reports.
fn name(model: &Model) -> String {
    let path = model.checkpoint.path();
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The exit code says whether every row has its numbers.
fn ended(failed: usize, all: usize) -> Result {
    if failed == 0 {
        return Ok(());
    }
    Err(Error::Failed { message: format!("{failed} of {all} rows have not all their numbers; each says why") })
}
