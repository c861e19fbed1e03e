//! `raglan bench`: how fast models, kernels and the adapter itself are, and how far from the limit.

mod depth;
mod lists;
mod report;
mod shapes;
mod tables;

use super::Result;
use super::global::Global;
use super::load::{checkpoint, open_gpu};
use super::output::note;
use super::progress::Bar;
use super::refused;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use lists::Numbers;
pub(super) use lists::mix;
use raglan::Error;
use raglan::bench::models::{self, Test};
use raglan::bench::{Adapter, kernels};
use raglan::gpu::Gpu;
use raglan::models::{Synthetic, synthetic};
use report::Report;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure how fast models run here, and how far that is from what this adapter can do.
///
/// Tests are named as llama-bench names them: pp512 reads a prompt of 512 tokens, tg128 writes 128, `@ d4096` behind 4,096 tokens
/// of context, which nobody had to read: the cache is filled with random numbers. Any card can be measured with nothing
/// fetched by --model synthetic:NAME[:FORMAT], random weights of a known model's shapes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    models: ModelArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time tokens behind contexts of growing depth, and fit a straight line
    Depth(depth::Args),
    /// Time every kernel of a few layers, over the shapes of known models
    Kernels(KernelArgs),
    /// Time what each way of choosing schedules picks for products and attention of many shapes
    Shapes(shapes::Args),
    /// Measure the adapter alone: memory, arithmetic, launches, waits between dispatches
    Adapter(OutputArgs),
}

#[derive(Debug, ClapArgs)]
struct ModelArgs {
    /// As for generate, or synthetic:NAME[:FORMAT]; several by commas or by --model again [default: as for generate]
    #[arg(short, long, value_name = "M", value_delimiter = ',')]
    model: Vec<String>,

    /// Tokens of the prompts that are read; 0 for none [default: 512, on software 64]
    #[arg(short, long, value_name = "N,…")]
    prompt: Option<Numbers>,

    /// Tokens of the answers that are written; 0 for none [default: 128, on software 16]
    #[arg(short = 'n', long = "gen", value_name = "N,…")]
    generate: Option<Numbers>,

    /// Tokens of context before each test
    #[arg(short, long, value_name = "N,…", default_value = "0")]
    depth: Numbers,

    /// Sequences that write their answers at once
    #[arg(long, value_name = "N,…", default_value = "1")]
    batch: Numbers,

    /// One more batch, of contexts of unequal length, as 512,4096,32768x2; may be given again
    #[arg(long, value_name = "MIX", value_parser = mix)]
    ragged: Vec<Numbers>,

    /// Really read the contexts, rather than fill the cache with random numbers
    #[arg(long)]
    real_prefill: bool,

    /// Time each dispatch too, and print a table of them
    #[arg(long)]
    timed: bool,

    /// A picture of the time a token over the depth, beside its limit
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
struct KernelArgs {
    /// Models whose shapes are run [default: all that are synthetic, on software smollm2-135m]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    models: Vec<String>,

    /// Weight formats, as f16, q8, q4, q4_k
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',', default_value = "f16,q4")]
    formats: Vec<String>,

    /// Tokens of a step: up to 64 are as many sequences, more a part of one prompt; of 4096
    /// rows llama-2-7b has a product of 4096 cubed [default: 1,8,32,512, on software 1,8]
    #[arg(long, value_name = "N,…")]
    rows: Option<Numbers>,

    /// Tokens of each sequence's context [default: 1024, on software 256]
    #[arg(short, long, value_name = "N,…")]
    depth: Option<Numbers>,

    /// Only kernels whose op, name or shape contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,

    /// A picture of the share of the limit that each kernel reaches
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
struct CommonArgs {
    /// Times that each is measured
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// Begin nothing more after so many seconds; what is left says so
    #[arg(long, value_name = "S")]
    max_seconds: Option<u64>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
struct OutputArgs {
    /// How results are printed
    #[arg(short, long, value_enum, default_value_t = Output::Md)]
    output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables in Markdown
    Md,
    /// One JSON object
    Json,
    /// A line a row, with a head
    Csv,
}

impl CommonArgs {
    /// `None` without one, and for one further off than the clock goes.
    fn deadline(&self) -> Option<Instant> {
        self.max_seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)))
    }
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    match args.what {
        None => run_models(global, &args.models),
        Some(What::Depth(args)) => depth::run(global, &args),
        Some(What::Kernels(args)) => run_kernels(global, &args),
        Some(What::Shapes(args)) => shapes::run(global, &args),
        Some(What::Adapter(args)) => {
            let gpu = open_gpu(global)?;
            Report::new(measure(&gpu)?).print(args.output)
        }
    }
}

