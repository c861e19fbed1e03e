//! `raglan self-test`: whether this adapter computes what it should.

use super::global::Global;
use super::output::{print_json, print_line};
use super::progress::Bar;
use super::{Result, refused};
use raglan::self_test::{self, Schedules, Summary, TestResult};
use serde::Serialize;

/// Characters that are shown of what a test that passed has to say.
const OK_MESSAGE: usize = 90;

/// Test every kernel and the embedded models on the adapter.
///
/// Needs no files and no network: each kernel is held against a plain computation in f64, each model against answers of
/// another implementation. Fails if any test does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run the tests whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,

    /// Try so many schedules of each kernel instead, or `all` that are legal on the adapter
    #[arg(long, value_name = "N|all", value_parser = schedules)]
    schedules: Option<Schedules>,

    /// One JSON object: adapter, passed, failed (names), ms, tests (name, ok, message, ms)
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    summary: Summary,
    tests: Vec<TestResult>,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let mut tests = Vec::new();
    let mut printed = Ok(());
    let bar = Bar::count("schedules", args.json);
    let mut each = |result: &TestResult| {
        if args.json {
            tests.push(result.clone());
        } else if printed.is_ok() {
            let word = if result.ok { "ok" } else { "FAILED" };
            // A failure is told whole.
            let shown = if result.ok { OK_MESSAGE } else { usize::MAX };
            let message: String = result.message.chars().take(shown).collect();
            let line = || print_line(format_args!("{word:<6} {:<44} {:>6.0} ms  {}", result.name, result.ms, message));
            printed = bar.aside(line);
        }
    };
    let options = global.gpu_options();
    let summary = match args.schedules {
        None => self_test::run(&options, &args.filter, &mut each)?,
        Some(schedules) => self_test::sweep(&options, &args.filter, schedules, &mut each, &mut |name, done, of| {
            bar.say(name.to_owned());
            bar.set(done as u64, of as u64);
        })?,
    };
    drop(bar);
    printed?;
    let (passed, failed) = (summary.passed, summary.failed.len());
    let adapter = summary.adapter.clone();
    if passed + failed == 0 {
        return refused(format!("no test has {:?} in its name", args.filter));
    }
    if args.json {
        print_json(&Report { summary, tests })?;
    } else {
        print_line(format_args!("{passed} passed, {failed} failed on {adapter}"))?;
    }
    if failed > 0 { refused(format!("{failed} of {} tests failed on {adapter}", passed + failed)) } else { Ok(()) }
}

fn schedules(text: &str) -> std::result::Result<Schedules, String> {
    match text.parse() {
        _ if text == "all" => Ok(Schedules::All),
        Ok(count) if count > 0 => Ok(Schedules::Some(count)),
        _ => Err(format!("{text:?} is neither `all` nor a number over 0")),
    }
}
