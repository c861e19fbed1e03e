//! Every legal schedule of every kernel against its twin, or some of each, the parts that it is linked with another from
//! schedule to schedule.

use super::rig::{Failure, Rig};
use super::twins::{Twin, twins};
use super::{Adapters, SelfTest, Summary, TestResult, guarded, test};
use crate::gpu::GpuOptions;
use raglan_shaders::ALL;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Instant;

/// Which schedules of each kernel are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedules {
    /// All that are legal on the adapter.
    All,
    /// So many, drawn with a seed.
    Some(usize),
}

/// Of the schedules that are drawn, with the kernel's name.
const SEED: u64 = 4;

/// Failures of a kernel that are told whole.
const TOLD: usize = 3;

/// The twin tests of a kernel: one a weight format, or one.
struct Group {
    name: String,
    twins: Vec<Twin>,
}

fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for twin in twins().into_iter().filter(|twin| twin.mutation.is_none()) {
        let name = format!("schedules/{}", twin.kernel);
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.twins.push(twin),
            None => groups.push(Group { name, twins: vec![twin] }),
        }
    }
    groups
}

/// Tries schedules of the kernels whose names, `schedules/matmul` say, contain `filter`. `each` hears what became of a
/// kernel, `progress` which kernel it is, how many of its schedules are done and of how many.
///
/// # Errors
/// If the adapter that `options` choose cannot be opened.
pub fn sweep(
    options: &GpuOptions,
    filter: &str,
    schedules: Schedules,
    each: &mut dyn FnMut(&TestResult),
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Summary, crate::Error> {
    let start = Instant::now();
    let adapters = Adapters::open(options)?;
    let mut summary = Summary { adapter: adapters.name(), ..Summary::default() };
    for group in groups().into_iter().filter(|group| group.name.contains(filter)) {
        let start = Instant::now();
        let outcome = group.run(&adapters, schedules, progress);
        let result = TestResult::new(group.name, outcome, start);
        each(&result);
        summary.count(result);
    }
    summary.ms = start.elapsed().as_secs_f64() * 1e3;
    Ok(summary)
}

/// One schedule of each kernel that has more than its twin tests cover: those of several tunables.
pub(super) fn tests() -> Vec<SelfTest> {
    let is_wide = |group: &Group| ALL.iter().any(|kernel| kernel.name == group.kernel() && kernel.tunables.len() > 1);
    let sample = move |adapters: &Adapters| {
        let groups: Vec<_> = groups().into_iter().filter(is_wide).collect();
        for group in &groups {
            group
                .run(adapters, Schedules::Some(1), &mut |_, _, _| ())
                .map_err(|message| format!("{}: {message}", group.name))?;
        }
        Ok(format!("a schedule each of {} kernels", groups.len()))
    };
    vec![test("schedules/sample", sample)]
}

impl Group {
    fn kernel(&self) -> &'static str {
        self.twins[0].kernel
    }

    fn run(
        &self,
        adapters: &Adapters,
        schedules: Schedules,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<String, String> {
        // Another draw for each kernel, the same from run to run.
        let mut rng =
            StdRng::seed_from_u64(self.name.bytes().fold(SEED, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)));
        let (mut done, mut failures, mut comparisons, mut most) = (0, Vec::new(), 0, 1);
        let wanted = |most| if let Schedules::Some(count) = schedules { count } else { most };
        while done < wanted(most) {
            let turn = if schedules == Schedules::All { done } else { rng.random_range(0..1 << 20) };
            match guarded(|| self.try_schedule(adapters, turn)) {
                Ok((made, legal)) => (comparisons, most) = (comparisons + made, most.max(legal)),
                Err(message) => failures.push(format!("turn {turn}: {message}")),
            }
            done += 1;
            progress(&self.name, done, wanted(most));
        }
        if failures.is_empty() && comparisons == 0 && most > 1 {
            return Err(format!("none of {done} schedules was compared"));
        }
        if failures.is_empty() {
            return Ok(format!("{done} of {most} schedules, {comparisons} comparisons"));
        }
        let told: Vec<&str> = failures.iter().take(TOLD).map(String::as_str).collect();
        Err(format!("{} of {done} schedules: {}", failures.len(), told.join("; ")))
    }

    /// Comparisons made with schedule `turn` of all legal ones, counted round and round, and how many are legal.
    fn try_schedule(&self, adapters: &Adapters, turn: usize) -> Result<(usize, usize), String> {
        let twin = &self.twins[turn % self.twins.len()];
        let (mut made, mut legal) = (0, 0);
        // One way to link it, unless the schedule is not legal so.
        for rig in adapters.sweeping_ways(turn) {
            let outcome = (twin.check)(&rig);
            outcome.map_err(|failure: Failure| format!("{}: {}", rig.name(), String::from(failure)))?;
            made += rig.checks();
            legal = legal.max(rig.legal_schedules());
            if made > 0 && !rig.has_skipped() {
                break;
            }
        }
        Ok((made, legal))
    }
}

impl Adapters {
    /// Every way to link kernels, from the `turn`th on, each to try schedule `turn` alone.
    fn sweeping_ways(&self, turn: usize) -> impl Iterator<Item = Rig<'_>> {
        let ways = self.choices();
        (0..ways.len()).map(move |i| {
            let (checked, f16, subgroups) = ways[(turn + i) % ways.len()];
            Rig::new(&self.opened[checked], (0, 1), f16, subgroups).sweeping(turn)
        })
    }
}