fn run_models(global: &Global, args: &ModelArgs) -> Result {
    if args.batch.0.contains(&0) {
        return refused("--batch 0: an answer is of at least one sequence");
    }
    let names: Vec<Option<&str>> = match &args.model[..] {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    // Names are read before the adapter is measured: a wrong one is told at once.
    let checkpoints = names.into_iter().map(|name| checkpoint(name, false)).collect::<Result<Vec<_>>>()?;
    let gpu = open_gpu(global)?;
    let deadline = args.common.deadline();
    let of = |wanted: &Option<Numbers>, hardware: usize, software: usize| match wanted {
        Some(numbers) => numbers.0.clone(),
        None => vec![if gpu.is_software() { software } else { hardware }],
    };
    let mixes: Vec<_> = args.ragged.iter().map(|mix| mix.0.clone()).collect();
    let tests =
        Test::all(&of(&args.prompt, 512, 64), &of(&args.generate, 128, 16), &args.depth.0, &args.batch.0, &mixes);
    if tests.is_empty() {
        return refused("nothing to run: --prompt and --gen are 0");
    }
    let mut report = Report::new(measure(&gpu)?);
    let options = models::Options {
        tests,
        repetitions: args.common.repetitions as usize,
        real_prefill: args.real_prefill,
        timed: args.timed,
        deadline,
        engine: global.engine_options(1),
    };
    let bar = Bar::count("bench", false);
    for checkpoint in &checkpoints {
        let mut progress = |what: &str, done: usize, total: usize| {
            bar.say(what.to_owned());
            bar.set(done as u64, total as u64);
        };
        let (rows, ops) = models::run(&gpu, checkpoint, &report.adapter, &options, &mut progress, &mut |_| ());
        report.rows.extend(rows);
        report.ops.extend(ops);
    }
    drop(bar);
    if let Some(path) = &args.plot {
        write(path, &report.depth_plot())?;
    }
    if args.timed && report.ops.is_empty() && report.rows.iter().any(|row| row.error.is_none()) {
        note("this adapter has no clock to time dispatches by");
    }
    report.print(args.common.output.output)?;
    ended(report.rows.iter().filter(|row| row.error.is_some()).count(), report.rows.len())
}

fn run_kernels(global: &Global, args: &KernelArgs) -> Result {
    let mut all = Vec::new();
    let names: Vec<&str> = match (&args.models[..], open_is_software(global)?) {
        ([], (true, _)) => vec!["smollm2-135m"],
        ([], (false, _)) => Synthetic::names().filter(|name| *name != "tiny").collect(),
        (names, _) => names.iter().map(String::as_str).collect(),
    };
    for name in names {
        for format in &args.formats {
            let name = name.strip_prefix(synthetic::PREFIX).unwrap_or(name);
            all.push(Synthetic::parse(&format!("{}{name}:{format}", synthetic::PREFIX))?);
        }
    }
    let (software, gpu) = open_is_software(global)?;
    let of = |wanted: &Option<Numbers>, hardware: &[usize], fewer: &[usize]| match wanted {
        Some(numbers) => numbers.0.clone(),
        None => if software { fewer } else { hardware }.to_vec(),
    };
    let rows = of(&args.rows, &[1, 8, 32, 512], &[1, 8]);
    if rows.contains(&0) {
        return refused("--rows 0: a step has at least one row");
    }
    let options = kernels::Options {
        models: all,
        rows,
        depths: of(&args.depth, &[1024], &[256]),
        filter: args.filter.clone(),
        repetitions: args.common.repetitions as usize,
        deadline: args.common.deadline(),
        engine: global.engine_options(1),
    };
    let mut report = Report::new(measure(&gpu)?);
    let bar = Bar::count("bench", false);
    report.kernels = kernels::run(&gpu, &report.adapter, &options, &mut |what, done, total| {
        bar.say(what.to_owned());
        bar.set(done as u64, total as u64);
    });
    drop(bar);
    if let Some(path) = &args.plot {
        write(path, &report.kernel_plot())?;
    }
    report.print(args.common.output.output)?;
    ended(report.kernels.iter().filter(|row| row.error.is_some()).count(), report.kernels.len())
}

/// Whether the adapter is a CPU, and the adapter.
fn open_is_software(global: &Global) -> Result<(bool, Gpu)> {
    let gpu = open_gpu(global)?;
    Ok((gpu.is_software(), gpu))
}

fn measure(gpu: &Gpu) -> Result<Adapter> {
    let bar = Bar::count("measuring the adapter", false);
    Adapter::measure(gpu, &mut |what, done, total| {
        bar.say(format!("measuring the adapter: {what}"));
        bar.set(done as u64, total as u64);
    })
}

fn write(path: &PathBuf, text: &str) -> Result {
    std::fs::write(path, text).map_err(|source| Error::Io { path: path.clone(), source })
}

/// The exit code says whether every row has its numbers.
fn ended(failed: usize, all: usize) -> Result {
    if failed == 0 {
        return Ok(());
    }
    Err(Error::Failed { message: format!("{failed} of {all} rows have no numbers; each says why") })
}
