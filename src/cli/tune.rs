//! `raglan tune`: which schedules are fastest here.

mod collect;
mod evaluate;
mod files;
mod pictures;
mod show;
mod tables;
mod train;

pub(super) use files::in_use;

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
    Collect(collect::Args),
    Train(train::Args),
    Evaluate(evaluate::Args),
    Show(show::Args),
}

pub(super) fn run(global: &Global, args: &Args) -> Result {
    match &args.what {
        What::Collect(args) => collect::run(global, args),
        What::Train(args) => train::run(global, args),
        What::Evaluate(args) => evaluate::run(global, args),
        What::Show(args) => show::run(global, args),
    }
}
