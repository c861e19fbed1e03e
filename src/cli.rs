//! The command line, one file a verb. Answers go to standard output, all else to standard error.

mod answer;
mod bench;
mod chat;
mod devices;
mod generate;
mod global;
mod inspect;
mod interrupt;
mod load;
mod output;
mod perplexity;
mod progress;
mod quantize;
mod sampling;
mod self_test;
mod shape;
mod size;
mod tune;

use clap::{Parser, Subcommand};
use global::Global;
use output::Failure;
use raglan::Error;
use std::process::ExitCode;

type Result<T = ()> = std::result::Result<T, Error>;

const AFTER_HELP: &str = "\
Not there yet: serve (HTTP).

Variables:
  RAGLAN_ADAPTER             the adapter, where --adapter is not given
  RAGLAN_CACHE               the folder for fetched models, compiled kernels and the tuner's weights
  RAGLAN_NO_SHIPPED_WEIGHTS  1 leaves the tuner to the user's own weights
  RAGLAN_OFFLINE             1 keeps off the network
  RUST_LOG                   what is logged: raglan=debug, say

Exit codes: 0 done, 1 failed, 2 not understood.";

/// Runs large language models on any adapter with Vulkan, Metal or DX12.
#[derive(Debug, Parser)]
#[command(name = "raglan", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Generate(generate::Args),
    Chat(chat::Args),
    Perplexity(perplexity::Args),
    Inspect(inspect::Args),
    Quantize(quantize::Args),
    Devices(devices::Args),
    Bench(bench::Args),
    Tune(tune::Args),
    SelfTest(self_test::Args),
}

/// The program: reads its arguments, runs the verb, and tells how it ended.
pub(crate) fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    global.start_logging();
    let result = match verb {
        Verb::Generate(args) => generate::run(&global, args),
        Verb::Chat(args) => chat::run(&global, args),
        Verb::Perplexity(args) => perplexity::run(&global, args),
        Verb::Inspect(args) => inspect::run(&global, args),
        Verb::Quantize(args) => quantize::run(&global, args),
        Verb::Devices(args) => devices::run(&global, args),
        Verb::Bench(args) => bench::run(&global, args),
        Verb::Tune(args) => tune::run(&global, &args),
        Verb::SelfTest(args) => self_test::run(&global, args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: {}", Failure(&error)));
            ExitCode::FAILURE
        }
    }
}

/// What a user asked for and cannot have.
fn refused<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Request { message: message.into() })
}
