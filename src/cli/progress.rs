//! Bars on standard error for what takes its time. They hide themselves where standard error is no terminal.

mod reading;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use raglan::Loading;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A bar appears when its work lasts longer than this.
const PATIENCE: Duration = Duration::from_millis(300);

/// One piece of work that is under way.
pub(super) struct Bar {
    bar: ProgressBar,
    start: Instant,
    shown: AtomicBool,
}

impl Bar {
    /// Bytes of something.
    pub(super) fn bytes(label: &'static str, quiet: bool) -> Bar {
        Bar::new("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}", label, quiet)
    }

    /// Things that are counted.
    pub(super) fn count(label: &'static str, quiet: bool) -> Bar {
        Bar::new("{msg} {wide_bar} {pos}/{len} {eta}", label, quiet)
    }

    /// Requests of which more may come.
    pub(super) fn requests(label: &'static str) -> Bar {
        Bar::new("{msg} {wide_bar} {pos}/{len}", label, false)
    }

    fn new(template: &str, label: &'static str, quiet: bool) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template(template).expect("the templates above parse"));
        bar.set_message(label);
        // A bar that is never to be seen counts as shown.
        Bar { bar, start: Instant::now(), shown: AtomicBool::new(quiet) }
    }

    /// `done` of `total`.
    pub(super) fn set(&self, done: u64, total: u64) {
        if self.start.elapsed() > PATIENCE && !self.shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Leaves the screen to `print` for a moment.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Other words before the bar.
    pub(super) fn say(&self, label: String) {
        self.bar.set_message(label);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A prompt that is being read.
pub(super) struct ReadingBar {
    bar: Bar,
    estimate: reading::Estimate,
    start: Instant,
    tokens: usize,
}

impl ReadingBar {
    /// Of so many tokens.
    pub(super) fn new(tokens: usize, quiet: bool) -> ReadingBar {
        let bar = Bar::new("{msg} {wide_bar} {human_pos}/{human_len} {prefix}", "reading the prompt", quiet);
        ReadingBar { bar, estimate: reading::Estimate::default(), start: Instant::now(), tokens }
    }

    /// So many of them have keys and values.
    pub(super) fn set(&mut self, computed: usize) {
        self.estimate.add(computed, self.start.elapsed());
        if let Some(left) = self.estimate.left(self.tokens) {
            self.bar.bar.set_prefix(format!("{} left", HumanDuration(left)));
        }
        self.bar.set(computed as u64, self.tokens as u64);
    }
}

/// A model that is being loaded: first its weights, then its kernels.
pub(super) struct LoadingBar {
    quiet: bool,
    /// Whether it is the kernels' turn, and the bar of the turn.
    bar: Mutex<(bool, Bar)>,
}

impl LoadingBar {
    pub(super) fn new(quiet: bool) -> LoadingBar {
        LoadingBar { quiet, bar: Mutex::new((false, Bar::bytes("uploading weights", quiet))) }
    }

    /// Shows how far it is.
    pub(super) fn set(&self, loading: Loading) {
        let mut turn = self.bar.lock();
        match loading {
            Loading::Weights { done, total } => turn.1.set(done, total),
            Loading::Kernels { done, total } => {
                if !turn.0 {
                    *turn = (true, Bar::count("compiling kernels", self.quiet));
                }
                turn.1.set(done as u64, total as u64);
            }
        }
    }
}

/// Shows that something goes on whose end cannot be foretold, until it is dropped.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    /// Turns beside `label`.
    pub(super) fn new(label: String, quiet: bool) -> Spinner {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let spinner = ProgressBar::with_draw_target(None, target);
        spinner.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template parses"));
        spinner.set_message(label);
        spinner.enable_steady_tick(Duration::from_millis(120));
        Spinner(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
