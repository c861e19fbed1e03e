//! Every adapter test, from the one binary: for a user with an unknown GPU, and for machines without cargo.
//! The tests under `tests/` run the same list.

mod batched;
mod data;
mod decoded;
mod dispatches;
mod golden;
mod kv_types;
mod long;
mod memory;
mod moved;
mod ragged;
mod reference;
mod requests;
mod rig;
mod runs;
mod sweep;
mod tuned;
mod twins;

pub use sweep::{Schedules, sweep};

use crate::gpu::{Gpu, GpuOptions};
use rig::{Opened, Rig};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// One test.
pub struct SelfTest {
    /// `twin/matmul/q4_1`: what it is about, then which.
    pub name: String,
    /// Runs it on an open adapter: what it has found, or why it fails.
    pub run: Run,
}

/// The body of a test.
pub type Run = Box<dyn Fn(&Adapters) -> Result<String, String> + Send + Sync>;

/// What became of a test.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TestResult {
    /// The test's.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// What was measured, or the failure.
    pub message: String,
    /// Time that it took.
    pub ms: f64,
}

/// What became of all tests.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Summary {
    /// The adapter, as it names itself, with its driver.
    pub adapter: String,
    /// Tests that passed.
    pub passed: usize,
    /// Names of those that did not.
    pub failed: Vec<String>,
    /// Time in all.
    pub ms: f64,
}

/// The adapter under test, opened in the ways that kernels differ by.
pub struct Adapters {
    /// As a run opens it.
    pub plain: Gpu,
    /// With bounds checks in every kernel.
    pub checked: Gpu,
    opened: [Opened; 2],
}

impl Adapters {
    /// Opens the adapter that `options` choose.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(options: &GpuOptions) -> Result<Adapters, crate::Error> {
        // The tests with checks run kernels as they are written, the others as a GPU is given them.
        let plain = Gpu::open(&GpuOptions { unroll: Some(true), ..options.clone() })?;
        let checked = Gpu::open(&GpuOptions { runtime_checks: true, ..options.clone() })?;
        let opened = [Opened::new(plain.clone(), false)?, Opened::new(checked.clone(), true)?];
        Ok(Adapters { plain, checked, opened })
    }

    /// The adapter as it names itself, with its driver.
    fn name(&self) -> String {
        let adapter = self.plain.summary();
        format!("{adapter}, driver {} {}", adapter.driver, adapter.driver_info)
    }

    /// Every way to link kernels on this adapter: with and without checks, f16 and subgroups. The first two differ in all
    /// of these that the adapter offers, and so do the next two.
    fn choices(&self) -> Vec<(usize, bool, bool)> {
        let limits = self.plain.limits();
        let (f16, subgroups) = ([limits.shader_f16, false], [limits.subgroups, false]);
        let mut ways = Vec::new();
        for (checked, i, j) in [(0, 0, 0), (1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1), (1, 1, 0)]
        {
            let way = (checked, f16[i], subgroups[j]);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    }

    /// A rig for every way to link kernels.
    fn ways(&self) -> Vec<Rig<'_>> {
        let ways = self.choices();
        let count = ways.len();
        let rig = |(turn, (checked, f16, subgroups))| Rig::new(&self.opened[checked], (turn, count), f16, subgroups);
        ways.into_iter().enumerate().map(rig).collect()
    }

    /// A way with checks, in f32, with or without subgroups where the adapter has them; or in f16 with subgroups where it has
    /// cooperative matrices.
    fn checked_way(&self, subgroups: bool, coop: bool) -> Option<Rig<'_>> {
        let limits = self.plain.limits();
        let is_offered = (limits.subgroups || !subgroups) && (limits.coop_side > 0 || !coop);
        is_offered.then(|| Rig::new(&self.opened[1], (0, 1), coop, subgroups || coop))
    }
}

/// Every test, in the order in which a kernel's failure explains a model's.
pub fn all() -> Vec<SelfTest> {
    let mut tests = twins::tests();
    tests.extend(decoded::tests());
    tests.extend(dispatches::tests());
    tests.extend(sweep::tests());
    tests.extend(golden::tests());
    tests.extend(kv_types::tests());
    tests.extend(ragged::tests());
    tests.extend(batched::tests());
    tests.extend(memory::tests());
    tests.extend(long::tests());
    tests.extend(moved::tests());
    tests.extend(requests::tests());
    tests.extend(tuned::tests());
    tests
}

/// Runs the tests whose names contain `filter` on the adapter that `options` choose; `each` hears of every one.
///
/// # Errors
/// If the adapter cannot be opened.
pub fn run(options: &GpuOptions, filter: &str, each: &mut dyn FnMut(&TestResult)) -> Result<Summary, crate::Error> {
    let start = Instant::now();
    let adapters = Adapters::open(options)?;
    let mut summary = Summary { adapter: adapters.name(), ..Summary::default() };
    for test in all().iter().filter(|test| test.name.contains(filter)) {
        let result = test.result(&adapters);
        each(&result);
        summary.count(result);
    }
    summary.ms = start.elapsed().as_secs_f64() * 1e3;
    Ok(summary)
}

impl Summary {
    fn count(&mut self, result: TestResult) {
        if result.ok {
            self.passed += 1;
        } else {
            self.failed.push(result.name);
        }
    }
}

impl TestResult {
    fn new(name: String, outcome: Result<String, String>, start: Instant) -> TestResult {
        let ok = outcome.is_ok();
        let (Ok(message) | Err(message)) = outcome;
        TestResult { name, ok, message, ms: start.elapsed().as_secs_f64() * 1e3 }
    }
}

impl SelfTest {
    /// Runs the test; a panic is a failure of this test alone.
    pub fn result(&self, adapters: &Adapters) -> TestResult {
        let start = Instant::now();
        TestResult::new(self.name.clone(), guarded(|| (self.run)(adapters)), start)
    }
}

/// What `run` returns; a panic is its failure alone.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", message.unwrap_or_default()))
    })
}

/// A test named `name` that runs `run`.
fn test(
    name: impl Into<String>,
    run: impl Fn(&Adapters) -> Result<String, String> + Send + Sync + 'static,
) -> SelfTest {
    SelfTest { name: name.into(), run: Box::new(run) }
}
