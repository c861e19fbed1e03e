//! Every test of `raglan self-test`, one by one. Without an adapter they are skipped, and that is said; where the variable
//! `RAGLAN_REQUIRE_ADAPTER` is set it is a failure.

use libtest_mimic::{Arguments, Trial};
use raglan::Error;
use raglan::gpu::GpuOptions;
use raglan::self_test::{Adapters, all};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let _ = env_logger::builder().is_test(true).try_init();
    // One after the other: they share the adapter and its memory.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let adapters = match (Adapters::open(&GpuOptions::default()), arguments.list) {
        (Ok(adapters), _) => Some(Arc::new(adapters)),
        (Err(Error::NoAdapter), _) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => {
            eprintln!("no adapter: every test is skipped");
            None
        }
        (Err(_), true) => None,
        (Err(error), false) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let trial = |test: raglan::self_test::SelfTest| {
        let adapters = adapters.clone();
        let ignored = adapters.is_none();
        let run = move || {
            let Some(adapters) = adapters else { return Ok(()) };
            let result = test.result(&adapters);
            println!("{}: {} ({:.0} ms)", result.name, result.message, result.ms);
            if result.ok { Ok(()) } else { Err(result.message.into()) }
        };
        (ignored, run)
    };
    let trials = all().into_iter().map(|test| {
        let name = test.name.clone();
        let (ignored, run) = trial(test);
        Trial::test(name, run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
