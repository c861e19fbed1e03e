//! `raglan tune`: which schedules are fastest here.

mod all;
mod collect;
mod evaluate;
mod files;
mod pictures;
mod show;
mod tables;
mod train;

pub(super) use files::in_use_from;

use super::Result;
use super::global::Global;
use clap::Subcommand;

/// Measure this adapter, and learn which schedules are fastest on it
///
/// Without a verb it does all: collects, trains, evaluates, and has this user's runs pick by what came of it. Ctrl-C keeps what was
/// measured, and the same command goes on with it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    all: all::Args,
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
        None => all::run(global, &args.all),
        Some(What::Collect(args)) => collect::run(global, args),
        Some(What::Train(args)) => train::run(global, args),
        Some(What::Evaluate(args)) => evaluate::run(global, args),
        Some(What::Show(args)) => show::run(global, args),
    }
}
