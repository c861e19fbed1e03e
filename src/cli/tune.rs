//! `raglan tune`: which schedules are fastest here.

mod evaluate;
mod files;
mod pictures;
mod tables;
mod train;

use super::Result;
use super::global::Global;
use clap::Subcommand;

/// Measure this adapter, and learn which schedules are fastest on it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Train(train::Args),
    Evaluate(evaluate::Args),
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    match &args.what {
        What::Train(args) => train::run(global, args),
        What::Evaluate(args) => evaluate::run(global, args),
    }
}
