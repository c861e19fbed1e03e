//! How far a table is, on standard error, and Ctrl-C that keeps what is measured.

use super::super::Result;
use super::super::output::note;
use super::super::progress::Bar;
use indicatif::HumanDuration;
use raglan::eval::Progress;
use raglan::{Error, Loading};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One bar over a whole table.
pub(super) struct Watch {
    bar: Option<Bar>,
    start: Instant,
    /// Tokens read and to read.
    read: (u64, u64),
}

impl Watch {
    pub(super) fn new(quiet: bool) -> Watch {
        Watch { bar: (!quiet).then(|| Bar::requests("starting")), start: Instant::now(), read: (0, 0) }
    }

    pub(super) fn hear(&mut self, progress: Progress<'_>) {
        let Some(bar) = &self.bar else { return };
        let words = match progress {
            Progress::Loading(what, Loading::Weights { done, total }) => {
                format!("{what}: weights {} %", 100 * done / total.max(1))
            }
            Progress::Loading(what, Loading::Kernels { done, total }) => format!("{what}: kernels {done}/{total}"),
            Progress::Read { what, done, total } => {
                self.read = (done, total);
                what.to_owned()
            }
        };
        let (done, total) = self.read;
        let left = match done {
            0 => String::new(),
            // Loading counts: what is left has to be loaded too.
            _ => {
                let seconds = self.start.elapsed().as_secs_f64() * (total - done.min(total)) as f64 / done as f64;
                format!(", {} left", HumanDuration(Duration::from_secs_f64(seconds)))
            }
        };
        bar.say(words + &left);
        bar.set(done, total.max(1));
    }
}

/// A flag that the first Ctrl-C sets; the second ends the program.
///
/// # Errors
/// If the system lets no one hear of it.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let on_interrupt = move || {
        if stopper.swap(true, Ordering::Relaxed) {
            // 128 and the signal's number, as shells have it.
            std::process::exit(130);
        }
        note("ending after this step; what was measured is printed");
    };
    ctrlc::set_handler(on_interrupt).map_err(|error| Error::Failed { message: error.to_string() })?;
    Ok(stop)
}
